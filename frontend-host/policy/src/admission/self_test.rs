//! What a component must be able to decide before it may serve.
//!
//! The self-test puts requests of every kind to it, and every outcome that the backends can
//! give to its reads and trades. What it decides is its own business; that it decides, within
//! its time, in a form that the host can act on, and the same again, is not.

use http::Method;

use super::keys::not_in_key;
use super::link::Linked;
use super::rejection::{Problem, Rejection, Tests};
use super::samples::{NOW_MS, ambient, lookups, outcomes, requests, views};
use crate::decision::{
    Action, Decision, InvalidDecision, Manifest, Operation, Outcome, PolicyRequest,
};
use crate::evaluate::input::{DecisionInput, RequestInput};
use crate::evaluate::{check_declared, check_first, check_last};
use crate::guest::bindings::World;
use crate::guest::config::Config;
use crate::guest::failure::Failure;
use crate::guest::instance::{Instance, StartFailure};
use crate::guest::version::Version;
use crate::guest::written::Written;
use crate::limits;

/// Failed tests after which no more are made.
const FAILED_TESTS_MAX: usize = 32;

/// What is shown of a trapping policy's own words, in characters.
const OUTPUT_CHARS_MAX: usize = 200;

/// A component that may serve.
pub struct Admitted(Version);

impl Admitted {
    /// To have it decide.
    pub fn into_version(self) -> Version {
        self.0
    }
}

/// Has a component take its configuration and say what it is, and tests whether it decides: requests
/// and elections of every kind, and what was to be decided lately.
pub(super) fn self_test(
    linked: Linked,
    config: Config,
    recent: &[DecisionInput],
) -> Result<Admitted, Rejection> {
    let (component, world, template) = linked.into_parts();
    if world == World::V1_0 && !config.raw().is_empty() {
        let interface = world.interface();
        return Err(Problem::NoConfig { interface }.into());
    }
    let version = Version::from_template(component, world, template, config.clone());
    let version = version.map_err(|failure| match failure {
        StartFailure::ConfigRefused(why) => Problem::ConfigRefused(config.scrub(&why)),
        StartFailure::Failed(failure) => not_started(world, &failure),
    })?;
    let mut tester = Tester {
        version: &version,
        instance: None,
        failed: 0,
        flaws: Vec::new(),
    };
    for (method, target, body) in requests() {
        tester.test(&format!("{method} {target}"), |instance| {
            decide_thrice(&version, instance, &method, &target, body.as_deref())
        })?;
    }
    for (target, input) in lookups() {
        tester.test(target, |instance| expect_keyed(&version, instance, &input))?;
    }
    for view in views() {
        let replicas = view.replicas.len();
        tester.test(&format!("an election of {replicas}"), |instance| {
            let elected = instance.elect(ambient(), &view)?;
            expect_same(&elected, &instance.elect(ambient(), &view)?)
        })?;
    }
    // What it could not be shown in service, it need not decide about either.
    let recent = recent.iter().filter(|input| input.is_readable_to(&version));
    for input in recent {
        let test = format!("{}, asked lately", input.redacted());
        let hide = |written| input.redact_written(written);
        tester.test_with(&test, &hide, |instance| {
            input.evaluate_on(&version, instance)?;
            match input.request() {
                Some(request) => expect_keyed(&version, instance, request),
                None => Ok(()),
            }
        })?;
    }
    Rejection::check(tester.into_problems())?;
    Ok(Admitted(version))
}

fn not_started(world: World, failure: &Failure) -> Problem {
    Problem::Start {
        function: world.functions()[0],
        cause: failure.cause().to_owned(),
    }
}

/// What is wrong with a decision.
#[derive(Debug, PartialEq, Eq)]
enum Flaw {
    Traps(String),
    TooSlow,
    Invalid(String),
    NotDeterministic,
    /// It keeps what it renders by this, and has it in no key.
    NotInKey(String),
}

