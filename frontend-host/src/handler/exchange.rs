//! A request under way: what the policy decides is done, until that is a response.
//!
//! A hit takes the shortest way. It waits for nothing, so whatever waits for a backend is boxed:
//! the future of a request, which hyper moves about, stays small.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use domain::IdempotencyKey;
use http::{HeaderMap, Response, StatusCode};
use http_body_util::Full;
use tokio::sync::SemaphorePermit;
use tokio::time::{Instant, sleep};
use traces::{Kind, Span};

use super::admission::check_content_coding;
use super::cache_status::{CacheStatus, Forward};
use super::refusal::Refusal as Inadmissible;
use super::response::{complete, rendered};
use super::{Gateway, Request};
use crate::access_log::Decided;
use crate::cache::{Counts, Rendering};
use crate::upstream::call::Call;
use frontend_policy::answered::{Answer, Cached, Route};
use frontend_policy::decision::{Action, Operation, Outcome, Reply, TakeAction, TradeAction};
use frontend_policy::{Connection, Decider, Digest, RequestParts};

mod reads;

/// A request under way.
pub(super) struct Exchange<'a> {
    gateway: &'a Gateway,
    request: Request<'a>,
    /// Wall clock when it came in, in milliseconds since 1970.
    now_ms: u64,
    decider: Decider<'a>,
    /// Until when backends are asked; set when the first one is.
    deadlines: Option<Deadlines>,
    /// When there is no time left for a trade, whenever the first backend is asked; of an order of a batch.
    trade_until: Option<Instant>,
    /// Made once, for every attempt to trade.
    key: Option<IdempotencyKey>,
    /// Held until the list that was read is rendered.
    list: Option<SemaphorePermit<'a>>,
    /// The version that decided what is done: another one may have taken its place since.
    operation_of: u64,
    /// What was done last, and what the cache had for it.
    route: Route,
    cached: Cached,
    /// When it came, where what the client gets is compared with what others get.
    compared_since: Option<Instant>,
}

/// A client that went away before there was an answer is seen as well.
impl Drop for Exchange<'_> {
    fn drop(&mut self) {
        if let Some(since) = self.compared_since {
            self.decider.served(None, since.elapsed());
        }
    }
}

/// They are the request's, not a step's.
#[derive(Clone, Copy)]
struct Deadlines {
    read: Instant,
    trade: Instant,
}

impl Deadlines {
    /// Of a request that asks the first backend now.
    fn from_now(gateway: &Gateway) -> Self {
        let now = Instant::now();
        Self {
            read: now + gateway.read_time_max,
            trade: now + gateway.trade_time_max,
        }
    }

    /// The same, and no later than that.
    fn until(self, until: Option<Instant>) -> Self {
        match until {
            None => self,
            Some(until) => Self {
                read: self.read.min(until),
                trade: self.trade.min(until),
            },
        }
    }
}

/// How a step ended.
enum StepResult {
    /// With a response that the policy is not asked for.
    Response(Response<Full<Bytes>>),
    /// With an outcome that the policy decides about; of a read also with what becomes of its reply.
    Outcome(Outcome, Option<OnReply>),
}

