//! The catalog: owns the stocks and the journal of trades. It is the commit point, the
//! sequencer and the fence of every trade, and it lends stocks to the gateways' caches.
//!
//! - [`config`]: how a catalog is set up;
//! - [`stocks`]: the stocks that a new one starts with;
//! - `catalog_core`: the rules, without a clock, a disk or a network;
//! - [`store`]: what is durable;
//! - [`shared`]: what the writer, the readers and the sessions share;
//! - [`writer`]: the one thread that changes what is committed;
//! - [`gateways`]: which gateways there are, and what they say of themselves;
//! - [`session`]: a gateway's leases and invalidations;
//! - [`takes`]: tokens that gateways take for their policies;
//! - [`access`]: who may call what;
//! - [`service`]: the gRPC service;
//! - [`callers`]: how many callers ask it, rather than another catalog;
//! - [`standby`]: what clients are told while another catalog is active;
//! - `observed`: what it says of itself to whoever monitors it;
//! - [`measured`]: what it counts and times;
//! - [`server`]: puts the parts together and serves;
//! - [`damage`]: a catalog whose disk turns out to be damaged stops;
//! - [`rebuild`]: a lost database, rebuilt from replicas' ledgers;
//! - [`backup`]: copies of a database while it serves, and catalogs made of them;
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

use std::collections::BTreeSet;
use std::future::{pending, ready};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use daemon::tasks;
use domain::Protocol;
use rpc::listen::Incoming;
use storage::StorageError;
use storage::damage::{DamageReceiver, DamageReporter};
use tokio::sync::watch;
use traces::Traces;

pub mod config;
pub mod stocks;
pub mod store;
pub mod shared;
pub mod writer;
pub mod gateways;
pub mod session;
pub mod takes;
pub mod access;
pub mod service;
pub mod callers;
pub mod standby;
mod observed;
pub mod measured;
pub mod server;
pub mod damage;
pub mod rebuild;
pub mod backup;
pub mod error;

#[cfg(test)]
mod tests;

pub use config::{Config, PostgresConfig};
pub use error::{Error, RebuildError};
pub use measured::METRICS;
pub use rebuild::ledgers::{Disagreement, Found, Ledgers};
pub use rebuild::{RebuildSource, rebuild};
pub use store::postgres::{PostgresError, StoreUrl};
pub use store::sqlite::{FILE as DATABASE_FILE, holds_journal};

/// How many times the tables of each store were made or changed, which is what an older release goes by that refuses a newer
/// one's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SchemaVersions {
    pub sqlite: usize,
    pub postgres: usize,
}

/// As this release makes them.
pub fn schema_versions() -> SchemaVersions {
    SchemaVersions {
        sqlite: store::sqlite::KIND.version(),
        postgres: store::postgres::SCHEMA_VERSION,
    }
}

use crate::callers::Callers;
use crate::damage::{Damaged, Home, Watched};
use crate::error::NoJournal;
use crate::server::{Parts, Server};
use crate::stocks::{Listing, Listings};
use crate::store::postgres::{COMMIT_TIME_MAX, NewJournal, OpenError, OpenOptions, PostgresStore};
use crate::store::sqlite::{FILE, SqliteStore};
use crate::store::{Journal, Loaded, Store, random_journal};
use crate::takes::handover::{Handover, Left, Of, left_with_store};
use catalog_core::limits::Snapshot;
use catalog_core::{Rules, WRITER_LEASE};

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
    let home = Home::Directory(config.data_dir.clone());
    let handover = Handover::new(&config.data_dir);
    let accept_loss_of = config.accept_loss_of.clone();
    let monitor = config.monitor.clone();
    let (archive_after, is_rebuilt) = (config.archive_after, config.is_rebuilt);
    let traces = config.traces.clone();
    let damaged = |what| Damaged { home, what };
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
        loaded,
        lease,
        left,
    } = opened;
    let (reporter, receiver) = storage::damage::channel();
    let journal = store.journal()?;
    let _watch = store.watch(reporter.clone());
    let archiving = archive_after.map(|kept| store.archive(kept, reporter.clone()));
    let _archiving = archiving.transpose()?;
    let unchecked = store.unchecked();
    let _check = unchecked.map(|unchecked| {
        reporter
            .clone()
            .check(move |keep_going| unchecked.check(keep_going))
    });
    let parts = Parts {
        left,
        handover: Some(Left::InDirectory(handover)),
        accept_loss_of,
        is_rebuilt,
        traces,
        ..parts(store, journal, loaded, lease, &reporter)
    };
    let (_nobody, elsewhere) = watch::channel(None);
    let server = Server {
        parts: ready(Ok(parts)),
        elsewhere,
        callers: Callers::default(),
        monitor,
        listener,
    };
    serve(server, receiver, damaged, shutdown).await
}

