//! How two versions decide about the same inputs, in numbers.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use frontend_core::rollout::{Paired, Seen};
use http::StatusCode;

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

/// What is shown of a request, in bytes.
const SHOWN_BYTES_MAX: usize = 200;

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
    /// The first request about which the candidate let in what the active version refused.
    admitted: Option<String>,
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

    /// The first request, without the values in its query, about which the candidate let in what the active
    /// version refused.
    pub(crate) fn admitted(&self) -> Option<String> {
        self.so_far().admitted.clone()
    }

    #[cfg(test)]
    pub(crate) fn note_for_test(&self, is_different: bool, has_failed: bool) {
        self.so_far().paired.note(Seen {
            is_different,
            has_failed,
            ..Seen::default()
        });
    }

    #[cfg(test)]
    pub(crate) fn admit_for_test(&self, request: &str) {
        let mut so_far = self.so_far();
        so_far.admitted = Some(request.to_owned());
        so_far.paired.note(Seen {
            has_admitted: true,
            ..Seen::default()
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
        versions: [&Version; 2],
    ) -> bool {
        let mut hasher = DefaultHasher::new();
        // One of them may decide by a header that the other does not ask for.
        let keys = versions.map(|version| input.key(&version.manifest.headers));
        (self.client, keys).hash(&mut hasher);
        let mut so_far = self.comparison.so_far();
        if so_far.known.len() >= INPUTS_MAX || !so_far.known.insert(hasher.finish()) {
            return false;
        }
        let [before, now] = [Fields::from(active), Fields::from(candidate)];
        let ignored = &self.comparison.ignored;
        let decided = candidate.as_ref().ok();
        let seen = Seen {
            is_different: !differences(&before, &now, ignored).is_empty(),
            has_failed: candidate.is_err(),
            has_refused: decided.is_some_and(refuses) && !refuses(active),
            has_admitted: decided.is_some_and(lets_in) && blames_client(active),
        };
        if seen.has_admitted && so_far.admitted.is_none() {
            let mut request = input.shown();
            request.truncate(request.floor_char_boundary(SHOWN_BYTES_MAX));
            so_far.admitted = Some(request);
        }
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
    status(decided).is_some_and(|status| status.as_u16() >= 400)
}

/// Whether it is an answer of 400 to 499.
fn blames_client(decided: &DecisionResult) -> bool {
    status(decided).is_some_and(|status| status.is_client_error())
}

/// Whether it is another answer than one of 400 or more, or something is done for the client.
fn lets_in(decided: &DecisionResult) -> bool {
    let is_done = matches!(
        decided,
        DecisionResult::Action(Decision {
            action: Action::Perform(_),
            ..
        })
    );
    is_done || status(decided).is_some() && !refuses(decided)
}

/// Of an answer.
fn status(decided: &DecisionResult) -> Option<StatusCode> {
    match decided {
        DecisionResult::Action(Decision {
            action: Action::Respond(reply),
            ..
        }) => Some(reply.status),
        _ => None,
    }
}

/// Processor time of a decision. None where it fails.
fn took(input: &DecisionInput, version: &Version) -> Option<Duration> {
    input.evaluate(version).ok()?;
    let begun = processor_time();
    input.evaluate(version).ok()?;
    Some(processor_time().saturating_sub(begun))
}
