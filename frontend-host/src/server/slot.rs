//! What is known of a worker outside its thread, and a connection's place at one.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::balance::shifts::Quota;
use super::schedule::{Schedule, Times};

/// How exact a [`WorkerStats`]'s clock is.
pub(super) const TICK: Duration = Duration::from_millis(TICK_MS);
pub(super) const TICK_MS: u64 = 250;

/// What a worker counts, and what it is to have.
#[derive(Debug)]
pub(super) struct WorkerStats {
    /// Its clock, since it began.
    ticks: AtomicU64,
    /// What has been answered.
    answers: AtomicU64,
    /// How many connections it serves.
    connections: AtomicUsize,
    /// How many of them it is to give away.
    to_give: AtomicUsize,
    /// It is given no more while it has so many.
    connections_max: AtomicUsize,
    /// Its thread's, once that has begun.
    schedule: OnceLock<Schedule>,
}

impl Default for WorkerStats {
    fn default() -> Self {
        Self {
            ticks: AtomicU64::default(),
            answers: AtomicU64::default(),
            connections: AtomicUsize::default(),
            to_give: AtomicUsize::default(),
            connections_max: AtomicUsize::new(usize::MAX),
            schedule: OnceLock::new(),
        }
    }
}

impl WorkerStats {
    /// Lets the clock go, for ever.
    pub(super) async fn run(&self) {
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

    /// How many requests have been answered.
    pub(super) fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    /// A request has been answered.
    pub(super) fn count_answer(&self) {
        self.answers.fetch_add(1, Ordering::Relaxed);
    }

    /// The worker for another connection: of those that have room, one with the fewest.
    pub(super) fn next(workers: &[Self]) -> usize {
        let order = |worker: &usize| {
            let worker = &workers[*worker];
            let connections = worker.connections();
            let is_full = connections >= worker.connections_max.load(Ordering::Relaxed);
            (is_full, connections)
        };
        (0..workers.len()).min_by_key(order).unwrap_or(0)
    }

    /// How many connections it has.
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Its thread has begun.
    pub(super) fn begin(&self, schedule: Schedule) {
        let _ = self.schedule.set(schedule); // it begins once
    }

    /// How long its thread has run and waited; unknown before it has begun, and where the kernel
    /// does not say.
    pub(super) fn times(&self) -> Option<Times> {
        self.schedule.get()?.times().ok()
    }

    /// What it may have, and is to give away, from now on.
    pub(super) fn apply(&self, quota: Quota) {
        self.connections_max.store(quota.seats, Ordering::Relaxed);
        self.to_give.store(quota.giving, Ordering::Relaxed);
    }

    /// Whether a connection is to go; one less is to go then.
    pub(super) fn take_move_ticket(&self) -> bool {
        let to_give = self.to_give.load(Ordering::Relaxed);
        // Almost always nothing is, and that is all it takes to know.
        to_give > 0
            && self
                .to_give
                .compare_exchange(to_give, to_give - 1, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }
}

/// Where a connection is served: it counts there for as long as this lives.
pub(super) struct WorkerSlot {
    workers: Arc<[WorkerStats]>,
    /// Only the task of the connection changes it.
    worker: AtomicUsize,
}

impl WorkerSlot {
    /// At a worker.
    pub(super) fn at(workers: &Arc<[WorkerStats]>, worker: usize) -> Self {
        workers[worker].connections.fetch_add(1, Ordering::Relaxed);
        Self {
            workers: Arc::clone(workers),
            worker: AtomicUsize::new(worker),
        }
    }

    /// What its worker counts.
    pub(super) fn stats(&self) -> &WorkerStats {
        &self.workers[self.worker.load(Ordering::Relaxed)]
    }

    /// Now at another worker.
    pub(super) fn change(&self, worker: usize) {
        self.workers[worker]
            .connections
            .fetch_add(1, Ordering::Relaxed);
        self.stats().connections.fetch_sub(1, Ordering::Relaxed);
        self.worker.store(worker, Ordering::Relaxed);
    }
}

impl Drop for WorkerSlot {
    fn drop(&mut self) {
        self.stats().connections.fetch_sub(1, Ordering::Relaxed);
    }
}
