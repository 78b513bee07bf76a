//! What a policy counts and says of its own accord.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use domain::Rate;
use domain::time::BootTime;

use crate::decision::Observation;
use crate::limits;

/// What each label of a counter is where its labels have too many values.
const OTHER: &str = "other";

/// Values of a counter's labels, and its count.
type Series = BTreeMap<Vec<String>, u64>;

/// What one version has counted, and how much it may say.
pub struct Observed {
    /// By the name of the counter.
    counters: Mutex<BTreeMap<String, Series>>,
    /// When it may say as many lines at once as it ever may.
    lines_full_at: Mutex<BootTime>,
    lines_rate: Rate,
    /// Lines that were too many.
    dropped: AtomicU64,
}

impl Observed {
    pub(super) fn new() -> Self {
        let second = Duration::from_secs(1);
        let rate = Rate::new(
            limits::LOG_LINES_PER_SECOND,
            second,
            limits::LOG_LINES_BURST,
        );
        Self {
            counters: Mutex::default(),
            lines_full_at: Mutex::default(),
            lines_rate: rate.expect("it is a rate"),
            dropped: AtomicU64::new(0),
        }
    }

    /// Adds to a counter. Values of labels beyond [`limits::SERIES_MAX`] are counted as `other`.
    pub(super) fn count(&self, observation: Observation) {
        let mut counters = self.counters();
        let Observation {
            counter,
            labels,
            value,
        } = observation;
        let series = counters.entry(counter).or_default();
        let labels = match labels {
            labels if series.contains_key(&labels) || series.len() < limits::SERIES_MAX => labels,
            labels => vec![OTHER.to_owned(); labels.len()],
        };
        let count = series.entry(labels).or_default();
        *count = count.saturating_add(value);
    }

    /// Whether it may say another line; returns with it how many it could not say before.
    pub(super) fn may_say(&self) -> Option<u64> {
        let mut full_at = self
            .lines_full_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match self.lines_rate.take(*full_at, 1, BootTime::now()) {
            Ok(after) => {
                *full_at = after;
                Some(self.dropped.swap(0, Ordering::Relaxed))
            }
            Err(_) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }

    /// A copy of what was counted.
    pub fn snapshot(&self) -> BTreeMap<String, Series> {
        self.counters().clone()
    }

    fn counters(&self) -> MutexGuard<'_, BTreeMap<String, Series>> {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observation(label: &str, value: u64) -> Observation {
        Observation {
            counter: "seen".to_owned(),
            labels: vec![label.to_owned(), "x".to_owned()],
            value,
        }
    }

    #[test]
    fn values_of_labels_are_bounded() {
        let observed = Observed::new();
        for label in 0..limits::SERIES_MAX + 10 {
            observed.count(observation(&label.to_string(), 2));
        }
        observed.count(observation("0", u64::MAX));
        let counted = &observed.snapshot()["seen"];
        assert_eq!(counted.len(), limits::SERIES_MAX + 1);
        assert_eq!(counted[&vec![OTHER.to_owned(); 2]], 20);
        assert_eq!(counted[&observation("0", 0).labels], u64::MAX);
    }

    #[test]
    fn lines_are_bounded_and_those_that_are_left_out_are_counted() {
        let observed = Observed::new();
        let said = |lines: u32| (0..lines).filter(|_| observed.may_say().is_some()).count();
        let most = limits::LOG_LINES_BURST as usize;
        let said = said(limits::LOG_LINES_BURST * 10);
        assert!((most..most * 5).contains(&said), "{said}");
        assert!(observed.dropped.load(Ordering::Relaxed) > 0);
    }
}
