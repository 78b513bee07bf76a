//! How many failures a version may have in its first time, and who takes it out of service for more.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use daemon::tasks;
use domain::time::BootTime;

/// How many failures a version may have, and for how long they are counted.
#[derive(Debug, Clone, Copy)]
pub struct Probation {
    /// From its activation, or from when it became a canary.
    pub window: Duration,
    /// Decisions that trapped, overran or were invalid, and server errors that no backend is to
    /// blame for. One more ends it.
    pub failures_max: u64,
}

impl Default for Probation {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(60),
            failures_max: 10,
        }
    }
}

/// Since when a version decides for clients, and how often it failed since.
#[derive(Debug)]
pub struct HealthWindow {
    /// When it began to.
    pub since: BootTime,
    failures: AtomicU64,
}

impl HealthWindow {
    /// Begins now, with no failures.
    pub(super) fn begin() -> Arc<Self> {
        Arc::new(Self {
            since: BootTime::now(),
            failures: AtomicU64::new(0),
        })
    }

    /// One more failure; returns how many there were with it.
    fn count_failure(&self) -> u64 {
        self.failures.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// How often it failed a client.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }
}

/// Versions that wait to be taken out of service: there are two at most, and each is named again
/// and again.
const FAILING_MAX: usize = 16;

/// Counts the failures of versions on probation. A thread of its own takes those that fail out of
/// service, because that may have to wait for a disk.
pub(super) struct ProbationMonitor {
    probation: Probation,
    failing: SyncSender<Failing>,
}

/// A version that failed too often.
pub(super) struct Failing {
    /// Tells the version by its window.
    pub(super) health: Arc<HealthWindow>,
    /// In words, for the log of changes.
    pub(super) why: String,
}

impl ProbationMonitor {
    /// Starts the thread, which ends when this is dropped.
    pub(super) fn start(
        probation: Probation,
        take_out_of_service: impl Fn(&Failing) + Send + 'static,
    ) -> io::Result<Self> {
        let (failing, named) = sync_channel::<Failing>(FAILING_MAX);
        tasks::thread("policy-monitor", move || {
            while let Ok(failing) = named.recv() {
                take_out_of_service(&failing);
            }
        })?;
        Ok(Self { probation, failing })
    }

    /// A version failed for a client. On probation, one failure too many ends its service.
    pub(super) fn note_failure(&self, health: &Arc<HealthWindow>) {
        let failures = health.count_failure();
        let too_many = failures.saturating_sub(self.probation.failures_max);
        // Again and again, in case that it could not be done the first time.
        if !too_many.is_power_of_two() {
            return;
        }
        if BootTime::now().since(health.since) <= self.probation.window {
            let window_s = self.probation.window.as_secs();
            // Where there is no room, it is named already.
            let _ = self.failing.try_send(Failing {
                health: Arc::clone(health),
                why: format!("{failures} failures within {window_s} s"),
            });
        }
    }
}
