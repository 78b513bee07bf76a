//! What a component must be able to decide before it may serve.
//!
//! The self-test puts requests of every kind to it, and every outcome that the backends can
//! give to its reads and trades. What it decides is its own business; that it decides, within
//! its time, in a form that the host can act on, and the same again, is not.

use std::time::Duration;

use domain::{Epoch, OrderNumber, Price, Quantity, ReplicaId, Side, StockName};
use http::Method;

use super::link::Linked;
use super::rejection::{Problem, Rejection, Tests};
use crate::decision::{
    Action, InvalidDecision, Listing, Operation, Order, Outcome, Page, PolicyRequest, Refusal,
    ReplicaView, Stock, Unavailability, View,
};
use crate::evaluate::expect_first;
use crate::evaluate::input::DecisionInput;
use crate::guest::bindings::World;
use crate::guest::config::Config;
use crate::guest::failure::Failure;
use crate::guest::instance::{Ambient, Instance, StartFailure};
use crate::guest::version::Version;
use crate::limits;

/// Noon of 1 January 2026.
const NOW_MS: u64 = 1_767_268_800_000;

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
            decide_twice(instance, &method, &target, body.as_deref())
        })?;
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
        let test = format!("{}, asked lately", input.describe());
        tester.test(&test, |instance| {
            input.evaluate_on(&version, instance)?;
            Ok(())
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
                let cause = self.version.config.scrub(&with_output(cause, output));
                self.note(Flaw::Traps(cause), name);
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
        };
        self.flaws.into_iter().map(problem).collect()
    }
}

/// Why it trapped, and what it wrote about it: a panic's message, mostly.
fn with_output(cause: String, output: Option<(Vec<u8>, usize)>) -> String {
    let Some((output, _)) = output else {
        return cause;
    };
    let text = String::from_utf8_lossy(&output);
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let shown: String = words
        .chars()
        .filter(|character| !character.is_control())
        .take(OUTPUT_CHARS_MAX)
        .collect();
    format!("{cause}; it wrote: {shown}")
}

/// The same inputs must give the same answer.
fn expect_same<T: PartialEq>(answer: &T, again: &T) -> Result<(), Flaw> {
    if answer == again {
        Ok(())
    } else {
        Err(Flaw::NotDeterministic)
    }
}

fn ambient() -> Ambient {
    Ambient {
        now_ms: NOW_MS,
        seed: 1,
    }
}

