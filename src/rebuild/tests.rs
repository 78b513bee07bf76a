use std::time::Duration;

use catalog::store::Loaded;
use catalog::store::sqlite::SqliteJournal;
use domain::{
    Epoch, IdempotencyKey, Identity, LedgerEnd, Order, OrderNumber, Price, Protocol, Quantity,
    ReplicaId, Row, Side, StockName, Term,
};
use order::store::{SqliteStore, Store as _};
use order_core::durable::Save;
use tempfile::TempDir;

use super::*;

/// The row of an order to sell one share, behind the others.
fn row(rows: &[Row], epoch: u64, key: &str) -> Row {
    let end = rows.last().map(LedgerEnd::of).unwrap_or_default();
    let order = Order {
        key: IdempotencyKey::new(key).unwrap(),
        name: StockName::new("meta").unwrap(),
        side: Side::Sell,
        quantity: Quantity::new(1).unwrap(),
    };
    let price = Price::from_minor(19402).unwrap();
    Row::following(&end, Epoch(epoch), order, price)
}

/// A replica's directory, with a ledger and rows beside it.
fn replica(epoch: u64, rows: &[Row], proposed: &[Row]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let term = Term {
        epoch: Epoch(epoch),
        leader: ReplicaId::new(3),
    };
    let save = Save {
        term: Some(term),
        rows: rows.to_vec(),
        proposed: proposed.to_vec(),
        ..Save::default()
    };
    SqliteStore::open(dir.path()).unwrap().save(&save).unwrap();
    dir
}

fn config(catalog: &TempDir) -> Config {
    Config {
        data_dir: catalog.path().to_owned(),
        new: false,
        stocks: None,
        lease: Duration::from_secs(1),
        accept_loss_of: Default::default(),
        is_rebuilt: false,
        archive_after: None,
        monitor: Default::default(),
        traces: Default::default(),
    }
}

/// Makes a catalog anew from ledgers of replicas that are stopped.
fn rebuild(catalog: &TempDir, from: &[TempDir]) -> Result<OrderNumber, Error> {
    let config = config(catalog);
    let dirs: Vec<_> = from.iter().map(|dir| dir.path().to_owned()).collect();
    from_ledgers_after(|| panic!("no replica runs"), &config, &dirs)
}

/// What a catalog that was rebuilt finds.
fn load(catalog: &TempDir) -> Loaded {
    let mut store = catalog::store::sqlite::SqliteStore::open(catalog.path()).unwrap();
    store.load().unwrap()
}

#[test]
fn a_replica_that_runs_gets_time_for_what_the_lost_catalog_sent_it_last() {
    let mut rows = vec![row(&[], 1, "one")];
    rows.push(row(&rows, 1, "two"));
    let catalog = tempfile::tempdir().unwrap();
    let [leader, follower] = [replica(1, &rows[..1], &[]), replica(1, &rows[..1], &[])];
    let mut running = SqliteStore::open(leader.path()).unwrap();
    let last = Save {
        rows: vec![rows[1].clone()],
        ..Save::default()
    };
    let wait = || {
        running.save(&last).unwrap();
        let stopped = SqliteStore::open(follower.path());
        assert!(
            stopped.is_err(),
            "one that is stopped cannot start meanwhile"
        );
    };
    let dirs = [leader.path().to_owned(), follower.path().to_owned()];
    let rebuilt = from_ledgers_after(wait, &config(&catalog), &dirs);
    assert_eq!(rebuilt.unwrap(), OrderNumber(2));
    SqliteStore::open(follower.path()).unwrap(); // it is let go of
}

