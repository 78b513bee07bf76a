//! How two versions decide about the same inputs, in numbers.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use frontend_core::rollout::{Paired, Seen};

use super::fields::Fields;
use super::golden::differences;
use super::masks::Mask;
use crate::decision::{Action, Decision};
use crate::evaluate::input::{DecisionInput, DecisionResult};
use crate::guest::failure::Failure;
use crate::guest::thread::processor_time;
use crate::guest::version::Version;

/// Of so many inputs, one has both versions timed.
const TIMED_EVERY: u64 = 8;

/// Inputs that are compared: there is no need for more.
const INPUTS_MAX: usize = 1 << 16;

/// How two versions decide about the same inputs. Each client's input counts once: the same again would
/// be decided in the same way.
#[derive(Debug)]
pub(crate) struct Comparison {
    /// What counts as no difference.
    ignored: Vec<Mask>,
    /// How many times as long the candidate may take, where times are compared.
    ratio_max: Option<f64>,
    seen: Mutex<SoFar>,
}

#[derive(Debug, Default)]
struct SoFar {
    paired: Paired,
    /// Clients with their inputs.
    known: HashSet<u64>,
}

/// A client's decision, and where it is compared.
#[derive(Debug)]
pub(crate) struct Compared {
    pub(crate) client: u64,
    pub(crate) comparison: Arc<Comparison>,
}

impl Comparison {
    pub(crate) fn new(ignored: Vec<Mask>, ratio_max: Option<f64>) -> Self {
        Self {
            ignored,
            ratio_max,
            seen: Mutex::default(),
        }
    }

    /// What is seen so far.
    pub(crate) fn paired(&self) -> Paired {
        self.so_far().paired
    }

    #[cfg(test)]
    pub(crate) fn note_for_test(&self, is_different: bool, has_failed: bool) {
        self.so_far().paired.note(Seen {
            is_different,
            has_failed,
            has_refused: false,
        });
    }

    fn so_far(&self) -> MutexGuard<'_, SoFar> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Compared {
    /// Both decided. Whether that counts, and the candidate did not fail.
    pub(super) fn note(
        &self,
        input: &DecisionInput,
        active: &DecisionResult,
        candidate: &Result<DecisionResult, Failure>,
        version: &Version,
    ) -> bool {
        let mut hasher = DefaultHasher::new();
        (self.client, input.key(&version.manifest.headers)).hash(&mut hasher);
        let mut so_far = self.comparison.so_far();
        if so_far.known.len() >= INPUTS_MAX || !so_far.known.insert(hasher.finish()) {
            return false;
        }
        let [before, now] = [Fields::from(active), Fields::from(candidate)];
        let ignored = &self.comparison.ignored;
        let seen = Seen {
            is_different: !differences(&before, &now, ignored).is_empty(),
            has_failed: candidate.is_err(),
            has_refused: candidate.as_ref().is_ok_and(refuses) && !refuses(active),
        };
        so_far.paired.note(seen);
        !seen.has_failed
    }

    /// Has both decide once more, of some inputs, and compares how long that takes: of instances that have
    /// just done the same.
    pub(super) fn time(&self, input: &DecisionInput, active: &Version, candidate: &Version) {
        let Some(ratio_max) = self.comparison.ratio_max else {
            return;
        };
        let decisions = self.comparison.paired().decisions;
        if !decisions.is_multiple_of(TIMED_EVERY) {
            return;
        }
        let [Some(active), Some(candidate)] = [active, candidate].map(|it| took(input, it)) else {
            return;
        };
        let mut so_far = self.comparison.so_far();
        so_far.paired.note_times(active, candidate, ratio_max);
    }
}

/// Whether it is an answer of 400 or more.
fn refuses(decided: &DecisionResult) -> bool {
    match decided {
        DecisionResult::Action(Decision {
            action: Action::Respond(reply),
            ..
        }) => reply.status.as_u16() >= 400,
        _ => false,
    }
}

/// Processor time of a decision. None where it fails.
fn took(input: &DecisionInput, version: &Version) -> Option<Duration> {
    input.evaluate(version).ok()?;
    let begun = processor_time();
    input.evaluate(version).ok()?;
    Some(processor_time().saturating_sub(begun))
}