impl From<Failure> for Flaw {
    fn from(failure: Failure) -> Self {
        let cause = failure.cause().to_owned();
        match failure {
            Failure::Trap(_) => Self::Traps(cause),
            Failure::Overrun(_) => Self::TooSlow,
            Failure::Invalid(_) => Self::Invalid(cause),
        }
    }
}

impl From<InvalidDecision> for Flaw {
    fn from(invalid: InvalidDecision) -> Self {
        Failure::from(invalid).into()
    }
}

/// Puts tests to a version, and notes which it fails in what way.
struct Tester<'a> {
    version: &'a Version,
    /// None after a failure: nothing is known of what it left in an instance.
    instance: Option<Instance>,
    failed: usize,
    flaws: Vec<(Flaw, Tests)>,
}

impl Tester<'_> {
    fn test(
        &mut self,
        name: &str,
        run: impl FnOnce(&mut Instance) -> Result<(), Flaw>,
    ) -> Result<(), Rejection> {
        self.test_with(name, &|written| written, run)
    }

    /// `hide` takes out of the policy's words what nobody is to see.
    fn test_with(
        &mut self,
        name: &str,
        hide: &dyn Fn(Written) -> Written,
        run: impl FnOnce(&mut Instance) -> Result<(), Flaw>,
    ) -> Result<(), Rejection> {
        let hide = |written: Written| hide(written.without(self.version.config.secrets())).text;
        let hide_whole = |text: String| hide(Written::whole(&text));
        if self.failed == FAILED_TESTS_MAX {
            return Ok(());
        }
        let mut instance = match self.instance.take() {
            Some(instance) => instance,
            None => self
                .version
                .start_unhurried_instance()
                .map_err(|failure| not_started(self.version.world, &failure))?,
        };
        let result = run(&mut instance);
        let output = instance.take_output();
        match result {
            Ok(()) => self.instance = Some(instance),
            Err(Flaw::Traps(cause)) => {
                let output = output.map(hide);
                let cause = with_output(hide_whole(cause), output.as_deref());
                self.note(Flaw::Traps(cause), name);
            }
            Err(Flaw::Invalid(problem)) => {
                let problem = hide_whole(problem);
                self.note(Flaw::Invalid(problem), name);
            }
            Err(flaw) => self.note(flaw, name),
        }
        Ok(())
    }

    fn note(&mut self, flaw: Flaw, test: &str) {
        self.failed += 1;
        match self.flaws.iter_mut().find(|(noted, _)| *noted == flaw) {
            // What was asked lately may have been asked often.
            Some((_, tests)) if tests.0.iter().any(|noted| noted == test) => {}
            Some((_, tests)) => tests.0.push(test.to_owned()),
            None => self.flaws.push((flaw, Tests(vec![test.to_owned()]))),
        }
    }

    fn into_problems(self) -> Vec<Problem> {
        let problem = |(flaw, tests)| match flaw {
            Flaw::Traps(cause) => Problem::Traps { tests, cause },
            Flaw::TooSlow => Problem::TooSlow(tests),
            Flaw::Invalid(problem) => Problem::Invalid { tests, problem },
            Flaw::NotDeterministic => Problem::NotDeterministic(tests),
            Flaw::NotInKey(by) => Problem::NotInKey {
                by,
                tests,
                key: match self.version.world {
                    World::V1_0 => "memo",
                    World::V1_1 | World::V1_2 => "vary-key",
                },
            },
        };
        self.flaws.into_iter().map(problem).collect()
    }
}

/// Why it trapped, and what it wrote about it: a panic's message, mostly.
fn with_output(cause: String, output: Option<&str>) -> String {
    let Some(output) = output else {
        return cause;
    };
    let words = output.split_whitespace().collect::<Vec<_>>().join(" ");
    let shown: String = words
        .chars()
        .filter(|character| !character.is_control())
        .take(OUTPUT_CHARS_MAX)
        .collect();
    format!("{cause}; it wrote: {shown}")
}

