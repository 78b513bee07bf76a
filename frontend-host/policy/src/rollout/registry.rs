//! Where the current publication is, and how another takes its place.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::{ArcSwap, Guard};
use domain::time::BootTime;
use tokio::sync::watch;

use super::change::{Change, Reason};
use super::departed::{Counted, Departed};
use super::error::SwapError;
use super::kept::Kept;
use super::monitor::Condemned;
use super::probation::Probation;
use super::progress::Rollout;
use super::publication::Published;
use super::version_log::{SavedVersion, VersionLog, VersionLogError};
use crate::answered::Answered;
use crate::guest::digest::Digest;
use crate::guest::version::SharedVersion;
use crate::measured::Measured;
use crate::replay::shadow::Shadow;

/// The current publication, and the log of all.
pub(super) struct Registry {
    probation: Probation,
    published: ArcSwap<Published>,
    departed: Departed,
    /// The generation that decides, for those who wait for the next one.
    swaps: watch::Sender<u64>,
    pub(super) shadow: Shadow,
    /// Held while a new publication is made from the current one, and written to the disk. So not
    /// for threads that serve.
    log: Mutex<Option<VersionLog>>,
    /// The last changes since the start: what is known of them where there is no log.
    since_start: Mutex<VecDeque<Change>>,
    measured: Arc<Measured>,
}

impl Registry {
    pub(super) fn new(
        first: Published,
        probation: Probation,
        log: Option<VersionLog>,
        measured: Arc<Measured>,
    ) -> io::Result<Self> {
        let shadow = Shadow::start()?;
        let candidate = first.candidate.as_ref();
        shadow.set_candidate(candidate.map(|candidate| candidate.version.id));
        Ok(Self {
            probation,
            swaps: watch::Sender::new(first.generation),
            published: ArcSwap::from_pointee(first),
            departed: Departed::default(),
            shadow,
            log: Mutex::new(log),
            since_start: Mutex::default(),
            measured,
        })
    }

    /// A count of its own on what decides now, for those who hold it for long.
    pub(super) fn published(&self) -> Arc<Published> {
        self.published.load_full()
    }

    /// The same for a request, which has no use for a count of its own.
    pub(super) fn current(&self) -> Guard<Arc<Published>> {
        self.published.load()
    }

    /// What versions answered that left service lately, and are not in that publication.
    pub(super) fn departed(&self, published: &Published) -> Vec<(Digest, Arc<Answered>)> {
        let in_service: Vec<_> = published.versions().map(Counted::from).collect();
        self.departed.told(&in_service, BootTime::now())
    }

    /// See [`Versions::swaps`](super::Versions::swaps).
    pub(super) fn swaps(&self) -> watch::Receiver<u64> {
        self.swaps.subscribe()
    }

    /// Saves a change, and then makes it; returns what decides now. `save` puts away what it needs
    /// after a restart.
    pub(super) fn change(
        &self,
        what: &'static str,
        reason: &Reason,
        save: impl FnOnce(&mut VersionLog) -> Result<(), VersionLogError>,
        next: impl FnOnce(&Published) -> Result<Published, SwapError>,
    ) -> Result<Arc<Published>, SwapError> {
        let mut log = self.log();
        if log.as_ref().is_some_and(is_held) {
            return Err(SwapError::HandingOver);
        }
        let now = self.published();
        let next = Arc::new(next(&now)?);
        let change = Change::new(what, &now, &next, reason);
        if let Some(log) = &mut *log {
            save(log)?;
            log.record(&change, &now, &next)?;
        }
        self.publish(Arc::clone(&next), &change);
        Ok(next)
    }

    /// Has nothing written from now on, and nothing changed but what cannot wait: a version that fails goes out of
    /// service. Waits for a change that is being written.
    pub(super) fn hold(&self) {
        if let Some(log) = &mut *self.log() {
            log.hold();
        }
    }

    /// Whether it is held, and which changes are unwritten then. Waits for a change that is being written.
    pub(super) fn unwritten(&self) -> Option<Vec<Change>> {
        self.log().as_ref()?.unwritten().map(<[Change]>::to_vec)
    }

    /// Writes what was changed while it was held, and goes on as before.
    pub(super) fn release(&self) {
        if let Some(log) = &mut *self.log()
            && let Err(error) = log.release()
        {
            tracing::error!(%error, "a restart would come back with a policy that was taken out of service");
        }
    }

    /// Takes a version out of service that failed too often, if it still is in service. It goes
    /// first, and is written down after: clients do not wait for a disk.
    pub(super) fn take_out_of_service(&self, condemned: &Condemned) {
        let mut log = self.log();
        let now = self.published();
        let Some((what, next)) = now.without(&condemned.health, self.probation) else {
            return;
        };
        self.measured.took_out(what);
        let next = Arc::new(next);
        let who = match condemned.health.is_on_probation() {
            true => "probation",
            false => "breaker",
        };
        let reason = Reason {
            who: who.into(),
            why: condemned.why.clone(),
            ..Reason::default()
        };
        let change = Change {
            incident: Some(condemned.incident.clone()),
            ..Change::new(what, &now, &next, &reason)
        };
        self.publish(Arc::clone(&next), &change);
        if let Some(log) = &mut *log
            && let Err(error) = log.record(&change, &now, &next)
        {
            tracing::error!(%error, "a restart would come back with the policy that failed");
        }
    }

