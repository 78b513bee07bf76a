//! The versions of the policy in service, and how one takes another's place.
//!
//! - `probation`: how many failures a version may have in its first time;
//! - `publication`: what decides at a moment, and what it becomes by each change;
//! - `change`: a change, who made it and why;
//! - `version_log`: what survives a restart;
//! - `error`: why a version did not take another's place;
//! - `registry`: where the current publication is, and the swap;
//! - `versions`: what operators do with the versions.

pub(crate) mod probation;
pub(crate) mod publication;
pub(crate) mod change;
pub(crate) mod version_log;
pub(crate) mod error;
pub(crate) mod registry;
pub(crate) mod versions;

pub use change::{Change, Reason};
pub use error::SwapError;
pub use probation::{HealthWindow, Probation};
pub use publication::{Candidate, Published, Share, Trial};
pub use version_log::{VersionLog, VersionLogError};
pub use versions::Versions;
