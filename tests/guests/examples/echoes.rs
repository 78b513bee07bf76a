//! Answers `/echo` with the headers that it sees, and `/status/…` with a bare status. What it
//! makes of a stock or an order may be kept for a short while only.

use frontend_guest::types::{Action, Decision, Manifest, Outcome, Request, Response};
use frontend_guest::{DefaultPolicy, Policy, export};

/// How long an answer to a read may be kept, in milliseconds.
const KEEP_MS: u32 = 300;

struct Echoes;

impl Policy for Echoes {
    fn name(&self) -> &'static str {
        "echoes"
    }

    fn describe(&self) -> Manifest {
        let mut manifest = DefaultPolicy.describe();
        manifest.name = self.name().to_owned();
        for header in ["host", "cookie", "content-encoding"] {
            manifest.headers.push(header.to_owned());
        }
        manifest
    }

    fn on_request(&self, request: &Request) -> Decision {
        if request.target == "/echo" {
            let lines = request.headers.iter();
            let lines: Vec<_> = lines
                .map(|(name, value)| format!("{name}: {value}\n"))
                .collect();
            return respond(200, lines.concat());
        }
        let status = request.target.strip_prefix("/status/");
        match status.and_then(|status| status.parse().ok()) {
            Some(status) => respond(status, String::new()),
            None => DefaultPolicy.on_request(request),
        }
    }

    fn on_outcome(&self, request: &Request, memo: &[u8], outcome: &Outcome) -> Decision {
        let mut decision = DefaultPolicy.on_outcome(request, memo, outcome);
        if let Action::Respond(response) = &mut decision.action {
            response.keep_ms = response.keep_ms.map(|_| KEEP_MS);
        }
        decision
    }
}

export!(Echoes);

fn respond(status: u16, body: String) -> Decision {
    let response = Response {
        status,
        headers: Vec::new(),
        body: body.into_bytes(),
        keep_ms: None,
    };
    Action::Respond(response).into()
}
