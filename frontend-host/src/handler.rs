//! One request, from its head to its response.
//!
//! ```text
//! admit ─▶ decide ─▶ respond
//!            ▲  └──▶ read or trade ─▶ outcome
//!            └────────────────────────┘
//! ```
//!
//! A batch of orders goes this way once for each of them (`batch`).

mod admission;
mod host;
mod refusal;
mod exchange;
mod batch;
mod cache_status;
mod preconditions;
mod events;
mod response;
mod noted;
mod traced;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Response;
use http::header::HeaderName;
use http::request::Parts;
use http_body_util::Full;
use rpc::budget::Share;
use tokio::sync::Semaphore;
use traces::Traces;

use crate::access_log::AccessLog;
use crate::cache::Cache;
use crate::config::{Config, LISTS_MAX};
use crate::events::Events;
use crate::measured::Measured;
use crate::stage::Stage;
use crate::upstream::backend::Backend;
use frontend_policy::answered::{Answer, Cached, Route};
use frontend_policy::decision::Scheme;
use frontend_policy::{Arrival, Decider, Versions};

pub use admission::Admitted;
use admission::check_content_coding;
pub use events::Followed;
use exchange::Exchange;
pub(crate) use exchange::{new_key, unix_ms};
pub use noted::Noted;
pub use refusal::Refusal;
pub use refusal::error_body;
pub use response::without_body;

/// Everything that a request needs.
pub struct Gateway {
    pub policy: Arc<Versions>,
    pub cache: Arc<Cache>,
    pub backend: Arc<Backend>,
    /// What clients follow.
    pub events: Arc<Events>,
    /// How long reads may take.
    pub read_time_max: Duration,
    /// How long trades may take.
    pub trade_time_max: Duration,
    /// The header that tells clients apart.
    pub client_header: Option<HeaderName>,
    /// Where requests are logged, if they are.
    pub access_log: Option<AccessLog>,
    /// Where requests that are traced are.
    pub traces: Traces,
    /// Whether the gateway is to stop.
    pub stage: Stage,
    /// What was done so far.
    pub measured: Arc<Measured>,
    /// For each list that is read and rendered.
    lists: Semaphore,
    /// The same of orders: what keeps one kind waiting is not in the other's way.
    order_lists: Semaphore,
}

/// A request whose body has been read.
pub struct Request<'a> {
    /// Its head, with method, target and headers.
    pub admitted: Admitted<'a>,
    /// The body, where there is one.
    pub body: Option<Bytes>,
    /// Where it came from.
    pub client: IpAddr,
    /// Over which kind of connection.
    pub scheme: Scheme,
    /// What it is called, and its place in the access log.
    pub noted: &'a Noted,
}

impl Gateway {
    /// With the bounds of a configuration.
    pub fn new(
        config: &Config,
        policy: Arc<Versions>,
        cache: Arc<Cache>,
        backend: Backend,
    ) -> Self {
        let backend = Arc::new(backend);
        Self {
            events: Events::new(&config.clients, Arc::clone(&backend), Arc::clone(&policy)),
            measured: Arc::clone(&backend.replicas.measured),
            policy,
            cache,
            backend,
            read_time_max: config.read_time_max,
            trade_time_max: config.trade_time_max,
            client_header: config.client_header.clone(),
            access_log: None,
            traces: config.traces.clone(),
            lists: Semaphore::new(LISTS_MAX),
            order_lists: Semaphore::new(LISTS_MAX),
            stage: Stage::default(),
        }
    }

    /// Logs requests there, if anywhere.
    pub fn logging(self, access_log: Option<AccessLog>) -> Self {
        Self { access_log, ..self }
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

    /// Answers a request. The answer may take over the memory of its headers.
    pub async fn answer(&self, request: Request<'_>) -> Response<Full<Bytes>> {
        let began = Instant::now();
        let noted = request.noted;
        let mut exchange = Exchange::begin(self, request);
        let mut response = exchange.answer().await;
        exchange.add_reply_headers(response.headers_mut());
        exchange.count(response.status(), began.elapsed());
        noted.name(&mut response);
        if noted.is_described() {
            response.extensions_mut().insert(exchange.decided());
        }
        response
    }

    /// Answers a request that may be a batch of orders. What it takes is part of `held` until there is an answer.
    pub async fn answer_any(&self, request: Request<'_>, held: Share) -> Response<Full<Bytes>> {
        let head = &*request.admitted.head;
        let body = request.body.as_ref();
        match body.map_or(Ok(None), |body| batch::split(head, body)) {
            Ok(None) => self.answer(request).await,
            Ok(Some(orders)) => Box::pin(batch::answer(self, request, orders, held)).await,
            Err(refusal) => self.refuse(&refusal, (head, request.noted), request.client),
        }
    }

    /// Answers a request about which no policy decides. What the policy adds to every reply is added all
    /// the same: that of the version which would have been asked.
    pub fn refuse(
        &self,
        refusal: &Refusal,
        (head, noted): (&Parts, &Noted),
        client: IpAddr,
    ) -> Response<Full<Bytes>> {
        let mut response = refusal.response();
        noted.name(&mut response);
        let decider = self.decider(head, client);
        decider.add_reply_headers(response.headers_mut(), &head.headers);
        let answer = Answer {
            route: Route::Refused,
            cached: Cached::None,
            status: response.status(),
        };
        decider.version().answered.count(answer);
        self.measured.refused(answer);
        response
    }

    /// Who decides about a request, by its client and how it came.
    fn decider(&self, head: &Parts, client: IpAddr) -> Decider<'_> {
        let target = head.uri.path_and_query();
        let arrival = Arrival {
            target: target.map_or("/", |target| target.as_str()),
            headers: &head.headers,
            address: client,
        };
        let named = self.client_header.as_ref();
        match (named.and_then(|name| head.headers.get(name)), client) {
            (Some(value), _) => self.policy.decider_of(value.as_bytes(), arrival),
            (None, IpAddr::V4(address)) => self.policy.decider_of(&address.octets(), arrival),
            // Who has a network has all its addresses (RFC 4291, section 2.5.4).
            (None, IpAddr::V6(address)) => self.policy.decider_of(&address.octets()[..8], arrival),
        }
    }
}
