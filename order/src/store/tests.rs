use domain::{JournalId, ListingDigest};

use super::*;
use crate::fixtures::{end, journal, term};
use crate::inspect::Ledger;
use order_core::durable::PROPOSED_SLOTS;

#[test]
fn what_was_saved_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let rows = journal(5);
    let mut store = SqliteStore::open(dir.path()).unwrap();
    assert_eq!(store.durable(), Durable::default());
    store.save(&save(Some(term(3, 2)), &rows[..2])).unwrap();
    store.save(&save(None, &rows[1..])).unwrap();
    let saved = store.save(&save(Some(term(4, 1)), &[])).unwrap();
    assert_eq!(
        saved,
        Durable {
            term: term(4, 1),
            end: end(&rows),
            ..Durable::default()
        }
    );
    assert_eq!(store.reader().rows(RowNumber(1), 2).unwrap(), rows[1..3]);
    assert_eq!(store.reader().rows(RowNumber(u64::MAX), 1).unwrap(), []);
    drop(store);
    assert_eq!(SqliteStore::open(dir.path()).unwrap().durable(), saved);
}

#[test]
fn what_does_not_continue_the_ledger_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let rows = journal(4);
    let mut store = SqliteStore::open(dir.path()).unwrap();
    let before = store.save(&save(Some(term(3, 2)), &rows[..1])).unwrap();
    let mut forged = rows[1].clone();
    forged.epoch = Epoch(9);
    let gap = [rows[1].clone(), rows[3].clone()];
    let second_key = [Row::following(
        &LedgerEnd::of(&rows[0]),
        Epoch(1),
        rows[0].entry.clone(),
        rows[0].price,
    )];
    for refused in [&[forged][..], &gap, &second_key] {
        store.save(&save(Some(term(4, 1)), refused)).unwrap_err();
        assert_eq!(store.durable(), before);
    }
    store.save(&save(Some(term(2, 1)), &rows[1..])).unwrap_err();
    drop(store);
    assert_eq!(SqliteStore::open(dir.path()).unwrap().durable(), before);
}

fn identity(journal: u8, lease_ms: u64) -> Identity {
    Identity {
        journal: JournalId::new([journal; JournalId::BYTES]),
        listing: ListingDigest::new([journal; ListingDigest::BYTES]),
        lease_horizon: Duration::from_millis(lease_ms),
    }
}

fn identified(identity: Identity) -> Save {
    Save {
        identity: Some(identity),
        ..Save::default()
    }
}

#[test]
fn a_ledger_keeps_its_journal_and_the_longest_lease() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = SqliteStore::open(dir.path()).unwrap();
    assert_eq!(store.identity(), None);
    store.save(&identified(identity(1, 1100))).unwrap();
    store.save(&identified(identity(1, 2200))).unwrap();
    store.save(&identified(identity(1, 550))).unwrap();
    store.save(&identified(identity(2, 550))).unwrap_err();
    assert_eq!(store.identity(), Some(identity(1, 2200)));
    drop(store);
    let ledger = Ledger::open(dir.path()).unwrap();
    assert_eq!(ledger.identity().unwrap(), Some(identity(1, 2200)));
    let store = SqliteStore::open(dir.path()).unwrap();
    assert_eq!(store.identity(), Some(identity(1, 2200)));
}

#[test]
fn a_term_or_an_identity_that_was_changed_is_damage() {
    for change in [
        "UPDATE term SET epoch = epoch + 1048576",
        "UPDATE term SET leader = 2",
        "DELETE FROM term",
        "DELETE FROM term_checksum",
        "UPDATE identity SET journal = zeroblob(16)",
        "UPDATE identity SET listing = zeroblob(32)",
        "UPDATE identity SET lease_ms = 1",
        "UPDATE identity SET checksum = zeroblob(32)",
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut store = SqliteStore::open(dir.path()).unwrap();
        store.save(&save(Some(term(3, 1)), &journal(2))).unwrap();
        store.save(&identified(identity(1, 1100))).unwrap();
        store.save(&save(Some(term(4, 3)), &[])).unwrap();
        drop(store);
        SqliteStore::open(dir.path()).unwrap();
        let connection = Connection::open(dir.path().join(KIND.file)).unwrap();
        connection.execute_batch(change).unwrap();
        drop(connection);
        let damaged = SqliteStore::open(dir.path()).unwrap_err();
        assert!(damaged.is_damage(), "{change}: {damaged}");
    }
}

