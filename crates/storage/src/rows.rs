//! The table of journal rows, which the catalog and every replica keep.

use domain::{
    ChainHash, Entry, Epoch, IdempotencyKey, LedgerEnd, Order, OrderNumber, Price, Quantity, Row,
    RowNumber, Side, StockName,
};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Statement, params};

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
pub fn end(connection: &Connection) -> Result<LedgerEnd, StorageError> {
    let Some(last) = last(connection)? else {
        return Ok(LedgerEnd::default());
    };
    read(connection, RowNumber(0), 1)?;
    Ok(LedgerEnd::of(&last))
}

/// The last row, if there is any.
///
/// # Errors
/// [`StorageError::Damaged`] where it does not continue the hash chain.
pub fn last(connection: &Connection) -> Result<Option<Row>, StorageError> {
    let sql = "SELECT max(number) FROM journal";
    let number: Option<u64> = connection.query_row(sql, [], |row| row.get(0))?;
    let Some(number) = number.map(RowNumber) else {
        return Ok(None);
    };
    let row = read(connection, number, 1)?.pop();
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
    connection: &Connection,
    from: RowNumber,
    rows_max: usize,
) -> Result<Vec<Row>, StorageError> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM journal WHERE number >= ? ORDER BY number LIMIT ?"
    ))?;
    let mut rows = RowsFrom::new(from, rows_max);
    let mut found = statement.query(params![rows.first().0, rows.limit() as u64])?;
    while let Some(row) = found.next()? {
        rows.take(parse(row)?)?;
    }
    Ok(rows.into_rows())
}

