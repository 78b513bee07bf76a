//! Answers `/echo` with the headers that it sees, `/connection` with how the request came, and `/status/…` with a bare status. What it
//! makes of a stock or an order may be kept for a short while only.

use frontend_guest::types::{Action, Connection, Decision, Manifest, Outcome, Request, Response};
use frontend_guest::{DefaultPolicy, Policy, export};

/// How long an answer to a read may be kept, in milliseconds.
const KEEP_MS: u32 = 300;

struct Echoes;

impl Policy for Echoes {
    fn name(&self) -> &'static str {
        "echoes"
    }

    fn wants_connection(&self) -> bool {
        true
    }

    fn describe(&self) -> Manifest {
        let mut manifest = DefaultPolicy.describe();
        manifest.name = self.name().to_owned();
        manifest.connection = self.wants_connection();
        for header in ["host", "cookie", "content-encoding"] {
            manifest.headers.push(header.to_owned());
        }
        manifest
    }

    fn on_request(&self, request: &Request) -> Decision {
        if request.target == "/echo" {
            let headers = request.headers.iter();
            let lines = headers.map(|(name, value)| format!("{name}: {}\n", value.escape_ascii()));
            return respond(200, lines.collect());
        }
        if request.target == "/connection" {
            return respond(
                200,
                request.connection.as_ref().map(came).unwrap_or_default(),
            );
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

fn came(connection: &Connection) -> String {
    let Connection {
        client,
        scheme,
        authority,
        http_version,
    } = connection;
    format!("{http_version:?} from {client} by {scheme:?} to {authority}\n")
}

fn respond(status: u16, body: String) -> Decision {
    let response = Response {
        status,
        headers: Vec::new(),
        body: body.into_bytes(),
        keep_ms: None,
    };
    Action::Respond(response).into()
}
