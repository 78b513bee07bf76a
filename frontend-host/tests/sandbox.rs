//! What a policy can do to the gateway, which is nothing; with real components.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use frontend_host::DEFAULT_POLICY;
use frontend_host::policy::decision::{Action, Decision, Eviction, Outcome, Refusal, Stock};
use frontend_host::policy::limits;
use frontend_host::policy::{
    Decider, Probation, Reason, Refused, RequestParts, Sandbox, Undecided, Versions, check,
};
use http::{HeaderMap, Method};
use protocol::{Price, StockName};

/// More than the default: these tests share two cores with others, and eating memory takes time.
const DECISION_TIME_MAX: Duration = Duration::from_secs(1);

/// Nothing is rolled back here by itself.
const LENIENT: Probation = Probation {
    window: Duration::ZERO,
    failures_max: 1000,
};

fn sandbox() -> Sandbox {
    Sandbox::new(DECISION_TIME_MAX).unwrap()
}

fn guest(name: &str) -> Vec<u8> {
    let component = policy_build::Builder::in_project("tests/guests")
        .example(name)
        .build()
        .unwrap();
    std::fs::read(component).unwrap()
}

fn variant(name: &str) -> Vec<u8> {
    let component = policy_build::Builder::in_project("frontend-guest")
        .example(name)
        .build()
        .unwrap();
    std::fs::read(component).unwrap()
}

/// Versions that start with this one, and keep nothing.
fn starting_with(component: &[u8]) -> Result<Versions, Refused> {
    Versions::new(sandbox(), component, LENIENT, None)
}

fn operator() -> Reason {
    Reason {
        who: "a test".into(),
        why: "to see".into(),
    }
}

/// The default policy, and `guest` swapped in on top of it.
fn swapped(guest: &[u8]) -> Versions {
    let versions = starting_with(DEFAULT_POLICY).unwrap();
    versions.activate(guest, &operator()).unwrap();
    versions
}

fn get<'a>(target: &'a str, headers: &'a HeaderMap) -> RequestParts<'a> {
    RequestParts {
        method: &Method::GET,
        target,
        headers,
        body: None,
        now_ms: 1_800_000_000_000,
    }
}

fn decide(decider: &mut Decider<'_>, target: &str) -> Result<Decision, Undecided> {
    decider.on_request(get(target, &HeaderMap::new()))
}

/// The failures of the active version: traps, overruns, invalid decisions.
fn failures(versions: &Versions) -> [u64; 3] {
    let counts = &versions.published().active.counts;
    [&counts.traps, &counts.overruns, &counts.invalid]
        .map(|counter| counter.load(Ordering::Relaxed))
}

/// A guest that fails at `target` costs nobody anything: the default policy decides.
fn fails_and_is_stood_in_for(guest: &[u8], target: &str, expected: [u64; 3]) {
    let versions = swapped(guest);
    for _ in 0..2 {
        let mut decider = versions.decider(b"client");
        let decision = decide(&mut decider, target).unwrap();
        assert!(
            matches!(decision.action, Action::ReadStock { .. }),
            "{target}: {decision:?}"
        );
        assert_eq!(decider.version().manifest.name, "default", "{target}");
    }
    assert_eq!(
        failures(&versions),
        expected.map(|once| once * 2),
        "{target}"
    );
    let decision = decide(&mut versions.decider(b"client"), "/stocks/nvidia").unwrap();
    assert!(
        matches!(decision.action, Action::ReadStock { .. }),
        "it goes on deciding what it can"
    );
}

#[test]
fn a_trap_is_stood_in_for_by_the_last_good_version() {
    fails_and_is_stood_in_for(&guest("traps"), "/stocks/trap", [1, 0, 0]);
}

