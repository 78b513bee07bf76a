//! Decisions made again, and where they come out differently.
//!
//! - `headers`: which of a request's headers a recording has;
//! - `left_out`: what is left out of decisions that people are shown;
//! - `fields`: a decision as people compare it;
//! - `differences`: where two policies decide differently;
//! - `comparison`: how often they do, and which takes longer;
//! - `shadow`: live decisions made again by a candidate;
//! - `audit`: live decisions made again by the same version, afresh;
//! - `recording`: live decisions taken down;
//! - `format`: what a recording looks like;
//! - `masks`: what of a decision is not compared;
//! - here: a recording's decisions made again;
//! - `golden`: recordings as tests;
//! - `minimize`: the smallest request that shows a difference, and `curl`: how people send it.

mod headers;
mod left_out;
pub(crate) mod fields;
pub(crate) mod differences;
pub(crate) mod comparison;
pub(crate) mod shadow;
pub(crate) mod audit;
pub(crate) mod recording;
mod format;
mod masks;
mod golden;
mod minimize;
mod curl;

use std::io::BufRead;

pub use differences::{Differences, Example, Found, Group};
pub use format::RecordingError;
pub use golden::{FailedDecision, FieldDifference, Report, Smallest};
pub use headers::HeaderChoice;
pub use masks::{Mask, MaskError};
pub use recording::{RecordError, Recording};

use self::fields::Fields;
use self::format::read;
use crate::guest::version::Version;

/// Has a version make every decision of a recording, and compares.
///
/// # Errors
/// Where the recording cannot be read. Decisions that differ, or fail, are not errors.
pub fn replay(recording: impl BufRead, version: &Version) -> Result<Differences, RecordingError> {
    let differences = Differences::default();
    read(recording, |_, input, mut before| {
        let mut now = Fields::from(&input.evaluate(version));
        for mask in Mask::of_left_out(&before) {
            mask.apply(&mut before);
            mask.apply(&mut now);
        }
        differences.compare(&input, &before, &now, || [before.clone(), now.clone()]);
    })?;
    Ok(differences)
}
