//! How a version is tried.

use frontend_core::rollout::Cohort;

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

    /// Which clients are compared in a canary: those of it, and as many of the others.
    pub(crate) fn cohort(self, point: u64) -> Option<Cohort> {
        if self.covers(point) {
            Some(Cohort::Canary)
        } else if Self((self.0 * 2.0).min(1.0)).covers(point) {
            Some(Cohort::Baseline)
        } else {
            None
        }
    }

    /// Whether it covers a point between 0 and 2⁶⁴.
    pub(crate) fn covers(self, point: u64) -> bool {
        (point as f64) < self.0 * (u64::MAX as f64) || self.0 >= 1.0
    }
}