/// The response is one to another memo than that under which it would be found again.
#[test]
fn what_a_version_that_stands_in_renders_is_not_kept() {
    let outcome = Outcome::Stock(Stock {
        name: StockName::new("late-trap").unwrap(),
        price: Price::from_minor(100).unwrap(),
        quantity: 1,
    });
    let headers = HeaderMap::new();
    for (guest, kept) in [("marked", true), ("traps", false)] {
        let versions = swapped(&self::guest(guest));
        let mut decider = versions.decider(&[]);
        let decision = decide(&mut decider, "/stocks/late-trap").unwrap();
        let request = get("/stocks/late-trap", &headers);
        let decision = decider.on_outcome(request, &decision.memo, &outcome);
        let Action::Respond(reply) = decision.unwrap().action else {
            panic!("a response to {outcome:?}")
        };
        assert_eq!(reply.status, 200, "{guest}");
        assert_eq!(reply.keep.is_some(), kept, "{guest}");
    }
}

#[test]
fn an_endless_loop_is_stopped_and_stood_in_for() {
    fails_and_is_stood_in_for(&guest("loops"), "/stocks/loop", [0, 1, 0]);
}

/// A fresh instance has time to start a runtime; it is not for a client's request to use up.
#[test]
fn an_endless_loop_in_a_fresh_instance_is_stopped_as_soon() {
    let versions = swapped(&guest("loops"));
    for _ in 0..2 {
        let begun = Instant::now();
        decide(&mut versions.decider(&[]), "/stocks/loop").unwrap();
        assert!(begun.elapsed() < limits::START_TIME_MAX);
    }
}

#[test]
fn eating_memory_ends_at_the_limit() {
    fails_and_is_stood_in_for(&guest("eats-memory"), "/stocks/eat", [1, 0, 0]);
}

#[test]
fn nonsense_is_noticed_and_stood_in_for() {
    let kinds = [
        "status-low",
        "status-high",
        "header-name",
        "header-value",
        "headers",
        "framing",
        "body",
        "memo",
        "retry",
        "stock-name-empty",
        "stock-name-long",
        "stock-name-control",
        "quantity-zero",
        "quantity-high",
        "key-empty",
        "key-long",
        "key-control",
    ];
    let versions = swapped(&guest("nonsense"));
    for (index, kind) in kinds.into_iter().enumerate() {
        let mut decider = versions.decider(b"client");
        decide(&mut decider, &format!("/stocks/nonsense/{kind}")).unwrap();
        assert_eq!(decider.version().manifest.name, "default", "{kind}");
        let noticed: u64 = failures(&versions).iter().sum();
        assert_eq!(noticed, index as u64 + 1, "{kind}");
    }
}

#[test]
fn until_there_is_a_good_version_nobody_stands_in() {
    let versions = starting_with(&guest("traps")).unwrap();
    assert!(decide(&mut versions.decider(b"client"), "/stocks/trap").is_err());
    assert!(decide(&mut versions.decider(b"client"), "/stocks/nvidia").is_ok());
}

#[test]
fn a_version_that_failed_is_not_the_last_good_one() {
    let traps = guest("traps");
    let versions = swapped(&traps);
    decide(&mut versions.decider(b"client"), "/stocks/trap").unwrap();
    versions.activate(&guest("marked"), &operator()).unwrap();
    let previous = versions.published().previous.clone().unwrap();
    assert_eq!(previous.manifest.name, "default");
}

/// What a guest prints, and what it looks for, must not hurt a worker of tokio: this is one.
#[tokio::test]
async fn a_guest_that_prints_sleeps_and_looks_around_finds_nothing_and_goes_on() {
    let versions = swapped(&guest("chatty"));
    for _ in 0..100 {
        decide(&mut versions.decider(b"client"), "/stocks/chatty/flood").unwrap();
    }
    let decision = decide(&mut versions.decider(b"client"), "/stocks/chatty/leaks").unwrap();
    let Action::Respond(reply) = decision.action else {
        panic!("{decision:?}")
    };
    assert_eq!(reply.body, "[]", "what it should not have got");
    assert_eq!(failures(&versions), [0, 0, 0]);
}

