//! Commits that fail: when another one is tried, and which of them are logged.

use std::time::Duration;

use domain::time::BootTime;

/// After a commit that failed another one is tried so much later, though nobody asks for any.
const RETRY: Duration = Duration::from_secs(1);

/// The same, where commits have failed, succeeded, and failed again, time after time.
const RETRY_MAX: Duration = Duration::from_secs(16);

/// Commits that fail so soon after one that succeeded fail for the reason of before: a disk that is almost full takes the
/// next epoch, and not the trades that come because it did.
const RELAPSE: Duration = Duration::from_secs(10);

/// While commits fail, one of them is logged in so much time, with how many did.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// What is known of commits that fail.
#[derive(Debug, Default)]
pub struct Failures {
    /// `None` where the last commit did not.
    failing: Option<Failing>,
    /// When one was logged last.
    logged_at: Option<BootTime>,
    /// When they succeeded again last, and how long it took until one was tried.
    recovered: Option<(BootTime, Duration)>,
}

/// Commits fail one after the other.
#[derive(Debug)]
struct Failing {
    commits: u64,
    /// One of them was logged.
    is_logged: bool,
    retry: Duration,
    retries_at: BootTime,
}

/// Commits that failed, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    pub commits: u64,
    /// One of them was logged.
    pub is_logged: bool,
}

impl Failures {
    /// When a commit is to be tried without anybody's asking, where the last one failed.
    pub fn retries_at(&self) -> Option<BootTime> {
        self.failing.as_ref().map(|failing| failing.retries_at)
    }

    /// One is tried, whatever becomes of it.
    pub fn tried(&mut self, now: BootTime) {
        if let Some(failing) = &mut self.failing {
            failing.retries_at = now + failing.retry;
        }
    }

    /// A commit failed. Returns how many have, where that is to be logged.
    pub fn failed(&mut self, now: BootTime) -> Option<u64> {
        let relapsed = self
            .recovered
            .filter(|(recovered, _)| now.since(*recovered) < RELAPSE);
        let retry = relapsed.map_or(RETRY, |(_, before)| (2 * before).min(RETRY_MAX));
        let failing = self.failing.get_or_insert(Failing {
            commits: 0,
            is_logged: false,
            retry,
            retries_at: now,
        });
        failing.commits += 1;
        failing.retries_at = now + failing.retry;
        let is_due = |logged: BootTime| now.since(logged) >= LOG_INTERVAL;
        if !self.logged_at.is_none_or(is_due) {
            return None;
        }
        failing.is_logged = true;
        self.logged_at = Some(now);
        Some(failing.commits)
    }

    /// A commit succeeded. Returns what that is the end of, if of anything.
    pub fn succeeded(&mut self, now: BootTime) -> Option<Ended> {
        let failing = self.failing.take()?;
        self.recovered = Some((now, failing.retry));
        Some(Ended {
            commits: failing.commits,
            is_logged: failing.is_logged,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> BootTime {
        BootTime::default() + Duration::from_millis(millis)
    }

    /// How long after a failure at that time one is tried.
    fn retry(failures: &mut Failures, now: BootTime) -> Duration {
        failures.failed(now);
        failures.retries_at().unwrap().since(now)
    }

    #[test]
    fn a_disk_that_takes_one_commit_and_not_the_next_is_tried_more_and_more_rarely() {
        let mut failures = Failures::default();
        let mut now = at(0);
        let mut waits = Vec::new();
        for _ in 0..6 {
            let wait = retry(&mut failures, now);
            waits.push(wait.as_secs());
            now = now + wait;
            failures.tried(now);
            failures.succeeded(now);
            now = now + Duration::from_millis(300); // trades come
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 16]);
        let later = now + RELAPSE;
        assert_eq!(retry(&mut failures, later), RETRY, "another disk's fault");
    }

    #[test]
    fn a_disk_that_stays_full_is_tried_each_second() {
        let mut failures = Failures::default();
        for seconds in 0..30 {
            assert_eq!(retry(&mut failures, at(1000 * seconds)), RETRY);
        }
        let over = failures.succeeded(at(30_000)).unwrap();
        assert_eq!(over.commits, 30);
        assert_eq!(failures.succeeded(at(30_001)), None);
        assert_eq!(failures.retries_at(), None);
    }

    #[test]
    fn of_commits_that_fail_one_a_second_is_logged() {
        let mut failures = Failures::default();
        let logged = |millis| failures.failed(at(millis));
        let logged: Vec<_> = [0, 400, 900, 1000, 1500].map(logged).into();
        assert_eq!(logged, [Some(1), None, None, Some(4), None]);
        let over = failures.succeeded(at(1600));
        let all = Ended {
            commits: 5,
            is_logged: true,
        };
        assert_eq!(over, Some(all));
        // A second has not passed.
        assert_eq!(failures.failed(at(1700)), None);
        assert!(!failures.succeeded(at(1800)).unwrap().is_logged);
    }
}
