use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use domain::LedgerEnd;
use domain::{
    Epoch, IdempotencyKey, JournalId, Order, Price, Protocol, Quantity, ReplicaId, Row, RowNumber,
    Side, StockName,
};

use crate::config::{LEASE_MAX, lease_max};
use crate::store::Loaded;
use crate::store::sqlite::{FILE, SqliteStore};
use crate::{Config, RebuildError, RebuildSource, rebuild, stocks};

const JOURNAL: JournalId = JournalId::new([5; JournalId::BYTES]);
const LEASE: Duration = Duration::from_millis(200);

fn config(data_dir: &Path) -> Config {
    Config {
        data_dir: data_dir.to_owned(),
        new: false,
        stocks: None,
        lease: LEASE,
        accept_loss_of: BTreeSet::new(),
        archive_after: None,
        monitor: Default::default(),
        traces: Default::default(),
    }
}

/// Sales of a share of meta each, in these epochs.
fn rows(epochs: &[u64]) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for epoch in epochs {
        let end = rows.last().map(LedgerEnd::of).unwrap_or_default();
        let order = Order {
            key: IdempotencyKey::new(&format!("key-{}", rows.len())).unwrap(),
            name: StockName::new("meta").unwrap(),
            side: Side::Sell,
            quantity: Quantity::new(1).unwrap(),
        };
        let price = Price::from_minor(19402).unwrap();
        let row = Row::following(&end, Epoch(*epoch), order, price);
        rows.push(row);
    }
    rows
}

type Rows = std::iter::Map<std::vec::IntoIter<Row>, fn(Row) -> Result<Row, storage::StorageError>>;

/// What replicas hold that know all there is to know.
fn rebuild_source(rows: Vec<Row>) -> RebuildSource<Rows> {
    RebuildSource {
        rows: rows.into_iter().map(Ok),
        journal: Some(JOURNAL),
        listing: Some(stocks::digest(&stocks::built_in())),
        lease_horizon: Some(lease_max(LEASE)),
        epoch: Epoch(2),
        leader: ReplicaId::new(3),
        protocol: Protocol::FIRST,
    }
}

/// What a catalog finds that was rebuilt.
fn rebuilt(source: RebuildSource<Rows>) -> Loaded {
    let dir = tempfile::tempdir().unwrap();
    rebuild(&config(dir.path()), source).unwrap();
    SqliteStore::open(dir.path()).unwrap().load().unwrap()
}

fn refused(config: &Config, source: RebuildSource<Rows>) -> RebuildError {
    let refused = rebuild(config, source).unwrap_err();
    assert!(!config.data_dir.join(FILE).exists());
    refused
}

#[test]
fn a_journal_that_is_made_anew_keeps_its_id() {
    let loaded = rebuilt(rebuild_source(rows(&[1, 2])));
    assert_eq!(loaded.journal, JOURNAL);
    assert_eq!(loaded.state.leadership().end.rows, RowNumber(2));
    let of_before = || RebuildSource {
        journal: None,
        listing: None,
        ..rebuild_source(rows(&[1]))
    };
    assert_ne!(rebuilt(of_before()).journal, rebuilt(of_before()).journal);
}

#[test]
fn the_epoch_is_above_everything_that_was_seen() {
    for (seen, epochs, above) in [
        (2, &[1, 1][..], 3),
        (1, &[1, 7], 8),
        (0, &[4], 5),
        (0, &[], 1),
    ] {
        let loaded = rebuilt(RebuildSource {
            epoch: Epoch(seen),
            ..rebuild_source(rows(epochs))
        });
        let term = loaded.state.leadership().term;
        assert_eq!(term.epoch, Epoch(above), "{seen} {epochs:?}");
    }
    let dir = tempfile::tempdir().unwrap();
    let impossible = RebuildSource {
        epoch: Epoch(i64::MAX as u64),
        ..rebuild_source(rows(&[1]))
    };
    let refused = refused(&config(dir.path()), impossible);
    assert!(matches!(refused, RebuildError::NoEpochLeft(_)), "{refused}");
}

#[test]
fn a_ledger_that_never_heard_of_a_term_makes_a_catalog_that_opens() {
    let loaded = rebuilt(RebuildSource {
        epoch: Epoch(0),
        leader: None,
        ..rebuild_source(rows(&[1, 1]))
    });
    let term = loaded.state.leadership().term;
    assert_eq!(term.epoch, Epoch(2));
    assert!(term.in_sync.contains(&term.leader.unwrap()));
}

#[test]
fn every_lease_that_may_have_been_lent_is_waited_for() {
    let longest = lease_max(LEASE_MAX);
    for (horizon, waited) in [
        (None, longest),
        (Some(Duration::from_secs(3)), Duration::from_secs(3)),
        (Some(Duration::from_millis(1)), lease_max(LEASE)),
    ] {
        let loaded = rebuilt(RebuildSource {
            lease_horizon: horizon,
            ..rebuild_source(rows(&[1]))
        });
        assert_eq!(loaded.sessions_out, Some(waited), "{horizon:?}");
    }
}

#[test]
fn stocks_that_are_not_the_first_ones_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let with = |file: &str| {
        let path = dir.path().join("stocks.csv");
        std::fs::write(&path, file).unwrap();
        Config {
            stocks: Some(path),
            ..config(&dir.path().join("catalog"))
        }
    };
    let of_before = || RebuildSource {
        listing: None,
        ..rebuild_source(rows(&[1]))
    };
    let price = with("name,price,quantity\nmeta,194.03,1000\n");
    match refused(&price, of_before()) {
        RebuildError::OtherPrice { number, name, .. } => {
            assert_eq!((number, name.as_str()), (RowNumber(0), "meta"));
        }
        other => panic!("{other}"),
    }
    let told = refused(&price, of_before()).to_string();
    for part in ["row 0", "meta", "194.02", "194.03", "--stocks"] {
        assert!(told.contains(part), "{told}");
    }
    let quantity = with("name,price,quantity\nmeta,194.02,7\n");
    let told = refused(&quantity, rebuild_source(rows(&[1])));
    assert!(matches!(told, RebuildError::OtherListing), "{told}");
    // Nobody can tell where no ledger knows.
    rebuild(&quantity, of_before()).unwrap();
}

#[test]
fn a_log_that_is_left_of_the_lost_database_is_not_taken_for_the_new_one_s() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = SqliteStore::open(dir.path()).unwrap();
    store
        .begin(
            JournalId::new([6; 16]),
            &stocks::built_in(),
            Protocol::NEWEST,
        )
        .unwrap();
    let mut staged_on = store.load().unwrap().state;
    let mut staged = staged_on.stage();
    staged.elect(Epoch(0), ReplicaId::new(1).unwrap());
    let batch = staged.into_batch();
    store.commit(&batch).unwrap();
    staged_on.apply(batch);
    let log = dir.path().join(format!("{FILE}-wal"));
    let left = std::fs::read(&log).unwrap();
    drop(store);
    std::fs::remove_file(dir.path().join(FILE)).unwrap();
    std::fs::write(&log, &left).unwrap();

    rebuild(&config(dir.path()), rebuild_source(rows(&[1]))).unwrap();
    let loaded = SqliteStore::open(dir.path()).unwrap().load().unwrap();
    assert_eq!(loaded.journal, JOURNAL);
    assert_eq!(loaded.state.leadership().end.rows, RowNumber(1));
    let kept = dir.path().join(format!("{FILE}.damaged-1-wal"));
    assert_eq!(std::fs::read(kept).unwrap(), left);
}
