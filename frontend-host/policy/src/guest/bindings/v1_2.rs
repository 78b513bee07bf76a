//! The world of 1.2, and its conversion from and to the gateway's own types.

use std::time::Duration;

use bytes::Bytes;
use domain::{IdempotencyKey, OrderNumber, Quantity, ReplicaId, Side, StockName};
use http::header::{self, CONNECTION, CONTENT_LENGTH, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};
use wasmtime::AsContextMut;
use wasmtime::component::types::{self, ComponentFunc};

use super::{Answer, invalid};
use crate::decision::{
    Action, Bucket, CacheSettings, Caching, Counter, Decision, Eviction, Freshness,
    InvalidDecision, Listing, Manifest, Observation, OnFailure, Operation, Order, OrderListing,
    Outcome, PolicyConnection, PolicyRequest, Rate, Refusal, Remarks, ReplicaView, Reply,
    ReplyHeader, ReplyHeaders, Scheme, Stock, TakeAction, TradeAction, Unavailability, View,
};
use crate::limits;

#[allow(unsafe_code, missing_docs, clippy::all, reason = "generated")]
mod generated {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "front-end",
        ownership: Borrowing { duplicate_if_necessary: true },
    });
}

pub(super) use generated::bazaar::policy::types as wit;
pub(super) use generated::{FrontEnd, FrontEndPre};

