//! Grants each `x-client` three lookups an hour, whatever it looks up. One of `/stocks/costly` takes more
//! than there ever is, and one of `/stocks/free` goes on where the catalog does not answer about tokens.

use frontend_guest::types::{Action, Bucket, Decision, Manifest, Outcome, Request, Take};
use frontend_guest::{DefaultPolicy, Policy, export};

const HEADER: &str = "x-client";
const BUCKET: &str = "lookups";

/// The memo of a take.
const TAKING: &[u8] = b"taking";

struct Limited;

impl Policy for Limited {
    fn name(&self) -> &'static str {
        "limited"
    }

    fn buckets(&self) -> Vec<Bucket> {
        vec![Bucket {
            name: BUCKET.to_owned(),
            tokens: 1,
            period_ms: 3_600_000,
            burst: 3,
        }]
    }

    fn describe(&self) -> Manifest {
        let mut manifest = DefaultPolicy.describe();
        manifest.name = self.name().to_owned();
        manifest.buckets = self.buckets();
        manifest.headers.push(HEADER.to_owned());
        manifest
    }

    fn on_request(&self, request: &Request) -> Decision {
        match self.take(request) {
            Some(take) => Decision {
                memo: TAKING.to_vec(),
                ..Decision::from(Action::Take(take))
            },
            None => self.on_granted(request),
        }
    }

    fn on_outcome(&self, request: &Request, memo: &[u8], outcome: &Outcome) -> Decision {
        match outcome {
            Outcome::Unavailable(_) if memo == TAKING && request.target == "/stocks/free" => {
                self.on_granted(request)
            }
            _ => DefaultPolicy.on_outcome(request, memo, outcome),
        }
    }

    fn take(&self, request: &Request) -> Option<Take> {
        let looked_up = request.target.strip_prefix("/stocks/")?;
        let client = request.header_text(HEADER)?;
        Some(Take {
            bucket: BUCKET.to_owned(),
            key: client.as_bytes().to_vec(),
            cost: if looked_up == "costly" { 4 } else { 1 },
        })
    }
}

export!(Limited);
