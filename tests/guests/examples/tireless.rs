//! Tries whatever no backend answers again, for ever.

use frontend_guest::types::{Action, Decision, Outcome, Request};
use frontend_guest::{DefaultPolicy, Policy, export};

struct Tireless;

impl Policy for Tireless {
    fn name(&self) -> &'static str {
        "tireless"
    }

    fn on_outcome(&self, request: &Request, memo: &[u8], outcome: &Outcome) -> Decision {
        match outcome {
            Outcome::Unavailable(_) => Action::Retry(10).into(),
            _ => DefaultPolicy.on_outcome(request, memo, outcome),
        }
    }
}

export!(Tireless);
