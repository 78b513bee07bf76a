//! The versions of the policy: the active one, the last good one behind it, and a candidate
//! beside it; and how one takes the place of another.
//!
//! A swap publishes a new [`Published`] by one atomic pointer store. A version that has become
//! active is on probation for a while: too many failures, and the last good one is back.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::Guard;
use domain::JournalId;

use super::change::{Reason, Upload};
use super::check::{check, check_with};
use super::differences::Differences;
use super::history::{Change, History, HistoryError};
use super::publication::{Candidate, Published, Rank, Trial, Watch};
use super::question::Recent;
use super::recording::{Busy, Recorder, Recording};
use super::registry::{Probation, Registry, Warden};
use super::sandbox::{Sandbox, SharedVersion};
use super::shadow::Shadow;
use super::swap_error::SwapError;
use super::thread::yield_to_others;
use super::trust::Trust;

/// The versions of the policy that this gateway has loaded.
pub struct Versions {
    sandbox: Sandbox,
    registry: Arc<Registry>,
    warden: Warden,
    trust: Option<Trust>,
    pub(super) recorder: Recorder,
    pub(super) recent: Recent,
    /// Held while a component is compiled: one at a time is enough for a machine.
    compiling: Mutex<()>,
}

impl Versions {
    /// Starts with a first version, which must pass its check. Without a history nothing
    /// survives a restart; with one, the last good version of before is there to go back to.
    pub fn new(
        sandbox: Sandbox,
        component: &[u8],
        probation: Probation,
        mut history: Option<History>,
    ) -> Result<Self, SwapError> {
        let active = Arc::new(check(&sandbox, component)?);
        if let Some(history) = &mut history {
            history.save(active.digest, component.into())?;
        }
        let previous = history
            .as_ref()
            .and_then(|history| history.previous_of(active.digest))
            .and_then(|component| previous_version(&sandbox, &component));
        let first = Published::first(active, previous);
        let registry = Arc::new(Registry::new(first, history)?);
        Ok(Self {
            sandbox,
            warden: Warden::start(probation, &registry)?,
            registry,
            trust: None,
            recorder: Recorder::default(),
            recent: Recent::default(),
            compiling: Mutex::new(()),
        })
    }

    /// What decides now.
    pub fn published(&self) -> Arc<Published> {
        self.registry.published()
    }

    /// The same for a request, which has no use for a count of its own.
    pub fn current(&self) -> Guard<Arc<Published>> {
        self.registry.current()
    }

    pub(super) fn shadow(&self) -> &Shadow {
        &self.registry.shadow
    }

    /// Takes no component from now on that `trust` does not cover. For those of before see
    /// [`History::covered_by`].
    pub fn trusting(self, trust: Option<Trust>) -> Self {
        Self { trust, ..self }
    }

    /// Checks a component and makes it the active version. Compiles: call it off the threads
    /// that serve. The version that was active stays loaded; if it never failed, it is the
    /// last good one from now on.
    pub fn activate<'a>(
        &self,
        upload: impl Into<Upload<'a>>,
        reason: &Reason,
    ) -> Result<SharedVersion, SwapError> {
        let upload = upload.into();
        let version = self.check(upload)?;
        self.registry.change(
            "activate",
            reason,
            |history| history.save(version.digest, upload),
            |now| Ok(now.with_active(&version, now.candidate.clone())),
        )?;
        Ok(version)
    }

    /// Checks a component and puts it on trial beside the active version.
    pub fn try_out<'a>(
        &self,
        upload: impl Into<Upload<'a>>,
        trial: Trial,
        reason: &Reason,
    ) -> Result<SharedVersion, SwapError> {
        let upload = upload.into();
        let version = self.check(upload)?;
        let candidate = Candidate {
            version: Arc::clone(&version),
            trial,
            differences: Arc::new(Differences::default()),
            watch: Watch::begin(),
        };
        self.registry.change(
            trial.name(),
            reason,
            |history| history.save(version.digest, upload),
            |now| Ok(now.with_candidate(Some(candidate))),
        )?;
        Ok(version)
    }

    /// Drops the candidate.
    pub fn drop_candidate(&self, reason: &Reason) -> Result<(), SwapError> {
        self.registry.change("drop", reason, nothing, |now| {
            now.candidate.as_ref().ok_or(SwapError::NoCandidate)?;
            Ok(now.with_candidate(None))
        })?;
        Ok(())
    }

    /// Makes the candidate the active version.
    pub fn promote(&self, reason: &Reason) -> Result<SharedVersion, SwapError> {
        let published = self.registry.change("promote", reason, nothing, |now| {
            let candidate = now.candidate.as_ref().ok_or(SwapError::NoCandidate)?;
            Ok(now.with_active(&candidate.version, None))
        })?;
        Ok(Arc::clone(&published.active))
    }

    /// Makes the last good version the active one again.
    pub fn roll_back(&self, reason: &Reason) -> Result<SharedVersion, SwapError> {
        let published = self.registry.change("rollback", reason, nothing, |now| {
            let target = now.previous.as_ref();
            Ok(now.rolled_back(target.ok_or(SwapError::NothingToRollBackTo)?))
        })?;
        Ok(Arc::clone(&published.active))
    }

    /// The last changes, oldest first.
    pub fn changes(&self) -> Vec<Change> {
        self.registry.changes()
    }

    /// Starts a recording of the active version's decisions, which ends after that time or when it
    /// is dropped. See `recording`.
    pub fn record(&self, journal: Option<JournalId>, time: Duration) -> Result<Recording, Busy> {
        self.recorder.start(&self.published().active, journal, time)
    }

    /// A version failed for a client.
    pub(super) fn note_failure(&self, published: &Published, rank: Rank) {
        match (rank, &published.candidate) {
            (Rank::Candidate, Some(candidate)) => self.warden.note_failure(&candidate.watch),
            (Rank::Active, _) => self.warden.note_failure(&published.watch),
            _ => {}
        }
    }

    /// Compiles and tests a component, on threads that those who serve come before.
    fn check(&self, upload: Upload<'_>) -> Result<SharedVersion, SwapError> {
        if let Some(trust) = &self.trust {
            trust.check(upload.component, upload.signature)?;
        }
        let _compiling = self
            .compiling
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // wasmtime compiles on the pool that it is called on.
        let threads = rayon::ThreadPoolBuilder::new()
            .thread_name(|index| format!("policy-check-{index}"))
            .start_handler(|_| yield_to_others())
            .build()
            .map_err(io::Error::other)?;
        let recent = self.recent.questions();
        let version = threads.install(|| check_with(&self.sandbox, upload.component, &recent))?;
        Ok(Arc::new(version))
    }
}

/// A change that needs nothing saved.
fn nothing(_: &mut History) -> Result<(), HistoryError> {
    Ok(())
}

/// The last good version of before the restart, if it still passes its check.
fn previous_version(sandbox: &Sandbox, component: &[u8]) -> Option<SharedVersion> {
    match check(sandbox, component) {
        Ok(version) => Some(Arc::new(version)),
        Err(refused) => {
            tracing::error!(%refused, "there is no version to go back to");
            None
        }
    }
}
