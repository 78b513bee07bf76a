//! The versions of the policy: the active one, the last good one behind it, and a candidate
//! beside it; and how one takes the place of another.
//!
//! A swap publishes a new [`Published`] by one atomic pointer store. A version that has become
//! active is on probation for a while: too many failures, and the last good one is back.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::Guard;
use domain::JournalId;

use super::change::{Change, Reason};
use super::error::SwapError;
use super::probation::{HealthWindow, Probation, ProbationMonitor};
use super::publication::{Candidate, Published, Rank, Trial};
use super::registry::Registry;
use super::version_log::{VersionLog, VersionLogError};
use crate::admission::{Admission, Rejection, Trust, Upload};
use crate::evaluate::recent::RecentInputs;
use crate::guest::digest::Digest;
use crate::guest::engine::Engine;
use crate::guest::version::SharedVersion;
use crate::replay::audit::Auditor;
use crate::replay::recording::Recorder;
use crate::replay::shadow::Shadow;
use crate::replay::{Busy, Differences, Recording};

/// What it is called that a gateway starts with another version than was active last.
const FELL_BACK: &str = "fallback";

/// The versions of the policy that this gateway has loaded.
pub struct Versions {
    admission: Admission,
    registry: Arc<Registry>,
    monitor: ProbationMonitor,
    pub(crate) recorder: Recorder,
    pub(crate) recent: RecentInputs,
    pub(crate) auditor: Auditor,
}

impl Versions {
    /// Starts with the version that was active last, according to the log, and with the one before it
    /// to go back to; with `component` where there is no log, or nothing in it that passes its
    /// check, and then it must be admitted.
    pub fn new(
        engine: Engine,
        component: &[u8],
        probation: Probation,
        mut log: Option<VersionLog>,
    ) -> Result<Self, SwapError> {
        // Nobody is served yet, so it may take all of the machine.
        let admission = Admission::new(engine);
        let admit = |component: &[u8]| -> Result<SharedVersion, Rejection> {
            let admitted = admission.admit(component, &[])?;
            Ok(Arc::new(admitted.into_version()))
        };
        let saved = log.as_ref().and_then(VersionLog::last_active);
        let saved_previous = log.as_ref().and_then(VersionLog::last_previous);
        let mut failed = Vec::new();
        let mut admit_saved = |component: Vec<u8>| {
            let report = |rejection: &Rejection| {
                let digest = Digest::of(&component);
                tracing::error!(policy = %digest, %rejection, "a saved policy does not pass its check any more, and is not used");
                failed.push(format!(
                    "saved policy {digest} does not pass its check any more: {rejection}"
                ));
            };
            admit(&component).inspect_err(report).ok()
        };
        let last_active = saved.and_then(&mut admit_saved);
        let previous = saved_previous.and_then(&mut admit_saved);
        // The way back from a saved version that cannot serve any more is the one before it.
        let (active, previous) = match (last_active, previous) {
            (Some(active), previous) => (active, previous),
            (None, Some(previous)) => (previous, None),
            (None, None) => (admit(component)?, None),
        };
        if let Some(log) = &mut log
            && active.digest == Digest::of(component)
        {
            log.save(active.digest, component.into())?;
        }
        let first = Published::first(active, previous);
        let registry = Arc::new(Registry::new(first, log)?);
        if !failed.is_empty() {
            let reason = Reason {
                who: "start".into(),
                why: failed.join("; "),
            };
            registry.note(FELL_BACK, &reason);
        }
        let failing_in = Arc::clone(&registry);
        Ok(Self {
            admission: admission.in_background()?,
            monitor: ProbationMonitor::start(probation, move |failing| {
                failing_in.take_out_of_service(failing);
            })?,
            registry,
            recorder: Recorder::default(),
            recent: RecentInputs::default(),
            auditor: Auditor::start()?,
        })
    }

    /// A count of its own on what decides now, for those who hold it for long.
    pub fn published(&self) -> Arc<Published> {
        self.registry.published()
    }

    /// The same for a request, which has no use for a count of its own.
    pub fn current(&self) -> Guard<Arc<Published>> {
        self.registry.current()
    }

    pub(crate) fn shadow(&self) -> &Shadow {
        &self.registry.shadow
    }

