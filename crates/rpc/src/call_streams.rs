//! Calls that follow each other closely, over streams that stay open.
//!
//! A gRPC call of its own sends headers, a message and trailers, wakes its callee for each, and
//! sets up and takes down a stream at both ends. On a stream that stays open a call is one
//! message there and, as a rule, one back. A call has a stream to itself while it lasts, so none waits for another,
//! and an error ends one call only.

use std::sync::{Mutex, MutexGuard, PoisonError};

use daemon::tasks;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::listen::{CallUnderWay, Waiting};

/// Streams that are kept open for the next calls.
const IDLE_MAX: usize = 8;

/// The streams from one caller to one callee, for calls of one kind.
#[derive(Debug)]
pub struct Calls<Q, A> {
    idle: Mutex<Vec<Open<Q, A>>>,
}

#[derive(Debug)]
struct Open<Q, A> {
    requests: mpsc::Sender<Q>,
    answers: Streaming<A>,
}

impl<Q, A> Default for Calls<Q, A> {
    fn default() -> Self {
        Self {
            idle: Mutex::default(),
        }
    }
}

impl<Q, A> Calls<Q, A> {
    /// Makes a call, by `open` where no stream is idle.
    ///
    /// # Errors
    /// Where a stream cannot be opened, or UNAVAILABLE where the one that was idle broke.
    pub async fn call(
        &self,
        request: Q,
        open: impl AsyncFnOnce(ReceiverStream<Q>) -> Result<Response<Streaming<A>>, Status>,
    ) -> Result<Call<'_, Q, A>, Status> {
        let stream = match self.take() {
            Some(stream) => {
                stream.requests.try_send(request).map_err(|_| broken())?;
                stream
            }
            None => {
                let (requests, messages) = mpsc::channel(1);
                requests.try_send(request).map_err(|_| broken())?;
                let answers = open(ReceiverStream::new(messages)).await?.into_inner();
                Open { requests, answers }
            }
        };
        Ok(Call {
            calls: self,
            stream,
        })
    }

    /// An idle stream whose connection is not known to be gone.
    fn take(&self) -> Option<Open<Q, A>> {
        let mut idle = self.idle();
        idle.retain(|stream| !stream.requests.is_closed());
        idle.pop()
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Open<Q, A>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call that was made. Dropping it before its [end](Self::end) ends its stream.
#[derive(Debug)]
pub struct Call<'a, Q, A> {
    calls: &'a Calls<Q, A>,
    stream: Open<Q, A>,
}

impl<Q, A> Call<'_, Q, A> {
    /// The next message of the answer.
    ///
    /// # Errors
    /// What the callee answers, or UNAVAILABLE where the stream broke.
    pub async fn message(&mut self) -> Result<A, Status> {
        self.stream.answers.message().await?.ok_or_else(broken)
    }

    /// There are no more: the stream is for the next call.
    pub fn end(self) {
        let mut idle = self.calls.idle();
        if idle.len() < IDLE_MAX {
            idle.push(self.stream);
        }
    }
}

fn broken() -> Status {
    Status::unavailable("the stream of calls ended")
}

/// Where a call's messages before the last go.
#[derive(Debug)]
pub struct Early<A>(mpsc::Sender<Result<A, Status>>);

impl<A> Early<A> {
    /// Sends a message. Where the caller has left nobody needs to know.
    pub async fn send(&self, message: A) {
        let _ = self.0.send(Ok(message)).await;
    }

    /// Ready once the caller has left.
    pub async fn left(&self) {
        self.0.closed().await;
    }
}

/// Answers calls one after another until one fails, the caller leaves, or, between two calls,
/// `closed`. Between two calls the stream does not keep its connection from being idle, nor before
/// the first.
pub fn serve<Q: Send + 'static, A: Send + 'static, F>(
    mut stream: Request<Streaming<Q>>,
    closed: impl Future<Output = ()> + Send + 'static,
    mut answer: impl FnMut(Q, Early<A>) -> F + Send + 'static,
) -> ReceiverStream<Result<A, Status>>
where
    F: Future<Output = Result<A, Status>> + Send,
{
    let mut call = CallUnderWay::of(&mut stream);
    let mut requests = stream.into_inner();
    let (answers, stream) = mpsc::channel(1);
    tasks::spawn_for_caller(async move {
        tokio::pin!(closed);
        loop {
            let waiting = call.map(CallUnderWay::pause);
            let request = tokio::select! {
                biased;
                request = requests.message() => request,
                () = &mut closed => return,
            };
            call = waiting.map(Waiting::resume);
            let answered = match request {
                Ok(Some(request)) => answer(request, Early(answers.clone())).await,
                Ok(None) => return,
                Err(status) => Err(status),
            };
            let failed = answered.is_err();
            if answers.send(answered).await.is_err() || failed {
                return;
            }
        }
    });
    ReceiverStream::new(stream)
}

#[cfg(test)]
mod tests;
