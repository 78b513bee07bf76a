//! Bounded staleness with short bounds, so that a test sees both of them pass.

use frontend_guest::types::{Caching, Freshness};
use frontend_guest::{Policy, export};

/// How old a stock may be, in milliseconds, and while the backend cannot answer.
const AGE_MS_MAX: u32 = 300;
const AGE_ON_ERROR_MS_MAX: u32 = 4_000;

struct Brief;

impl Policy for Brief {
    fn name(&self) -> &'static str {
        "brief"
    }

    fn stock_caching(&self) -> Caching {
        Caching {
            freshness: Freshness::AtMost(AGE_MS_MAX),
            stale_on_error_ms: AGE_ON_ERROR_MS_MAX,
            vary_key: Vec::new(),
        }
    }
}

export!(Brief);
