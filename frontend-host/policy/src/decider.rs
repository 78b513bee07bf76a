//! Makes the decisions about one request.
//!
//! A request takes the publication once, at its beginning, and keeps the version that it found
//! for all its steps. A decision has no side effect, so one that fails is simply made again by
//! the version behind: a canary's by the active one, the active one's by the last good one. No
//! client sees it.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arc_swap::Guard;
use domain::ReplicaId;
use http::{HeaderMap, StatusCode};

use crate::decision::{Action, Decision, InvalidDecision, Outcome, Reply, View};
use crate::evaluate::input::{DecisionInput, DecisionResult};
use crate::evaluate::{RequestParts, on_outcome, on_outcome_afresh, on_request};
use crate::guest::bindings::World;
use crate::guest::failure::Failure;
use crate::guest::instance::{Ambient, Instance};
use crate::guest::instance_pool::with_instance;
use crate::guest::version::{SharedVersion, Version};
use crate::limits;
use crate::replay::audit::Job as AuditJob;
use crate::replay::shadow::Job;
use crate::rollout::publication::{Published, Rank, Trial};
use crate::rollout::versions::Versions;

/// One kept response in so many that are found is made again.
const KEPT_CHECKED_EVERY: u64 = 256;

/// What a decision that is made again may take beyond what is bounded for every request, in bytes.
const AUDITED_BYTES_MAX: usize = 256 << 10;

/// No version could decide. Each failure has been counted and logged.
#[derive(Debug, thiserror::Error)]
#[error("no version of the policy could decide")]
pub struct Undecided;

/// Makes the decisions about one request.
pub struct Decider<'a> {
    versions: &'a Versions,
    published: Guard<Arc<Published>>,
    rank: Rank,
    /// A share of the requests is put to the candidate as well.
    shadowed: bool,
    seed: u64,
    /// What came of the takes so far.
    takes: Vec<Outcome>,
}

impl Versions {
    /// The decider of one request: the versions stay the same for all its steps.
    pub fn decider(&self, client: &[u8]) -> Decider<'_> {
        Decider::new(self, client)
    }

    /// The replica that the policy wants to lead.
    pub fn elect(&self, now_ms: u64, view: &View) -> Result<Option<ReplicaId>, Undecided> {
        self.decider(&[]).elect(now_ms, view)
    }
}

impl<'a> Decider<'a> {
    /// For a request of `client`, which is what a canary sticks to.
    pub(crate) fn new(versions: &'a Versions, client: &[u8]) -> Self {
        let published = versions.current();
        let seed = fastrand::u64(..);
        let (mut rank, mut shadowed) = (Rank::Active, false);
        match published
            .candidate
            .as_ref()
            .map(|candidate| (candidate, candidate.trial))
        {
            Some((candidate, Trial::Canary(share)))
                if share.covers(point(candidate.version.id, client)) =>
            {
                rank = Rank::Candidate;
            }
            Some((_, Trial::Shadow(share))) => shadowed = share.covers(seed),
            _ => {}
        }
        Self {
            versions,
            published,
            rank,
            shadowed,
            seed,
            takes: Vec::new(),
        }
    }

    /// The version that decides.
    pub fn version(&self) -> &SharedVersion {
        match (
            self.rank,
            &self.published.candidate,
            &self.published.previous,
        ) {
            (Rank::Candidate, Some(candidate), _) => &candidate.version,
            (Rank::Previous, _, Some(previous)) => previous,
            _ => &self.published.active,
        }
    }

    /// Has the active version decide where the candidate would, and could not be shown a header that
    /// it wants to see: no client is turned away by a version on trial.
    pub fn leave_unreadable(&mut self, headers: &HeaderMap) {
        if self.rank == Rank::Candidate && self.version().unreadable(headers).is_some() {
            self.rank = Rank::Active;
        }
    }

    /// What it found published.
    pub fn published(&self) -> &Published {
        &self.published
    }

    /// What to do about a request.
    pub fn on_request(&mut self, request: RequestParts<'_>) -> Result<Decision, Undecided> {
        let ambient = self.ambient(request.now_ms);
        let mut decision = self.decide(None, |version, instance| {
            on_request(version, instance, ambient, request)
        })?;
        self.take_down(&mut decision);
        self.audit(request, &[], None, &decision);
        self.count_server_error(&decision, None);
        self.pass_on(
            || DecisionInput::of_request(request, ambient, &[], None),
            || DecisionResult::Action(decision.clone()),
        );
        Ok(decision)
    }

