//! The catalog: owns the stocks and the journal of trades. It is the commit point, the
//! sequencer and the fence of every trade, and it lends stocks to the gateways' caches.
//!
//! - [`config`]: how a catalog is set up;
//! - [`stocks`]: the stocks that a new one starts with;
//! - `catalog_core`: the rules, without a clock, a disk or a network;
//! - [`store`]: what is durable;
//! - [`shared`]: what the writer, the readers and the sessions share;
//! - [`writer`]: the one thread that changes what is committed;
//! - [`session`]: a gateway's leases and invalidations;
//! - [`takes`]: tokens that gateways take for their policies;
//! - [`service`]: the gRPC service;
//! - [`server`]: puts the parts together and serves;
//! - [`damage`]: a catalog whose disk turns out to be damaged stops;
//! - [`rebuild`]: a lost database, rebuilt from replicas' ledgers;
//! - [`error`]: what can go wrong, and which gRPC status says so.
//!
//! A trade's way: `service` → `writer` stages it on the catalog's state (`catalog_core::ledger`) with whatever
//! else has queued → `shared` tells caches to let go (`catalog_core::leases`), and `service` the leader of the
//! new row → `store` makes it durable → `catalog_core::visibility` shows it once caches have let go → the answer
//! goes out.

#![cfg_attr(
    not(test),
    warn(clippy::disallowed_methods, clippy::print_stdout, clippy::print_stderr)
)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rpc::listen::Incoming;
use storage::StorageError;

pub mod config;
pub mod stocks;
pub mod store;
pub mod shared;
pub mod writer;
pub mod session;
pub mod takes;
pub mod service;
pub mod server;
pub mod damage;
pub mod rebuild;
pub mod error;

#[cfg(test)]
mod tests;

pub use config::Config;
pub use error::{Error, RebuildError};
pub use rebuild::ledgers::{Disagreement, Found, Ledgers};
pub use rebuild::{RebuildSource, rebuild};
pub use store::sqlite::holds_journal;

use crate::damage::{Damaged, Watched};
use crate::error::NoJournal;
use crate::server::Parts;
use crate::stocks::Free;
use crate::store::sqlite::{FILE, SqliteJournal, SqliteStore, random_journal};
use crate::store::{Journal, Loaded, Store};
use crate::takes::handover::{Handover, Of};
use catalog_core::limits::Snapshot;

/// Serves a catalog on `listener` until `shutdown`, then stops cleanly within seconds.
///
/// # Errors
/// Where it cannot start, the network fails, or an invariant turns out not to hold. A disk
/// that fails a sync aborts the process instead.
pub async fn run(
    config: Config,
    listener: impl Into<Incoming>,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), Error> {
    config.validate()?;
    let data_dir = config.data_dir.clone();
    let handover = Handover::new(&data_dir);
    let damaged = |what| Damaged { data_dir, what };
    tokio::pin!(shutdown);
    let opening = tokio::task::spawn_blocking(move || open(&config));
    let opened = tokio::select! {
        opened = opening => opened,
        () = &mut shutdown => return Ok(()),
    };
    let opened = match opened.map_err(std::io::Error::from)? {
        Err(Error::Storage(error)) if error.is_damage() => {
            return Err(damaged(error.to_string()).into());
        }
        opened => opened?,
    };
    let Opened {
        mut store,
        journal,
        loaded,
        lease,
        left,
    } = opened;
    let (reporter, mut receiver) = storage::damage::channel();
    let _watch = store.watch(reporter.clone());
    let unchecked = store.unchecked();
    let _check = unchecked.map(|unchecked| {
        reporter
            .clone()
            .check(move |keep_going| unchecked.check(keep_going))
    });
    let parts = Parts {
        store: Box::new(Watched::new(
            Box::new(store) as Box<dyn Store>,
            reporter.clone(),
        )),
        journal: Arc::new(Watched::new(
            Arc::new(journal) as Arc<dyn Journal>,
            reporter.clone(),
        )),
        loaded,
        lease,
        left,
        handover: Some(handover),
        ledger_check_max: catalog_core::LEDGER_CHECK_MAX,
        reporter,
    };
    tokio::select! {
        served = server::serve(parts, listener, shutdown) => served,
        what = receiver.next() => Err(damaged(what).into()),
    }
}

/// Begins a journal in a directory that has none: its database, its id and its first stocks, all
/// of it or nothing. [`run`] does the same where the configuration says so.
///
/// # Errors
/// Where the directory cannot be used, or the stocks cannot be read.
pub fn begin(config: &Config) -> Result<(), Error> {
    let mut store = SqliteStore::open(&config.data_dir)?;
    if store.is_new() {
        begin_in(&mut store, config)?;
    }
    Ok(())
}

fn begin_in(store: &mut SqliteStore, config: &Config) -> Result<(), Error> {
    let listings = match &config.stocks {
        Some(path) => stocks::load(path, Free::Refused)?,
        None => stocks::built_in(),
    };
    let journal = random_journal()?;
    store.begin(journal, &listings)?;
    tracing::info!(%journal, stocks = listings.len(), "began a journal");
    Ok(())
}

/// A database that was opened, and what it holds.
struct Opened {
    store: SqliteStore,
    journal: SqliteJournal,
    loaded: Loaded,
    lease: Duration,
    left: Option<Snapshot>,
}

/// Opens the database, and begins a journal where it has none and one is wanted.
fn open(config: &Config) -> Result<Opened, Error> {
    let no_journal = || NoJournal(config.data_dir.clone());
    if !config.new && !is_there(&config.data_dir)? {
        return Err(no_journal().into()); // and leaves no trace
    }
    let mut store = SqliteStore::open(&config.data_dir)?;
    if store.is_new() {
        if !config.new {
            return Err(no_journal().into());
        }
        begin_in(&mut store, config)?;
    } else {
        if config.new {
            tracing::warn!(
                "there is a journal: going on with it. Leave out --new from now on: were this disk \
                 ever lost, it would begin another journal in its place"
            );
        }
        if let Some(path) = &config.stocks {
            tracing::warn!(path = %path.display(), "the database has its stocks: the file is ignored");
        }
    }
    let journal = store.journal()?;
    let loaded = store.load()?;
    tracing::info!(
        journal = %loaded.journal,
        stocks = loaded.state.stocks().count(),
        journal_rows = %loaded.state.leadership().end.rows,
        "opened the database"
    );
    let of = Of {
        journal: loaded.journal,
        epoch: loaded.state.leadership().term.epoch,
    };
    let left = Handover::new(&config.data_dir).take(of);
    Ok(Opened {
        store,
        journal,
        loaded,
        lease: config.lease,
        left,
    })
}

/// Whether there is a database, or a log of one that is missing.
fn is_there(data_dir: &Path) -> Result<bool, StorageError> {
    let names = [FILE.to_owned(), format!("{FILE}-wal")];
    for path in names.map(|name| data_dir.join(name)) {
        match path.try_exists() {
            Ok(true) => return Ok(true),
            Ok(false) => {}
            Err(source) => return Err(StorageError::Directory { path, source }),
        }
    }
    Ok(false)
}