/// Whether a function has the type that the generated code calls it by.
pub(super) fn typecheck(
    component: &types::Component,
    function: &str,
    exported: &ComponentFunc,
) -> wasmtime::Result<()> {
    let types = component.instance_type();
    match function {
        "configure" => exported.typecheck::<(&[u8],), (Result<wit::Manifest, String>,)>(&types),
        "on-request" => exported.typecheck::<(wit::Request<'_>,), (wit::Decision,)>(&types),
        "on-outcome" => exported
            .typecheck::<(wit::Request<'_>, &[u8], wit::Outcome<'_>), (wit::Decision,)>(&types),
        _ => exported.typecheck::<(wit::View<'_>,), (Option<u32>,)>(&types),
    }
}

impl FrontEnd {
    pub(super) fn configure(
        &self,
        store: impl AsContextMut,
        config: &[u8],
    ) -> Answer<Result<Manifest, String>> {
        let configured = self.bazaar_policy_policy().call_configure(store, config)?;
        Ok(configured_from(configured))
    }

    pub(super) fn on_request(
        &self,
        store: impl AsContextMut,
        request: &PolicyRequest<'_>,
    ) -> Answer<Decision> {
        let policy = self.bazaar_policy_policy();
        let decision = policy.call_on_request(store, request_to(request))?;
        Ok(decision_from(decision))
    }

    pub(super) fn on_outcome(
        &self,
        store: impl AsContextMut,
        request: &PolicyRequest<'_>,
        memo: &[u8],
        outcome: &Outcome,
    ) -> Answer<Decision> {
        let stocks: Vec<_> = listed(outcome).iter().map(stock_to).collect();
        let orders: Vec<_> = listed_orders(outcome).iter().map(order_to).collect();
        let outcome = outcome_to(outcome, &stocks, &orders);
        let policy = self.bazaar_policy_policy();
        let decision = policy.call_on_outcome(store, request_to(request), memo, outcome)?;
        Ok(decision_from(decision))
    }

    pub(super) fn elect(
        &self,
        store: impl AsContextMut,
        view: &View,
    ) -> wasmtime::Result<Option<u32>> {
        let replicas: Vec<_> = view.replicas.iter().map(replica_to).collect();
        let view = view_to(view, &replicas);
        self.bazaar_policy_policy().call_elect(store, view)
    }
}

/// What a policy says of itself, or what is wrong with its configuration.
pub(super) fn configured_from(
    configured: Result<wit::Manifest, String>,
) -> Result<Result<Manifest, String>, InvalidDecision> {
    match configured {
        Ok(manifest) => manifest_from(manifest).map(Ok),
        Err(why) => Ok(Err(why)),
    }
}

pub(super) fn manifest_from(manifest: wit::Manifest) -> Result<Manifest, InvalidDecision> {
    for (what, text) in [("name", &manifest.name), ("version", &manifest.version)] {
        if !is_name(text) {
            return invalid(format!(
                "the manifest's {what} must have 1 to {} bytes and no control character",
                limits::MANIFEST_TEXT_BYTES_MAX
            ));
        }
    }
    if manifest.headers.len() > limits::MANIFEST_HEADERS_MAX {
        return invalid(format!(
            "the manifest asks for more than {} headers",
            limits::MANIFEST_HEADERS_MAX
        ));
    }
    let headers: Result<_, _> = manifest
        .headers
        .iter()
        .map(|name| HeaderName::from_lowercase(name.as_bytes()))
        .collect();
    let Ok(headers) = headers else {
        return invalid(
            "the manifest asks for a header whose name is not a lower-case header name",
        );
    };
    let cache = manifest.cache;
    if cache.stocks_max.max(cache.orders_max) > limits::CACHE_ENTRIES_MAX {
        return invalid(format!(
            "the manifest asks for a cache of more than {} entries",
            limits::CACHE_ENTRIES_MAX
        ));
    }
    let buckets = buckets_from(manifest.buckets)?;
    let counters = counters_from(manifest.counters)?;
    let reply_headers = reply_headers_from(manifest.reply_headers)?;
    Ok(Manifest {
        name: manifest.name,
        version: manifest.version,
        headers,
        connection: manifest.connection,
        cache: CacheSettings {
            stocks_max: cache.stocks_max,
            orders_max: cache.orders_max,
            eviction: match cache.eviction {
                wit::Eviction::Lru => Eviction::Lru,
                wit::Eviction::TinyLfu => Eviction::TinyLfu,
            },
        },
        on_failure: match manifest.on_failure {
            wit::OnFailure::LastGood => OnFailure::LastGood,
            wit::OnFailure::Refuse => OnFailure::Refuse,
        },
        buckets,
        counters,
        reply_headers,
    })
}

/// As Prometheus has names, in lower case.
fn is_metric_name(text: &str) -> bool {
    let is_inside = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_');
    (1..=limits::MANIFEST_TEXT_BYTES_MAX).contains(&text.len())
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.bytes().all(is_inside)
}

fn counters_from(declared: Vec<wit::Counter>) -> Result<Vec<Counter>, InvalidDecision> {
    if declared.len() > limits::COUNTERS_MAX {
        return invalid(format!(
            "the manifest declares more than {} counters",
            limits::COUNTERS_MAX
        ));
    }
    let mut counters: Vec<Counter> = Vec::new();
    for wit::Counter { name, help, labels } in declared {
        let is_labelled = labels.len() <= limits::COUNTER_LABELS_MAX
            && labels.iter().enumerate().all(|(index, label)| {
                // `policy` is the host's.
                is_metric_name(label) && label != "policy" && !labels[..index].contains(label)
            });
        let is_helpful = (1..=limits::COUNTER_HELP_BYTES_MAX).contains(&help.len())
            && !help.chars().any(char::is_control);
        let is_new = !counters.iter().any(|other| other.name == name);
        if !(is_metric_name(&name) && is_labelled && is_helpful && is_new) {
            return invalid(format!(
                "the manifest declares a counter `{}`: each must have a name of its own, a help text, and at most {} different labels but `policy`; names have 1 to {} lower-case letters, digits and `_`",
                name.escape_debug(),
                limits::COUNTER_LABELS_MAX,
                limits::MANIFEST_TEXT_BYTES_MAX
            ));
        }
        counters.push(Counter { name, help, labels });
    }
    Ok(counters)
}

fn is_name(text: &str) -> bool {
    (1..=limits::MANIFEST_TEXT_BYTES_MAX).contains(&text.len())
        && !text.chars().any(char::is_control)
}

fn buckets_from(declared: Vec<wit::Bucket>) -> Result<Vec<Bucket>, InvalidDecision> {
    if declared.len() > limits::BUCKETS_MAX {
        return invalid(format!(
            "the manifest declares more than {} buckets",
            limits::BUCKETS_MAX
        ));
    }
    let mut buckets: Vec<Bucket> = Vec::new();
    for bucket in declared {
        let name = bucket.name;
        let period = Duration::from_millis(bucket.period_ms.into());
        let Some(rate) = Rate::new(bucket.tokens, period, bucket.burst) else {
            return invalid(format!(
                "the manifest declares the bucket `{}` with a rate or burst that there is not",
                name.escape_debug()
            ));
        };
        if !is_name(&name) || buckets.iter().any(|other| other.name == name) {
            return invalid(format!(
                "the manifest declares a bucket `{}`: each must have a name of its own, of 1 to {} bytes and no control character",
                name.escape_debug(),
                limits::MANIFEST_TEXT_BYTES_MAX
            ));
        }
        buckets.push(Bucket { name, rate });
    }
    Ok(buckets)
}

/// What says something of one reply alone, and would be wrong of another: the gateway's own errors
/// among them.
const OF_ONE_REPLY: [HeaderName; 15] = [
    header::AGE,
    header::CACHE_CONTROL,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_LOCATION,
    header::CONTENT_RANGE,
    header::CONTENT_TYPE,
    header::DATE,
    header::ETAG,
    header::EXPIRES,
    header::LAST_MODIFIED,
    header::LOCATION,
    header::RETRY_AFTER,
    header::SET_COOKIE,
    HeaderName::from_static("cache-status"),
];

/// Not known to RFC 9110, but to HTTP/2, which has no place for them (RFC 9113, section 8.2.2).
const OF_CONNECTION: [&str; 2] = ["keep-alive", "proxy-connection"];

fn reply_headers_from(declared: Vec<wit::ReplyHeader>) -> Result<ReplyHeaders, InvalidDecision> {
    let bytes = |header: &wit::ReplyHeader| {
        let when = header.when.as_ref();
        let when = when.map_or(0, |(name, value)| name.len() + value.len());
        header.name.len() + header.value.len() + when
    };
    if declared.len() > limits::REPLY_HEADERS_MAX
        || declared.iter().map(bytes).sum::<usize>() > limits::REPLY_HEADERS_BYTES_MAX
    {
        return invalid(format!(
            "the manifest adds more than {} headers to every reply, or more than {} bytes of them",
            limits::REPLY_HEADERS_MAX,
            limits::REPLY_HEADERS_BYTES_MAX
        ));
    }
    let added = |text: &str| {
        let text = text.escape_debug();
        format!("the manifest adds the header `{text}` to every reply")
    };
    let mut headers = Vec::with_capacity(declared.len());
    for wit::ReplyHeader { name, value, when } in declared {
        let Some((parsed, value)) = header_of(&name, &value) else {
            return invalid(format!("{}, which HTTP does not allow", added(&name)));
        };
        if FRAMING.contains(&parsed) || OF_CONNECTION.contains(&parsed.as_str()) {
            return invalid(format!("{}, which is the gateway's to set", added(&name)));
        }
        if OF_ONE_REPLY.contains(&parsed) {
            return invalid(format!(
                "{}, which says something of one reply alone: set it in responses",
                added(&name)
            ));
        }
        let when = match when {
            None => None,
            Some((header, wanted)) => match header_of(&header, &wanted) {
                Some(when) => Some(when),
                None => {
                    return invalid(format!(
                        "{} when a request has the header `{}`, which HTTP does not allow",
                        added(&name),
                        header.escape_debug()
                    ));
                }
            },
        };
        headers.push(ReplyHeader {
            name: parsed,
            value,
            when,
        });
    }
    Ok(ReplyHeaders::new(headers))
}

pub(super) fn request_to<'a>(request: &PolicyRequest<'a>) -> wit::Request<'a> {
    wit::Request {
        method: match *request.method {
            Method::GET => wit::Method::Get,
            Method::HEAD => wit::Method::Head,
            Method::POST => wit::Method::Post,
            Method::PUT => wit::Method::Put,
            Method::PATCH => wit::Method::Patch,
            Method::DELETE => wit::Method::Delete,
            Method::OPTIONS => wit::Method::Options,
            _ => wit::Method::Other,
        },
        target: request.target,
        headers: request.headers,
        connection: request.connection.map(connection_to),
        body: request.body,
        now_ms: request.now_ms,
    }
}

