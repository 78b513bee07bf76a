//! Requests over HTTP/2, each a task, and the end of those whose answers are not taken.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use daemon::tasks;
use hyper::rt::Executor;
use tokio::time::{Sleep, sleep};

tokio::task_local! {
    /// How many chunks of its answer a stream was asked for.
    static CHUNKS: Arc<AtomicU64>;
}

/// A chunk of an answer was asked for: by the stream that is polled, if it is one.
pub(super) fn chunk_was_taken() {
    let _ = CHUNKS.try_with(|chunks| chunks.fetch_add(1, Ordering::Relaxed));
}

/// Runs the streams of a connection on the worker that serves it. One whose client makes no room
/// for the next chunk of an answer is dropped: that resets it (RFC 9113, section 5.4.2), and lets
/// go of the answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Streams {
    /// How long a client may take to make room.
    pub receive_time_max: Duration,
}

impl<S> Executor<S> for Streams
where
    S: Future + Send + 'static,
{
    fn execute(&self, stream: S) {
        let receive_time_max = self.receive_time_max;
        tasks::spawn_for_caller(async move {
            let chunks = Arc::new(AtomicU64::default());
            let mut stream = std::pin::pin!(CHUNKS.scope(Arc::clone(&chunks), stream));
            let mut taken = 0;
            // Most clients make room in advance, and no timer is ever set.
            let mut overdue: Option<std::pin::Pin<Box<Sleep>>> = None;
            poll_fn(|context| {
                if stream.as_mut().poll(context).is_ready() {
                    return Poll::Ready(());
                }
                let before = std::mem::replace(&mut taken, chunks.load(Ordering::Relaxed));
                if taken > before {
                    overdue = Some(Box::pin(sleep(receive_time_max)));
                }
                match &mut overdue {
                    Some(overdue) => overdue.as_mut().poll(context),
                    None => Poll::Pending,
                }
            })
            .await;
        });
    }
}
