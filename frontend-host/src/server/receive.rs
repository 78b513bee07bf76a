//! A request's body, within bounds of length, time, and what is held for everybody.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, EXPECT, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode, Version};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use protocol::budget::{Exhausted, Share};
use tokio::time::timeout;

use crate::config::{BODY_BYTES_MAX, DISCARDED_BYTES_MAX};
use crate::gateway::error;

/// Why a body is not there.
pub(super) enum Missing {
    TooLarge,
    TooLate,
    Incomplete,
    /// There is no room for it at the moment.
    NoRoom,
}

impl From<Exhausted> for Missing {
    fn from(_: Exhausted) -> Self {
        Self::NoRoom
    }
}

impl Missing {
    fn response(&self) -> Response<Full<Bytes>> {
        match self {
            Self::TooLarge => error(
                StatusCode::PAYLOAD_TOO_LARGE,
                &format!("body has more than {BODY_BYTES_MAX} bytes"),
            ),
            Self::TooLate => error(StatusCode::REQUEST_TIMEOUT, "body took too long to arrive"),
            Self::Incomplete => error(StatusCode::BAD_REQUEST, "body is not complete"),
            Self::NoRoom => busy("too much is being received; try again"),
        }
    }
}

/// That there is too much to do, for the moment.
pub(super) fn busy(message: &str) -> Response<Full<Bytes>> {
    let mut response = error(StatusCode::SERVICE_UNAVAILABLE, message);
    let headers = response.headers_mut();
    headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// Reads a body of bounded length in bounded time. Its memory counts as part of `held`.
pub(super) async fn read(
    body: &mut Incoming,
    held: &mut Share,
    time_max: Duration,
) -> Result<Bytes, Missing> {
    if body.size_hint().lower() > BODY_BYTES_MAX as u64 {
        return Err(Missing::TooLarge);
    }
    let read = async {
        // Not the pieces themselves: each can be a few bytes of a large buffer.
        let mut bytes = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| Missing::Incomplete)?;
            let Some(data) = frame.data_ref() else {
                continue;
            };
            if bytes.len() + data.len() > BODY_BYTES_MAX {
                return Err(Missing::TooLarge);
            }
            append(&mut bytes, data, held)?;
        }
        Ok(Bytes::from(bytes))
    };
    timeout(time_max, read)
        .await
        .unwrap_or(Err(Missing::TooLate))
}

/// Has memory for what has come, whatever length was claimed.
fn append(bytes: &mut Vec<u8>, data: &[u8], held: &mut Share) -> Result<(), Exhausted> {
    let capacity = bytes.capacity();
    let needed = bytes.len() + data.len();
    if needed > capacity {
        let grown = needed.max((2 * capacity).min(BODY_BYTES_MAX));
        held.grow(grown - capacity)?;
        bytes.reserve_exact(grown - bytes.len());
    }
    bytes.extend_from_slice(data);
    Ok(())
}

/// Says why there is no body. Over HTTP/1 lets the client finish what it sends, within bounds,
/// before it is refused: one that is cut off while it sends may never read why. What is more ends
/// the connection.
pub(super) async fn refuse(
    missing: &Missing,
    head: &http::request::Parts,
    body: &mut Incoming,
    time_max: Duration,
) -> Response<Full<Bytes>> {
    let mut refusal = missing.response();
    if head.version >= Version::HTTP_2 {
        return refusal;
    }
    let sends_now = !head.headers.contains_key(EXPECT)
        && body.size_hint().lower() <= DISCARDED_BYTES_MAX as u64;
    if matches!(missing, Missing::TooLarge | Missing::NoRoom) && sends_now {
        let _ = timeout(time_max, discard(body)).await;
    }
    if !body.is_end_stream() {
        let headers = refusal.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    refusal
}

async fn discard(body: &mut Incoming) {
    let mut left = DISCARDED_BYTES_MAX;
    while let Some(Ok(frame)) = body.frame().await {
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        match left.checked_sub(bytes) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}
