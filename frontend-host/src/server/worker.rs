//! The workers: threads with a runtime each, which serve the connections that they are given.

use std::io;
use std::net::{IpAddr, TcpStream as StdTcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use daemon::tasks;
use tls::PROVEN_FOR;
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use tokio_util::either::Either;

use super::clients::Place;
use super::connection::{Peer, connection};
use super::finish::Watcher;
use super::progress::CHECK_INTERVAL;
use super::serving::{Client, encrypted, prepare};
use super::slot::{WorkerSlot, WorkerStats};
use crate::config::{Bounds, WORKERS_STOP_TIME_MAX};
use crate::handler::Gateway;

/// How often it is looked whether a client is still believed: so often that one which is not, and is told by another answer
/// that it was the last, has ended as soon as others that are believed no more.
const BELIEVED_FOR: Duration = PROVEN_FOR.saturating_sub(CHECK_INTERVAL);

/// Connections that wait for a worker to take them up.
const INBOX_MAX: usize = 256;

/// A client that is let in, on its way to a worker.
pub(super) struct Accepted {
    pub stream: StdTcpStream,
    /// What it is served over, if not in the clear.
    pub tls: Option<tls::Server>,
    pub place: Place,
    pub gateway: Arc<Gateway>,
    pub slot: WorkerSlot,
    pub finish: Watcher,
}

/// The workers, from outside their threads.
#[derive(Clone)]
pub(super) struct WorkerHandles {
    /// What is known of each, by its number.
    pub stats: Arc<[WorkerStats]>,
    /// Where it takes its connections from.
    inboxes: Arc<[mpsc::Sender<Accepted>]>,
}

impl WorkerHandles {
    /// Gives a worker a client, who has a slot there.
    pub(super) async fn deal(&self, worker: usize, accepted: Accepted) {
        if self.inboxes[worker].send(accepted).await.is_err() {
            tracing::error!("a worker is gone");
        }
    }
}

/// The workers. They end when this is dropped, and nobody is served by them before it is given to
/// [`serve`](super::serve).
pub struct Workers {
    pub(super) handles: WorkerHandles,
    stop: watch::Sender<bool>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts so many, but one at least.
    ///
    /// # Errors
    /// Where threads or their runtimes cannot be had.
    pub fn start(count: usize) -> io::Result<Self> {
        let count = count.max(1);
        let (stop, stopped) = watch::channel(false);
        let (inboxes, outlets): (Vec<_>, Vec<_>) =
            (0..count).map(|_| mpsc::channel(INBOX_MAX)).unzip();
        let handles = WorkerHandles {
            stats: (0..count).map(|_| WorkerStats::default()).collect(),
            inboxes: inboxes.into(),
        };
        let mut threads = Vec::new();
        for (number, inbox) in outlets.into_iter().enumerate() {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let run = run(Arc::clone(&handles.stats), number, inbox, stopped.clone());
            let name = format!("worker-{number}");
            threads.push(tasks::thread(name, move || runtime.block_on(run))?);
        }
        Ok(Self {
            handles,
            stop,
            threads,
        })
    }

    /// Ends them, and every connection that they still serve.
    pub(super) async fn stop(self) -> io::Result<()> {
        let _ = self.stop.send(true);
        let joined = tokio::task::spawn_blocking(move || {
            for thread in self.threads {
                if thread.join().is_err() {
                    tracing::error!("a worker panicked");
                }
            }
        });
        match timeout(WORKERS_STOP_TIME_MAX, joined).await {
            Ok(joined) => joined.map_err(io::Error::other),
            // The process ends without them.
            Err(_) => {
                tracing::warn!("a worker did not end in time");
                Ok(())
            }
        }
    }
}

/// Serves the connections of one worker until it is to stop.
async fn run(
    workers: Arc<[WorkerStats]>,
    number: usize,
    mut inbox: mpsc::Receiver<Accepted>,
    mut stopped: watch::Receiver<bool>,
) {
    let _clock = tasks::spawn("clock", async move { workers[number].run_clock().await });
    loop {
        tokio::select! {
            Some(accepted) = inbox.recv() => {
                tasks::spawn_for_caller(serve(accepted));
            }
            _ = stopped.changed() => return,
        }
    }
}

async fn serve(accepted: Accepted) {
    let Accepted {
        stream,
        tls,
        place,
        gateway,
        slot,
        finish,
    } = accepted;
    let stream = match TcpStream::from_std(stream) {
        Ok(stream) => stream,
        Err(error) => return tracing::warn!(%error, "a connection cannot be served"),
    };
    let clients = place.clients();
    prepare(&stream, clients.bounds());
    let patience = || clients.patience(clients.bounds().send_time_max);
    let (stream, chain) = match &tls {
        None => (Either::Left(stream), None),
        Some(tls) => match encrypted(tls, stream, &finish, patience).await {
            Ok((stream, chain)) => (stream, Some(chain)),
            Err(error) => {
                return tracing::debug!(client = %place.address(), %error, "no TLS came about");
            }
        },
    };
    let (served, peer) = connection(stream, place, gateway, slot, finish);
    let client = Shown {
        peer,
        shown: tls.zip(chain),
        look_again_at: Instant::now() + BELIEVED_FOR,
    };
    served.run(client).await;
}

/// A client of a worker's, and what it has shown, if anything.
struct Shown {
    peer: Arc<Peer>,
    shown: Option<(tls::Server, tls::Chain)>,
    look_again_at: Instant,
}

impl Client for Shown {
    fn address(&self) -> IpAddr {
        self.peer.place().address()
    }

    fn bounds(&self) -> Bounds {
        self.peer.place().clients().bounds_now()
    }

    fn is_served(&mut self, now: Instant) -> bool {
        if now < self.look_again_at {
            return true;
        }
        self.look_again_at = now + BELIEVED_FOR;
        let shown = self.shown.as_ref();
        shown.is_none_or(|(tls, chain)| tls.is_served(chain))
    }

    fn say_last(&self) {
        self.peer.say_last();
    }
}
