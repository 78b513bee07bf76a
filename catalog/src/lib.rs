//! The catalog: owns the stocks and the journal of trades. It is the commit point, the
//! sequencer and the fence of every trade, and it lends stocks to the gateways' caches.
//!
//! - [`config`]: how a catalog is set up;
//! - [`stocks`]: the stocks that a new one starts with;
//! - [`core`]: the rules, without a clock, a disk or a network;
//! - [`store`]: what is durable;
//! - [`desk`]: what the writer, the readers and the sessions share;
//! - [`writer`]: the one thread that changes what is committed;
//! - [`session`]: a gateway's leases and invalidations;
//! - [`service`]: the gRPC service;
//! - [`server`]: puts the parts together and serves;
//! - [`damage`]: a catalog whose disk turns out to be damaged stops;
//! - [`rebuild`]: a lost database, made anew from replicas' ledgers;
//! - [`error`]: what can go wrong, and which gRPC status says so.
//!
//! A trade's way: `service` → `writer` stages it on the books (`core::books`) with whatever
//! else has queued → `desk` tells caches to let go (`core::leases`), and `service` the leader of the
//! new row → `store` makes it durable → `core::board` shows it once caches have let go → the answer
//! goes out.

#![cfg_attr(
    not(test),
    warn(clippy::disallowed_methods, clippy::print_stdout, clippy::print_stderr)
)]

use std::sync::Arc;

use tokio::net::TcpListener;

pub mod config;
pub mod stocks;
pub mod core;
pub mod store;
pub mod desk;
pub mod writer;
pub mod session;
pub mod service;
pub mod server;
pub mod damage;
pub mod rebuild;
pub mod error;

#[cfg(test)]
mod tests;

pub use config::Config;
pub use error::{Error, RebuildError};
pub use rebuild::{Remains, rebuild};

use crate::damage::{Damaged, Watched};
use crate::server::Parts;
use crate::store::Store;
use crate::store::sqlite::{SqliteJournal, SqliteStore, Unchecked};

/// Serves a catalog on `listener` until `shutdown`, then stops cleanly within seconds.
///
/// # Errors
/// Where it cannot start, the network fails, or an invariant turns out not to hold. A disk
/// that fails a sync aborts the process instead.
pub async fn run(
    config: Config,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), Error> {
    config.validate()?;
    let data_dir = config.data_dir.clone();
    let damaged = |what| Damaged { data_dir, what };
    let opening = tokio::task::spawn_blocking(move || open(&config));
    let (mut parts, unchecked) = match opening.await.map_err(std::io::Error::from)? {
        Err(Error::Storage(error)) if error.is_damage() => {
            return Err(damaged(error.to_string()).into());
        }
        opened => opened?,
    };
    let (finders, mut findings) = storage::damage::channel();
    let _check =
        unchecked.map(|unchecked| finders.clone().check(move |go_on| unchecked.check(go_on)));
    parts.store = Box::new(Watched::new(parts.store, finders.clone()));
    parts.journal = Arc::new(Watched::new(parts.journal, finders));
    tokio::select! {
        served = server::serve(parts, listener, shutdown) => served,
        what = findings.next() => Err(damaged(what).into()),
    }
}

/// Opens the database, and lists the first stocks where it has none.
fn open(config: &Config) -> Result<(Parts, Option<Unchecked>), Error> {
    let mut store = SqliteStore::open(&config.data_dir)?;
    if store.is_new()? {
        let listings = match &config.stocks {
            Some(path) => stocks::load(path)?,
            None => stocks::built_in(),
        };
        store.list(&listings)?;
    } else if let Some(path) = &config.stocks {
        tracing::warn!(path = %path.display(), "the database has its stocks: the file is ignored");
    }
    let journal = SqliteJournal::open(&config.data_dir)?;
    let loaded = store.load()?;
    tracing::info!(
        stocks = loaded.books.stocks().count(),
        journal_rows = %loaded.books.leadership().end.rows,
        "opened the database"
    );
    let unchecked = store.unchecked();
    let parts = Parts {
        store: Box::new(store),
        journal: Arc::new(journal),
        loaded,
        lease: config.lease,
    };
    Ok((parts, unchecked))
}
