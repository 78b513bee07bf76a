//! Components, compiled once.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use policy_build::Builder;

use super::bazaar::Bazaar;

/// How long `computes` takes over what [`slow_target`] returns, about: less than a decision may.
const SLOW: Duration = Duration::from_millis(20);

/// One of `tests/guests`: a component that misbehaves, or is marked.
pub fn guest(name: &str) -> PathBuf {
    build(Builder::in_project("tests/guests").example(name))
}

/// One of the variants that come with the default policy.
pub fn example(name: &str) -> PathBuf {
    build(Builder::in_project("frontend-guest").example(name))
}

/// A target that `computes` takes 20 ms for, on a machine that does nothing else. Leaves the policy as it was.
pub fn slow_target(bazaar: &Bazaar) -> String {
    let component = fs::read(guest("computes")).unwrap();
    assert_eq!(bazaar.admin("PUT", "/policy", &component).status, 200);
    let target = |rounds: u128| format!("/stocks/compute/{rounds}");
    let mut rounds = 1 << 16;
    let slow = loop {
        let took = (0..3).map(|_| {
            let begun = Instant::now();
            bazaar.get(&target(rounds));
            begun.elapsed()
        });
        let took = took.min().expect("there are three");
        if took >= SLOW {
            break target(rounds * SLOW.as_micros() / took.as_micros());
        }
        rounds *= 2;
    };
    assert_eq!(bazaar.admin("POST", "/policy/rollback", b"").status, 200);
    slow
}

fn build(builder: Builder) -> PathBuf {
    let built = builder.build_once();
    built.unwrap_or_else(|error| panic!("{error}"))
}
