//! An order replica: a durable copy of the catalog's journal, and, when it is elected, the
//! leader through which orders are placed.
//!
//! - [`config`]: what a replica has to be told;
//! - [`access`]: who may call what;
//! - [`service`]: the gRPC services, for gateways and for other replicas;
//! - [`order_stream`]: the orders of a caller that has many, over one stream;
//! - `driver`: the task that owns the core and runs its commands;
//! - `order_core`: the replica as a pure state machine;
//! - `join`: has the ledger compared with the journal before it is served;
//! - `report`: what a catalog that has started is told;
//! - [`protocol_note`]: at which version of the protocol the bazaar is, for a catalog that is rebuilt;
//! - [`measured`]: what it counts and times;
//! - `traced`: the spans of orders whose requests are traced;
//! - `peers`: the calls to the catalog and the peers;
//! - `failed_call`: what a failure of theirs says;
//! - [`store`]: the replica's disk;
//! - [`damage`]: a replica whose disk turns out to be damaged stops;
//! - [`inspect`]: reading a replica's data directory from outside;
//! - [`error`]: what goes wrong, and what callers are told.
//!
//! An order's way: `order_stream` → `driver` → `order_core` (queue, batch) → `peers` (the catalog commits
//! it, and says so before its disk has it) → `order_core` (its place in the ledger) → `store` and the
//! followers, beside each other and the catalog's disk → `order_core` (acknowledged) → `order_stream`.

#![cfg_attr(
    not(test),
    warn(clippy::disallowed_methods, clippy::print_stdout, clippy::print_stderr)
)]

pub mod config;
pub mod access;
pub mod service;
pub mod order_stream;
mod driver;
mod join;
mod report;
pub mod protocol_note;
mod traced;
pub mod measured;
mod peers;
mod failed_call;
pub mod store;
pub mod damage;
pub mod inspect;
pub mod error;
#[cfg(test)]
mod fixtures;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use daemon::tasks;
use domain::Role;
use domain::time::BootTime;
use monitor::figures::figures;
use monitor::health::{Serves, health};
use monitor::{Figure, Monitor, Observation, Readiness};
use rpc::listen::{self, Incoming, MESSAGE_BYTES_MAX};
use tokio::sync::{oneshot, watch};
use wire::order::v1::orders_server::OrdersServer;
use wire::order::v1::replication_server::ReplicationServer;
use wire::reflection::reflection;

pub use config::{Config, ConfigError};
pub use error::Error;
pub use measured::METRICS;

/// How many times the tables of a ledger were made or changed.
pub const SCHEMA_VERSION: usize = store::KIND.version();

use access::ACCESS;
use damage::{Damaged, Watched};
use driver::Driver;
use join::{Joined, join};
use measured::{EPOCH, LEDGER_ROWS, REACHES_CATALOG};
use order_core::{Replica, Status};
use peers::{Catalog, Peers};
use service::{OrdersService, ReplicationService};
use storage::StorageError;
use store::{SqliteStore, Store};

/// How long calls under way may take once the replica is to stop.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(1);

/// What answers in whichever role a replica is.
const SERVES: Serves = &[
    ("order.v1.Orders", |_| true),
    ("order.v1.Replication", |_| true),
];

/// What it says of its protos.
const REFLECTED: [&str; 4] = [
    "order.v1.Orders",
    "order.v1.Replication",
    "grpc.health.v1.Health",
    "monitor.v1.Monitor",
];

