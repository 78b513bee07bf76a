//! The versions of the policy: the active one, the last good one behind it, and a candidate
//! beside it; and how one takes the place of another.
//!
//! A swap publishes a new [`Published`] by one atomic pointer store. Too many failures, and the last
//! good version is back: see `probation`.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::Guard;
use domain::{JournalId, Protocol};
use tokio::sync::watch;

use super::change::{Change, Reason};
use super::clients_seen::ClientsSeen;
use super::error::SwapError;
use super::expected::Expected;
use super::kept::Kept;
use super::monitor::{Monitor, Problem, Report};
use super::probation::Probation;
use super::publication::{Candidate, Published, Rank, Terms};
use super::registry::Registry;
use super::saved_candidate::SavedCandidate;
use super::trial::Trial;
use super::version_log::{FELL_BACK, SavedVersion, VersionLog, VersionLogError};
use crate::admission::{Admission, AskedBy, Rejection, Trust, Upload};
use crate::answered::Answered;
use crate::evaluate::input::DecisionInput;
use crate::evaluate::recent::RecentInputs;
use crate::guest::digest::Digest;
use crate::guest::version::{SharedVersion, Version};
use crate::measured::Measured;
use crate::replay::audit::Auditor;
use crate::replay::recording::Recorder;
use crate::replay::shadow::Shadow;
use crate::replay::{HeaderChoice, RecordError, Recording};

/// Instead of a version of the services' protocol: the catalog has not said yet at which the bazaar is.
const UNHEARD: u32 = u32::MAX;

/// The versions of the policy that this gateway has loaded.
pub struct Versions {
    pub(super) admission: Admission,
    /// What it did not start with of what was in service last, in words.
    fell_back: Vec<String>,
    pub(super) probation: Probation,
    pub(super) registry: Arc<Registry>,
    monitor: Monitor,
    pub(crate) seen: Arc<ClientsSeen>,
    pub(crate) recorder: Recorder,
    pub(crate) recent: RecentInputs,
    pub(crate) auditor: Auditor,
    /// The version of the services' protocol that the bazaar is at; 0 where nobody asks, or [`UNHEARD`].
    protocol: AtomicU32,
    /// See [`is_saved`](Self::is_saved).
    is_saved: bool,
    /// The generation for which a version was looked for that is better behind the active one.
    pub(super) searched: AtomicU64,
    /// Whether the version behind the active one could not have its secrets when it was looked at.
    pub(super) secrets_missing: AtomicBool,
}

