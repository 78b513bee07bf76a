//! What decides at a moment, and what it becomes by each change.

use std::fmt;
use std::sync::Arc;

use http::HeaderName;

use super::audience::Audience;
use super::health::HealthWindow;
use super::plan::Plan;
use super::probation::Probation;
use super::progress::Rollout;
use super::trial::Trial;
use crate::guest::version::{SharedVersion, Version};
use crate::replay::Differences;

/// What decides at a moment. Never changes: a swap publishes another.
pub struct Published {
    /// Counts publications, from 1.
    pub generation: u64,
    /// The version that decides for clients.
    pub active: SharedVersion,
    /// When the active version became so, and how it has done since.
    pub health: Arc<HealthWindow>,
    /// The version behind the active one, the last other that is good: decides again what the active one fails
    /// at, where that does not want it refused, and is what a rollback goes back to. Where none is known to be
    /// good it is the last that was not found to fail.
    pub previous: Option<SharedVersion>,
    /// A version on trial.
    pub candidate: Option<Candidate>,
    /// Why no request is decided, where none is: the version that was active last wants refused what it
    /// fails at, and cannot be started.
    pub closed: Option<Arc<str>>,
}

/// A version on trial beside the active one.
#[derive(Clone)]
pub struct Candidate {
    /// The component that is tried.
    pub version: SharedVersion,
    /// How it is tried.
    pub trial: Trial,
    /// On which requests, as a canary.
    pub audience: Arc<Audience>,
    /// How far its rollout is, where it is rolled out.
    pub rollout: Option<Arc<Rollout>>,
    /// Who put it there.
    pub who: String,
    /// Where it decided differently, as a shadow.
    pub differences: Arc<Differences>,
    /// How it has done as a canary.
    pub health: Arc<HealthWindow>,
}

/// On what terms a version is tried.
#[derive(Debug, Clone)]
pub struct Terms {
    pub(super) trial: Trial,
    pub(super) audience: Arc<Audience>,
    pub(super) rollout: Option<Arc<Rollout>>,
}

impl From<Trial> for Terms {
    fn from(trial: Trial) -> Self {
        Self {
            trial,
            audience: Arc::default(),
            rollout: None,
        }
    }
}

impl Terms {
    /// On requests of an audience only. A shadow has none.
    pub fn on(trial: Trial, audience: Audience) -> Self {
        Self {
            audience: Arc::new(audience),
            ..trial.into()
        }
    }

    /// As a plan says, from its first step on.
    pub fn rollout(plan: Plan) -> Self {
        Self::of_rollout(&Rollout::begin(Arc::new(plan), 0))
    }

    /// Those of the step that a rollout is at.
    pub(super) fn of_rollout(rollout: &Arc<Rollout>) -> Self {
        let step = rollout.current();
        Self {
            trial: step.trial,
            audience: Arc::clone(&step.audience),
            rollout: Some(Arc::clone(rollout)),
        }
    }
}

impl Candidate {
    /// Begins now, with nothing seen of it.
    pub(super) fn begin(
        version: SharedVersion,
        terms: Terms,
        who: String,
        probation: Probation,
    ) -> Self {
        Self {
            version,
            trial: terms.trial,
            audience: terms.audience,
            rollout: terms.rollout,
            who,
            differences: Arc::default(),
            health: HealthWindow::begin(probation),
        }
    }

    /// On other terms. What is held against it stays so.
    pub(super) fn with_terms(&self, terms: Terms) -> Self {
        Self {
            trial: terms.trial,
            audience: terms.audience,
            rollout: terms.rollout,
            differences: Arc::default(),
            ..self.clone()
        }
    }

    /// Beside another active version: what was seen beside the one before says nothing of that.
    fn beside_another(&self) -> Self {
        let rollout = self.rollout.as_ref().map(|rollout| {
            let plan = Arc::clone(&rollout.plan);
            Rollout::resumed(plan, rollout.step, rollout.paused.clone())
        });
        Self {
            rollout,
            differences: Arc::default(),
            ..self.clone()
        }
    }

    /// Whether it is tried on these terms.
    pub(super) fn is_on(&self, terms: &Terms) -> bool {
        let plan = |rollout: &Option<Arc<Rollout>>| {
            let rollout = rollout.as_ref()?;
            Some(Arc::clone(&rollout.plan))
        };
        match (plan(&self.rollout), plan(&terms.rollout)) {
            // Wherever it is by now.
            (Some(plan), Some(wanted)) => plan.text() == wanted.text(),
            (None, None) => self.trial == terms.trial && self.audience == terms.audience,
            _ => false,
        }
    }
}

impl Published {
    /// All versions that it names.
    pub fn versions(&self) -> impl Iterator<Item = &SharedVersion> {
        let candidate = self.candidate.as_ref();
        let candidate = candidate.map(|candidate| &candidate.version);
        std::iter::once(&self.active)
            .chain(&self.previous)
            .chain(candidate)
    }

