//! The workers, and how connections go from one to another.
//!
//! A connection that has answered and was asked nothing yet is a future that waits for one socket.
//! When a worker is to give connections away, the next ones to get there are sent to another,
//! whose runtime the socket is registered with when it is first used there. What came in
//! meanwhile is still in the socket, and what is still to go out goes out from there.

use std::future::poll_fn;
use std::io;
use std::mem;
use std::sync::Arc;
use std::task::Poll;
use std::thread::JoinHandle;

use daemon::tasks;
use tokio::runtime::Builder;
use tokio::sync::{mpsc, watch};
use tokio::time::{interval, timeout};

use super::connection::Connection;
use super::progress::LOOK_INTERVAL;
use super::schedule::Schedule;
use super::slot::WorkerStats;
use crate::config::WORKERS_STOP_TIME_MAX;

/// Connections that wait for a worker to take them up.
const INBOX_MAX: usize = 256;

/// The workers, from outside their threads.
#[derive(Clone)]
pub(super) struct WorkerHandles {
    /// What is known of each, by its number.
    pub stats: Arc<[WorkerStats]>,
    /// Where it takes its connections from.
    inboxes: Arc<[mpsc::Sender<Connection>]>,
}

impl WorkerHandles {
    /// Gives a worker a new connection, which has its slot there.
    pub(super) async fn deal(&self, worker: usize, connection: Connection) {
        if self.inboxes[worker].send(connection).await.is_err() {
            tracing::error!("a worker is gone");
        }
    }
}

/// The threads.
pub(super) struct Workers {
    pub handles: WorkerHandles,
    stop: watch::Sender<bool>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts so many.
    ///
    /// # Errors
    /// Where threads or their runtimes cannot be had.
    pub(super) fn start(count: usize) -> io::Result<Self> {
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
            let worker = Worker {
                number,
                handles: handles.clone(),
            };
            let run = run(worker, inbox, stopped.clone());
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

/// One of them, on its thread, and the others.
#[derive(Clone)]
struct Worker {
    number: usize,
    handles: WorkerHandles,
}

impl Worker {
    fn own(&self) -> &WorkerStats {
        &self.handles.stats[self.number]
    }
}

/// Serves connections until it is to stop.
async fn run(
    worker: Worker,
    mut inbox: mpsc::Receiver<Connection>,
    mut stopped: watch::Receiver<bool>,
) {
    match Schedule::of_this_thread() {
        Ok(schedule) => worker.own().begin(schedule),
        Err(error) => tracing::info!(%error, "workers do not see who gets no processor"),
    }
    let _clock = tasks::spawn("clock", {
        let worker = worker.clone();
        async move { worker.own().run().await }
    });
    loop {
        tokio::select! {
            Some(connection) = inbox.recv() => {
                tasks::spawn_for_caller(serve(connection, worker.clone()));
            }
            _ = stopped.changed() => return,
        }
    }
}

/// How serving a connection ended on one worker.
enum Ended {
    Closed,
    Overdue,
    /// It is to go on at another.
    Given,
}

async fn serve(mut connection: Connection, worker: Worker) {
    let mut looks = interval(LOOK_INTERVAL);
    // It was to go and could not: the next try is when there is something to do.
    let mut stays = false;
    let mut is_finishing = false;
    loop {
        let ended = poll_fn(|cx| {
            if let Poll::Ready(ended) = connection.poll(cx) {
                if let Err(error) = ended {
                    tracing::debug!(%error, "connection ended");
                }
                return Poll::Ready(Ended::Closed);
            }
            if !mem::take(&mut stays) && connection.can_move() && worker.own().take_move_ticket() {
                return Poll::Ready(Ended::Given);
            }
            while looks.poll_tick(cx).is_ready() {
                if !connection.is_overdue() {
                    continue;
                }
                if is_finishing {
                    return Poll::Ready(Ended::Overdue);
                }
                // Until the next look it may say so, and end by itself.
                is_finishing = true;
                connection.finish();
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Poll::Pending
        });
        match ended.await {
            Ended::Closed => break,
            Ended::Overdue => {
                tracing::debug!(client = %connection.client(), "its client took too long");
                break;
            }
            Ended::Given => {
                let other = WorkerStats::next(&worker.handles.stats);
                match worker.handles.inboxes[other].try_reserve() {
                    Ok(room) if other != worker.number => {
                        connection.moves(other);
                        room.send(connection);
                        break;
                    }
                    _ => stays = true,
                }
            }
        }
    }
}
