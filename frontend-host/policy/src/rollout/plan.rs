//! The plan of a rollout: its steps, and what a version is held to in each.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use frontend_core::rollout::{ErrorRates, LatencyLimit, Limits};
use http::Uri;
use serde::Deserialize;

use super::audience::{Audience, NoCondition};
use super::trial::{Share, Trial};
use crate::decision::OnFailure;
use crate::replay::{Mask, MaskError};

/// What is done where no plan is given.
pub const DEFAULT_PLAN: &str = include_str!("plan/default.toml");

/// Steps of a plan, and its length in bytes.
const STEPS_MAX: usize = 16;
pub const PLAN_BYTES_MAX: usize = 64 << 10;

/// Longest time that a step may take: 30 days.
const SECONDS_MAX: u64 = 30 * 24 * 60 * 60;

/// Decisions or clients that a step waits for, unless it says how many, and at most.
const SAMPLES_DEFAULT: u64 = 100;
const SAMPLES_MAX: u64 = 50_000;

/// How long a step takes at least and at most, unless it says so.
const SECONDS_DEFAULT: u64 = 60;
const WITHIN_DEFAULT: u64 = 60 * 60;

/// A plan that can be carried out.
#[derive(Debug)]
pub struct Plan {
    /// As it was sent.
    text: String,
    pub steps: Vec<Step>,
    /// How often the whole plan may drop a version that is within its limits, and a step pass one that is not.
    false_alarms: f64,
    misses: f64,
}

/// A step of a plan.
#[derive(Debug)]
pub struct Step {
    pub trial: Trial,
    pub audience: Arc<Audience>,
    limits: Limits,
    /// Where it is not said, it is by the active version.
    admissions_max: Option<f64>,
    /// What of decisions may differ, and counts as no difference.
    pub ignored: Vec<Mask>,
    /// How many decisions, or clients of a canary, it takes at least.
    pub samples_min: u64,
    /// How long it takes at least.
    pub time_min: Duration,
    /// After how long it pauses, where it is not decided.
    pub time_max: Duration,
    /// Who is asked whether it may begin.
    pub gate: Option<Uri>,
}

/// Why a plan cannot be carried out.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    #[error("the plan is not what a plan is like: {0}")]
    Syntax(#[from] toml::de::Error),
    #[error("a plan has 1 to {STEPS_MAX} steps ([[step]]), and at most {PLAN_BYTES_MAX} bytes")]
    Size,
    /// Of a step, counted from 1.
    #[error("step {step} of the plan: {problem}")]
    Step { step: usize, problem: Problem },
    #[error("{0} must be more than 0 and at most 0.5")]
    Rate(&'static str),
}

/// What is wrong with a step.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    #[error("say either shadow = 0.1 or canary = 0.05, more than 0 and at most 1")]
    Trial,
    #[error("only a canary has an audience (only = […])")]
    Audience,
    #[error(transparent)]
    Condition(#[from] NoCondition),
    #[error(transparent)]
    Mask(#[from] MaskError),
    #[error("seconds must be at most within-seconds, and that at most {SECONDS_MAX}")]
    Time,
    #[error("samples must be from 1 to {SAMPLES_MAX}")]
    Samples,
    #[error(
        "errors must be more than 0 and less than 1, refusals more than 0 and at most 1, and admissions and differences from 0 to 1"
    )]
    Share,
    #[error("latency has a quantile between 0 and 1, and a ratio of at least 1 and at most 100")]
    Latency,
    #[error("a gate is a URL such as http://127.0.0.1:9000/gate, without a user's name")]
    Gate,
    #[error("the first step has no gate: it begins when you begin the rollout")]
    FirstGate,
}

/// A plan as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Written {
    #[serde(default = "false_alarms")]
    false_alarms: f64,
    #[serde(default = "misses")]
    misses: f64,
    #[serde(default)]
    limits: WrittenLimits,
    #[serde(default, rename = "step")]
    steps: Vec<WrittenStep>,
}

