//! How a rollout goes on: what is seen of the version on trial, and what comes of it.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use domain::time::BootTime;
use frontend_core::Backoff;
use frontend_core::rollout::{Cohort, Cohorts, Judged, Measure, Served, Shown, Verdict, verdict};
use http::Uri;
use serde::{Deserialize, Serialize};

use super::plan::{Plan, Step};
use super::trial::Trial;
use crate::decision::OnFailure;
use crate::guest::version::Version;
use crate::replay::comparison::Comparison;

/// How soon a change that could not be saved is tried again, at first and at last.
const RETRIED_AFTER_MIN: Duration = Duration::from_secs(1);
const RETRIED_AFTER_MAX: Duration = Duration::from_secs(64);

/// A plan that is being carried out, at one of its steps. Each step has another.
#[derive(Debug)]
pub struct Rollout {
    pub plan: Arc<Plan>,
    /// Which step, counted from 0.
    pub step: usize,
    /// Why it does not go on by itself, where it does not.
    pub paused: Option<String>,
    since: BootTime,
    /// As a shadow.
    comparison: Arc<Comparison>,
    /// As a canary.
    cohorts: Arc<Mutex<Cohorts>>,
    gate: Mutex<Gate>,
    /// When a change that could not be saved is tried again.
    retry: Mutex<Retry>,
}

/// When what failed is tried again.
#[derive(Debug)]
struct Retry {
    backoff: Backoff,
    at: BootTime,
}

/// What the gate of the next step said.
#[derive(Debug, Default)]
struct Gate {
    is_open: bool,
    /// Why not yet.
    said: Option<String>,
}

/// What is to be done about a rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing yet.
    Wait,
    /// The gate of the next step is to be asked.
    Ask(Uri),
    Step(usize),
    /// It has passed the last step.
    Promote,
    Pause(String),
    Fail(String),
}

/// What a gate is asked.
#[derive(Debug, Clone)]
pub struct Question {
    pub gate: Uri,
    /// JSON: the version, the step that is to begin, and what was seen in the one before.
    pub body: String,
    /// The rollout that it is about.
    pub(super) rollout: Arc<Rollout>,
}

impl Question {
    /// Whether both are about the same step.
    pub fn is_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.rollout, &other.rollout)
    }
}

/// What a gate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GateAnswer {
    /// The step may begin.
    Open,
    /// It must not.
    Closed(String),
    /// It is to be asked again; why.
    NotYet(String),
}

impl fmt::Display for GateAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open => f.write_str("yes"),
            Self::Closed(why) => write!(f, "no: {why}"),
            Self::NotYet(why) => write!(f, "not yet: {why}"),
        }
    }
}

/// How far a rollout is, for people and for JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Progress {
    /// `running`, `gate` or `paused`.
    pub state: String,
    /// Why it is paused, or what the gate said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Counted from 1.
    pub step: usize,
    pub steps: usize,
    /// What the step is, in words.
    pub doing: String,
    pub elapsed_ms: u64,
    pub within_ms: u64,
    /// Decisions as a shadow, clients of the smaller cohort as a canary; and how many it takes at least.
    pub samples: u64,
    pub samples_min: u64,
    pub measures: Vec<Measured>,
}

/// Some lines of text.
impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            state,
            why,
            step,
            steps,
            doing,
            elapsed_ms,
            within_ms,
            samples,
            samples_min,
            measures,
        } = self;
        let (elapsed, within) = (elapsed_ms / 1000, within_ms / 1000);
        writeln!(
            f,
            "step {step} of {steps}, {doing}: {state} for {elapsed} s of {within}; {samples} samples of {samples_min}"
        )?;
        if let Some(why) = why {
            writeln!(f, "  {}", why.escape_debug())?;
        }
        measures
            .iter()
            .try_for_each(|measure| writeln!(f, "  {measure}"))
    }
}

/// What is seen with regard to a limit.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Measured {
    pub name: String,
    /// `within` the limit, `beyond` it, or `open`.
    pub judged: String,
    pub seen: String,
    /// The intervals that it was judged by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub intervals: Vec<ShownInterval>,
}

/// What lies between two values, see [`Shown`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ShownInterval {
    pub of: String,
    pub low: f64,
    pub high: Option<f64>,
    pub limit: Option<f64>,
    /// `share` of 1, or `us`.
    pub unit: String,
}

