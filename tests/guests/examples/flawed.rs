//! Fails the self-test in four ways: panics on `/`, never returns on `/stocks`, counts how often it
//! is told about an order, and answers `HEAD` with a status that there is not.

use std::hint;
use std::sync::atomic::{AtomicU64, Ordering};

use frontend_guest::types::{Action, Decision, Method, Outcome, Request, Response};
use frontend_guest::{DefaultPolicy, Policy, export};

/// A policy must not keep such a thing.
static TOLD: AtomicU64 = AtomicU64::new(0);

struct Flawed;

impl Policy for Flawed {
    fn name(&self) -> &'static str {
        "flawed"
    }

    fn on_request(&self, request: &Request) -> Decision {
        assert!(request.target != "/", "no way home");
        if request.target == "/stocks" {
            loop {
                hint::spin_loop();
            }
        }
        if request.method == Method::Head {
            return respond(99, String::new()).into();
        }
        DefaultPolicy.on_request(request)
    }

    fn on_outcome(&self, request: &Request, memo: &[u8], outcome: &Outcome) -> Decision {
        if matches!(outcome, Outcome::Order(_)) && request.target == "/orders/0" {
            let told = TOLD.fetch_add(1, Ordering::Relaxed);
            return respond(200, told.to_string()).into();
        }
        DefaultPolicy.on_outcome(request, memo, outcome)
    }
}

fn respond(status: u16, body: String) -> Action {
    Action::Respond(Response {
        status,
        headers: Vec::new(),
        body: body.into_bytes(),
        keep_ms: None,
    })
}

export!(Flawed);
