//! The versions of the policy: the active one, the last good one behind it, and a candidate
//! beside it; and how one takes the place of another.
//!
//! A swap publishes a new [`Published`] by one atomic pointer store. A version that has become
//! active is on probation for a while: too many failures, and the last good one is back.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use http::HeaderName;
use protocol::ReplicaId;
use protocol::time::BootTime;
use tokio::sync::mpsc;

use super::check::{check, check_recent};
use super::decider::{Decider, Rank, Undecided};
use super::decision::View;
use super::differences::Differences;
use super::history::{Change, History, HistoryError};
use super::question::Recent;
use super::recording::{Busy, Recorder};
use super::sandbox::{Refused, Sandbox, SharedVersion, Version};
use super::shadow::Shadow;
use super::trust::{Trust, Untrusted};

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

/// The versions of the policy that this gateway has loaded.
pub struct Versions {
    sandbox: Sandbox,
    published: ArcSwap<Published>,
    probation: Probation,
    trust: Option<Trust>,
    pub(super) shadow: Shadow,
    pub(super) recorder: Recorder,
    pub(super) recent: Recent,
    /// Held while a component is compiled: one at a time is enough for a machine.
    compiling: Mutex<()>,
    /// Held while a new publication is made from the current one.
    publishing: Mutex<Option<History>>,
}

/// What decides at a moment. Never changes: a swap publishes another.
pub struct Published {
    /// Counts publications, from 1.
    pub generation: u64,
    /// Decides.
    pub active: SharedVersion,
    /// When the active version became so, and how it has done since.
    pub watch: Arc<Watch>,
    /// The last good version: decides again what the active one fails at, and is what a
    /// rollback goes back to.
    pub previous: Option<SharedVersion>,
    /// A version on trial.
    pub candidate: Option<Candidate>,
}

/// A version on trial beside the active one.
#[derive(Clone)]
pub struct Candidate {
    /// The version.
    pub version: SharedVersion,
    /// How it is tried.
    pub trial: Trial,
    /// Where it decided differently, as a shadow.
    pub differences: Arc<Differences>,
    /// How it has done as a canary.
    pub watch: Arc<Watch>,
}

/// How a candidate is tried.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Trial {
    /// A share of the live decisions is put to it as well, without effect.
    Shadow(Share),
    /// It decides a share of the requests, the same clients' always.
    Canary(Share),
}

impl Trial {
    /// For people and for JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Shadow(_) => "shadow",
            Self::Canary(_) => "canary",
        }
    }

    /// How much of the traffic.
    pub fn share(self) -> Share {
        match self {
            Self::Shadow(share) | Self::Canary(share) => share,
        }
    }
}

/// A part of the traffic: more than 0, at most 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share(f64);

impl Share {
    /// `None` where it is not more than 0 and at most 1.
    pub fn new(share: f64) -> Option<Self> {
        (share > 0.0 && share <= 1.0).then_some(Self(share))
    }

    /// The fraction.
    pub fn get(self) -> f64 {
        self.0
    }

    /// Whether it covers a point between 0 and 2⁶⁴.
    pub(super) fn takes(self, point: u64) -> bool {
        (point as f64) < self.0 * (u64::MAX as f64) || self.0 >= 1.0
    }
}

/// Since when a version decides for clients, and how often it failed since.
#[derive(Debug)]
pub struct Watch {
    /// Since when.
    pub since: BootTime,
    failures: AtomicU64,
}

impl Watch {
    fn begin() -> Arc<Self> {
        Arc::new(Self {
            since: BootTime::now(),
            failures: AtomicU64::new(0),
        })
    }
}

/// Who changes the policy, and why.
#[derive(Debug, Clone)]
pub struct Reason {
    /// A person, or the part of the gateway that did it.
    pub who: String,
    /// In words.
    pub why: String,
}

/// A component from outside.
#[derive(Debug, Clone, Copy)]
pub struct Upload<'a> {
    /// Its bytes.
    pub component: &'a [u8],
    /// A detached signature over them, see `trust`.
    pub signature: Option<&'a str>,
}

impl<'a> From<&'a [u8]> for Upload<'a> {
    fn from(component: &'a [u8]) -> Self {
        Self {
            component,
            signature: None,
        }
    }
}

impl<'a> From<&'a Vec<u8>> for Upload<'a> {
    fn from(component: &'a Vec<u8>) -> Self {
        component.as_slice().into()
    }
}

