//! Grants each `x-client` three lookups an hour, whatever it looks up. One of `/stocks/costly` takes more
//! than there ever is.

use frontend_guest::types::{Bucket, Manifest, Request, Take};
use frontend_guest::{DefaultPolicy, Policy, export};

const HEADER: &str = "x-client";
const BUCKET: &str = "lookups";

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
