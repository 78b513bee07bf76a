//! Versions of a policy that can be told apart by every reply.

use frontend_guest::types::{Action, Decision, Outcome, Request, Response};
use frontend_guest::{DefaultPolicy, Policy};

/// The default policy under a name that each of its replies carries twice: in the header `x-policy`
/// that of the version that decided about the request, as its memo has it, and as the body's first
/// field `policy` that of the version that decided about the outcome. Where the two differ, a reply
/// mixes versions.
#[derive(Debug, Clone, Copy)]
pub struct Edition(pub &'static str);

impl Policy for Edition {
    fn name(&self) -> &'static str {
        self.0
    }

    fn on_request(&self, request: &Request) -> Decision {
        let mut decision = DefaultPolicy.on_request(request);
        if let Action::Respond(response) = &mut decision.action {
            self.name_in(response, self.0);
        }
        decision.memo = self.0.as_bytes().to_vec();
        decision
    }

    fn on_outcome(&self, request: &Request, memo: &[u8], outcome: &Outcome) -> Decision {
        let mut decision = DefaultPolicy.on_outcome(request, memo, outcome);
        if let Action::Respond(response) = &mut decision.action {
            self.name_in(response, &String::from_utf8_lossy(memo));
        }
        decision
    }
}

impl Edition {
    fn name_in(&self, response: &mut Response, decided_about_the_request: &str) {
        let header = ("x-policy".to_owned(), decided_about_the_request.to_owned());
        response.headers.push(header);
        // Every body of the default policy is a JSON object that is not empty.
        let field = format!("\"policy\":\"{}\",", self.0);
        response.body.splice(1..1, field.into_bytes());
    }
}