/// The same, of a step.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct WrittenStep {
    shadow: Option<f64>,
    canary: Option<f64>,
    #[serde(default)]
    only: Vec<String>,
    samples: Option<u64>,
    seconds: Option<u64>,
    within_seconds: Option<u64>,
    gate: Option<String>,
    #[serde(default)]
    limits: WrittenLimits,
}

/// Limits of all steps, or of one, which go before these.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct WrittenLimits {
    errors: Option<f64>,
    refusals: Option<f64>,
    admissions: Option<f64>,
    differences: Option<f64>,
    ignore: Option<Vec<String>>,
    latency: Option<WrittenLatency>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenLatency {
    #[serde(default = "median")]
    quantile: f64,
    ratio: f64,
}

fn false_alarms() -> f64 {
    0.01
}

fn misses() -> f64 {
    0.05
}

fn median() -> f64 {
    0.5
}

/// Share of errors that is allowed, unless a plan says so.
const ERRORS_DEFAULT: f64 = 0.01;

/// The same of refusals.
const REFUSALS_DEFAULT: f64 = 0.05;

impl FromStr for Plan {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<Self, PlanError> {
        if text.len() > PLAN_BYTES_MAX {
            return Err(PlanError::Size);
        }
        let written: Written = toml::from_str(text)?;
        if !(1..=STEPS_MAX).contains(&written.steps.len()) {
            return Err(PlanError::Size);
        }
        let is_rate = |rate: f64| rate > 0.0 && rate <= 0.5;
        if !is_rate(written.false_alarms) {
            return Err(PlanError::Rate("false-alarms"));
        }
        if !is_rate(written.misses) {
            return Err(PlanError::Rate("misses"));
        }
        let steps = written.steps.iter().enumerate().map(|(place, step)| {
            Step::of(step, &written.limits).map_err(|problem| PlanError::Step {
                step: place + 1,
                problem,
            })
        });
        let steps: Vec<Step> = steps.collect::<Result<_, _>>()?;
        if steps[0].gate.is_some() {
            return Err(PlanError::Step {
                step: 1,
                problem: Problem::FirstGate,
            });
        }
        Ok(Self {
            text: text.to_owned(),
            false_alarms: written.false_alarms,
            misses: written.misses,
            steps,
        })
    }
}

impl Plan {
    /// As it was sent.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Of each test that it makes beside an active version that wants this: false alarms are of all tests
    /// together, of which each has its part.
    pub(super) fn rates(&self, active: OnFailure) -> ErrorRates {
        let tests: usize = self.steps.iter().map(|step| step.tests(active)).sum();
        ErrorRates {
            false_alarm: self.false_alarms / tests as f64,
            miss: self.misses,
        }
    }
}

