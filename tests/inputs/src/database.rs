//! The files of a ledger and of a catalog, damaged: they are refused, or what is read from them
//! is what was written.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use catalog::store::sqlite::{SqliteJournal, SqliteStore as CatalogStore};
use catalog_core::{CatalogState, Leadership, PriorOutcome, Stock};
use domain::Term;
use domain::{
    Epoch, IdempotencyKey, JournalId, Order, Quantity, ReplicaId, Row, RowNumber, Side, StockName,
};
use order::inspect::Ledger;
use order::store::{SqliteStore as LedgerStore, Store as _};
use order_core::durable::Save;
use rusqlite::Connection;
use storage::StorageError;
use tempfile::TempDir;

/// Rows of the databases that are damaged; those from the second number on are only in the
/// write-ahead log.
const ROWS: usize = 60;
const ROWS_CHECKPOINTED: usize = 40;

const LEDGER: &str = "orders.db";
const CATALOG: &str = "catalog.db";

/// Damages of one run.
const DAMAGES_MAX: usize = 8;

/// Files of a process that was killed, by what follows the database's name.
type Files = Vec<(&'static str, Vec<u8>)>;

struct Killed {
    files: Files,
    rows: Vec<Row>,
    /// The stocks after so many rows.
    stocks: BTreeMap<u64, Vec<Stock>>,
}

static KILLED_CATALOG: LazyLock<Killed> = LazyLock::new(|| {
    let dir = directory();
    let mut stocks = BTreeMap::new();
    let mut rows = Vec::new();
    let mut store = CatalogStore::open(dir.path()).expect("a new directory");
    let journal = JournalId::new([1; JournalId::BYTES]);
    let begun = store.begin(
        journal,
        &catalog::stocks::built_in(),
        domain::Protocol::NEWEST,
    );
    begun.expect("the disk is sound");
    let mut state = store.load().expect("it is sound").state;
    let leader = ReplicaId::new(2).expect("it is not 0");
    for number in 0..ROWS {
        if number == ROWS_CHECKPOINTED {
            drop(store);
            store = CatalogStore::open(dir.path()).expect("it is sound");
        }
        let mut staged = state.stage();
        if number == 0 {
            staged.elect(Epoch(0), leader);
        }
        staged
            .trade(Epoch(1), order(number), None)
            .expect("it is the epoch");
        let batch = staged.into_batch();
        store.commit(&batch).expect("the disk is sound");
        rows.extend(batch.rows.iter().cloned());
        state.apply(batch);
        stocks.insert(rows.len() as u64, listed(&state));
    }
    stocks.insert(
        0,
        listed(&CatalogState::new(
            initial(),
            Default::default(),
            Default::default(),
        )),
    );
    Killed {
        files: files(dir.path(), CATALOG),
        rows,
        stocks,
    }
});

static KILLED_LEDGER: LazyLock<Killed> = LazyLock::new(|| {
    let dir = directory();
    let rows = KILLED_CATALOG.rows.clone();
    let (checkpointed, logged) = rows.split_at(ROWS_CHECKPOINTED);
    let term = Term {
        epoch: Epoch(1),
        leader: ReplicaId::new(2),
    };
    let mut store = LedgerStore::open(dir.path()).expect("a new directory");
    let save = Save {
        term: Some(term),
        rows: checkpointed.to_vec(),
        ..Save::default()
    };
    store.save(&save).expect("they continue it");
    drop(store);
    let mut store = LedgerStore::open(dir.path()).expect("it is sound");
    for rows in logged.chunks(5) {
        let (mut proposed, mut committed) = (Save::default(), Save::default());
        proposed.proposed = rows.to_vec();
        committed.rows = rows.to_vec();
        store.save(&proposed).expect("they continue it");
        store.save(&committed).expect("they continue it");
    }
    Killed {
        files: files(dir.path(), LEDGER),
        rows,
        stocks: BTreeMap::new(),
    }
});

fn directory() -> TempDir {
    tempfile::tempdir().expect("there is a temporary directory")
}

fn order(number: usize) -> Order {
    let names = ["nvidia", "meta", "tesla"];
    Order {
        key: IdempotencyKey::new(&format!("key-{number}")).expect("it is one"),
        name: StockName::new(names[number % names.len()]).expect("it is one"),
        side: if number.is_multiple_of(2) {
            Side::Buy
        } else {
            Side::Sell
        },
        quantity: Quantity::new(1 + number as u64 % 7).expect("it is one"),
    }
}

fn initial() -> impl Iterator<Item = Stock> {
    let listings = catalog::stocks::built_in();
    listings
        .into_iter()
        .map(|listing| Stock::first(listing.name, listing.price, listing.quantity))
}

fn listed(state: &CatalogState) -> Vec<Stock> {
    state.stocks().cloned().collect()
}

fn files(dir: &Path, name: &str) -> Files {
    ["", "-wal"]
        .into_iter()
        .map(|suffix| {
            let file = fs::read(dir.join(format!("{name}{suffix}")));
            (suffix, file.expect("a store that is open has both files"))
        })
        .collect()
}

/// Takes bytes apart into damages, and does them. Each begins with its kind and place.
fn damage(files: &mut Files, mut bytes: &[u8]) -> Vec<&'static str> {
    let mut changes = Vec::new();
    for _ in 0..DAMAGES_MAX {
        let Some((&[kind, high, middle, low], rest)) = bytes.split_first_chunk() else {
            break;
        };
        bytes = rest;
        let place = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        let which = usize::from(kind >> 7) % files.len().max(1);
        let Some((_, file)) = files.get_mut(which).filter(|(_, file)| !file.is_empty()) else {
            break;
        };
        let at = place % file.len();
        match kind % 8 {
            0..=2 => file[at] ^= 1 << (kind >> 3 & 7),
            3 | 4 => {
                let length = usize::from(kind >> 3 & 15) * 8 + 1;
                let length = length.min(bytes.len()).min(file.len() - at);
                let (written, rest) = bytes.split_at(length);
                file[at..at + length].copy_from_slice(written);
                bytes = rest;
            }
            5 => file.truncate(at),
            6 => {
                files.remove(which);
            }
            _ => changes.push(CHANGES[place % CHANGES.len()]),
        }
    }
    changes
}

