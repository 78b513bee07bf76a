//! Which workers serve, and how many connections each has.
//!
//! Processors are not all the same: one that also has a client, a database or the network's
//! interrupts to serve leaves its worker waiting, and with it a share of the clients, while
//! another worker answers at once. Then the one that is hindered rests, and the others have its
//! connections: on two processors, with a client beside the gateway, a quarter more lookups and
//! less than half of their 99th percentile (`tests/bench/README.md`). Whether it helps is seen,
//! not assumed: where fewer requests are answered than before, and those who serve have as much
//! to do as they can, the worker comes back. One that rests comes back when it is needed; where
//! resting was seen to help, it is given a few connections first, to see whether that has changed.
//!
//! - [`shifts`]: the rules, which know no clock and no thread.

pub(super) mod shifts;

use std::future::pending;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::schedule::Times;
use super::slot::WorkerStats;

use shifts::{Load, Observation, Shifts};

/// How often workers are looked at.
const INTERVAL: Duration = Duration::from_millis(50);

/// Watches workers, and asks those that rest or have too many to give connections away.
/// Connections over HTTP/2 stay where they are.
pub(super) async fn run(workers: &[WorkerStats]) {
    if workers.len() < 2 {
        return pending().await;
    }
    let mut shifts = Shifts::of(workers.len());
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut earlier: Option<Account> = None;
    loop {
        ticks.tick().await;
        let account = Account::of(workers);
        if let (Some(earlier), Some(account)) = (earlier, &account) {
            let interval = account.at.duration_since(earlier.at);
            shifts.observe(interval, account.since(&earlier));
        }
        earlier = account;

        let connections: Vec<_> = workers.iter().map(WorkerStats::connections).collect();
        for (worker, quota) in workers.iter().zip(shifts.quotas(&connections)) {
            worker.apply(quota);
        }
    }
}

/// What all workers have done so far.
struct Account {
    at: Instant,
    times: Vec<Times>,
    answers: u64,
}

impl Account {
    /// None while a worker has not begun, or where the kernel does not say.
    fn of(workers: &[WorkerStats]) -> Option<Self> {
        Some(Self {
            times: workers
                .iter()
                .map(WorkerStats::times)
                .collect::<Option<_>>()?,
            answers: workers.iter().map(|worker| worker.answers()).sum(),
            at: Instant::now(),
        })
    }

    fn since(&self, earlier: &Self) -> Observation {
        let interval = self.at.duration_since(earlier.at);
        let times = self.times.iter().zip(&earlier.times);
        let answers = self.answers - earlier.answers;
        Observation {
            loads: times
                .map(|(times, earlier)| load(interval, times.since(*earlier)))
                .collect(),
            answers: answers as f64 / interval.as_secs_f64(),
        }
    }
}

fn load(interval: Duration, times: Times) -> Load {
    Load {
        running: times.running.div_duration_f64(interval),
        waiting: times.waiting.div_duration_f64(interval),
    }
}
