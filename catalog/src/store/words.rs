//! What sides and refusals are called in tables.

use domain::{Refusal, Side};
use storage::StorageError;

pub(super) fn side_name(side: Side) -> &'static str {
    match side {
        Side::Buy => "buy",
        Side::Sell => "sell",
    }
}

/// # Errors
/// [`StorageError::Damaged`] where there is none of that name; the same with
/// [refusals](refusal).
pub(super) fn side(name: &str) -> Result<Side, StorageError> {
    match name {
        "buy" => Ok(Side::Buy),
        "sell" => Ok(Side::Sell),
        other => Err(unknown("side", other)),
    }
}

pub(super) fn refusal_name(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::StockNotFound => "stock not found",
        Refusal::NotEnough => "not enough",
        Refusal::TooMany => "too many",
        Refusal::KeyConflict => unreachable!("the key is remembered for another order"),
    }
}

pub(super) fn refusal(name: &str) -> Result<Refusal, StorageError> {
    match name {
        "stock not found" => Ok(Refusal::StockNotFound),
        "not enough" => Ok(Refusal::NotEnough),
        "too many" => Ok(Refusal::TooMany),
        other => Err(unknown("refusal", other)),
    }
}

fn unknown(what: &str, found: &str) -> StorageError {
    StorageError::Damaged(format!(
        "there is no {what} `{found}`, which an order that was traded or refused has"
    ))
}
