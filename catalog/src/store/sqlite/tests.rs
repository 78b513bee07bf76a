use domain::{Order, Protocol, Side};

use super::*;
use crate::stocks::built_in;
use catalog_core::{RefusedOrder, Staged, TradeResult};
use domain::{ChangeNumber, Epoch, Quantity, Refusal};

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

const JOURNAL: JournalId = JournalId::new([9; JournalId::BYTES]);

fn new_store(data_dir: &Path) -> SqliteStore {
    let mut store = SqliteStore::open(data_dir).unwrap();
    store.begin(JOURNAL, &built_in(), Protocol::NEWEST).unwrap();
    store
}

/// Elects replica 2 and buys 10 nvidia and 1 meta in one batch.
fn batch(state: &CatalogState) -> Batch {
    let mut staged = state.stage();
    let epoch = staged
        .elect(state.leadership().term.epoch, replica(2))
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
fn commit(store: &mut SqliteStore, state: &mut CatalogState, stage: impl FnOnce(&mut Staged<'_>)) {
    let mut staged = state.stage();
    stage(&mut staged);
    let batch = staged.into_batch();
    store.commit(&batch).unwrap();
    state.apply(batch);
}

#[test]
fn a_store_that_is_opened_again_holds_what_was_committed() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = SqliteStore::open(dir.path()).unwrap();
    assert!(store.is_new());
    assert!(store.load().unwrap_err().is_damage());
    store.begin(JOURNAL, &built_in(), Protocol::NEWEST).unwrap();
    assert!(!store.is_new());
    let mut state = store.load().unwrap().state;
    let batch = batch(&state);
    store.commit(&batch).unwrap();
    state.apply(batch.clone());
    drop(store);

    let mut store = SqliteStore::open(dir.path()).unwrap();
    assert_eq!(
        store.load().unwrap(),
        Loaded {
            protocol: Protocol::NEWEST,
            journal: JOURNAL,
            listing: stocks::digest(&built_in()),
            state,
            sessions_out: None,
            may_lack_rows: false,
            is_unbroken: false,
        }
    );
    assert_eq!(
        store.find_key(batch.rows[1].entry.key()).unwrap(),
        Some(PriorOutcome::Row(batch.rows[1].clone()))
    );
    assert_eq!(
        store
            .find_key(&IdempotencyKey::new("other").unwrap())
            .unwrap(),
        None
    );
    let journal = SqliteJournal::open(dir.path()).unwrap();
    assert_eq!(journal.rows(RowNumber(0), 10).unwrap(), batch.rows);
    assert_eq!(journal.rows(RowNumber(1), 10).unwrap(), batch.rows[1..]);
}

#[test]
fn what_overtook_a_change_outlives_a_restart_until_the_next_election() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = new_store(dir.path());
    let mut state = store.load().unwrap().state;
    let alone = BTreeSet::from([replica(2)]);
    let both = BTreeSet::from([replica(1), replica(2)]);
    commit(&mut store, &mut state, |staged| {
        staged.elect(Epoch(0), replica(2));
    });
    for number in [1, ChangeNumber::MAX] {
        commit(&mut store, &mut state, |staged| {
            let set = staged.set_in_sync(Epoch(1), change(number), alone.clone());
            set.unwrap();
        });
    }
    drop(store);

    let mut store = SqliteStore::open(dir.path()).unwrap();
    let mut state = store.load().unwrap().state;
    commit(&mut store, &mut state, |staged| {
        let late = staged.set_in_sync(Epoch(1), change(2), both.clone());
        late.unwrap_err();
        assert_eq!(staged.term().in_sync, alone);
        staged.elect(Epoch(1), replica(1));
    });
    drop(store);

    let mut store = SqliteStore::open(dir.path()).unwrap();
    assert_eq!(store.load().unwrap().state, state);
    commit(&mut store, &mut state, |staged| {
        let set = staged.set_in_sync(Epoch(2), change(1), both.clone());
        set.unwrap();
    });
}