impl Versions {
    /// Starts with the versions that were in service last, according to the log: the active one, the
    /// last good one behind it, and the candidate. An active one that does not pass its check any more is
    /// passed over for the last good one that does. With `start` where there is no log, or
    /// nothing in it that passes, and then it must be admitted.
    pub fn new<'a>(
        admission: impl Into<Admission>,
        start: impl Into<Upload<'a>>,
        probation: Probation,
        mut log: Option<VersionLog>,
    ) -> Result<Self, SwapError> {
        // Nobody is served yet, so it may take all of the machine.
        let (admission, start) = (admission.into(), start.into());
        let mut saved = Saved {
            admission: &admission,
            log: log.as_ref(),
            failed: log
                .as_ref()
                .map(|log| log.forgotten().to_vec())
                .unwrap_or_default(),
        };
        let (last, closed) = saved.last_active();
        let (active, previous) = match last {
            Some(active) => {
                let previous = saved.last_good(&active.digest.to_string());
                (active, previous)
            }
            None => {
                let active = Arc::new(admission.admit(start, &[])?.into_version());
                let previous = match saved.is_built_in() {
                    true => saved.last_good(&active.digest.to_string()),
                    false => None,
                };
                (active, previous)
            }
        };
        let candidate = saved.last_candidate(probation);
        let failed = saved.failed;
        let is_saved = log.is_some();
        if let Some(log) = &mut log {
            if active.digest == start.digest() {
                log.save(start)?;
            }
            log.begin()?;
        }
        let first = Published::first(active, previous, candidate, closed, probation);
        let registry = Arc::new(Registry::new(first, probation, log, admission.measured())?);
        if !failed.is_empty() {
            let reason = Reason {
                who: "start".into(),
                why: failed.join("; "),
                ..Reason::default()
            };
            registry.note(FELL_BACK, &reason);
        }
        let failing_in = Arc::clone(&registry);
        let seen = Arc::new(ClientsSeen::default());
        Ok(Self {
            admission: admission.in_background()?,
            fell_back: failed,
            probation,
            monitor: Monitor::start(probation, Arc::clone(&seen), move |condemned| {
                failing_in.take_out_of_service(condemned);
            })?,
            seen,
            registry,
            recorder: Recorder::default(),
            recent: RecentInputs::default(),
            auditor: Auditor::start()?,
            protocol: AtomicU32::new(0),
            is_saved,
            searched: AtomicU64::new(0),
            secrets_missing: AtomicBool::new(false),
        })
    }

    /// The bazaar is at that version of the services' protocol: components are taken that each gateway of it can start.
    pub fn note_protocol(&self, protocol: Protocol) {
        self.protocol.store(protocol.get(), Ordering::Relaxed);
    }

    /// Nobody has said yet at which version the bazaar is: until it is [known](Self::note_protocol), a component is not saved
    /// that gateways of the release before could not start.
    pub fn note_protocol_unheard(&self) {
        let (order, protocol) = (Ordering::Relaxed, &self.protocol);
        let _ = protocol.compare_exchange(0, UNHEARD, order, order); // what is known stays known
    }

    /// Whether what is in service is saved, for the next start, which may be of the release before.
    pub fn is_saved(&self) -> bool {
        self.is_saved
    }

    /// What it took to admit versions, and what became of them.
    pub fn measured(&self) -> Arc<Measured> {
        self.admission.measured()
    }

    /// Why it did not [start](Self::new) with all that was in service last, in words: the active version, the one behind it
    /// or the candidate. `None` where it did.
    pub fn fell_back(&self) -> Option<String> {
        (!self.fell_back.is_empty()).then(|| self.fell_back.join("; "))
    }

    /// Leaves what is saved as it is from now on, for another process to read, until it is [released](Self::release):
    /// operators' changes are refused, rollouts stay at their step, and a version that fails goes out of service as ever.
    /// Waits for a disk.
    pub fn hold(&self) {
        self.registry.hold();
    }

    /// Whether changes are [held](Self::hold). Waits for a disk.
    pub fn is_held(&self) -> bool {
        self.registry.unwritten().is_some()
    }

    /// What went out of service since changes are [held](Self::hold), so that what is saved is not what decides. Waits
    /// for a disk.
    pub fn changes_since_held(&self) -> Vec<Change> {
        self.registry.unwritten().unwrap_or_default()
    }

    /// Saves what happened while changes were [held](Self::hold), and takes them again. Waits for a disk.
    pub fn release(&self) {
        self.registry.release();
    }

    /// A count of its own on what decides now, for those who hold it for long.
    pub fn published(&self) -> Arc<Published> {
        self.registry.published()
    }

    /// The same for a request, which has no use for a count of its own.
    pub fn current(&self) -> Guard<Arc<Published>> {
        self.registry.current()
    }

    /// What versions answered that left service in the last minutes, and are not in that publication.
    pub fn departed(&self, published: &Published) -> Vec<(Digest, Arc<Answered>)> {
        self.registry.departed(published)
    }

    /// Changes at each swap, to the generation that decides from then on: for those who hold on to what was decided.
    pub fn swaps(&self) -> watch::Receiver<u64> {
        self.registry.swaps()
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
    /// that serve. The version that was active stays loaded; if it is good, it is the last good one
    /// from now on. The component that is active already changes nothing, unless a secret that its
    /// configuration refers to has changed.
    ///
    /// # Errors
    /// Also where it is of a world that came with a version of the protocol that the bazaar [is not at](Self::note_protocol).
    pub fn activate<'a>(
        &self,
        upload: impl Into<Upload<'a>>,
        reason: &Reason,
    ) -> Result<SharedVersion, SwapError> {
        let upload = upload.into();
        self.admission.check_trust(upload)?;
        self.activate_if(upload, Expected::default(), reason, || {
            let version = self.admit(upload)?;
            self.check_protocol(&version)?;
            Ok(version)
        })
    }

    fn activate_if(
        &self,
        upload: Upload<'_>,
        expected: Expected<'_>,
        reason: &Reason,
        admit: impl FnOnce() -> Result<SharedVersion, SwapError>,
    ) -> Result<SharedVersion, SwapError> {
        // Nobody waits for a check whose end is known.
        expected.check_active(&self.published())?;
        let active = Arc::clone(&self.published().active);
        if active.digest == upload.digest()
            && self.published().closed.is_none()
            && self.admission.is_configured(&active, upload.config)?
        {
            return Ok(active);
        }
        let version = admit()?;
        self.registry.change(
            "activate",
            reason,
            |log| log.save(upload),
            |now| {
                expected.check_active(now)?;
                Ok(now.with_active(&version, now.candidate.clone(), self.probation))
            },
        )?;
        Ok(version)
    }

    /// Whether a component may be saved that was not saved before.
    fn check_protocol(&self, version: &Version) -> Result<(), SwapError> {
        let (interface, wanted) = (version.world.interface(), version.world.since());
        let at = self.protocol.load(Ordering::Relaxed);
        if at == UNHEARD && self.is_saved && wanted > Protocol::FIRST {
            return Err(SwapError::ProtocolUnheard { interface, wanted });
        }
        match Protocol::new(at) {
            Some(at) if at < wanted => Err(SwapError::NotRaised {
                interface,
                at,
                wanted,
            }),
            _ => Ok(()),
        }
    }

    /// Makes a version the active one that was so before and is kept, by its digest or the beginning
    /// of it. Compiles, where its code is not kept.
    pub fn activate_kept(&self, digest: &str, reason: &Reason) -> Result<SharedVersion, SwapError> {
        self.activate_kept_expecting(Expected::digest(Some(digest)), reason)
    }

    /// The same of the version that is expected.
    ///
    /// # Errors
    /// Also where the active one is not as expected.
    pub fn activate_kept_expecting(
        &self,
        expected: Expected<'_>,
        reason: &Reason,
    ) -> Result<SharedVersion, SwapError> {
        let digest = expected.digest.unwrap_or_default();
        let kept = self.registry.load_kept(digest);
        let kept = kept.ok_or_else(|| SwapError::NotKept(digest.to_owned()))?;
        self.activate_if(kept.upload(), expected, reason, || {
            let admitted = self
                .admission
                .admit_again(kept.upload(), AskedBy::Operator)?;
            Ok(Arc::new(admitted.into_version()))
        })
    }

    /// The versions that can be activated again, the latest at the end.
    pub fn kept(&self) -> Vec<Kept> {
        self.registry.kept()
    }

    /// Admits a component and puts it on trial beside the active version. What is on trial in that way
    /// already changes nothing; in another way, it goes on in this one. Where a secret has changed that its
    /// configuration refers to, it begins anew.
    ///
    /// # Errors
    /// Also where another version is on trial that somebody else put there.
    pub fn try_out<'a>(
        &self,
        upload: impl Into<Upload<'a>>,
        terms: impl Into<Terms>,
        reason: &Reason,
    ) -> Result<SharedVersion, SwapError> {
        self.try_out_upload(upload.into(), terms.into(), None, reason)
    }

    /// The same in the place of the version that is named, by its digest or the beginning of it,
    /// whoever put it there.
    pub fn try_out_instead<'a>(
        &self,
        upload: impl Into<Upload<'a>>,
        terms: impl Into<Terms>,
        of: &str,
        reason: &Reason,
    ) -> Result<SharedVersion, SwapError> {
        self.try_out_upload(upload.into(), terms.into(), Some(of), reason)
    }

    fn try_out_upload(
        &self,
        upload: Upload<'_>,
        terms: Terms,
        replace: Option<&str>,
        reason: &Reason,
    ) -> Result<SharedVersion, SwapError> {
        self.admission.check_trust(upload)?;
        let admit = || {
            let version = self.admit(upload)?;
            self.check_protocol(&version)?;
            Ok(version)
        };
        let save = |log: &mut VersionLog| log.save(upload);
        self.put_on_trial(upload.digest(), terms, replace, reason, admit, save)
    }

    /// Makes the active version's component the active version with another configuration. The
    /// configuration that it has already changes nothing.
    ///
    /// # Errors
    /// Also where no request is decided: what stands in is another component.
    pub fn configure(&self, config: &[u8], reason: &Reason) -> Result<SharedVersion, SwapError> {
        let active = Arc::clone(&self.published().active);
        if self.published().closed.is_some() {
            return Err(SwapError::Closed);
        }
        if self.admission.is_configured(&active, config)? {
            return Ok(active);
        }
        let version = self.reconfigure(&active, config)?;
        self.registry.change(
            "configure",
            reason,
            |log| log.save_config(version.component, config),
            |now| {
                check_component(now, &version)?;
                Ok(now.with_active(&version, now.candidate.clone(), self.probation))
            },
        )?;
        Ok(version)
    }

    /// Puts the active version's component on trial with another configuration, in the place of the
    /// candidate that is named; see [`try_out`](Self::try_out).
    pub fn try_configuration(
        &self,
        config: &[u8],
        terms: impl Into<Terms>,
        replace: Option<&str>,
        reason: &Reason,
    ) -> Result<SharedVersion, SwapError> {
        let active = Arc::clone(&self.published().active);
        let component = active.component;
        let digest = Digest::of_version(component, config);
        let admit = || Ok(self.reconfigure(&active, config)?);
        let save = |log: &mut VersionLog| log.save_config(component, config);
        self.put_on_trial(digest, terms.into(), replace, reason, admit, save)
    }

    fn put_on_trial(
        &self,
        digest: Digest,
        terms: Terms,
        replace: Option<&str>,
        reason: &Reason,
        admit: impl FnOnce() -> Result<SharedVersion, SwapError>,
        save: impl FnOnce(&mut VersionLog) -> Result<(), VersionLogError>,
    ) -> Result<SharedVersion, SwapError> {
        let current = self.published().candidate.clone();
        let known = current.filter(|candidate| candidate.version.digest == digest);
        let version = match &known {
            Some(candidate) => {
                let version = &candidate.version;
                let is_same = self
                    .admission
                    .is_configured(version, version.config.raw())?;
                if is_same && candidate.is_on(&terms) {
                    return Ok(Arc::clone(version));
                }
                check_replaced(&self.published(), replace, reason)?;
                self.refreshed(version, AskedBy::Operator)?
            }
            None => {
                // Nobody waits for a check whose end is known.
                check_replaced(&self.published(), replace, reason)?;
                admit()?
            }
        };
        let what = match &terms.rollout {
            Some(_) => "rollout",
            None => terms.trial.name(),
        };
        let who = reason.who.clone();
        self.registry.change(what, reason, save, |now| {
            check_replaced(now, replace, reason)?;
            let same = now.candidate.as_ref();
            let candidate = match same.filter(|it| Arc::ptr_eq(&it.version, &version)) {
                Some(candidate) => candidate.with_terms(terms),
                None => Candidate::begin(Arc::clone(&version), terms, who, self.probation),
            };
            Ok(now.with_candidate(Some(candidate)))
        })?;
        Ok(version)
    }

    /// Ends the trial of the candidate, without effect on clients of the active version.
    ///
    /// # Errors
    /// Also where it is not the one that is named, by its digest or the beginning of it; and where it is somebody
    /// else's and not named.
    pub fn drop_candidate(&self, named: Option<&str>, reason: &Reason) -> Result<(), SwapError> {
        self.registry.change("drop", reason, save_nothing, |now| {
            let candidate = Expected::digest(named).candidate(now)?;
            if named.is_none() && candidate.who != reason.who {
                return Err(SwapError::OfAnother {
                    digest: candidate.version.digest.to_string(),
                    who: candidate.who.clone(),
                });
            }
            Ok(now.with_candidate(None))
        })?;
        Ok(())
    }

    /// Makes the candidate the active version.
    ///
    /// # Errors
    /// Also where it is not the one that is named, by its digest or the beginning of it.
    pub fn promote(
        &self,
        named: Option<&str>,
        reason: &Reason,
    ) -> Result<SharedVersion, SwapError> {
        self.promote_expecting(Expected::digest(named), reason)
    }

    /// The same.
    ///
    /// # Errors
    /// Also where the candidate or the active version is not as expected.
    pub fn promote_expecting(
        &self,
        expected: Expected<'_>,
        reason: &Reason,
    ) -> Result<SharedVersion, SwapError> {
        let now = self.published();
        let candidate = expected.candidate(&now)?;
        // Nobody waits for a check whose end is known.
        expected.check_active(&now)?;
        let version = self.refreshed(&candidate.version, AskedBy::Operator)?;
        let digest = version.digest.to_string();
        let published = self
            .registry
            .change("promote", reason, save_nothing, |now| {
                // Another change may have come first.
                Expected::digest(Some(&digest)).candidate(now)?;
                expected.check_active(now)?;
                Ok(now.with_active(&version, None, self.probation))
            })?;
        Ok(Arc::clone(&published.active))
    }

    /// Writes into the log of changes what an operator does that changes no version; see [`Change::what`]. Waits for a
    /// disk.
    ///
    /// # Errors
    /// Where it cannot be written, or another process takes the gateway's place.
    pub fn note(&self, what: &'static str, reason: &Reason) -> Result<(), SwapError> {
        self.registry.note_done(what, reason)
    }

    /// The last changes, oldest first.
    pub fn changes(&self) -> Vec<Change> {
        self.registry.changes()
    }

    /// So many of the last changes at most, oldest first, as far back as the log keeps them; without one, as
    /// [`changes`](Self::changes). Waits for a disk.
    pub fn last_changes(&self, max: usize) -> Vec<Change> {
        self.registry.last_changes(max)
    }

    /// Starts a recording of the active version's decisions, which ends after that time or when it
    /// is dropped. See `recording`.
    ///
    /// # Errors
    /// Where another one is being made, or a header is wanted that the active version does not see.
    pub fn record(
        &self,
        journal: Option<JournalId>,
        headers: HeaderChoice,
        time: Duration,
    ) -> Result<Recording, RecordError> {
        let active = &self.published().active;
        self.recorder.start(active, journal, headers, time)
    }

    /// Something is wrong with a decision that a version in service made for a client. After the last step
    /// only a response would have been none.
    pub(crate) fn report(
        &self,
        published: &Published,
        rank: Rank,
        client: u64,
        problem: Problem,
        is_last: bool,
        input: impl FnOnce() -> DecisionInput,
    ) {
        let canary = published.candidate.as_ref().map_or(0.0, |candidate| {
            let is_canary = matches!(candidate.trial, Trial::Canary(_));
            if is_canary {
                candidate.trial.share().get()
            } else {
                0.0
            }
        });
        let (version, health, behind, share) = match (rank, &published.candidate) {
            (Rank::Candidate, Some(candidate)) => (
                &candidate.version,
                &candidate.health,
                Some(&published.active),
                canary,
            ),
            (Rank::Active, _) => (
                &published.active,
                &published.health,
                published.previous.as_ref(),
                1.0 - canary,
            ),
            // Nobody answers for one that stands in.
            _ => return,
        };
        self.monitor.report(Report {
            version: Arc::clone(version),
            behind: behind.cloned(),
            health: Arc::clone(health),
            input: input(),
            client,
            share,
            problem,
            is_last,
        });
    }

    /// A version with the secrets that there are now: itself, where they are as they were.
    ///
    /// # Errors
    /// Where a secret is missing, or it does not take another one.
    pub(super) fn refreshed(
        &self,
        version: &SharedVersion,
        by: AskedBy,
    ) -> Result<SharedVersion, Rejection> {
        let config = version.config.raw();
        if self.admission.is_configured(version, config)? {
            return Ok(Arc::clone(version));
        }
        let admitted = self.admission.reconfigure(version, config, &[], by)?;
        let refreshed = admitted.into_version();
        if version.is_proven() {
            refreshed.prove();
        }
        Ok(Arc::new(refreshed))
    }

    fn reconfigure(&self, version: &Version, config: &[u8]) -> Result<SharedVersion, Rejection> {
        let (recent, by) = (self.recent.to_vec(), AskedBy::Operator);
        let admitted = self.admission.reconfigure(version, config, &recent, by)?;
        Ok(Arc::new(admitted.into_version()))
    }

    fn admit(&self, upload: Upload<'_>) -> Result<SharedVersion, Rejection> {
        let admitted = self.admission.admit(upload, &self.recent.to_vec())?;
        Ok(Arc::new(admitted.into_version()))
    }
}

