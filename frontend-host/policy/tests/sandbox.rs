//! What a policy can do to the gateway, which is nothing; with real components. And [`check`]: what is refused before.

mod check;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use domain::{OrderNumber, Price, Quantity, Side, StockName};
use frontend_policy::DEFAULT_POLICY;
use frontend_policy::decision::{
    Action, Decision, Eviction, Listing, OnFailure, Operation, Order, OrderPage, Outcome, Page,
    Refusal, Stock,
};
use frontend_policy::limits;
use frontend_policy::{
    Admission, Decider, Engine, Probation, Problem, Reason, RequestParts, SwapError, Undecided,
    Upload, Versions,
};
use http::{HeaderMap, Method};
use sha2::{Digest as _, Sha256};

use crate::machine_code;

/// More than the default: these tests share two cores with others, and eating memory takes time.
const DECISION_TIME_MAX: Duration = Duration::from_secs(1);

/// Nothing is rolled back here by itself.
const LENIENT: Probation = Probation {
    window: Duration::ZERO,
    failures_max: 1000,
};

fn engine() -> Engine {
    machine_code::kept(Engine::new(DECISION_TIME_MAX).unwrap())
}

fn guest(name: &str) -> Vec<u8> {
    let component = policy_build::Builder::in_project("tests/guests")
        .example(name)
        .build_once()
        .unwrap();
    std::fs::read(component).unwrap()
}

fn variant(name: &str) -> Vec<u8> {
    let component = policy_build::Builder::in_project("frontend-guest")
        .example(name)
        .build_once()
        .unwrap();
    std::fs::read(component).unwrap()
}

/// Versions that start with this one, and keep nothing.
fn starting_with(component: &[u8]) -> Result<Versions, SwapError> {
    Versions::new(engine(), component, LENIENT, None)
}

fn operator() -> Reason {
    Reason {
        who: "a test".into(),
        why: "to see".into(),
        ..Reason::default()
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
        connection: None,
        body: None,
        now_ms: 1_800_000_000_000,
        id: None,
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
    // A path that fails is not asked for again for a while.
    for path in [target.to_owned(), format!("{target}-again")] {
        let mut decider = versions.decider(b"client");
        let decision = decide(&mut decider, &path).unwrap();
        assert!(
            matches!(
                decision.action,
                Action::Perform(Operation::ReadStock { .. })
            ),
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
        matches!(
            decision.action,
            Action::Perform(Operation::ReadStock { .. })
        ),
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
        let begun = processor_time();
        decide(&mut versions.decider(&[]), "/stocks/loop").unwrap();
        assert!(processor_time() - begun < limits::START_TIME_MAX);
    }
}

/// Threads that compete for the processors of this machine until it is dropped.
struct Contention {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Contention {
    fn of(threads: usize) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let spin = || {
            let over = Arc::clone(&over);
            thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            })
        };
        let threads = (0..threads).map(|_| spin()).collect();
        Self { over, threads }
    }
}

impl Drop for Contention {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().ok();
        }
    }
}