    /// Takes no component from now on that `trust` does not cover. For those of before see
    /// [`VersionLog::retain_trusted`].
    pub fn trusting(self, trust: Option<Trust>) -> Self {
        Self {
            admission: self.admission.trusting(trust),
            ..self
        }
    }

    /// Admits a component and makes it the active version. Compiles: call it off the threads
    /// that serve. The version that was active stays loaded; if it never failed, it is the
    /// last good one from now on. The component that is active already changes nothing.
    pub fn activate<'a>(
        &self,
        upload: impl Into<Upload<'a>>,
        reason: &Reason,
    ) -> Result<SharedVersion, SwapError> {
        let upload = upload.into();
        let active = Arc::clone(&self.published().active);
        if active.digest == Digest::of(upload.component) {
            self.admission.check_trust(upload)?;
            return Ok(active);
        }
        let version = self.admit(upload)?;
        self.registry.change(
            "activate",
            reason,
            |log| log.save(version.digest, upload),
            |now| Ok(now.with_active(&version, now.candidate.clone())),
        )?;
        Ok(version)
    }

    /// Makes a version the active one that was so before and is kept, by its digest or the beginning
    /// of it. Compiles, where its code is not kept.
    pub fn activate_kept(&self, digest: &str, reason: &Reason) -> Result<SharedVersion, SwapError> {
        let kept = self.registry.load_kept(digest);
        let (component, signature) = kept.ok_or_else(|| SwapError::NotKept(digest.to_owned()))?;
        let upload = Upload {
            component: &component,
            signature: signature.as_deref(),
            config: &[],
        };
        self.activate(upload, reason)
    }

    /// The versions that can be activated again, by their digests, the latest at the end.
    pub fn kept(&self) -> Vec<String> {
        self.registry.kept()
    }

    /// Admits a component and puts it on trial beside the active version.
    pub fn try_out<'a>(
        &self,
        upload: impl Into<Upload<'a>>,
        trial: Trial,
        reason: &Reason,
    ) -> Result<SharedVersion, SwapError> {
        let upload = upload.into();
        let version = self.admit(upload)?;
        let candidate = Candidate {
            version: Arc::clone(&version),
            trial,
            differences: Arc::new(Differences::default()),
            health: HealthWindow::begin(),
        };
        self.registry.change(
            trial.name(),
            reason,
            |log| log.save(version.digest, upload),
            |now| Ok(now.with_candidate(Some(candidate))),
        )?;
        Ok(version)
    }

    /// Ends the trial of the candidate, without effect on clients of the active version.
    pub fn drop_candidate(&self, reason: &Reason) -> Result<(), SwapError> {
        self.registry.change("drop", reason, save_nothing, |now| {
            now.candidate.as_ref().ok_or(SwapError::NoCandidate)?;
            Ok(now.with_candidate(None))
        })?;
        Ok(())
    }

    /// Makes the candidate the active version.
    pub fn promote(&self, reason: &Reason) -> Result<SharedVersion, SwapError> {
        let published = self
            .registry
            .change("promote", reason, save_nothing, |now| {
                let candidate = now.candidate.as_ref().ok_or(SwapError::NoCandidate)?;
                Ok(now.with_active(&candidate.version, None))
            })?;
        Ok(Arc::clone(&published.active))
    }

    /// Makes the last good version the active one again.
    pub fn roll_back(&self, reason: &Reason) -> Result<SharedVersion, SwapError> {
        let published = self
            .registry
            .change("rollback", reason, save_nothing, |now| {
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
    pub(crate) fn note_failure(&self, published: &Published, rank: Rank) {
        match (rank, &published.candidate) {
            (Rank::Candidate, Some(candidate)) => self.monitor.note_failure(&candidate.health),
            (Rank::Active, _) => self.monitor.note_failure(&published.health),
            _ => {}
        }
    }

    fn admit(&self, upload: Upload<'_>) -> Result<SharedVersion, Rejection> {
        let admitted = self.admission.admit(upload, &self.recent.to_vec())?;
        Ok(Arc::new(admitted.into_version()))
    }
}

/// A change that needs nothing saved.
fn save_nothing(_: &mut VersionLog) -> Result<(), VersionLogError> {
    Ok(())
}
