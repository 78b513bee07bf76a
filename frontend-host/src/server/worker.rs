//! The workers: threads with a runtime each, which serve the connections that they are given.

use std::future::poll_fn;
use std::io;
use std::net::TcpStream as StdTcpStream;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::Duration;

use daemon::tasks;
use tls::PROVEN_FOR;
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, interval, timeout};
use tokio_util::either::Either;

use super::clients::Place;
use super::connection::{Connection, prepare};
use super::finish::Watcher;
use super::progress::CHECK_INTERVAL;
use super::slot::{WorkerSlot, WorkerStats};
use crate::config::{DRAIN_TIME_MAX, WORKERS_STOP_TIME_MAX};
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
    prepare(&stream, &place);
    let (stream, chain) = match &tls {
        None => (Either::Left(stream), None),
        Some(tls) => match encrypted(tls, stream, &place, &finish).await {
            Ok((stream, chain)) => (stream, Some(chain)),
            Err(error) => {
                return tracing::debug!(client = %place.address(), %error, "no TLS came about");
            }
        },
    };
    let mut connection = Connection::new(stream, place, gateway, slot, finish);
    let mut checks = interval(CHECK_INTERVAL);
    let mut ending = Ending::No;
    let mut look_again_at = Instant::now() + BELIEVED_FOR;
    poll_fn(|cx| {
        if let Poll::Ready(ended) = connection.poll(cx) {
            if let Err(error) = ended {
                tracing::debug!(%error, "connection ended");
            }
            return Poll::Ready(());
        }
        while checks.poll_tick(cx).is_ready() {
            let now = Instant::now();
            let before = ending;
            ending = ending.at_check(now, connection.is_overdue(), || {
                let shown = tls.as_ref().zip(chain.as_deref());
                let is_due = now >= look_again_at;
                if is_due {
                    look_again_at = now + BELIEVED_FOR;
                }
                !is_due || shown.is_none_or(|(tls, chain)| tls.is_served(chain))
            });
            if ending == before {
                continue;
            }
            match ending {
                Ending::No => {}
                Ending::Said => connection.say_last(),
                Ending::Finishing { .. } => {
                    connection.finish();
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Ending::Over => {
                    tracing::debug!(client = %connection.client(), "its client took too long");
                    return Poll::Ready(());
                }
            }
        }
        Poll::Pending
    })
    .await;
}

/// How far a connection has got on its way to an end that its client does not want.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    No,
    /// Its client is believed no more, and its next answer says that it is the last.
    Said,
    /// It takes no more requests, and may finish until then what it has.
    Finishing {
        until: Instant,
    },
    Over,
}

impl Ending {
    /// What is so from a check on. `is_served` tells whether the client is still served, for what it has shown.
    fn at_check(self, now: Instant, is_overdue: bool, is_served: impl FnOnce() -> bool) -> Self {
        match self {
            Self::Finishing { until } if is_overdue || now >= until => Self::Over,
            // Until the next check it may say so, and end by itself.
            Self::No | Self::Said if is_overdue => Self::Finishing { until: now },
            Self::Said => Self::Finishing {
                until: now + DRAIN_TIME_MAX,
            },
            Self::No if !is_served() => Self::Said,
            same => same,
        }
    }
}

/// Agrees with a client on how the connection is encrypted, for which it has as long as for a request's head, and not
/// once the gateway stops.
async fn encrypted(
    tls: &tls::Server,
    stream: TcpStream,
    place: &Place,
    finish: &Watcher,
) -> io::Result<(tls::Stream, tls::Chain)> {
    let clients = place.clients();
    let began = Instant::now();
    let mut agreeing = pin!(tls.accept(stream));
    let mut told = pin!(finish.wait_until_told());
    loop {
        tokio::select! {
            agreed = timeout(CHECK_INTERVAL, &mut agreeing) => match agreed {
                Ok(agreed) => return agreed,
                // As places get scarce, who waits has to go earlier.
                Err(_) if began.elapsed() < clients.patience(clients.bounds().send_time_max) => {}
                Err(_) => return Err(io::ErrorKind::TimedOut.into()),
            },
            () = &mut told => return Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_is_believed_no_more_hears_it_and_has_time_for_its_last_answer() {
        let now = Instant::now();
        let after = |ending: Ending, checks: u32, is_served| {
            ending.at_check(now + checks * CHECK_INTERVAL, false, || is_served)
        };
        assert_eq!(after(Ending::No, 0, true), Ending::No);
        let said = after(Ending::No, 1, false);
        assert_eq!(said, Ending::Said);
        let finishing = after(said, 2, false);
        let until = now + 2 * CHECK_INTERVAL + DRAIN_TIME_MAX;
        assert_eq!(finishing, Ending::Finishing { until });
        assert_eq!(after(finishing, 3, false), finishing);
        assert_eq!(finishing.at_check(until, false, || false), Ending::Over);
    }

    #[test]
    fn a_client_that_takes_too_long_has_until_the_next_check() {
        let now = Instant::now();
        for ending in [Ending::No, Ending::Said] {
            let finishing = ending.at_check(now, true, || true);
            assert_eq!(finishing, Ending::Finishing { until: now });
            let next = now + CHECK_INTERVAL;
            assert_eq!(finishing.at_check(next, true, || true), Ending::Over);
        }
    }
}