#[test]
fn a_batch_is_committed_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = new_store(dir.path());
    let before = store.load().unwrap();
    let mut batch = batch(&before.state);
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
    let mut staged = before.state.stage();
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

/// A database with 30 trades, an order that was refused and a session out, changed by hand.
fn changed(sql: &str) -> Result<SqliteStore, StorageError> {
    let dir = tempfile::tempdir().unwrap();
    let mut store = new_store(dir.path());
    let mut state = store.load().unwrap().state;
    commit(&mut store, &mut state, |staged| {
        staged.elect(Epoch(0), replica(2));
    });
    for number in 0..30 {
        commit(&mut store, &mut state, |staged| {
            let order = order(&format!("key-{number}"), "nvidia", 1);
            staged.trade(Epoch(1), order, None).unwrap();
        });
    }
    commit(&mut store, &mut state, |staged| {
        let refused = staged.trade(Epoch(1), order("refused", "nvidia", 2000), None);
        assert_eq!(refused, Ok(TradeResult::Refused(Refusal::NotEnough)));
        let both = BTreeSet::from([replica(1), replica(2)]);
        staged.set_in_sync(Epoch(1), change(1), both).unwrap();
    });
    store
        .set_sessions_out(Some(Duration::from_secs(1)))
        .unwrap();
    // The checks of the tables are in the way of nobody who writes to the file itself.
    store
        .connection
        .pragma_update(None, "ignore_check_constraints", true)
        .unwrap();
    store.connection.execute_batch(sql).unwrap();
    assert!(store.connection.total_changes() > 0);
    drop(store);
    let mut opened = SqliteStore::open(dir.path())?;
    opened.load()?;
    Ok(opened)
}

#[test]
fn a_database_that_was_changed_by_hand_is_refused() {
    assert!(changed("UPDATE sessions_out SET term_ms = term_ms").is_ok());
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
        "UPDATE leadership SET epoch = epoch + 1048576",
        "UPDATE leadership SET leader = 1",
        "UPDATE leadership SET change = change + 1",
        "UPDATE leadership SET epoch = 0, leader = 2",
        "UPDATE in_sync SET replica = 3 WHERE replica = 1",
        "UPDATE in_sync SET replica = 0 WHERE replica = 1",
        "DELETE FROM in_sync WHERE replica = 1",
        "INSERT INTO in_sync VALUES (3)",
        "UPDATE sessions_out SET term_ms = 1",
        "DELETE FROM sessions_out",
        "UPDATE refused SET key = 'other'",
        "UPDATE refused SET name = 'meta'",
        "UPDATE refused SET quantity = 2001",
        "UPDATE refused SET side = 'sell'",
        "UPDATE refused SET side = 'give'",
        "UPDATE refused SET refusal = 'too many'",
        "UPDATE refused SET refusal = 'no idea'",
        "UPDATE refused SET checksum = NULL",
        "UPDATE identity SET journal = zeroblob(16)",
        "UPDATE identity SET checksum = zeroblob(32)",
        "DELETE FROM identity",
        "DELETE FROM checksum WHERE what = 'leadership'",
        "DELETE FROM checksum WHERE what = 'sessions'",
        "UPDATE listing SET price = price + 1; UPDATE stock SET price = price + 1",
        "UPDATE listing SET quantity = quantity + 1; UPDATE stock SET quantity = quantity + 1",
    ] {
        match changed(change) {
            Err(error) => assert!(error.is_damage(), "{change}: {error}"),
            Ok(_) => panic!("{change}: opened"),
        }
    }
}

/// The chain says that a row is as it was written, and not at which price it should have been.
#[test]
fn a_row_at_another_price_than_its_stock_was_listed_at_is_refused_though_the_chain_covers_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = new_store(dir.path());
    let state = store.load().unwrap().state;
    let mut batch = batch(&state);
    let [first, second] = &batch.rows[..] else {
        panic!("two trades: {batch:?}");
    };
    assert_ne!(first.price, second.price);
    let end = LedgerEnd::of(first);
    let other = Row::following(&end, second.epoch, second.entry.clone(), first.price);
    batch.rows[1] = other;
    store.commit(&batch).unwrap();
    drop(store);
    let refused = SqliteStore::open(dir.path()).map(drop).unwrap_err();
    assert!(refused.is_damage(), "{refused}");
    let why = "row 1 has another price than meta was listed at then";
    assert!(refused.to_string().contains(why), "{refused}");
}