/// Rows beside the ledger.
fn propose(rows: &[Row]) -> Save {
    Save {
        proposed: rows.to_vec(),
        ..Save::default()
    }
}

#[test]
fn what_is_proposed_is_kept_beside_the_ledger_until_it_is_in_there() {
    let dir = tempfile::tempdir().unwrap();
    let rows = journal(6);
    let mut store = SqliteStore::open(dir.path()).unwrap();
    store.save(&save(Some(term(1, 2)), &rows[..2])).unwrap();
    store.save(&propose(&rows[2..4])).unwrap();
    let held = store.save(&propose(&rows[3..5])).unwrap();
    assert_eq!(
        (held.end, held.proposed.end),
        (end(&rows[..2]), end(&rows[..5]))
    );
    assert_eq!(store.reader().rows(RowNumber(0), 9).unwrap(), rows[..2]);
    let ledger = Ledger::open(dir.path()).unwrap();
    assert!(ledger.rows().map(Result::unwrap).eq(rows[..2].to_vec()));
    assert!(ledger.held().map(Result::unwrap).eq(rows[..5].to_vec()));
    drop(store);

    let mut store = SqliteStore::open(dir.path()).unwrap();
    assert_eq!(store.durable(), held);
    assert_eq!(store.proposed(), rows[2..5]);
    store.save(&save(None, &rows[2..4])).unwrap();
    assert!(ledger.held().map(Result::unwrap).eq(rows[..5].to_vec()));
    let after = store.save(&save(Some(term(2, 3)), &[])).unwrap();
    assert_eq!(after.end, end(&rows[..4]));
    assert!(
        ledger.held().map(Result::unwrap).eq(rows[..4].to_vec()),
        "the fifth is of an epoch that is over"
    );
    assert_eq!(store.continuing().unwrap(), rows[4..5], "but it is there");
    drop(store);
    let store = SqliteStore::open(dir.path()).unwrap();
    assert_eq!((store.durable().end, store.proposed()), (after.end, vec![]));
}

#[test]
fn what_does_not_continue_what_is_held_is_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let rows = journal(PROPOSED_SLOTS as usize + 3);
    let mut store = SqliteStore::open(dir.path()).unwrap();
    let before = store.save(&save(Some(term(1, 2)), &rows[..2])).unwrap();
    let far = store.save(&propose(&rows[2..])).unwrap_err();
    assert!(far.to_string().contains("too far ahead"), "{far}");
    store.save(&propose(&rows[3..4])).unwrap_err();
    assert_eq!(store.durable(), before);
    assert_eq!(store.continuing().unwrap(), []);
    store
        .save(&propose(&rows[2..PROPOSED_SLOTS as usize + 2]))
        .unwrap();
    // With another row in the ledger there is room for another one beside it.
    let both = Save {
        rows: rows[2..3].to_vec(),
        ..propose(&rows[PROPOSED_SLOTS as usize + 2..])
    };
    let held = store.save(&both).unwrap();
    assert_eq!(held.proposed.end, end(&rows));
    assert_eq!(store.continuing().unwrap(), rows[3..]);
}

#[test]
fn a_ledger_is_read_in_chunks_while_its_replica_runs() {
    let dir = tempfile::tempdir().unwrap();
    let rows = journal(10_000);
    let mut store = SqliteStore::open(dir.path()).unwrap();
    store.save(&save(None, &rows)).unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    assert_eq!(ledger.end().unwrap(), end(&rows));
    assert!(ledger.rows().map(Result::unwrap).eq(rows));
    assert!(Ledger::open(&dir.path().join("elsewhere")).is_err());
}

/// Rows of the ledger, perhaps with a term.
fn save(term: Option<Term>, rows: &[Row]) -> Save {
    Save {
        term,
        rows: rows.to_vec(),
        ..Save::default()
    }
}

const ROWS: usize = 300;

fn filled_store(dir: &Path) -> Vec<Row> {
    let rows = journal(ROWS);
    let mut store = SqliteStore::open(dir).unwrap();
    store.save(&save(Some(term(3, 2)), &rows)).unwrap();
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
