use super::*;
use crate::core::tests::bench::{end, journal, term};
use crate::ledger::Ledger;

#[test]
fn what_was_saved_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let rows = journal(5);
    let mut store = SqliteStore::open(dir.path()).unwrap();
    assert_eq!(store.durable(), Durable::default());
    store.save(Some(term(3, 2)), &rows[..2]).unwrap();
    store.save(None, &rows[1..]).unwrap();
    let saved = store.save(Some(term(4, 1)), &[]).unwrap();
    assert_eq!(
        saved,
        Durable {
            term: term(4, 1),
            end: end(&rows)
        }
    );
    assert_eq!(store.reader().rows(OrderNumber(1), 2).unwrap(), rows[1..3]);
    assert_eq!(store.reader().rows(OrderNumber(u64::MAX), 1).unwrap(), []);
    drop(store);
    assert_eq!(SqliteStore::open(dir.path()).unwrap().durable(), saved);
}

#[test]
fn what_does_not_continue_the_ledger_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let rows = journal(4);
    let mut store = SqliteStore::open(dir.path()).unwrap();
    let before = store.save(Some(term(3, 2)), &rows[..1]).unwrap();
    let mut forged = rows[1].clone();
    forged.epoch = Epoch(9);
    let gap = [rows[1].clone(), rows[3].clone()];
    let second_key = [Row::following(
        &rows[0].chain,
        OrderNumber(1),
        Epoch(1),
        rows[0].order.clone(),
        rows[0].price,
    )];
    for refused in [&[forged][..], &gap, &second_key] {
        store.save(Some(term(4, 1)), refused).unwrap_err();
        assert_eq!(store.durable(), before);
    }
    store.save(Some(term(2, 1)), &rows[1..]).unwrap_err();
    drop(store);
    assert_eq!(SqliteStore::open(dir.path()).unwrap().durable(), before);
}

#[test]
fn a_ledger_is_read_in_chunks_while_its_replica_runs() {
    let dir = tempfile::tempdir().unwrap();
    let rows = journal(10_000);
    let mut store = SqliteStore::open(dir.path()).unwrap();
    store.save(None, &rows).unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    assert_eq!(ledger.end().unwrap(), end(&rows));
    assert!(ledger.rows().map(Result::unwrap).eq(rows));
    assert!(Ledger::open(&dir.path().join("elsewhere")).is_err());
}

const ROWS: usize = 300;

fn filled_store(dir: &Path) -> Vec<Row> {
    let rows = journal(ROWS);
    let mut store = SqliteStore::open(dir).unwrap();
    store.save(Some(term(3, 2)), &rows).unwrap();
    rows
}

fn change(dir: &Path, sql: &str) {
    let connection = Connection::open(dir.join(KIND.file)).unwrap();
    assert!(connection.execute(sql, []).unwrap() > 0);
}

#[test]
fn a_damaged_ledger_is_refused_unless_it_may_be_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    filled_store(dir.path());
    change(
        dir.path(),
        "UPDATE journal SET quantity = quantity + 1 WHERE number = 50",
    );
    let error = SqliteStore::open(dir.path()).unwrap_err();
    assert!(
        error.is_damage() && error.to_string().contains("row 50"),
        "{error}"
    );
    let (store, aside) = SqliteStore::open_or_set_aside(dir.path()).unwrap();
    assert_eq!(store.durable(), Durable::default());
    let aside = Connection::open(aside.unwrap()).unwrap();
    let kept = aside.query_row("SELECT count(*) FROM journal", [], |row| row.get(0));
    assert_eq!(kept, Ok(ROWS as i64));
    // What is sound is left alone.
    drop(store);
    assert!(
        SqliteStore::open_or_set_aside(dir.path())
            .unwrap()
            .1
            .is_none()
    );
}

#[test]
fn what_is_too_large_to_be_read_at_once_is_read_beside() {
    let dir = tempfile::tempdir().unwrap();
    let rows = filled_store(dir.path());
    let unchecked = Unchecked {
        location: Location::on_disk(dir.path()),
        end: end(&rows),
    };
    unchecked.check(|| true).unwrap();
    change(dir.path(), "DELETE FROM journal WHERE number = 42");
    assert!(unchecked.check(|| true).unwrap_err().is_damage());
}
