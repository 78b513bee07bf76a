//! Tells the supervisor that the gateway is alive, for as long as every worker is: one that stands still serves its
//! clients no more, and nobody else would.

use std::sync::Arc;
use std::time::Duration;

use daemon::notify;
use tokio::time::{Instant, sleep};

use super::slot::{TICK_MS, WorkerStats};

/// A worker's clock stands still for so long now and then, by how exact it is.
const STILL_TIME_MIN: Duration = Duration::from_millis(4 * TICK_MS);

/// Longest time between two looks at the workers.
const LOOK_INTERVAL_MAX: Duration = Duration::from_secs(1);

/// How often it is looked between two messages, at least: how exactly it is known when a worker came to stand still, and
/// when it goes on.
const LOOKS: u32 = 4;

/// Tells it so often, for ever.
pub(super) async fn keep_telling(workers: Arc<[WorkerStats]>, every: Duration) {
    let mut pulse = Pulse::new(&workers, every, Instant::now());
    loop {
        if pulse.is_due(Instant::now()) {
            notify::alive();
        }
        sleep(pulse.look_interval()).await;
    }
}

/// When to tell it. The supervisor waits for twice `every`. A message is sent while no worker has stood still for longer
/// than `every`, so one at least after a worker came to stand still; and the next as soon as it goes on. One that stands
/// still for less than what the supervisor waits, but for a look, is never noticed; one that goes on no more is noticed
/// within half of that again.
struct Pulse<'a> {
    workers: &'a [WorkerStats],
    every: Duration,
    /// What workers' clocks showed, and since when.
    seen: Vec<(u64, Instant)>,
    told: Option<Instant>,
    /// The worker that the log says stands still.
    still: Option<usize>,
}

impl<'a> Pulse<'a> {
    fn new(workers: &'a [WorkerStats], every: Duration, now: Instant) -> Self {
        let seen = workers.iter().map(|worker| (worker.ticks(), now));
        Self {
            workers,
            every,
            seen: seen.collect(),
            told: None,
            still: None,
        }
    }

    fn look_interval(&self) -> Duration {
        (self.every / LOOKS).min(LOOK_INTERVAL_MAX)
    }

    /// Whether it is to be told now; it counts as told then.
    fn is_due(&mut self, now: Instant) -> bool {
        let still = self.still(now);
        if still != self.still {
            match still {
                Some(worker) => tracing::error!(worker, "a worker stands still"),
                None => tracing::info!("no worker stands still any more"),
            }
            self.still = still;
        }
        let is_time = |told: Instant| now.duration_since(told) >= self.every;
        let is_due = still.is_none() && self.told.is_none_or(is_time);
        if is_due {
            self.told = Some(now);
        }
        is_due
    }

    /// The first whose clock has stood still for too long, if one has.
    fn still(&mut self, now: Instant) -> Option<usize> {
        for (worker, seen) in self.workers.iter().zip(&mut self.seen) {
            if worker.ticks() != seen.0 {
                *seen = (worker.ticks(), now);
            }
        }
        let time_max = self.every.max(STILL_TIME_MIN);
        let is_still = |(_, since): &(u64, Instant)| now.duration_since(*since) > time_max;
        self.seen.iter().position(is_still)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    const EVERY: Duration = Duration::from_secs(5);
    const DEAD_AFTER: Duration = Duration::from_secs(10);

    /// The times of messages, where one of two workers stands still for that time after a minute.
    fn told(still: Duration, until: Duration) -> Vec<Duration> {
        let workers = [WorkerStats::default(), WorkerStats::default()];
        let start = Instant::now();
        let mut pulse = Pulse::new(&workers, EVERY, start);
        let stands_still = Duration::from_secs(60)..Duration::from_secs(60) + still;
        let (mut now, mut told) = (Duration::ZERO, Vec::new());
        while now < until {
            for (number, worker) in workers.iter().enumerate() {
                if number == 0 || !stands_still.contains(&now) {
                    worker.clock().fetch_add(1, Ordering::Relaxed);
                }
            }
            if pulse.is_due(start + now) {
                told.push(now);
            }
            now += pulse.look_interval();
        }
        told
    }

    #[test]
    fn a_worker_that_stands_still_for_less_than_the_supervisor_waits_goes_unnoticed() {
        let until = Duration::from_secs(120);
        for tenths in 0..=85 {
            let still = Duration::from_millis(100 * tenths);
            let mut told = told(still, until);
            assert!(told.len() <= 25, "no more often than it is wanted");
            told.push(until);
            let gaps = told.windows(2).map(|two| two[1] - two[0]);
            let longest = gaps.max().unwrap();
            assert!(longest < DEAD_AFTER, "{still:?}: {longest:?}");
        }
    }

    #[test]
    fn one_worker_that_goes_on_no_more_is_enough() {
        let told = told(Duration::MAX / 4, Duration::from_secs(300));
        let last = *told.last().unwrap();
        let noticed = last + DEAD_AFTER - Duration::from_secs(60);
        assert!(noticed >= DEAD_AFTER - EVERY / LOOKS, "{noticed:?}");
        assert!(noticed <= DEAD_AFTER + EVERY + EVERY / LOOKS, "{noticed:?}");
    }
}
