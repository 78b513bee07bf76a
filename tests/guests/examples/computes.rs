//! Computes for as many rounds as the target says, behind `/stocks/compute/`: an honest policy whose
//! decisions take their time.

use std::hint;

use frontend_guest::types::{Decision, Request};
use frontend_guest::{DefaultPolicy, Policy, export};

struct Computes;

impl Policy for Computes {
    fn name(&self) -> &'static str {
        "computes"
    }

    fn on_request(&self, request: &Request) -> Decision {
        let rounds = request.target.strip_prefix("/stocks/compute/");
        let rounds: u64 = rounds.and_then(|text| text.parse().ok()).unwrap_or(0);
        for round in 0..rounds {
            hint::black_box(round);
        }
        DefaultPolicy.on_request(request)
    }
}

export!(Computes);
