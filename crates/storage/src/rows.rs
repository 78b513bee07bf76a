//! The journal's rows, which the catalog and every replica keep: the last in a table, and those before in the files of its
//! [`archive`](crate::archive), if it has one. Who reads does not notice where a row is.

use domain::{
    ChainHash, Entry, Epoch, IdempotencyKey, LedgerEnd, Order, OrderNumber, Price, Quantity, Row,
    RowNumber, Side, StockName,
};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Statement, params};

use crate::database::Database;
use crate::error::StorageError;
use crate::stock_change;

/// Makes the table.
pub const SCHEMA: &str = "
    CREATE TABLE journal (
        number   INTEGER PRIMARY KEY CHECK (number >= 0),
        epoch    INTEGER NOT NULL CHECK (epoch > 0),
        key      TEXT NOT NULL UNIQUE,
        name     TEXT NOT NULL,
        side     TEXT NOT NULL CHECK (side IN ('buy', 'sell')),
        quantity INTEGER NOT NULL CHECK (quantity > 0),
        price    INTEGER NOT NULL CHECK (price >= 0), -- of one share, in minor units (cents)
        chain    BLOB NOT NULL CHECK (length(chain) = 32)
    ) STRICT;
";

/// Adds to it what rows that change stocks need. SQLite takes no constraint back, so these have a side and a quantity as
/// well, which say nothing; and with a constraint on a new column it would read all rows.
pub const STOCK_CHANGES: &str = "
    ALTER TABLE journal ADD COLUMN stock_changes INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE journal ADD COLUMN stock_change TEXT;
";

/// Its columns, in the order of [`bind`]'s parameters.
pub const COLUMNS: &str =
    "number, epoch, key, name, side, quantity, price, chain, stock_changes, stock_change";

/// How many columns there are, which is how many parameters [`bind`] binds.
pub const COLUMNS_COUNT: usize = 10;

/// Rows that are read at a time by who reads them all.
const CHUNK_ROWS: usize = 4096;

/// Rows that are read by one statement. While it runs, the write-ahead log cannot be begun anew: see [`log`](crate::log).
const BURST_ROWS: usize = 256;

/// Adds rows; part of a transaction of the caller's.
pub fn insert<'a>(
    connection: &Connection,
    rows: impl IntoIterator<Item = &'a Row>,
) -> Result<(), StorageError> {
    let mut statement = connection.prepare_cached(&format!(
        "INSERT INTO journal ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
    ))?;
    for row in rows {
        bind(&mut statement, row)?;
        statement.raw_execute()?;
    }
    Ok(())
}

/// Binds a row to the first parameters of a statement, in the order of [`COLUMNS`].
pub fn bind(statement: &mut Statement<'_>, row: &Row) -> rusqlite::Result<()> {
    let (side, quantity, stock_change) = match &row.entry {
        Entry::Order(order) => (side_name(order.side), order.quantity.get(), None),
        Entry::StockChange(change) => ("sell", 1, Some(stock_change::text(change))),
    };
    statement.raw_bind_parameter(1, row.number.0)?;
    statement.raw_bind_parameter(2, row.epoch.0)?;
    statement.raw_bind_parameter(3, row.entry.key().as_str())?;
    statement.raw_bind_parameter(4, row.entry.name().as_str())?;
    statement.raw_bind_parameter(5, side)?;
    statement.raw_bind_parameter(6, quantity)?;
    statement.raw_bind_parameter(7, row.price.minor())?;
    statement.raw_bind_parameter(8, row.chain.as_bytes())?;
    statement.raw_bind_parameter(9, row.stock_changes)?;
    statement.raw_bind_parameter(10, stock_change)
}

fn side_name(side: Side) -> &'static str {
    match side {
        Side::Buy => "buy",
        Side::Sell => "sell",
    }
}

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

