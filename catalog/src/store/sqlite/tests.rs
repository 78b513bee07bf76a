use protocol::{Order, Side};

use super::*;
use crate::core::{Refusal, RefusedOrder, Staged, TradeResult};
use crate::stocks::built_in;

fn order(key: &str, stock: &str, quantity: u64) -> Order {
    Order {
        key: IdempotencyKey::new(key).unwrap(),
        name: StockName::new(stock).unwrap(),
        side: Side::Buy,
        quantity: Quantity::new(quantity).unwrap(),
    }
}

fn replica(id: u32) -> ReplicaId {
    ReplicaId::new(id).unwrap()
}

fn change(number: u64) -> ChangeNumber {
    ChangeNumber::new(number).unwrap()
}

fn new_store(data_dir: &Path) -> SqliteStore {
    let mut store = SqliteStore::open(data_dir).unwrap();
    store.list(&built_in()).unwrap();
    store
}

/// Elects replica 2 and buys 10 nvidia and 1 meta in one batch.
fn batch(books: &Books) -> Batch {
    let mut staged = books.stage();
    let epoch = staged
        .elect(books.leadership().term.epoch, replica(2))
        .epoch;
    staged
        .set_in_sync(epoch, change(1), BTreeSet::from([replica(1), replica(2)]))
        .unwrap();
    staged
        .trade(epoch, order("one", "nvidia", 10), None)
        .unwrap();
    staged.trade(epoch, order("two", "meta", 1), None).unwrap();
    staged.into_batch()
}

/// Makes durable, and then applies, what is staged.
fn commit(store: &mut SqliteStore, books: &mut Books, stage: impl FnOnce(&mut Staged<'_>)) {
    let mut staged = books.stage();
    stage(&mut staged);
    let batch = staged.into_batch();
    store.commit(&batch).unwrap();
    books.apply(batch);
}

#[test]
fn a_store_that_is_opened_again_holds_what_was_committed() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = SqliteStore::open(dir.path()).unwrap();
    assert!(store.is_new().unwrap());
    store.list(&built_in()).unwrap();
    assert!(!store.is_new().unwrap());
    let mut books = store.load().unwrap().books;
    let batch = batch(&books);
    store.commit(&batch).unwrap();
    books.apply(batch.clone());
    drop(store);

    let mut store = SqliteStore::open(dir.path()).unwrap();
    assert_eq!(
        store.load().unwrap(),
        Loaded {
            books,
            sessions_out: None
        }
    );
    assert_eq!(
        store.find_key(&batch.rows[1].order.key).unwrap(),
        Some(Known::Row(batch.rows[1].clone()))
    );
    assert_eq!(
        store
            .find_key(&IdempotencyKey::new("other").unwrap())
            .unwrap(),
        None
    );
    let journal = SqliteJournal::open(dir.path()).unwrap();
    assert_eq!(journal.rows(OrderNumber(0), 10).unwrap(), batch.rows);
    assert_eq!(journal.rows(OrderNumber(1), 10).unwrap(), batch.rows[1..]);
}

#[test]
fn what_overtook_a_change_outlives_a_restart_until_the_next_election() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = new_store(dir.path());
    let mut books = store.load().unwrap().books;
    let alone = BTreeSet::from([replica(2)]);
    let both = BTreeSet::from([replica(1), replica(2)]);
    commit(&mut store, &mut books, |staged| {
        staged.elect(Epoch(0), replica(2));
    });
    for number in [1, ChangeNumber::MAX] {
        commit(&mut store, &mut books, |staged| {
            let set = staged.set_in_sync(Epoch(1), change(number), alone.clone());
            set.unwrap();
        });
    }
    drop(store);

    let mut store = SqliteStore::open(dir.path()).unwrap();
    let mut books = store.load().unwrap().books;
    commit(&mut store, &mut books, |staged| {
        let late = staged.set_in_sync(Epoch(1), change(2), both.clone());
        late.unwrap_err();
        assert_eq!(staged.term().in_sync, alone);
        staged.elect(Epoch(1), replica(1));
    });
    drop(store);

    let mut store = SqliteStore::open(dir.path()).unwrap();
    assert_eq!(store.load().unwrap().books, books);
    commit(&mut store, &mut books, |staged| {
        let set = staged.set_in_sync(Epoch(2), change(1), both.clone());
        set.unwrap();
    });
}

#[test]
fn a_batch_is_committed_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = new_store(dir.path());
    let before = store.load().unwrap();
    let mut batch = batch(&before.books);
    let again = batch.rows[0].clone();
    batch.rows.push(again); // breaks the primary key
    store.commit(&batch).unwrap_err();
    assert_eq!(store.load().unwrap(), before);
    batch.rows.pop();
    store.commit(&batch).unwrap();
}

