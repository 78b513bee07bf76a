//! The table of rows, which databases and the files of their archives have alike.

use domain::{
    ChainHash, Entry, Epoch, IdempotencyKey, LedgerEnd, Order, Price, Quantity, Row, RowNumber,
    Side, StockName,
};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Statement, params};

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
