//! An order replica: a durable copy of the catalog's journal, and, when it is elected, the
//! leader through which orders are placed.
//!
//! - [`config`]: what a replica has to be told;
//! - [`service`]: the gRPC services, for gateways and for other replicas;
//! - `driver`: the task that owns the core and runs its commands;
//! - [`core`]: the replica as a pure state machine;
//! - `clients`: the calls to the catalog and the peers;
//! - [`store`]: the replica's disk;
//! - [`ledger`]: reading a replica's data directory from outside;
//! - [`error`]: what goes wrong, and what callers are told.
//!
//! An order's way: `service` → `driver` → `core` (queue, batch) → `clients` (the catalog commits
//! it) → `core` (its place in the ledger) → `store` and the followers side by side → `core`
//! (acknowledged) → `service`.

pub mod config;
pub mod service;
mod driver;
pub mod core;
mod clients;
pub mod store;
pub mod ledger;
pub mod error;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use protocol::time::BootTime;
use protocol::wire::order::v1::orders_server::OrdersServer;
use protocol::wire::order::v1::replication_server::ReplicationServer;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

pub use config::Config;
pub use error::{ConfigError, Error};

use clients::{Catalog, Peers};
use core::Replica;
use driver::Driver;
use service::{OrdersService, ReplicationService};
use store::{SqliteStore, Store};

/// Calls that one connection may have under way.
const STREAMS_MAX: u32 = 4096;

/// How long calls under way may take once the replica is to stop.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(1);

/// Runs a replica until `shutdown` is ready. It waits for the catalog and its peers, in
/// whatever order they start.
///
/// # Errors
/// Where the configuration or the data directory cannot be used, or the listener fails.
pub async fn run(
    config: Config,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), Error> {
    config.validate()?;
    let catalog = Catalog::new(&config.catalog)?;
    let peers = Peers::new(config.id, &config.peers)?;
    let data_dir = config.data_dir.clone();
    let store = tokio::task::spawn_blocking(move || SqliteStore::open(&data_dir))
        .await
        .map_err(|_| Error::Panicked)??;
    let reader = store.reader();

    let ids = config.peers.iter().map(|(id, _)| *id).collect();
    let replica = Replica::new(config.id, ids, store.durable(), BootTime::now());
    let (driver, handle) = Driver::new(replica, store, Arc::clone(&reader), catalog.clone(), peers);
    let orders = OrdersService::new(handle.clone(), Arc::clone(&reader), catalog);
    let replication = ReplicationService::new(handle, reader);

    let (stop_driver, driver_stopped) = oneshot::channel::<()>();
    let (stop_server, server_stopped) = oneshot::channel::<()>();
    // Sets of one, so that dropping this future ends both.
    let mut driving = JoinSet::new();
    driving.spawn(driver.run(driver_stopped));
    let mut serving = JoinSet::new();
    serving.spawn(
        Server::builder()
            .max_concurrent_streams(STREAMS_MAX)
            .add_service(OrdersServer::new(orders))
            .add_service(ReplicationServer::new(replication))
            .serve_with_incoming_shutdown(
                TcpIncoming::from(listener).with_nodelay(Some(true)),
                async {
                    // Either way it is to stop.
                    let _ = server_stopped.await;
                },
            ),
    );

    tokio::select! {
        () = shutdown => {}
        _ = driving.join_next() => return Err(Error::Panicked),
        Some(served) = serving.join_next() => {
            served.map_err(|_| Error::Panicked)?.map_err(Error::Serve)?;
            return Err(Error::Panicked);
        }
    }
    drop(stop_server);
    if tokio::time::timeout(SHUTDOWN_GRACE, serving.join_next())
        .await
        .is_err()
    {
        tracing::info!("calls under way are cut off");
    }
    drop(stop_driver);
    driving
        .join_next()
        .await
        .transpose()
        .map_err(|_| Error::Panicked)?;
    Ok(())
}