/// Runs a replica until `shutdown` is ready. It waits for the catalog and its peers, in
/// whatever order they start.
///
/// # Errors
/// Where the configuration or the data directory cannot be used, or the listener fails.
pub async fn run(
    config: Config,
    listener: impl Into<Incoming>,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), Error> {
    config.validate()?;
    let catalog = Catalog::new(&config.catalogs, config.cluster.as_ref())?;
    let peers = Peers::new(&config)?;
    let damaged = |what| Damaged {
        data_dir: config.data_dir.clone(),
        what,
    };
    tokio::pin!(shutdown);
    let opened = tokio::select! {
        opened = open(&config) => opened?,
        () = &mut shutdown => return Ok(()),
    };
    let Joined {
        store,
        identity,
        catalog,
        copies,
    } = tokio::select! {
        joined = join(&config, opened, catalog) => joined?,
        () = &mut shutdown => return Ok(()),
    };
    let journal = identity.journal;
    tracing::info!(%journal, rows = %store.durable().end.rows, "the ledger is a copy of the journal");
    let (reporter, mut receiver) = storage::damage::channel();
    let _check = store.unchecked().map(|unchecked| {
        reporter
            .clone()
            .check(move |keep_going| unchecked.check(keep_going))
    });
    let _watch = store.watch(reporter.clone());
    let archiving = config
        .archive_after
        .map(|kept| store.archive(kept, reporter.clone()));
    let _archiving = archiving.transpose()?;
    let found = (store.durable(), store.proposed());
    let store = Watched::new(store, reporter.clone());
    let reader = store.reader();

    let ids = config.peers.iter().map(|(id, _)| *id).collect();
    let replica = Replica::new(config.id, ids, found, BootTime::now());
    let (driver, handle) = Driver::new(
        replica,
        identity,
        store,
        Arc::clone(&reader),
        (catalog.clone(), peers.of(journal)),
        reporter,
    );
    let (monitor, status) = (config.monitor.clone(), handle.watch());
    monitor.export(handle.measured());
    monitor.watch("store", handle.measured().writing.clone());
    let listener = listener.into();
    monitor.export(Arc::new(listener.usage()));
    monitor.set(|| Observation {
        readiness: Readiness::NotReady("copies the ledger".into()),
        figures: Vec::new(),
    });
    let (close, closing) = watch::channel(false);
    let protocol = catalog.protocol();
    // Ends with this function.
    let _noting = tasks::spawn("note the protocol", {
        let data_dir = config.data_dir.clone();
        protocol_note::keep(data_dir, journal, protocol.clone(), handle.watch())
    });
    let orders = OrdersService::new(
        journal,
        handle.clone(),
        Arc::clone(&reader),
        catalog,
        config.traces.clone(),
        closing.clone(),
    );
    let tracing = (config.id, config.traces.clone());
    let replication = ReplicationService::new(journal, handle.clone(), reader, tracing, closing);

    let (stop_driver, driver_stopped) = oneshot::channel::<()>();
    let (stop_server, server_stopped) = oneshot::channel::<()>();
    // Dropping this future ends both tasks.
    let mut driving = tasks::spawn("driver", driver.run(driver_stopped));
    let orders = OrdersServer::new(orders).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let replication = ReplicationServer::new(replication);
    let serve = listen::server(ACCESS, protocol)
        .add_service(health(config.monitor.clone(), SERVES))
        .add_service(figures(config.monitor.clone()))
        .add_service(reflection(&REFLECTED))
        .add_service(orders)
        .add_service(replication.max_decoding_message_size(MESSAGE_BYTES_MAX))
        .serve_with_incoming_shutdown(listener, async {
            // Either way it is to stop.
            let _ = server_stopped.await;
        });
    let mut serving = tasks::spawn("serve", async move {
        if let Some(rows) = copies {
            handle.wait_until_durable(rows).await;
            tracing::info!(orders = %rows, "copied the ledger");
        }
        observe(&monitor, status);
        serve.await
    });

    let stopping = tokio::select! {
        () = &mut shutdown => Ok(()),
        what = receiver.next() => Err(damaged(what).into()),
        () = &mut driving => Err(Error::Ended),
        served = &mut serving => Err(served.map_or_else(Error::Serve, |()| Error::Ended)),
    };
    config.monitor.stop();
    stopping?;
    close.send_replace(true);
    drop(stop_server);
    if tokio::time::timeout(SHUTDOWN_GRACE, serving).await.is_err() {
        tracing::info!("calls under way are cut off");
    }
    drop(stop_driver);
    driving.await;
    Ok(())
}

/// What a replica says of itself to whoever monitors it.
fn observe(monitor: &Monitor, status: watch::Receiver<Status>) {
    monitor.set(move || {
        let status = *status.borrow();
        let figure = |metric, value| Figure { metric, value };
        Observation {
            readiness: match status.takes_rows {
                true if status.role == Role::Activating => {
                    Readiness::NotReady("is about to lead".into())
                }
                true => Readiness::Ready(status.role.name()),
                false => Readiness::NotReady("waits for the catalog".into()),
            },
            figures: vec![
                figure(&LEDGER_ROWS, status.end.rows.0),
                figure(&EPOCH, status.term.epoch.0),
                figure(&REACHES_CATALOG, status.reaches_catalog.into()),
            ],
        }
    });
}

/// Opens the store; also whether its ledger is yet to be copied.
async fn open(config: &Config) -> Result<(SqliteStore, bool), Error> {
    let (data_dir, rebuild) = (config.data_dir.clone(), config.rebuild);
    let opening = tokio::task::spawn_blocking(move || match rebuild {
        true => SqliteStore::open_or_set_aside(&data_dir),
        false => SqliteStore::open(&data_dir).map(|store| (store, None)),
    });
    match opening.await.map_err(|_| Error::Ended)? {
        Ok((store, None)) => Ok((store, false)),
        Ok((store, Some(aside))) => {
            tracing::warn!(kept = %aside.display(), "the ledger was damaged: copying it anew");
            Ok((store, true))
        }
        Err(error @ StorageError::Damaged(_)) => Err(Error::Damaged(Damaged {
            data_dir: config.data_dir.clone(),
            what: error.to_string(),
        })),
        Err(error) => Err(error.into()),
    }
}
