//! The table of journal rows, which the catalog and every replica keep.

use protocol::{
    ChainHash, Epoch, IdempotencyKey, Order, OrderNumber, Price, Quantity, Row, Side, StockName,
};
use rusqlite::{Connection, OptionalExtension, params};

use crate::error::StorageError;

/// Makes the table where it is missing.
pub const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS journal (
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

const COLUMNS: &str = "number, epoch, key, name, side, quantity, price, chain";

/// The ledger's first number, its last, and that one's chain hash.
const ENDS: &str = "
    SELECT (SELECT min(number) FROM journal), number, chain
    FROM journal ORDER BY number DESC LIMIT 1
";

/// How far a ledger reaches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct End {
    /// How many rows it holds; the number of the next one.
    pub rows: OrderNumber,
    /// Chain hash of its last row.
    pub chain: ChainHash,
}

/// Adds rows; part of a transaction of the caller's.
pub fn insert<'a>(
    connection: &Connection,
    rows: impl IntoIterator<Item = &'a Row>,
) -> Result<(), StorageError> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO journal (number, epoch, key, name, side, quantity, price, chain) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    )?;
    for row in rows {
        statement.execute(params![
            row.number.0,
            row.epoch.0,
            row.order.key.as_str(),
            row.order.name.as_str(),
            match row.order.side {
                Side::Buy => "buy",
                Side::Sell => "sell",
            },
            row.order.quantity.get(),
            row.price.minor(),
            row.chain.as_bytes(),
        ])?;
    }
    Ok(())
}

/// Where the ledger ends. Looks at its first row and its last, so that a long ledger is opened
/// as fast as a short one: [`read`] notices what is missing between them.
///
/// # Errors
/// [`StorageError::Damaged`] where the first row is missing.
pub fn end(connection: &Connection) -> Result<End, StorageError> {
    let ends = connection
        .query_row(ENDS, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    let Some((first, last, chain)): Option<(u64, u64, Vec<u8>)> = ends else {
        return Ok(End::default());
    };
    if first != 0 {
        return Err(StorageError::Damaged(format!(
            "its first row is number {first}"
        )));
    }
    Ok(End {
        rows: OrderNumber(last).next(),
        chain: ChainHash::try_from(chain.as_slice())?,
    })
}

/// At most `rows_max` rows from a number on, in number order and without gaps; none where the
/// ledger ends before it.
///
/// # Errors
/// [`StorageError::Damaged`] where one of them is missing or is not a row.
pub fn read(
    connection: &Connection,
    from: OrderNumber,
    rows_max: usize,
) -> Result<Vec<Row>, StorageError> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM journal WHERE number >= ? ORDER BY number LIMIT ?"
    ))?;
    let mut found = statement.query(params![from.0, rows_max as u64])?;
    let mut rows = Vec::new();
    let mut next = from;
    while let Some(row) = found.next()? {
        let row = parse(row)?;
        if row.number != next {
            return Err(StorageError::Damaged(format!("row {next} is missing")));
        }
        next = next.next();
        rows.push(row);
    }
    Ok(rows)
}

/// The row that an idempotency key made.
pub fn find_key(
    connection: &Connection,
    key: &IdempotencyKey,
) -> Result<Option<Row>, StorageError> {
    let mut statement =
        connection.prepare_cached(&format!("SELECT {COLUMNS} FROM journal WHERE key = ?"))?;
    let mut found = statement.query(params![key.as_str()])?;
    found.next()?.map(parse).transpose()
}

fn parse(row: &rusqlite::Row<'_>) -> Result<Row, StorageError> {
    let text = |column| row.get_ref(column)?.as_str().map_err(rusqlite::Error::from);
    Ok(Row {
        number: OrderNumber(row.get(0)?),
        epoch: Epoch(row.get(1)?),
        order: Order {
            key: IdempotencyKey::new(text(2)?)?,
            name: StockName::new(text(3)?)?,
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
        },
        price: Price::from_minor(row.get(6)?)?,
        chain: ChainHash::try_from(row.get::<_, Vec<u8>>(7)?.as_slice())?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some_rows(count: u64) -> Vec<Row> {
        let mut rows: Vec<Row> = Vec::new();
        for number in 0..count {
            let previous = rows.last().map_or(ChainHash::EMPTY, |row| row.chain);
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
            rows.push(Row::following(
                &previous,
                OrderNumber(number),
                Epoch(3),
                order,
                Price::from_minor(24063).unwrap(),
            ));
        }
        rows
    }

    fn database(rows: &[Row]) -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(SCHEMA).unwrap();
        insert(&connection, rows).unwrap();
        connection
    }

    #[test]
    fn rows_are_read_as_they_were_written() {
        let rows = some_rows(5);
        let connection = database(&rows);
        assert_eq!(read(&connection, OrderNumber(0), 100).unwrap(), rows);
        assert_eq!(read(&connection, OrderNumber(2), 2).unwrap(), rows[2..4]);
        assert_eq!(
            find_key(&connection, &rows[3].order.key).unwrap().as_ref(),
            Some(&rows[3])
        );
        assert_eq!(
            find_key(&connection, &IdempotencyKey::new("other").unwrap()).unwrap(),
            None
        );
        assert_eq!(
            end(&connection).unwrap(),
            End {
                rows: OrderNumber(5),
                chain: rows[4].chain
            }
        );
    }

    #[test]
    fn a_second_row_for_a_key_is_refused() {
        let rows = some_rows(2);
        let connection = database(&rows[..1]);
        let mut again = rows[1].clone();
        again.order.key = rows[0].order.key.clone();
        assert!(insert(&connection, [&again]).is_err());
    }

    #[test]
    fn a_missing_row_is_noticed_by_whoever_reads_there() {
        let rows = some_rows(6);
        let connection = database(&rows);
        connection
            .execute("DELETE FROM journal WHERE number = 3", [])
            .unwrap();
        let sound = |from: usize, rows_max: usize| {
            let read = read(&connection, OrderNumber(from as u64), rows_max).unwrap();
            assert_eq!(read, rows[from..rows.len().min(from + rows_max)]);
        };
        sound(0, 3);
        sound(4, 100);
        sound(6, 100);
        for (from, rows_max) in [(0, 4), (0, 100), (2, 2), (3, 1)] {
            let damaged = read(&connection, OrderNumber(from), rows_max).unwrap_err();
            assert!(matches!(damaged, StorageError::Damaged(_)), "{damaged}");
            assert!(damaged.to_string().contains("row 3 is missing"));
        }
        // Not by who opens it: that would read the whole ledger.
        assert_eq!(end(&connection).unwrap().rows, OrderNumber(6));
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
            read(&connection, OrderNumber(0), 1),
            Err(StorageError::Damaged(_))
        ));
    }
}
