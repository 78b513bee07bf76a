//! What sides and refusals are called in tables.
//!
//! Tables of before there were changes of stocks have a side, a quantity and a refusal in every row, and some engines take no
//! constraint back: what is refused or recorded of a stock has these as well, which say nothing, and columns of its own.

use domain::{Entry, IdempotencyKey, Order, Quantity, Refusal, Side, StockName};
use storage::{StorageError, stock_change};

use catalog_core::RefusedOrder;

/// What the columns of an entry have, but for its key and its name.
pub(super) struct EntryColumns {
    pub(super) side: &'static str,
    pub(super) quantity: u64,
    pub(super) stock_change: Option<String>,
}

impl EntryColumns {
    pub(super) fn of(entry: &Entry) -> Self {
        match entry {
            Entry::Order(order) => Self {
                side: side_name(order.side),
                quantity: order.quantity.get(),
                stock_change: None,
            },
            Entry::StockChange(change) => Self {
                side: side_name(Side::Sell),
                quantity: 1,
                stock_change: Some(stock_change::text(change)),
            },
        }
    }
}

/// Reads an entry off its columns.
///
/// # Errors
/// [`StorageError::Damaged`] where one is not what was written.
pub(super) fn entry(
    (key, name): (&str, &str),
    (side, quantity): (&str, u64),
    change: Option<&str>,
) -> Result<Entry, StorageError> {
    let (key, name) = (IdempotencyKey::new(key)?, StockName::new(name)?);
    Ok(match change {
        Some(change) => stock_change::parse(key, name, change)?.into(),
        None => Entry::Order(Order {
            key,
            name,
            side: self::side(side)?,
            quantity: Quantity::new(quantity)?,
        }),
    })
}

/// What the column of refusals has of one, and the one for stocks.
pub(super) fn refusal_columns(refused: &RefusedOrder) -> (&'static str, Option<&'static str>) {
    let name = refusal_name(refused.refusal);
    match refused.entry {
        Entry::Order(_) => (name, None),
        Entry::StockChange(_) => (refusal_name(Refusal::StockNotFound), Some(name)),
    }
}

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
        Refusal::StockExists => "stock exists",
        Refusal::TooManyStocks => "too many stocks",
        Refusal::KeyConflict => unreachable!("the key is remembered for another order"),
    }
}

pub(super) fn refusal(name: &str) -> Result<Refusal, StorageError> {
    match name {
        "stock not found" => Ok(Refusal::StockNotFound),
        "not enough" => Ok(Refusal::NotEnough),
        "too many" => Ok(Refusal::TooMany),
        "stock exists" => Ok(Refusal::StockExists),
        "too many stocks" => Ok(Refusal::TooManyStocks),
        other => Err(unknown("refusal", other)),
    }
}

fn unknown(what: &str, found: &str) -> StorageError {
    StorageError::Damaged(format!(
        "there is no {what} `{found}`, which an order that was traded or refused has"
    ))
}
