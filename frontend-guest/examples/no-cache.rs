//! Every read goes to the backend, and nothing is kept.

use frontend_guest::types::{CacheSettings, Caching, Eviction, Freshness};
use frontend_guest::{Policy, export};

const BYPASS: Caching = Caching {
    freshness: Freshness::Bypass,
    stale_on_error_ms: 0,
    vary_key: Vec::new(),
};

struct NoCache;

impl Policy for NoCache {
    fn name(&self) -> &'static str {
        "no-cache"
    }

    fn cache_settings(&self) -> CacheSettings {
        CacheSettings {
            stocks_max: 0,
            orders_max: 0,
            eviction: Eviction::Lru,
        }
    }

    fn stock_caching(&self) -> Caching {
        BYPASS
    }

    fn order_caching(&self) -> Caching {
        BYPASS
    }
}

export!(NoCache);

#[cfg(test)]
mod tests {
    use super::*;
    use frontend_guest::types::{Action, Method, Request};

    #[test]
    fn reads_bypass_the_cache() {
        for target in ["/stocks/nvidia", "/orders/0"] {
            let request = Request {
                method: Method::Get,
                target: target.to_owned(),
                headers: vec![],
                connection: None,
                body: None,
                now_ms: 0,
            };
            let caching = match NoCache.on_request(&request).action {
                Action::ReadStock(read) => read.caching,
                Action::ReadOrder(read) => read.caching,
                other => panic!("{target} is not read but answered by {other:?}"),
            };
            assert_eq!(caching, BYPASS);
        }
    }
}
