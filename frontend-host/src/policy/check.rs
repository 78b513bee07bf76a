//! What a component must be able to decide before it may serve.
//!
//! The self-test puts requests of every kind to it, and every outcome that the backends can
//! give to its reads and trades. What it decides is its own business; that it decides, within
//! its time and in a form that the host can act on, is not.

use std::time::Duration;

use http::Method;
use protocol::{Epoch, OrderNumber, Price, Quantity, ReplicaId, Side, StockName};

use super::decision::{
    Action, Decision, InvalidDecision, Order, Outcome, PolicyRequest, Refusal, ReplicaView, Stock,
    Unavailability, View,
};
use super::differences::Fields;
use super::question::Question;
use super::sandbox::{Failure, Inputs, Instance, Refused, Sandbox, Version};

/// Noon of 1 January 2026.
const NOW_MS: u64 = 1_767_268_800_000;

/// Compiles a component and tests whether it can serve.
///
/// # Errors
/// Everything that keeps it from serving, in words for the person who wrote it.
pub fn check(sandbox: &Sandbox, component: &[u8]) -> Result<Version, Refused> {
    let version = sandbox.load(component)?;
    let mut tested = Tested {
        instance: Instance::of(&version).map_err(Refused::Describe)?,
        version: &version,
    };
    for (method, target, body) in requests() {
        let test = format!("{method} {target}");
        tested.pass(test, |instance| {
            decide(instance, &method, &target, body.as_deref())
        })?;
    }
    for view in views() {
        tested.pass("elect".into(), |instance| {
            instance.elect(inputs(), &view).map(drop)
        })?;
    }
    Ok(version)
}

/// A version under test.
struct Tested<'a> {
    version: &'a Version,
    instance: Instance,
}

impl Tested<'_> {
    /// One test. Where time ran out it is tried once more, in a fresh instance: a busy machine
    /// can do that to an honest policy.
    fn pass(
        &mut self,
        test: String,
        run: impl Fn(&mut Instance) -> Result<(), Failure>,
    ) -> Result<(), Refused> {
        let mut passed = run(&mut self.instance);
        if matches!(passed, Err(Failure::Overrun(_))) {
            self.instance = Instance::of(self.version).map_err(Refused::Describe)?;
            passed = run(&mut self.instance);
        }
        passed.map_err(|failure| Refused::SelfTest { test, failure })
    }
}

fn inputs() -> Inputs {
    Inputs {
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

/// What keeps a policy from being replayed.
const NOT_DETERMINISTIC: &str =
    "the same inputs gave two answers: a policy must keep nothing from one call to the next";

impl From<&str> for Failure {
    fn from(problem: &str) -> Self {
        Self::Invalid(InvalidDecision(problem.to_owned()))
    }
}

/// Tests whether a version can decide what was to be decided lately.
///
/// # Errors
/// The first decision that it fails.
pub(super) fn check_recent(version: &Version, recent: &[Question]) -> Result<(), Refused> {
    for question in recent {
        let test = || format!("{} (a recent request)", question.request());
        question
            .decide(version)
            .map_err(|failure| Refused::SelfTest {
                test: test(),
                failure,
            })?;
    }
    Ok(())
}

/// Puts a request to the policy and, where it asks for a read or a trade, every outcome.
fn decide(
    instance: &mut Instance,
    method: &Method,
    target: &str,
    body: Option<&[u8]>,
) -> Result<(), Failure> {
    let request = PolicyRequest {
        method,
        target,
        headers: &[],
        body,
        now_ms: NOW_MS,
    };
    let decision = first(instance.on_request(inputs(), &request)?)?;
    let again = instance.on_request(inputs(), &request)?;
    if Fields::from(&decision) != Fields::from(&again) {
        return Err(NOT_DETERMINISTIC.into());
    }
    for outcome in outcomes(&decision.action) {
        instance.on_outcome(inputs(), &request, &decision.memo, &outcome)?;
    }
    Ok(())
}

/// A first decision, which has nothing to retry.
pub(super) fn first(decision: Decision) -> Result<Decision, InvalidDecision> {
    match decision.action {
        Action::Retry(_) => Err(InvalidDecision(
            "it answered a request with `retry`, and nothing was tried".into(),
        )),
        _ => Ok(decision),
    }
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
    match action {
        Action::Respond(_) | Action::Retry(_) => Vec::new(),
        Action::ReadStock { .. } => vec![
            Outcome::Stock(stock),
            Outcome::Refused(Refusal::StockNotFound),
            Outcome::Unavailable(Unavailability::NoCatalog),
        ],
        Action::ListStocks => vec![
            Outcome::Stocks(vec![stock.clone(), stock]),
            Outcome::Stocks(Vec::new()),
            Outcome::Unavailable(Unavailability::NoCatalog),
        ],
        Action::ReadOrder { .. } => vec![
            Outcome::Order(order),
            Outcome::Refused(Refusal::OrderNotFound),
            Outcome::Unavailable(Unavailability::NoReplica),
        ],
        Action::Trade(_) => vec![
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

/// Elections: without a replica, with all healthy, and with the leader gone.
fn views() -> Vec<View> {
    let replica = |id: u32, healthy: bool| ReplicaView {
        id: ReplicaId::new(id).expect("not 0"),
        healthy,
        reaches_catalog: healthy,
        orders: OrderNumber(7),
        round_trip: Duration::from_micros(200),
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
