//! Whether a version on trial is within its limits, by what is seen of it: looked at as often as one
//! likes, with known rates of error.
//!
//! - [`bets`]: whether a mean is greater or less than a bound;
//! - [`quantile`]: between which values a quantile lies;
//! - [`cohorts`]: clients of a canary beside as many of the active version;
//! - [`paired`]: decisions that both versions made about the same input;
//! - [`shown`]: between which values lies what a version is held to;
//! - [`limits`]: what a version is held to, and what the evidence says of that.

pub mod bets;
pub mod quantile;
pub mod cohorts;
pub mod paired;
pub mod shown;
pub mod limits;

pub use cohorts::{Cohort, Cohorts, Outcome, Served};
pub use limits::{ErrorRates, Judged, LatencyLimit, Limits, Measure, Verdict, verdict};
pub use paired::{Paired, Seen};
pub use shown::Shown;
