//! Why a version did not take another's place.

use std::io;

use super::version_log::VersionLogError;
use crate::admission::Rejection;

/// Why a version did not take another's place.
#[derive(Debug, thiserror::Error)]
pub enum SwapError {
    /// The component may not serve.
    #[error("policy refused: {0}")]
    Rejected(#[from] Rejection),
    /// There is nothing to roll back to.
    #[error("there is no earlier good version to go back to")]
    NothingToRollBackTo,
    /// No version of that digest, or several, can be activated again.
    #[error(
        "no kept policy is named by `{0}`, or more than one: give more of a digest that `bazaar policy list` shows as kept"
    )]
    NotKept(String),
    /// There is no candidate.
    #[error("there is no candidate; put one with PUT /policy/candidate?shadow=0.1")]
    NoCandidate,
    /// It could not be made to survive a restart.
    #[error("the change cannot be saved, so it was not made: {0}")]
    NotSaved(#[from] VersionLogError),
    /// The machine has no more threads.
    #[error("cannot start a thread for it: {0}")]
    NoThread(#[from] io::Error),
}
