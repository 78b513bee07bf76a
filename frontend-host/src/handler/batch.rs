//! Many orders in one request: `POST /orders` with a JSON array.
//!
//! Each order is decided about and placed as if it had come alone, with the head of the whole, so that no
//! policy knows of batches, and none has to. They are under way at the same time, as many as there is room
//! for: their trades go to the leader together, and none waits for another's.

use std::fmt;
use std::future::poll_fn;
use std::io::Write as _;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
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
use tokio::time;

use super::admission::Admitted;
use super::exchange::Exchange;
use super::refusal::{JSON, NO_STORE, Refusal};
use super::{Gateway, Noted, Request};
use crate::access_log::Decided;
use crate::config::{BATCH_ORDERS_MAX, HEAD_BYTES_MAX};

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
const HEADER_BYTES: usize = 220;

/// How long the orders of a batch may keep a thread from other requests at a time.
const TURN_TIME_MAX: Duration = Duration::from_millis(1);

/// Most bytes of what one order is answered with: policies answer with some 50.
const CONTENT_BYTES_MAX: usize = 4 << 10;

/// And what all are, together: of those that come later, what they were answered with is left out.
const CONTENTS_BYTES_MAX: usize = 512 << 10;

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
    // What they are answered with is there twice, once it is put together.
    let answer_bytes =
        2 * (ENTRY_BYTES * orders.len() + CONTENTS_BYTES_MAX.min(CONTENT_BYTES_MAX * orders.len()));
    if held
        .grow(under_way_max * order_bytes + answer_bytes)
        .is_err()
    {
        return gateway.refuse(&Refusal::BodiesCrowded, (head, noted), client);
    }
    let batch = Batch {
        gateway,
        head,
        client,
        scheme,
        noted,
        until: time::Instant::now() + gateway.trade_time_max,
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
    /// When there is no time left for any of them.
    until: time::Instant,
}