/// The same with its truth in PostgreSQL, beside other catalogs: it stands by until none of them writes, then
/// serves to its end.
///
/// # Errors
/// As [`run`]. Where nobody can tell what became of a commit, or another catalog has taken the
/// database over, the process ends instead, and its next start stands by. [`Error::TurnedAway`], where it has handed over to
/// one that more callers reach.
pub async fn run_on_postgres(
    config: PostgresConfig,
    listener: impl Into<Incoming>,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), Error> {
    config.validate()?;
    let lease = config.lease;
    let accept_loss_of = config.accept_loss_of.clone();
    let monitor = config.monitor.clone();
    let traces = config.traces.clone();
    let home = Home::Server(config.store.to_string());
    let damaged = |what| Damaged { home, what };
    let (reporter, receiver) = storage::damage::channel();
    let (active, elsewhere) = watch::channel(None);
    let callers = Callers::default();
    let counted = callers.clone();
    // Ends with this function.
    let check = OnceLock::new();
    let opened = async {
        let (mut store, loaded) = match open_on_postgres(config, counted, &active).await {
            Err(Error::Storage(error)) if error.is_damage() => {
                reporter.report(error.to_string());
                return pending().await; // until the catalog ends for it
            }
            opened => opened?,
        };
        let journal = store.journal();
        if let Some(unchecked) = store.unchecked() {
            let reporter = reporter.clone();
            let _ = check.set(tasks::spawn("check the database", async move {
                match reporter.pass(unchecked.check().await) {
                    Ok(()) => tracing::info!("read the database in full: it is as it was written"),
                    Err(error) => {
                        tracing::error!(%error, "reading the database in full ended early")
                    }
                }
            }));
        }
        let left = store.take_left();
        let left = left.and_then(|left| left_with_store(&left, of(&loaded)));
        Ok(Parts {
            left,
            handover: Some(Left::WithStore(store.leaves())),
            accept_loss_of,
            traces,
            ..parts(store, journal, loaded, lease, &reporter)
        })
    };
    let server = Server {
        parts: opened,
        elsewhere,
        callers,
        monitor,
        listener,
    };
    serve(server, receiver, damaged, shutdown).await
}

/// Begins a journal in a database that has none, and lets go of it.
///
/// # Errors
/// Where the database cannot be used, or the stocks cannot be read.
pub async fn begin_on_postgres(config: PostgresConfig) -> Result<(), Error> {
    let begun = PostgresStore::begin(open_options(config)?).await;
    begun.map_err(of_opening)
}

/// What any store makes of a catalog.
fn parts(
    store: impl Store + 'static,
    journal: impl Journal + 'static,
    loaded: Loaded,
    lease: Duration,
    reporter: &DamageReporter,
) -> Parts {
    Parts {
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
        left: None,
        handover: None,
        healing_wait_max: catalog_core::HEALING_WAIT_MAX,
        accept_loss_of: BTreeSet::new(),
        is_rebuilt: false,
        reporter: reporter.clone(),
        traces: Traces::default(),
    }
}

/// Serves until `shutdown`, or until damage is found.
async fn serve(
    server: Server<impl Future<Output = Result<Parts, Error>>, impl Into<Incoming>>,
    mut receiver: DamageReceiver,
    damaged: impl FnOnce(String) -> Damaged,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), Error> {
    tokio::select! {
        served = server.serve(shutdown) => served,
        what = receiver.next() => Err(damaged(what).into()),
    }
}

