//! How soon a version that fails clients is out of service, under load. The bound: a second, or 200
//! requests.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{Bazaar, KeepAlive, Raise, example, guest, wait_until};

const TIME_MAX: Duration = Duration::from_secs(1);
const REQUESTS_MAX: u64 = 200;

/// Clients that ask for what springs the trap, without a pause.
const CLIENTS: usize = 8;

/// Each with targets of its own: the self-test of a version has what was asked lately.
#[test]
fn a_version_that_fails_is_out_of_service_within_a_second_or_200_requests() {
    let bazaar = Bazaar::start_default();
    let (active, canary) = ("/policy", "/policy/candidate?canary=1");
    let cases = [
        ("loops", "/stocks/loop", active),
        ("traps", "/stocks/trap", canary),
        ("nonsense", "/stocks/nonsense/status-low", active),
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

/// Puts a version into service while clients look a stock up, and has them ask for `target` from
/// then on, until only the default policy is in service. How long that took, and how many requests
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
                true => (get(&format!("{target}?{asked}")), 404),
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