/// How long this thread has been on a processor.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// A decision of a sixth to a quarter of the time allowed, while this thread gets a small share of a
/// processor: by the clock on the wall it would be too late, and it is not.
#[test]
fn a_busy_machine_stops_no_honest_decision() {
    let allowed = Duration::from_millis(90);
    let versions = |component: &[u8]| {
        let engine = Engine::new(allowed).unwrap();
        Versions::new(engine, component, LENIENT, None).unwrap()
    };
    let versions = versions(&guest("computes"));
    let takes = |rounds: u64| {
        let before = processor_time();
        decide(
            &mut versions.decider(&[]),
            &format!("/stocks/compute/{rounds}"),
        )
        .unwrap();
        processor_time() - before
    };
    let mut rounds = 10_000;
    while takes(rounds) < allowed / 6 {
        rounds += rounds / 2;
    }
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let contention = Contention::of(6 * processors);
    let begun = Instant::now();
    let mut longest = Duration::ZERO;
    // What matters is that one waited long, which is the scheduler's to decide.
    while longest < allowed * 5 / 4 && begun.elapsed() < Duration::from_secs(20) {
        let begun = Instant::now();
        takes(rounds);
        longest = longest.max(begun.elapsed());
    }
    drop(contention);
    assert!(longest >= allowed * 5 / 4, "{longest:?}: nothing was shown");
    assert_eq!(failures(&versions), [0, 0, 0]);
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
        "vary-key",
        "counts-undeclared",
        "logs-much",
        "take-undeclared",
        "take-key-long",
        "retry",
        "stock-name-empty",
        "stock-name-long",
        "stock-name-control",
        "quantity-zero",
        "quantity-high",
        "key-empty",
        "key-long",
        "key-control",
        "list-of-none",
        "list-of-too-many",
        "list-after-nothing",
        "list-after-control",
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
    let probation = Probation {
        window: Duration::from_secs(600),
        ..LENIENT
    };
    let versions = Versions::new(engine(), DEFAULT_POLICY, probation, None).unwrap();
    versions.activate(&guest("traps"), &operator()).unwrap();
    decide(&mut versions.decider(b"client"), "/stocks/trap").unwrap();
    let health = Arc::clone(&versions.published().health);
    let begun = Instant::now();
    while health.held() == 0 {
        assert!(begun.elapsed() < Duration::from_secs(30), "not judged");
        thread::sleep(Duration::from_millis(2));
    }
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

/// The component declares the types of what it imports, and the host must not rely on them.
#[test]
fn an_import_with_a_type_of_its_own_is_a_trap() {
    let traps = [1, 0, 0];
    fails_and_is_stood_in_for(&guest("mistyped-import"), "/stocks/mistyped", traps);
}

/// The default policy as it was built for `bazaar:policy@1.0.0`.
fn of_world_1_0() -> Vec<u8> {
    of_world("1.0")
}

fn of_world(world: &str) -> Vec<u8> {
    let project = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    std::fs::read(format!("{project}/tests/policies/default-{world}.wasm")).unwrap()
}

#[test]
fn a_manifest_says_what_becomes_of_a_failure() {
    let admission = Admission::new(engine());
    for (component, said) in [
        (&guest("guarded"), OnFailure::Refuse),
        (&guest("marked"), OnFailure::LastGood),
        (&of_world_1_0(), OnFailure::LastGood),
    ] {
        let version = admission.admit(component, &[]).unwrap().into_version();
        assert_eq!(version.manifest.on_failure, said, "{version}");
    }
}

fn with_config<'a>(component: &'a [u8], config: &'a [u8]) -> Upload<'a> {
    Upload {
        component,
        signature: None,
        config,
    }
}

#[test]
fn each_instance_has_the_configuration_of_its_version() {
    let component = guest("configured");
    let versions = starting_with(DEFAULT_POLICY).unwrap();
    let says = |expected: &[u8]| {
        let decision = decide(&mut versions.decider(b"client"), "/config").unwrap();
        let Action::Respond(reply) = decision.action else {
            panic!("{decision:?}")
        };
        assert_eq!(reply.body, expected);
    };
    for config in [&b"say hello"[..], b"say \0\xff", b"say "] {
        versions
            .activate(DEFAULT_POLICY, &operator())
            .expect("it is no change of the configured one");
        let activated = versions.activate(with_config(&component, config), &operator());
        let named = activated.unwrap().config_digest().unwrap().to_string();
        assert_eq!(named, domain::Hex(&Sha256::digest(config)).to_string());
        thread::scope(|scope| {
            scope.spawn(|| says(&config[4..]));
            says(&config[4..]);
        });
    }
}

#[test]
fn a_configuration_that_a_policy_does_not_take_is_refused_in_its_words() {
    let guest = guest("configured");
    let large = vec![b' '; limits::CONFIG_BYTES_MAX + 1];
    let largest = [&b"say "[..], &large[5..]].concat();
    let admission = Admission::new(engine());
    for (component, config, problem) in [
        (&guest[..], &largest[..], ""),
        (
            &guest,
            b"shout\x1b",
            r"its configuration is refused: it begins with another word:\n`shout\x1b`",
        ),
        (&guest, b"", "it begins with another word"),
        (&guest, &large, "it has 65537 bytes, and 65536 are allowed"),
        (DEFAULT_POLICY, b"", ""),
        (DEFAULT_POLICY, b"{}", "this policy takes no configuration"),
        (&of_world_1_0(), b"", ""),
        (
            &of_world_1_0(),
            b"{}",
            "takes no configuration, since it is made for `bazaar:policy/policy@1.0.0`",
        ),
    ] {
        match admission.admit(with_config(component, config), &[]) {
            Ok(_) => assert_eq!(problem, ""),
            Err(rejection) => {
                let words = rejection.to_string();
                assert!(!problem.is_empty() && words.contains(problem), "{words}");
                assert_eq!(words.lines().count(), 1, "{words}");
            }
        }
    }
}

/// A static variable lives as long as an instance does.
#[test]
fn a_policy_that_remembers_what_it_was_asked_is_refused_or_found_out() {
    let guest = guest("remembers");
    let admitted = Admission::new(engine()).admit(with_config(&guest, b"20"), &[]);
    let rejection = admitted.map(drop).unwrap_err();
    let [Problem::NotDeterministic(tests)] = rejection.problems() else {
        panic!("{rejection}")
    };
    assert_eq!(tests.0, ["OPTIONS *"]);

    // More than it is asked at the check.
    let versions = starting_with(DEFAULT_POLICY).unwrap();
    let patient = with_config(&guest, b"10000");
    versions.activate(patient, &operator()).unwrap();
    let headers = HeaderMap::new();
    let ask = |requests: u32| {
        for _ in 0..requests {
            let request = RequestParts {
                method: &Method::OPTIONS,
                ..get("*", &headers)
            };
            versions.decider(b"client").on_request(request).unwrap();
        }
    };
    let version = Arc::clone(&versions.published().active);
    let impure = || version.counts.impure.load(Ordering::Relaxed);
    ask(9_000);
    assert_eq!(impure(), 0, "{:?}", version.impure_example());
    let begun = Instant::now();
    while impure() == 0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "nobody noticed");
        ask(1_000);
    }
    let example = version.impure_example().unwrap();
    assert_eq!(
        example,
        "OPTIONS *: body true and, in a fresh instance, false"
    );
}

