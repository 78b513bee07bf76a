//! What measurements have in common: how large they are, and what they keep of latencies.

use std::env;

use hdrhistogram::Histogram;

/// Longest latency that is told from longer ones, and how many digits of each are kept.
const LATENCY_US_MAX: u64 = 60_000_000;
const DIGITS: u8 = 3;

/// Latencies in microseconds.
pub type Latencies = Histogram<u32>;

pub fn no_latencies() -> Latencies {
    Histogram::new_with_bounds(1, LATENCY_US_MAX, DIGITS).expect("the bounds are constants")
}

/// What a variable of the environment says, where it is there.
pub fn number(variable: &str, default: u64) -> u64 {
    let given = env::var(variable).ok();
    given.map_or(default, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{variable}: {text} is not a number"))
    })
}