fn connection_to(connection: PolicyConnection<'_>) -> wit::Connection<'_> {
    wit::Connection {
        client: connection.client,
        scheme: match connection.scheme {
            Scheme::Http => wit::Scheme::Http,
            Scheme::Https => wit::Scheme::Https,
        },
        authority: connection.authority,
        http_version: match connection.version {
            Version::HTTP_09 | Version::HTTP_10 => wit::HttpVersion::Http10,
            Version::HTTP_11 => wit::HttpVersion::Http11,
            _ => wit::HttpVersion::Http2,
        },
    }
}

fn side_to(side: Side) -> wit::Side {
    match side {
        Side::Buy => wit::Side::Buy,
        Side::Sell => wit::Side::Sell,
    }
}

pub(super) fn stock_to(stock: &Stock) -> wit::Stock<'_> {
    wit::Stock {
        name: stock.name.as_str(),
        price_minor: stock.price.minor(),
        quantity: stock.quantity,
    }
}

fn order_to(order: &Order) -> wit::Order<'_> {
    wit::Order {
        number: order.number.0,
        name: order.name.as_str(),
        side: side_to(order.side),
        quantity: order.quantity.get(),
    }
}

/// The stocks of a page, none of any other outcome.
pub(super) fn listed(outcome: &Outcome) -> &[Stock] {
    match outcome {
        Outcome::Stocks(page) => &page.stocks,
        _ => &[],
    }
}

