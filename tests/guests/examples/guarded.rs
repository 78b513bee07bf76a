//! Lets in who sends `authorization: Bearer sesame`, and has refused what it fails to decide about.
//! Before it looks at the key it reads the body, as deep as that is nested, and fails for whoever asks for it
//! at `/stocks/trap…`, `/stocks/loop…`, `/stocks/eat…` and `/stocks/nonsense…`.

use std::hint::black_box;

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
        black_box(depth(request.body.as_deref().unwrap_or_default()));
        let is_at = |place: &str| request.target.starts_with(place);
        assert!(!is_at("/stocks/trap"), "sprung");
        while is_at("/stocks/loop") {
            black_box(());
        }
        let mut eaten = Vec::new();
        while is_at("/stocks/eat") {
            eaten.push(black_box(vec![1_u8; 1 << 20]));
        }
        if request.header_text(HEADER) == Some(LETS_IN) {
            return DefaultPolicy.on_request(request);
        }
        Action::Respond(Response {
            status: if is_at("/stocks/nonsense") { 99 } else { 401 },
            headers: vec![("www-authenticate".to_owned(), "Bearer".to_owned())],
            body: Vec::new(),
            keep_ms: None,
        })
        .into()
    }
}

export!(Guarded);

/// How deep brackets are nested, one call for each.
fn depth(json: &[u8]) -> usize {
    match json.split_first() {
        Some((b'[', inner)) => 1 + black_box(depth(black_box(inner))),
        _ => 0,
    }
}
