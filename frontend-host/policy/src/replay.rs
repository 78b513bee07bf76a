//! Decisions made again, and where they come out differently.
//!
//! - `fields`: a decision as people compare it;
//! - `differences`: where two policies decide differently;
//! - `shadow`: live decisions made again by a candidate;
//! - `audit`: live decisions made again by the same version, afresh;
//! - `recording`: live decisions taken down;
//! - `format`: what a recording looks like;
//! - here: a recording's decisions made again.

pub(crate) mod fields;
pub(crate) mod differences;
pub(crate) mod shadow;
pub(crate) mod audit;
pub(crate) mod recording;
mod format;

use std::io::BufRead;

pub use differences::{Differences, Example, Found};
pub use format::RecordingError;
pub use recording::{Busy, Recording};

use self::fields::Fields;
use self::format::{Line, check_header};
use crate::guest::version::Version;

/// Has a version make every decision of a recording, and compares.
///
/// # Errors
/// Where the recording cannot be read. Decisions that differ, or fail, are not errors.
pub fn replay(recording: impl BufRead, version: &Version) -> Result<Differences, RecordingError> {
    let differences = Differences::default();
    for (index, line) in recording.lines().enumerate() {
        let line = line?;
        if index == 0 {
            check_header(&line)?;
            continue;
        }
        let (input, before) = Line::parse(&line).map_err(|problem| RecordingError::Line {
            number: index + 1,
            problem,
        })?;
        let now = Fields::from(&input.evaluate(version));
        differences.compare(&input.describe(), &before, &now);
    }
    Ok(differences)
}
