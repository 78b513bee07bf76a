//! Why a version did not take another's place.

use std::io;

use domain::Protocol;

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
    /// Somebody else has a version on trial.
    #[error(
        "{digest} of {who} is on trial: drop it first, or say that it is to go with ?replace={}", &.digest[..12]
    )]
    Occupied {
        /// Of that version.
        digest: String,
        /// Who put it there.
        who: String,
    },
    /// No request is decided: what would be changed only stands in.
    #[error(
        "no request is decided, and what stands in is not the policy that was active: activate that one or another first, with `bazaar policy activate DIGEST` or `bazaar policy push FILE`"
    )]
    Closed,
    /// Another policy became active while the configuration of this one was checked.
    #[error(
        "another policy became active meanwhile: send the configuration again if it is for that one"
    )]
    OtherActive,
    /// The active version is another one than was named.
    #[error(
        "nothing was changed: {named}, {digest}, is active by now, and not the one that was named"
    )]
    NotActive {
        /// Of the active version.
        digest: String,
        /// Its name and version, escaped.
        named: String,
    },
    /// The version to go back to is another one than was named.
    #[error(
        "nothing was changed: it would go back to {named}, {digest}, and not to the one that was named"
    )]
    OtherTarget {
        /// Of the last good other version.
        digest: String,
        /// Its name and version, escaped.
        named: String,
    },
    /// The candidate is another one than was named.
    #[error("the candidate is {digest} of {who}, not the one that was named")]
    OtherCandidate {
        /// Of the candidate.
        digest: String,
        /// Who put it there.
        who: String,
    },
    /// Somebody else put the candidate there that is to be dropped, and it was not named.
    #[error(
        "the candidate is {digest} of {who}: name it, if it is to go (`bazaar policy drop --digest {}`)", &.digest[..12]
    )]
    OfAnother {
        /// Of the candidate.
        digest: String,
        /// Who put it there.
        who: String,
    },
    /// Nothing is rolled out.
    #[error("nothing is rolled out; begin with `bazaar policy rollout FILE`")]
    NoRollout,
    /// The rollout is of another version, or at another step, than was said.
    #[error("the rollout is of {digest} and at step {step}, which is not what was named")]
    OtherStep {
        /// Counted from 1.
        step: usize,
        /// Of the version.
        digest: String,
    },
    /// There is no candidate.
    #[error("there is no candidate; put one with PUT /policy/candidate?shadow=0.1")]
    NoCandidate,
    /// The release before could not start it, and may be to come back.
    #[error(
        "it is made for `{interface}`, which gateways of the release before cannot start: the bazaar is at version {at} of the services' protocol, and has to be at {wanted} (`bazaar protocol raise`); or make it for an older world"
    )]
    NotRaised {
        /// What it exports.
        interface: &'static str,
        /// That the bazaar is at.
        at: Protocol,
        /// From which on it may be saved.
        wanted: Protocol,
    },
    /// The same, as far as anybody knows.
    #[error(
        "it is made for `{interface}`, which gateways of a release before version {wanted} of the services' protocol cannot start, and the catalog has not said yet at which the bazaar is: send it again once the catalog answers, or make it for an older world"
    )]
    ProtocolUnheard {
        /// What it exports.
        interface: &'static str,
        /// From which on it may be saved.
        wanted: Protocol,
    },
    /// Another process takes the gateway's place.
    #[error(
        "another process is taking this gateway's place: send the change again in a moment, when that one serves"
    )]
    HandingOver,
    /// It could not be made to survive a restart.
    #[error("the change cannot be saved, so it was not made: {0}")]
    NotSaved(#[from] VersionLogError),
    /// The machine has no more threads.
    #[error("cannot start a thread for it: {0}")]
    NoThread(#[from] io::Error),
}