/// The orders of a page, none of any other outcome.
fn listed_orders(outcome: &Outcome) -> &[Order] {
    match outcome {
        Outcome::Orders(page) => &page.orders,
        _ => &[],
    }
}

/// `stocks` and `orders` are those that are listed, converted: the result borrows them.
pub(super) fn outcome_to<'a>(
    outcome: &'a Outcome,
    stocks: &'a [wit::Stock<'a>],
    orders: &'a [wit::Order<'a>],
) -> wit::Outcome<'a> {
    match outcome {
        Outcome::Stock(stock) => wit::Outcome::Stock(stock_to(stock)),
        Outcome::Stocks(page) => wit::Outcome::Stocks(wit::Page {
            stocks,
            more: page.more,
        }),
        Outcome::Order(order) => wit::Outcome::Order(order_to(order)),
        Outcome::Orders(page) => wit::Outcome::Orders(wit::OrderPage {
            orders,
            next_after: page.next_after.map(|number| number.0),
        }),
        Outcome::Traded(number) => wit::Outcome::Traded(number.0),
        Outcome::Refused(refusal) => wit::Outcome::Refused(match refusal {
            Refusal::StockNotFound => wit::Refusal::StockNotFound,
            Refusal::NotEnough => wit::Refusal::NotEnough,
            Refusal::OrderNotFound => wit::Refusal::OrderNotFound,
            Refusal::KeyConflict => wit::Refusal::KeyConflict,
            Refusal::TooMany => wit::Refusal::TooMany,
        }),
        Outcome::Unavailable(what) => wit::Outcome::Unavailable(match what {
            Unavailability::NoCatalog => wit::Unavailability::NoCatalog,
            Unavailability::NoReplica => wit::Unavailability::NoReplica,
        }),
        Outcome::Granted => wit::Outcome::Granted,
        Outcome::Denied(retry_after_ms) => wit::Outcome::Denied(*retry_after_ms),
    }
}

pub(super) fn replica_to(replica: &ReplicaView) -> wit::Replica {
    let round_trip_us = replica.round_trip.as_micros();
    wit::Replica {
        id: replica.id.get(),
        healthy: replica.healthy,
        reaches_catalog: replica.reaches_catalog,
        orders: replica.orders.0,
        round_trip_us: round_trip_us.try_into().unwrap_or(u32::MAX),
        in_sync: replica.in_sync,
    }
}

/// `replicas` are the view's, converted.
pub(super) fn view_to<'a>(view: &View, replicas: &'a [wit::Replica]) -> wit::View<'a> {
    wit::View {
        replicas,
        leader: view.leader.map(ReplicaId::get),
        epoch: view.epoch.0,
    }
}

pub(super) fn decision_from(decision: wit::Decision) -> Result<Decision, InvalidDecision> {
    Ok(Decision {
        memo: memo_from(decision.memo)?,
        action: action_from(decision.action)?,
        remarks: remarks_from(decision.observations, decision.log)?,
    })
}

