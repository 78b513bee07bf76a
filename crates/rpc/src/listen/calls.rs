//! Calls within bounds: of what is held of their requests and answers, and of time.

use std::convert::Infallible;
use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready as poll_ready};

use bytes::Bytes;
use domain::Protocols;
use http::header::{HeaderValue, SERVER};
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::body::Body;
use tonic::{Code, Status};
use tower_layer::Layer;
use tower_service::Service;

use super::connection::{Brought, Peer, UnderWay};
use super::message::Messages;
use crate::access::{self, Access};
use crate::budget::{Exhausted, Share, head_bytes};
use crate::release::{self, BazaarProtocol, Release, own_header};
use crate::retry::{RetryClass, RetryStatus as _};

/// What a call counts for besides its messages: a task, and what tonic and h2 keep of it.
pub(super) const CALL_BYTES: usize = 4 << 10;

/// What goes out at a time. A peer that takes less in the time for it is cut off.
const CHUNK_BYTES: usize = 64 << 10;

/// Keeps the calls of a server within bounds, and those out who may not make them. Says of each answer which release's
/// it is.
#[derive(Debug, Clone)]
pub struct Bounded {
    access: Access,
    protocol: BazaarProtocol,
    own_release: HeaderValue,
}

impl Bounded {
    pub(super) fn new(access: Access, protocol: BazaarProtocol) -> Self {
        Self {
            access,
            protocol,
            own_release: own_header(),
        }
    }

    /// Whether the caller may make a call.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` where it may not, `FAILED_PRECONDITION` where it is of a release that cannot be here.
    fn check(&self, request: &Request<Body>, peer: &Peer) -> Result<(), Status> {
        let path = request.uri().path();
        if let Some(caller) = peer.principal() {
            self.access.check(path, caller)?;
        }
        let bazaar = self.protocol.get();
        let speaks_it = bazaar.is_none_or(|bazaar| Protocols::OWN.contains(bazaar));
        let is_own = || speaks_it && release::is_own(request.headers(), &self.own_release);
        match access::is_of_every_service(path) || is_own() {
            true => Ok(()),
            false => Release::of_caller(request.headers()).check(bazaar),
        }
    }
}

impl<S> Layer<S> for Bounded {
    type Service = BoundedCalls<S>;

    fn layer(&self, inner: S) -> Self::Service {
        BoundedCalls {
            inner,
            bounds: self.clone(),
        }
    }
}

/// A service whose calls are kept within bounds.
#[derive(Debug, Clone)]
pub struct BoundedCalls<S> {
    inner: S,
    bounds: Bounded,
}

type Answered<E> = Pin<Box<dyn Future<Output = Result<Response<Body>, E>> + Send>>;

impl<S> Service<Request<Body>> for BoundedCalls<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answered<Infallible>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // Every connection that is served has one.
        let Some(peer) = request.extensions().get::<Peer>().cloned() else {
            return Box::pin(self.inner.call(request));
        };
        let own_release = self.bounds.own_release.clone();
        if let Err(denied) = self.bounds.check(&request, &peer) {
            peer.note_denied(&denied);
            return refused(&denied, own_release);
        }
        let call = Arc::new(peer.begin());
        let mut held = peer.received();
        let bytes = CALL_BYTES + head_bytes(request.uri(), request.headers());
        if held.grow(bytes).is_err() {
            let refusal = crowded("too many calls are under way; try again");
            return refused(&refusal, own_release);
        }
        request.extensions_mut().insert(Brought(Arc::clone(&call)));
        let held = Arc::new(Mutex::new(held));
        let is_answered = Arc::new(AtomicBool::new(false));
        let complete_by = Instant::now() + peer.limits().arriving_max;
        let request = request.map(|body| {
            Body::new(Arriving {
                body,
                messages: Messages::default(),
                message: peer.received(),
                whole: None,
                call_held: Arc::clone(&held),
                arrival: None,
                is_answered: Arc::clone(&is_answered),
                request_by: complete_by,
                message_by: complete_by,
                deadline: None,
                peer,
            })
        });
        let answer = self.inner.call(request);
        Box::pin(async move {
            let mut answer = answer.await?;
            answer.headers_mut().insert(SERVER, own_release);
            is_answered.store(true, Ordering::Relaxed);
            Ok(answer.map(|body| {
                Body::new(Leaving {
                    body,
                    rest: None,
                    call,
                    _held: held,
                })
            }))
        })
    }
}

/// An answer before anybody was asked: it, too, says which release's it is.
fn refused(why: &Status, own_release: HeaderValue) -> Answered<Infallible> {
    let mut answer = why.clone().into_http();
    answer.headers_mut().insert(SERVER, own_release);
    Box::pin(ready(Ok(answer)))
}

