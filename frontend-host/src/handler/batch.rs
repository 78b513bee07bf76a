//! Many orders in one request: `POST /orders` with a JSON array.
//!
//! Each order is decided about and placed as if it had come alone, with the head of the whole, so that no
//! policy knows of batches, and none has to. They are under way at the same time, as many as there is room
//! for: their trades go to the leader together, and none waits for another's.

use std::fmt;
use std::future::poll_fn;
use std::io::Write as _;
use std::net::IpAddr;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use frontend_policy::answered::{Cached, Route};
use frontend_policy::decision::Scheme;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Response};
use http_body_util::Full;
use rpc::budget::Share;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::task::yield_now;

use super::admission::Admitted;
use super::exchange::{Deadlines, Exchange};
use super::refusal::{JSON, NO_STORE, Refusal};
use super::{Gateway, Noted, Request};
use crate::access_log::Decided;
use crate::config::BATCH_ORDERS_MAX;

/// Where orders are placed.
const PATH: &str = "/orders";

/// What the field `key` of an order stands for.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// What the orders of one batch that are under way may take, in bytes: some 200 of them.
const UNDER_WAY_BYTES_MAX: usize = 1 << 20;

/// What an order that is under way takes besides its headers, in bytes: what is being done about it, and
/// itself on its way to a replica.
const ORDER_BYTES: usize = 4 << 10;

/// What each of its headers takes besides name and value, which it shares with those of the others.
const HEADER_BYTES: usize = 128;

/// How long the orders of a batch may keep a thread from other requests at a time.
const TURN_TIME_MAX: Duration = Duration::from_millis(1);

/// Most bytes of what one order is answered with: policies answer with some 50.
const CONTENT_BYTES_MAX: usize = 4 << 10;

/// Room for what stands around that.
const ENTRY_BYTES: usize = 64;

/// The orders of a request that is a batch, as they stand in its body; `None` of one that is none. What
/// looks like an array and is no JSON, or is empty, is for the policy to refuse.
///
/// # Errors
/// Where there are too many, or there is a key for all of them.
pub(super) fn split(head: &Parts, body: &Bytes) -> Result<Option<Vec<Bytes>>, Refusal> {
    if !is_array(body) || head.method != Method::POST || head.uri.path() != PATH {
        return Ok(None);
    }
    let text = str::from_utf8(body).unwrap_or_default();
    // Unread, so that it takes no memory how large or deeply nested they are.
    let orders: Vec<&RawValue> = serde_json::from_str(text).unwrap_or_default();
    if orders.is_empty() {
        return Ok(None);
    }
    if orders.len() > BATCH_ORDERS_MAX {
        return Err(Refusal::BatchTooLong);
    }
    if head.headers.contains_key(IDEMPOTENCY_KEY) {
        return Err(Refusal::KeyOfBatch);
    }
    let orders = orders.into_iter().map(|order| order.get().as_bytes());
    Ok(Some(orders.map(|order| body.slice_ref(order)).collect()))
}

fn is_array(body: &[u8]) -> bool {
    let is_blank = |byte: &u8| b" \t\r\n".contains(byte);
    body.iter().find(|byte| !is_blank(byte)) == Some(&b'[')
}

/// Answers a batch. What its orders take is part of `held`.
pub(super) async fn answer(
    gateway: &Gateway,
    request: Request<'_>,
    orders: Vec<Bytes>,
    mut held: Share,
) -> Response<Full<Bytes>> {
    let Request {
        admitted,
        client,
        scheme,
        noted,
        ..
    } = request;
    let head = &*admitted.head;
    let order_bytes = ORDER_BYTES + HEADER_BYTES * head.headers.len();
    let under_way_max = (UNDER_WAY_BYTES_MAX / order_bytes).clamp(1, orders.len());
    if held.grow(under_way_max * order_bytes).is_err() {
        return gateway.refuse(&Refusal::BodiesCrowded, (head, noted), client);
    }
    let batch = Batch {
        gateway,
        head,
        client,
        scheme,
        noted,
        deadlines: Deadlines::from_now(gateway),
    };
    let entries = batch.answer_all(orders, under_way_max).await;
    let mut response = reply(&entries);
    let decider = gateway.decider(head, client);
    decider.add_reply_headers(response.headers_mut(), &head.headers);
    noted.name(&mut response);
    if noted.is_described() {
        response.extensions_mut().insert(Decided {
            policy: decider.version().digest,
            route: Route::Trade,
            cached: Cached::None,
        });
    }
    response
}

