//! What clients have not taken yet of their answers.
//!
//! An answer counts for as long as its bytes exist, in hyper's and h2's buffers, too. It goes out
//! in chunks. Over HTTP/1 each is asked for when there is room for it, which tells how far the
//! client has got. Over HTTP/2 it is asked for earlier, and what tells is when it is gone.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Version;
use http_body::{Body, Frame, SizeHint};
use rpc::budget::Share;

use super::progress::Progress;
use crate::config::CHUNK_BYTES;
use crate::events::EventStream;

/// What is to be noted once the last byte of an answer is gone, or nobody wants it any more.
pub(super) enum UnderWay {
    /// An answer over HTTP/1.
    Answer(Arc<Progress>),
    /// A request over HTTP/2, from its head on.
    Stream {
        progress: Arc<Progress>,
        number: u64,
    },
}

impl UnderWay {
    /// A request has come.
    pub(super) fn begin(version: Version, progress: &Arc<Progress>) -> Self {
        if version >= Version::HTTP_2 {
            return Self::stream(progress);
        }
        progress.on_request();
        Self::Answer(Arc::clone(progress))
    }

    /// A request over HTTP/2 has come.
    pub(super) fn stream(progress: &Arc<Progress>) -> Self {
        Self::Stream {
            number: progress.on_stream_begin(),
            progress: Arc::clone(progress),
        }
    }

    /// There is an answer to it.
    pub(super) fn on_response(&self) {
        if let Self::Answer(progress) = self {
            progress.on_long_response();
        }
    }

    /// A chunk of the answer is asked for.
    fn release(&self) -> Option<OnTheWay> {
        match self {
            Self::Answer(progress) => {
                progress.on_chunk_taken();
                None
            }
            Self::Stream {
                progress, number, ..
            } => {
                progress.on_chunk_release(*number);
                Some(OnTheWay {
                    progress: Arc::clone(progress),
                    number: *number,
                })
            }
        }
    }
}

/// What comes of an answer bit by bit is let go as it comes: what there is now, at its end nothing.
pub(super) fn let_go(given: Poll<Option<Bytes>>, under_way: &Arc<UnderWay>) -> Poll<Option<Bytes>> {
    if let UnderWay::Answer(progress) = &**under_way {
        match given {
            // Also at the end, which goes like the last chunk of an answer.
            Poll::Ready(_) => progress.on_event(),
            Poll::Pending => progress.on_events_taken(),
        }
        return given;
    }
    given.map(|given| {
        let bytes = given?;
        Some(match under_way.release() {
            Some(on_the_way) => Bytes::from_owner(Owned {
                bytes,
                // The stream is not over before its last chunk is gone.
                _owner: (on_the_way, Arc::clone(under_way)),
            }),
            None => bytes,
        })
    })
}

/// A chunk over HTTP/2 that has not gone out yet.
struct OnTheWay {
    progress: Arc<Progress>,
    number: u64,
}

impl Drop for OnTheWay {
    fn drop(&mut self) {
        self.progress.on_chunk_sent(self.number);
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        match self {
            Self::Answer(progress) => progress.on_sent_all(),
            Self::Stream { progress, .. } => progress.on_stream_end(),
        }
    }
}

/// What a stream of events counts for: what it gives at a time, and what hyper keeps of that.
pub(super) const EVENTS_BYTES: usize = 32 << 10;

/// Events, in the place of an answer's bytes.
struct Events {
    stream: EventStream,
    under_way: Arc<UnderWay>,
    _share: Share,
}

impl Events {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let_go(self.stream.poll_next(cx), &self.under_way)
    }
}

/// The body of an answer.
pub(super) struct Unsent {
    /// Those of a stream, which has nothing else.
    events: Option<Box<Events>>,
    /// What has not been asked for yet.
    rest: Bytes,
    /// Its last byte goes by itself.
    splits_last: bool,
    /// Goes with the last chunk; there is none where nobody watches.
    last: Option<Last>,
}

/// What is let go of with the last chunk.
struct Last {
    under_way: UnderWay,
    _share: Share,
}

/// Bytes, and what is let go of when they are.
struct Owned<T> {
    bytes: Bytes,
    _owner: T,
}

impl<T> AsRef<[u8]> for Owned<T> {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Unsent {
    /// Neither counted nor watched.
    pub(super) fn unwatched(bytes: Bytes) -> Self {
        Self {
            events: None,
            rest: bytes,
            splits_last: false,
            last: None,
        }
    }