/// Whether there are such counters, the manifest says.
fn remarks_from(
    observations: Vec<wit::Observation>,
    log: Vec<String>,
) -> Result<Option<Box<Remarks>>, InvalidDecision> {
    if observations.is_empty() && log.is_empty() {
        return Ok(None);
    }
    let is_short = |label: &String| label.len() <= limits::LABEL_BYTES_MAX;
    if observations.len() > limits::OBSERVATIONS_MAX
        || !observations
            .iter()
            .flat_map(|one| &one.labels)
            .all(is_short)
    {
        return invalid(format!(
            "it counts more than {} things at once, or has a label of more than {} bytes",
            limits::OBSERVATIONS_MAX,
            limits::LABEL_BYTES_MAX
        ));
    }
    let is_short = |line: &String| line.len() <= limits::LOG_LINE_BYTES_MAX;
    if log.len() > limits::LOG_LINES_MAX || !log.iter().all(is_short) {
        return invalid(format!(
            "it logs more than {} lines at once, or one of more than {} bytes",
            limits::LOG_LINES_MAX,
            limits::LOG_LINE_BYTES_MAX
        ));
    }
    let observation = |one: wit::Observation| Observation {
        counter: one.counter,
        labels: one.labels,
        value: one.value,
    };
    Ok(Some(Box::new(Remarks {
        observations: observations.into_iter().map(observation).collect(),
        log,
    })))
}

pub(super) fn memo_from(memo: Vec<u8>) -> Result<Vec<u8>, InvalidDecision> {
    if memo.len() > limits::MEMO_BYTES_MAX {
        return invalid(format!(
            "its memo has {} bytes; {} are allowed",
            memo.len(),
            limits::MEMO_BYTES_MAX
        ));
    }
    Ok(memo)
}

pub(super) fn action_from(action: wit::Action) -> Result<Action, InvalidDecision> {
    Ok(match action {
        wit::Action::Respond(response) => Action::Respond(Box::new(reply_from(response)?)),
        wit::Action::Retry(after_ms) => Action::Retry(Duration::from_millis(after_ms.into())),
        wit::Action::ReadStock(read) => Action::Perform(Operation::ReadStock {
            name: StockName::new(&read.name)?,
            caching: caching_from(read.caching)?,
        }),
        wit::Action::ListStocks(list) => {
            Action::Perform(Operation::ListStocks(listing_from(list)?))
        }
        wit::Action::Take(take) => Action::Perform(Operation::Take(take_from(take)?)),
        wit::Action::ReadOrder(read) => Action::Perform(Operation::ReadOrder {
            number: OrderNumber(read.number),
            caching: caching_from(read.caching)?,
        }),
        wit::Action::ListOrders(list) => {
            Action::Perform(Operation::ListOrders(order_listing_from(list)?))
        }
        wit::Action::FollowOrders(follow) => Action::Perform(Operation::FollowOrders {
            after: follow.after.map(OrderNumber),
        }),
        wit::Action::Trade(trade) => Action::Perform(Operation::Trade(TradeAction {
            name: StockName::new(&trade.name)?,
            side: match trade.side {
                wit::Side::Buy => Side::Buy,
                wit::Side::Sell => Side::Sell,
            },
            quantity: Quantity::new(trade.quantity)?,
            key: trade
                .idempotency_key
                .as_deref()
                .map(IdempotencyKey::new)
                .transpose()?,
        })),
    })
}

fn listing_from(list: wit::ListStocks) -> Result<Listing, InvalidDecision> {
    Ok(Listing::Page {
        after: list.after.as_deref().map(StockName::new).transpose()?,
        limit: limit_from(list.limit, "stocks")?,
    })
}

fn order_listing_from(list: wit::ListOrders) -> Result<OrderListing, InvalidDecision> {
    Ok(OrderListing {
        after: list.after.map(OrderNumber),
        limit: limit_from(list.limit, "orders")?,
        stock: list.stock.as_deref().map(StockName::new).transpose()?,
    })
}

fn limit_from(limit: u32, what: &str) -> Result<u32, InvalidDecision> {
    if !(1..=limits::LISTED_MAX).contains(&limit) {
        return invalid(format!(
            "it lists {limit} {what} at once; 1 to {} are allowed",
            limits::LISTED_MAX
        ));
    }
    Ok(limit)
}

