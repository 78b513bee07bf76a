//! Makes the decisions about one request.
//!
//! A request takes the publication once, at its beginning, and keeps the version that it found
//! for all its steps. A decision has no side effect, so one that fails is simply made again by
//! the version behind: a canary's by the active one, the active one's by the last good one. No
//! client sees it. But a version can want to have refused what it fails at: then nobody stands in,
//! since another one might let through what it would not.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::Guard;
use domain::time::BootTime;
use domain::{OrderNumber, ReplicaId};
use frontend_core::rollout::{Cohort, Served};
use http::{HeaderMap, StatusCode};

use crate::decision::{
    Action, Decision, InvalidDecision, OnFailure, Operation, Outcome, Reply, View,
};
use crate::evaluate::input::{DecisionInput, DecisionResult, path_key};
use crate::evaluate::recent::RECENT_EVERY;
use crate::evaluate::{RequestParts, check_last, on_outcome, on_outcome_afresh, on_request};
use crate::guest::bindings::World;
use crate::guest::failure::Failure;
use crate::guest::instance::{Ambient, Instance};
use crate::guest::instance_pool::with_instance;
use crate::guest::thread::processor_time;
use crate::guest::version::{SharedVersion, Version};
use crate::limits;
use crate::replay::audit::Job as AuditJob;
use crate::replay::comparison::Compared;
use crate::replay::shadow::Job;
use crate::rollout::audience::Arrival;
use crate::rollout::breaker::Instead;
use crate::rollout::monitor::Problem;
use crate::rollout::publication::{Published, Rank};
use crate::rollout::slowness::SLOWER_BY_MIN;
use crate::rollout::trial::Trial;
use crate::rollout::versions::Versions;

/// One kept response in so many that are found is made again.
const KEPT_CHECKED_EVERY: u64 = 256;

/// Of the responses to requests that a shadow sees, one in so many is made anew though it is kept.
const SHADOW_RENDERS_EVERY: u64 = 16;

/// What a decision that is made again may take beyond what is bounded for every request, in bytes.
const AUDITED_BYTES_MAX: usize = 256 << 10;

/// Why there is no decision about a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Undecided {
    /// Every version that may decide failed. Each failure has been counted and logged.
    #[error("no version of the policy could decide")]
    Failed,
    /// The version that decides wasted too much time over requests like this one, and is not asked
    /// about them for a while.
    #[error("the policy is not asked about requests like this one for a while")]
    BrokenOff,
    /// The version that was active last keeps clients out, and cannot be started.
    #[error("the policy that was active last cannot be started, and none is to stand in for it")]
    Closed,
}

/// Makes the decisions about one request.
pub struct Decider<'a> {
    versions: &'a Versions,
    published: Guard<Arc<Published>>,
    rank: Rank,
    /// A share of the requests is put to the candidate as well.
    shadowed: bool,
    seed: u64,
    /// Tells the client from others.
    client: u64,
    /// What came of the takes so far.
    takes: Vec<Outcome>,
    /// With whom the client is compared, where a canary is rolled out.
    cohort: Option<Cohort>,
    /// A version failed a decision, was not asked, or answered with an error of its own.
    failed: bool,
    /// Whether what is being done is a take.
    is_taking: bool,
    /// How much was done so far.
    steps: usize,
    /// The order that was placed.
    traded: Option<OrderNumber>,
}

impl Versions {
    /// The decider of one request: the versions stay the same for all its steps. Of this one nothing but
    /// the client is known, so it is of no audience that asks for more.
    pub fn decider(&self, client: &[u8]) -> Decider<'_> {
        Decider::new(self, client, None)
    }

    /// The same for a request that came so.
    pub fn decider_of(&self, client: &[u8], arrival: Arrival<'_>) -> Decider<'_> {
        Decider::new(self, client, Some(arrival))
    }

    /// Adds to the answer to a request that cannot be read what the active version adds to every reply whatever was asked.
    pub fn add_headers_to_unread(&self, reply: &mut HeaderMap) {
        let published = self.current();
        if published.closed.is_none() {
            let added = &published.active.manifest.reply_headers;
            added.add_to(reply, &HeaderMap::new());
        }
    }

    /// The replica that the policy wants to lead.
    pub fn elect(&self, now_ms: u64, view: &View) -> Result<Option<ReplicaId>, Undecided> {
        self.decider(&[]).elect(now_ms, view)
    }
}