/// Why a version did not take another's place.
#[derive(Debug, thiserror::Error)]
pub enum SwapError {
    /// The component cannot serve.
    #[error("policy refused: {0}")]
    Refused(#[from] Refused),
    /// The component is nobody's who is trusted.
    #[error("policy refused: {0}")]
    Untrusted(#[from] Untrusted),
    /// There is nothing to roll back to.
    #[error("there is no earlier good version to go back to")]
    NothingToRollBackTo,
    /// There is no candidate.
    #[error("there is no candidate; put one with PUT /policy/candidate?shadow=0.1")]
    NoCandidate,
    /// It could not be made to survive a restart.
    #[error("the change cannot be saved, so it was not made: {0}")]
    NotSaved(#[from] HistoryError),
}

impl Versions {
    /// Starts with a first version, which must pass its check. Without a history nothing
    /// survives a restart.
    pub fn new(
        sandbox: Sandbox,
        component: &[u8],
        probation: Probation,
        history: Option<History>,
    ) -> Result<Self, Refused> {
        let active = Arc::new(check(&sandbox, component)?);
        let published = Published {
            generation: 1,
            active,
            watch: Watch::begin(),
            previous: None,
            candidate: None,
        };
        let shadow = Shadow::start().map_err(|error| Refused::World(error.to_string()))?;
        Ok(Self {
            sandbox,
            published: ArcSwap::from_pointee(published),
            probation,
            trust: None,
            shadow,
            recorder: Recorder::default(),
            recent: Recent::default(),
            compiling: Mutex::new(()),
            publishing: Mutex::new(history),
        })
    }

    /// What decides now.
    pub fn published(&self) -> Arc<Published> {
        self.published.load_full()
    }

    /// The same for a request, which has no use for a count of its own.
    pub(super) fn current(&self) -> Guard<Arc<Published>> {
        self.published.load()
    }

    /// Takes no component from now on that `trust` does not cover.
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
        let Upload {
            component,
            signature,
        } = upload.into();
        self.check_trust(component, signature)?;
        let version = self.check(component)?;
        let mut history = self.lock();
        save_component(&mut history, &version, component)?;
        let now = self.published();
        let next = now.with_active(&version, now.candidate.clone());
        self.publish("activate", &now, next, reason, &mut history)?;
        Ok(version)
    }

    /// Checks a component and puts it on trial beside the active version.
    pub fn try_out<'a>(
        &self,
        upload: impl Into<Upload<'a>>,
        trial: Trial,
        reason: &Reason,
    ) -> Result<SharedVersion, SwapError> {
        let Upload {
            component,
            signature,
        } = upload.into();
        self.check_trust(component, signature)?;
        let version = self.check(component)?;
        let mut history = self.lock();
        save_component(&mut history, &version, component)?;
        let now = self.published();
        let candidate = Candidate {
            version: Arc::clone(&version),
            trial,
            differences: Arc::default(),
            watch: Watch::begin(),
        };
        self.publish(
            trial.name(),
            &now,
            now.with_candidate(Some(candidate)),
            reason,
            &mut history,
        )?;
        Ok(version)
    }

    fn check_trust(&self, component: &[u8], signature: Option<&str>) -> Result<(), Untrusted> {
        self.trust
            .as_ref()
            .map_or(Ok(()), |trust| trust.check(component, signature))
    }

    fn check(&self, component: &[u8]) -> Result<SharedVersion, Refused> {
        let _compiling = self
            .compiling
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let version = check(&self.sandbox, component)?;
        check_recent(&version, &self.recent.questions())?;
        Ok(Arc::new(version))
    }

    /// Drops the candidate.
    pub fn drop_candidate(&self, reason: &Reason) -> Result<(), SwapError> {
        let mut history = self.lock();
        let now = self.published();
        now.candidate.as_ref().ok_or(SwapError::NoCandidate)?;
        self.publish("drop", &now, now.with_candidate(None), reason, &mut history)
    }

    /// Makes the candidate the active version.
    pub fn promote(&self, reason: &Reason) -> Result<SharedVersion, SwapError> {
        let mut history = self.lock();
        let now = self.published();
        let version = Arc::clone(
            &now.candidate
                .as_ref()
                .ok_or(SwapError::NoCandidate)?
                .version,
        );
        let next = now.with_active(&version, None);
        self.publish("promote", &now, next, reason, &mut history)?;
        Ok(version)
    }

    /// Makes the last good version the active one again.
    pub fn roll_back(&self, reason: &Reason) -> Result<SharedVersion, SwapError> {
        let mut history = self.lock();
        let now = self.published();
        let target = now.previous.clone().ok_or(SwapError::NothingToRollBackTo)?;
        self.publish(
            "rollback",
            &now,
            now.rolled_back(&target),
            reason,
            &mut history,
        )?;
        Ok(target)
    }

    /// The last changes, oldest first.
    pub fn changes(&self) -> Vec<Change> {
        self.lock()
            .as_ref()
            .map(History::changes)
            .unwrap_or_default()
    }

    /// Starts a recording of the active version's decisions: its lines, until the receiver is
    /// dropped. See `recording`.
    pub fn record(&self) -> Result<mpsc::Receiver<String>, Busy> {
        self.recorder.start(&self.published().active)
    }

    /// The decider of one request: the versions stay the same for all its steps.
    pub fn decider(&self, client: &[u8]) -> Decider<'_> {
        Decider::new(self, client)
    }