#[test]
fn an_import_that_is_not_granted_is_refused_by_name() {
    let refused = check(&sandbox(), &guest("forbidden-import"))
        .map(|_| ())
        .unwrap_err();
    assert!(matches!(refused, Refused::Import(_)), "{refused}");
    assert!(
        refused.to_string().contains("acme:telemetry/sink"),
        "{refused}"
    );
}

/// The component declares the types of what it imports, and the host must not rely on them.
#[test]
fn an_import_with_a_type_of_its_own_is_a_trap() {
    let traps = [1, 0, 0];
    fails_and_is_stood_in_for(&guest("mistyped-import"), "/stocks/mistyped", traps);
}

#[test]
fn what_is_no_policy_is_refused_with_a_reason() {
    let sandbox = sandbox();
    let refused = |bytes: &[u8]| check(&sandbox, bytes).map(|_| ()).unwrap_err();
    let core_module = b"\0asm\x01\0\0\0";
    let empty_component = b"\0asm\x0d\0\x01\0";
    assert!(matches!(refused(b""), Refused::NotAComponent(_)));
    assert!(matches!(
        refused(b"not wasm at all"),
        Refused::NotAComponent(_)
    ));
    assert!(matches!(refused(core_module), Refused::NotAComponent(_)));
    assert!(matches!(refused(empty_component), Refused::World(_)));
    assert!(matches!(
        refused(&vec![0; limits::COMPONENT_BYTES_MAX + 1]),
        Refused::TooLarge(_)
    ));
    assert!(matches!(
        refused(&DEFAULT_POLICY[..DEFAULT_POLICY.len() / 2]),
        Refused::NotAComponent(_)
    ));
}

#[test]
fn every_variant_that_comes_with_bazaar_passes_the_check() {
    let sandbox = sandbox();
    for name in ["no-cache", "ttl", "always-highest"] {
        let version =
            check(&sandbox, &variant(name)).unwrap_or_else(|refused| panic!("{name}: {refused}"));
        assert_eq!(version.manifest.name, name);
    }
}

#[test]
fn a_request_keeps_the_version_that_it_began_with() {
    let versions = Arc::new(starting_with(DEFAULT_POLICY).unwrap());
    let mut decider = versions.decider(b"client");
    let decision = decide(&mut decider, "/stocks/nvidia").unwrap();
    versions.activate(&guest("marked"), &operator()).unwrap();
    let outcome = Outcome::Refused(Refusal::StockNotFound);
    let headers = HeaderMap::new();
    let decision = decider
        .on_outcome(get("/stocks/nvidia", &headers), &decision.memo, &outcome)
        .unwrap();
    let Action::Respond(reply) = decision.action else {
        panic!("{decision:?}")
    };
    assert!(
        !reply.headers.contains_key("x-policy"),
        "the default policy began, the default policy ends"
    );
    assert_eq!(
        versions.decider(b"client").version().manifest.name,
        "marked"
    );
}

#[test]
fn a_rollback_goes_back_to_the_last_good_version_and_forth_again() {
    let versions = swapped(&guest("marked"));
    assert_eq!(
        versions.roll_back(&operator()).unwrap().manifest.name,
        "default"
    );
    assert_eq!(
        versions.roll_back(&operator()).unwrap().manifest.name,
        "marked"
    );
    let alone = starting_with(DEFAULT_POLICY).unwrap();
    assert!(
        alone.roll_back(&operator()).is_err(),
        "there is nothing to go back to"
    );
}

#[test]
fn the_cache_settings_of_a_manifest_are_followed() {
    let versions = starting_with(DEFAULT_POLICY).unwrap();
    let cache = versions.published().active.manifest.cache;
    assert_eq!(
        (cache.stocks_max, cache.orders_max, cache.eviction),
        (10_000, 100_000, Eviction::Lru)
    );
}
