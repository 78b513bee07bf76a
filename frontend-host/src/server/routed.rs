//! Answers of a router to operators, whose bytes are watched as they go, whatever they come from.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::unsent::{UnderWay, let_go};
use crate::config::CHUNK_BYTES;

/// The body of one.
pub(super) struct Routed {
    body: Body,
    /// What the body has given and has not gone.
    rest: Bytes,
    under_way: Arc<UnderWay>,
}

impl Routed {
    /// Of the answer to a request that has come.
    pub(super) fn new(body: Body, under_way: UnderWay) -> Self {
        under_way.on_response();
        Self {
            body,
            rest: Bytes::new(),
            under_way: Arc::new(under_way),
        }
    }
}

impl http_body::Body for Routed {
    type Data = Bytes;
    type Error = axum::Error;

    /// At most [`CHUNK_BYTES`] of what there is: for each its client has so much time.
    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Self {
            body,
            rest,
            under_way,
        } = &mut *self;
        let given = if rest.is_empty() {
            match Pin::new(body).poll_frame(cx) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(None) => Poll::Ready(None),
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(bytes) => Poll::Ready(Some(bytes)),
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
            }
        } else {
            Poll::Ready(Some(std::mem::take(rest)))
        };
        let chunk = given.map(|given| {
            given.map(|mut bytes| {
                *rest = bytes.split_off(bytes.len().min(CHUNK_BYTES));
                bytes
            })
        });
        let_go(chunk, under_way).map(|gone| gone.map(|chunk| Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        let of_body = self.body.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(of_body.lower() + rest);
        if let Some(upper) = of_body.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::Ordering;

    use http_body::Body as _;

    use super::super::progress::Progress;
    use super::super::slot::{TICK_MS, WorkerSlot, WorkerStats};
    use super::*;
    use crate::config::{Bounds, IDLE_TIME_MAX, RECEIVE_TIME_MAX};

    fn progress() -> (Arc<[WorkerStats]>, Arc<Progress>) {
        let stats: Arc<[WorkerStats]> = [WorkerStats::default()].into();
        let progress = Progress::begin(WorkerSlot::at(&stats, 0));
        (stats, Arc::new(progress))
    }

    async fn next(routed: &mut Routed) -> Option<Bytes> {
        let frame = poll_fn(|cx| Pin::new(&mut *routed).poll_frame(cx)).await?;
        Some(frame.unwrap().into_data().unwrap())
    }

    #[tokio::test]
    async fn an_answer_goes_in_chunks_with_its_length_and_the_rest_of_it_as_it_was() {
        let (_stats, progress) = progress();
        let answer: Vec<u8> = (0..2 * CHUNK_BYTES + 7).map(|at| at as u8).collect();
        for version in [http::Version::HTTP_11, http::Version::HTTP_2] {
            let under_way = UnderWay::begin(version, &progress);
            let mut routed = Routed::new(Body::from(answer.clone()), under_way);
            let mut got = Vec::new();
            for bytes in [CHUNK_BYTES, CHUNK_BYTES, 7] {
                assert!(!routed.is_end_stream());
                let left = (answer.len() - got.len()) as u64;
                assert_eq!(routed.size_hint().exact(), Some(left));
                let chunk = next(&mut routed).await.unwrap();
                assert_eq!(chunk.len(), bytes);
                got.extend_from_slice(&chunk);
            }
            assert!(routed.is_end_stream());
            assert_eq!(got, answer);
        }
    }

    #[tokio::test]
    async fn who_does_not_take_what_there_is_is_overdue_and_who_follows_what_is_quiet_is_not() {
        for version in [http::Version::HTTP_11, http::Version::HTTP_2] {
            let (stats, progress) = progress();
            let clock = |seconds: u64| {
                stats[0]
                    .clock()
                    .fetch_add(seconds * 1000 / TICK_MS, Ordering::Relaxed);
            };
            let is_overdue = || progress.is_overdue(&Bounds::default());
            let under_way = UnderWay::begin(version, &progress);
            clock(2 * IDLE_TIME_MAX.as_secs());
            assert!(!is_overdue(), "the answer takes its time");
            let (sender, events) = tokio::sync::mpsc::channel::<Result<Bytes, std::io::Error>>(1);
            let events = tokio_stream::wrappers::ReceiverStream::new(events);
            let mut routed = Routed::new(Body::from_stream(events), under_way);
            sender.send(Ok(Bytes::from("event"))).await.unwrap();
            let event = next(&mut routed).await.unwrap();
            clock(RECEIVE_TIME_MAX.as_secs() + 1);
            assert!(is_overdue(), "it is not taken");
            drop(event);
            // Over HTTP/1 the next is asked for once there is room for it.
            let mut context = Context::from_waker(std::task::Waker::noop());
            assert!(Pin::new(&mut routed).poll_frame(&mut context).is_pending());
            assert!(!is_overdue(), "it is gone");
            clock(2 * IDLE_TIME_MAX.as_secs());
            assert!(!is_overdue(), "nothing happens");
            drop(sender);
            assert_eq!(next(&mut routed).await, None);
            drop(routed);
            assert!(!is_overdue());
            clock(IDLE_TIME_MAX.as_secs() + 1);
            assert!(is_overdue(), "nothing is asked for");
        }
    }
}
