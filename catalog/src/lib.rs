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
//! - [`rebuild`]: a lost database, made anew from replicas' ledgers;
//! - [`error`]: what can go wrong, and which gRPC status says so.
//!
//! A trade's way: `service` → `writer` stages it on the books (`core::books`) with whatever
//! else has queued → `desk` tells caches to let go (`core::leases`) → `store` makes it durable
//! → `core::board` shows it once caches have let go → the answer goes out.

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
pub mod rebuild;
pub mod error;

#[cfg(test)]
mod tests;

pub use config::Config;
pub use error::{Error, RebuildError};
pub use rebuild::{Remains, rebuild};

use crate::server::Parts;
use crate::store::Store;
use crate::store::sqlite::{SqliteJournal, SqliteStore};

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
    let opening = tokio::task::spawn_blocking(move || open(&config));
    let parts = opening.await.map_err(std::io::Error::from)??;
    server::serve(parts, listener, shutdown).await
}

/// Opens the database, and lists the first stocks where it has none.
fn open(config: &Config) -> Result<Parts, Error> {
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
    Ok(Parts {
        store: Box::new(store),
        journal: Arc::new(journal),
        loaded,
        lease: config.lease,
    })
}
