//! A request's body, within bounds of length, time, and what is held for everybody.

use std::time::Duration;

use bytes::Bytes;
use daemon::tasks;
use http::header::{CONNECTION, EXPECT};
use http::{HeaderValue, Response, Version};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use rpc::budget::{Exhausted, Share};
use tokio::time::timeout;

use crate::config::{BODY_BYTES_MAX, DISCARDED_BYTES_MAX};
use crate::handler::Refusal;

/// Reads a body of bounded length in bounded time. Its memory counts as part of `held`.
pub(super) async fn read(
    body: &mut Incoming,
    held: &mut Share,
    time_max: Duration,
) -> Result<Bytes, Refusal> {
    if body.size_hint().lower() > BODY_BYTES_MAX as u64 {
        return Err(Refusal::BodyTooLarge);
    }
    let read = async {
        // Not the pieces themselves: each can be a few bytes of a large buffer.
        let mut bytes = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| Refusal::BodyIncomplete)?;
            let Some(data) = frame.data_ref() else {
                continue;
            };
            if bytes.len() + data.len() > BODY_BYTES_MAX {
                return Err(Refusal::BodyTooLarge);
            }
            append(&mut bytes, data, held).map_err(|_| Refusal::BodiesCrowded)?;
        }
        Ok(Bytes::from(bytes))
    };
    timeout(time_max, read)
        .await
        .unwrap_or(Err(Refusal::BodyTooLate))
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

/// What becomes of the body of a request that is refused without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unread {
    /// Its stream, over HTTP/2, is reset once there is the answer.
    Reset,
    /// Its client may finish what it sends, within bounds: one that is cut off while it sends may
    /// never read why.
    Discarded,
    /// It ends the connection.
    Cut,
}

impl Unread {
    /// By the head, before any of the body is read.
    pub(super) fn of(head: &http::request::Parts, body: &Incoming) -> Self {
        if head.version >= Version::HTTP_2 {
            return Self::Reset;
        }
        let waits = head.headers.contains_key(EXPECT);
        if waits || body.size_hint().lower() > DISCARDED_BYTES_MAX as u64 {
            Self::Cut
        } else {
            Self::Discarded
        }
    }

    /// The same of what is left of a body that was read in part.
    pub(super) fn after(self, refusal: &Refusal) -> Self {
        match (self, refusal) {
            (Self::Discarded, Refusal::BodyTooLate | Refusal::BodyIncomplete) => Self::Cut,
            (unread, _) => unread,
        }
    }

    /// Lets go of the body, and has the refusal say so where that ends the connection. It does not
    /// wait for a client that still sends: where what is left does not come within bounds, the
    /// connection ends later.
    pub(super) fn release(
        self,
        mut body: Incoming,
        time_max: Duration,
        refusal: &mut Response<Full<Bytes>>,
    ) {
        match self {
            Self::Reset => {}
            Self::Discarded => {
                tasks::spawn_for_caller(async move {
                    let _ = timeout(time_max, discard(&mut body)).await;
                });
            }
            Self::Cut => {
                let headers = refusal.headers_mut();
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
        }
    }
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
