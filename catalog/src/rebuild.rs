//! Makes a lost database anew from what replicas hold.
//!
//! Every acknowledged order is on every in-sync replica's disk, in the ledger, which is a prefix of
//! the journal, or among the few rows beside it: so the longest ledger and what is beyond it are
//! the journal again, as far as anybody was told of it, and it keeps its id. The
//! stocks are those that the journal began with, traded order by order. The epoch
//! rises above every one that the replicas have seen, which fences every earlier leader; and nothing
//! is read or traded until every lease that the lost catalog may have lent is over.
//!
//! - [`ledgers`]: what the replicas' ledgers together say of it;
//! - here: the database that is made of that.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use daemon::ownership::Ownership;
use daemon::{atomic_file, directory};
use domain::LedgerEnd;
use domain::{
    Epoch, JournalId, ListingDigest, OrderNumber, Protocol, Refusal, ReplicaId, Row, StockName,
};
use storage::{DataDir, StorageError, archive};

use crate::config::{Config, LEASE_MAX, lease_max};
use crate::error::RebuildError;
use crate::stocks::{self, Listing, Listings};
use crate::store::random_journal;
use crate::store::sqlite::{FILE, KIND, SqliteStore};
use catalog_core::self_healing::EPOCH_MAX;
use catalog_core::{Batch, Stock, Term};

pub mod ledgers;

/// Rows that are made durable at a time.
const CHUNK_ROWS: usize = 4096;

/// Where the new database is made, in the data directory, before it takes its place.
const WORK_DIR: &str = "rebuild";

/// Who leads where nobody is known to have led: gateways elect another where there is none of that
/// number.
const SOME_REPLICA: u32 = 1;

/// What is left of a catalog.
#[derive(Debug)]
pub struct RebuildSource<R> {
    /// The longest ledger's rows, and those beyond it.
    pub rows: R,
    /// Which journal they are of; `None` where the ledgers are of before there were ids.
    pub journal: Option<JournalId>,
    /// Of the stocks that it began with, where a ledger knows.
    pub listing: Option<ListingDigest>,
    /// The longest time for which the catalog was heard to count a lease; `None` where a ledger
    /// does not know.
    pub lease_horizon: Option<Duration>,
    /// The highest epoch that any replica has seen, in whatever it holds.
    pub epoch: Epoch,
    /// Who led last, as far as is known.
    pub leader: Option<ReplicaId>,
    /// The version of the protocol that the bazaar was at, or a lower one where nobody is sure: that can be raised again.
    pub protocol: Protocol,
}

/// Makes the database that `config` names. Either all of it is there afterwards, or nothing.
///
/// # Errors
/// Where there is a database already, or the rows do not fit the stocks or each other.
pub fn rebuild<R>(config: &Config, source: RebuildSource<R>) -> Result<OrderNumber, RebuildError>
where
    R: Iterator<Item = Result<Row, StorageError>>,
{
    let listings = match &config.stocks {
        Some(path) => stocks::load(path, Listings::AsBefore)?,
        None => stocks::built_in(),
    };
    in_place(&config.data_dir, |work_dir| {
        let mut store = SqliteStore::open(work_dir)?;
        fill(&mut store, &listings, config.lease, source)
    })
}

/// Makes the database of a data directory that has none, in a directory of its own at first. Either all of it is there
/// afterwards, or nothing.
pub(crate) fn in_place<T>(
    data_dir: &Path,
    make: impl FnOnce(&Path) -> Result<T, RebuildError>,
) -> Result<T, RebuildError> {
    let unwritable = |source| RebuildError::Write {
        path: data_dir.to_owned(),
        source,
    };
    let ownership = Ownership::of(data_dir).map_err(unwritable)?;
    let taken = DataDir::take(data_dir)?;
    let database = data_dir.join(FILE);
    if database.exists() {
        return Err(RebuildError::Exists(database));
    }
    // A log that is left of the lost database would be taken for the new one's, and an archive as well.
    let log = data_dir.join(format!("{FILE}-wal"));
    if log.exists() || data_dir.join(archive::DIR).exists() {
        let aside = taken.set_aside(KIND)?;
        tracing::warn!(kept = %aside.display(), "set a lost database's log or archive aside");
    }
    let work_dir = data_dir.join(WORK_DIR);
    let failed = |source| RebuildError::Write {
        path: work_dir.clone(),
        source,
    };
    if work_dir.exists() {
        fs::remove_dir_all(&work_dir).map_err(failed)?;
    }
    let made = make(&work_dir)?;
    // Its last connection is closed, which moved all of it into the one file, or failed to unseen.
    let log = work_dir.join(format!("{FILE}-wal"));
    if log.exists() {
        return Err(RebuildError::Write {
            path: log,
            source: io::Error::other("it cannot be moved into the database: is the disk full?"),
        });
    }
    // Before its database: where this ends early, an archive alone is set aside the next time.
    let archive = work_dir.join(archive::DIR);
    if archive.exists() {
        // A backup's files were unpacked there a moment ago.
        directory::sync_tree(&archive).map_err(failed)?;
        fs::rename(&archive, data_dir.join(archive::DIR)).map_err(failed)?;
        directory::sync(data_dir).map_err(failed)?;
    }
    atomic_file::replace(&work_dir.join(FILE), &database).map_err(failed)?;
    fs::remove_dir_all(&work_dir).map_err(failed)?;
    ownership.give(data_dir).map_err(unwritable)?;
    Ok(made)
}