fn requests() -> Vec<(Method, String, Option<Vec<u8>>)> {
    let get = |target: &str| (Method::GET, target.to_owned(), None);
    let post = |body: &[u8]| (Method::POST, "/orders".to_owned(), Some(body.to_vec()));
    vec![
        get("/"),
        get("/stocks"),
        get("/stocks?limit=10000"),
        get("/stocks?limit=0&after=%zz"),
        get("/stocks?limit=4294967297&after=nvidia"),
        get("/stocks/nvidia"),
        get("/stocks/%00%ff%zz"),
        get(&format!("/stocks/{}", "x".repeat(4096))),
        get("/orders/0"),
        get("/orders/18446744073709551615"),
        get("/orders/-1"),
        get("/stocks/nvidia?a=b&c"),
        (Method::HEAD, "/stocks/nvidia".into(), None),
        (Method::DELETE, "/stocks/nvidia".into(), None),
        (Method::OPTIONS, "*".into(), None),
        post(br#"{"name":"meta","type":"sell","quantity":10}"#),
        post(br#"{"name":"meta","type":"buy","quantity":9223372036854775807}"#),
        post(br#"{"name":"meta","type":"buy","quantity":-1}"#),
        post(br#"{"name":"meta","type":"lend","quantity":1e999}"#),
        post(b""),
        post(b"\xff\xfe{"),
        post("[".repeat(10_000).as_bytes()),
    ]
}

/// Puts a request to the policy twice and, where it asks for a read or a trade, every outcome.
fn decide_twice(
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
    let decision = expect_first(instance.on_request(ambient(), &request)?)?;
    let again = instance.on_request(ambient(), &request)?;
    expect_same(&decision, &again)?;
    for outcome in outcomes(&decision.action) {
        let memo = &decision.memo;
        let decision = instance.on_outcome(ambient(), &request, memo, &outcome)?;
        let again = instance.on_outcome(ambient(), &request, memo, &outcome)?;
        expect_same(&decision, &again)?;
    }
    Ok(())
}

fn name() -> StockName {
    StockName::new("nvidia").expect("a short name")
}

/// What can come of an action.
fn outcomes(action: &Action) -> Vec<Outcome> {
    let stock = Stock {
        name: name(),
        price: Price::from_minor(24063).expect("a small price"),
        quantity: 1000,
    };
    let order = Order {
        number: OrderNumber(3),
        name: name(),
        side: Side::Sell,
        quantity: Quantity::new(10).expect("a small quantity"),
    };
    let Action::Perform(operation) = action else {
        return Vec::new();
    };
    match operation {
        Operation::ReadStock { .. } => vec![
            Outcome::Stock(stock),
            Outcome::Refused(Refusal::StockNotFound),
            Outcome::Unavailable(Unavailability::NoCatalog),
        ],
        Operation::ListStocks(listing) => vec![
            Outcome::Stocks(full_page(listing, &stock)),
            Outcome::Stocks(Page {
                stocks: Vec::new(),
                more: false,
            }),
            Outcome::Unavailable(Unavailability::NoCatalog),
        ],
        Operation::ReadOrder { .. } => vec![
            Outcome::Order(order),
            Outcome::Refused(Refusal::OrderNotFound),
            Outcome::Unavailable(Unavailability::NoReplica),
        ],
        Operation::Trade(_) => vec![
            Outcome::Traded(OrderNumber(0)),
            Outcome::Refused(Refusal::StockNotFound),
            Outcome::Refused(Refusal::NotEnough),
            Outcome::Refused(Refusal::KeyConflict),
            Outcome::Refused(Refusal::TooMany),
            Outcome::Unavailable(Unavailability::NoCatalog),
            Outcome::Unavailable(Unavailability::NoReplica),
        ],
    }
}

/// As many stocks as a policy asked for; of one that has no say in it, as many as it must be able
/// to answer with.
fn full_page(listing: &Listing, stock: &Stock) -> Page {
    let (stocks, more) = match listing {
        Listing::Page { limit, .. } => (*limit as usize, true),
        Listing::All => (limits::LISTED_OWED, false),
    };
    let numbered = |number: usize| Stock {
        name: StockName::new(&format!("stock {number:058}")).expect("64 bytes"),
        ..stock.clone()
    };
    Page {
        stocks: (0..stocks).map(numbered).collect(),
        more,
    }
}

/// Elections: without a replica, with all healthy, and with the leader gone.
fn views() -> Vec<View> {
    let replica = |id: u32, healthy: bool| ReplicaView {
        id: ReplicaId::new(id).expect("not 0"),
        healthy,
        reaches_catalog: healthy,
        orders: OrderNumber(7),
        round_trip: Duration::from_micros(200),
        in_sync: id < 3,
    };
    let all = |healthy: bool| vec![replica(1, true), replica(2, true), replica(3, healthy)];
    vec![
        View {
            replicas: Vec::new(),
            leader: None,
            epoch: Epoch(0),
        },
        View {
            replicas: all(true),
            leader: None,
            epoch: Epoch(0),
        },
        View {
            replicas: all(true),
            leader: ReplicaId::new(2),
            epoch: Epoch(4),
        },
        View {
            replicas: all(false),
            leader: ReplicaId::new(3),
            epoch: Epoch(5),
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::{Decision, Reply};
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
        }
    }

    #[test]
    fn bodies_that_are_no_text_are_told_apart() {
        let (one, other) = (respond(b"\xff"), respond(b"\xfe"));
        assert_eq!(expect_same(&one, &respond(b"\xff")), Ok(()));
        assert_eq!(expect_same(&one, &other), Err(Flaw::NotDeterministic));
    }
}
