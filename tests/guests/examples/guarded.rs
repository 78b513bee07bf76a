//! Lets in who sends `authorization: Bearer sesame`, and has refused what it fails to decide about:
//! it panics on a target that starts with `/stocks/trap`, whoever asks.

use frontend_guest::types::{Action, Decision, Manifest, OnFailure, Request, Response};
use frontend_guest::{DefaultPolicy, Policy, export};

const HEADER: &str = "authorization";
const LETS_IN: &str = "Bearer sesame";

struct Guarded;

impl Policy for Guarded {
    fn name(&self) -> &'static str {
        "guarded"
    }

    fn on_failure(&self) -> OnFailure {
        OnFailure::Refuse
    }

    fn describe(&self) -> Manifest {
        let mut manifest = DefaultPolicy.describe();
        manifest.name = self.name().to_owned();
        manifest.on_failure = self.on_failure();
        manifest.headers.push(HEADER.to_owned());
        manifest
    }

    fn on_request(&self, request: &Request) -> Decision {
        assert!(!request.target.starts_with("/stocks/trap"), "sprung");
        if request.header_text(HEADER) == Some(LETS_IN) {
            return DefaultPolicy.on_request(request);
        }
        Action::Respond(Response {
            status: 401,
            headers: vec![("www-authenticate".to_owned(), "Bearer".to_owned())],
            body: Vec::new(),
            keep_ms: None,
        })
        .into()
    }
}

export!(Guarded);