impl From<&Measure> for Measured {
    fn from(measure: &Measure) -> Self {
        let judged = match measure.judged {
            Judged::Within => "within",
            Judged::Beyond => "beyond",
            Judged::Open => "open",
        };
        Self {
            name: measure.name.to_owned(),
            judged: judged.to_owned(),
            seen: measure.seen.clone(),
            intervals: Vec::new(),
        }
    }
}

impl Measured {
    /// The same for people, with the intervals.
    fn with_intervals(measure: &Measure) -> Self {
        let unit = match measure.name {
            "latency" => "us",
            _ => "share",
        };
        let intervals = measure.shown();
        Self {
            intervals: intervals.iter().map(|it| shown(it, unit)).collect(),
            ..Self::from(measure)
        }
    }
}

fn shown(interval: &Shown, unit: &str) -> ShownInterval {
    let Shown {
        of,
        low,
        high,
        limit,
    } = *interval;
    ShownInterval {
        of: of.to_owned(),
        low,
        high,
        limit,
        unit: unit.to_owned(),
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name, judged, seen, ..
        } = self;
        write!(f, "{name} {judged}: {seen}")
    }
}

impl Rollout {
    /// Begins a step of a plan, counted from 0.
    pub(super) fn begin(plan: Arc<Plan>, step: usize) -> Arc<Self> {
        Self::resumed(plan, step, None)
    }

    /// The same; a rollout that is `paused` does not go on by itself.
    pub(super) fn resumed(plan: Arc<Plan>, step: usize, paused: Option<String>) -> Arc<Self> {
        let current = &plan.steps[step];
        let comparison = Comparison::new(current.ignored.clone(), current.ratio_max());
        Arc::new(Self {
            plan,
            step,
            paused,
            since: BootTime::now(),
            comparison: Arc::new(comparison),
            cohorts: Arc::default(),
            gate: Mutex::default(),
            retry: Mutex::new(Retry {
                backoff: Backoff::new(RETRIED_AFTER_MIN, RETRIED_AFTER_MAX),
                at: BootTime::default(),
            }),
        })
    }

    /// The same step, paused or not, with what was seen in it so far. Its time begins anew.
    pub(super) fn with_paused(&self, paused: Option<String>) -> Arc<Self> {
        let mut again = Self::resumed(Arc::clone(&self.plan), self.step, paused);
        if let Some(again) = Arc::get_mut(&mut again) {
            again.comparison = Arc::clone(&self.comparison);
            again.cohorts = Arc::clone(&self.cohorts);
        }
        again
    }

    /// A change could not be saved: it is tried again later.
    pub(super) fn hold_back(&self, now: BootTime) {
        let mut retry = self.retry.lock().unwrap_or_else(PoisonError::into_inner);
        let pause = retry.backoff.pause(0.0);
        retry.at = now + pause;
    }

    fn is_held_back(&self, now: BootTime) -> bool {
        let retry = self.retry.lock().unwrap_or_else(PoisonError::into_inner);
        now < retry.at
    }

    /// The step that it is at.
    pub fn current(&self) -> &Step {
        &self.plan.steps[self.step]
    }

    /// Where a shadow's decisions are noted.
    pub(crate) fn comparison(&self) -> Arc<Comparison> {
        Arc::clone(&self.comparison)
    }

    /// A request of a client of either cohort was answered.
    pub(crate) fn observe(&self, cohort: Cohort, client: u64, served: Served) {
        let now = BootTime::now();
        self.cohorts().observe(cohort, client, served, now);
    }

    /// The gate of the next step has answered. Where it refuses, that is returned.
    pub(super) fn answered(&self, answer: GateAnswer) -> Option<String> {
        let mut gate = self.gate();
        match answer {
            GateAnswer::Open => gate.is_open = true,
            GateAnswer::NotYet(why) => gate.said = Some(why),
            GateAnswer::Closed(why) => return Some(why),
        }
        None
    }

