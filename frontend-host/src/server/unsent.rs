//! What clients have not taken yet of their answers.
//!
//! An answer counts for as long as its bytes exist, in hyper's and h2's buffers, too. It goes out
//! in chunks, and each is asked for when there is room for it, which tells how far the client has
//! got.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use protocol::budget::Share;

use super::progress::Progress;
use super::streams;

/// What goes out at a time. Who takes less in the time for it is cut off.
const CHUNK_BYTES: usize = 32 << 10;

/// What is to be noted once the last byte of an answer is gone, or nobody wants it any more.
pub(super) enum UnderWay {
    /// An answer over HTTP/1.
    Answer(Arc<Progress>),
    /// A request over HTTP/2, from its head on.
    Stream {
        /// Of its connection.
        progress: Arc<Progress>,
        /// Whether there is an answer.
        is_answered: bool,
    },
}

impl UnderWay {
    /// A request over HTTP/2 has come.
    pub(super) fn stream(progress: &Arc<Progress>) -> Self {
        progress.stream_began();
        Self::Stream {
            progress: Arc::clone(progress),
            is_answered: false,
        }
    }

    /// There is an answer to it.
    fn answered(&mut self) {
        match self {
            Self::Answer(progress) => progress.answered_at_length(),
            Self::Stream {
                progress,
                is_answered,
            } => {
                progress.stream_answered();
                *is_answered = true;
            }
        }
    }

    fn progress(&self) -> &Progress {
        match self {
            Self::Answer(progress) | Self::Stream { progress, .. } => progress,
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        match self {
            Self::Answer(progress) => progress.sent_all(),
            Self::Stream {
                progress,
                is_answered,
            } => {
                if !*is_answered {
                    progress.stream_answered();
                }
                progress.stream_ended();
            }
        }
    }
}

/// The body of an answer.
pub(super) struct Unsent {
    /// What has not been asked for yet.
    rest: Bytes,
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
            rest: bytes,
            last: None,
        }
    }

    /// With its share of a budget.
    pub(super) fn watched(bytes: Bytes, mut share: Share, mut under_way: UnderWay) -> Self {
        under_way.answered();
        let last = share.split(bytes.len().min(CHUNK_BYTES));
        let is_one_chunk = bytes.len() <= CHUNK_BYTES;
        Self {
            rest: if is_one_chunk {
                bytes
            } else {
                // Every chunk but the last is a part of it.
                Bytes::from_owner(Owned {
                    bytes,
                    _owner: share,
                })
            },
            last: Some(Last {
                under_way,
                _share: last,
            }),
        }
    }

    fn next_chunk(&mut self) -> Bytes {
        if self.rest.len() > CHUNK_BYTES
            && let Some(last) = &self.last
        {
            last.under_way.progress().chunk_was_taken();
            streams::chunk_was_taken();
            return self.rest.split_to(CHUNK_BYTES);
        }
        let rest = std::mem::take(&mut self.rest);
        match self.last.take() {
            None => rest,
            Some(last) => {
                last.under_way.progress().chunk_was_taken();
                streams::chunk_was_taken();
                // A copy: a client that takes nearly all does not hold the whole.
                Bytes::from_owner(Owned {
                    bytes: Bytes::copy_from_slice(&rest),
                    _owner: last,
                })
            }
        }
    }
}

impl Body for Unsent {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let chunk = (!self.rest.is_empty()).then(|| self.next_chunk());
        Poll::Ready(chunk.map(|chunk| Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}