impl Step {
    fn of(written: &WrittenStep, all: &WrittenLimits) -> Result<Self, Problem> {
        let trial = match (written.shadow, written.canary) {
            (Some(share), None) => Share::new(share).map(Trial::Shadow),
            (None, Some(share)) => Share::new(share).map(Trial::Canary),
            _ => None,
        };
        let trial = trial.ok_or(Problem::Trial)?;
        if matches!(trial, Trial::Shadow(_)) && !written.only.is_empty() {
            return Err(Problem::Audience);
        }
        let own = &written.limits;
        let limits = Limits {
            errors_max: own.errors.or(all.errors).unwrap_or(ERRORS_DEFAULT),
            refusals_max: own.refusals.or(all.refusals).unwrap_or(REFUSALS_DEFAULT),
            admissions_max: 1.0,
            differences_max: own.differences.or(all.differences).unwrap_or(1.0),
            latency: own.latency.or(all.latency).map(|latency| LatencyLimit {
                quantile: latency.quantile,
                ratio_max: latency.ratio,
            }),
        };
        let admissions_max = own.admissions.or(all.admissions);
        if !(limits.errors_max > 0.0
            && limits.errors_max < 1.0
            && limits.refusals_max > 0.0
            && limits.refusals_max <= 1.0
            && (0.0..=1.0).contains(&limits.differences_max)
            && admissions_max.is_none_or(|max| (0.0..=1.0).contains(&max)))
        {
            return Err(Problem::Share);
        }
        if let Some(latency) = limits.latency
            && !(latency.quantile > 0.0
                && latency.quantile < 1.0
                && (1.0..=100.0).contains(&latency.ratio_max))
        {
            return Err(Problem::Latency);
        }
        let ignored = own.ignore.as_ref().or(all.ignore.as_ref());
        let ignored = ignored.into_iter().flatten().map(|text| text.parse());
        let seconds = written.seconds.unwrap_or(SECONDS_DEFAULT);
        let within = written
            .within_seconds
            .unwrap_or_else(|| WITHIN_DEFAULT.max(seconds));
        if seconds > within || within > SECONDS_MAX {
            return Err(Problem::Time);
        }
        let samples_min = written.samples.unwrap_or(SAMPLES_DEFAULT);
        if !(1..=SAMPLES_MAX).contains(&samples_min) {
            return Err(Problem::Samples);
        }
        let gate = written.gate.as_deref().map(|text| {
            let uri: Option<Uri> = text.parse().ok();
            let is_url = |uri: &Uri| {
                let named = uri.authority().map(|authority| authority.as_str());
                let is_plain = named.is_some_and(|named| !named.contains('@'));
                uri.scheme_str() == Some("http") && is_plain
            };
            uri.filter(is_url).ok_or(Problem::Gate)
        });
        Ok(Self {
            trial,
            audience: Arc::new(Audience::parse(&written.only)?),
            limits,
            admissions_max,
            ignored: ignored.collect::<Result<_, _>>()?,
            samples_min,
            time_min: Duration::from_secs(seconds),
            time_max: Duration::from_secs(within),
            gate: gate.transpose()?,
        })
    }

    /// What a version is held to, beside an active version that wants this. It lets nobody in whom one refuses that
    /// keeps clients out, unless the plan says otherwise.
    pub fn limits(&self, active: OnFailure) -> Limits {
        let by_default = match active {
            OnFailure::Refuse => 0.0,
            OnFailure::LastGood => 1.0,
        };
        Limits {
            admissions_max: self.admissions_max.unwrap_or(by_default),
            ..self.limits
        }
    }

    /// How many times as long a version may take, where that is asked.
    pub(super) fn ratio_max(&self) -> Option<f64> {
        self.limits.latency.map(|latency| latency.ratio_max)
    }

