//! The orders that were refused, as far as they are remembered.

use domain::{IdempotencyKey, JournalId};
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use storage::StorageError;

use crate::store::REFUSED_ORDERS_KEPT;
use crate::store::checksums::of_refused;
use crate::store::words::{EntryColumns, entry, refusal, refusal_columns};
use catalog_core::RefusedOrder;

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

/// Adds what changes of stocks need: see [`words`](crate::store::words).
pub(super) const STOCK_CHANGES: &str = "
    ALTER TABLE refused ADD COLUMN stock_change TEXT;
    ALTER TABLE refused ADD COLUMN stock_refusal TEXT;
";

const COLUMNS: &str =
    "id, key, name, side, quantity, refusal, checksum, stock_change, stock_refusal";

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
            let key = kept.refused.entry.key().as_str();
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

/// All of them, in the order in which they were refused.
pub(super) fn all(connection: &Connection) -> Result<Vec<RefusedOrder>, StorageError> {
    let mut all = Vec::new();
    each_chunk(connection, |chunk| {
        all.extend(chunk.iter().map(|kept| kept.refused.clone()));
        Ok(true)
    })?;
    Ok(all)
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
        "INSERT INTO refused (key, name, side, quantity, refusal, checksum, stock_change, stock_refusal)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    )?;
    for refused in refused {
        let entry = EntryColumns::of(&refused.entry);
        let (refusal, stock_refusal) = refusal_columns(refused);
        statement.execute(params![
            refused.entry.key().as_str(),
            refused.entry.name().as_str(),
            entry.side,
            entry.quantity,
            refusal,
            of_refused(journal, refused).finish(),
            entry.stock_change,
            stock_refusal,
        ])?;
    }
    let mut forget = transaction
        .prepare_cached("DELETE FROM refused WHERE id <= (SELECT max(id) FROM refused) - ?")?;
    forget.execute([REFUSED_ORDERS_KEPT])?;
    Ok(())
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
        let (change, of_stock): (Option<String>, Option<String>) = (row.get(7)?, row.get(8)?);
        let entry = entry(
            (text(1)?, text(2)?),
            (text(3)?, row.get(4)?),
            change.as_deref(),
        )?;
        let refusal = match of_stock {
            Some(of_stock) => refusal(&of_stock)?,
            None => refusal(text(5)?)?,
        };
        Ok(Self {
            id: row.get(0)?,
            refused: RefusedOrder { entry, refusal },
            checksum: row.get(6)?,
        })
    }

    fn verify(&self, journal: JournalId) -> Result<(), StorageError> {
        of_refused(journal, &self.refused).check(self.checksum.as_deref())
    }
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
