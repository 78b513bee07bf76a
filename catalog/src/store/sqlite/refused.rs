//! The orders that were refused, as far as they are remembered.

use domain::{IdempotencyKey, JournalId, Order, Quantity, Side, StockName};
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use storage::{Checksum, StorageError};

use crate::store::REFUSED_ORDERS_KEPT;
use catalog_core::RefusedOrder;
use domain::Refusal;

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

const COLUMNS: &str = "id, key, name, side, quantity, refusal, checksum";

/// Orders that are read at a time by who reads them all.
const CHUNK: usize = 4096;

/// The order that was refused under a key.
///
/// # Errors
/// [`StorageError::Damaged`] where it is not as it was written.
pub(super) fn find(
    connection: &Connection,
    journal: JournalId,
    key: &IdempotencyKey,
) -> Result<Option<RefusedOrder>, StorageError> {
    let mut statement =
        connection.prepare_cached(&format!("SELECT {COLUMNS} FROM refused WHERE key = ?"))?;
    let mut found = statement.query([key.as_str()])?;
    let Some(row) = found.next()? else {
        return Ok(None);
    };
    let kept = Kept::parse(row)?;
    kept.verify(journal)?;
    Ok(Some(kept.refused))
}

/// Reads all of them, a chunk at a time; `keep_going` is asked after each.
///
/// # Errors
/// [`StorageError::Damaged`] at the first that is not as it was written, or not found by its key.
pub(super) fn check(
    connection: &Connection,
    journal: JournalId,
    mut keep_going: impl FnMut() -> bool,
) -> Result<(), StorageError> {
    let mut by_key = connection.prepare_cached("SELECT id FROM refused WHERE key = ?")?;
    each_chunk(connection, |chunk| {
        for kept in chunk {
            kept.verify(journal)?;
            let key = kept.refused.order.key.as_str();
            let found: Option<i64> = by_key.query_row([key], |row| row.get(0)).optional()?;
            if found != Some(kept.id) {
                return Err(StorageError::Damaged(format!(
                    "the order that was refused under key {key} is not found by it"
                )));
            }
        }
        Ok(keep_going())
    })
}

/// Gives checksums to those of a database of before there were any.
pub(super) fn cover(transaction: &Transaction<'_>, journal: JournalId) -> Result<(), StorageError> {
    let mut statement = transaction.prepare("UPDATE refused SET checksum = ? WHERE id = ?")?;
    each_chunk(transaction, |chunk| {
        for Kept { id, refused, .. } in chunk {
            let checksum = of_refused(journal, refused).finish();
            statement.execute(params![checksum, id])?;
        }
        Ok(true)
    })
}

/// Remembers orders, and forgets as many as are too many then.
pub(super) fn insert(
    transaction: &Transaction<'_>,
    journal: JournalId,
    refused: &[RefusedOrder],
) -> Result<(), StorageError> {
    if refused.is_empty() {
        return Ok(());
    }
    let mut statement = transaction.prepare_cached(
        "INSERT INTO refused (key, name, side, quantity, refusal, checksum) VALUES (?, ?, ?, ?, ?, ?)",
    )?;
    for refused in refused {
        let RefusedOrder { order, refusal } = refused;
        let side = match order.side {
            Side::Buy => "buy",
            Side::Sell => "sell",
        };
        statement.execute(params![
            order.key.as_str(),
            order.name.as_str(),
            side,
            order.quantity.get(),
            name(*refusal),
            of_refused(journal, refused).finish(),
        ])?;
    }
    let mut forget = transaction
        .prepare_cached("DELETE FROM refused WHERE id <= (SELECT max(id) FROM refused) - ?")?;
    forget.execute([REFUSED_ORDERS_KEPT])?;
    Ok(())
}

/// The checksum of an order that was refused.
fn of_refused(journal: JournalId, refused: &RefusedOrder) -> Checksum {
    let RefusedOrder { order, refusal } = refused;
    Checksum::of("an order that was refused", journal)
        .text(order.key.as_str())
        .text(order.name.as_str())
        .number(match order.side {
            Side::Buy => 1,
            Side::Sell => 2,
        })
        .number(order.quantity.get())
        .text(name(*refusal))
}

/// What a refusal is called in the table.
fn name(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::StockNotFound => "stock not found",
        Refusal::NotEnough => "not enough",
        Refusal::TooMany => "too many",
        Refusal::KeyConflict => unreachable!("the key is remembered for another order"),
    }
}

/// A row of the table.
struct Kept {
    id: i64,
    refused: RefusedOrder,
    checksum: Option<Vec<u8>>,
}

impl Kept {
    fn parse(row: &rusqlite::Row<'_>) -> Result<Self, StorageError> {
        let text = |column| row.get_ref(column)?.as_str().map_err(rusqlite::Error::from);
        let order = Order {
            key: IdempotencyKey::new(text(1)?)?,
            name: StockName::new(text(2)?)?,
            side: match text(3)? {
                "buy" => Side::Buy,
                "sell" => Side::Sell,
                other => return Err(unknown("side", other)),
            },
            quantity: Quantity::new(row.get(4)?)?,
        };
        let refusal = match text(5)? {
            "stock not found" => Refusal::StockNotFound,
            "not enough" => Refusal::NotEnough,
            "too many" => Refusal::TooMany,
            other => return Err(unknown("refusal", other)),
        };
        Ok(Self {
            id: row.get(0)?,
            refused: RefusedOrder { order, refusal },
            checksum: row.get(6)?,
        })
    }

    fn verify(&self, journal: JournalId) -> Result<(), StorageError> {
        of_refused(journal, &self.refused).check(self.checksum.as_deref())
    }
}

fn unknown(what: &str, found: &str) -> StorageError {
    StorageError::Damaged(format!(
        "there is no {what} `{found}`, which an order that was refused has"
    ))
}

/// Reads all rows in the order in which they were refused, until `each` says no.
fn each_chunk(
    connection: &Connection,
    mut each: impl FnMut(&[Kept]) -> Result<bool, StorageError>,
) -> Result<(), StorageError> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM refused WHERE id > ? ORDER BY id LIMIT ?"
    ))?;
    let mut after = i64::MIN;
    loop {
        let mut found = statement.query(params![after, CHUNK as u64])?;
        let mut chunk = Vec::new();
        while let Some(row) = found.next()? {
            chunk.push(Kept::parse(row)?);
        }
        drop(found); // The statement is over before `each` writes.
        let Some(last) = chunk.last() else {
            return Ok(());
        };
        after = last.id;
        if !each(&chunk)? || chunk.len() < CHUNK {
            return Ok(());
        }
    }
}