    /// What to do about an outcome. `memo` comes from the decision before, which the version
    /// that is asked now made, unless that version failed: then the one behind it decides about
    /// the request from the start, and its own memo goes with the outcome. What it responds is not
    /// for keeping, since it is not of `memo`.
    pub fn on_outcome(
        &mut self,
        request: RequestParts<'_>,
        memo: &[u8],
        outcome: &Outcome,
    ) -> Result<Decision, Undecided> {
        let ambient = self.ambient(request.now_ms);
        let asked_first = self.version().id;
        let takes = mem::take(&mut self.takes);
        let mut decision = self.decide(Some(outcome), |version, instance| {
            if version.id == asked_first {
                on_outcome(version, instance, ambient, request, memo, outcome)
            } else {
                on_outcome_afresh(version, instance, ambient, request, &takes, outcome)
            }
        })?;
        self.take_down(&mut decision);
        if self.version().id == asked_first {
            self.audit(request, memo, Some(outcome), &decision);
        } else if let Action::Respond(reply) = &mut decision.action {
            reply.keep = None;
        }
        self.count_server_error(&decision, Some(outcome));
        self.pass_on(
            || DecisionInput::of_request(request, ambient, &takes, Some(outcome)),
            || DecisionResult::Action(decision.clone()),
        );
        self.takes = takes;
        if outcome.is_of_take() {
            self.takes.push(outcome.clone());
        }
        Ok(decision)
    }

    /// What the version counts and says with a decision, which is for a client.
    fn take_down(&self, decision: &mut Decision) {
        if let Some(remarks) = decision.remarks.take() {
            self.version().take_down(*remarks);
        }
    }

    /// What the version finds beside its arguments.
    pub fn ambient(&self, now_ms: u64) -> Ambient {
        Ambient {
            now_ms,
            seed: self.seed,
        }
    }

    /// Whether a kept response that is found for this request is one of those that are
    /// [checked](Self::is_rendered_alike).
    pub fn checks_kept(&self) -> bool {
        self.seed.is_multiple_of(KEPT_CHECKED_EVERY)
    }

    /// Whether the version makes for this request the response that it had kept, in the same
    /// circumstances. Where it makes another, that is an invalid decision, and it has none kept from
    /// now on. `is_same` compares. Where it fails nothing is known of it, and that is counted.
    pub fn is_rendered_alike(
        &self,
        request: RequestParts<'_>,
        ambient: Ambient,
        memo: &[u8],
        outcome: &Outcome,
        is_same: impl FnOnce(&mut Reply) -> bool,
    ) -> bool {
        let version = self.version();
        let request = RequestParts {
            now_ms: ambient.now_ms,
            ..request
        };
        let rendered = with_instance(self.published.generation, version, |instance| {
            on_outcome(version, instance, ambient, request, memo, outcome)
        });
        let is_alike = match rendered.map(|decision| decision.action) {
            Ok(Action::Respond(mut reply)) => is_same(&mut reply),
            Ok(_) => false,
            Err(failure) => {
                report(version, &failure);
                return true;
            }
        };
        if !is_alike {
            version.keep_no_more();
            let problem = "a response that it had kept depends on more than its vary-key: for the same outcome and key it gives another";
            report(version, &InvalidDecision(problem.into()).into());
            self.versions.note_failure(&self.published, self.rank);
        }
        is_alike
    }

    /// The replica that the policy wants to lead.
    pub(crate) fn elect(
        &mut self,
        now_ms: u64,
        view: &View,
    ) -> Result<Option<ReplicaId>, Undecided> {
        let ambient = self.ambient(now_ms);
        // An election is nobody's request: it is not for a candidate that is on trial. But that
        // candidate is asked as well, without effect, whatever its share: elections are few.
        self.rank = Rank::Active;
        self.shadowed = true;
        let elected = self.decide(None, |_, instance| instance.elect(ambient, view))?;
        self.pass_on(
            || DecisionInput::of_election(view, ambient),
            || DecisionResult::Leader(elected),
        );
        Ok(elected)
    }