#[test]
fn what_replicas_hold_beside_their_ledgers_is_in_the_journal_again() {
    let mut rows = Vec::new();
    for key in ["one", "two"] {
        rows.push(row(&rows, 1, key));
    }
    // Came to nothing in the first epoch; what has its number since was acknowledged.
    let lost = row(&rows, 1, "lost");
    rows.push(row(&rows, 2, "three"));
    rows.push(row(&rows, 2, "four"));
    let dirs = [
        replica(1, &rows[..2], &[lost]),
        replica(2, &rows[..2], &rows[2..]),
        replica(2, &rows[..2], &rows[2..3]),
    ];
    let catalog = tempfile::tempdir().unwrap();
    assert_eq!(rebuild(&catalog, &dirs).unwrap(), OrderNumber(4));
    let journal = SqliteJournal::open(catalog.path()).unwrap();
    assert_eq!(journal.rows(RowNumber(0), 9).unwrap(), rows);
}

#[test]
fn a_ledger_that_never_heard_of_a_term_is_enough() {
    let first = row(&[], 4, "one");
    let dir = tempfile::tempdir().unwrap();
    let save = Save {
        rows: vec![first],
        ..Save::default()
    };
    SqliteStore::open(dir.path()).unwrap().save(&save).unwrap();
    let catalog = tempfile::tempdir().unwrap();
    assert_eq!(rebuild(&catalog, &[dir]).unwrap(), OrderNumber(1));
    let term = load(&catalog).state.leadership().term;
    assert_eq!(term.epoch, Epoch(5));
    assert!(term.leader.is_some());
}

#[test]
fn an_epoch_that_only_rows_beside_a_ledger_know_is_risen_above() {
    let first = row(&[], 1, "one");
    let rows = [first];
    let beside = Save {
        proposed: vec![row(&rows, 9, "came to nothing")],
        ..Save::default()
    };
    let dirs = [replica(1, &rows, &[]), replica(1, &[], &[])];
    // It does not continue the ledger that it is beside of any more.
    let mut behind = SqliteStore::open(dirs[1].path()).unwrap();
    let both = Save {
        rows: rows.to_vec(),
        ..beside
    };
    behind.save(&both).unwrap();
    let other = row(&rows, 2, "two");
    let save = Save {
        rows: vec![other],
        ..Save::default()
    };
    behind.save(&save).unwrap();
    drop(behind);
    let catalog = tempfile::tempdir().unwrap();
    rebuild(&catalog, &dirs).unwrap();
    assert_eq!(load(&catalog).state.leadership().term.epoch, Epoch(10));
}

#[test]
fn ledgers_of_before_journals_had_ids_are_enough() {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kept/before-identity");
    let dirs = ["order-1", "order-2", "order-3"].map(|name| {
        let dir = tempfile::tempdir().unwrap();
        let file = kept.join(name).join("orders.db");
        std::fs::copy(file, dir.path().join("orders.db")).unwrap();
        dir
    });
    let catalog = tempfile::tempdir().unwrap();
    assert_eq!(rebuild(&catalog, &dirs).unwrap(), OrderNumber(4));
    let loaded = load(&catalog);
    let meta = loaded.state.stocks();
    let meta = meta.into_iter().find(|stock| stock.name.as_str() == "meta");
    assert_eq!(meta.unwrap().quantity, 1003);
    let mut store = catalog::store::sqlite::SqliteStore::open(catalog.path()).unwrap();
    let key = IdempotencyKey::new("kept-4").unwrap();
    assert!(store.find_key(&key).unwrap().is_some());
}

/// Of the built-in stocks.
fn identity(journal: u8, lease_horizon: Duration) -> Identity {
    Identity {
        journal: JournalId::new([journal; JournalId::BYTES]),
        listing: catalog::stocks::digest(&catalog::stocks::built_in()),
        lease_horizon,
    }
}

/// A replica's directory, with a ledger that knows whose copy it is.
fn known_replica(identity: Identity, rows: &[Row]) -> TempDir {
    let dir = replica(1, rows, &[]);
    let save = Save {
        identity: Some(identity),
        ..Save::default()
    };
    SqliteStore::open(dir.path()).unwrap().save(&save).unwrap();
    dir
}

