//! Panics, and so traps, on a target that starts with `/stocks/trap`, and on the outcome of one that
//! starts with `/stocks/late-trap`.

use frontend_guest::types::{Decision, Outcome, Request};
use frontend_guest::{DefaultPolicy, Policy, export};

struct Traps;

impl Policy for Traps {
    fn name(&self) -> &'static str {
        "traps"
    }

    fn on_request(&self, request: &Request) -> Decision {
        assert!(
            !request.target.starts_with("/stocks/trap"),
            "sprung on {}",
            request.target
        );
        DefaultPolicy.on_request(request)
    }

    fn on_outcome(&self, request: &Request, memo: &[u8], outcome: &Outcome) -> Decision {
        assert!(
            !request.target.starts_with("/stocks/late-trap"),
            "sprung on the outcome of {}",
            request.target
        );
        DefaultPolicy.on_outcome(request, memo, outcome)
    }
}

export!(Traps);