/// By hand, in SQL; those that a database does not have the tables for do nothing.
const CHANGES: [&str; 19] = [
    "DELETE FROM journal WHERE number = 0",
    "DELETE FROM journal WHERE number BETWEEN 20 AND 22",
    "UPDATE journal SET quantity = quantity + 1 WHERE number = 30",
    "UPDATE journal SET side = 'buy'",
    "UPDATE journal SET chain = zeroblob(32) WHERE number = 59",
    "UPDATE journal SET number = number + 1000 WHERE number > 50",
    "UPDATE term SET epoch = 9223372036854775807",
    "UPDATE stock SET quantity = quantity + 1 WHERE name = 'meta'",
    "UPDATE stock SET price = 1 WHERE name = 'meta'",
    "UPDATE leadership SET epoch = 9223372036854775807",
    "DELETE FROM stock",
    "DROP TABLE journal",
    "UPDATE leadership SET epoch = epoch + 1048576",
    "UPDATE leadership SET leader = 1",
    "INSERT INTO in_sync VALUES (7)",
    "UPDATE checksum SET sum = zeroblob(32)",
    "DELETE FROM checksum",
    "DELETE FROM identity",
    "UPDATE identity SET journal = zeroblob(16)",
];

/// Puts the files somewhere, damaged.
fn place(killed: &Killed, name: &str, bytes: &[u8]) -> TempDir {
    let mut files = killed.files.clone();
    let changes = damage(&mut files, bytes);
    let dir = directory();
    let database = dir.path().join(name);
    for (suffix, content) in files {
        let file = dir.path().join(format!("{name}{suffix}"));
        fs::write(file, content).expect("the directory is writable");
    }
    if let Ok(connection) = Connection::open(database) {
        for change in changes {
            // What is damaged already, or another database, refuses.
            let _ = connection.execute_batch(change);
        }
    }
    dir
}

