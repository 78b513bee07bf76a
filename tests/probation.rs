//! How soon a version that fails clients is out of service, under load. The bound: a second, or 200
//! requests.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{Bazaar, KeepAlive, Raise, alone, example, guest, slow_target, wait_until};

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
        let ratios = (0..3).map(|_| {
            let alone = others_a_second(&bazaar, "/stocks/amc");
            let beside = others_a_second(&bazaar, &target);
            println!("{name}: {alone:.0} lookups/s of others alone, {beside:.0} beside");
            beside / alone
        });
        let mut ratios: Vec<f64> = ratios.collect();
        ratios.sort_by(f64::total_cmp);
        println!(
            "{name}: others keep {:.2} ({:.2} to {:.2})",
            ratios[1], ratios[0], ratios[2]
        );
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

/// How many lookups a second some clients make from a second on, while others ask for `target`.
fn others_a_second(bazaar: &Bazaar, target: &str) -> f64 {
    let (replies, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let ask = |target: &str, replies: &AtomicU64| {
        let request = format!("GET {target} HTTP/1.1\r\nhost: bazaar\r\n\r\n");
        let mut connection = KeepAlive::connect(bazaar.address()).unwrap();
        while !done.load(Ordering::Relaxed) {
            let answer = connection.exchange(request.as_bytes()).unwrap();
            assert!(answer.status < 500, "{answer:?}");
            replies.fetch_add(1, Ordering::Relaxed);
        }
    };
    thread::scope(|scope| {
        let _done = Raise(&done);
        for _ in 0..EACH {
            scope.spawn(|| ask("/stocks/nvidia", &replies));
            scope.spawn(|| ask(target, &AtomicU64::new(0)));
        }
        thread::sleep(TIME_MAX);
        let (before, begun) = (replies.load(Ordering::Relaxed), Instant::now());
        thread::sleep(TIME_MAX);
        let made = replies.load(Ordering::Relaxed) - before;
        made as f64 / begun.elapsed().as_secs_f64()
    })
}
