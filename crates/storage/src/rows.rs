//! The journal's rows, which the catalog and every replica keep: the last in a table, and those before in the files of its
//! [`archive`](crate::archive), if it has one. Who reads does not notice where a row is.

use domain::{IdempotencyKey, LedgerEnd, OrderNumber, Row, RowNumber};
use rusqlite::OptionalExtension;

use crate::database::Database;
use crate::error::StorageError;
use crate::row_table::take;

pub use crate::row_table::{
    COLUMNS, COLUMNS_COUNT, RowsFrom, SCHEMA, STOCK_CHANGES, bind, insert, missing, parse,
};

/// Rows that are read at a time by who reads them all.
const CHUNK_ROWS: usize = 4096;

/// Where the ledger ends. Looks at its first row and its last, so that a long ledger is opened
/// as fast as a short one: [`read`] notices what is wrong between them.
///
/// # Errors
/// [`StorageError::Damaged`] where either is missing or does not continue the hash chain.
pub fn end(database: &Database) -> Result<LedgerEnd, StorageError> {
    let Some(last) = last(database)? else {
        return Ok(LedgerEnd::default());
    };
    read(database, RowNumber(0), 1)?;
    Ok(LedgerEnd::of(&last))
}

/// The last row, if there is any.
///
/// # Errors
/// [`StorageError::Damaged`] where it does not continue the hash chain.
pub fn last(database: &Database) -> Result<Option<Row>, StorageError> {
    let sql = "SELECT max(number) FROM journal";
    let number: Option<u64> = database.query_row(sql, [], |row| row.get(0))?;
    let Some(number) = number.map(RowNumber) else {
        return Ok(None);
    };
    let row = read(database, number, 1)?.pop();
    Ok(Some(row.ok_or_else(|| missing(number))?))
}

/// At most `rows_max` rows from a number on, in number order and without gaps; none where the
/// ledger ends before it. Every row is checked against the hash chain of the one before it, so
/// that none is returned that was not written.
///
/// # Errors
/// [`StorageError::Damaged`] where one of them, or the one before them, is missing or not as it
/// was written.
pub fn read(
    database: &Database,
    from: RowNumber,
    rows_max: usize,
) -> Result<Vec<Row>, StorageError> {
    let mut rows = RowsFrom::new(from, rows_max);
    // What is not in the table any more is in a file, which holds on to where the next one begins.
    while !take(database, &mut rows)? {
        if !database.archive().take(database, &mut rows)? {
            return Err(missing(rows.next()));
        }
    }
    Ok(rows.into_rows())
}

/// Reads all rows before `end`, a chunk at a time, and checks that each continues the hash chain
/// and is found by its key. `each` gets every chunk, and says whether to go on.
///
/// # Errors
/// [`StorageError::Damaged`] at the first row that is not as it was written, or where the ledger
/// does not end in `end`.
pub fn check(
    database: &Database,
    end: LedgerEnd,
    mut each: impl FnMut(&[Row]) -> bool,
) -> Result<(), StorageError> {
    let mut reached = LedgerEnd::default();
    while reached.rows < end.rows {
        let left = usize::try_from(end.rows.0 - reached.rows.0).unwrap_or(usize::MAX);
        let rows = read(database, reached.rows, left.min(CHUNK_ROWS))?;
        if rows.is_empty() {
            return Err(missing(reached.rows));
        }
        for row in &rows {
            if !reached.is_continued_by(row) {
                return Err(StorageError::Damaged(format!(
                    "row {} does not continue those before it",
                    row.number
                )));
            }
            reached = LedgerEnd::of(row);
            if find_number(database, row.entry.key())? != Some(row.number) {
                return Err(StorageError::Damaged(format!(
                    "row {} is not found by its key",
                    row.number
                )));
            }
        }
        if !each(&rows) {
            return Ok(());
        }
    }
    if reached == end {
        Ok(())
    } else {
        Err(StorageError::Damaged("it does not end as it did".into()))
    }
}

/// The row that an idempotency key made.
///
/// # Errors
/// [`StorageError::Damaged`] where it is not as it was written.
pub fn find_key(database: &Database, key: &IdempotencyKey) -> Result<Option<Row>, StorageError> {
    let Some(number) = find_number(database, key)? else {
        return Ok(None);
    };
    let row = read(database, number, 1)?.pop();
    match row.filter(|row| row.entry.key() == key) {
        Some(row) => Ok(Some(row)),
        None => Err(StorageError::Damaged(format!(
            "row {number} is found by a key that it does not have"
        ))),
    }
}

/// What an index says of a key.
fn find_number(
    database: &Database,
    key: &IdempotencyKey,
) -> Result<Option<RowNumber>, StorageError> {
    let mut statement = database.prepare_cached("SELECT number FROM journal WHERE key = ?")?;
    let number: Option<u64> = statement
        .query_row([key.as_str()], |row| row.get(0))
        .optional()?;
    match number {
        Some(number) => Ok(Some(RowNumber(number))),
        None => database.archive().find(database, key),
    }
}

/// The row of an order, which may be any number of changes of stocks behind the place that its number says.
///
/// # Errors
/// [`StorageError::Damaged`] where a row on the way to it is missing or not as it was written.
pub fn find_order(database: &Database, order: OrderNumber) -> Result<Option<Row>, StorageError> {
    let end = last(database)?.as_ref().map(LedgerEnd::of);
    let Some(mut search) = OrderSearch::new(order, end.unwrap_or_default()) else {
        return Ok(None);
    };
    loop {
        let row = read(database, search.probe(), 1)?.pop();
        let row = row.ok_or_else(|| missing(search.probe()))?;
        if let Some(found) = search.take(row)? {
            return Ok(Some(found));
        }
    }
}

/// Looks for an order's row by looking at a few others: the further rows are, the more orders are before them.
#[derive(Debug)]
pub struct OrderSearch {
    order: OrderNumber,
    from: u64,
    until: u64,
}

impl OrderSearch {
    /// In a ledger that ends there; `None` where it has no such order.
    pub fn new(order: OrderNumber, end: LedgerEnd) -> Option<Self> {
        // Of a number that there is none of, the sum may be none either.
        (order < end.orders()).then(|| Self {
            order,
            from: order.0,
            until: order.0 + end.stock_changes,
        })
    }

    /// The row to look at next.
    pub fn probe(&self) -> RowNumber {
        RowNumber(self.until - (self.until - self.from) / 2)
    }

    /// Takes that row; returns it where it is the order's.
    ///
    /// # Errors
    /// [`StorageError::Damaged`] where there is no such row, though there has to be one.
    pub fn take(&mut self, row: Row) -> Result<Option<Row>, StorageError> {
        if row.order_number() == Some(self.order) {
            return Ok(Some(row));
        }
        let is_before = row.number.0.saturating_sub(row.stock_changes) <= self.order.0;
        // Of the rows that have so many orders before them, the order's is the last.
        match is_before {
            true => self.from = row.number.0 + 1,
            false => self.until = row.number.0.saturating_sub(1),
        }
        match self.from <= self.until {
            true => Ok(None),
            false => Err(StorageError::Damaged(format!(
                "order {} has no row",
                self.order
            ))),
        }
    }
}

#[cfg(test)]
mod tests;