#[test]
fn a_policy_that_remembers_nothing_is_not_found_to() {
    let versions = swapped(&guest("limited"));
    let headers = of_client("one");
    let request = get("/stocks/nvidia", &headers);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(1) {
        let mut decider = versions.decider(b"client");
        let decision = decider.on_request(request).unwrap();
        let outcome = Outcome::Denied(7);
        let denied = decider.on_outcome(request, &decision.memo, &outcome);
        assert!(denied.is_ok());
    }
    let active = &versions.published().active;
    assert_eq!(active.impure_example(), None);
}

/// Of a client that the guest `limited` tells apart.
fn of_client(name: &'static str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("x-client", http::HeaderValue::from_static(name));
    headers
}

/// Whichever version decides about an outcome, it is one to what that version would do.
#[test]
fn what_is_taken_out_of_a_bucket_is_decided_about() {
    let headers = of_client("one");
    let request = get("/stocks/nvidia", &headers);
    let reads = |decision: &Decision| {
        matches!(
            decision.action,
            Action::Perform(Operation::ReadStock { .. })
        )
    };
    let versions = swapped(&guest("limited"));
    let mut decider = versions.decider(b"client");
    let decision = decider.on_request(request).unwrap();
    assert!(decision.takes(), "{decision:?}");
    let granted = decider.on_outcome(request, &decision.memo, &Outcome::Granted);
    let granted = granted.unwrap();
    assert!(reads(&granted), "{granted:?}");
    let found = Outcome::Refused(Refusal::StockNotFound);
    let answered = decider.on_outcome(request, &granted.memo, &found);
    assert!(matches!(answered.unwrap().action, Action::Respond(reply) if reply.status == 404));

    let mut decider = versions.decider(b"client");
    let decision = decider.on_request(request).unwrap();
    let denied = decider.on_outcome(request, &decision.memo, &Outcome::Denied(1_500));
    let Action::Respond(reply) = denied.unwrap().action else {
        panic!("who gets no token gets an answer")
    };
    assert_eq!(reply.status, 429);
    assert_eq!(reply.headers["retry-after"], "2");

    let costly = get("/stocks/costly", &headers);
    let decision = versions.decider(b"client").on_request(costly).unwrap();
    assert!(reads(&decision), "the version behind decides: {decision:?}");
    assert_eq!(failures(&versions), [0, 0, 1]);
    // To one of 1.0 nothing can be said of buckets: it decides about the request.
    let old = starting_with(&of_world_1_0()).unwrap();
    let mut decider = old.decider(b"client");
    let failed = decider.on_outcome(request, &[], &Outcome::Granted);
    assert!(failed.is_err(), "it took nothing");
    old.activate(&guest("limited"), &operator()).unwrap();
    assert!(decide(&mut old.decider(b"client"), "/stocks/nvidia").is_ok());
}

