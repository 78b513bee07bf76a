//! Grants all clients together thirty lookups, and one more a day.

use frontend_guest::types::{Bucket, Request, Take};
use frontend_guest::{Policy, export};

const BUCKET: &str = "lookups of all";

struct Metered;

impl Policy for Metered {
    fn name(&self) -> &'static str {
        "metered"
    }

    fn buckets(&self) -> Vec<Bucket> {
        vec![Bucket {
            name: BUCKET.to_owned(),
            tokens: 1,
            period_ms: 86_400_000,
            burst: 30,
        }]
    }

    fn take(&self, request: &Request) -> Option<Take> {
        request.target.strip_prefix("/stocks/")?;
        Some(Take {
            bucket: BUCKET.to_owned(),
            key: Vec::new(),
            cost: 1,
        })
    }
}

export!(Metered);
