//! How soon a version that fails clients is out of service, under load. The bound: a second, or 200
//! requests.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{
    Bazaar, KeepAlive, Options, Raise, alone, example, guest, number, slow_target, wait_until,
};

const TIME_MAX: Duration = Duration::from_secs(1);
const REQUESTS_MAX: u64 = 200;

/// Clients that ask for what springs the trap, without a pause.
const CLIENTS: usize = 8;

/// Each with targets of its own: the self-test of a version has what was asked lately.
#[test]
fn a_version_that_fails_is_out_of_service_within_a_second_or_200_requests() {
    let _alone = alone();
    let bazaar = Bazaar::start_default();
    let (active, canary) = ("/policy", "/policy/candidate?canary=1");
    let cases = [
        ("loops", "/stocks/loop", active),
        ("traps", "/stocks/trap", canary),
        ("nonsense", "/stocks/nonsense/status-low?", active),
        ("eats-memory", "/stocks/eat", canary),
        ("mistyped-import", "/stocks/mistyped", active),
    ];
    for (name, target, put) in cases {
        let component = fs::read(guest(name)).unwrap();
        let (time, requests) = while_all_ask(&bazaar, target, || {
            let answer = bazaar.admin("PUT", put, &component);
            assert_eq!(answer.status, 200, "{answer:?}");
        });
        println!("{name} at {put}: out of service after {time:?} and {requests} requests");
        assert!(time <= TIME_MAX || requests <= REQUESTS_MAX, "{name}");
    }
    let changes = bazaar.admin("GET", "/policy", b"").json()["changes"].take();
    let by_itself = |change: &&Value| change["who"] == "probation";
    let by_itself = changes.as_array().unwrap().iter().filter(by_itself);
    assert_eq!(by_itself.count(), cases.len());
}

/// Puts a version into service while clients look a stock up, and has them ask for `target` and a number
/// from then on, until only the default policy is in service. How long that took, and how many requests
/// were answered meanwhile: none of them with a failure.
fn while_all_ask(bazaar: &Bazaar, target: &str, put: impl FnOnce()) -> (Duration, u64) {
    let replies = AtomicU64::new(0);
    let (sprung, done) = (AtomicBool::new(false), AtomicBool::new(false));
    let ask = || {
        let get = |target: &str| format!("GET {target} HTTP/1.1\r\nhost: bazaar\r\n\r\n");
        let mut connection = KeepAlive::connect(bazaar.address()).unwrap();
        while !done.load(Ordering::Relaxed) {
            let asked = replies.fetch_add(1, Ordering::Relaxed);
            let (request, status) = match sprung.load(Ordering::Relaxed) {
                // The same again would count once.
                true => (get(&format!("{target}{asked}")), 404),
                false => (get("/stocks/nvidia"), 200),
            };
            let answer = connection.exchange(request.as_bytes()).unwrap();
            assert_eq!(answer.status, status, "{answer:?}");
        }
    };
    thread::scope(|scope| {
        let _done = Raise(&done);
        for _ in 0..CLIENTS {
            scope.spawn(ask);
        }
        wait_until("all to ask", || {
            replies.load(Ordering::Relaxed) > CLIENTS as u64
        });
        put();
        let (begun, before) = (Instant::now(), replies.load(Ordering::Relaxed));
        sprung.store(true, Ordering::Relaxed);
        wait_until("only the default policy to be in service", || {
            let policy = bazaar.admin("GET", "/policy", b"").json();
            policy["active"]["name"] == "default" && policy["candidate"].is_null()
        });
        (begun.elapsed(), replies.load(Ordering::Relaxed) - before)
    })
}

/// More than any bound on failures.
const STRANGE_REQUESTS: usize = 20;

#[test]
fn methods_that_nobody_knows_are_not_held_against_a_policy() {
    let bazaar = Bazaar::start_default();
    let component = fs::read(example("no-cache")).unwrap();
    assert_eq!(bazaar.admin("PUT", "/policy", &component).status, 200);
    for _ in 0..STRANGE_REQUESTS {
        assert_eq!(bazaar.send("BREW", "/stocks/nvidia", &[], b"").status, 501);
    }
    let active = bazaar.status()["policy"]["active"].clone();
    assert_eq!(active["name"], "no-cache", "{active}");
    assert_eq!(active["errors"], 0, "{active}");
}

/// Clients of each kind, over a connection each.
const EACH: usize = 2;

/// The percentage of their lookups that others keep at least, from a second on: where something else is at work, too, and
/// what `make swaps` asks for.
const KEPT_PERCENT_MIN: u64 = 30;
const KEPT_PERCENT: &str = "BAZAAR_PROBATION_KEPT_PERCENT";

/// The client who is not to notice.
const OTHERS: &str = "others";

