//! Counts requests in a static variable, and answers `OPTIONS` with whether there were more than its
//! configuration says.

use std::sync::atomic::{AtomicU64, Ordering};

use frontend_guest::types::{Action, Decision, Method, Request, Response};
use frontend_guest::{Configured, DefaultPolicy, Policy, export};

/// A policy must not keep such a thing.
static REQUESTS: AtomicU64 = AtomicU64::new(0);

struct Remembers {
    requests_max: u64,
}

impl Configured for Remembers {
    fn from_config(config: &[u8]) -> Result<Self, String> {
        let number = std::str::from_utf8(config).ok();
        let number = number.and_then(|text| text.parse().ok());
        let requests_max = number.ok_or("it must be a number of requests")?;
        Ok(Self { requests_max })
    }
}

impl Policy for Remembers {
    fn name(&self) -> &'static str {
        "remembers"
    }

    fn on_request(&self, request: &Request) -> Decision {
        let requests = REQUESTS.fetch_add(1, Ordering::Relaxed);
        if request.method != Method::Options {
            return DefaultPolicy.on_request(request);
        }
        let is_worn = requests >= self.requests_max;
        Action::Respond(Response {
            status: 200,
            headers: Vec::new(),
            body: format!("{is_worn}").into_bytes(),
            keep_ms: None,
        })
        .into()
    }
}

export!(configured Remembers);
