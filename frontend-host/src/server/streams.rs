//! Requests over HTTP/2, each a task that can be ended.

use std::future::Future;
use std::sync::{Arc, OnceLock};

use daemon::tasks;
use hyper::rt::Executor;
use tokio::task::AbortHandle;

tokio::task_local! {
    /// The stream that is polled.
    static STREAM: Stream;
}

/// Runs the streams of a connection on the worker that serves it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Streams;

impl<S> Executor<S> for Streams
where
    S: Future + Send + 'static,
{
    fn execute(&self, serving: S) {
        let stream = Stream::default();
        let task = tasks::spawn_for_caller(STREAM.scope(stream.clone(), async move {
            serving.await;
        }));
        let _ = stream.0.set(task.abort_handle());
    }
}

/// The task of a stream.
#[derive(Debug, Clone, Default)]
pub(super) struct Stream(Arc<OnceLock<AbortHandle>>);

impl Stream {
    /// The one that is polled.
    pub(super) fn current() -> Self {
        STREAM.try_with(Self::clone).unwrap_or_default()
    }

    /// Whether anything of its answer is still here. The rest is with h2, which alone knows the
    /// stream.
    pub(super) fn is_served(&self) -> bool {
        self.0.get().is_some_and(|task| !task.is_finished())
    }

    /// Drops it soon: that resets it (RFC 9113, section 5.4.2), and lets go of the answer.
    pub(super) fn end(&self) {
        if let Some(task) = self.0.get() {
            task.abort();
        }
    }
}