fn page(stocks: usize, more: bool) -> Outcome {
    let stock = |number: usize| Stock {
        name: StockName::new(&format!("{number:064}")).unwrap(),
        price: Price::from_minor(100).unwrap(),
        quantity: 1,
    };
    let stocks = (0..stocks).map(stock).collect();
    Outcome::Stocks(Page { stocks, more })
}

#[test]
fn a_policy_of_world_1_0_lists_all_and_is_not_shown_a_part() {
    let versions = starting_with(&of_world_1_0()).unwrap();
    let headers = HeaderMap::new();
    for (more, answers) in [(false, true), (true, false)] {
        let mut decider = versions.decider(b"client");
        let decision = decide(&mut decider, "/stocks").unwrap();
        assert!(matches!(
            decision.action,
            Action::Perform(Operation::ListStocks(Listing::All))
        ));
        let outcome = page(3, more);
        let decision = decider.on_outcome(get("/stocks", &headers), &decision.memo, &outcome);
        assert_eq!(decision.is_ok(), answers, "{decision:?}");
    }
}

#[test]
fn a_policy_of_an_older_world_is_not_shown_what_that_has_not() {
    let order = |number| Order {
        number: OrderNumber(number),
        name: StockName::new("nvidia").unwrap(),
        side: Side::Buy,
        quantity: Quantity::new(1).unwrap(),
    };
    let orders = Outcome::Orders(OrderPage {
        orders: vec![order(0), order(1)],
        next_after: Some(OrderNumber(1)),
    });
    let headers = HeaderMap::new();
    for (component, answers) in [
        (of_world("1.0"), false),
        (of_world("1.1"), false),
        (DEFAULT_POLICY.to_vec(), true),
    ] {
        let versions = starting_with(&component).unwrap();
        let mut decider = versions.decider(b"client");
        for outcome in [&orders, &Outcome::Order(order(0))] {
            let decided = decider.on_outcome(get("/orders", &headers), &[], outcome);
            let is_shown = answers || outcome != &orders;
            assert_eq!(decided.is_ok(), is_shown, "{decided:?}");
        }
    }
}

/// How many stocks there are is nothing that a policy of 1.0 has a say in.
#[test]
fn a_list_that_nobody_can_answer_with_is_held_against_nobody() {
    let probation = Probation {
        window: Duration::from_secs(600),
        failures_max: 0,
    };
    // More than a response may have bytes for.
    let outcome = page(200_000, false);
    let headers = HeaderMap::new();
    for (component, name) in [(of_world_1_0(), "default"), (guest("marked"), "marked")] {
        let versions = Versions::new(engine(), &variant("no-cache"), probation, None).unwrap();
        versions.activate(&component, &operator()).unwrap();
        let mut decider = versions.decider(b"client");
        let decision = decider.on_outcome(get("/stocks", &headers), &[], &outcome);
        assert!(decision.is_err(), "{name}: nobody can answer with so many");
        // What is reported after it is judged after it.
        decide(&mut versions.decider(b"client"), "/stocks/nvidia").unwrap();
        let published = versions.published();
        assert_eq!(published.active.manifest.name, name);
        assert_eq!(published.health.held(), 0, "{name}");
        let counts = &published.active.counts;
        assert_eq!(counts.failures(), 1, "{name}: it is counted all the same");
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