    /// With its share of a budget.
    pub(super) fn watched(bytes: Bytes, mut share: Share, under_way: UnderWay) -> Self {
        under_way.on_response();
        let last = share.split(bytes.len().min(CHUNK_BYTES));
        let is_one_chunk = bytes.len() <= CHUNK_BYTES;
        let is_stream = matches!(under_way, UnderWay::Stream { .. });
        Self {
            events: None,
            rest: if is_one_chunk {
                bytes
            } else {
                // Every chunk but the last is a part of it.
                Bytes::from_owner(Owned {
                    bytes,
                    _owner: share,
                })
            },
            // With its last byte, h2 has the whole stream, and nothing here can end it any more. h2
            // takes that byte once there is room for all before it. Few answers are so long.
            splits_last: is_stream && !is_one_chunk,
            last: Some(Last {
                under_way,
                _share: last,
            }),
        }
    }

    /// Events as they come, with their share of a budget.
    pub(super) fn events(stream: EventStream, share: Share, under_way: UnderWay) -> Self {
        let events = Events {
            stream,
            under_way: Arc::new(under_way),
            _share: share,
        };
        Self {
            events: Some(Box::new(events)),
            ..Self::unwatched(Bytes::new())
        }
    }

    fn next_chunk(&mut self) -> Bytes {
        let Some(last) = &self.last else {
            return std::mem::take(&mut self.rest);
        };
        let on_the_way = last.under_way.release();
        let length = self.rest.len();
        let chunk = if length > CHUNK_BYTES {
            self.rest.split_to(CHUNK_BYTES)
        } else {
            // A copy: a client that takes nearly all does not hold the whole.
            self.rest = Bytes::copy_from_slice(&self.rest);
            let is_split = self.splits_last && length > 1;
            self.rest.split_to(length - usize::from(is_split))
        };
        let last = self.last.take_if(|_| self.rest.is_empty());
        if on_the_way.is_none() && last.is_none() {
            return chunk;
        }
        Bytes::from_owner(Owned {
            bytes: chunk,
            _owner: (on_the_way, last),
        })
    }
}

impl Body for Unsent {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(events) = &mut self.events {
            let given = events.poll_frame(context);
            return given.map(|given| given.map(|bytes| Ok(Frame::data(bytes))));
        }
        let chunk = (!self.rest.is_empty()).then(|| self.next_chunk());
        Poll::Ready(chunk.map(|chunk| Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.events.is_none() && self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        match self.events {
            None => SizeHint::with_exact(self.rest.len() as u64),
            Some(_) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use rpc::budget::Budget;

    use super::super::slot::{WorkerSlot, WorkerStats};
    use super::*;

    /// The chunks of an answer, which are all let go at once.
    fn chunks(unsent: &mut Unsent) -> Vec<Bytes> {
        let mut context = Context::from_waker(Waker::noop());
        let mut chunks = Vec::new();
        while let Poll::Ready(Some(frame)) = Pin::new(&mut *unsent).poll_frame(&mut context) {
            chunks.push(frame.unwrap().into_data().unwrap());
        }
        assert!(unsent.is_end_stream());
        chunks
    }

    #[test]
    fn an_answer_goes_out_in_chunks_and_over_http_2_a_long_ones_last_byte_by_itself() {
        let workers: Arc<[WorkerStats]> = [WorkerStats::default()].into();
        let progress = Arc::new(Progress::begin(WorkerSlot::at(&workers, 0)));
        let budget = Budget::whole(1 << 20);
        const LONG: usize = 2 * CHUNK_BYTES;
        for (bytes, http1, http2) in [
            (1, &[1][..], &[1][..]),
            (CHUNK_BYTES, &[CHUNK_BYTES], &[CHUNK_BYTES]),
            (CHUNK_BYTES + 1, &[CHUNK_BYTES, 1], &[CHUNK_BYTES, 1]),
            (
                LONG,
                &[CHUNK_BYTES, CHUNK_BYTES],
                &[CHUNK_BYTES, CHUNK_BYTES - 1, 1],
            ),
            (
                LONG + 7,
                &[CHUNK_BYTES, CHUNK_BYTES, 7],
                &[CHUNK_BYTES, CHUNK_BYTES, 6, 1],
            ),
        ] {
            let answer: Bytes = (0..bytes).map(|at| at as u8).collect();
            for (under_way, sizes) in [
                (UnderWay::Answer(Arc::clone(&progress)), http1),
                (UnderWay::stream(&progress), http2),
            ] {
                let mut share = budget.share();
                share.grow(bytes).unwrap();
                let mut unsent = Unsent::watched(answer.clone(), share, under_way);
                let mut chunks = chunks(&mut unsent);
                assert!(chunks.iter().map(Bytes::len).eq(sizes.iter().copied()));
                assert_eq!(chunks.concat(), answer);
                while let [_, _, ..] = chunks[..] {
                    drop(chunks.remove(0));
                    assert!(budget.held() > 0, "the rest counts");
                }
                drop(chunks);
                assert_eq!(
                    budget.held(),
                    0,
                    "all is gone, though nobody dropped the body"
                );
            }
        }
    }
}
