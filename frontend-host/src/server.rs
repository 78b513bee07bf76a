//! The listener for clients: HTTP/1.1 with keep-alive, and HTTP/2 by prior knowledge.
//!
//! One thread accepts connections, and deals each to the worker that has the fewest. A worker is a
//! thread with a runtime of its own, so that a request is served on one core from its first byte
//! to its last, with that thread's instance of the policy.
//!
//! - [`connection`]: one client; [`socket`] goes with it from worker to worker, [`progress`]
//!   tells whether it takes too long;
//! - [`worker`]: the threads;
//! - [`balance`]: which of them serve, by what the kernel's scheduler says ([`schedule`]).

mod balance;
mod connection;
mod progress;
mod schedule;
mod socket;
#[cfg(test)]
mod tests;
mod worker;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use daemon::tasks;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use crate::config::{CONNECTIONS_MAX, DRAIN_TIME_MAX};
use crate::gateway::Gateway;

use connection::Connection;
use worker::{Desk, Seat, Workers};

/// Pause after accepting failed, as it does when file descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves clients until `shutdown`, then lets open requests finish for a bounded time.
///
/// # Errors
/// Where threads cannot be had.
pub async fn serve(
    listener: TcpListener,
    gateway: Arc<Gateway>,
    workers: usize,
    shutdown: impl Future<Output = ()>,
) -> std::io::Result<()> {
    let workers = Workers::start(workers.max(1))?;
    let desks = &workers.desks;
    // One for the connections dealt to each worker: they look at it often, mostly there.
    let open: Vec<_> = desks.iter().map(|_| GracefulShutdown::new()).collect();
    tokio::select! {
        () = accept(&listener, &gateway, desks, &open) => {}
        () = balance::run(desks) => {}
        () = shutdown => {}
    }
    drop(listener);
    let drained = async {
        // All at once, then one after the other.
        let drained: Vec<_> = open
            .into_iter()
            .map(|open| tasks::spawn_for_caller(open.shutdown()))
            .collect();
        for drained in drained {
            let _ = drained.await;
        }
    };
    if timeout(DRAIN_TIME_MAX, drained).await.is_err() {
        tracing::warn!("connections were cut off that took too long to finish");
    }
    workers.stop().await
}

async fn accept(
    listener: &TcpListener,
    gateway: &Arc<Gateway>,
    desks: &Arc<[Desk]>,
    open: &[GracefulShutdown],
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let place = Arc::clone(&places)
            .acquire_owned()
            .await
            .expect("never closed");
        let accepted = listener.accept().await;
        let accepted = accepted.and_then(|(stream, client)| Ok((stream.into_std()?, client.ip())));
        match accepted {
            Ok(client) => {
                let worker = Desk::next(desks);
                let seat = Seat::at(desks, worker);
                let gateway = Arc::clone(gateway);
                let open = open[worker].watcher();
                let connection = Connection::new(client, place, gateway, seat, open);
                desks[worker].deal(connection).await;
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