/// What the orders of a batch have in common.
struct Batch<'a> {
    gateway: &'a Gateway,
    head: &'a Parts,
    client: IpAddr,
    scheme: Scheme,
    noted: &'a Noted,
    deadlines: Deadlines,
}

impl Batch<'_> {
    /// Answers all, so many at a time: what each is answered with, in their order.
    async fn answer_all(&self, orders: Vec<Bytes>, under_way_max: usize) -> Vec<Vec<u8>> {
        let mut entries = vec![Vec::new(); orders.len()];
        let mut orders = orders.into_iter().enumerate();
        let mut under_way = FuturesUnordered::new();
        let mut turn = Turn::begin();
        loop {
            turn.pass().await;
            let has_room = under_way.len() < under_way_max;
            let next = if has_room { orders.next() } else { None };
            let answered = match next {
                Some((place, order)) => {
                    under_way.push(self.answer_one(place, order));
                    // As far as it goes without waiting: to its trade, mostly, which is on its way then.
                    poll_fn(|cx| {
                        Poll::Ready(match under_way.poll_next_unpin(cx) {
                            Poll::Ready(answered) => answered,
                            Poll::Pending => None,
                        })
                    })
                    .await
                }
                None => match under_way.next().await {
                    Some(answered) => Some(answered),
                    None => return entries,
                },
            };
            if let Some((place, entry)) = answered {
                entries[place] = entry;
            }
        }
    }

    /// Answers the order at a place.
    async fn answer_one(&self, place: usize, order: Bytes) -> (usize, Vec<u8>) {
        let response = match key(&order) {
            Ok(key) => self.answer_alone(key, order).await,
            Err(refusal) => {
                let request = (self.head, self.noted);
                self.gateway.refuse(&refusal, request, self.client)
            }
        };
        (place, entry(response))
    }

    /// Answers an order as if it had come alone.
    async fn answer_alone(&self, key: Option<HeaderValue>, order: Bytes) -> Response<Full<Bytes>> {
        let began = Instant::now();
        let mut head = self.head.clone();
        if let Some(key) = key {
            head.headers.insert(IDEMPOTENCY_KEY, key);
        }
        let request = Request {
            admitted: Admitted { head: &mut head },
            body: Some(order),
            client: self.client,
            scheme: self.scheme,
            noted: self.noted,
        };
        let mut exchange = Exchange::begin(self.gateway, request);
        exchange.set_deadlines(self.deadlines);
        let response = exchange.answer().await;
        exchange.count(response.status(), began.elapsed());
        response
    }
}

/// The time for which a batch has its thread.
struct Turn {
    began: Instant,
}

impl Turn {
    fn begin() -> Self {
        Self {
            began: Instant::now(),
        }
    }

    /// Leaves the thread to others where it has been long enough.
    async fn pass(&mut self) {
        if self.began.elapsed() >= TURN_TIME_MAX {
            yield_now().await;
            *self = Self::begin();
        }
    }
}

/// What an order of a batch has that an order alone has in its head.
#[derive(Deserialize)]
struct Keyed {
    key: Option<String>,
}

