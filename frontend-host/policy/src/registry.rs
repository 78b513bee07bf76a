//! Where the current publication stands, how another takes its place, and who takes a version out
//! of service that fails on probation.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use daemon::tasks;
use domain::time::BootTime;

use super::change::Reason;
use super::history::{Change, History, HistoryError};
use super::publication::{Published, Watch};
use super::shadow::Shadow;
use super::swap_error::SwapError;

/// The current publication, and the history of all.
pub(super) struct Registry {
    published: ArcSwap<Published>,
    pub(super) shadow: Shadow,
    /// Held while a new publication is made from the current one, and written to the disk. So not
    /// for threads that serve.
    history: Mutex<Option<History>>,
}

impl Registry {
    pub(super) fn new(first: Published, history: Option<History>) -> io::Result<Self> {
        Ok(Self {
            published: ArcSwap::from_pointee(first),
            shadow: Shadow::start()?,
            history: Mutex::new(history),
        })
    }

    /// What decides now.
    pub(super) fn published(&self) -> Arc<Published> {
        self.published.load_full()
    }

    /// The same for a request, which has no use for a count of its own.
    pub(super) fn current(&self) -> Guard<Arc<Published>> {
        self.published.load()
    }

    /// Saves a change, and then makes it; returns what decides now. `save` puts away what it needs
    /// after a restart.
    pub(super) fn change(
        &self,
        what: &'static str,
        reason: &Reason,
        save: impl FnOnce(&mut History) -> Result<(), HistoryError>,
        next: impl FnOnce(&Published) -> Result<Published, SwapError>,
    ) -> Result<Arc<Published>, SwapError> {
        let mut history = self.history();
        let now = self.published();
        let next = Arc::new(next(&now)?);
        let change = Change::new(what, &now, &next, reason);
        if let Some(history) = &mut *history {
            save(history)?;
            history.record(&change, &next)?;
        }
        self.publish(Arc::clone(&next), &change);
        Ok(next)
    }

    /// Takes a version out of service that failed too often, if it still is in service. It goes
    /// first, and is written down after: clients do not wait for a disk.
    fn take_out(&self, failing: &Failing) {
        let mut history = self.history();
        let now = self.published();
        let Some((what, next)) = now.without(&failing.watch) else {
            return;
        };
        let next = Arc::new(next);
        let reason = Reason {
            who: "probation".into(),
            why: failing.why.clone(),
        };
        let change = Change::new(what, &now, &next, &reason);
        self.publish(Arc::clone(&next), &change);
        if let Some(history) = &mut *history
            && let Err(error) = history.record(&change, &next)
        {
            tracing::error!(%error, "a restart would come back with the policy that failed");
        }
    }

    /// The last changes, oldest first.
    pub(super) fn changes(&self) -> Vec<Change> {
        let history = self.history();
        history.as_ref().map(History::changes).unwrap_or_default()
    }

    fn history(&self) -> MutexGuard<'_, Option<History>> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, next: Arc<Published>, change: &Change) {
        tracing::info!(
            what = change.what,
            who = change.who,
            why = change.why,
            from = change.from,
            to = change.to,
            candidate = change.candidate,
            "policy changed"
        );
        let candidate = next.candidate.as_ref();
        self.shadow
            .follow(candidate.map(|candidate| candidate.version.id));
        self.published.store(next);
    }
}

/// How many failures a version may have, and for how long that is watched.
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

/// Versions that wait to be taken out of service: there are two at most, and each is named again
/// and again.
const FAILING_MAX: usize = 16;

/// Watches versions on probation. A thread of its own takes those that fail out of service, because
/// that may have to wait for a disk.
pub(super) struct Warden {
    probation: Probation,
    failing: SyncSender<Failing>,
}

/// A version that failed too often.
struct Failing {
    watch: Arc<Watch>,
    why: String,
}

impl Warden {
    /// Starts the thread, which ends when this is dropped.
    pub(super) fn start(probation: Probation, registry: &Arc<Registry>) -> io::Result<Self> {
        let (failing, named) = sync_channel(FAILING_MAX);
        let registry = Arc::clone(registry);
        tasks::thread("policy-warden", move || take_out_all(&named, &registry))?;
        Ok(Self { probation, failing })
    }

    /// A version failed for a client. On probation, one failure too many ends its service.
    pub(super) fn note_failure(&self, watch: &Arc<Watch>) {
        let failures = watch.count_failure();
        let too_many = failures.saturating_sub(self.probation.failures_max);
        // Again and again, in case that it could not be done the first time.
        if !too_many.is_power_of_two() {
            return;
        }
        if BootTime::now().since(watch.since) <= self.probation.window {
            let window_s = self.probation.window.as_secs();
            // Where there is no room, it is named already.
            let _ = self.failing.try_send(Failing {
                watch: Arc::clone(watch),
                why: format!("{failures} failures within {window_s} s"),
            });
        }
    }
}

fn take_out_all(failing: &Receiver<Failing>, registry: &Registry) {
    while let Ok(failing) = failing.recv() {
        registry.take_out(&failing);
    }
}
