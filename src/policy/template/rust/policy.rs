//! A policy. Everything that is not said here is as in the default policy; see the methods of
//! `frontend_guest::Policy` for what can be said.

use frontend_guest::types::{Caching, Freshness};
use frontend_guest::{Policy, export};

struct MyPolicy;

impl Policy for MyPolicy {
    fn name(&self) -> &'static str {
        "POLICY-NAME"
    }

    fn version(&self) -> &'static str {
        env!("CARGO_PKG_VERSION")
    }

    /// Stocks may be half a second old, and a minute where the catalog cannot be reached.
    fn stock_caching(&self) -> Caching {
        Caching {
            freshness: Freshness::AtMost(500),
            stale_on_error_ms: 60_000,
            vary_key: Vec::new(),
        }
    }
}

export!(MyPolicy);

#[cfg(test)]
mod tests {
    use super::*;
    use frontend_guest::types::{Action, Method, Request};

    #[test]
    fn stocks_may_be_half_a_second_old() {
        let request = Request {
            method: Method::Get,
            target: "/stocks/nvidia".to_owned(),
            headers: vec![],
            connection: None,
            body: None,
            now_ms: 0,
        };
        let Action::ReadStock(read) = MyPolicy.on_request(&request).action else {
            panic!("a stock is not read");
        };
        assert_eq!(read.caching.freshness, Freshness::AtMost(500));
    }
}
