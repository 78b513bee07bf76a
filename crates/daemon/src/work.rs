//! What a thread is at, so that whoever watches over the process notices where one stands still.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Since when a thread is at one piece of work, as it says itself. Clones are of the same thread.
#[derive(Debug, Clone, Default)]
pub struct Work(Arc<Mutex<Option<Instant>>>);

impl Work {
    /// The thread takes something up.
    pub fn begin(&self) {
        *self.since() = Some(Instant::now());
    }

    /// That is done: it waits for more.
    pub fn end(&self) {
        *self.since() = None;
    }

    /// Whether it has been at one piece of work for longer than that.
    pub fn takes_longer_than(&self, time: Duration) -> bool {
        self.since().is_some_and(|since| since.elapsed() > time)
    }

    fn since(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_begun_and_not_done_takes_long() {
        let work = Work::default();
        assert!(!work.takes_longer_than(Duration::ZERO), "it waits");
        work.clone().begin();
        while !work.takes_longer_than(Duration::from_millis(1)) {
            std::thread::yield_now();
        }
        assert!(!work.takes_longer_than(Duration::from_secs(3600)));
        work.begin();
        assert!(!work.takes_longer_than(Duration::from_secs(60)), "the next");
        work.end();
        assert!(!work.takes_longer_than(Duration::ZERO), "it waits again");
    }
}