/// Stores the reply that the policy made of what was read, where that may be kept; returns what
/// `Cache-Status` says of it.
type OnReply = Box<dyn FnOnce(Rendering<'_>) -> CacheStatus + Send>;

/// The last step.
struct Performed {
    operation: Operation,
    /// Whether something was read that can be kept.
    is_read: bool,
    on_reply: Option<OnReply>,
}

impl<'a> Exchange<'a> {
    /// Takes a request up.
    pub(super) fn begin(gateway: &'a Gateway, request: Request<'a>) -> Self {
        let headers = &request.admitted.head.headers;
        let mut decider = gateway.decider(request.admitted.head, request.client);
        decider.leave_unreadable(headers);
        let published = decider.published();
        let settings = published.active.manifest.cache;
        gateway.cache.apply_settings(published.generation, settings);
        Self {
            compared_since: decider.is_compared().then(Instant::now),
            gateway,
            request,
            now_ms: unix_ms(),
            operation_of: decider.version().id,
            decider,
            deadlines: None,
            trade_until: None,
            key: None,
            list: None,
            route: Route::Policy,
            cached: Cached::None,
        }
    }

    /// Has no backend asked after that, whenever the first one is.
    pub(super) fn set_trade_until(&mut self, until: Instant) {
        self.trade_until = Some(until);
    }

    /// Whether the policy that decides can be shown the request's headers and make sense of its body.
    /// What was published when it was admitted may be another by now.
    fn check(&self) -> Result<(), Inadmissible> {
        let (request, version) = (&self.request, self.decider.version());
        let headers = &request.admitted.head.headers;
        if let Some(name) = version.unreadable(headers) {
            return Err(Inadmissible::UnreadableHeader(name.clone()));
        }
        if request.body.as_ref().is_some_and(|body| !body.is_empty()) {
            check_content_coding(headers, version.manifest.headers.iter())?;
        }
        Ok(())
    }

    /// Counts it, now that it is answered.
    pub(super) fn count(&self, status: StatusCode, took: Duration) {
        let answer = Answer {
            route: self.route,
            cached: self.cached,
            status,
        };
        self.decider.version().answered.count(answer);
        self.gateway.measured.answered(answer, took);
    }

    /// Adds what the version that decided adds to every reply.
    pub(super) fn add_reply_headers(&self, reply: &mut HeaderMap) {
        let request = &self.request.admitted.head.headers;
        self.decider.add_reply_headers(reply, request);
    }

    /// What was decided, for whoever notes it.
    pub(super) fn decided(&self) -> Decided {
        Decided {
            policy: self.policy(),
            route: self.route,
            cached: self.cached,
        }
    }

    /// The version that decided.
    fn policy(&self) -> Digest {
        self.decider.version().digest
    }

    /// Answers. Where a canary is compared with the active version, that is told of it.
    pub(super) async fn answer(&mut self) -> Response<Full<Bytes>> {
        let answered = self.run().await;
        let response = answered.unwrap_or_else(|refusal| refusal.response());
        if let Some(since) = self.compared_since.take() {
            self.decider
                .served(Some(response.status()), since.elapsed());
        }
        response
    }

    /// Decides and performs until there is a response, or no decision: the decider takes no other one after
    /// so many steps.
    async fn run(&mut self) -> Result<Response<Full<Bytes>>, Inadmissible> {
        self.check()?;
        let deciding = self.deciding("decide on-request");
        let mut decision = self
            .decider
            .on_request(request_parts(&self.request, self.now_ms))?;
        drop(deciding);
        let mut performed: Option<Performed> = None;
        loop {
            let (operation, pause) = match decision.action {
                Action::Respond(reply) => return Ok(self.respond(*reply, performed)),
                Action::Perform(operation) => {
                    self.operation_of = self.decider.version().id;
                    (operation, Duration::ZERO)
                }
                Action::Retry(pause) => {
                    (performed.ok_or(Inadmissible::Undecided)?.operation, pause)
                }
            };
            if !pause.is_zero() {
                let left = self.deadlines().trade - Instant::now();
                Box::pin(sleep(pause.min(left))).await;
            }
            let memo = decision.memo;
            let (outcome, on_reply) = match self.perform(&operation, &memo).await {
                StepResult::Response(response) => return Ok(response),
                StepResult::Outcome(outcome, on_reply) => (outcome, on_reply),
            };
            let deciding = self.deciding("decide on-outcome");
            let request = request_parts(&self.request, self.now_ms);
            decision = self.decider.on_outcome(request, &memo, &outcome)?;
            drop(deciding);
            performed = Some(Performed {
                operation,
                is_read: matches!(outcome, Outcome::Stock(_) | Outcome::Order(_))
                    && !self.decider.has_traded(),
                on_reply,
            });
        }
    }

    async fn perform(&mut self, operation: &Operation, memo: &[u8]) -> StepResult {
        let cache = &self.gateway.cache;
        self.route = Route::of(operation);
        match operation {
            Operation::ReadStock { name, caching } => {
                let found = self.find_stock(name, caching, memo);
                self.cached = count(
                    &cache.stock_counts,
                    found.as_ref().err().map(|fetch| fetch.why),
                );
                match found {
                    Ok(found) => found,
                    Err(to_fetch) => Box::pin(self.fetch_stock(name, caching, to_fetch)).await,
                }
            }
            Operation::ReadOrder { number, caching } => {
                let found = self.find_order(*number, caching, memo);
                self.cached = count(&cache.order_counts, found.as_ref().err().copied());
                match found {
                    Ok(found) => found,
                    Err(why) => Box::pin(self.fetch_order(*number, why)).await,
                }
            }
            Operation::ListStocks(listing) => Box::pin(self.list_stocks(listing)).await,
            Operation::ListOrders(listing) => Box::pin(self.list_orders(listing)).await,
            Operation::FollowOrders { after } => Box::pin(self.follow_orders(*after)).await,
            Operation::Take(take) => StepResult::Outcome(Box::pin(self.take(take)).await, None),
            Operation::Trade(trade) => {
                let order = self.order(trade);
                let deadline = self.deadlines().trade;
                let began = Instant::now();
                let call = self.call(deadline);
                let outcome = Box::pin(self.gateway.backend.trade(&order, call)).await;
                self.gateway.measured.traded(&outcome, began.elapsed());
                StepResult::Outcome(outcome, None)
            }
        }
    }

    async fn take(&mut self, take: &TakeAction) -> Outcome {
        let deadline = self.deadlines().read;
        // It was there when this was decided; a version that took over since may have none.
        let Ok(bucket) = self.decider.version().manifest.bucket_of(take) else {
            return Outcome::Denied(u32::MAX);
        };
        let (backend, call) = (&self.gateway.backend, self.call(deadline));
        backend.take(bucket, &take.key, take.cost, call).await
    }

    /// How backends are called for it.
    fn call(&self, deadline: Instant) -> Call<'a> {
        Call {
            deadline,
            under: self.request.noted.traced_under(),
        }
    }

    /// The span of a decision, where the request is traced.
    fn deciding(&self, name: &'static str) -> Option<Span> {
        let span = self.request.noted.traced_under()?;
        let span = span.begin(Kind::Internal, name);
        Some(span.with("bazaar.policy", self.policy().to_string()))
    }

    fn deadlines(&mut self) -> Deadlines {
        let (gateway, until) = (self.gateway, self.trade_until);
        let deadlines = &mut self.deadlines;
        *deadlines.get_or_insert_with(|| Deadlines::from_now(gateway).until(until))
    }

    /// The order that a trade places, with the client's key or the one made for this request.
    fn order(&mut self, trade: &TradeAction) -> domain::Order {
        let now_ms = self.now_ms;
        let key = trade
            .key
            .clone()
            .unwrap_or_else(|| self.key.get_or_insert_with(|| new_key(now_ms)).clone());
        domain::Order {
            key,
            name: trade.name.clone(),
            side: trade.side,
            quantity: trade.quantity,
        }
    }

    /// Whether the version that decides has decided what was done. If not, the key of that says nothing
    /// of what it renders.
    fn is_operation_its_own(&self) -> bool {
        self.operation_of == self.decider.version().id
    }

    /// The policy's reply, kept where it wants that and it may be.
    fn respond(&mut self, mut reply: Reply, performed: Option<Performed>) -> Response<Full<Bytes>> {
        if !self.is_operation_its_own() {
            reply.keep = None;
        }
        complete(
            &mut reply,
            performed.as_ref().is_some_and(|last| last.is_read),
        );
        let status = performed.and_then(|last| {
            let on_reply = last.on_reply?;
            let rendering = Rendering {
                key: self.render_key(last.operation.vary_key()),
                reply: &reply,
                ambient: self.decider.ambient(self.now_ms),
            };
            Some(on_reply(rendering))
        });
        rendered(reply, status, self.request.admitted.head)
    }
}

