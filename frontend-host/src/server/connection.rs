//! One client's connection.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use frontend_policy::decision::Scheme;
use http::header::{CONNECTION, CONTENT_LENGTH};
use http::request::Parts;
use http::{HeaderValue, Method, Response, Version};
use http_body_util::Full;
use hyper::body::{Body as _, Incoming};
use hyper::service::service_fn;
use rpc::budget::{Exhausted, Share, head_bytes};
use tokio_util::either::Either;

use super::clients::Place;
use super::finish::Watcher;
use super::progress::Progress;
use super::receive::{self, Unread};
use super::serving::{Served, http_server, watched};
use super::slot::WorkerSlot;
use super::unsent::{EVENTS_BYTES, UnderWay, Unsent};
use crate::handler::{Followed, Gateway, Noted, Refusal, Request, without_body};

/// What a request over HTTP/2 counts for besides its head and its body: a task, and what hyper and
/// h2 keep of it.
const STREAM_BYTES: usize = 4 << 10;

/// Answers over HTTP/1 of at most so many bytes are neither counted nor watched: most sockets take
/// them at once, and a connection has one at a time.
const UNWATCHED_BYTES_MAX: usize = 16 << 10;

/// A client's connection, to be served, and the other end of it.
pub(super) fn connection(
    stream: tls::Stream,
    place: Place,
    gateway: Arc<Gateway>,
    slot: WorkerSlot,
    finish: Watcher,
) -> (Served, Arc<Peer>) {
    let server = http_server(place.clients().bounds());
    let progress = Arc::new(Progress::begin(slot));
    let scheme = match stream {
        Either::Left(_) => Scheme::Http,
        Either::Right(_) => Scheme::Https,
    };
    let socket = watched(stream, &progress, Some(Arc::clone(&gateway.policy)));
    let peer = Arc::new(Peer {
        gateway,
        scheme,
        progress: Arc::clone(&progress),
        place,
        is_last: AtomicBool::default(),
    });
    let service = service_fn({
        let peer = Arc::clone(&peer);
        // A count of the connection's own: workers do not contend for it.
        move |request| Arc::clone(&peer).answer(request)
    });
    let http = server.serve_connection(socket, service).into_owned();
    (Served::new(Box::pin(http), progress, finish), peer)
}

/// The other end of a connection.
pub(super) struct Peer {
    gateway: Arc<Gateway>,
    scheme: Scheme,
    progress: Arc<Progress>,
    place: Place,
    /// See [`say_last`](Self::say_last).
    is_last: AtomicBool,
}

impl Peer {
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// From now on each answer over HTTP/1 says that it was the last, and is. Over HTTP/2 the connection's end loses no request.
    pub(super) fn say_last(&self) {
        self.is_last.store(true, Ordering::Relaxed);
    }

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
                    return self.gateway.answer_any(request, held).await;
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
