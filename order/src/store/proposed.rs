//! The table of rows that a replica was sent while the catalog was making them durable.
//!
//! They are not in the ledger: a row gets there once it is committed. Until then, and for a moment
//! after, it is here, so that replicas sync their disks beside the catalog rather than after it.
//! The table is a ring. A row's slot is taken by the one [`PROPOSED_SLOTS`] numbers behind it, which a
//! store takes only once the first is in the ledger.

use domain::{ChainHash, Epoch, Row};
use rusqlite::Connection;

use domain::LedgerEnd;
use order_core::durable::PROPOSED_SLOTS;
use storage::StorageError;
use storage::rows::{COLUMNS, COLUMNS_COUNT, bind, parse};

pub(crate) const SCHEMA: &str = "
    CREATE TABLE proposed ( -- rows that may or may not have been committed; see `journal` for those that were
        slot     INTEGER PRIMARY KEY CHECK (slot = number % 64),
        number   INTEGER NOT NULL CHECK (number >= 0),
        epoch    INTEGER NOT NULL CHECK (epoch > 0),
        key      TEXT NOT NULL,
        name     TEXT NOT NULL,
        side     TEXT NOT NULL CHECK (side IN ('buy', 'sell')),
        quantity INTEGER NOT NULL CHECK (quantity > 0),
        price    INTEGER NOT NULL CHECK (price >= 0),
        chain    BLOB NOT NULL CHECK (length(chain) = 32),
        previous BLOB NOT NULL CHECK (length(previous) = 32) -- chain hash of the row before it
    ) STRICT;
";

/// Adds to it what rows that change stocks need: see [`storage::rows`].
pub(crate) const STOCK_CHANGES: &str = "
    ALTER TABLE proposed ADD COLUMN stock_changes INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE proposed ADD COLUMN stock_change TEXT;
";

/// Keeps rows, each in the place of an older one, and with the chain hash of the row before it; part
/// of a transaction of the caller's.
pub(crate) fn keep<'a>(
    connection: &Connection,
    rows: impl IntoIterator<Item = (&'a Row, ChainHash)>,
) -> Result<(), StorageError> {
    let mut statement = connection.prepare_cached(&format!(
        "INSERT OR REPLACE INTO proposed ({COLUMNS}, slot, previous) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
    ))?;
    for (row, previous) in rows {
        bind(&mut statement, row)?;
        statement.raw_bind_parameter(COLUMNS_COUNT + 1, row.number.0 % PROPOSED_SLOTS)?;
        statement.raw_bind_parameter(COLUMNS_COUNT + 2, previous.as_bytes())?;
        statement.raw_execute()?;
    }
    Ok(())
}

/// The rows that continue a ledger, in number order and without gaps.
///
/// # Errors
/// [`StorageError::Damaged`] where one is not as it was written.
pub(crate) fn continuing(
    connection: &Connection,
    end: LedgerEnd,
) -> Result<Vec<Row>, StorageError> {
    if !connection.table_exists(None, "proposed")? {
        return Ok(Vec::new()); // A ledger of before there was one, opened for reading.
    }
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {COLUMNS}, previous FROM proposed WHERE number >= ? ORDER BY number"
    ))?;
    let mut found = statement.query([end.rows.0])?;
    let (mut rows, mut next): (Vec<Row>, _) = (Vec::new(), end);
    while let Some(row) = found.next()? {
        let previous: Vec<u8> = row.get("previous")?;
        let previous = ChainHash::try_from(previous.as_slice())?;
        let row = parse(row)?;
        if !row.follows(&previous) {
            return Err(StorageError::Damaged(format!(
                "row {}, which was proposed, is not as it was written",
                row.number
            )));
        }
        // What does not continue it came to nothing: another row has that number.
        if !next.is_continued_by(&row) {
            break;
        }
        next = LedgerEnd::of(&row);
        rows.push(row);
    }
    Ok(rows)
}

/// The highest epoch in which any of them was proposed, also of those that came to nothing.
pub(crate) fn highest_epoch(connection: &Connection) -> Result<Epoch, StorageError> {
    if !connection.table_exists(None, "proposed")? {
        return Ok(Epoch(0)); // A ledger of before there was one, opened for reading.
    }
    let sql = "SELECT ifnull(max(epoch), 0) FROM proposed";
    Ok(Epoch(connection.query_row(sql, [], |row| row.get(0))?))
}