/// What is written by an unchecked connection is of a kind that the code does not know.
#[test]
fn an_order_that_was_refused_is_not_told_of_where_it_is_not_as_it_was_written() {
    for change in [
        "UPDATE refused SET side = 'give'",
        "UPDATE refused SET side = 'sell'",
        "UPDATE refused SET refusal = 'no idea'",
        "UPDATE refused SET refusal = 'too many'",
        "UPDATE refused SET quantity = quantity - 1",
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut store = new_store(dir.path());
        let mut state = store.load().unwrap().state;
        let refused = order("few", "nvidia", 1001);
        commit(&mut store, &mut state, |staged| {
            let epoch = staged.elect(Epoch(0), replica(2)).epoch;
            staged.trade(epoch, refused.clone(), None).unwrap();
        });
        assert!(matches!(
            store.find_key(&refused.key),
            Ok(Some(PriorOutcome::Refused(_)))
        ));
        store
            .connection
            .pragma_update(None, "ignore_check_constraints", true)
            .unwrap();
        store.connection.execute(change, []).unwrap();
        let error = store.find_key(&refused.key).unwrap_err();
        assert!(error.is_damage(), "{change}: {error}");
    }
}

#[test]
fn a_journal_that_was_not_begun_in_full_is_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    assert!(!holds_journal(dir.path()).unwrap());
    let connection = Connection::open(dir.path().join(FILE)).unwrap();
    connection
        .pragma_update(None, "journal_mode", "WAL")
        .unwrap();
    drop(connection);
    assert!(!holds_journal(dir.path()).unwrap(), "no tables yet");
    drop(SqliteStore::open(dir.path()).unwrap());
    assert!(!holds_journal(dir.path()).unwrap(), "no stocks yet");
    let mut store = SqliteStore::open(dir.path()).unwrap();
    let twice = [built_in(), built_in()].concat();
    store.begin(JOURNAL, &twice, Protocol::NEWEST).unwrap_err();
    assert!(store.is_new() && !holds_journal(dir.path()).unwrap());
    store.begin(JOURNAL, &built_in(), Protocol::NEWEST).unwrap();
    assert!(holds_journal(dir.path()).unwrap());
}

/// A copy of a catalog of before journals had ids, see `tests/kept`.
fn kept() -> tempfile::TempDir {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/kept/before-identity/catalog")
        .join(FILE);
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(kept, dir.path().join(FILE)).unwrap();
    dir
}

#[test]
fn a_journal_of_before_there_were_ids_gets_one_and_keeps_it() {
    let dir = kept();
    assert!(holds_journal(dir.path()).unwrap());
    let journal = SqliteJournal::open(dir.path()).unwrap();
    assert_eq!(journal.rows(RowNumber(0), 9).unwrap().len(), 4);
    drop(journal);
    let mut ids = BTreeSet::new();
    for _ in 0..2 {
        let mut store = SqliteStore::open(dir.path()).unwrap();
        let loaded = store.load().unwrap();
        ids.insert(loaded.journal);
        assert_eq!(loaded.listing, stocks::digest(&built_in()));
        assert_eq!(loaded.state.leadership().term.leader, Some(replica(3)));
        let known = |store: &mut SqliteStore, key: &str| {
            let key = IdempotencyKey::new(key).unwrap();
            store.find_key(&key).unwrap()
        };
        match known(&mut store, "kept-4") {
            Some(PriorOutcome::Row(row)) => assert_eq!(row.number, RowNumber(3)),
            other => panic!("{other:?}"),
        }
        match known(&mut store, "kept-refused") {
            Some(PriorOutcome::Refused(refused)) => assert_eq!(refused.refusal, Refusal::NotEnough),
            other => panic!("{other:?}"),
        }
        let mut state = loaded.state;
        commit(&mut store, &mut state, |staged| staged.begin_next_epoch());
    }
    assert_eq!(ids.len(), 1);
    let another = SqliteStore::open(kept().path()).unwrap().load().unwrap();
    assert!(!ids.contains(&another.journal));
}