/// Whether these rows are those that were written from a number on, as far as they go.
fn assert_right(found: &[Row], killed: &Killed, from: usize) {
    let written = killed.rows.get(from..).unwrap_or_default();
    assert!(written.starts_with(found), "rows from {from} on are wrong");
}

pub fn check_ledger(bytes: &[u8]) {
    let killed = &*KILLED_LEDGER;
    let dir = place(killed, LEDGER, bytes);
    // Not read in full before, as a ledger that is damaged while it is used.
    if let Ok(ledger) = Ledger::open(dir.path()) {
        for from in [0, 1, 20, 23, 30, 39, 40, 51, 59, 60] {
            let rows = ledger.rows_from(RowNumber(from as u64));
            let sound: Vec<Row> = rows.map_while(Result::ok).collect();
            assert_right(&sound, killed, from);
        }
    }
    if let Ok(store) = LedgerStore::open(dir.path()) {
        let rows = store.reader().rows(RowNumber(0), 2 * ROWS);
        let rows = rows.expect("it was read in full");
        assert_right(&rows, killed, 0);
        assert_eq!(store.durable().end.rows.0, rows.len() as u64);
    }
    match LedgerStore::open_or_set_aside(dir.path()) {
        Ok((mut store, aside)) => {
            let held = store.durable().end.rows;
            assert!(aside.is_none() || held == RowNumber(0));
            let save = Save {
                rows: killed.rows.clone(),
                ..Save::default()
            };
            store.save(&save).expect("the rest continues it");
            let rows = store.reader().rows(RowNumber(0), 2 * ROWS);
            assert_eq!(rows.expect("it is sound"), killed.rows);
        }
        // Its head and its tables are those of something else.
        Err(error) => assert!(matches!(error, StorageError::Foreign { .. }), "{error}"),
    }
}

pub fn check_catalog(bytes: &[u8]) {
    let killed = &*KILLED_CATALOG;
    let dir = place(killed, CATALOG, bytes);
    // Not read in full before, as a journal that is damaged while it is used.
    if let Ok(journal) = SqliteJournal::open(dir.path()) {
        for from in [0, 1, 20, 23, 30, 39, 40, 51, 59, 60] {
            if let Ok(rows) = journal.rows(RowNumber(from as u64), ROWS) {
                assert_right(&rows, killed, from);
            }
        }
    }
    let Ok(mut store) = CatalogStore::open(dir.path()) else {
        return;
    };
    let Ok(loaded) = store.load() else {
        return; // Or nothing of it is left, and the journal with it.
    };
    let Leadership { term, end } = loaded.state.leadership();
    let rows = end.rows.0;
    // The first batch elected a leader.
    let written = (rows > 0).then_some((Epoch(1), ReplicaId::new(2)));
    let written = written.unwrap_or_default();
    assert_eq!((term.epoch, term.leader), written, "the term");
    assert_eq!(term.in_sync, BTreeSet::new(), "the in-sync set");
    let journal = SqliteJournal::open(dir.path()).expect("it was just read");
    let found = journal.rows(RowNumber(0), 2 * ROWS);
    let found = found.expect("it was read in full");
    assert_right(&found, killed, 0);
    assert_eq!(found.len() as u64, rows);
    assert_eq!(
        killed.stocks.get(&rows),
        Some(&listed(&loaded.state)),
        "the stocks are those after {rows} rows"
    );
    for row in &killed.rows {
        let known = store
            .find_key(row.entry.key())
            .expect("it was read in full");
        let expected = Some(row).filter(|row| row.number.0 < rows);
        let expected = expected.cloned().map(PriorOutcome::Row);
        assert_eq!(known, expected, "a key has its row");
    }
}
