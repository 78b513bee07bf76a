//! The orders that were refused, as far as they are remembered.

use protocol::{IdempotencyKey, Order, Quantity, Side, StockName};
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use storage::StorageError;

use crate::core::{Refusal, RefusedOrder};
use crate::store::REFUSED_ORDERS_KEPT;

pub(super) const SCHEMA: &str = "
    CREATE TABLE refused ( -- orders that will have no row in the journal; the last of them
        id       INTEGER PRIMARY KEY, -- rises
        key      TEXT NOT NULL UNIQUE,
        name     TEXT NOT NULL,
        side     TEXT NOT NULL CHECK (side IN ('buy', 'sell')),
        quantity INTEGER NOT NULL CHECK (quantity > 0),
        refusal  TEXT NOT NULL CHECK (refusal IN ('stock not found', 'not enough', 'too many'))
    ) STRICT;
";

/// The order that was refused under a key.
pub(super) fn find(
    connection: &Connection,
    key: &IdempotencyKey,
) -> Result<Option<RefusedOrder>, StorageError> {
    let mut statement = connection
        .prepare_cached("SELECT name, side, quantity, refusal FROM refused WHERE key = ?")?;
    let found = statement
        .query_row([key.as_str()], |row| {
            let text = |column| row.get::<_, String>(column);
            Ok((text(0)?, text(1)?, row.get::<_, u64>(2)?, text(3)?))
        })
        .optional()?;
    let Some((name, side, quantity, refusal)) = found else {
        return Ok(None);
    };
    let order = Order {
        key: key.clone(),
        name: StockName::new(&name)?,
        side: match &*side {
            "buy" => Side::Buy,
            _ => Side::Sell,
        },
        quantity: Quantity::new(quantity)?,
    };
    let refusal = match &*refusal {
        "stock not found" => Refusal::StockNotFound,
        "not enough" => Refusal::NotEnough,
        _ => Refusal::TooMany,
    };
    Ok(Some(RefusedOrder { order, refusal }))
}

/// Remembers orders, and forgets as many as are too many then.
pub(super) fn insert(
    transaction: &Transaction<'_>,
    refused: &[RefusedOrder],
) -> Result<(), StorageError> {
    if refused.is_empty() {
        return Ok(());
    }
    let mut statement = transaction.prepare_cached(
        "INSERT INTO refused (key, name, side, quantity, refusal) VALUES (?, ?, ?, ?, ?)",
    )?;
    for RefusedOrder { order, refusal } in refused {
        let side = match order.side {
            Side::Buy => "buy",
            Side::Sell => "sell",
        };
        let refusal = match refusal {
            Refusal::StockNotFound => "stock not found",
            Refusal::NotEnough => "not enough",
            Refusal::TooMany => "too many",
            Refusal::KeyConflict => unreachable!("the key is remembered for another order"),
        };
        statement.execute(params![
            order.key.as_str(),
            order.name.as_str(),
            side,
            order.quantity.get(),
            refusal
        ])?;
    }
    let mut forget = transaction
        .prepare_cached("DELETE FROM refused WHERE id <= (SELECT max(id) FROM refused) - ?")?;
    forget.execute([REFUSED_ORDERS_KEPT])?;
    Ok(())
}
