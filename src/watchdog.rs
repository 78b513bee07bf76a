//! Tells the supervisor that a catalog or a replica is alive: by the thread that serves, for as long as no other one that
//! it needs stands still. (A gateway's has several to look after: `frontend_host::server`.)

use std::time::Duration;

use daemon::notify;
use monitor::Monitor;
use tokio::time::{Instant, sleep};

/// Longest time between two looks at the threads.
const LOOK_INTERVAL_MAX: Duration = Duration::from_secs(1);

/// How often it is looked between two messages, at least: how exactly it is known when a thread goes on.
const LOOKS: u32 = 4;

/// Tells it so often, for ever. To be run by what serves.
pub async fn keep_telling(monitor: Monitor, every: Duration) {
    let mut watchdog = Watchdog::new(every);
    loop {
        if watchdog.is_due(monitor.stands_still(every), Instant::now()) {
            notify::alive();
        }
        sleep((every / LOOKS).min(LOOK_INTERVAL_MAX)).await;
    }
}

/// When to tell it. The supervisor waits for twice `every`, and a thread stands still that has been at one piece of work
/// for longer than `every`: so a message is sent after it came to stand still, and the next as soon as it goes on. One that
/// does not is noticed within three times `every`.
struct Watchdog {
    every: Duration,
    told: Option<Instant>,
    /// The thread that the log says stands still.
    still: Option<&'static str>,
}

impl Watchdog {
    fn new(every: Duration) -> Self {
        Self {
            every,
            told: None,
            still: None,
        }
    }

    /// Whether it is to be told now, where that thread stands still, if one does; it counts as told then.
    fn is_due(&mut self, still: Option<&'static str>, now: Instant) -> bool {
        if still != self.still {
            match still {
                Some(thread) => tracing::error!(
                    thread,
                    "a thread stands still: until it goes on, the supervisor hears nothing"
                ),
                None => tracing::info!("no thread stands still any more"),
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_told_while_a_thread_stands_still_and_again_as_soon_as_it_goes_on() {
        let every = Duration::from_secs(4);
        let mut watchdog = Watchdog::new(every);
        let start = Instant::now();
        let still = |second: u64| (10..25_u64).contains(&second).then_some("writer");
        let told: Vec<u64> = (0..32)
            .filter(|&second| watchdog.is_due(still(second), start + Duration::from_secs(second)))
            .collect();
        assert_eq!(told, [0, 4, 8, 25, 29]);
    }
}