/// A change that needs nothing saved.
pub(super) fn save_nothing(_: &mut VersionLog) -> Result<(), VersionLogError> {
    Ok(())
}

/// Whether a version is of the component that is active still.
fn check_component(now: &Published, version: &Version) -> Result<(), SwapError> {
    match now.active.component == version.component {
        true => Ok(()),
        false => Err(SwapError::OtherActive),
    }
}

/// Whether what is on trial may go for another version: if it is of the same person, or is named.
fn check_replaced(
    now: &Published,
    replace: Option<&str>,
    reason: &Reason,
) -> Result<(), SwapError> {
    let Some(candidate) = &now.candidate else {
        return Ok(());
    };
    let digest = candidate.version.digest.to_string();
    let is_named = replace.is_some_and(|named| !named.is_empty() && digest.starts_with(named));
    if is_named || candidate.who == reason.who {
        return Ok(());
    }
    Err(SwapError::Occupied {
        digest,
        who: candidate.who.clone(),
    })
}

fn not_intact(digest: &str) -> String {
    format!("saved policy {digest} is not there, or damaged")
}

/// What a gateway stopped with, as it starts again.
struct Saved<'a> {
    admission: &'a Admission,
    log: Option<&'a VersionLog>,
    /// What does not pass its check any more, in words.
    failed: Vec<String>,
}