/// The key of an order. Of what is no object, the policy says what is wrong with it.
fn key(order: &[u8]) -> Result<Option<HeaderValue>, Refusal> {
    if !order.starts_with(b"{") {
        return Ok(None);
    }
    let keyed: Keyed = serde_json::from_slice(order).map_err(|_| Refusal::KeyInBatch)?;
    let key = keyed.key.map(HeaderValue::try_from).transpose();
    key.map_err(|_| Refusal::KeyInBatch)
}

/// What policies answer with.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Members<'a> {
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

/// What is said of one order: the status that it would have had alone, what it would have been answered with,
/// and after how many seconds to try again.
fn entry(response: Response<Full<Bytes>>) -> Vec<u8> {
    let (head, body) = response.into_parts();
    let body = body.into_inner().unwrap_or_default();
    let mut entry = Vec::with_capacity(ENTRY_BYTES + body.len().min(CONTENT_BYTES_MAX));
    let status = head.status.as_u16();
    put(&mut entry, format_args!("{{\"status\":{status}"));
    put_content(&mut entry, &body);
    let seconds = head.headers.get(RETRY_AFTER);
    let seconds = seconds.and_then(|value| value.to_str().ok()?.parse::<u32>().ok());
    if let Some(seconds) = seconds {
        put(&mut entry, format_args!(",\"retry_after\":{seconds}"));
    }
    entry.push(b'}');
    entry
}

/// As members of an object: `data` and `error` as policies have them, any other JSON, or text, as `body`.
fn put_content(entry: &mut Vec<u8>, body: &[u8]) {
    if body.is_empty() {
        return;
    }
    if body.len() > CONTENT_BYTES_MAX {
        let why =
            "it is too long for a batch: sent alone, under the same key, the order gets it again";
        return put(entry, format_args!(",\"left_out\":\"{why}\""));
    }
    let is_object = body.trim_ascii_start().starts_with(b"{");
    let members: Option<Members<'_>> = serde_json::from_slice(body).ok();
    if let Some(Members { data, error }) = members
        && is_object
        && (data.is_some() || error.is_some())
    {
        for (name, value) in [("data", data), ("error", error)] {
            if let Some(value) = value {
                put(entry, format_args!(",\"{name}\":{}", value.get()));
            }
        }
    } else if let Ok(json) = serde_json::from_slice::<&RawValue>(body) {
        put(entry, format_args!(",\"body\":{}", json.get()));
    } else {
        let text = serde_json::Value::from(String::from_utf8_lossy(body));
        put(entry, format_args!(",\"body\":{text}"));
    }
}

fn put(entry: &mut Vec<u8>, text: fmt::Arguments<'_>) {
    entry.write_fmt(text).expect("memory takes all of it");
}