    /// How many tests it makes that can be wrong: of failures, refusals, admissions, differences and times. One
    /// decision of a shadow that lets in what none may is no chance.
    fn tests(&self, active: OnFailure) -> usize {
        let limits = self.limits(active);
        let is_shadow = matches!(self.trial, Trial::Shadow(_));
        let admits_by_chance =
            limits.admissions_max < 1.0 && !(is_shadow && limits.admissions_max == 0.0);
        1 + usize::from(limits.refusals_max < 1.0)
            + usize::from(admits_by_chance)
            + usize::from(is_shadow && limits.differences_max < 1.0)
            + usize::from(limits.latency.is_some())
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.trial.name(), self.trial.share().get())?;
        for condition in self.audience.texts() {
            write!(f, ", {condition}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_plan_goes_from_a_shadow_to_a_quarter_of_the_clients() {
        let plan: Plan = DEFAULT_PLAN.parse().unwrap();
        let steps: Vec<_> = plan.steps.iter().map(ToString::to_string).collect();
        assert_eq!(
            steps,
            ["shadow 0.1", "canary 0.01", "canary 0.05", "canary 0.25"]
        );
        // Of failures, refusals and times, in each step; and of admissions in each canary, where nobody may be let in.
        for (active, tests) in [(OnFailure::LastGood, 12.0), (OnFailure::Refuse, 15.0)] {
            let rates = ErrorRates {
                false_alarm: 0.01 / tests,
                miss: 0.05,
            };
            assert_eq!(plan.rates(active), rates);
        }
    }

    #[test]
    fn a_step_has_limits_of_its_own_or_those_of_all() {
        let plan: Plan = r#"
            misses = 0.1
            limits = { errors = 0.02, ignore = ["headers.x-policy"] }
            [[step]]
            shadow = 1
            limits = { differences = 0, errors = 0.5 }
            [[step]]
            canary = 0.5
            only = ["header:x-beta=1", "path:/stocks"]
            gate = "http://127.0.0.1:9000/gate?of=step"
            samples = 7
            seconds = 0
            within-seconds = 5
            limits = { admissions = 0.3 }
        "#
        .parse()
        .unwrap();
        let [shadow, canary] = &plan.steps[..] else {
            panic!("{plan:?}");
        };
        let limits = |step: &Step, active| {
            let limits = step.limits(active);
            (
                limits.errors_max,
                limits.differences_max,
                limits.admissions_max,
            )
        };
        let (last_good, refuse) = (OnFailure::LastGood, OnFailure::Refuse);
        assert_eq!(limits(shadow, last_good), (0.5, 0.0, 1.0));
        assert_eq!(limits(shadow, refuse), (0.5, 0.0, 0.0));
        assert_eq!(limits(canary, last_good), (0.02, 1.0, 0.3));
        assert_eq!(limits(canary, refuse), (0.02, 1.0, 0.3));
        assert_eq!((shadow.ignored.len(), canary.ignored.len()), (1, 1));
        assert_eq!(
            canary.to_string(),
            "canary 0.5, header:x-beta=1, path:/stocks"
        );
        assert_eq!(
            (canary.samples_min, canary.time_max),
            (7, Duration::from_secs(5))
        );
        assert_eq!(plan.rates(refuse).miss, 0.1);
    }

    #[test]
    fn what_is_wrong_with_a_plan_is_said() {
        let step = "[[step]]\nshadow = 0.1\n";
        for (text, said) in [
            ("".to_owned(), "1 to 16 steps"),
            (step.repeat(17), "1 to 16 steps"),
            (format!("{step}percent = 3"), "percent"),
            (format!("misses = 0\n{step}"), "misses must be"),
            ("[[step]]\n".to_owned(), "step 1 of the plan: say either"),
            (
                format!("{step}{step}canary = 0.1"),
                "step 2 of the plan: say either",
            ),
            (
                "[[step]]\ncanary = 2".to_owned(),
                "more than 0 and at most 1",
            ),
            (format!("{step}only = [\"path:/\"]"), "only a canary"),
            (
                "[[step]]\ncanary = 1\nonly = [\"all\"]".to_owned(),
                "`all` is not a condition",
            ),
            (
                format!("{step}seconds = 9\nwithin-seconds = 8"),
                "at most within-seconds",
            ),
            (format!("{step}samples = 0"), "from 1 to 50000"),
            (format!("{step}limits = {{ errors = 0 }}"), "more than 0"),
            (
                format!("{step}limits = {{ ignore = [\"colour\"] }}"),
                "no field `colour`",
            ),
            (
                format!("{step}limits = {{ latency = {{ ratio = 0.5 }} }}"),
                "a ratio of at least 1",
            ),
            (
                format!("{step}gate = \"https://example.org\""),
                "a gate is a URL",
            ),
            (
                format!("{step}gate = \"http://me@example.org\""),
                "a gate is a URL",
            ),
            (
                format!("{step}gate = \"http://example.org\""),
                "the first step has no gate",
            ),
            (
                format!("{step}limits = {{ refusals = 0 }}"),
                "refusals more than 0",
            ),
            (
                format!("{step}limits = {{ admissions = -1 }}"),
                "admissions and differences from 0 to 1",
            ),
        ] {
            let error = text.parse::<Plan>().unwrap_err().to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
