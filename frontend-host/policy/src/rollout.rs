//! The versions of the policy in service, and how one takes another's place.
//!
//! - `probation`: how many failures a version may have, and what is held against it;
//! - `breaker`: which requests it is not asked about for a while;
//! - `slowness`: over what it was lately found to be slow;
//! - `clients_seen`: how many clients were served lately;
//! - `health`: how a version has done since it began to decide for clients;
//! - `monitor`: who judges what went wrong;
//! - `trial`: how a version is tried;
//! - `audience`: which requests a canary is tried on;
//! - `plan`: the steps of a rollout;
//! - `progress`: what is seen of a version in one of them, and what comes of it;
//! - `publication`: what decides at a moment, and what it becomes by each change;
//! - `change`: a change, who made it and why;
//! - `version_log`: what survives a restart;
//! - `error`: why a version did not take another's place;
//! - `expected`: what whoever asks for a change has seen;
//! - `registry`: where the current publication is, and the swap;
//! - `versions`: what operators do with the versions;
//! - `rollouts`: how operators begin and steer rollouts, and how these go on by themselves.

pub(crate) mod probation;
pub(crate) mod breaker;
pub(crate) mod slowness;
pub(crate) mod clients_seen;
pub(crate) mod health;
pub(crate) mod monitor;
pub(crate) mod trial;
pub(crate) mod audience;
pub(crate) mod plan;
pub(crate) mod progress;
pub(crate) mod publication;
pub(crate) mod change;
pub(crate) mod version_log;
pub(crate) mod error;
pub(crate) mod expected;
pub(crate) mod registry;
pub(crate) mod versions;
pub(crate) mod rollouts;

pub use audience::{Arrival, Audience, NoCondition};
pub use change::{Change, Reason};
pub use error::SwapError;
pub use expected::Expected;
pub use health::{HealthWindow, Incident};
pub use plan::{DEFAULT_PLAN, PLAN_BYTES_MAX, Plan, PlanError};
pub use probation::Probation;
pub use progress::{GateAnswer, Measured, Progress, Question, Rollout};
pub use publication::{Candidate, Published, Terms};
pub use rollouts::At;
pub use trial::{Share, Trial};
pub use version_log::{Kept, VersionLog, VersionLogError};
pub use versions::Versions;
