//! Tells the supervisor that the gateway is alive, for as long as every worker is: one that stands still serves its
//! clients no more, and nobody else would.

use std::sync::Arc;
use std::time::Duration;

use daemon::notify;
use tokio::time::{Instant, sleep};

use super::slot::{TICK_MS, WorkerStats};

/// A worker's clock stands still for so long now and then, by how exact it is.
const STILL_TIME_MIN: Duration = Duration::from_millis(4 * TICK_MS);

/// Tells it so often, for ever.
pub(super) async fn keep_telling(workers: Arc<[WorkerStats]>, every: Duration) {
    let mut pulse = Pulse::new(&workers, Instant::now());
    let still_time_max = every.max(STILL_TIME_MIN);
    loop {
        match pulse.still(Instant::now(), still_time_max) {
            None => notify::alive(),
            Some(worker) => tracing::error!(worker, "a worker stands still"),
        }
        sleep(every).await;
    }
}

/// What workers' clocks showed, and since when.
struct Pulse<'a> {
    workers: &'a [WorkerStats],
    seen: Vec<(u64, Instant)>,
}

impl<'a> Pulse<'a> {
    fn new(workers: &'a [WorkerStats], now: Instant) -> Self {
        let seen = workers.iter().map(|worker| (worker.ticks(), now));
        Self {
            workers,
            seen: seen.collect(),
        }
    }

    /// The first whose clock has stood still for longer than that, if one has.
    fn still(&mut self, now: Instant, time_max: Duration) -> Option<usize> {
        for (worker, seen) in self.workers.iter().zip(&mut self.seen) {
            if worker.ticks() != seen.0 {
                *seen = (worker.ticks(), now);
            }
        }
        let is_still = |(_, since): &(u64, Instant)| now.duration_since(*since) > time_max;
        self.seen.iter().position(is_still)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    #[test]
    fn one_worker_that_stands_still_is_enough() {
        let workers = [WorkerStats::default(), WorkerStats::default()];
        let turn = |worker: usize| workers[worker].clock().fetch_add(1, Ordering::Relaxed);
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let time_max = Duration::from_secs(2);
        let mut pulse = Pulse::new(&workers, start);
        assert_eq!(pulse.still(after(2), time_max), None);
        turn(0);
        assert_eq!(pulse.still(after(3), time_max), Some(1));
        turn(1);
        assert_eq!(pulse.still(after(4), time_max), None);
        assert_eq!(pulse.still(after(6), time_max), Some(0));
    }
}
