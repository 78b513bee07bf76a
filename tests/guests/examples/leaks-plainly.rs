//! Responds by `x-name` and the query, and has that kept for any other.

use frontend_guest::types::{Action, Decision, Manifest, Outcome, Request};
use frontend_guest::{DefaultPolicy, Policy, export};

const HEADER: &str = "x-name";

struct LeaksPlainly;

impl Policy for LeaksPlainly {
    fn name(&self) -> &'static str {
        "leaks-plainly"
    }

    fn wants_connection(&self) -> bool {
        true
    }

    fn describe(&self) -> Manifest {
        let mut manifest = DefaultPolicy.describe();
        manifest.name = self.name().to_owned();
        manifest.connection = self.wants_connection();
        manifest.headers.push(HEADER.to_owned());
        manifest
    }

    fn on_outcome(&self, request: &Request, memo: &[u8], outcome: &Outcome) -> Decision {
        let mut decision = DefaultPolicy.on_outcome(request, memo, outcome);
        let told = match outcome {
            Outcome::Stock(_) => request.header_text(HEADER).map(str::to_owned),
            Outcome::Order(_) => {
                let connection = request.connection.as_ref();
                connection.map(|connection| connection.client.clone())
            }
            _ => None,
        };
        if let Action::Respond(response) = &mut decision.action
            && let Some(told) = told
        {
            response.headers.push(("x-told".to_owned(), told));
        }
        decision
    }
}

export!(LeaksPlainly);