/// Begins a journal in a directory that has none: its database, its id and its first stocks, all
/// of it or nothing. [`run`] does the same where the configuration says so.
///
/// # Errors
/// Where the configuration will not do, the directory cannot be used, or the stocks cannot be read.
pub fn begin(config: &Config) -> Result<(), Error> {
    config.validate()?;
    let mut store = SqliteStore::open(&config.data_dir)?;
    if store.is_new() {
        begin_in(&mut store, config)?;
    }
    Ok(())
}

fn begin_in(store: &mut SqliteStore, config: &Config) -> Result<(), Error> {
    let listings = first_stocks(config.stocks.as_deref())?;
    let journal = random_journal()?;
    store.begin(journal, &listings, Protocol::NEWEST)?;
    tracing::info!(%journal, stocks = listings.len(), "began a journal");
    Ok(())
}

/// The stocks that a journal begins with.
fn first_stocks(file: Option<&Path>) -> Result<Vec<Listing>, Error> {
    match file {
        Some(path) => Ok(stocks::load(path, Listings::New)?),
        None => Ok(stocks::built_in()),
    }
}

/// Opens the database, and begins a journal where it has none and one is wanted.
async fn open_on_postgres(
    config: PostgresConfig,
    callers: Callers,
    active: &watch::Sender<Option<String>>,
) -> Result<(PostgresStore, Loaded), Error> {
    let (new, stocks) = (config.new, config.stocks.clone());
    let options = OpenOptions {
        callers,
        ..open_options(config)?
    };
    let opened = PostgresStore::open(options, active).await;
    let mut store = opened.map_err(of_opening)?;
    if store.was_there() {
        warn_of_leftovers(new, stocks.as_deref());
    }
    let loaded = store.load().await?;
    log_opened(&loaded);
    Ok((store, loaded))
}

fn open_options(config: PostgresConfig) -> Result<OpenOptions, Error> {
    let PostgresConfig {
        store,
        allow_unreplicated,
        reached_at,
        new,
        stocks,
        lease: _,
        accept_loss_of: _,
        monitor: _,
        traces: _,
    } = config;
    let first = match new {
        true => Some(NewJournal {
            id: random_journal()?,
            listings: first_stocks(stocks.as_deref())?,
        }),
        false => None,
    };
    Ok(OpenOptions {
        url: store,
        allow_unreplicated,
        reached_at,
        new: first,
        commit_time_max: COMMIT_TIME_MAX,
        writer_lease: WRITER_LEASE,
        callers: Callers::default(),
        rules: Rules::default(),
    })
}

fn of_opening(error: OpenError) -> Error {
    match error {
        OpenError::Refused(refused) => Error::Postgres(refused),
        OpenError::Storage(error) => Error::Storage(error),
    }
}

/// What a start says that has nothing to begin.
fn warn_of_leftovers(new: bool, stocks: Option<&Path>) {
    if new {
        tracing::warn!(
            "there is a journal: going on with it. Leave out --new from now on: were this disk \
             ever lost, it would begin another journal in its place"
        );
    }
    if let Some(path) = stocks {
        tracing::warn!(path = %path.display(), "the database has its stocks: the file is ignored");
    }
}

fn log_opened(loaded: &Loaded) {
    tracing::info!(
        journal = %loaded.journal,
        stocks = loaded.state.stocks().count(),
        journal_rows = %loaded.state.leadership().end.rows,
        "opened the database"
    );
}

/// A database that was opened, and what it holds.
struct Opened {
    store: SqliteStore,
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
        warn_of_leftovers(config.new, config.stocks.as_deref());
    }
    let loaded = store.load()?;
    log_opened(&loaded);
    let left = Handover::new(&config.data_dir).take(of(&loaded));
    Ok(Opened {
        store,
        loaded,
        lease: config.lease,
        left,
    })
}

/// Which catalog's limits are for one that found that.
fn of(loaded: &Loaded) -> Of {
    Of {
        journal: loaded.journal,
        epoch: loaded.state.leadership().term.epoch,
    }
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
