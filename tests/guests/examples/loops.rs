//! Never returns on a target that starts with `/stocks/loop`.

use std::hint;

use frontend_guest::types::{Decision, Request};
use frontend_guest::{DefaultPolicy, Policy, export};

struct Loops;

impl Policy for Loops {
    fn name(&self) -> &'static str {
        "loops"
    }

    fn on_request(&self, request: &Request) -> Decision {
        while request.target.starts_with("/stocks/loop") {
            hint::spin_loop();
        }
        DefaultPolicy.on_request(request)
    }
}

export!(Loops);
