//! What whoever asks for a change of the policy has seen of it: where it is otherwise by then, nothing is changed.

use super::error::SwapError;
use super::publication::{Candidate, Published};
use crate::guest::version::Version;

/// Which versions are expected to be there, by their digests or the beginnings of them. What is not named may be any.
#[derive(Debug, Clone, Copy, Default)]
pub struct Expected<'a> {
    /// The active one, whose place is taken.
    pub active: Option<&'a str>,
    /// The one that is to take it: the candidate that is promoted, or the version that is gone back to.
    pub digest: Option<&'a str>,
}

impl<'a> Expected<'a> {
    /// That one is the one that the change is about; the active one may be any.
    pub fn digest(digest: Option<&'a str>) -> Self {
        Self {
            active: None,
            digest,
        }
    }

    pub(super) fn check_active(self, now: &Published) -> Result<(), SwapError> {
        let active = &now.active;
        match is_it(self.active, active) {
            true => Ok(()),
            false => Err(SwapError::NotActive {
                digest: active.digest.to_string(),
                named: named(active),
            }),
        }
    }

    /// Whether it is what is to be gone back to.
    pub(super) fn check_target(self, target: &Version) -> Result<(), SwapError> {
        match is_it(self.digest, target) {
            true => Ok(()),
            false => Err(SwapError::OtherTarget {
                digest: target.digest.to_string(),
                named: named(target),
            }),
        }
    }

    /// The candidate, where there is one and it is as expected.
    pub(super) fn candidate(self, now: &'a Published) -> Result<&'a Candidate, SwapError> {
        let candidate = now.candidate.as_ref().ok_or(SwapError::NoCandidate)?;
        match is_it(self.digest, &candidate.version) {
            true => Ok(candidate),
            false => Err(SwapError::OtherCandidate {
                digest: candidate.version.digest.to_string(),
                who: candidate.who.clone(),
            }),
        }
    }
}

fn is_it(digest: Option<&str>, version: &Version) -> bool {
    let is_beginning =
        |digest: &str| !digest.is_empty() && version.digest.to_string().starts_with(digest);
    digest.is_none_or(is_beginning)
}

fn named(version: &Version) -> String {
    let manifest = &version.manifest;
    format!("{} {}", manifest.name, manifest.version)
        .escape_debug()
        .to_string()
}
