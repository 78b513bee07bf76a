//! Panics, and so traps, on a target that starts with `/stocks/trap`.

use frontend_guest::types::{Decision, Request};
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
}

export!(Traps);
