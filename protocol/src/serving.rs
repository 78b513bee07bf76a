//! How every service takes connections: so many at a time, each with so many calls, and what is
//! held for them.
//!
//! - [`connection`]: one connection, and when it has to end;
//! - [`calls`]: its calls; [`message`] tells where their messages end.

mod connection;
mod calls;
mod message;
#[cfg(test)]
mod tests;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use daemon::tasks::{self, Task};
use rustix::process::{Resource, getrlimit};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::sleep;
use tokio_stream::Stream;
use tonic::transport::Server;
use tower_layer::{Identity, Stack};

use crate::budget::Budget;

pub use calls::{Bounded, BoundedCalls};
pub use connection::{Connection, Peer};

/// Most calls at a time on one connection.
const STREAMS_MAX: u32 = 1024;

/// How often a connection is probed, and how long the answer may take. Finds peers that are
/// gone without a word.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Pause after accepting failed, as it does when file descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Open files that are left for everything but connections.
const RESERVED_FILES: usize = 512;

/// A server with the limits of every service. It serves what [`Incoming`] takes in.
pub fn server() -> Server<Stack<Bounded, Identity>> {
    Server::builder()
        .max_concurrent_streams(STREAMS_MAX)
        .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
        .layer(Bounded)
}

/// As many connections as are wanted, or as leave enough of the files that this process may have
/// open.
pub fn connections_within_open_files(wanted: usize) -> usize {
    let files = getrlimit(Resource::Nofile).current;
    let files = files.map_or(usize::MAX, |files| files.try_into().unwrap_or(usize::MAX));
    wanted.min(files.saturating_sub(RESERVED_FILES).max(files / 2))
}

/// What is let in, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most connections at a time; more wait with the kernel until others end.
    pub connections_max: usize,
    /// Longest wait for the opening of HTTP/2; a connection is not probed before it is complete.
    pub opening_max: Duration,
    /// How long a connection may be without a call.
    pub idle_max: Duration,
    /// How long a request may take to arrive, and each message of a stream of them.
    pub arriving_max: Duration,
    /// How long a peer may take nothing of what is sent to it.
    pub taking_max: Duration,
    /// Bytes held of requests that are not complete; one connection may hold a quarter of it.
    /// Calls past it fail with `RESOURCE_EXHAUSTED`.
    pub received_bytes_max: usize,
    /// Bytes held of answers that are not taken; one connection may have a quarter of it.
    pub unsent_bytes_max: usize,
}

impl Default for Limits {
    /// 1,024 connections, or fewer where fewer files may be open; 5 s to open one, 75 s without a
    /// call, 10 s for a request and to take an answer; 64 MiB of each.
    fn default() -> Self {
        Self {
            connections_max: connections_within_open_files(1024),
            opening_max: Duration::from_secs(5),
            idle_max: Duration::from_secs(75),
            arriving_max: Duration::from_secs(10),
            taking_max: Duration::from_secs(10),
            received_bytes_max: 64 << 20,
            unsent_bytes_max: 64 << 20,
        }
    }
}

/// What all connections have in common.
#[derive(Debug)]
struct Shared {
    limits: Limits,
    places: Arc<Semaphore>,
    received: Arc<Budget>,
    unsent: Arc<Budget>,
}

impl Shared {
    fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            places: Arc::new(Semaphore::new(limits.connections_max)),
            received: Budget::whole(limits.received_bytes_max),
            unsent: Budget::whole(limits.unsent_bytes_max),
        })
    }
}

/// The connections that come in. Dropping it ends the taking in.
#[derive(Debug)]
pub struct Incoming {
    accepted: mpsc::Receiver<Connection>,
    _accepting: Task<()>,
}

impl Incoming {
    /// Accepts within limits.
    pub fn new(listener: TcpListener, limits: Limits) -> Self {
        Self::sharing(listener, Shared::new(limits))
    }

    fn sharing(listener: TcpListener, shared: Arc<Shared>) -> Self {
        let (sender, accepted) = mpsc::channel(1);
        Self {
            accepted,
            _accepting: tasks::spawn("accept", accept(listener, shared, sender)),
        }
    }
}

impl From<TcpListener> for Incoming {
    /// Accepts within the limits of every service.
    fn from(listener: TcpListener) -> Self {
        Self::new(listener, Limits::default())
    }
}

impl Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.accepted
            .poll_recv(context)
            .map(|accepted| accepted.map(Ok))
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, accepted: mpsc::Sender<Connection>) {
    loop {
        let place = Arc::clone(&shared.places).acquire_owned().await;
        let place = place.expect("never closed");
        let stream = listener.accept().await;
        let connection = stream.and_then(|(stream, _)| Connection::new(stream, &shared, place));
        match connection {
            Ok(connection) => {
                if accepted.send(connection).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
