//! One request, from its head to its response.
//!
//! ```text
//! decide ─▶ respond
//!   ▲  └──▶ read or trade ─▶ outcome
//!   └────────────────────────┘
//! ```

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use http_body::Body as _;
use http_body_util::Full;
use protocol::time::BootTime;
use protocol::{IdempotencyKey, OrderNumber, StockName};
use tokio::time::{Instant, sleep};

use crate::backend::{Backend, StockAnswer};
use crate::cache::{Cache, Fetch, Found, Kept, ttl_seconds};
use crate::config::Config;
use crate::policy::decision::{
    Action, Caching, Decision, Freshness, Order, Outcome, Refusal, Reply, Stock, TradeAction,
};
use crate::policy::{Decider, RequestParts, Undecided, Versions, limits};

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// Everything that a request needs.
pub struct Gateway {
    /// Decides.
    pub policy: Arc<Versions>,
    /// Keeps.
    pub cache: Arc<Cache>,
    /// Answers.
    pub backend: Backend,
    /// How long reads may take.
    pub read_time_max: Duration,
    /// How long trades may take.
    pub trade_time_max: Duration,
    /// The header that tells clients apart.
    pub client_header: Option<HeaderName>,
}

/// A request whose body has been read.
pub struct Request {
    /// Method, target and headers.
    pub head: http::request::Parts,
    /// The body, where there is one.
    pub body: Option<Bytes>,
    /// Where it came from.
    pub client: IpAddr,
}

/// Where the outcome of a read came from, as `Cache-Status` tells (RFC 9211).
enum Source {
    /// No read.
    None,
    /// From the cache; the response made of it can be put beside it.
    Stock(Arc<Kept<Stock>>),
    Order(Arc<Kept<Order>>),
    /// From the catalog, and may be kept.
    FetchedStock {
        fetch: Fetch,
        answer: Option<Cacheable>,
        forwarded: &'static str,
    },
    /// From a replica, and may be kept.
    FetchedOrder {
        order: Order,
        asked: BootTime,
    },
    /// From a backend, and is not kept.
    Passed(&'static str),
}

/// A stock and what it takes to keep it.
struct Cacheable {
    stock: Stock,
    version: protocol::Version,
    registered: bool,
}

/// How a step ended.
enum Stepped {
    /// With a response that was kept.
    Served(Response<Full<Bytes>>),
    /// With an outcome to decide about.
    Outcome(Outcome, Source),
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
        }
    }

    /// Answers a request.
    pub async fn answer(&self, request: &Request) -> Response<Full<Bytes>> {
        match self.decide(request).await {
            Ok(response) => response,
            Err(Undecided) => error(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the policy could not decide",
            ),
        }
    }

    /// What a canary knows the client by.
    fn client<'a>(&self, request: &'a Request) -> Cow<'a, [u8]> {
        let header = self
            .client_header
            .as_ref()
            .and_then(|name| request.head.headers.get(name));
        match (header, request.client) {
            (Some(value), _) => Cow::Borrowed(value.as_bytes()),
            (None, IpAddr::V4(address)) => Cow::Owned(address.octets().to_vec()),
            (None, IpAddr::V6(address)) => Cow::Owned(address.octets().to_vec()),
        }
    }

    /// Decides and acts until there is a response.
    async fn decide(&self, request: &Request) -> Result<Response<Full<Bytes>>, Undecided> {
        let decider = self.policy.decider(&self.client(request));
        let published = decider.published();
        self.cache
            .follow(published.generation, published.active.manifest.cache);
        // Of every version that may decide about it.
        let versions = std::iter::once(&published.active)
            .chain(&published.previous)
            .chain(
                published
                    .candidate
                    .as_ref()
                    .map(|candidate| &candidate.version),
            );
        let wanted = versions.flat_map(|version| &version.manifest.headers);
        if let Some(name) = unreadable_header(&request.head.headers, wanted) {
            let message = format!("header `{name}` is not text");
            return Ok(error(StatusCode::BAD_REQUEST, &message));
        }
        let mut deciding = Deciding {
            gateway: self,
            parts: RequestParts {
                method: &request.head.method,
                target: request
                    .head
                    .uri
                    .path_and_query()
                    .map_or("/", |target| target.as_str()),
                headers: &request.head.headers,
                body: request.body.as_deref(),
                now_ms: unix_ms(),
            },
            decider,
            deadlines: Deadlines::from_now(self),
            key: None,
        };
        deciding.run().await
    }
}