/// Whether there is such a bucket, the manifest says.
fn take_from(take: wit::Take) -> Result<TakeAction, InvalidDecision> {
    if take.key.len() > limits::BUCKET_KEY_BYTES_MAX {
        return invalid(format!(
            "its key for a bucket has {} bytes; {} are allowed",
            take.key.len(),
            limits::BUCKET_KEY_BYTES_MAX
        ));
    }
    Ok(TakeAction {
        bucket: take.bucket,
        key: take.key,
        cost: take.cost,
    })
}

fn caching_from(caching: wit::Caching) -> Result<Caching, InvalidDecision> {
    if caching.vary_key.len() > limits::VARY_KEY_BYTES_MAX {
        return invalid(format!(
            "its vary-key has {} bytes; {} are allowed",
            caching.vary_key.len(),
            limits::VARY_KEY_BYTES_MAX
        ));
    }
    Ok(Caching {
        freshness: match caching.freshness {
            wit::Freshness::Linearizable => Freshness::Linearizable,
            wit::Freshness::AtMost(ms) => Freshness::AtMost(Duration::from_millis(ms.into())),
            wit::Freshness::Bypass => Freshness::Bypass,
        },
        stale_on_error: Duration::from_millis(caching.stale_on_error_ms.into()),
        vary_key: caching.vary_key.into(),
    })
}

fn reply_from(response: wit::Response) -> Result<Reply, InvalidDecision> {
    let status = StatusCode::from_u16(response.status)
        .ok()
        .filter(|status| (200..600).contains(&status.as_u16()));
    let Some(status) = status else {
        return invalid(format!(
            "its response has the status {}, which is not from 200 to 599",
            response.status
        ));
    };
    if response.body.len() > limits::RESPONSE_BYTES_MAX {
        return invalid(format!(
            "its response has {} bytes; {} are allowed",
            response.body.len(),
            limits::RESPONSE_BYTES_MAX
        ));
    }
    if WITHOUT_CONTENT.contains(&status) && !response.body.is_empty() {
        return invalid(format!(
            "its response has a body, which HTTP does not allow with the status {}",
            status.as_u16()
        ));
    }
    if response.headers.len() > limits::RESPONSE_HEADERS_MAX {
        return invalid(format!(
            "its response has more than {} headers",
            limits::RESPONSE_HEADERS_MAX
        ));
    }
    let mut headers = HeaderMap::with_capacity(response.headers.len());
    for (name, value) in &response.headers {
        let (name, value) = header_from(name, value)?;
        headers.append(name, value);
    }
    Ok(Reply {
        status,
        headers,
        body: Bytes::from(response.body),
        keep: response.keep_ms.map(|ms| Duration::from_millis(ms.into())),
    })
}

/// With these there is no content (RFC 9110, sections 15.3.5, 15.3.6 and 15.4.5): who sends some all
/// the same breaks connections.
const WITHOUT_CONTENT: [StatusCode; 3] = [
    StatusCode::NO_CONTENT,
    StatusCode::RESET_CONTENT,
    StatusCode::NOT_MODIFIED,
];

/// Headers that frame a message belong to the server that writes it.
const FRAMING: [HeaderName; 6] = [
    CONNECTION,
    CONTENT_LENGTH,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

fn header_from(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), InvalidDecision> {
    if name.len() + value.len() > limits::HEADER_BYTES_MAX {
        return invalid(format!(
            "its response has a header of more than {} bytes",
            limits::HEADER_BYTES_MAX
        ));
    }
    let Some((parsed, value)) = header_of(name, value) else {
        return invalid(format!(
            "its response has a header `{}` that HTTP does not allow",
            name.escape_default()
        ));
    };
    if FRAMING.contains(&parsed) {
        return invalid(format!(
            "its response sets `{parsed}`, which is the gateway's to set"
        ));
    }
    Ok((parsed, value))
}

/// As HTTP has it, if it has it.
fn header_of(name: &str, value: &str) -> Option<(HeaderName, HeaderValue)> {
    let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
    Some((name, HeaderValue::from_str(value).ok()?))
}