impl Batch<'_> {
    /// Answers all, so many at a time: what each is answered with, in their order.
    async fn answer_all(&self, orders: Vec<Bytes>, under_way_max: usize) -> Vec<Vec<u8>> {
        let turn = Turn::begin();
        let mut answering = pin!(self.answer_in_turns(orders, under_way_max, &turn));
        poll_fn(|cx| {
            turn.begin_anew();
            answering.as_mut().poll(cx)
        })
        .await
    }

    async fn answer_in_turns(
        &self,
        orders: Vec<Bytes>,
        under_way_max: usize,
        turn: &Turn,
    ) -> Vec<Vec<u8>> {
        let mut entries = vec![Vec::new(); orders.len()];
        let mut orders = orders.into_iter().enumerate();
        let mut under_way = FuturesUnordered::new();
        let mut contents_left = CONTENTS_BYTES_MAX;
        loop {
            turn.pass().await;
            let has_room = under_way.len() < under_way_max;
            let next = if has_room { orders.next() } else { None };
            let answered = match next {
                Some((place, order)) => {
                    under_way.push(turn.share(self.answer_one(place, order)));
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
            if let Some((place, response)) = answered {
                entries[place] = entry(response, &mut contents_left);
            }
        }
    }

    /// Answers the order at a place.
    async fn answer_one(&self, place: usize, order: Bytes) -> (usize, Response<Full<Bytes>>) {
        let has_time = time::Instant::now() < self.until;
        let key = match has_time {
            true => key(&order),
            false => Err(Refusal::BatchTooLate),
        };
        let response = match key {
            Ok(key) => self.answer_alone(key, order).await,
            Err(refusal) => {
                let request = (self.head, self.noted);
                self.gateway.refuse(&refusal, request, self.client)
            }
        };
        (place, response)
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
        exchange.set_trade_until(self.until);
        let response = exchange.answer().await;
        exchange.count(response.status(), began.elapsed());
        response
    }
}

/// The time for which a batch has its thread.
struct Turn {
    first: Instant,
    /// In nanoseconds after the first one began. One thread at a time has it, but not always the same.
    began: AtomicU64,
}

impl Turn {
    fn begin() -> Self {
        Self {
            first: Instant::now(),
            began: AtomicU64::new(0),
        }
    }

    /// It has its thread again.
    fn begin_anew(&self) {
        self.began.store(self.since_first(), Ordering::Relaxed);
    }

    fn is_over(&self) -> bool {
        let began = self.began.load(Ordering::Relaxed);
        Duration::from_nanos(self.since_first().saturating_sub(began)) >= TURN_TIME_MAX
    }

    fn since_first(&self) -> u64 {
        self.first.elapsed().as_nanos() as u64
    }

    /// Leaves the thread to others where it has been long enough.
    async fn pass(&self) {
        if self.is_over() {
            yield_now().await;
        }
    }

    /// One of several that have the turn together: it goes on in the next one where this one is over.
    fn share<T>(&self, one: impl Future<Output = T>) -> impl Future<Output = T> {
        let mut one = Box::pin(one);
        poll_fn(move |cx| match self.is_over() {
            true => {
                cx.waker().wake_by_ref(); // after two of these, none is asked any more
                Poll::Pending
            }
            false => one.as_mut().poll(cx),
        })
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
    // A header has none around it, so that alone it would be another key.
    let is_one = |key: &String| key.len() <= HEAD_BYTES_MAX && key.trim_matches([' ', '\t']) == key;
    if !keyed.key.as_ref().is_none_or(is_one) {
        return Err(Refusal::KeyInBatch);
    }
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
/// and after how many seconds to try again. What it was answered with has to fit into what is left of the room for all of it.
fn entry(response: Response<Full<Bytes>>, contents_left: &mut usize) -> Vec<u8> {
    let (head, body) = response.into_parts();
    let body = body.into_inner().unwrap_or_default();
    let mut entry = Vec::with_capacity(ENTRY_BYTES + body.len().min(CONTENT_BYTES_MAX));
    let status = head.status.as_u16();
    put(&mut entry, format_args!("{{\"status\":{status}"));
    let before = entry.len();
    if body.len() <= CONTENT_BYTES_MAX {
        put_content(&mut entry, &body);
    }
    let content = entry.len() - before;
    if body.len() > CONTENT_BYTES_MAX || content > CONTENT_BYTES_MAX.min(*contents_left) {
        entry.truncate(before);
        let why =
            "it is too long for a batch: sent alone, under the same key, the order gets it again";
        put(&mut entry, format_args!(",\"left_out\":\"{why}\""));
    } else {
        *contents_left -= content;
    }
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
    fn what_is_no_batch_is_for_the_policy_to_answer() {
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
            (r#"{"key":"k "}"#, Err(Refusal::KeyInBatch)),
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
            let mut left = CONTENTS_BYTES_MAX;
            assert_eq!(
                String::from_utf8(entry(response, &mut left)).unwrap(),
                expected
            );
        }
    }

    #[test]
    fn what_is_too_long_for_a_batch_is_left_out() {
        let answered = |body: Vec<u8>, left: &mut usize| {
            let entry = entry(Response::new(Full::new(body.into())), left);
            let entry: serde_json::Value = serde_json::from_slice(&entry).unwrap();
            assert_eq!(entry["status"], 200);
            let left_out = entry["left_out"].as_str();
            left_out.is_none_or(|why| !why.contains("sent alone"))
        };
        let mut left = CONTENTS_BYTES_MAX;
        assert!(!answered(vec![b'x'; CONTENT_BYTES_MAX + 1], &mut left));
        assert!(
            !answered(vec![1; CONTENT_BYTES_MAX - 20], &mut left),
            "six bytes each as JSON"
        );
        assert_eq!(left, CONTENTS_BYTES_MAX);
        let long = || vec![b'x'; CONTENT_BYTES_MAX - 20];
        let fit = (0..1024).filter(|_| answered(long(), &mut left)).count();
        assert_eq!(
            fit,
            CONTENTS_BYTES_MAX / (CONTENT_BYTES_MAX - 20 + r#","body":"""#.len())
        );
    }

    #[test]
    fn an_answer_is_the_entries_in_their_order() {
        let reply = reply(&[b"{}".to_vec(), b"{}".to_vec()]);
        let body = reply.into_body().into_inner().unwrap();
        assert_eq!(body, "[{},{}]");
    }
}