    /// The request headers that a version wants to see which a client's request may come to first:
    /// the active one, or a canary. A shadow has no say. A name can occur more than once.
    pub fn wanted_headers(&self) -> impl Iterator<Item = &HeaderName> {
        let canary = self
            .candidate
            .as_ref()
            .filter(|candidate| matches!(candidate.trial, Trial::Canary(_)));
        let canary = canary.map(|candidate| &candidate.version);
        let versions = std::iter::once(&self.active).chain(canary);
        versions.flat_map(|version| &version.manifest.headers)
    }

    /// What a gateway starts with.
    pub(crate) fn first(
        active: SharedVersion,
        previous: Option<SharedVersion>,
        candidate: Option<Candidate>,
        closed: Option<String>,
        probation: Probation,
    ) -> Self {
        // As where the active one no longer passes its check, and the one before it is on trial.
        let candidate = candidate.filter(|candidate| candidate.version.digest != active.digest);
        Self {
            generation: 1,
            active,
            health: HealthWindow::begin(probation),
            previous,
            candidate,
            closed: closed.map(Arc::from),
        }
    }

    /// With another active version. Where it was closed, an operator has opened it by that.
    pub(crate) fn with_active(
        &self,
        version: &SharedVersion,
        candidate: Option<Candidate>,
        probation: Probation,
    ) -> Self {
        // The same again, with a secret that has changed, is as good, and leaves the way back as it is.
        let is_other = self.active.digest != version.digest;
        if self.is_active_proven() {
            let proven = if is_other { &self.active } else { version };
            proven.prove();
        }
        let previous = match is_other {
            true => self.behind(version),
            false => self.previous.clone(),
        };
        let candidate = match is_other {
            // What was on trial and now decides for all is on trial no more.
            true => candidate
                .filter(|candidate| candidate.version.digest != version.digest)
                .as_ref()
                .map(Candidate::beside_another),
            false => candidate,
        };
        Self {
            generation: self.generation + 1,
            active: Arc::clone(version),
            health: HealthWindow::begin(probation),
            previous,
            candidate,
            closed: None,
        }
    }

    /// What is behind a version that takes the active one's place: this one, unless another is good and it is
    /// not known to be, or it was found to fail.
    fn behind(&self, next: &Version) -> Option<SharedVersion> {
        // Nothing is a way back to itself.
        let previous = self.previous.as_ref();
        let previous = previous.filter(|previous| previous.digest != next.digest);
        let is_better = previous.is_some_and(|previous| previous.is_proven());
        let is_passed_over = is_better || self.has_active_failed();
        match self.is_active_good() || !is_passed_over {
            true => Some(Arc::clone(&self.active)),
            false => previous.cloned(),
        }
    }

    /// With another version behind the active one, or none.
    pub(super) fn with_previous(&self, previous: Option<SharedVersion>) -> Self {
        Self {
            generation: self.generation + 1,
            active: Arc::clone(&self.active),
            health: Arc::clone(&self.health),
            previous,
            candidate: self.candidate.clone(),
            closed: self.closed.clone(),
        }
    }

    /// What to go back to: the version behind the active one, or what is `loaded` in its place where it is not
    /// known to be good.
    pub(super) fn way_back<'a>(
        &'a self,
        loaded: Option<&'a SharedVersion>,
    ) -> Option<&'a SharedVersion> {
        let previous = self.previous.as_ref();
        let good = previous.filter(|previous| previous.is_good());
        good.or(loaded).or(previous)
    }

    pub(crate) fn with_candidate(&self, candidate: Option<Candidate>) -> Self {
        Self {
            generation: self.generation + 1,
            active: Arc::clone(&self.active),
            health: Arc::clone(&self.health),
            previous: self.previous.clone(),
            candidate,
            closed: self.closed.clone(),
        }
    }

    /// Without the version that `failed`, if it still is in service and can be spared; and what
    /// that change is called.
    pub(crate) fn without(
        &self,
        failed: &Arc<HealthWindow>,
        probation: Probation,
    ) -> Option<(&'static str, Self)> {
        if self.closed.is_some() {
            return None;
        }
        match (&self.candidate, &self.previous) {
            (Some(candidate), _) if Arc::ptr_eq(&candidate.health, failed) => {
                Some(("drop", self.with_candidate(None)))
            }
            (_, Some(previous)) if Arc::ptr_eq(&self.health, failed) => {
                let candidate = self.candidate.clone();
                Some(("rollback", self.with_active(previous, candidate, probation)))
            }
            _ => None,
        }
    }
}

impl Published {
    /// Whether the active version passed its probation, now or before. One that only stands in serves nobody.
    pub(super) fn is_active_proven(&self) -> bool {
        let has_passed = self.closed.is_none() && self.health.has_passed();
        (has_passed || self.active.is_proven()) && !self.health.is_condemned()
    }

    /// Whether the active version is one to go back to, see [`Version::is_good`].
    pub(super) fn is_active_good(&self) -> bool {
        self.is_active_proven() || self.active.keeps_out()
    }

    /// Whether the active version was found to fail, and to let others stand in for it.
    pub(super) fn has_active_failed(&self) -> bool {
        self.health.has_failed() && !self.active.keeps_out()
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

/// Which version of a publication decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rank {
    Candidate,
    Active,
    Previous,
}