    /// Drops a version whose rollout failed, if that is still under way. It goes first, and is written down
    /// after: clients do not wait for a disk.
    pub(super) fn drop_rolled_out(&self, failed: &Arc<Rollout>, reason: &Reason) {
        let mut log = self.log();
        let now = self.published();
        let rollout = now.candidate.as_ref().and_then(|it| it.rollout.as_ref());
        if !rollout.is_some_and(|rollout| Arc::ptr_eq(rollout, failed)) {
            return;
        }
        self.measured.took_out("drop");
        let next = Arc::new(now.with_candidate(None));
        let change = Change::new("drop", &now, &next, reason);
        self.publish(Arc::clone(&next), &change);
        if let Some(log) = &mut *log
            && let Err(error) = log.record(&change, &now, &next)
        {
            tracing::error!(%error, "a restart would come back with the policy that was dropped");
        }
    }

    /// Puts a version behind the active one, or none, where nothing was changed since `was`; returns the generation then.
    /// It is not saved: a start finds one by itself.
    pub(super) fn put_behind(
        &self,
        was: &Published,
        previous: Option<SharedVersion>,
    ) -> Option<u64> {
        let _log = self.log();
        let now = self.published();
        if now.generation != was.generation {
            return None;
        }
        let next = now.with_previous(previous);
        let behind = next.previous.as_ref().map(ToString::to_string);
        tracing::info!(policy = %next.active, behind, "another version is behind the active one");
        let generation = next.generation;
        self.store(Arc::new(next));
        Some(generation)
    }

    /// Writes down that the active version has passed its probation, if it has.
    pub(super) fn note_proven(&self) {
        let mut log = self.log();
        let now = self.published();
        if !now.is_active_proven() {
            return;
        }
        now.active.prove();
        if let Some(log) = &mut *log
            && let Err(error) = log.note_proven(&now.active.digest.to_string())
        {
            tracing::warn!(%error, "after a restart the policy is not known to have passed its probation");
        }
    }

    /// The last changes, oldest first.
    pub(super) fn changes(&self) -> Vec<Change> {
        match &*self.log() {
            Some(log) => log.changes(),
            None => self.changes_since_start(),
        }
    }

    /// The last changes, so many at most, oldest first. Reads them from the disk, where there is a log.
    pub(super) fn last_changes(&self, max: usize) -> Vec<Change> {
        match &*self.log() {
            Some(log) => log.last_changes(max),
            None => {
                let mut changes = self.changes_since_start();
                changes.drain(..changes.len().saturating_sub(max));
                changes
            }
        }
    }

    fn changes_since_start(&self) -> Vec<Change> {
        let changes = self.since_start.lock();
        let changes = changes.unwrap_or_else(PoisonError::into_inner);
        changes.iter().cloned().collect()
    }

    fn remember(&self, change: &Change) {
        let changes = self.since_start.lock();
        let mut changes = changes.unwrap_or_else(PoisonError::into_inner);
        changes.push_back(change.clone());
        if changes.len() > super::version_log::CHANGES_SHOWN_MAX {
            changes.pop_front();
        }
    }

    /// Writes down what came to be before anybody was served.
    pub(super) fn note(&self, what: &'static str, reason: &Reason) {
        let mut log = self.log();
        let now = self.published();
        self.measured.changed(what);
        let change = Change::new(what, &now, &now, reason);
        self.remember(&change);
        if let Some(log) = &mut *log
            && let Err(error) = log.record(&change, &now, &now)
        {
            tracing::error!(%error, what, "not written to the log of changes");
        }
    }

    /// Writes down what an operator does that changes no version.
    pub(super) fn note_done(&self, what: &'static str, reason: &Reason) -> Result<(), SwapError> {
        let mut log = self.log();
        if log.as_ref().is_some_and(is_held) {
            return Err(SwapError::HandingOver);
        }
        let now = self.published();
        let done = Change::new(what, &now, &now, reason);
        if let Some(log) = &mut *log {
            log.note(&done)?;
        }
        self.remember(&done);
        tracing::info!(
            what = done.what,
            who = done.who,
            known_by = done.known_by,
            address = done.address.map(tracing::field::display),
            why = done.why,
            "an operator did what changes no version"
        );
        Ok(())
    }

    /// The versions that can be activated again, the latest at the end.
    pub(super) fn kept(&self) -> Vec<Kept> {
        let log = self.log();
        log.as_ref().map(VersionLog::kept).unwrap_or_default()
    }

    /// See [`VersionLog::load_kept`].
    pub(super) fn load_kept(&self, prefix: &str) -> Option<SavedVersion> {
        self.log().as_ref()?.load_kept(prefix)
    }

    fn log(&self) -> MutexGuard<'_, Option<VersionLog>> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, next: Arc<Published>, change: &Change) {
        tracing::info!(
            what = change.what,
            who = change.who,
            known_by = change.known_by,
            address = change.address.map(tracing::field::display),
            why = change.why,
            from = change.from,
            to = change.to,
            candidate = change.candidate,
            "policy changed"
        );
        self.remember(change);
        self.measured.changed(&change.what);
        let candidate = next.candidate.as_ref();
        self.shadow
            .set_candidate(candidate.map(|candidate| candidate.version.id));
        self.store(next);
    }

    /// Puts a publication in the place of the one that is. What it does not name any more has departed first: whoever asks
    /// meanwhile finds it in one place or in both, and never in none.
    fn store(&self, next: Arc<Published>) {
        let now = self.published();
        let leaving = now
            .versions()
            .filter(|version| !next.versions().any(|it| it.id == version.id));
        self.departed
            .note(leaving.map(Counted::from), BootTime::now());
        let generation = next.generation;
        self.published.store(next);
        self.swaps.send_replace(generation);
    }
}

/// Whether nothing may be written, since another process may read what is.
fn is_held(log: &VersionLog) -> bool {
    log.unwritten().is_some()
}