/// A request under way.
struct Deciding<'a> {
    gateway: &'a Gateway,
    parts: RequestParts<'a>,
    decider: Decider<'a>,
    deadlines: Deadlines,
    /// Made once, for every attempt to trade.
    key: Option<IdempotencyKey>,
}

/// Until when backends are asked; they are the request's, not a step's.
struct Deadlines {
    read: Instant,
    trade: Instant,
}

impl Deadlines {
    fn from_now(gateway: &Gateway) -> Self {
        let now = Instant::now();
        Self {
            read: now + gateway.read_time_max,
            trade: now + gateway.trade_time_max,
        }
    }
}

impl Deciding<'_> {
    async fn run(&mut self) -> Result<Response<Full<Bytes>>, Undecided> {
        let mut decision = self.decider.on_request(self.parts)?;
        let mut source = Source::None;
        let mut last_action = None;
        for _ in 0..limits::STEPS_MAX {
            let Decision { action, memo } = decision;
            let action = match action {
                Action::Respond(reply) => return Ok(self.respond(reply, source, &memo)),
                Action::Retry(pause) => {
                    sleep(
                        pause.min(
                            self.deadlines
                                .trade
                                .saturating_duration_since(Instant::now()),
                        ),
                    )
                    .await;
                    last_action.ok_or(Undecided)?
                }
                action => action,
            };
            last_action = Some(action.clone());
            let outcome = match self.step(action, &memo).await {
                Stepped::Served(response) => return Ok(response),
                Stepped::Outcome(outcome, from) => {
                    source = from;
                    outcome
                }
            };
            decision = self.decider.on_outcome(self.parts, &memo, &outcome)?;
            // What is kept is found again by the memo that came with the action.
            if let Action::Respond(reply) = decision.action {
                return Ok(self.respond(reply, source, &memo));
            }
        }
        tracing::warn!(policy = %self.decider.version(), target = self.parts.target, "the policy took too many steps");
        Err(Undecided)
    }

    async fn step(&mut self, action: Action, memo: &[u8]) -> Stepped {
        match action {
            Action::ReadStock { name, caching } => self.read_stock(name, caching, memo).await,
            Action::ReadOrder { number, caching } => self.read_order(number, caching, memo).await,
            Action::ListStocks => {
                let listed = self.gateway.backend.list_stocks(self.deadlines.read).await;
                let outcome = listed.map_or_else(Outcome::Unavailable, Outcome::Stocks);
                Stepped::Outcome(outcome, Source::Passed("bypass"))
            }
            Action::Trade(trade) => {
                let order = self.order(trade);
                Stepped::Outcome(
                    self.gateway
                        .backend
                        .trade(&order, self.deadlines.trade)
                        .await,
                    Source::None,
                )
            }
            Action::Respond(_) | Action::Retry(_) => {
                unreachable!("`run` deals with answers and retries")
            }
        }
    }

    /// The order that a trade places, with the client's key or the one made for this request.
    fn order(&mut self, trade: TradeAction) -> protocol::Order {
        let key = trade
            .key
            .unwrap_or_else(|| self.key.get_or_insert_with(new_key).clone());
        protocol::Order {
            key,
            name: trade.name,
            side: trade.side,
            quantity: trade.quantity,
        }
    }

    async fn read_stock(&self, name: StockName, caching: Caching, memo: &[u8]) -> Stepped {
        let mut forwarded = "miss";
        let mut kept_before = None;
        if caching.freshness == Freshness::Bypass {
            forwarded = "bypass";
        } else {
            match self.gateway.cache.stock(&name, caching.freshness) {
                Found::Fresh(kept) => match self.serve(&kept, memo) {
                    Kind::Served(response) => {
                        self.gateway
                            .cache
                            .stock_counts
                            .hits
                            .fetch_add(1, Ordering::Relaxed);
                        return Stepped::Served(response);
                    }
                    Kind::Unrendered => {
                        self.gateway
                            .cache
                            .stock_counts
                            .hits
                            .fetch_add(1, Ordering::Relaxed);
                        return Stepped::Outcome(
                            Outcome::Stock(kept.value.clone()),
                            Source::Stock(kept),
                        );
                    }
                    Kind::Expired => {
                        forwarded = "stale";
                        kept_before = Some(kept);
                    }
                },
                Found::Stale(kept) => {
                    forwarded = "stale";
                    kept_before = Some(kept);
                }
                Found::Missing => {}
            }
        }
        let fetch = self.gateway.cache.fetch(name.clone(), caching.freshness);
        match self
            .gateway
            .backend
            .read_stock(&name, fetch.session(), self.deadlines.read)
            .await
        {
            Ok(StockAnswer::Found {
                stock,
                version,
                registered,
            }) => {
                let outcome = Outcome::Stock(stock.clone());
                let answer = (forwarded != "bypass").then_some(Cacheable {
                    stock,
                    version,
                    registered,
                });
                Stepped::Outcome(
                    outcome,
                    Source::FetchedStock {
                        fetch,
                        answer,
                        forwarded,
                    },
                )
            }
            Ok(StockAnswer::NotFound) => Stepped::Outcome(
                Outcome::Refused(Refusal::StockNotFound),
                Source::Passed(forwarded),
            ),
            Err(unavailable) => {
                let now = BootTime::now();
                match kept_before.filter(|kept| now.since(kept.fetched) <= caching.stale_on_error) {
                    Some(kept) => {
                        Stepped::Outcome(Outcome::Stock(kept.value.clone()), Source::Stock(kept))
                    }
                    None => Stepped::Outcome(
                        Outcome::Unavailable(unavailable),
                        Source::Passed(forwarded),
                    ),
                }
            }
        }
    }

    async fn read_order(&self, number: OrderNumber, caching: Caching, memo: &[u8]) -> Stepped {
        let bypass = caching.freshness == Freshness::Bypass;
        if !bypass && let Found::Fresh(kept) = self.gateway.cache.order(number) {
            self.gateway
                .cache
                .order_counts
                .hits
                .fetch_add(1, Ordering::Relaxed);
            return match self.serve(&kept, memo) {
                Kind::Served(response) => Stepped::Served(response),
                // An order never changes: what has expired is rendered anew.
                Kind::Unrendered | Kind::Expired => {
                    Stepped::Outcome(Outcome::Order(kept.value.clone()), Source::Order(kept))
                }
            };
        }
        let asked = BootTime::now();
        let outcome = self
            .gateway
            .backend
            .read_order(number, self.deadlines.read)
            .await;
        let source = match &outcome {
            Outcome::Order(order) if !bypass => Source::FetchedOrder {
                order: order.clone(),
                asked,
            },
            _ if bypass => Source::Passed("bypass"),
            _ => Source::Passed("miss"),
        };
        Stepped::Outcome(outcome, source)
    }

    /// The response kept beside an outcome, if it was made for such a request.
    fn serve<V>(&self, kept: &Kept<V>, memo: &[u8]) -> Kind {
        let Some(rendered) = kept.rendered(self.decider.version().id, memo) else {
            return Kind::Unrendered;
        };
        let now = BootTime::now();
        if rendered.has_expired(now) {
            return Kind::Expired;
        }
        let ttl = ttl_seconds(rendered.keep_until, now);
        Kind::Served(response(rendered.reply.clone(), Some(hit(ttl))))
    }

    /// Makes the response, and keeps it where the policy wants that and it may be kept.
    fn respond(&self, reply: Reply, source: Source, memo: &[u8]) -> Response<Full<Bytes>> {
        let policy = self.decider.version().id;
        let status = match source {
            Source::None => None,
            Source::Passed(forwarded) => Some(format!("bazaar; fwd={forwarded}")),
            Source::Stock(kept) => {
                kept.render(policy, memo, &reply);
                Some(hit_after_rendering(kept.fetched, &reply))
            }
            Source::Order(kept) => {
                kept.render(policy, memo, &reply);
                Some(hit_after_rendering(kept.fetched, &reply))
            }
            Source::FetchedStock {
                fetch,
                answer,
                forwarded,
            } => {
                let wanted = answer.filter(|_| reply.keep.is_some());
                let kept = wanted
                    .and_then(|answer| fetch.keep(answer.stock, answer.version, answer.registered));
                if let Some(kept) = &kept {
                    kept.render(policy, memo, &reply);
                }
                Some(format!(
                    "bazaar; fwd={forwarded}{}",
                    if kept.is_some() { "; stored" } else { "" }
                ))
            }
            Source::FetchedOrder { order, asked } => {
                let stored = reply.keep.is_some();
                if stored {
                    self.gateway
                        .cache
                        .keep_order(order, asked)
                        .render(policy, memo, &reply);
                }
                Some(format!(
                    "bazaar; fwd=miss{}",
                    if stored { "; stored" } else { "" }
                ))
            }
        };
        response(reply, status)
    }
}

