//! What is known of a worker outside its thread, and a connection's place at one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// How exact a [`WorkerStats`]'s clock is.
pub(super) const TICK: Duration = Duration::from_millis(TICK_MS);
pub(super) const TICK_MS: u64 = 250;

/// What a worker counts.
#[derive(Debug, Default)]
pub(super) struct WorkerStats {
    /// Its clock, since it began.
    ticks: AtomicU64,
    /// How many connections it serves.
    connections: AtomicUsize,
}

impl WorkerStats {
    /// Lets the clock go, for ever.
    pub(super) async fn run_clock(&self) {
        let mut ticks = tokio::time::interval(TICK);
        // Time during which the worker was held up has passed as well.
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
        loop {
            ticks.tick().await;
            self.ticks.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn ticks(&self) -> u64 {
        self.ticks.load(Ordering::Relaxed)
    }

    /// The clock itself, for tests to turn.
    #[cfg(test)]
    pub(super) fn clock(&self) -> &AtomicU64 {
        &self.ticks
    }

    /// The worker for another connection: one with the fewest.
    pub(super) fn next(workers: &[Self]) -> usize {
        let connections = |worker: &usize| workers[*worker].connections();
        (0..workers.len()).min_by_key(connections).unwrap_or(0)
    }

    /// How many connections it has.
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

/// Where a connection is served: it counts there for as long as this lives.
pub(super) struct WorkerSlot {
    workers: Arc<[WorkerStats]>,
    worker: usize,
}

impl WorkerSlot {
    pub(super) fn at(workers: &Arc<[WorkerStats]>, worker: usize) -> Self {
        workers[worker].connections.fetch_add(1, Ordering::Relaxed);
        Self {
            workers: Arc::clone(workers),
            worker,
        }
    }

    /// What its worker counts.
    pub(super) fn stats(&self) -> &WorkerStats {
        &self.workers[self.worker]
    }
}

impl Drop for WorkerSlot {
    fn drop(&mut self) {
        self.stats().connections.fetch_sub(1, Ordering::Relaxed);
    }
}
