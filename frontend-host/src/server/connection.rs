//! One client's connection.

use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use frontend_policy::decision::Scheme;
use http::header::{CONNECTION, CONTENT_LENGTH};
use http::request::Parts;
use http::{HeaderValue, Method, Response, Version};
use http_body_util::Full;
use hyper::body::{Body as _, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulConnection;
use rpc::budget::{Exhausted, Share, head_bytes};
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio_util::either::Either;

use super::clients::Place;
use super::finish::Watcher;
use super::progress::Progress;
use super::receive::{self, Unread};
use super::refusals::Refusals;
use super::slot::WorkerSlot;
use super::socket::Socket;
use super::streams::Streams;
use super::unsent::{EVENTS_BYTES, UnderWay, Unsent};
use crate::config::Bounds;
use crate::config::{HEAD_BYTES_MAX, HEADERS_MAX, STREAMS_MAX};
use crate::handler::{Followed, Gateway, Noted, Refusal, Request, without_body};

/// What a request over HTTP/2 counts for besides its head and its body: a task, and what hyper and
/// h2 keep of it.
const STREAM_BYTES: usize = 4 << 10;

/// What an HTTP/2 connection may be sent of bodies that nobody has read yet: of one, and in all.
const STREAM_WINDOW_BYTES: u32 = 64 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 256 << 10;

/// What h2 holds of one answer at most.
const STREAM_BUFFER_BYTES_MAX: usize = 64 << 10;

/// Answers over HTTP/1 of at most so many bytes are neither counted nor watched: most sockets take
/// them at once, and a connection has one at a time.
const UNWATCHED_BYTES_MAX: usize = 16 << 10;

/// What h2 takes of one head, in bytes (RFC 9113, section 6.5.2): more than the gateway does, which
/// says why it takes no more, where h2 sends a bare 431.
const HEAD_LIST_BYTES_MAX: u32 = 2 * HEAD_BYTES_MAX as u32;

/// Why a connection ended before its client wanted it to.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A connection that is served when it is polled, and can be asked to come to its end.
trait Serving: Future<Output = Result<(), Failure>> + Send {
    fn finish(self: Pin<&mut Self>);
}

impl<C> Serving for C
where
    C: GracefulConnection<Error = Failure> + Send,
{
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// A connection, served by the task that polls it.
pub(super) struct Connection {
    serving: Pin<Box<dyn Serving>>,
    peer: Arc<Peer>,
    finish: Watcher,
    /// Wakes the task that serves it once it is to finish; none before that has polled it.
    woken: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    is_finishing: bool,
}

impl Connection {
    pub(super) fn new(
        stream: tls::Stream,
        place: Place,
        gateway: Arc<Gateway>,
        slot: WorkerSlot,
        finish: Watcher,
    ) -> Self {
        let bounds = *place.clients().bounds();
        let progress = Arc::new(Progress::begin(slot));
        let scheme = match stream {
            Either::Left(_) => Scheme::Http,
            Either::Right(_) => Scheme::Https,
        };
        let socket = TokioIo::new(Socket::new(stream, Arc::clone(&progress)));
        let socket = TokioIo::new(Refusals::new(socket));
        let peer = Arc::new(Peer {
            gateway,
            scheme,
            progress,
            place,
            is_last: AtomicBool::default(),
        });
        let service = service_fn({
            let peer = Arc::clone(&peer);
            // A count of the connection's own: workers do not contend for it.
            move |request| Arc::clone(&peer).answer(request)
        });
        let server = http_server(&bounds);
        Self {
            serving: Box::pin(server.serve_connection(socket, service).into_owned()),
            peer,
            finish,
            woken: None,
            is_finishing: false,
        }
    }

    /// Serves it as far as that goes without waiting.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        if self.woken.is_none() {
            let mut woken = Box::pin(self.finish.wait_until_told());
            let _ = woken.as_mut().poll(cx);
            self.woken = Some(woken);
        }
        if !self.is_finishing && self.finish.is_told() {
            self.finish();
        }
        self.serving.as_mut().poll(cx)
    }

    /// From now on each answer over HTTP/1 says that it was the last, and is: a request that is on its way is not lost. Over
    /// HTTP/2 [`finish`](Self::finish) loses none.
    pub(super) fn say_last(&self) {
        self.peer.is_last.store(true, Ordering::Relaxed);
    }

    /// From now on it takes no more requests, says so where the protocol can, and ends once all
    /// is answered.
    pub(super) fn finish(&mut self) {
        self.is_finishing = true;
        self.serving.as_mut().finish();
    }

    /// Where it came from.
    pub(super) fn client(&self) -> IpAddr {
        self.peer.place.address()
    }

    /// Whether its client takes too long. Single streams that it does not take are ended.
    pub(super) fn is_overdue(&self) -> bool {
        let clients = self.peer.place.clients();
        self.peer.progress.end_overdue_streams(clients);
        self.peer.progress.is_overdue(clients)
    }
}