impl Saved<'_> {
    /// Whether the policy that is built in was active: then this release's is.
    fn is_built_in(&self) -> bool {
        self.log.is_some_and(VersionLog::is_active_built_in)
    }

    /// The active version, or else the last good one that passes. That one decides nothing where the
    /// active one wants refused what it fails at, and why is said.
    fn last_active(&mut self) -> (Option<SharedVersion>, Option<String>) {
        let Some(log) = self.log.filter(|_| !self.is_built_in()) else {
            return (None, None);
        };
        let saved = log.last_active();
        if saved.is_none() && !log.active_digest().is_empty() {
            self.failed.push(not_intact(log.active_digest()));
        }
        let active = saved.and_then(|saved| self.admit(&saved));
        if active.is_some() {
            return (active, None);
        }
        let closed = log.active_refuses().then(|| {
            let why = log.why_closed();
            tracing::error!("{why}");
            self.failed.push(why.clone());
            why
        });
        (self.last_good(log.active_digest()), closed)
    }

    /// The last good version but for that one; where none is known to be good, the last that was not found to fail.
    fn last_good(&mut self, but: &str) -> Option<SharedVersion> {
        let log = self.log?;
        let (previous, kept) = (log.last_previous(), log.kept());
        let is_good = |digest: &String| log.known(digest).is_some_and(|kept| kept.good);
        let good = kept.iter().rev().filter(|kept| kept.good);
        let unknown = kept.iter().rev().filter(|kept| kept.is_unknown());
        let digest = |kept: &Kept| kept.digest.clone();
        let first = previous.clone().filter(is_good).into_iter();
        let good = first.chain(good.map(digest));
        let unknown = previous.into_iter().chain(unknown.map(digest));
        let mut tried = HashSet::from([but.to_owned()]);
        let mut others = good.chain(unknown);
        others.find_map(|digest| {
            if !tried.insert(digest.clone()) {
                return None;
            }
            let saved = log.load(&digest)?;
            self.admit(&saved)
        })
    }

    fn last_candidate(&mut self, probation: Probation) -> Option<Candidate> {
        let log = self.log?;
        let saved: &SavedCandidate = log.last_candidate()?;
        let Some(terms) = saved.terms() else {
            let problem = format!(
                "the candidate {} of {} is on terms that are not understood any more, and not on trial",
                saved.digest, saved.who
            );
            tracing::error!("{problem}");
            self.failed.push(problem);
            return None;
        };
        let Some(version) = log.load(&saved.digest) else {
            self.failed.push(not_intact(&saved.digest));
            return None;
        };
        let version = self.admit(&version)?;
        Some(Candidate::begin(
            version,
            terms,
            saved.who.clone(),
            probation,
        ))
    }

    fn admit(&mut self, saved: &SavedVersion) -> Option<SharedVersion> {
        let digest = saved.upload().digest();
        match self.admission.admit(saved.upload(), &[]) {
            Ok(admitted) => {
                let version = admitted.into_version();
                let known = self.log.and_then(|log| log.known(&digest.to_string()));
                if known.is_some_and(|kept| kept.proven) {
                    version.prove();
                }
                Some(Arc::new(version))
            }
            Err(rejection) => {
                tracing::error!(policy = %digest, %rejection, "a saved policy does not pass its check any more, and is not used");
                self.failed.push(format!(
                    "saved policy {digest} does not pass its check any more: {rejection}"
                ));
                None
            }
        }
    }
}