fn target<'a>(request: &'a Request<'_>) -> &'a str {
    let target = request.admitted.head.uri.path_and_query();
    target.map_or("/", |target| target.as_str())
}

fn request_parts<'a>(request: &'a Request<'_>, now_ms: u64) -> RequestParts<'a> {
    RequestParts {
        method: &request.admitted.head.method,
        target: target(request),
        headers: &request.admitted.head.headers,
        connection: Some(Connection {
            client: request.client,
            scheme: request.scheme,
            version: request.admitted.head.version,
        }),
        body: request.body.as_deref(),
        now_ms,
        id: Some(&request.noted.id),
    }
}

/// Counts a lookup as `Cache-Status` will tell it: what was forwarded, by why.
fn count(counts: &Counts, forwarded: Option<Forward>) -> Cached {
    let (counter, cached) = match forwarded {
        None => (&counts.hits, Cached::Hit),
        Some(Forward::Bypass) => (&counts.bypasses, Cached::Bypass),
        Some(Forward::Miss) => (&counts.misses, Cached::Miss),
        Some(Forward::Stale) => (&counts.stale, Cached::Stale),
    };
    counter.increment();
    cached
}

/// A key that nobody else makes: the time and 80 random bits. Keys made at about the same time
/// lie beside each other in the databases' indexes, so that a group of orders changes few pages
/// (the idea of ULID, and of UUID version 7 in RFC 9562, section 5.7).
pub(crate) fn new_key(now_ms: u64) -> IdempotencyKey {
    let mut random = [0; 10];
    getrandom::fill(&mut random).expect("the system has randomness");
    let random = random
        .iter()
        .fold(0, |bits, &byte| bits << 8 | u128::from(byte));
    let key = format!("gateway-{:012x}{random:020x}", now_ms & 0xffff_ffff_ffff);
    IdempotencyKey::new(&key).expect("40 printable bytes")
}

pub(crate) fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ_and_rise_with_the_time() {
        assert_ne!(new_key(7), new_key(7));
        let keys = [7, 8, 255, 256, u64::MAX].map(new_key);
        assert!(keys.is_sorted_by_key(|key| key.as_str()));
        assert!(keys.iter().all(|key| key.as_str().len() == 40));
    }
}