    /// What is to be done, beside an active version that wants this.
    pub(super) fn next(&self, now: BootTime, active: OnFailure) -> Next {
        if self.is_held_back(now) {
            return Next::Wait;
        }
        let (samples, measures) = self.judge(now, active);
        let step = self.current();
        let elapsed = now.since(self.since);
        let verdict = verdict(&measures);
        if verdict == Verdict::Fail {
            let beyond = measures
                .iter()
                .filter(|measure| measure.judged == Judged::Beyond);
            let is_for_people = beyond.clone().all(Measure::is_of_admissions);
            let beyond: Vec<_> = beyond.map(|it| Measured::from(it).to_string()).collect();
            let why = format!("step {}, {step}: {}", self.step + 1, beyond.join("; "));
            return match (is_for_people, &self.paused) {
                (false, _) => Next::Fail(why),
                (true, None) => Next::Pause(format!("{why}: drop it, or skip the step if it may")),
                (true, Some(_)) => Next::Wait,
            };
        }
        if self.paused.is_some() {
            return Next::Wait;
        }
        if verdict == Verdict::Pass && samples >= step.samples_min && elapsed >= step.time_min {
            let next = self.step + 1;
            return match self.plan.steps.get(next) {
                None => Next::Promote,
                Some(Step {
                    gate: Some(gate), ..
                }) if !self.gate().is_open => Next::Ask(gate.clone()),
                Some(_) => Next::Step(next),
            };
        }
        if elapsed >= step.time_max {
            let mut open: Vec<_> = measures
                .iter()
                .filter(|measure| measure.judged == Judged::Open)
                .map(|measure| Measured::from(measure).to_string())
                .collect();
            if samples < step.samples_min {
                open.push(format!("{samples} samples of {}", step.samples_min));
            }
            return Next::Pause(format!("inconclusive: {}", open.join("; ")));
        }
        Next::Wait
    }

    /// How far it is, beside an active version that wants this.
    pub fn progress(&self, active: OnFailure) -> Progress {
        let now = BootTime::now();
        let (samples, measures) = self.judge(now, active);
        let step = self.current();
        let said = self.gate().said.clone();
        let (state, why) = match (&self.paused, said) {
            (Some(why), _) => ("paused", Some(why.clone())),
            (None, Some(said)) => ("gate", Some(said)),
            (None, None) => ("running", None),
        };
        Progress {
            state: state.to_owned(),
            why,
            step: self.step + 1,
            steps: self.plan.steps.len(),
            doing: step.to_string(),
            elapsed_ms: now.since(self.since).as_millis() as u64,
            within_ms: step.time_max.as_millis() as u64,
            samples,
            samples_min: step.samples_min,
            measures: measures.iter().map(Measured::with_intervals).collect(),
        }
    }

    /// What a gate is asked before the next step begins.
    pub(super) fn question(
        self: &Arc<Self>,
        gate: Uri,
        version: &Version,
        active: OnFailure,
    ) -> Question {
        let next = self.step + 1;
        let body = serde_json::json!({
            "policy": version.digest.to_string(),
            "name": version.manifest.name,
            "version": version.manifest.version,
            "step": next + 1,
            "steps": self.plan.steps.len(),
            "doing": self.plan.steps.get(next).map(ToString::to_string),
            "before": self.progress(active),
        });
        Question {
            gate,
            body: body.to_string(),
            rollout: Arc::clone(self),
        }
    }

    /// How many samples there are, and what they say.
    fn judge(&self, now: BootTime, active: OnFailure) -> (u64, Vec<Measure>) {
        let step = self.current();
        let (limits, rates) = (step.limits(active), self.plan.rates(active));
        match step.trial {
            Trial::Shadow(_) => {
                let paired = self.comparison.paired();
                let mut measures = limits.judge_paired(&paired, rates);
                if let Some(admitted) = self.comparison.admitted() {
                    let of_them = measures.iter_mut().filter(|it| it.is_of_admissions());
                    of_them.for_each(|it| it.seen += &format!(", first {admitted}"));
                }
                (paired.decisions, measures)
            }
            Trial::Canary(share) => {
                // Those who serve do not wait for it to be judged.
                let outcomes = self.cohorts().settle(now);
                let [canary, baseline] = outcomes.each_ref().map(|outcome| outcome.clients);
                // With all of them there is nobody to compare with.
                if share.get() >= 1.0 {
                    return (canary, Vec::new());
                }
                let measures = limits.judge_cohorts(outcomes, rates);
                (canary.min(baseline), measures)
            }
        }
    }

    fn cohorts(&self) -> MutexGuard<'_, Cohorts> {
        self.cohorts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rollout(plan: &str) -> Arc<Rollout> {
        Rollout::begin(Arc::new(plan.parse().unwrap()), 0)
    }

    fn after(rollout: &Rollout, seconds: u64) -> Next {
        let now = rollout.since + Duration::from_secs(seconds);
        rollout.next(now, OnFailure::LastGood)
    }

    #[test]
    fn a_step_passes_once_it_is_shown_and_has_taken_its_time() {
        let plan = "[[step]]\nshadow = 1\nsamples = 700\nseconds = 60\n[[step]]\ncanary = 0.5";
        let rollout = rollout(plan);
        assert_eq!(after(&rollout, 60), Next::Wait);
        (0..600).for_each(|_| rollout.comparison.note_for_test(true, false));
        assert_eq!(after(&rollout, 60), Next::Wait, "600 of 700");
        (0..100).for_each(|_| rollout.comparison.note_for_test(true, false));
        assert_eq!(after(&rollout, 59), Next::Wait);
        assert_eq!(after(&rollout, 60), Next::Step(1));
    }

