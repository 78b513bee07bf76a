use domain::{
    Entry, Epoch, IdempotencyKey, Note, Order, Price, Quantity, Side, StockChange, StockChangeKind,
    StockName,
};
use rusqlite::Connection;

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

fn database(rows: &[Row]) -> Database {
    let connection = Connection::open_in_memory().unwrap();
    connection.execute_batch(SCHEMA).unwrap();
    connection.execute_batch(STOCK_CHANGES).unwrap();
    insert(&connection, rows).unwrap();
    Database::without_archive(connection)
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