impl<'a> Decider<'a> {
    /// For a request of `client`, which is what a canary sticks to.
    fn new(versions: &'a Versions, client: &[u8], arrival: Option<Arrival<'_>>) -> Self {
        let published = versions.current();
        let seed = fastrand::u64(..);
        let (mut rank, mut shadowed, mut cohort) = (Rank::Active, false, None);
        match published
            .candidate
            .as_ref()
            .map(|candidate| (candidate, candidate.trial))
        {
            Some((candidate, Trial::Canary(share))) if candidate.audience.includes(arrival) => {
                let point = point(&candidate.version, client);
                // Where nothing is decided, nothing is seen.
                let rollout = candidate.rollout.as_ref();
                let rollout = rollout.filter(|_| published.closed.is_none());
                cohort = rollout.and_then(|_| share.cohort(point));
                if share.covers(point) {
                    rank = Rank::Candidate;
                }
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
            client: client_key(client),
            takes: Vec::new(),
            cohort,
            failed: false,
            is_taking: false,
            steps: 0,
            traded: None,
        }
    }

    /// Whether what the client gets is compared with what others get: [`served`](Self::served) is to be
    /// told.
    pub fn is_compared(&self) -> bool {
        self.cohort.is_some()
    }

    /// The client got an answer of that status after so long, or went away before there was one.
    pub fn served(&self, status: Option<StatusCode>, took: Duration) {
        let candidate = self.published.candidate.as_ref();
        let rollout = candidate.and_then(|candidate| candidate.rollout.as_ref());
        if let (Some(cohort), Some(rollout)) = (self.cohort, rollout) {
            let served = Served {
                failed: self.failed,
                refused: status.is_some_and(|status| status.is_client_error()),
                took_us: took.as_micros() as u64,
            };
            rollout.observe(cohort, self.client, served);
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
            self.cohort = None;
        }
    }

    /// Adds to a reply what the version adds to every reply; where the last good one stands in, what the
    /// active one does. Nothing is known of what decides where no request is decided.
    pub fn add_reply_headers(&self, reply: &mut HeaderMap, request: &HeaderMap) {
        let version = match self.rank {
            Rank::Previous => &self.published.active,
            _ => self.version(),
        };
        let added = &version.manifest.reply_headers;
        if !added.is_empty() && self.published.closed.is_none() {
            added.add_to(reply, request);
        }
    }

    /// What it found published.
    pub fn published(&self) -> &Published {
        &self.published
    }

    /// What to do about a request.
    pub fn on_request(&mut self, request: RequestParts<'_>) -> Result<Decision, Undecided> {
        let ambient = self.ambient(request.now_ms);
        if self.published.closed.is_some() {
            return Err(Undecided::Closed);
        }
        self.step_aside(request.target)?;
        let input = || DecisionInput::of_request(request, ambient, &[], None);
        let mut decision = self.decide(Some(Asked::Request), input, |version, instance| {
            on_request(version, instance, ambient, request)
        })?;
        self.take_down(&mut decision);
        self.versions.seen.note(self.client);
        self.audit(request, &[], None, &decision);
        self.count_server_error(&decision, None, input);
        self.pass_on(Some(self.client), input, || {
            DecisionResult::Action(decision.clone())
        });
        self.is_taking = decision.takes();
        Ok(decision)
    }

    /// What to do about an outcome. `memo` comes from the decision before, which the version
    /// that is asked now made, unless that version failed: then the one behind it decides about
    /// the request from the start, and its own memo goes with the outcome, or with that of the trade where
    /// something was traded: it cannot trade again, and has to answer for it. What it responds is not
    /// for keeping, since it is not of `memo`.
    ///
    /// After [`STEPS_MAX`](limits::STEPS_MAX) outcomes whatever is no response is an invalid decision, of each version.
    pub fn on_outcome(
        &mut self,
        request: RequestParts<'_>,
        memo: &[u8],
        outcome: &Outcome,
    ) -> Result<Decision, Undecided> {
        let ambient = self.ambient(request.now_ms);
        let asked_first = self.version().id;
        self.steps += 1;
        if let Outcome::Traded(number) = outcome {
            self.traded = Some(*number);
        }
        let (is_last, traded) = (self.is_last(), self.traded.map(Outcome::Traded));
        let takes = mem::take(&mut self.takes);
        let input = || DecisionInput::of_request(request, ambient, &takes, Some(outcome));
        let asked = Some(Asked::Outcome(outcome));
        let mut decision = self.decide(asked, input, |version, instance| {
            let decided = if version.id == asked_first {
                on_outcome(version, instance, ambient, request, memo, outcome)
            } else {
                let outcome = traded.as_ref().unwrap_or(outcome);
                on_outcome_afresh(version, instance, ambient, request, &takes, outcome)
            };
            let decision = decided?;
            if is_last {
                check_last(&decision)?;
            }
            Ok(decision)
        })?;
        self.take_down(&mut decision);
        if self.version().id == asked_first {
            self.audit(request, memo, Some(outcome), &decision);
        } else if let Action::Respond(reply) = &mut decision.action {
            reply.keep = None;
        }
        self.count_server_error(&decision, Some(outcome), input);
        self.pass_on(Some(self.client), input, || {
            DecisionResult::Action(decision.clone())
        });
        self.takes = takes;
        if self.is_taking {
            self.takes.push(outcome.clone());
        }
        let is_repeated = matches!(decision.action, Action::Retry(_));
        self.is_taking = decision.takes() || is_repeated && self.is_taking;
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

    /// Whether this request gets a response that is made anew though one is kept: as some of those that a
    /// shadow sees do, since it would see no response otherwise.
    pub fn renders_anew(&self) -> bool {
        self.shadowed
            && self.seed.is_multiple_of(SHADOW_RENDERS_EVERY)
            && self.versions.shadow().has_room()
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
        let input = || DecisionInput::of_request(request, ambient, &self.takes, Some(outcome));
        let is_alike = match rendered.map(|decision| decision.action) {
            Ok(Action::Respond(mut reply)) => is_same(&mut reply),
            Ok(_) => false,
            Err(failure) => {
                report(version, &failure, &input);
                return true;
            }
        };
        if !is_alike {
            version.keep_no_more();
            let problem = "a response that it had kept depends on more than its vary-key: for the same outcome and key it gives another";
            let failure = Failure::from(InvalidDecision(problem.into()));
            report(version, &failure, &input);
            self.report(Problem::Failure(failure, Duration::ZERO), &input);
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
        let input = || DecisionInput::of_election(view, ambient);
        let elected = self.decide(None, input, |_, instance| instance.elect(ambient, view))?;
        self.pass_on(None, input, || DecisionResult::Leader(elected));
        Ok(elected)
    }

    /// Leaves a request to the version behind, where the one that decides is not asked about it.
    fn step_aside(&mut self, target: &str) -> Result<(), Undecided> {
        loop {
            let health = match (self.rank, &self.published.candidate) {
                (Rank::Candidate, Some(candidate)) => &candidate.health,
                (Rank::Active, _) => &self.published.health,
                _ => return Ok(()),
            };
            let Some(broken_off) = health.broken_off() else {
                return Ok(());
            };
            match broken_off.instead(path_key(target), self.client, BootTime::now()) {
                Some(Instead::Refuse) => {
                    self.failed = true;
                    return Err(Undecided::BrokenOff);
                }
                Some(Instead::StandIn) if self.fall_back() => self.failed = true,
                _ => return Ok(()),
            }
        }
    }

    /// Has the version behind decide from now on; whether there is one.
    fn fall_back(&mut self) -> bool {
        match self.rank {
            Rank::Candidate => self.rank = Rank::Active,
            Rank::Active if self.published.previous.is_some() => self.rank = Rank::Previous,
            Rank::Active | Rank::Previous => return false,
        }
        true
    }

    /// Asks the version; where it fails, the one behind it, unless it wants requests refused then. An
    /// election is nobody's request: `asked` is `None`.
    fn decide<T: Decided>(
        &mut self,
        asked: Option<Asked<'_>>,
        input: impl Fn() -> DecisionInput,
        mut call: impl FnMut(&Version, &mut Instance) -> Result<T, Failure>,
    ) -> Result<T, Undecided> {
        let measures = self.versions.recent.is_sampled(self.seed);
        loop {
            let version = self.version();
            let begun = version.clock().ticks();
            let processor = measures.then(processor_time);
            let answer = with_instance(self.published.generation, version, |instance| {
                call(version, instance)
            });
            let ticks = version.clock().ticks().saturating_sub(begun);
            let failure = match answer {
                Ok(decision) => {
                    version.counts.decisions.increment();
                    let took = processor.map(|began| processor_time().saturating_sub(began));
                    if let Some(took) = took {
                        let is_served = asked.is_none_or(Asked::is_served) || decision.serves();
                        version.costs.note(input().route(), is_served, took);
                    }
                    if let Some(stands_for) = seems_slow(ticks, took) {
                        self.report(Problem::Slow(stands_for), &input);
                    }
                    return Ok(decision);
                }
                Err(failure) => failure,
            };
            report(version, &failure, &input);
            self.failed = true;
            let version = self.version();
            let refuses = asked.is_some() && version.manifest.on_failure == OnFailure::Refuse;
            if is_to_blame(version, asked) {
                let took = limits::EPOCH_TICK * u32::try_from(ticks).unwrap_or(u32::MAX);
                self.report(Problem::Failure(failure, took), &input);
            }
            if refuses || !self.fall_back() {
                return Err(Undecided::Failed);
            }
        }
    }

    /// Whether an order was placed: what a client gets then is no read.
    pub fn has_traded(&self) -> bool {
        self.traded.is_some()
    }

    /// Whether nothing more is done for the request, but to answer it.
    fn is_last(&self) -> bool {
        self.steps >= limits::STEPS_MAX
    }

    fn report(&self, problem: Problem, input: &impl Fn() -> DecisionInput) {
        let (client, is_last) = (self.client, self.is_last());
        self.versions
            .report(&self.published, self.rank, client, problem, is_last, input);
    }

    /// Counts an answer of 500 and above that no backend is to blame for, nor the request: 501 is the
    /// answer to a method that nobody knows, which any client can send. Most are meant, as that of
    /// maintenance is; 500 says by itself that something went wrong (RFC 9110, section 15.6.1).
    fn count_server_error(
        &mut self,
        decision: &Decision,
        outcome: Option<&Outcome>,
        input: impl Fn() -> DecisionInput,
    ) {
        let Action::Respond(reply) = &decision.action else {
            return;
        };
        let blames_another = reply.status == StatusCode::NOT_IMPLEMENTED
            || matches!(outcome, Some(Outcome::Unavailable(_)));
        if reply.status.is_server_error() && !blames_another {
            self.failed = true;
            self.version().counts.errors.fetch_add(1, Ordering::Relaxed);
            if reply.status == StatusCode::INTERNAL_SERVER_ERROR {
                self.report(Problem::ServerError, &input);
            }
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
        client: Option<u64>,
        input: impl FnOnce() -> DecisionInput,
        result: impl FnOnce() -> DecisionResult,
    ) {
        let candidate = self.published.candidate.as_ref().filter(|_| self.shadowed);
        // Nothing is copied for one that has no time.
        let candidate = candidate.filter(|candidate| {
            let shadow = self.versions.shadow();
            let has_room = match client {
                Some(_) => shadow.has_room(),
                None => shadow.has_room_for_election(),
            };
            if !has_room {
                candidate.differences.count_dropped();
            }
            has_room
        });
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
            let version = self.version();
            self.versions.recorder.record(version, &input, &result);
        }
        if let Some(candidate) = candidate {
            self.versions.shadow().submit(Job {
                version: Arc::clone(&candidate.version),
                active: Arc::clone(&self.published.active),
                differences: Arc::clone(&candidate.differences),
                compared: client
                    .zip(candidate.rollout.as_ref())
                    .map(|(client, rollout)| Compared {
                        client,
                        comparison: rollout.comparison(),
                    }),
                input,
                result,
            });
        }
    }
}

/// What a version is asked about a request.
#[derive(Debug, Clone, Copy)]
enum Asked<'a> {
    Request,
    Outcome(&'a Outcome),
}

impl Asked<'_> {
    /// Whether a backend did something for whoever asked, or said why not.
    fn is_served(self) -> bool {
        match self {
            Self::Request | Self::Outcome(Outcome::Unavailable(_)) => false,
            Self::Outcome(outcome) => !outcome.is_of_take(),
        }
    }
}

/// What a version decides.
trait Decided {
    /// Whether something is done for whoever asked, and it is not refused.
    fn serves(&self) -> bool;
}

impl Decided for Decision {
    fn serves(&self) -> bool {
        match &self.action {
            // An answer that says nothing, as a preflight gets, may be given to whatever is asked.
            Action::Respond(reply) => {
                reply.status.as_u16() < 400 && reply.status != StatusCode::NO_CONTENT
            }
            // That may be taken for whatever is asked.
            Action::Perform(operation) => !matches!(operation, Operation::Take(_)),
            Action::Retry(_) => true,
        }
    }
}

/// Who should lead.
impl Decided for Option<ReplicaId> {
    fn serves(&self) -> bool {
        true
    }
}

/// Of so many decisions, one has its processor time measured.
const MEASURED_EVERY: u32 = RECENT_EVERY as u32;

/// Ticks of the clock from which on a decision seems slow: the first may come at once.
const SLOW_TICKS: u64 = 2;

/// For how many decisions one stands that seems slow. On a busy machine it may have waited for a
/// processor: who judges it looks again.
fn seems_slow(ticks: u64, took: Option<Duration>) -> Option<u32> {
    if ticks >= SLOW_TICKS {
        return Some(1);
    }
    (took? >= SLOWER_BY_MIN).then_some(MEASURED_EVERY)
}

/// Tells clients apart. Addresses of IPv4 and networks of IPv6 are short, and cost nothing.
fn client_key(client: &[u8]) -> u64 {
    let mut short = [0; 8];
    match short.get_mut(..client.len()) {
        Some(start) => {
            start.copy_from_slice(client);
            u64::from_be_bytes(short)
        }
        None => {
            let mut hasher = DefaultHasher::new();
            client.hash(&mut hasher);
            hasher.finish()
        }
    }
}

/// Whether it is a version's own doing that it fails, which ends its service. How long a list is, one
/// of world 1.0 does not decide: nobody may take it out of service by adding stocks.
fn is_to_blame(version: &Version, asked: Option<Asked<'_>>) -> bool {
    match asked {
        Some(Asked::Outcome(Outcome::Stocks(page))) if version.world == World::V1_0 => {
            page.stocks.len() <= limits::LISTED_OWED
        }
        _ => true,
    }
}

/// Counts a failure, and logs it while failures are few: a policy that fails every request
/// must not fill the disk.
fn report(version: &Version, failure: &Failure, input: &impl Fn() -> DecisionInput) {
    let failures = version.counts.count_failure(failure);
    if failures.is_power_of_two() {
        let failure = input().redact(&version.config.scrub(&failure.to_string()));
        tracing::error!(policy = %version, failures, failure, "the policy failed a decision");
    }
}

/// Where a client falls between 0 and 2⁶⁴: the same for one candidate, another for the next, so
/// that it is not always the same clients who try things first. Other gateways, and this one after a
/// restart, have the same.
fn point(candidate: &Version, client: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    candidate.digest.hash(&mut hasher);
    client.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests;
