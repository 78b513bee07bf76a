//! Everything that one decision depends on, kept so that it can be made again: by a candidate
//! beside the active version, or offline from a recording.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use http::{HeaderMap, Method};

use super::decider::{RequestParts, on_outcome_afresh, on_request};
use super::decision::{Action, Decision, Outcome, Stock};
use super::instances::with_instance;
use super::sandbox::{Failure, Inputs, Version};

/// What was to be decided: about a request, or about an outcome of what was done about it.
#[derive(Debug, Clone)]
pub struct Question {
    pub(super) method: Method,
    pub(super) target: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Option<Vec<u8>>,
    pub(super) outcome: Option<Outcome>,
    pub(super) inputs: Inputs,
}

impl Question {
    pub(super) fn new(
        request: RequestParts<'_>,
        inputs: Inputs,
        outcome: Option<&Outcome>,
    ) -> Self {
        Self {
            method: request.method.clone(),
            target: request.target.to_owned(),
            headers: request.headers.clone(),
            body: request.body.map(<[u8]>::to_vec),
            outcome: outcome.cloned(),
            inputs,
        }
    }

    /// For people: method and target.
    pub fn request(&self) -> String {
        format!("{} {}", self.method, self.target)
    }

    /// Has a version decide, on this thread.
    ///
    /// # Errors
    /// Where it does not.
    pub fn decide(&self, version: &Version) -> Result<Decision, Failure> {
        let request = RequestParts {
            method: &self.method,
            target: &self.target,
            headers: &self.headers,
            body: self.body.as_deref(),
            now_ms: self.inputs.now_ms,
        };
        // Each version is a generation of its own: those asked before are not asked again here.
        with_instance(version.id + 1, version, |instance| match &self.outcome {
            None => on_request(version, instance, self.inputs, request),
            Some(outcome) => on_outcome_afresh(version, instance, self.inputs, request, outcome),
        })
    }

    /// How much memory it and its decision take beyond what is bounded for every request, in
    /// bytes, about.
    pub(super) fn bytes(&self, decided: &Decision) -> usize {
        let stocks = match &self.outcome {
            Some(Outcome::Stocks(stocks)) => stocks.len(),
            _ => 0,
        };
        let reply = match &decided.action {
            Action::Respond(reply) => reply.bytes(),
            _ => 0,
        };
        stocks * size_of::<Stock>() + reply
    }
}

/// One decision in so many is kept for the self-test of the next version.
const RECENT_EVERY: u64 = 64;

/// Decisions that are kept: the newest.
const RECENT_MAX: usize = 128;

/// What a decision may take beyond what is bounded for every request, in bytes.
const RECENT_BYTES_MAX: usize = 4 << 10;

/// A sample of what was to be decided lately.
#[derive(Debug, Default)]
pub(super) struct Recent {
    questions: Mutex<VecDeque<Question>>,
}

impl Recent {
    /// Whether a decision with that seed belongs to the sample.
    pub(super) fn wants(&self, seed: u64) -> bool {
        seed.is_multiple_of(RECENT_EVERY)
    }

    pub(super) fn keep(&self, question: &Question, decided: &Decision) {
        if question.bytes(decided) > RECENT_BYTES_MAX {
            return;
        }
        // Whoever would have to wait keeps nothing: it is a sample.
        if let Ok(mut questions) = self.questions.try_lock() {
            if questions.len() == RECENT_MAX {
                questions.pop_front();
            }
            questions.push_back(question.clone());
        }
    }

    /// The sample, oldest first.
    pub(super) fn questions(&self) -> Vec<Question> {
        let questions = self
            .questions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        questions.iter().cloned().collect()
    }
}