#[test]
fn a_full_disk_is_an_error_that_changes_nothing_and_may_pass() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = new_store(dir.path());
    let before = store.load().unwrap();
    let pages: i64 = store
        .connection
        .query_row("PRAGMA page_count", [], |row| row.get(0))
        .unwrap();
    store
        .connection
        .pragma_update(None, "max_page_count", pages)
        .unwrap();
    let mut staged = before.books.stage();
    staged.elect(Epoch(0), replica(1));
    for number in 0..1000 {
        staged
            .trade(Epoch(1), order(&format!("key-{number}"), "nvidia", 1), None)
            .unwrap();
    }
    let batch = staged.into_batch();
    let error = store.commit(&batch).unwrap_err();
    assert!(error.to_string().contains("full"), "{error}");
    assert_eq!(store.load().unwrap(), before);
    store
        .connection
        .pragma_update(None, "max_page_count", 1_000_000)
        .unwrap();
    store.commit(&batch).unwrap();
}

#[test]
fn what_is_noted_of_sessions_outlives_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = new_store(dir.path());
    let term = Duration::from_micros(1_100_500);
    store.set_sessions_out(Some(term)).unwrap();
    drop(store);
    let mut store = SqliteStore::open(dir.path()).unwrap();
    let noted = store.load().unwrap().sessions_out.unwrap();
    assert_eq!(noted, Duration::from_millis(1101), "rounded up");
    store.set_sessions_out(None).unwrap();
    assert_eq!(store.load().unwrap().sessions_out, None);
}

#[test]
fn the_database_itself_refuses_a_negative_quantity() {
    let dir = tempfile::tempdir().unwrap();
    let store = new_store(dir.path());
    store
        .connection
        .execute("UPDATE stock SET quantity = -1", [])
        .unwrap_err();
}

/// A database with 30 trades, changed by hand.
fn changed(sql: &str) -> Result<SqliteStore, StorageError> {
    let dir = tempfile::tempdir().unwrap();
    let mut store = new_store(dir.path());
    let mut books = store.load().unwrap().books;
    commit(&mut store, &mut books, |staged| {
        staged.elect(Epoch(0), replica(2));
    });
    for number in 0..30 {
        commit(&mut store, &mut books, |staged| {
            let order = order(&format!("key-{number}"), "nvidia", 1);
            staged.trade(Epoch(1), order, None).unwrap();
        });
    }
    store.connection.execute(sql, []).unwrap();
    drop(store);
    let mut opened = SqliteStore::open(dir.path())?;
    opened.load()?;
    Ok(opened)
}

#[test]
fn a_database_that_was_changed_by_hand_is_refused() {
    assert!(changed("UPDATE sessions_out SET term_ms = 1").is_ok());
    for change in [
        "UPDATE stock SET quantity = quantity + 1 WHERE name = 'nvidia'",
        "UPDATE stock SET price = price + 1 WHERE name = 'meta'",
        "UPDATE stock SET volume = 0",
        "UPDATE stock SET version = version + 1 WHERE name = 'meta'",
        "UPDATE listing SET quantity = 7 WHERE name = 'meta'",
        "DELETE FROM listing WHERE name = 'meta'",
        "DELETE FROM stock WHERE name = 'meta'",
        "DELETE FROM stock",
        "DELETE FROM journal WHERE number = 29",
        "DELETE FROM journal WHERE number = 5",
        "DELETE FROM journal",
        "UPDATE journal SET quantity = 2 WHERE number = 5",
        "UPDATE leadership SET epoch = 0, leader = 0",
        "DELETE FROM leadership",
    ] {
        match changed(change) {
            Err(error) => assert!(error.is_damage(), "{change}: {error}"),
            Ok(_) => panic!("{change}: opened"),
        }
    }
}

#[test]
fn a_large_database_is_read_beside() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = new_store(dir.path());
    let mut books = store.load().unwrap().books;
    let batch = batch(&books);
    store.commit(&batch).unwrap();
    books.apply(batch);
    let unchecked = |store: &SqliteStore| Unchecked {
        audit: Audit::new(store.listings().unwrap(), store.stocks().unwrap()).unwrap(),
        end: rows::end(&store.connection).unwrap(),
        location: Location::on_disk(dir.path()),
    };
    unchecked(&store).check(|| true).unwrap();
    // What is traded meanwhile makes no difference.
    let before = unchecked(&store);
    commit(&mut store, &mut books, |staged| {
        staged
            .trade(Epoch(1), order("three", "meta", 1), None)
            .unwrap();
    });
    before.check(|| true).unwrap();
    let sql = "UPDATE stock SET quantity = 5 WHERE name = 'meta'";
    store.connection.execute(sql, []).unwrap();
    assert!(unchecked(&store).check(|| true).unwrap_err().is_damage());
}

#[test]
fn a_refusal_is_remembered_by_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = new_store(dir.path());
    let mut books = store.load().unwrap().books;
    let wanted = [
        (order("none", "nothing", 1), Refusal::StockNotFound),
        (order("few", "nvidia", 1001), Refusal::NotEnough),
    ];
    commit(&mut store, &mut books, |staged| {
        let epoch = staged.elect(Epoch(0), replica(2)).epoch;
        for (order, refusal) in wanted.clone() {
            let result = staged.trade(epoch, order, None);
            assert_eq!(result, Ok(TradeResult::Refused(refusal)));
        }
    });
    drop(store);
    let mut store = SqliteStore::open(dir.path()).unwrap();
    for (order, refusal) in wanted {
        let found = store.find_key(&order.key).unwrap();
        assert_eq!(found, Some(Known::Refused(RefusedOrder { order, refusal })));
    }
}