#[test]
fn what_a_journal_of_before_cannot_have_held_is_refused() {
    for change in [
        "UPDATE refused SET side = 'give'",
        "UPDATE refused SET refusal = 'no idea'",
        "INSERT INTO in_sync VALUES (0)",
        "UPDATE leadership SET leader = 0",
        "UPDATE leadership SET epoch = 0",
    ] {
        let dir = kept();
        let connection = Connection::open(dir.path().join(FILE)).unwrap();
        connection
            .pragma_update(None, "ignore_check_constraints", true)
            .unwrap();
        assert!(connection.execute(change, []).unwrap() > 0);
        drop(connection);
        let error = SqliteStore::open(dir.path()).unwrap_err();
        assert!(error.is_damage(), "{change}: {error}");
    }
}

#[test]
fn a_large_database_is_read_beside() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = new_store(dir.path());
    let mut state = store.load().unwrap().state;
    let batch = batch(&state);
    store.commit(&batch).unwrap();
    state.apply(batch);
    let unchecked = |store: &SqliteStore| Unchecked {
        audit: Audit::new(
            listings(&store.connection).unwrap(),
            store.stocks().unwrap(),
            rows::end(&store.connection).unwrap(),
        )
        .unwrap(),
        end: rows::end(&store.connection).unwrap(),
        journal: store.journal,
        location: Location::on_disk(dir.path()),
    };
    unchecked(&store).check(|| true).unwrap();
    // What is traded meanwhile makes no difference.
    let before = unchecked(&store);
    commit(&mut store, &mut state, |staged| {
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
fn a_database_of_before_may_have_stocks_that_cost_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut listings = built_in();
    listings[0].price = Price::from_minor(0).unwrap();
    let mut store = SqliteStore::open(dir.path()).unwrap();
    store.begin(JOURNAL, &listings, Protocol::NEWEST).unwrap();
    drop(store);
    let mut store = SqliteStore::open(dir.path()).unwrap();
    let state = store.load().unwrap().state;
    let free = state.stocks().find(|stock| stock.name == listings[0].name);
    assert_eq!(free.unwrap().price.minor(), 0);
}

#[test]
fn a_refusal_is_remembered_by_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = new_store(dir.path());
    let mut state = store.load().unwrap().state;
    let wanted = [
        (order("none", "nothing", 1), Refusal::StockNotFound),
        (order("few", "nvidia", 1001), Refusal::NotEnough),
    ];
    commit(&mut store, &mut state, |staged| {
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
        let entry = order.into();
        assert_eq!(
            found,
            Some(PriorOutcome::Refused(RefusedOrder { entry, refusal }))
        );
    }
}

#[test]
fn a_version_of_the_protocol_that_nobody_wrote_is_damage() {
    for change in [
        "UPDATE protocol SET version = 1",
        "DELETE FROM protocol",
        "UPDATE protocol SET checksum = zeroblob(32)",
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut store = SqliteStore::open(dir.path()).unwrap();
        store.begin(JOURNAL, &built_in(), Protocol::NEWEST).unwrap();
        assert_eq!(store.load().unwrap().protocol, Protocol::NEWEST);
        store.connection.execute_batch(change).unwrap();
        let damaged = store.load().unwrap_err();
        assert!(damaged.is_damage(), "{change}: {damaged}");
    }
}

#[test]
fn a_journal_that_is_begun_at_the_first_version_is_one_that_release_0_1_0_opens() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = SqliteStore::open(dir.path()).unwrap();
    store.begin(JOURNAL, &built_in(), Protocol::FIRST).unwrap();
    drop(store);
    let of_before = Kind { gated: &[], ..KIND };
    let data_dir = DataDir::take(dir.path()).unwrap();
    drop(data_dir.open(of_before).unwrap());
}