#[test]
fn a_journal_keeps_its_id_and_the_longest_lease_that_a_ledger_heard_of_is_waited_for() {
    let rows = [row(&[], 1, "one")];
    let (long, short) = (Duration::from_secs(9), Duration::from_secs(3));
    let dirs = [
        known_replica(identity(1, long), &[]),
        known_replica(identity(1, short), &rows),
        // Never heard of any catalog: it has nothing to say.
        tempfile::tempdir().unwrap(),
    ];
    drop(SqliteStore::open(dirs[2].path()).unwrap());
    let catalog = tempfile::tempdir().unwrap();
    rebuild(&catalog, &dirs).unwrap();
    let loaded = load(&catalog);
    assert_eq!(loaded.journal, identity(1, long).journal);
    assert_eq!(loaded.sessions_out, Some(long));

    // One of before there were ids has heard of leases, and does not say how long they were.
    let dirs = [
        known_replica(identity(1, short), &rows),
        replica(1, &rows, &[]),
    ];
    let catalog = tempfile::tempdir().unwrap();
    rebuild(&catalog, &dirs).unwrap();
    let longest = catalog::config::lease_max(catalog::config::LEASE_MAX);
    assert_eq!(load(&catalog).sessions_out, Some(longest));
}

#[test]
fn a_catalog_begins_at_the_lowest_version_of_the_protocol_that_was_noted_in_ledgers_last_epochs() {
    let (first, newest) = (Protocol::FIRST, Protocol::NEWEST);
    assert!(first < newest);
    let own = identity(1, Duration::from_secs(1));
    let rows = [row(&[], 1, "one")];
    // Ledgers have seen epoch 1.
    let note = |journal: u8, epoch: u64, protocol: Protocol| {
        Some(ProtocolNote {
            journal: identity(journal, own.lease_horizon).journal,
            epoch: Epoch(epoch),
            protocol,
        })
    };
    for (notes, expected) in [
        ([note(1, 1, newest), note(1, 1, newest)], newest),
        ([note(1, 1, newest), note(1, 1, first)], first),
        // A replica of before has none.
        ([note(1, 1, newest), None], first),
        ([None, None], first),
        // One of before went on where the other stopped.
        ([note(1, 1, newest), note(1, 0, newest)], first),
        // What the disk was used for before, or the journal was brought back from.
        ([note(2, 1, newest), note(1, 1, newest)], first),
        ([note(1, 2, newest), note(1, 1, newest)], first),
    ] {
        let dirs = [known_replica(own, &rows), known_replica(own, &rows)];
        for (dir, note) in dirs.iter().zip(notes) {
            if let Some(note) = note {
                note.write(dir.path()).unwrap();
            }
        }
        let never_used = tempfile::tempdir().unwrap();
        drop(SqliteStore::open(never_used.path()).unwrap());
        let catalog = tempfile::tempdir().unwrap();
        let [one, other] = dirs;
        rebuild(&catalog, &[one, other, never_used]).unwrap();
        assert_eq!(load(&catalog).protocol, expected, "{notes:?}");
    }
}

#[test]
fn a_ledger_of_another_journal_is_refused_by_name() {
    let rows = [row(&[], 1, "one")];
    let lease = Duration::from_secs(1);
    let dirs = [
        known_replica(identity(1, lease), &rows),
        known_replica(identity(2, lease), &[]),
    ];
    let catalog = tempfile::tempdir().unwrap();
    let refused = rebuild(&catalog, &dirs).unwrap_err().to_string();
    let ids = [1, 2].map(|journal| identity(journal, lease).journal.to_string());
    let named = dirs.iter().map(|dir| dir.path().display().to_string());
    for part in ids.into_iter().chain(named) {
        assert!(refused.contains(&part), "{refused}");
    }
    assert!(!catalog.path().join("catalog.db").exists());
}
