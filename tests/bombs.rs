//! Components that are made to keep a compiler busy, or to fill its memory.
//!
//! A gateway has a process of its own compile them, within bounds: clients notice nothing, and whoever
//! pushed one is told what it takes too much of.

mod generated;
mod clients;
mod cost;

use std::fs;
use std::io;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::{Bazaar, Options, Order, Response, Server, bombs, try_request, wait_until};

const GATEWAY: Server = Server::Gateway(0);

/// Longer than a compilation lasts that gets a tenth of a processor.
const PATIENCE: Duration = Duration::from_secs(300);

/// What a gateway may take to stop, as the guide to operating has it; and how much later a busy machine
/// may show that it has.
const STOP_TIME_MAX: Duration = Duration::from_secs(9);
const NOTICED_LATE_MAX: Duration = Duration::from_secs(1);

/// Pushes a component that must be refused, and returns what is wrong with it.
fn refused(bazaar: &Bazaar, component: &[u8]) -> String {
    let (code, message) = bazaar.admin("PUT", "/policy", component).error();
    assert_eq!(code, 422, "{message}");
    message
}

/// The processes that the gateway has started and that are still there.
fn compilers(bazaar: &mut Bazaar) -> Vec<u32> {
    let pid = bazaar.server(GATEWAY).pid();
    let threads = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten();
    let children = threads.flatten().map(|thread| {
        let children = fs::read_to_string(thread.path().join("children"));
        children.unwrap_or_default()
    });
    let children: Vec<String> = children.collect();
    let pids = children.iter().flat_map(|text| text.split_whitespace());
    pids.map(|pid| pid.parse().unwrap()).collect()
}

/// Pushes a component, on a thread.
fn pushing(bazaar: &Bazaar, component: Vec<u8>) -> JoinHandle<io::Result<Response>> {
    let address = bazaar.admin_address();
    thread::spawn(move || try_request(address, "PUT", "/policy", &[], &component, PATIENCE))
}

/// Pushes a component that takes long, and returns once it is being compiled.
fn push_time_bomb(bazaar: &mut Bazaar) -> JoinHandle<io::Result<Response>> {
    let pushed = pushing(bazaar, bombs::time_bomb());
    wait_until("it is being compiled", || !compilers(bazaar).is_empty());
    pushed
}

fn served(bazaar: &Bazaar) {
    assert_eq!(bazaar.get("/stocks/nvidia").status, 200);
    bazaar.trade(&Order::sell(1, "meta"));
}

#[test]
fn what_takes_too_much_memory_to_compile_is_refused_and_the_gateway_needs_none_of_it() {
    let mut bazaar = Bazaar::start_default();
    served(&bazaar);
    let before = bazaar.server(GATEWAY).resident_kib();
    for bomb in [
        bombs::many_locals(),
        bombs::nested_loops(),
        bombs::branch_tables(),
    ] {
        let message = refused(&bazaar, &bomb);
        assert!(
            message.contains("too costly to compile: more than 288 MiB of memory"),
            "{message}"
        );
        served(&bazaar);
    }
    let more = bazaar.server(GATEWAY).resident_kib().saturating_sub(before);
    assert!(more < 64 << 10, "{more} KiB more");
}

#[test]
fn what_cannot_be_compiled_at_all_is_refused_at_once() {
    let bazaar = Bazaar::start_default();
    let message = refused(&bazaar, &bombs::exponential_type());
    assert!(
        message.contains("not a WebAssembly component") || message.contains("too costly"),
        "{message}"
    );
    served(&bazaar);
}

/// How deep a compiler can go depends on how it was compiled itself.
#[test]
fn what_is_nested_deeply_is_refused_whether_it_can_be_compiled_or_not() {
    let bazaar = Bazaar::start_default();
    refused(&bazaar, &bombs::deep_nesting());
    served(&bazaar);
}

#[test]
fn what_takes_too_long_to_compile_is_refused_and_no_other_is_compiled_meanwhile() {
    let mut bazaar = Bazaar::start_default();
    let pushing = push_time_bomb(&mut bazaar);
    let another: Response = bazaar.admin("PUT", "/policy", &bombs::exponential_type());
    assert_eq!(another.status, 429, "{another:?}");
    assert_eq!(another.header("retry-after"), Some("1"));
    let (_, message) = another.error();
    assert!(
        message.contains("another one is being checked"),
        "{message}"
    );
    // What needs no compilation is not held up.
    let (code, message) = bazaar.admin("POST", "/policy/rollback", b"").error();
    assert_eq!(code, 409, "{message}");
    served(&bazaar);

    let (code, message) = pushing.join().unwrap().unwrap().error();
    assert_eq!(code, 422, "{message}");
    assert!(
        message.contains("too costly to compile: more than") && message.contains("processor time"),
        "{message}"
    );
    assert!(compilers(&mut bazaar).is_empty());
    refused(&bazaar, &bombs::exponential_type());
}

#[test]
fn a_gateway_that_stops_or_dies_leaves_no_compiler_behind() {
    for signal in [Signal::TERM, Signal::KILL] {
        let mut bazaar = Bazaar::start(Options::default());
        let pushing = push_time_bomb(&mut bazaar);
        let compilers = compilers(&mut bazaar);
        let signalled = Instant::now();
        bazaar.server(GATEWAY).signal(signal);
        let ended = bazaar.server(GATEWAY).wait();
        let time = signalled.elapsed();
        assert!(time < STOP_TIME_MAX + NOTICED_LATE_MAX, "{time:?}");
        assert_eq!(ended.success(), signal == Signal::TERM, "{ended}");
        for compiler in compilers {
            let is_there = || fs::metadata(format!("/proc/{compiler}")).is_ok();
            let is_dead = || {
                let stat = fs::read_to_string(format!("/proc/{compiler}/stat"));
                !is_there() || stat.is_ok_and(|stat| stat.contains(") Z "))
            };
            wait_until("the compiler is gone", is_dead);
        }
        let answer = pushing.join().unwrap();
        if signal == Signal::TERM {
            let (code, message) = answer.expect("who pushed is told").error();
            assert_eq!(code, 503, "{message}");
        }
    }
}
