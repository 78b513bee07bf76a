//! The workers, and how connections go from one to another.
//!
//! A connection that has answered and was asked nothing yet is a future that waits for one socket.
//! When a worker is to give connections away, the next ones to get there are sent to another,
//! whose runtime the socket is registered with when it is first used there. What came in
//! meanwhile is still in the socket, and what is still to go out goes out from there.

use std::future::poll_fn;
use std::io;
use std::mem;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::thread::JoinHandle;

use daemon::tasks;
use tokio::runtime::Builder;
use tokio::sync::{mpsc, watch};
use tokio::time::{interval, timeout};

use super::balance::Quota;
use super::connection::Connection;
use super::progress::{LOOK_INTERVAL, Tally};
use super::schedule::{Schedule, Times};
use crate::config::WORKERS_STOP_TIME_MAX;

/// Connections that wait for a worker to take them up.
const INBOX_MAX: usize = 256;

/// What is known of a worker outside its thread.
pub(super) struct Desk {
    /// Connections for it.
    inbox: mpsc::Sender<Connection>,
    /// What it counts.
    pub tally: Tally,
    /// How many it serves.
    connections: AtomicUsize,
    /// How many of them it is to give away.
    giving: AtomicUsize,
    /// It is given no more while it has so many.
    seats: AtomicUsize,
    /// Its thread's, once that has begun.
    schedule: OnceLock<Schedule>,
}

impl Desk {
    /// A worker's, and its connections as they come.
    pub(super) fn new() -> (Self, mpsc::Receiver<Connection>) {
        let (inbox, connections) = mpsc::channel(INBOX_MAX);
        let desk = Self {
            inbox,
            tally: Tally::default(),
            connections: AtomicUsize::default(),
            giving: AtomicUsize::default(),
            seats: AtomicUsize::new(usize::MAX),
            schedule: OnceLock::new(),
        };
        (desk, connections)
    }

    /// The worker for another connection: of those that have seats, one with the fewest.
    pub(super) fn next(desks: &[Self]) -> usize {
        let order = |worker: &usize| {
            let desk = &desks[*worker];
            let is_gone = desk.inbox.is_closed();
            let connections = desk.connections();
            let is_full = connections >= desk.seats.load(Ordering::Relaxed);
            (is_gone, is_full, connections)
        };
        (0..desks.len()).min_by_key(order).unwrap_or(0)
    }

    /// Gives the worker a new connection, which has its seat there.
    pub(super) async fn deal(&self, connection: Connection) {
        if self.inbox.send(connection).await.is_err() {
            tracing::error!("a worker is gone");
        }
    }

    /// How many connections have their seat there.
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// How long its thread has run and waited; unknown before it has begun, and where the kernel
    /// does not say.
    pub(super) fn times(&self) -> Option<Times> {
        self.schedule.get()?.times().ok()
    }

    /// What it may have, and is to give away, from now on.
    pub(super) fn follow(&self, quota: Quota) {
        self.seats.store(quota.seats, Ordering::Relaxed);
        self.giving.store(quota.giving, Ordering::Relaxed);
    }

    /// Whether a connection is to go; one less is to go then.
    fn gives(&self) -> bool {
        let giving = self.giving.load(Ordering::Relaxed);
        // Almost always nothing is, and that is all it takes to know.
        giving > 0
            && self
                .giving
                .compare_exchange(giving, giving - 1, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }
}

/// Where a connection is served: it counts there for as long as this lives.
pub(super) struct Seat {
    desks: Arc<[Desk]>,
    /// Only the task of the connection changes it.
    worker: AtomicUsize,
}

impl Seat {
    /// At a worker.
    pub(super) fn at(desks: &Arc<[Desk]>, worker: usize) -> Self {
        desks[worker].connections.fetch_add(1, Ordering::Relaxed);
        Self {
            desks: Arc::clone(desks),
            worker: AtomicUsize::new(worker),
        }
    }

    fn desk(&self) -> &Desk {
        &self.desks[self.worker.load(Ordering::Relaxed)]
    }

    /// What its worker counts.
    pub(super) fn tally(&self) -> &Tally {
        &self.desk().tally
    }

    /// Now at another worker.
    pub(super) fn change(&self, worker: usize) {
        self.desks[worker]
            .connections
            .fetch_add(1, Ordering::Relaxed);
        self.desk().connections.fetch_sub(1, Ordering::Relaxed);
        self.worker.store(worker, Ordering::Relaxed);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.desk().connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The threads.
pub(super) struct Workers {
    /// What is known of each, by its number.
    pub desks: Arc<[Desk]>,
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
        let (desks, inboxes): (Vec<_>, Vec<_>) = (0..count).map(|_| Desk::new()).unzip();
        let desks: Arc<[Desk]> = desks.into();
        let mut threads = Vec::new();
        for (number, inbox) in inboxes.into_iter().enumerate() {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let desks = Arc::clone(&desks);
            let run = run(number, desks, inbox, stopped.clone());
            let name = format!("worker-{number}");
            threads.push(tasks::thread(name, move || runtime.block_on(run))?);
        }
        Ok(Self {
            desks,
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

/// Serves connections until it is to stop.
async fn run(
    number: usize,
    desks: Arc<[Desk]>,
    mut inbox: mpsc::Receiver<Connection>,
    mut stopped: watch::Receiver<bool>,
) {
    let desk = &desks[number];
    match Schedule::of_this_thread() {
        Ok(schedule) => drop(desk.schedule.set(schedule)),
        Err(error) => tracing::info!(%error, "workers do not see who gets no processor"),
    }
    let _tally = tasks::spawn("tally", {
        let desks = Arc::clone(&desks);
        async move { desks[number].tally.run().await }
    });
    loop {
        tokio::select! {
            Some(connection) = inbox.recv() => {
                tasks::spawn_for_caller(serve(connection, number, Arc::clone(&desks)));
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

async fn serve(mut connection: Connection, number: usize, desks: Arc<[Desk]>) {
    let desk = &desks[number];
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
            if !mem::take(&mut stays) && connection.can_move() && desk.gives() {
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
                let other = Desk::next(&desks);
                match desks[other].inbox.try_reserve() {
                    Ok(room) if other != number => {
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