/// Rows from a number on as a database has them, the one before them first: none is taken that does not continue the
/// hash chain.
#[derive(Debug)]
pub struct RowsFrom {
    from: RowNumber,
    rows_max: usize,
    next: RowNumber,
    /// Where the rows end that were taken.
    end: LedgerEnd,
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
            end: LedgerEnd::default(),
            rows: Vec::new(),
        }
    }

    /// The number to read from: that of the row before, where there is one.
    pub fn first(&self) -> RowNumber {
        RowNumber(self.from.0.saturating_sub(1))
    }

    /// How many to read from there.
    pub fn limit(&self) -> usize {
        self.rows_max
            .saturating_add(usize::from(self.first() < self.from))
    }

    /// Takes the next one, in number order.
    ///
    /// # Errors
    /// [`StorageError::Damaged`] where it is not the next one, or does not continue the chain.
    pub fn take(&mut self, row: Row) -> Result<(), StorageError> {
        if row.number != self.next {
            return Err(missing(self.next));
        }
        let is_before = row.number < self.from;
        if !is_before && !self.end.is_continued_by(&row) {
            return Err(StorageError::Damaged(format!(
                "row {} does not continue the hash chain",
                row.number
            )));
        }
        self.next = row.number.next();
        self.end = LedgerEnd::of(&row);
        if !is_before {
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
    connection: &Connection,
    end: LedgerEnd,
    mut each: impl FnMut(&[Row]) -> bool,
) -> Result<(), StorageError> {
    let mut reached = LedgerEnd::default();
    let mut by_key =
        connection.prepare_cached("SELECT number FROM journal WHERE key = ? LIMIT 1")?;
    while reached.rows < end.rows {
        let left = usize::try_from(end.rows.0 - reached.rows.0).unwrap_or(usize::MAX);
        let rows = read(connection, reached.rows, left.min(CHUNK_ROWS))?;
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
            let key = row.entry.key().as_str();
            let found: Option<u64> = by_key.query_row([key], |row| row.get(0)).optional()?;
            if found != Some(row.number.0) {
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
pub fn find_key(
    connection: &Connection,
    key: &IdempotencyKey,
) -> Result<Option<Row>, StorageError> {
    let mut statement = connection.prepare_cached("SELECT number FROM journal WHERE key = ?")?;
    let number: Option<u64> = statement
        .query_row([key.as_str()], |row| row.get(0))
        .optional()?;
    let Some(number) = number.map(RowNumber) else {
        return Ok(None);
    };
    let row = read(connection, number, 1)?.pop();
    match row.filter(|row| row.entry.key() == key) {
        Some(row) => Ok(Some(row)),
        None => Err(StorageError::Damaged(format!(
            "row {number} is found by a key that it does not have"
        ))),
    }
}

/// The row of an order, which may be any number of changes of stocks behind the place that its number says.
///
/// # Errors
/// [`StorageError::Damaged`] where a row on the way to it is missing or not as it was written.
pub fn find_order(
    connection: &Connection,
    order: OrderNumber,
) -> Result<Option<Row>, StorageError> {
    let end = last(connection)?.as_ref().map(LedgerEnd::of);
    let Some(mut search) = OrderSearch::new(order, end.unwrap_or_default()) else {
        return Ok(None);
    };
    loop {
        let row = read(connection, search.probe(), 1)?.pop();
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
mod tests {
    use domain::{Note, StockChange, StockChangeKind};

    use super::*;

    fn some_rows(count: u64) -> Vec<Row> {
        let mut rows: Vec<Row> = Vec::new();
        for number in 0..count {
            let end = rows.last().map(LedgerEnd::of).unwrap_or_default();
            let order = Order {
                key: IdempotencyKey::new(&format!("key-{number}")).unwrap(),
                name: StockName::new("nvidia").unwrap(),
                side: if number % 2 == 0 {
                    Side::Buy
                } else {
                    Side::Sell
                },
                quantity: Quantity::new(number + 1).unwrap(),
            };
            let price = Price::from_minor(24063).unwrap();
            rows.push(Row::following(&end, Epoch(3), order, price));
        }
        rows
    }

    fn database(rows: &[Row]) -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(SCHEMA).unwrap();
        connection.execute_batch(STOCK_CHANGES).unwrap();
        insert(&connection, rows).unwrap();
        connection
    }

    #[test]
    fn rows_are_read_as_they_were_written() {
        let rows = some_rows(5);
        let connection = database(&rows);
        assert_eq!(read(&connection, RowNumber(0), 100).unwrap(), rows);
        assert_eq!(read(&connection, RowNumber(2), 2).unwrap(), rows[2..4]);
        assert_eq!(
            find_key(&connection, rows[3].entry.key()).unwrap().as_ref(),
            Some(&rows[3])
        );
        assert_eq!(
            find_key(&connection, &IdempotencyKey::new("other").unwrap()).unwrap(),
            None
        );
        assert_eq!(
            end(&connection).unwrap(),
            LedgerEnd {
                rows: RowNumber(5),
                stock_changes: 0,
                chain: rows[4].chain
            }
        );
    }

    /// Rows of which some are changes of stocks, as a word says with `c`.
    fn mixed_rows(word: &str) -> Vec<Row> {
        let mut end = LedgerEnd::default();
        let rows = word.bytes().enumerate().map(|(number, kind)| {
            let key = IdempotencyKey::new(&format!("key-{number}")).unwrap();
            let name = StockName::new("nvidia").unwrap();
            let price = Price::from_minor(24063).unwrap();
            let entry: Entry = match kind {
                b'c' => Entry::StockChange(StockChange {
                    key,
                    name,
                    kind: StockChangeKind::Price { price },
                    note: Note::new("somebody", "because"),
                }),
                _ => Entry::Order(Order {
                    key,
                    name,
                    side: Side::Buy,
                    quantity: Quantity::new(1).unwrap(),
                }),
            };
            let row = Row::following(&end, Epoch(3), entry, price);
            end = LedgerEnd::of(&row);
            row
        });
        rows.collect()
    }

    #[test]
    fn an_order_is_found_among_changes_of_stocks_by_the_number_that_clients_know() {
        for word in [
            "",
            "o",
            "c",
            "cccc",
            "oooo",
            "ococcoocccco",
            "ccccco",
            "occcccco",
            "coooooc",
        ] {
            let rows = mixed_rows(word);
            let connection = database(&rows);
            assert_eq!(read(&connection, RowNumber(0), 100).unwrap(), rows);
            let whole = rows.last().map(LedgerEnd::of).unwrap_or_default();
            assert_eq!(end(&connection).unwrap(), whole);
            check(&connection, whole, |_| true).unwrap();
            let orders: Vec<&Row> = rows.iter().filter(|row| row.order().is_some()).collect();
            assert_eq!(whole.orders(), OrderNumber(orders.len() as u64));
            for number in 0..orders.len() + 2 {
                let found = find_order(&connection, OrderNumber(number as u64)).unwrap();
                assert_eq!(
                    found.as_ref(),
                    orders.get(number).copied(),
                    "{number} of {word}"
                );
            }
        }
    }

    #[test]
    fn a_second_row_for_a_key_is_refused() {
        let rows = some_rows(2);
        let connection = database(&rows[..1]);
        let again = Row {
            entry: rows[0].entry.clone(),
            ..rows[1].clone()
        };
        assert!(insert(&connection, [&again]).is_err());
    }

    #[test]
    fn a_missing_row_is_noticed_by_whoever_reads_there_or_behind() {
        let rows = some_rows(6);
        let connection = database(&rows);
        connection
            .execute("DELETE FROM journal WHERE number = 3", [])
            .unwrap();
        let sound = |from: usize, rows_max: usize| {
            let read = read(&connection, RowNumber(from as u64), rows_max).unwrap();
            assert_eq!(read, rows[from..rows.len().min(from + rows_max)]);
        };
        sound(0, 3);
        sound(5, 100);
        sound(6, 100);
        for (from, rows_max) in [(0, 4), (0, 100), (2, 2), (3, 1), (4, 1)] {
            let damaged = read(&connection, RowNumber(from), rows_max).unwrap_err();
            assert!(matches!(damaged, StorageError::Damaged(_)), "{damaged}");
            assert!(damaged.to_string().contains("row 3 is missing"));
        }
        // Not by who opens it: that would read the whole ledger.
        let end = end(&connection).unwrap();
        assert_eq!(end.rows, RowNumber(6));
        assert!(check(&connection, end, |_| true).unwrap_err().is_damage());
    }

    #[test]
    fn a_row_that_was_changed_is_not_returned() {
        let rows = some_rows(6);
        let changes = [
            "UPDATE journal SET quantity = quantity + 1 WHERE number = 3",
            "UPDATE journal SET price = 1 WHERE number = 3",
            "UPDATE journal SET side = iif(side = 'buy', 'sell', 'buy') WHERE number = 3",
            "UPDATE journal SET key = 'another' WHERE number = 3",
            "UPDATE journal SET name = 'meta' WHERE number = 3",
            "UPDATE journal SET epoch = epoch + 1 WHERE number = 3",
            "UPDATE journal SET chain = zeroblob(32) WHERE number = 3",
            "UPDATE journal SET stock_changes = 1 WHERE number = 3",
            r#"UPDATE journal SET stock_change = '{"change":"delist","who":"","why":""}' WHERE number = 3"#,
        ];
        for change in changes {
            let connection = database(&rows);
            let whole = end(&connection).unwrap();
            check(&connection, whole, |_| true).unwrap();
            connection.execute(change, []).unwrap();
            assert!(read(&connection, RowNumber(3), 1).unwrap_err().is_damage());
            assert_eq!(read(&connection, RowNumber(0), 3).unwrap(), rows[..3]);
            for key in [
                rows[3].entry.key(),
                &IdempotencyKey::new("another").unwrap(),
            ] {
                let found = find_key(&connection, key);
                assert!(!matches!(found, Ok(Some(_))), "{change}: {found:?}");
            }
            let damaged = check(&connection, whole, |_| true).unwrap_err();
            assert!(damaged.is_damage(), "{change}");
        }
    }

    #[test]
    fn a_row_that_its_key_does_not_find_is_damage() {
        let connection = database(&some_rows(3));
        let whole = end(&connection).unwrap();
        let root = "(SELECT rootpage FROM sqlite_schema WHERE type = 'index')";
        connection
            .execute_batch(&format!(
                "PRAGMA writable_schema = ON;
                 CREATE TABLE other (key TEXT NOT NULL UNIQUE);
                 UPDATE sqlite_schema SET rootpage =
                     (SELECT rootpage FROM sqlite_schema WHERE tbl_name = 'other' AND type = 'index')
                 WHERE tbl_name = 'journal' AND rootpage IN {root} AND type = 'index';
                 PRAGMA writable_schema = RESET;"
            ))
            .unwrap();
        let damaged = check(&connection, whole, |_| true).unwrap_err();
        assert!(damaged.to_string().contains("by its key"), "{damaged}");
    }

    #[test]
    fn a_ledger_without_its_first_row_is_not_opened() {
        let connection = database(&some_rows(4));
        connection
            .execute("DELETE FROM journal WHERE number < 2", [])
            .unwrap();
        let damaged = end(&connection).unwrap_err();
        assert!(matches!(damaged, StorageError::Damaged(_)), "{damaged}");
    }

    #[test]
    fn nonsense_is_reported_as_damage() {
        let connection = database(&some_rows(1));
        connection
            .execute("UPDATE journal SET name = ''", [])
            .unwrap();
        assert!(matches!(
            read(&connection, RowNumber(0), 1),
            Err(StorageError::Damaged(_))
        ));
    }
}