    #[test]
    fn a_step_that_is_not_decided_pauses_and_says_what_is_open() {
        let rollout = rollout("[[step]]\nshadow = 1\nseconds = 0\nwithin-seconds = 10");
        (0..20).for_each(|_| rollout.comparison.note_for_test(false, false));
        assert_eq!(after(&rollout, 9), Next::Wait);
        let Next::Pause(why) = after(&rollout, 10) else {
            panic!("it did not pause");
        };
        let said = "inconclusive: failures open: 0 of 20 decisions failed; refusals open: 0 of 20 decisions refuse what the active version does not; 20 samples of 100";
        assert_eq!(why, said);
    }

    #[test]
    fn a_version_that_fails_is_dropped_before_its_time_is_over() {
        let rollout = rollout("[[step]]\nshadow = 1");
        (0..20).for_each(|_| rollout.comparison.note_for_test(false, true));
        let Next::Fail(why) = after(&rollout, 0) else {
            panic!("it did not fail");
        };
        assert_eq!(
            why,
            "step 1, shadow 1: failures beyond: 20 of 20 decisions failed"
        );
    }

    #[test]
    fn a_version_that_lets_in_what_the_active_one_refuses_pauses_and_is_for_people_to_judge() {
        let begun = rollout("[[step]]\nshadow = 1");
        (0..20).for_each(|_| begun.comparison.note_for_test(false, false));
        begun.comparison.admit_for_test("GET /stocks/nvidia");
        let next = |rollout: &Rollout, active| rollout.next(rollout.since, active);
        assert_eq!(next(&begun, OnFailure::LastGood), Next::Wait, "not asked");
        let Next::Pause(why) = next(&begun, OnFailure::Refuse) else {
            panic!("it did not pause");
        };
        let said = "step 1, shadow 1: admissions beyond: 1 of 21 decisions let in what the active version refuses, first GET /stocks/nvidia: drop it, or skip the step if it may";
        assert_eq!(why, said);
        let paused = begun.with_paused(Some(why));
        assert_eq!(next(&paused, OnFailure::Refuse), Next::Wait);
        // Whoever wants that says so.
        let meant = rollout("[limits]\nadmissions = 1\n[[step]]\nshadow = 1");
        meant.comparison.admit_for_test("GET /stocks/nvidia");
        assert_eq!(next(&meant, OnFailure::Refuse), Next::Wait);
        // What is beyond another limit is dropped as ever.
        (0..20).for_each(|_| paused.comparison.note_for_test(false, true));
        let next = next(&paused, OnFailure::Refuse);
        assert!(matches!(next, Next::Fail(_)), "{next:?}");
    }

    #[test]
    fn a_gate_is_asked_until_it_opens() {
        let gate = "http://127.0.0.1:9/gate";
        let plan =
            format!("[[step]]\nshadow = 1\nseconds = 0\n[[step]]\ncanary = 1\ngate = \"{gate}\"");
        let rollout = rollout(&plan);
        (0..700).for_each(|_| rollout.comparison.note_for_test(false, false));
        let ask = Next::Ask(Uri::from_static(gate));
        assert_eq!(after(&rollout, 0), ask);
        assert_eq!(rollout.answered(GateAnswer::NotYet("at nine".into())), None);
        assert_eq!(after(&rollout, 0), ask);
        let Progress { state, why, .. } = rollout.progress(OnFailure::LastGood);
        assert_eq!((state.as_str(), why.as_deref()), ("gate", Some("at nine")));
        let refused = rollout.answered(GateAnswer::Closed("no".into()));
        assert_eq!(refused.as_deref(), Some("no"));
        assert_eq!(rollout.answered(GateAnswer::Open), None);
        assert_eq!(after(&rollout, 0), Next::Step(1));
    }

    #[test]
    fn a_canary_for_all_has_nobody_to_be_compared_with() {
        let rollout = rollout("[[step]]\ncanary = 1\nsamples = 2\nseconds = 0");
        let served = Served {
            failed: false,
            refused: false,
            took_us: 7,
        };
        (0..2).for_each(|client| rollout.observe(Cohort::Canary, client, served));
        assert_eq!(after(&rollout, 0), Next::Wait);
        assert_eq!(after(&rollout, 11), Next::Promote);
    }
}
