//! One request, from its head to its response.
//!
//! ```text
//! admit ─▶ decide ─▶ respond
//!            ▲  └──▶ read or trade ─▶ outcome
//!            └────────────────────────┘
//! ```

mod admission;
mod host;
mod refusal;
mod exchange;
mod cache_status;
mod preconditions;
mod response;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http::header::HeaderName;
use http::request::Parts;
use http_body_util::Full;
use tokio::sync::Semaphore;

use crate::cache::Cache;
use crate::config::{Config, LISTS_MAX};
use crate::stage::Stage;
use crate::upstream::backend::Backend;
use frontend_policy::Versions;

pub use admission::Admitted;
use admission::check_content_coding;
use exchange::Exchange;
pub use refusal::Refusal;
pub use refusal::error_body;
pub use response::without_body;

/// Everything that a request needs.
pub struct Gateway {
    pub policy: Arc<Versions>,
    pub cache: Arc<Cache>,
    pub backend: Backend,
    /// How long reads may take.
    pub read_time_max: Duration,
    /// How long trades may take.
    pub trade_time_max: Duration,
    /// The header that tells clients apart.
    pub client_header: Option<HeaderName>,
    /// Whether the gateway is to stop.
    pub stage: Stage,
    /// For each list that is read and rendered.
    lists: Semaphore,
}

/// A request whose body has been read.
pub struct Request<'a> {
    /// Its head, with method, target and headers.
    pub admitted: Admitted<'a>,
    /// The body, where there is one.
    pub body: Option<Bytes>,
    /// Where it came from.
    pub client: IpAddr,
}

impl Gateway {
    /// With the bounds of a configuration.
    pub fn new(
        config: &Config,
        policy: Arc<Versions>,
        cache: Arc<Cache>,
        backend: Backend,
    ) -> Self {
        Self {
            policy,
            cache,
            backend,
            read_time_max: config.read_time_max,
            trade_time_max: config.trade_time_max,
            client_header: config.client_header.clone(),
            lists: Semaphore::new(LISTS_MAX),
            stage: Stage::default(),
        }
    }

    /// Lets a request in by its head: whatever can be refused without its body is, before that is
    /// read. `body_bytes_min` tells how long it is at least, where there is one.
    ///
    /// # Errors
    /// Where HTTP does not allow it, or no policy is to see it.
    pub fn admit<'a>(
        &self,
        head: &'a mut Parts,
        body_bytes_min: Option<u64>,
    ) -> Result<Admitted<'a>, Refusal> {
        let admitted = admission::admit(head, body_bytes_min.is_some())?;
        // Without a body that is seen to when the policy is to decide, at once.
        if body_bytes_min.is_some_and(|bytes_min| bytes_min > 0) {
            let headers = &admitted.head.headers;
            check_content_coding(headers, self.policy.current().wanted_headers())?;
        }
        Ok(admitted)
    }

    /// Answers a request. The answer takes over the memory of its headers.
    pub async fn answer(&self, request: Request<'_>) -> Response<Full<Bytes>> {
        match Exchange::begin(self, request) {
            Ok(mut exchange) => {
                let answered = exchange.run().await;
                answered.unwrap_or_else(|undecided| Refusal::from(undecided).response())
            }
            Err(refusal) => refusal.response(),
        }
    }
}
