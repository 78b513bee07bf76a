//! A change of the policy, or what else an operator did: what, by whom, and why.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::health::{Incident, unix_ms};
use super::publication::Published;
use crate::guest::version::Version;

/// Who changes the policy, and why.
#[derive(Debug, Clone, Default)]
pub struct Reason {
    /// A person, or the part of the gateway that did it.
    pub who: String,
    /// In words, for people who read the log of changes.
    pub why: String,
    /// Of a person: what says that they may, a certificate or a token.
    pub known_by: Option<String>,
    /// Of a person: where from.
    pub address: Option<IpAddr>,
}

/// One change of the policy.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Change {
    /// Wall clock in milliseconds since 1970.
    pub at_ms: u64,
    /// `activate`, `configure`, `shadow`, `canary`, `drop`, `promote` or `rollback`; of a rollout `rollout`, `step`,
    /// `pause`, `resume` or `skip`; `fallback` where a gateway started
    /// with another version than was active last. What changes no version: `record` and `recorded` as a recording of
    /// clients' requests begins and ends, `raise` as the services' protocol is to be raised, `not-raised` where it is not.
    pub what: String,
    /// Who did it, see [`Reason`].
    pub who: String,
    /// In words, see [`Reason`].
    pub why: String,
    /// What said that they may, see [`Reason`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known_by: Option<String>,
    /// Where they did it from, see [`Reason`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// Digest of the version that was active.
    pub from: String,
    /// Digest of the version that is active.
    pub to: String,
    /// Digest of the candidate after the change.
    pub candidate: Option<String>,
    /// Name and version of `from`, of `to`, and of `candidate`, as they call themselves. Changes of releases before 0.2.0 have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate_name: Option<String>,
    /// The last failure of those that were too many, where the gateway made the change by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incident: Option<Incident>,
}

/// What is done that changes no version.
const OF_NO_VERSION: [&str; 4] = ["record", "recorded", "raise", "not-raised"];

impl Change {
    /// Whether it is a change of the policy, and not what else operators did.
    pub fn is_of_policy(&self) -> bool {
        !OF_NO_VERSION.contains(&self.what.as_str())
    }

    pub(super) fn new(what: &str, before: &Published, after: &Published, reason: &Reason) -> Self {
        Self {
            at_ms: unix_ms(),
            what: what.to_owned(),
            who: reason.who.clone(),
            why: reason.why.clone(),
            known_by: reason.known_by.clone(),
            address: reason.address,
            from: before.active.digest.to_string(),
            to: after.active.digest.to_string(),
            candidate: after
                .candidate
                .as_ref()
                .map(|candidate| candidate.version.digest.to_string()),
            from_name: Some(name(&before.active)),
            to_name: Some(name(&after.active)),
            candidate_name: after
                .candidate
                .as_ref()
                .map(|candidate| name(&candidate.version)),
            incident: None,
        }
    }
}

fn name(version: &Version) -> String {
    format!("{} {}", version.manifest.name, version.manifest.version)
}
