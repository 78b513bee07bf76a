//! Bounded staleness: a kept stock serves for a while whatever happens to it, and for longer while
//! the backend cannot answer. Lookups then need no lease, and outlive the catalog.

use frontend_guest::types::{Caching, Freshness};
use frontend_guest::{Policy, export};

/// How old a stock may be, in milliseconds.
const AGE_MS_MAX: u32 = 1_000;
/// How old it may be while the backend cannot answer, in milliseconds.
const AGE_ON_ERROR_MS_MAX: u32 = 60_000;

struct Ttl;

impl Policy for Ttl {
    fn name(&self) -> &'static str {
        "ttl"
    }

    fn stock_caching(&self) -> Caching {
        Caching {
            freshness: Freshness::AtMost(AGE_MS_MAX),
            stale_on_error_ms: AGE_ON_ERROR_MS_MAX,
            vary_key: Vec::new(),
        }
    }
}

export!(Ttl);

#[cfg(test)]
mod tests {
    use super::*;
    use frontend_guest::types::{Action, Method, Request};

    #[test]
    fn a_stock_may_be_a_second_old() {
        let target = "/stocks/nvidia".to_owned();
        let request = Request {
            method: Method::Get,
            target,
            headers: vec![],
            connection: None,
            body: None,
            now_ms: 0,
        };
        let Action::ReadStock(read) = Ttl.on_request(&request).action else {
            panic!("a lookup reads a stock");
        };
        assert_eq!(read.caching.freshness, Freshness::AtMost(1_000));
    }
}
