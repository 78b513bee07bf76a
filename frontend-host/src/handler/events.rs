//! A response that is a stream of events.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use domain::OrderNumber;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use http_body_util::Full;

use super::refusal::{NO_STORE, Refusal};
use crate::events::{EventStream, GREETING};

/// As the HTML standard has it, section 9.2.4.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// What comes after the head of a response that has it among its extensions, in the place of its body.
#[derive(Clone)]
pub struct Followed(Arc<Mutex<Option<EventStream>>>);

impl Followed {
    /// The stream, once.
    pub fn take(&self) -> Option<EventStream> {
        let mut stream = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        stream.take()
    }
}

/// The response that such a stream follows.
pub(super) fn response(stream: EventStream) -> Response<Full<Bytes>> {
    let mut response = in_form(Bytes::new());
    let stream = Followed(Arc::new(Mutex::new(Some(stream))));
    response.extensions_mut().insert(stream);
    response
}

/// A stream that is over as it begins: whoever it is for comes back in a moment. After an error browsers do not.
pub(super) fn ended() -> Response<Full<Bytes>> {
    in_form(Bytes::from_static(GREETING))
}

fn in_form(body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, NO_STORE);
    // nginx, for one, would keep what comes until it is much.
    let buffering = HeaderName::from_static("x-accel-buffering");
    headers.insert(buffering, HeaderValue::from_static("no"));
    response
}

/// What a client that comes back has seen last.
pub(super) fn last_seen(headers: &HeaderMap) -> Result<Option<OrderNumber>, Refusal> {
    let Some(value) = headers.get(LAST_EVENT_ID) else {
        return Ok(None);
    };
    let digits = value.to_str().unwrap_or("-");
    // `from_str` takes a leading plus sign, too.
    let number = digits.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.parse().ok().filter(|_| number);
    number
        .map(|number| Some(OrderNumber(number)))
        .ok_or(Refusal::LastEventId)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_last_is_the_number_of_an_order() {
        let seen = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(LAST_EVENT_ID, HeaderValue::from_static(value));
            last_seen(&headers)
        };
        assert_eq!(last_seen(&HeaderMap::new()), Ok(None));
        assert_eq!(seen("7"), Ok(Some(OrderNumber(7))));
        for other in ["", "-1", "+1", "1.0", "18446744073709551616", "a"] {
            assert_eq!(seen(other), Err(Refusal::LastEventId), "{other}");
        }
    }
}
