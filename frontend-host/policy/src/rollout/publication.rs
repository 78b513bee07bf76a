//! What decides at a moment, and what it becomes by each change.

use std::fmt;
use std::sync::Arc;

use http::HeaderName;

use super::health::HealthWindow;
use super::probation::Probation;
use crate::guest::version::SharedVersion;
use crate::replay::Differences;

/// What decides at a moment. Never changes: a swap publishes another.
pub struct Published {
    /// Counts publications, from 1.
    pub generation: u64,
    /// The version that decides for clients.
    pub active: SharedVersion,
    /// When the active version became so, and how it has done since.
    pub health: Arc<HealthWindow>,
    /// The last good version: decides again what the active one fails at, where that does not want it
    /// refused, and is what a rollback goes back to.
    pub previous: Option<SharedVersion>,
    /// A version on trial.
    pub candidate: Option<Candidate>,
}

/// A version on trial beside the active one.
#[derive(Clone)]
pub struct Candidate {
    /// The component that is tried.
    pub version: SharedVersion,
    /// How it is tried.
    pub trial: Trial,
    /// Who put it there.
    pub who: String,
    /// Where it decided differently, as a shadow.
    pub differences: Arc<Differences>,
    /// How it has done as a canary.
    pub health: Arc<HealthWindow>,
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

    /// One of that name, for a share.
    pub fn named(name: &str, share: Share) -> Option<Self> {
        match name {
            "shadow" => Some(Self::Shadow(share)),
            "canary" => Some(Self::Canary(share)),
            _ => None,
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

    /// As a fraction of 1.
    pub fn get(self) -> f64 {
        self.0
    }

    /// Whether it covers a point between 0 and 2⁶⁴.
    pub(crate) fn covers(self, point: u64) -> bool {
        (point as f64) < self.0 * (u64::MAX as f64) || self.0 >= 1.0
    }
}

impl Published {
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
        probation: Probation,
    ) -> Self {
        Self {
            generation: 1,
            active,
            health: HealthWindow::begin(probation),
            previous,
            candidate,
        }
    }

    pub(crate) fn with_active(
        &self,
        version: &SharedVersion,
        candidate: Option<Candidate>,
        probation: Probation,
    ) -> Self {
        let previous = if self.health.is_good() {
            Some(Arc::clone(&self.active))
        } else {
            self.previous.clone()
        };
        // Nothing is a way back to itself.
        let previous = previous.filter(|previous| previous.digest != version.digest);
        Self {
            generation: self.generation + 1,
            active: Arc::clone(version),
            health: HealthWindow::begin(probation),
            previous,
            candidate,
        }
    }

    pub(crate) fn with_candidate(&self, candidate: Option<Candidate>) -> Self {
        Self {
            generation: self.generation + 1,
            active: Arc::clone(&self.active),
            health: Arc::clone(&self.health),
            previous: self.previous.clone(),
            candidate,
        }
    }

    /// Without the version that `failed`, if it still is in service and can be spared; and what
    /// that change is called.
    pub(crate) fn without(
        &self,
        failed: &Arc<HealthWindow>,
        probation: Probation,
    ) -> Option<(&'static str, Self)> {
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
