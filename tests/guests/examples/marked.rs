//! Adds the header `x-policy: marked` to every response, by which a test sees who decided.

use frontend_guest::types::{Action, Decision, Outcome, Request};
use frontend_guest::{DefaultPolicy, Policy, export};

struct Marked;

impl Policy for Marked {
    fn name(&self) -> &'static str {
        "marked"
    }

    fn on_request(&self, request: &Request) -> Decision {
        mark(DefaultPolicy.on_request(request))
    }

    fn on_outcome(&self, request: &Request, memo: &[u8], outcome: &Outcome) -> Decision {
        mark(DefaultPolicy.on_outcome(request, memo, outcome))
    }
}

export!(Marked);

fn mark(mut decision: Decision) -> Decision {
    if let Action::Respond(response) = &mut decision.action {
        response
            .headers
            .push(("x-policy".to_owned(), "marked".to_owned()));
    }
    decision
}
