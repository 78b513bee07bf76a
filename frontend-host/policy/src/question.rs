//! Everything that one decision depends on, kept so that it can be made again: by a candidate
//! beside the active version, or offline from a recording.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use domain::ReplicaId;
use http::{HeaderMap, Method};

use super::decision::{Action, Decision, Outcome, Stock, View};
use super::evaluate::{RequestParts, on_outcome_afresh, on_request};
use super::instances::with_instance;
use super::sandbox::{Failure, Inputs, Instance, Version};

/// What was to be decided.
#[derive(Debug, Clone)]
pub struct Question {
    pub(super) subject: Subject,
    pub(super) inputs: Inputs,
}

/// What a decision was about.
#[derive(Debug, Clone)]
pub(super) enum Subject {
    /// A request, or an outcome of what was done about it.
    Request(RequestSubject),
    /// Who should lead.
    Election(View),
}

/// A request, as long as it is needed.
#[derive(Debug, Clone)]
pub(super) struct RequestSubject {
    pub(super) method: Method,
    pub(super) target: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Option<Vec<u8>>,
    /// None where the decision was about the request itself.
    pub(super) outcome: Option<Outcome>,
}

/// What was decided.
#[derive(Debug, Clone)]
pub enum Decided {
    /// What to do about a request.
    Action(Decision),
    /// Who should lead; none for as it is.
    Leader(Option<ReplicaId>),
}

impl Question {
    pub(super) fn about_request(
        request: RequestParts<'_>,
        inputs: Inputs,
        outcome: Option<&Outcome>,
    ) -> Self {
        let subject = Subject::Request(RequestSubject {
            method: request.method.clone(),
            target: request.target.to_owned(),
            headers: request.headers.clone(),
            body: request.body.map(<[u8]>::to_vec),
            outcome: outcome.cloned(),
        });
        Self { subject, inputs }
    }

    pub(super) fn about_election(view: &View, inputs: Inputs) -> Self {
        Self {
            subject: Subject::Election(view.clone()),
            inputs,
        }
    }

    /// For people: method and target of a request.
    pub fn asked(&self) -> String {
        match &self.subject {
            Subject::Request(request) => format!("{} {}", request.method, request.target),
            Subject::Election(view) => format!("an election of {}", view.replicas.len()),
        }
    }

    /// Has a version decide, on this thread.
    ///
    /// # Errors
    /// Where it does not.
    pub fn decide(&self, version: &Version) -> Result<Decided, Failure> {
        // Each version is a generation of its own: those asked before are not asked again here.
        with_instance(version.id + 1, version, |instance| {
            self.put_to(version, instance)
        })
    }

    /// Has an instance of a version decide.
    pub(super) fn put_to(
        &self,
        version: &Version,
        instance: &mut Instance,
    ) -> Result<Decided, Failure> {
        let subject = match &self.subject {
            Subject::Request(subject) => subject,
            Subject::Election(view) => {
                return instance.elect(self.inputs, view).map(Decided::Leader);
            }
        };
        let request = RequestParts {
            method: &subject.method,
            target: &subject.target,
            headers: &subject.headers,
            body: subject.body.as_deref(),
            now_ms: self.inputs.now_ms,
        };
        let decision = match &subject.outcome {
            None => on_request(version, instance, self.inputs, request),
            Some(outcome) => on_outcome_afresh(version, instance, self.inputs, request, outcome),
        };
        decision.map(Decided::Action)
    }

    /// How much memory it and its decision take beyond what is bounded for every request, in
    /// bytes, about.
    pub(super) fn bytes(&self, decided: &Decided) -> usize {
        let stocks = match &self.subject {
            Subject::Request(RequestSubject {
                outcome: Some(Outcome::Stocks(page)),
                ..
            }) => page.stocks.len(),
            _ => 0,
        };
        let reply = match decided {
            Decided::Action(Decision {
                action: Action::Respond(reply),
                ..
            }) => reply.bytes(),
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

    pub(super) fn keep(&self, question: &Question, decided: &Decided) {
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