/// There is no room at the moment.
fn crowded(message: &str) -> Status {
    RetryClass::Later.status(Code::ResourceExhausted, message)
}

/// A request's body. Up to the answer all of it has to come in time; what comes after that is a
/// stream, of which each message has to.
struct Arriving {
    body: Body,
    messages: Messages,
    /// The bytes of the message that is not complete.
    message: Share,
    /// The bytes of messages that are complete, and that the service has not done with: once it asks
    /// for another, or the call is over.
    whole: Option<Share>,
    call_held: Arc<Mutex<Share>>,
    /// While there are any: the call may be one that waits for them.
    arrival: Option<UnderWay>,
    is_answered: Arc<AtomicBool>,
    request_by: Instant,
    message_by: Instant,
    /// The earliest of what is waited for.
    deadline: Option<Pin<Box<Sleep>>>,
    peer: Peer,
}

impl Arriving {
    fn took(&mut self, data: &[u8]) -> Result<(), Exhausted> {
        let before = self.messages.partial_bytes();
        let has_ended = self.messages.take(data);
        let partial = self.messages.partial_bytes();
        if has_ended || before == 0 {
            self.message_by = Instant::now() + self.peer.limits().arriving_max;
        }
        if partial == 0 {
            self.arrival = None;
        } else if self.arrival.is_none() {
            self.arrival = Some(self.peer.begin());
        }
        if !has_ended {
            return self.message.grow(data.len());
        }
        let next = self.peer.received();
        let mut whole = std::mem::replace(&mut self.message, next);
        whole.grow(data.len() - partial)?;
        self.whole = Some(whole);
        self.message.grow(partial)
    }

    /// The service has done with the messages that it was given; with those of a request that is
    /// not answered once the call is over.
    fn done(&mut self) {
        let Some(whole) = self.whole.take() else {
            return;
        };
        if !self.is_answered.load(Ordering::Relaxed) {
            let held = self.call_held.lock();
            held.unwrap_or_else(PoisonError::into_inner).absorb(whole);
        }
    }

    fn due(&self) -> Option<Instant> {
        let is_partial = self.messages.partial_bytes() > 0;
        if self.is_answered.load(Ordering::Relaxed) {
            is_partial.then_some(self.message_by)
        } else {
            Some(self.request_by)
        }
    }

    fn poll_due(&mut self, context: &mut Context<'_>) -> Poll<Status> {
        let Some(due) = self.due() else {
            self.deadline = None;
            return Poll::Pending;
        };
        let deadline = self
            .deadline
            .get_or_insert_with(|| Box::pin(sleep_until(due)));
        if deadline.deadline() != due {
            deadline.as_mut().reset(due);
        }
        poll_ready!(deadline.as_mut().poll(context));
        Poll::Ready(Status::deadline_exceeded(
            "the request took too long to arrive",
        ))
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        self.done();
    }
}

impl http_body::Body for Arriving {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.done();
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
            return self.poll_due(context).map(|late| Some(Err(late)));
        };
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
            && self.took(data).is_err()
        {
            let refusal = crowded("too much is being received; try again");
            return Poll::Ready(Some(Err(refusal)));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer's body, chunk by chunk.
struct Leaving {
    body: Body,
    /// Of the part of the answer that is on its way out, what was not let go yet, and its share.
    rest: Option<(Bytes, Share)>,
    call: Arc<UnderWay>,
    /// What the call counts for.
    _held: Arc<Mutex<Share>>,
}

impl Leaving {
    fn next_chunk(&mut self) -> Option<Bytes> {
        let (bytes, share) = self.rest.as_mut()?;
        let chunk = bytes.split_to(bytes.len().min(CHUNK_BYTES));
        let its_share = share.split(chunk.len());
        if bytes.is_empty() {
            self.rest = None;
        }
        Some(self.call.peer().leaving(chunk, its_share))
    }
}

impl http_body::Body for Leaving {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.rest.is_none() {
            let frame = match poll_ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => frame,
                ended => return Poll::Ready(ended),
            };
            let data = match frame.into_data() {
                Ok(data) if !data.is_empty() => data,
                Ok(data) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            };
            match self.call.peer().unsent(data.len()) {
                Ok(share) => self.rest = Some((data, share)),
                Err(_) => {
                    let refusal = crowded("earlier answers are still to be read; try again");
                    return Poll::Ready(Some(Err(refusal)));
                }
            }
        }
        Poll::Ready(self.next_chunk().map(|chunk| Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_none() && self.body.is_end_stream()
    }
}