/// Sets a client's socket up before anything comes over it.
pub(super) fn prepare(stream: &TcpStream, place: &Place) {
    let bounds = place.clients().bounds();
    // Small answers must not wait for an acknowledgement.
    let _ = stream.set_nodelay(true);
    // A client that reads nothing of its answers is cut off.
    let _ = SockRef::from(stream).set_tcp_user_timeout(Some(bounds.receive_time_max));
}

/// The other end of a connection.
struct Peer {
    gateway: Arc<Gateway>,
    scheme: Scheme,
    progress: Arc<Progress>,
    place: Place,
    /// See [`Connection::say_last`].
    is_last: AtomicBool,
}

impl Peer {
    /// hyper moves the future: it has the head once, and whatever waits is boxed.
    fn answer(
        self: Arc<Self>,
        request: http::Request<Incoming>,
    ) -> impl Future<Output = Result<Response<Unsent>, Infallible>> {
        let (mut head, body) = request.into_parts();
        async move {
            Ok(if head.version >= Version::HTTP_2 {
                Box::pin(self.answer_on_stream(&mut head, body)).await
            } else {
                self.answer_next(&mut head, body).await
            })
        }
    }

    /// Over HTTP/1, where a client has one request at a time.
    async fn answer_next(&self, head: &mut Parts, body: Incoming) -> Response<Unsent> {
        self.progress.on_request();
        let noted = self.note(head);
        let response = if body.is_end_stream() {
            self.decide((head, &noted)).await
        } else {
            let held = self.place.received.share();
            Box::pin(self.read_and_decide((head, &noted), body, held)).await
        };
        let mut response = without_body(&head.method, response);
        if self.gateway.stage.is_closing() || self.is_last.load(Ordering::Relaxed) {
            let headers = response.headers_mut();
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if let Some(followed) = response.extensions_mut().remove::<Followed>() {
            // It has no other end: whoever it is for comes back on another connection.
            let headers = response.headers_mut();
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
            let under_way = || UnderWay::Answer(Arc::clone(&self.progress));
            return self.events(response, &followed, under_way, (head, noted));
        }
        let (response, bytes) = parts(response);
        if bytes.len() > UNWATCHED_BYTES_MAX {
            let under_way = UnderWay::Answer(Arc::clone(&self.progress));
            return self.unsent((response, bytes), under_way, (head, noted));
        }
        noted.answered(&response, bytes.len());
        self.progress.on_response();
        Response::from_parts(response, Unsent::unwatched(bytes))
    }

    /// Over HTTP/2, where a client can have many requests, and leave their answers.
    async fn answer_on_stream(&self, head: &mut Parts, body: Incoming) -> Response<Unsent> {
        let stream = UnderWay::stream(&self.progress);
        let noted = self.note(head);
        let mut held = self.place.received.share();
        let response = match held.grow(STREAM_BYTES + head_bytes(&head.uri, &head.headers)) {
            Ok(()) => self.read_and_decide((head, &noted), body, held).await,
            Err(Exhausted) => self.refuse(&Refusal::RequestsCrowded, (head, &noted)),
        };
        let mut response = without_body(&head.method, response);
        if let Some(followed) = response.extensions_mut().remove::<Followed>() {
            return self.events(response, &followed, || stream, (head, noted));
        }
        self.unsent(parts(response), stream, (head, noted))
    }

    /// Before anything takes the head.
    fn note(&self, head: &Parts) -> Noted {
        Noted::of(&self.gateway, head, (self.place.address(), self.scheme))
    }

    /// An answer that is followed by events, unless only its head is asked for.
    fn events(
        &self,
        mut response: Response<Full<Bytes>>,
        followed: &Followed,
        under_way: impl FnOnce() -> UnderWay,
        (request, noted): (&Parts, Noted),
    ) -> Response<Unsent> {
        let stream = followed.take().filter(|_| request.method == Method::GET);
        let Some(stream) = stream else {
            response.headers_mut().remove(CONTENT_LENGTH);
            self.progress.on_response();
            let (head, _) = parts(response);
            noted.answered(&head, 0);
            return Response::from_parts(head, Unsent::unwatched(Bytes::new()));
        };
        let mut share = self.place.unsent.share();
        match share.grow(EVENTS_BYTES) {
            // It is logged as it begins: what it comes to nobody knows yet.
            Ok(()) => {
                let (head, _) = parts(response);
                noted.answered(&head, 0);
                Response::from_parts(head, Unsent::events(stream, share, under_way()))
            }
            Err(Exhausted) => {
                self.progress.on_response();
                let refused = self.refuse(&Refusal::AnswersCrowded, (request, &noted));
                let (head, bytes) = parts(refused);
                noted.answered(&head, bytes.len());
                Response::from_parts(head, Unsent::unwatched(bytes))
            }
        }
    }

    /// `held` is given back once there is an answer.
    async fn read_and_decide(
        &self,
        (head, noted): (&mut Parts, &Noted),
        mut body: Incoming,
        mut held: Share,
    ) -> Response<Full<Bytes>> {
        if body.is_end_stream() {
            return self.decide((head, noted)).await;
        }
        let time_max = self.place.clients().bounds().send_time_max;
        let unread = Unread::of(head, &body);
        let (mut refusal, unread) = match self.gateway.admit(head, Some(body.size_hint().lower())) {
            Err(refusal) => (self.refuse(&refusal, (head, noted)), unread),
            Ok(admitted) => match receive::read(&mut body, &mut held, time_max).await {
                Ok(bytes) => {
                    let request = Request {
                        admitted,
                        body: Some(bytes),
                        client: self.place.address(),
                        scheme: self.scheme,
                        noted,
                    };
                    return self.gateway.answer(request).await;
                }
                Err(missing) => (self.refuse(&missing, (head, noted)), unread.after(&missing)),
            },
        };
        if unread == Unread::Discarded {
            self.progress.on_refusal();
        }
        unread.release(body, time_max, &mut refusal);
        refusal
    }

    /// A request without a body.
    async fn decide(&self, (head, noted): (&mut Parts, &Noted)) -> Response<Full<Bytes>> {
        match self.gateway.admit(head, None) {
            Ok(admitted) => {
                let request = Request {
                    admitted,
                    body: None,
                    client: self.place.address(),
                    scheme: self.scheme,
                    noted,
                };
                self.gateway.answer(request).await
            }
            Err(refusal) => self.refuse(&refusal, (head, noted)),
        }
    }

    fn refuse(&self, refusal: &Refusal, request: (&Parts, &Noted)) -> Response<Full<Bytes>> {
        self.gateway.refuse(refusal, request, self.place.address())
    }

    /// An answer to `request` that counts until the client has taken it; or that there is no room for it.
    fn unsent(
        &self,
        (head, bytes): (http::response::Parts, Bytes),
        under_way: UnderWay,
        (request, noted): (&Parts, Noted),
    ) -> Response<Unsent> {
        let mut share = self.place.unsent.share();
        let (head, bytes) = match share.grow(bytes.len()) {
            Ok(()) => (head, bytes),
            Err(Exhausted) => parts(self.refuse(&Refusal::AnswersCrowded, (request, &noted))),
        };
        noted.answered(&head, bytes.len());
        Response::from_parts(head, Unsent::watched(bytes, share, under_way))
    }
}

fn parts(response: Response<Full<Bytes>>) -> (http::response::Parts, Bytes) {
    let (head, body) = response.into_parts();
    (head, body.into_inner().unwrap_or_default())
}

fn http_server(bounds: &Bounds) -> auto::Builder<Streams> {
    let mut server = auto::Builder::new(Streams);
    server
        .http1()
        // `progress` does without a timer for each request.
        .header_read_timeout(None)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .half_close(true);
    server
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEAD_LIST_BYTES_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(STREAM_BUFFER_BYTES_MAX)
        .keep_alive_interval(bounds.send_time_max);
    server
}

#[cfg(test)]
mod tests {
    use super::*;

    fn future_bytes<F>(_answer: impl Fn(Arc<Peer>, http::Request<Incoming>) -> F) -> usize {
        size_of::<F>()
    }

    /// Each connection has room for one, which is read and written for each request.
    #[test]
    fn a_request_on_its_way_is_small() {
        let bytes = future_bytes(Peer::answer);
        assert!(bytes <= 1_536, "{bytes}");
    }
}
