//! How two versions decide about the same inputs, in numbers.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use frontend_core::rollout::Paired;

use super::fields::Fields;
use super::golden::differences;
use super::masks::Mask;
use crate::evaluate::input::DecisionInput;
use crate::guest::thread::processor_time;
use crate::guest::version::Version;

/// Of so many inputs, one has both versions timed.
const TIMED_EVERY: u64 = 8;

/// How two versions decide about the same inputs.
#[derive(Debug)]
pub(crate) struct Comparison {
    /// What counts as no difference.
    ignored: Vec<Mask>,
    /// How many times as long the candidate may take, where times are compared.
    ratio_max: Option<f64>,
    paired: Mutex<Paired>,
}

impl Comparison {
    pub(crate) fn new(ignored: Vec<Mask>, ratio_max: Option<f64>) -> Self {
        Self {
            ignored,
            ratio_max,
            paired: Mutex::default(),
        }
    }

    /// What is seen so far.
    pub(crate) fn paired(&self) -> Paired {
        *self.lock()
    }

    #[cfg(test)]
    pub(crate) fn note_for_test(&self, is_different: bool, has_failed: bool) {
        self.lock().note(is_different, has_failed);
    }

    /// Both decided.
    pub(super) fn note(&self, active: &Fields, candidate: &Fields, has_failed: bool) {
        let is_different = has_failed || !differences(active, candidate, &self.ignored).is_empty();
        self.lock().note(is_different, has_failed);
    }

    /// Has both decide once more, of some inputs, and compares how long that takes: of instances that have
    /// just done the same.
    pub(super) fn time(&self, input: &DecisionInput, active: &Version, candidate: &Version) {
        let Some(ratio_max) = self.ratio_max else {
            return;
        };
        if !self.lock().decisions.is_multiple_of(TIMED_EVERY) {
            return;
        }
        let [Some(active), Some(candidate)] = [active, candidate].map(|it| took(input, it)) else {
            return;
        };
        self.lock().note_times(active, candidate, ratio_max);
    }

    fn lock(&self) -> MutexGuard<'_, Paired> {
        self.paired.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Processor time of a decision. None where it fails.
fn took(input: &DecisionInput, version: &Version) -> Option<Duration> {
    input.evaluate(version).ok()?;
    let begun = processor_time();
    input.evaluate(version).ok()?;
    Some(processor_time().saturating_sub(begun))
}