/// Fills a new database: the stocks that the journal began with are traded order by order. `lease`
/// is the one that the catalog will be run with. Returns how many orders there are.
///
/// # Errors
/// Where the rows do not fit the stocks or each other; the database is then good for nothing.
pub fn fill<R>(
    store: &mut SqliteStore,
    listings: &[Listing],
    lease: Duration,
    source: RebuildSource<R>,
) -> Result<OrderNumber, RebuildError>
where
    R: Iterator<Item = Result<Row, StorageError>>,
{
    let RebuildSource {
        mut rows,
        journal,
        listing,
        lease_horizon,
        epoch,
        leader,
        protocol,
    } = source;
    if listing.is_some_and(|listing| listing != stocks::digest(listings)) {
        return Err(RebuildError::OtherListing);
    }
    let journal = match journal {
        Some(journal) => journal,
        None => random_journal()?,
    };
    store.begin(journal, listings, protocol)?;
    let listed = store.load()?.state;
    let listed = listed.stocks().cloned();
    let mut replay = Replay {
        end: LedgerEnd::default(),
        epoch,
        stocks: listed.map(|stock| (stock.name.clone(), stock)).collect(),
    };
    loop {
        let chunk: Vec<Row> = rows.by_ref().take(CHUNK_ROWS).collect::<Result<_, _>>()?;
        if chunk.is_empty() {
            break;
        }
        store.commit(&replay.replay(chunk)?)?;
    }
    store.commit(&Batch {
        term: Some(term(replay.epoch, leader)?),
        ..Batch::default()
    })?;
    // Gateways may still hold leases of the catalog that was lost, or of one with another lease
    // before it.
    let longest = lease_horizon.unwrap_or(lease_max(LEASE_MAX));
    store.set_sessions_out(Some(longest.max(lease_max(lease))))?;
    Ok(replay.end.orders())
}

/// One epoch above all that were seen. The catalog begins the next one when it starts.
fn term(epoch: Epoch, leader: Option<ReplicaId>) -> Result<Term, RebuildError> {
    if epoch > EPOCH_MAX {
        return Err(RebuildError::NoEpochLeft(epoch));
    }
    let leader = leader.or(ReplicaId::new(SOME_REPLICA));
    Ok(Term {
        epoch: epoch.next(),
        leader,
        in_sync: leader.into_iter().collect(),
        ..Term::default()
    })
}

/// The journal as far as it has been read, and what it made of the stocks.
struct Replay {
    end: LedgerEnd,
    /// The highest that was seen.
    epoch: Epoch,
    /// With those that are not listed any more.
    stocks: BTreeMap<StockName, Stock>,
}

impl Replay {
    fn replay(&mut self, rows: Vec<Row>) -> Result<Batch, RebuildError> {
        let mut changed = BTreeSet::new();
        for row in &rows {
            let number = row.number;
            if !self.end.is_continued_by(row) {
                return Err(RebuildError::Broken(number));
            }
            let name = row.entry.name();
            let after = Stock::after(self.stocks.get(name), &row.entry, number);
            let after = after.map_err(|refusal| match refusal {
                Refusal::StockNotFound => RebuildError::UnknownStock {
                    number,
                    name: name.clone(),
                },
                _ => RebuildError::Impossible { number },
            })?;
            if row.price != after.price {
                return Err(RebuildError::OtherPrice {
                    number,
                    name: name.clone(),
                    traded: row.price,
                    listed: after.price,
                });
            }
            self.stocks.insert(name.clone(), after);
            changed.insert(name);
            self.epoch = self.epoch.max(row.epoch);
            self.end = LedgerEnd::of(row);
        }
        let stocks = changed.into_iter().map(|name| self.stocks[name].clone());
        Ok(Batch {
            stocks: stocks.collect(),
            rows,
            ..Batch::default()
        })
    }
}