    /// Asks the version, about an outcome where there is one; where it fails, the one behind it.
    fn decide<T>(
        &mut self,
        outcome: Option<&Outcome>,
        mut call: impl FnMut(&Version, &mut Instance) -> Result<T, Failure>,
    ) -> Result<T, Undecided> {
        loop {
            let version = self.version();
            let asked = with_instance(self.published.generation, version, |instance| {
                call(version, instance)
            });
            let failure = match asked {
                Ok(decision) => {
                    version.counts.decisions.fetch_add(1, Ordering::Relaxed);
                    return Ok(decision);
                }
                Err(failure) => failure,
            };
            report(version, &failure);
            if is_to_blame(version, outcome) {
                self.versions.note_failure(&self.published, self.rank);
            }
            match self.rank {
                Rank::Candidate => self.rank = Rank::Active,
                Rank::Active if self.published.previous.is_some() => self.rank = Rank::Previous,
                _ => return Err(Undecided),
            }
        }
    }

    /// An answer of 500 and above that no backend is to blame for, nor the request: 501 is the answer
    /// to a method that nobody knows, which any client can send.
    fn count_server_error(&self, decision: &Decision, outcome: Option<&Outcome>) {
        let Action::Respond(reply) = &decision.action else {
            return;
        };
        let blames_another = reply.status == StatusCode::NOT_IMPLEMENTED
            || matches!(outcome, Some(Outcome::Unavailable(_)));
        if reply.status.is_server_error() && !blames_another {
            self.version().counts.errors.fetch_add(1, Ordering::Relaxed);
            self.versions.note_failure(&self.published, self.rank);
        }
    }

    /// Has a sample of the decisions made again in a fresh instance.
    fn audit(
        &self,
        request: RequestParts<'_>,
        memo: &[u8],
        outcome: Option<&Outcome>,
        decision: &Decision,
    ) {
        let Versions {
            recent, auditor, ..
        } = self.versions;
        if !recent.is_sampled(self.seed) || !auditor.is_idle() {
            return;
        }
        let ambient = self.ambient(request.now_ms);
        let input = DecisionInput::of_request(request, ambient, &[], outcome);
        if input.bytes(&DecisionResult::Action(decision.clone())) <= AUDITED_BYTES_MAX {
            auditor.submit(AuditJob {
                version: Arc::clone(self.version()),
                input,
                memo: memo.to_vec(),
                decided: decision.clone(),
            });
        }
    }

    /// Has the candidate make the decision as well, and takes it down where somebody records.
    fn pass_on(
        &self,
        input: impl FnOnce() -> DecisionInput,
        result: impl FnOnce() -> DecisionResult,
    ) {
        let candidate = self.published.candidate.as_ref().filter(|_| self.shadowed);
        let records = self.versions.recorder.is_listening();
        let samples = self.versions.recent.is_sampled(self.seed);
        if self.rank != Rank::Active || !(candidate.is_some() || records || samples) {
            return;
        }
        let (input, result) = (input(), result());
        if samples {
            self.versions.recent.store(&input, &result);
        }
        if records {
            let manifest = &self.published.active.manifest;
            self.versions.recorder.record(manifest, &input, &result);
        }
        if let Some(candidate) = candidate {
            self.versions.shadow().submit(Job {
                version: Arc::clone(&candidate.version),
                differences: Arc::clone(&candidate.differences),
                input,
                result,
            });
        }
    }
}

/// Whether it is a version's own doing that it fails, which ends its service. How long a list is, one
/// of world 1.0 does not decide: nobody may take it out of service by adding stocks.
fn is_to_blame(version: &Version, outcome: Option<&Outcome>) -> bool {
    match outcome {
        Some(Outcome::Stocks(page)) if version.world == World::V1_0 => {
            page.stocks.len() <= limits::LISTED_OWED
        }
        _ => true,
    }
}

/// Counts a failure, and logs it while failures are few: a policy that fails every request
/// must not fill the disk.
fn report(version: &Version, failure: &Failure) {
    let failures = version.counts.count_failure(failure);
    if failures.is_power_of_two() {
        tracing::error!(policy = %version, failures, %failure, "the policy failed a decision");
    }
}

/// Where a client falls between 0 and 2⁶⁴: the same for one candidate, another for the next, so
/// that it is not always the same clients who try things first.
fn point(candidate: u64, client: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    candidate.hash(&mut hasher);
    client.hash(&mut hasher);
    hasher.finish()
}