/// What is kept must depend on nothing but the outcome and the key.
fn expect_keyed(
    version: &Version,
    instance: &mut Instance,
    request: &RequestInput,
) -> Result<(), Flaw> {
    match not_in_key(version, instance, request)? {
        Some(by) => Err(Flaw::NotInKey(by)),
        None => Ok(()),
    }
}

/// The same inputs must give the same answer.
fn expect_same<T: PartialEq>(answer: &T, again: &T) -> Result<(), Flaw> {
    if answer == again {
        Ok(())
    } else {
        Err(Flaw::NotDeterministic)
    }
}

/// Puts a request to the policy twice, and to a fresh instance of it, and where it asks for a read, a
/// trade or a take, every outcome.
fn decide_thrice(
    version: &Version,
    instance: &mut Instance,
    method: &Method,
    target: &str,
    body: Option<&[u8]>,
) -> Result<(), Flaw> {
    let request = PolicyRequest {
        method,
        target,
        headers: &[],
        connection: None,
        body,
        now_ms: NOW_MS,
    };
    let decided = decide_all(&version.manifest, instance, &request)?;
    expect_same(
        &decided,
        &decide_all(&version.manifest, instance, &request)?,
    )?;
    let mut fresh = version.start_unhurried_instance()?;
    expect_same(
        &decided,
        &decide_all(&version.manifest, &mut fresh, &request)?,
    )
}

/// What is decided about a request, and about every outcome; where tokens are taken, also once they are
/// granted; and what is decided then, until there is a response.
fn decide_all(
    manifest: &Manifest,
    instance: &mut Instance,
    request: &PolicyRequest<'_>,
) -> Result<Vec<Decision>, Flaw> {
    let first = instance.on_request(ambient(), request)?;
    check_first(&first)?;
    check_declared(&first, manifest)?;
    let mut tell = |memo: &[u8], outcome: &Outcome| -> Result<Decision, Flaw> {
        let decision = instance.on_outcome(ambient(), request, memo, outcome)?;
        check_declared(&decision, manifest)?;
        Ok(decision)
    };
    let mut asked = first.clone();
    let mut decided = vec![first];
    for step in 1..=limits::STEPS_MAX {
        let next = decided.len();
        for outcome in outcomes(&asked.action) {
            let decision = tell(&asked.memo, &outcome)?;
            decided.push(decision.clone());
            follow(decision, outcome, step, &mut tell, &mut decided)?;
        }
        if !asked.takes() {
            break;
        }
        // What came of the first outcome: the tokens were granted.
        asked = decided[next].clone();
    }
    Ok(decided)
}

/// Follows what is decided after so many `steps` until there is a response: each action does what it was to
/// do, and what is tried again comes to the same.
fn follow(
    mut decision: Decision,
    mut outcome: Outcome,
    steps: usize,
    tell: &mut impl FnMut(&[u8], &Outcome) -> Result<Decision, Flaw>,
    decided: &mut Vec<Decision>,
) -> Result<(), Flaw> {
    for _ in steps..limits::STEPS_MAX {
        match &decision.action {
            // Who may follow orders is sent them, and nothing more is asked.
            Action::Respond(_) | Action::Perform(Operation::FollowOrders { .. }) => return Ok(()),
            Action::Retry(_) => {}
            action @ Action::Perform(_) => outcome = outcomes(action).swap_remove(0),
        }
        decision = tell(&decision.memo, &outcome)?;
        decided.push(decision.clone());
    }
    check_last(&decision).map_err(Flaw::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::Reply;
    use http::{HeaderMap, StatusCode};

    fn respond(body: &'static [u8]) -> Decision {
        let reply = Reply {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: body.into(),
            keep: None,
        };
        Decision {
            action: Action::Respond(Box::new(reply)),
            memo: Vec::new(),
            remarks: None,
        }
    }

    #[test]
    fn bodies_that_are_no_text_are_told_apart() {
        let (one, other) = (respond(b"\xff"), respond(b"\xfe"));
        assert_eq!(expect_same(&one, &respond(b"\xff")), Ok(()));
        assert_eq!(expect_same(&one, &other), Err(Flaw::NotDeterministic));
    }
}