/// Stretches of each kind, in turns.
const STRETCHES: usize = 5;

/// What others get while some ask for what a version loops over, or takes 20 ms for, is measured beside
/// what they get while those ask for what costs nothing, in turns.
#[test]
fn who_finds_what_a_policy_is_slow_at_takes_little_from_others() {
    let _alone = alone();
    let bazaar = Bazaar::start_default();
    for (name, target) in [
        ("loops", "/stocks/loop".to_owned()),
        ("computes", slow_target(&bazaar)),
    ] {
        let component = fs::read(guest(name)).unwrap();
        assert_eq!(bazaar.admin("PUT", "/policy", &component).status, 200);
        check_others_keep(name, &bazaar, |_| target.clone());
        let active = bazaar.status()["policy"]["active"].clone();
        assert_eq!(
            active["name"], name,
            "one path is no reason to lose it: {active}"
        );
        let incidents = active["incidents"].as_array().unwrap();
        assert!(!incidents.is_empty(), "{active}");
        wait_until("it to be asked again, in vain", || {
            bazaar.get(&target);
            let active = bazaar.status()["policy"]["active"].take();
            active["broken_off"]["paths"] == 1
        });
        assert_eq!(bazaar.admin("POST", "/policy/rollback", b"").status, 200);
    }
}

/// Where nobody stands in: each path is another one, and clients are told apart or are two.
#[test]
fn who_finds_many_loops_of_a_policy_that_keeps_clients_out_takes_little_from_others() {
    let _alone = alone();
    let bazaar = Bazaar::start(Options {
        policy: Some(guest("guarded")),
        gateway_flags: vec!["--client-header=x-client".to_owned()],
        ..Options::default()
    });
    check_others_keep("guarded", &bazaar, |number| format!("/stocks/loop{number}"));
    let active = bazaar.status()["policy"]["active"].clone();
    assert_eq!(active["name"], "guarded", "{active}");
    let paths = &active["broken_off"]["paths"];
    assert_eq!(*paths, 0, "none is refused to all: {active}");
}

/// Others keep at least [`KEPT_PERCENT_MIN`] per cent of their lookups while some ask for what is slow, which `target` numbers.
fn check_others_keep(name: &str, bazaar: &Bazaar, target: impl Fn(u64) -> String + Sync) {
    let asked = AtomicU64::new(0);
    let numbered = || target(asked.fetch_add(1, Ordering::Relaxed));
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for _ in 0..STRETCHES {
        alone.push(others_a_second(bazaar, || "/stocks/amc".to_owned()));
        beside.push(others_a_second(bazaar, numbered));
    }
    println!("{name}: lookups/s of others alone {alone:.0?}, beside {beside:.0?}");
    let kept = median(beside) / median(alone);
    println!("{name}: others keep {kept:.2}");
    let least = number(KEPT_PERCENT, KEPT_PERCENT_MIN) as f64 / 100.0;
    assert!(kept >= least, "{name}: others keep {kept:.2}");
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// How many lookups a second some clients make from a second on, while others ask for `target`. Those who look
/// up have the key that a policy may ask for, and each kind is another client.
fn others_a_second(bazaar: &Bazaar, target: impl Fn() -> String + Sync) -> f64 {
    let (replies, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let ask = |client: &str, target: &(dyn Fn() -> String + Sync)| {
        let mut connection = KeepAlive::connect(bazaar.address()).unwrap();
        let mut made = 0_u64;
        while !done.load(Ordering::Relaxed) {
            let request = format!(
                "GET {} HTTP/1.1\r\nhost: bazaar\r\nx-client: {client}\r\nauthorization: Bearer sesame\r\n\r\n",
                target()
            );
            let exchanged = connection.exchange(request.as_bytes());
            match exchanged.map(|answer| answer.status) {
                Ok(200) if client == OTHERS => _ = replies.fetch_add(1, Ordering::Relaxed),
                other if client == OTHERS => panic!("{other:?}"),
                Ok(_) => {}
                Err(_) => connection = KeepAlive::connect(bazaar.address()).unwrap(),
            }
            made += 1;
        }
        assert!(made > 0, "{client} got no answer");
    };
    thread::scope(|scope| {
        let _done = Raise(&done);
        for _ in 0..EACH {
            scope.spawn(|| ask(OTHERS, &|| "/stocks/nvidia".to_owned()));
            scope.spawn(|| ask("slow", &target));
        }
        thread::sleep(TIME_MAX);
        let (before, begun) = (replies.load(Ordering::Relaxed), Instant::now());
        thread::sleep(TIME_MAX);
        let made = replies.load(Ordering::Relaxed) - before;
        made as f64 / begun.elapsed().as_secs_f64()
    })
}