/// What became of a kept outcome.
enum Kind {
    /// Its response was served.
    Served(Response<Full<Bytes>>),
    /// It has no response for such a request yet.
    Unrendered,
    /// Its response was kept long enough.
    Expired,
}

fn hit(ttl: i64) -> String {
    format!("bazaar; hit; ttl={ttl}")
}

fn hit_after_rendering(fetched: BootTime, reply: &Reply) -> String {
    hit(ttl_seconds(
        fetched + reply.keep.unwrap_or_default(),
        BootTime::now(),
    ))
}

fn response(reply: Reply, cache_status: Option<String>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(reply.body));
    *response.status_mut() = reply.status;
    *response.headers_mut() = reply.headers;
    if let Some(status) = cache_status.and_then(|status| HeaderValue::try_from(status).ok()) {
        response.headers_mut().insert(CACHE_STATUS, status);
    }
    response
}

/// An error that the gateway itself answers with, in the form of all others.
pub fn error(status: StatusCode, message: &str) -> Response<Full<Bytes>> {
    let body = serde_json::json!({ "error": { "code": status.as_u16(), "message": message } });
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A header that a policy is to see and that is not text.
fn unreadable_header<'a>(
    headers: &HeaderMap,
    mut wanted: impl Iterator<Item = &'a HeaderName>,
) -> Option<&'a HeaderName> {
    wanted.find(|name| {
        headers
            .get_all(*name)
            .iter()
            .any(|value| value.to_str().is_err())
    })
}

/// A key that nobody else makes: 128 random bits.
fn new_key() -> IdempotencyKey {
    let mut bits = [0; 16];
    getrandom::fill(&mut bits).expect("the system has randomness");
    let hex: String = bits.iter().map(|byte| format!("{byte:02x}")).collect();
    IdempotencyKey::new(&format!("gateway-{hex}")).expect("40 printable bytes")
}

fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}

/// For `HEAD`: the response without its body, with the length that the body would have.
pub fn without_body(method: &Method, mut response: Response<Full<Bytes>>) -> Response<Full<Bytes>> {
    if method == Method::HEAD {
        let length = response.body().size_hint().exact().unwrap_or(0);
        response.headers_mut().insert(CONTENT_LENGTH, length.into());
        *response.body_mut() = Full::default();
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ() {
        assert_ne!(new_key(), new_key());
    }

    #[test]
    fn an_error_has_the_form_of_all_others() {
        let response = error(StatusCode::PAYLOAD_TOO_LARGE, "too \"large\"");
        assert_eq!(response.status(), 413);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
    }
}