/// Takes the next rows from the table of a database, as many as are wanted and there are. Whether there is nothing before
/// these.
pub(crate) fn take(connection: &Connection, rows: &mut RowsFrom) -> Result<bool, StorageError> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM journal WHERE number >= ? ORDER BY number LIMIT ?"
    ))?;
    while rows.limit() > 0 {
        let (next, limit) = (rows.next(), rows.limit().min(BURST_ROWS));
        let mut found = statement.query(params![next.0, limit as u64])?;
        let mut count = 0;
        while let Some(row) = found.next()? {
            let row = parse(row)?;
            if count == 0 && row.number > next {
                return Ok(false);
            }
            rows.take(row)?;
            count += 1;
        }
        if count < limit {
            break;
        }
    }
    Ok(true)
}

/// Rows from a number on as a database has them, the one before them first: none is taken that does not continue the
/// hash chain.
#[derive(Debug)]
pub struct RowsFrom {
    from: RowNumber,
    rows_max: usize,
    next: RowNumber,
    /// Where the rows end that were taken; `None` where what is before the next one is not known.
    end: Option<LedgerEnd>,
    rows: Vec<Row>,
}

impl RowsFrom {
    /// At most `rows_max` of them.
    pub fn new(from: RowNumber, rows_max: usize) -> Self {
        let first = RowNumber(from.0.saturating_sub(1));
        Self {
            from,
            rows_max,
            next: first,
            end: (from == RowNumber(0)).then(LedgerEnd::default),
            rows: Vec::new(),
        }
    }

    /// The same without the row before them: whether the first one continues the chain is for the caller to see.
    pub(crate) fn trusting(from: RowNumber, rows_max: usize) -> Self {
        Self {
            from,
            rows_max,
            next: from,
            end: None,
            rows: Vec::new(),
        }
    }

    /// The number to go on from: at first that of the row before, where there is one.
    pub fn next(&self) -> RowNumber {
        self.next
    }

    /// How many to read from there.
    pub fn limit(&self) -> usize {
        let before = usize::from(self.next < self.from);
        (self.rows_max - self.rows.len()).saturating_add(before)
    }

    /// Takes the next one, in number order.
    ///
    /// # Errors
    /// [`StorageError::Damaged`] where it is not the next one, or does not continue the chain.
    pub fn take(&mut self, row: Row) -> Result<(), StorageError> {
        if row.number != self.next {
            return Err(missing(self.next));
        }
        if self.end.is_some_and(|end| !end.is_continued_by(&row)) {
            return Err(StorageError::Damaged(format!(
                "row {} does not continue the hash chain",
                row.number
            )));
        }
        self.next = row.number.next();
        self.end = Some(LedgerEnd::of(&row));
        if row.number >= self.from {
            self.rows.push(row);
        }
        Ok(())
    }

    /// Those that were taken, without the one before.
    pub fn into_rows(self) -> Vec<Row> {
        self.rows
    }
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

/// [`StorageError::Damaged`] by this row's absence.
pub fn missing(number: RowNumber) -> StorageError {
    StorageError::Damaged(format!("row {number} is missing"))
}

/// Reads a row off the columns.
///
/// # Errors
/// [`StorageError::Damaged`] where a value is not one that was written.
pub fn parse(row: &rusqlite::Row<'_>) -> Result<Row, StorageError> {
    let text = |column| row.get_ref(column)?.as_str().map_err(rusqlite::Error::from);
    let key = IdempotencyKey::new(text(2)?)?;
    let name = StockName::new(text(3)?)?;
    let entry = match row.get_ref(9)? {
        ValueRef::Null => Entry::Order(Order {
            key,
            name,
            side: match text(4)? {
                "buy" => Side::Buy,
                "sell" => Side::Sell,
                other => {
                    return Err(StorageError::Damaged(format!(
                        "side `{other}` is neither buy nor sell"
                    )));
                }
            },
            quantity: Quantity::new(row.get(5)?)?,
        }),
        _ => Entry::StockChange(stock_change::parse(key, name, text(9)?)?),
    };
    Ok(Row {
        number: RowNumber(row.get(0)?),
        stock_changes: row.get(8)?,
        epoch: Epoch(row.get(1)?),
        entry,
        price: Price::from_minor(row.get(6)?)?,
        chain: ChainHash::try_from(row.get::<_, Vec<u8>>(7)?.as_slice())?,
    })
}

#[cfg(test)]
mod tests;
