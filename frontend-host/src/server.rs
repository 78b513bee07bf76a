//! The listener for clients: HTTP/1.1 with keep-alive, and HTTP/2 by prior knowledge; both over
//! TLS where there is a certificate, HTTP/2 by ALPN then. And what the one for operators has in common with it.
//!
//! One thread accepts connections, and deals each to the worker that has the fewest. A worker is a
//! thread with a runtime of its own, so that a request is served on one core from its first byte
//! to its last, with that thread's instance of the policy.
//!
//! - [`clients`]: who is let in, and what is held for them;
//! - [`serving`]: one connection, whoever answers; [`refusals`] says why a head cannot be read, [`progress`] tells
//!   whether the client takes too long, by what its [`socket`] notes;
//! - [`connection`]: one client;
//! - [`receive`]: bodies of requests; [`unsent`]: those of answers; [`streams`]: HTTP/2's tasks, and
//!   [`leaving`] what is on its way of their answers;
//! - [`worker`]: the threads; [`slot`]: what is known of them, and a connection's place at one;
//!   [`finish`]: the end of their connections; [`pulse`]: whether all of them are alive;
//! - [`operators`]: their connections, and [`routed`] their answers.

pub mod clients;
mod connection;
mod finish;
mod leaving;
mod progress;
mod pulse;
mod receive;
mod refusals;
mod serving;
mod socket;
mod streams;
#[cfg(test)]
mod tests;
mod unsent;
mod slot;
mod worker;
mod routed;
pub(crate) mod operators;

use std::future::Future;
use std::net::TcpStream as StdTcpStream;
use std::pin::pin;
use std::sync::Arc;

use daemon::{notify, tasks};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::config::{DRAIN_TIME_MAX, LAST_REQUEST_TIME_MAX};
use crate::handler::Gateway;

use clients::{Clients, Place};
use finish::Finish;
use slot::{WorkerSlot, WorkerStats};
use worker::{Accepted, WorkerHandles};

pub use worker::Workers;

/// What is spoken over TLS, the best first (RFC 7301).
pub const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Serves clients, over TLS where there is a certificate, until `shutdown`. Then nobody can connect any more, whoever has connected is
/// answered, and told that this was the last answer, and all connections end in a bounded time.
///
/// # Errors
/// Where the workers do not end in order.
pub async fn serve(
    (listener, tls): (TcpListener, Option<tls::Server>),
    gateway: Arc<Gateway>,
    clients: Arc<Clients>,
    workers: Workers,
    shutdown: impl Future<Output = ()>,
) -> std::io::Result<()> {
    let handles = workers.handles.clone();
    let _telling = notify::alive_every().map(|every| {
        let telling = pulse::keep_telling(Arc::clone(&handles.stats), every);
        tasks::spawn("watchdog", telling)
    });
    // One for the connections of each worker: they look at it often.
    let open: Vec<_> = handles.stats.iter().map(|_| Finish::new()).collect();
    let dealer = Dealer {
        gateway: &gateway,
        tls: tls.as_ref(),
        workers: &handles,
        open: &open,
    };
    accept(&listener, &clients, &dealer, shutdown).await;
    gateway.stage.close();
    gateway.events.end();
    let listener = listener.into_std()?;
    if !gateway.stage.is_queue_left() {
        while let Some(client) = clients.accept_queued(&listener) {
            dealer.deal(client).await;
        }
    }
    drop(listener);
    let drained = async {
        // Who asks again meanwhile is told by the answer that it was the last. One that was closed
        // before it had arrived would be lost.
        let all_gone = timeout(LAST_REQUEST_TIME_MAX, clients.wait_until_all_gone());
        if all_gone.await.is_ok() {
            return;
        }
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

/// Until `shutdown`. Who is accepted is served: it is not waited for meanwhile.
async fn accept(
    listener: &TcpListener,
    clients: &Arc<Clients>,
    dealer: &Dealer<'_>,
    shutdown: impl Future<Output = ()>,
) {
    let mut shutdown = pin!(shutdown);
    loop {
        let client = tokio::select! {
            client = clients.accept(listener) => client,
            () = &mut shutdown => return,
        };
        dealer.deal(client).await;
    }
}

/// Gives clients to workers.
struct Dealer<'a> {
    gateway: &'a Arc<Gateway>,
    tls: Option<&'a tls::Server>,
    workers: &'a WorkerHandles,
    open: &'a [Finish],
}

impl Dealer<'_> {
    async fn deal(&self, (stream, place): (StdTcpStream, Place)) {
        let workers = self.workers;
        let worker = WorkerStats::next(&workers.stats);
        let accepted = Accepted {
            stream,
            tls: self.tls.cloned(),
            place,
            gateway: Arc::clone(self.gateway),
            slot: WorkerSlot::at(&workers.stats, worker),
            finish: self.open[worker].watcher(),
        };
        workers.deal(worker, accepted).await;
    }
}
