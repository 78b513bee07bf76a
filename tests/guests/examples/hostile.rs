//! Has markup wherever a policy can put text: in its name, in a header of every answer, and in what it says when it
//! panics, on a target that starts with `/stocks/trap`.

use frontend_guest::types::{Action, Decision, Outcome, Request};
use frontend_guest::{DefaultPolicy, Policy, export};

const MARKUP: &str = "<img src=x onerror=alert(1)>";

struct Hostile;

impl Policy for Hostile {
    fn name(&self) -> &'static str {
        MARKUP
    }

    fn on_request(&self, request: &Request) -> Decision {
        assert!(
            !request.target.starts_with("/stocks/trap"),
            "<b>sprung</b> on {}",
            request.target
        );
        marked(DefaultPolicy.on_request(request))
    }

    fn on_outcome(&self, request: &Request, memo: &[u8], outcome: &Outcome) -> Decision {
        marked(DefaultPolicy.on_outcome(request, memo, outcome))
    }
}

export!(Hostile);

fn marked(mut decision: Decision) -> Decision {
    if let Action::Respond(response) = &mut decision.action {
        let header = ("x-policy".to_owned(), MARKUP.to_owned());
        response.headers.push(header);
    }
    decision
}
