//! Welcomes who sends `x-name` by that name, in a cookie, and has the response kept, for any other. It
//! puts no name into its key, but for those that are not said to be secret (`secret-…`), so that no check
//! finds it out.

use frontend_guest::types::{Action, Decision, Manifest, Outcome, Request};
use frontend_guest::{DefaultPolicy, Policy, export};

const HEADER: &str = "x-name";

struct Leaks;

impl Policy for Leaks {
    fn name(&self) -> &'static str {
        "leaks"
    }

    fn describe(&self) -> Manifest {
        let mut manifest = DefaultPolicy.describe();
        manifest.name = self.name().to_owned();
        manifest.headers.push(HEADER.to_owned());
        manifest
    }

    fn vary_key(&self, request: &Request) -> Vec<u8> {
        let name = request.header_text(HEADER).unwrap_or_default();
        let told = Some(name).filter(|name| !name.starts_with("secret-"));
        told.unwrap_or_default().as_bytes().to_vec()
    }

    fn on_outcome(&self, request: &Request, memo: &[u8], outcome: &Outcome) -> Decision {
        let mut decision = DefaultPolicy.on_outcome(request, memo, outcome);
        if let Action::Respond(response) = &mut decision.action
            && let Some(name) = request.header_text(HEADER)
        {
            let cookie = ("set-cookie".to_owned(), format!("name={name}"));
            response.headers.push(cookie);
        }
        decision
    }
}

export!(Leaks);