/// The answer to a batch.
fn reply(entries: &[Vec<u8>]) -> Response<Full<Bytes>> {
    let bytes: usize = entries.iter().map(|entry| entry.len() + 1).sum();
    let mut body = Vec::with_capacity(bytes + 1);
    for (place, entry) in entries.iter().enumerate() {
        body.push(if place == 0 { b'[' } else { b',' });
        body.extend_from_slice(entry);
    }
    body.push(b']');
    let mut response = Response::new(Full::new(Bytes::from(body)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
    headers.insert(CACHE_CONTROL, NO_STORE);
    response
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    fn head(method: &str, target: &str, headers: &[(&'static str, &'static str)]) -> Parts {
        let mut request = http::Request::builder().method(method).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn split_post(body: &str) -> Result<Option<Vec<Bytes>>, Refusal> {
        let head = head("POST", "/orders?x", &[]);
        split(&head, &Bytes::from(body.to_owned()))
    }

    #[test]
    fn an_array_is_as_many_orders_as_they_stand_there() {
        let orders = split_post(" \r\n\t[ {\"a\": [1]} ,2,\n\"x\"]\n").unwrap();
        assert_eq!(orders.unwrap(), [&b"{\"a\": [1]}"[..], b"2", b"\"x\""]);
        let most = format!("[{}0]", "0,".repeat(BATCH_ORDERS_MAX - 1));
        assert_eq!(split_post(&most).unwrap().unwrap().len(), BATCH_ORDERS_MAX);
        let more = format!("[0,{}", &most[1..]);
        assert_eq!(split_post(&more), Err(Refusal::BatchTooLong));
    }

    #[test]
    fn what_is_no_batch_is_the_policys_matter() {
        let brackets = "[".repeat(60_000);
        for body in [
            "",
            " ",
            "{}",
            "[",
            "[]",
            "[1,]",
            "[1] 2",
            "[nonsense]",
            &brackets,
        ] {
            assert_eq!(split_post(body), Ok(None), "{body:.20}");
        }
        let array = Bytes::from_static(b"[1]");
        for (method, target) in [("PUT", "/orders"), ("POST", "/orders/"), ("POST", "/x")] {
            assert_eq!(split(&head(method, target, &[]), &array), Ok(None));
        }
        let not_text = Bytes::from_static(b"[\"\xff\"]");
        assert_eq!(split(&head("POST", "/orders", &[]), &not_text), Ok(None));
    }

    #[test]
    fn a_key_is_of_one_order() {
        let keyed = head("POST", "/orders", &[("idempotency-key", "k")]);
        let array = Bytes::from_static(b"[1]");
        assert_eq!(split(&keyed, &array), Err(Refusal::KeyOfBatch));
        for (order, expected) in [
            (r#"{"key":"k","name":{"key":7}}"#, Ok(Some("k"))),
            (r#"{"name":"nike"}"#, Ok(None)),
            (r#"{"key":null}"#, Ok(None)),
            ("[\"k\"]", Ok(None)),
            ("7", Ok(None)),
            (r#"{"key":7}"#, Err(Refusal::KeyInBatch)),
            (r#"{"key":"k","key":"k"}"#, Err(Refusal::KeyInBatch)),
            (r#"{"key":"\n"}"#, Err(Refusal::KeyInBatch)),
        ] {
            let expected = expected.map(|key| key.map(HeaderValue::from_static));
            assert_eq!(key(order.as_bytes()), expected, "{order}");
        }
    }

    #[test]
    fn an_entry_says_what_the_order_would_have_been_answered_with() {
        for (status, retry_after, body, expected) in [
            (
                200,
                None,
                r#"{"data":{"transaction_number":0}}"#,
                r#"{"status":200,"data":{"transaction_number":0}}"#,
            ),
            (
                429,
                Some("7"),
                r#" {"error":{"code":429}}"#,
                r#"{"status":429,"error":{"code":429},"retry_after":7}"#,
            ),
            (503, Some("soon"), "", r#"{"status":503}"#),
            (
                200,
                None,
                r#"{"data":1,"x":2}"#,
                r#"{"status":200,"body":{"data":1,"x":2}}"#,
            ),
            (200, None, "[1,2]", r#"{"status":200,"body":[1,2]}"#),
            (
                404,
                None,
                "no \"such\"",
                r#"{"status":404,"body":"no \"such\""}"#,
            ),
        ] {
            let mut response = Response::new(Full::new(Bytes::from(body)));
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            if let Some(after) = retry_after {
                let after = HeaderValue::from_static(after);
                response.headers_mut().insert(RETRY_AFTER, after);
            }
            assert_eq!(String::from_utf8(entry(response)).unwrap(), expected);
        }
        let long = Bytes::from(vec![b'x'; CONTENT_BYTES_MAX + 1]);
        let entry = entry(Response::new(Full::new(long)));
        let entry: serde_json::Value = serde_json::from_slice(&entry).unwrap();
        assert!(entry["left_out"].as_str().unwrap().contains("sent alone"));
    }

    #[test]
    fn an_answer_is_the_entries_in_their_order() {
        let reply = reply(&[b"{}".to_vec(), b"{}".to_vec()]);
        let body = reply.into_body().into_inner().unwrap();
        assert_eq!(body, "[{},{}]");
    }
}
