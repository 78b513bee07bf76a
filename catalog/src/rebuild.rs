//! Makes a lost database anew from what replicas hold.
//!
//! Every acknowledged order is on every in-sync replica's disk, in the ledger, which is a prefix of
//! the journal, or among the few rows beside it: so the longest ledger and what is beyond it are
//! the journal again, as far as anybody was told of it. The
//! stocks are those that the catalog was first started with, traded order by order. The epoch
//! rises above every one that the replicas have seen, which fences whoever led before.

use std::fs;
use std::path::Path;

use protocol::{ChainHash, Epoch, OrderNumber, ReplicaId, Row};
use storage::StorageError;
use storage::rows::End;

use crate::config::{Config, lease_margin};
use crate::core::{Batch, Stock, Term};
use crate::error::RebuildError;
use crate::stocks;
use crate::store::Store as _;
use crate::store::sqlite::{FILE, SqliteStore};

/// Rows that are made durable at a time.
const CHUNK_ROWS: usize = 4096;

/// Where the new database is made, in the data directory, before it takes its place.
const WORK_DIR: &str = "rebuild";

/// What is left of a catalog.
#[derive(Debug)]
pub struct Remains<R> {
    /// The longest ledger's rows, and those beyond it.
    pub rows: R,
    /// The highest epoch that any replica has seen, and its leader.
    pub epoch: Epoch,
    /// See `epoch`.
    pub leader: Option<ReplicaId>,
}

/// Makes the database that `config` names. Either all of it is there afterwards, or nothing.
///
/// # Errors
/// Where there is a database already, or the rows do not fit the stocks or each other.
pub fn rebuild<R>(config: &Config, remains: Remains<R>) -> Result<OrderNumber, RebuildError>
where
    R: Iterator<Item = Result<Row, StorageError>>,
{
    let database = config.data_dir.join(FILE);
    if database.exists() {
        return Err(RebuildError::Exists(database));
    }
    let work_dir = config.data_dir.join(WORK_DIR);
    let failed = |source| RebuildError::Write {
        path: work_dir.clone(),
        source,
    };
    if work_dir.exists() {
        fs::remove_dir_all(&work_dir).map_err(failed)?;
    }
    let rows = fill(config, &work_dir, remains)?;
    // Its last connection is closed: all of it is in the one file, which takes its place at once.
    fs::rename(work_dir.join(FILE), &database).map_err(failed)?;
    fs::File::open(&config.data_dir)
        .and_then(|dir| dir.sync_all())
        .map_err(failed)?;
    fs::remove_dir_all(&work_dir).map_err(failed)?;
    Ok(rows)
}

fn fill<R>(config: &Config, dir: &Path, remains: Remains<R>) -> Result<OrderNumber, RebuildError>
where
    R: Iterator<Item = Result<Row, StorageError>>,
{
    let listings = match &config.stocks {
        Some(path) => stocks::load(path)?,
        None => stocks::built_in(),
    };
    let mut store = SqliteStore::open(dir)?;
    store.list(&listings)?;
    let mut books = Replay {
        end: End::default(),
        stocks: store.load()?.books.stocks().cloned().collect(),
    };
    let mut rows = remains.rows;
    loop {
        let chunk: Vec<Row> = rows.by_ref().take(CHUNK_ROWS).collect::<Result<_, _>>()?;
        if chunk.is_empty() {
            break;
        }
        store.commit(&books.replay(chunk)?)?;
    }
    let term = term(remains.epoch, remains.leader);
    store.commit(&Batch {
        term: Some(term),
        ..Batch::default()
    })?;
    // Gateways may still hold leases of the catalog that was lost.
    store.set_sessions_out(Some(config.lease + lease_margin(config.lease)))?;
    Ok(books.end.rows)
}

/// One epoch above all that were seen. The catalog begins the next one when it starts.
fn term(epoch: Epoch, leader: Option<ReplicaId>) -> Term {
    match leader {
        Some(leader) => Term {
            epoch: epoch.next(),
            leader: Some(leader),
            in_sync: [leader].into(),
            ..Term::default()
        },
        None => Term::default(),
    }
}

/// The journal as far as it has been read, and what it made of the stocks.
struct Replay {
    end: End,
    stocks: Vec<Stock>,
}

impl Replay {
    fn replay(&mut self, rows: Vec<Row>) -> Result<Batch, RebuildError> {
        let before = self.stocks.clone();
        for row in &rows {
            let number = row.number;
            let previous: ChainHash = self.end.chain;
            if number != self.end.rows || !row.follows(&previous) {
                return Err(RebuildError::Broken(number));
            }
            let stock = self
                .stocks
                .iter_mut()
                .find(|stock| stock.name == row.order.name);
            let stock = stock.ok_or_else(|| RebuildError::UnknownStock {
                number,
                name: row.order.name.clone(),
            })?;
            *stock = stock
                .traded(&row.order)
                .map_err(|_| RebuildError::Impossible { number })?;
            self.end = End {
                rows: number.next(),
                chain: row.chain,
            };
        }
        let changed = self
            .stocks
            .iter()
            .zip(before)
            .filter(|(now, before)| *now != before);
        let stocks = changed.map(|(now, _)| now.clone()).collect();
        Ok(Batch {
            rows,
            stocks,
            ..Batch::default()
        })
    }
}