    /// The replica that the policy wants to lead.
    pub fn elect(&self, now_ms: u64, view: &View) -> Result<Option<ReplicaId>, Undecided> {
        self.decider(&[]).elect(now_ms, view)
    }

    /// A version failed for a client. On probation, one failure too many ends its service.
    pub(super) fn note_failure(&self, published: &Published, rank: Rank) {
        let (watch, candidate) = match (rank, &published.candidate) {
            (Rank::Candidate, Some(candidate)) => (&candidate.watch, true),
            (Rank::Active, _) => (&published.watch, false),
            _ => return,
        };
        let failures = watch.failures.fetch_add(1, Ordering::Relaxed) + 1;
        let on_probation = BootTime::now().since(watch.since) <= self.probation.window;
        let too_many = failures.saturating_sub(self.probation.failures_max);
        // Again and again, in case that it could not be done the first time.
        if too_many.is_power_of_two() && on_probation {
            self.end_probation(watch, candidate, failures);
        }
    }

    /// Takes the version that failed too often out of service, if it still is in service.
    fn end_probation(&self, failed: &Arc<Watch>, is_candidate: bool, failures: u64) {
        let reason = Reason {
            who: "probation".into(),
            why: format!(
                "{failures} failures within {} s",
                self.probation.window.as_secs()
            ),
        };
        let mut history = self.lock();
        let now = self.published();
        let (what, next) = match (&now.candidate, &now.previous) {
            (Some(candidate), _) if is_candidate && Arc::ptr_eq(&candidate.watch, failed) => {
                ("drop", now.with_candidate(None))
            }
            (_, Some(previous)) if !is_candidate && Arc::ptr_eq(&now.watch, failed) => {
                ("rollback", now.rolled_back(previous))
            }
            _ => return,
        };
        if let Err(error) = self.publish(what, &now, next, &reason, &mut history) {
            tracing::error!(%error, "the policy in probation stays");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<History>> {
        self.publishing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Saves the change, then makes it.
    fn publish(
        &self,
        what: &'static str,
        now: &Published,
        next: Published,
        reason: &Reason,
        history: &mut Option<History>,
    ) -> Result<(), SwapError> {
        let change = Change::new(what, now, &next, reason);
        if let Some(history) = history {
            history.record(&change, &next)?;
        }
        tracing::info!(
            what,
            who = reason.who,
            why = reason.why,
            from = change.from,
            to = change.to,
            candidate = change.candidate,
            "policy changed"
        );
        self.shadow.follow(
            next.candidate
                .as_ref()
                .map(|candidate| candidate.version.id),
        );
        self.published.store(Arc::new(next));
        Ok(())
    }
}

fn save_component(
    history: &mut Option<History>,
    version: &Version,
    component: &[u8],
) -> Result<(), HistoryError> {
    history
        .as_mut()
        .map_or(Ok(()), |history| history.save(version.digest, component))
}

impl Published {
    /// The request headers that any version wants to see which may be asked to decide. A name
    /// can occur more than once.
    pub fn wanted_headers(&self) -> impl Iterator<Item = &HeaderName> {
        let candidate = self.candidate.as_ref().map(|candidate| &candidate.version);
        let versions = std::iter::once(&self.active)
            .chain(&self.previous)
            .chain(candidate);
        versions.flat_map(|version| &version.manifest.headers)
    }

    fn with_active(&self, version: &SharedVersion, candidate: Option<Candidate>) -> Self {
        let previous = if self.is_active_good() {
            Some(Arc::clone(&self.active))
        } else {
            self.previous.clone()
        };
        Self {
            generation: self.generation + 1,
            active: Arc::clone(version),
            watch: Watch::begin(),
            previous,
            candidate,
        }
    }

    fn with_candidate(&self, candidate: Option<Candidate>) -> Self {
        Self {
            generation: self.generation + 1,
            active: Arc::clone(&self.active),
            watch: Arc::clone(&self.watch),
            previous: self.previous.clone(),
            candidate,
        }
    }

    fn rolled_back(&self, target: &SharedVersion) -> Self {
        Self {
            generation: self.generation + 1,
            active: Arc::clone(target),
            watch: Watch::begin(),
            previous: self.is_active_good().then(|| Arc::clone(&self.active)),
            candidate: self.candidate.clone(),
        }
    }

    /// A version that failed a client is not one to go back to.
    fn is_active_good(&self) -> bool {
        self.watch.failures.load(Ordering::Relaxed) == 0
    }
}

impl fmt::Debug for Published {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let candidate = self
            .candidate
            .as_ref()
            .map(|candidate| candidate.version.to_string());
        f.debug_struct("Published")
            .field("generation", &self.generation)
            .field("active", &self.active.to_string())
            .field("previous", &self.previous.as_ref().map(ToString::to_string))
            .field("candidate", &candidate)
            .finish()
    }
}
