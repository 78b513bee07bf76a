//! One client's connection, which can go from one worker to another between two requests.

use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, TcpStream as StdTcpStream};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONNECTION, EXPECT};
use http::{HeaderValue, Response, StatusCode, Version};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::Watcher;
use socket2::SockRef;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::progress::Progress;
use super::socket::Socket;
use super::worker::Seat;
use crate::config::{
    BODY_BYTES_MAX, DISCARDED_BYTES_MAX, HEAD_BYTES_MAX, HEADERS_MAX, RECEIVE_TIME_MAX,
    SEND_TIME_MAX, STREAMS_MAX,
};
use crate::gateway::{Gateway, Request, error, without_body};

/// Why a connection ended before its client wanted it to.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A connection. It belongs to no runtime until it is polled, and to that one from then on
/// until it [moves](Self::moves).
pub(super) struct Connection {
    serving: Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>>,
    progress: Arc<Progress>,
    client: IpAddr,
    /// Among all connections.
    _place: OwnedSemaphorePermit,
}

impl Connection {
    /// Of a stream that does not block.
    pub(super) fn new(
        (stream, client): (StdTcpStream, IpAddr),
        place: OwnedSemaphorePermit,
        gateway: Arc<Gateway>,
        seat: Seat,
        open: Watcher,
    ) -> Self {
        // Small answers must not wait for an acknowledgement.
        let _ = stream.set_nodelay(true);
        // A client that reads nothing of its answers is cut off.
        let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(RECEIVE_TIME_MAX));
        let progress = Arc::new(Progress::begin(seat));
        let peer = Arc::new(Peer {
            gateway,
            client,
            progress: Arc::clone(&progress),
        });
        let service = service_fn(move |request| {
            // A count of the connection's own: workers do not contend for it.
            let peer = Arc::clone(&peer);
            async move { Ok::<_, Infallible>(peer.answer(request).await) }
        });
        let socket = Socket::new(stream, Arc::clone(&progress));
        let serving = http_server().serve_connection(socket, service).into_owned();
        Self {
            serving: Box::pin(open.watch(serving)),
            progress,
            client,
            _place: place,
        }
    }

    /// Serves it as far as that goes without waiting.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.serving.as_mut().poll(cx)
    }

    /// Where it came from.
    pub(super) fn client(&self) -> IpAddr {
        self.client
    }

    /// Whether its client takes too long.
    pub(super) fn is_overdue(&self) -> bool {
        self.progress.is_overdue()
    }

    /// Whether it can go to another worker: nothing of it is under way on this one.
    pub(super) fn can_move(&self) -> bool {
        self.progress.is_between_requests()
    }

    /// To be said before another worker polls it.
    pub(super) fn moves(&self, worker: usize) {
        self.progress.moves(worker);
    }
}

/// The other end of a connection.
struct Peer {
    gateway: Arc<Gateway>,
    client: IpAddr,
    progress: Arc<Progress>,
}

impl Peer {
    async fn answer(&self, request: http::Request<Incoming>) -> Response<Full<Bytes>> {
        self.progress.asked(request.version());
        let (head, mut body) = request.into_parts();
        let method = head.method.clone();
        let read = if body.is_end_stream() {
            Ok(None)
        } else {
            Box::pin(read_body(&mut body)).await.map(Some)
        };
        let response = match read {
            Ok(body) => {
                let client = self.client;
                self.gateway.answer(Request { head, body, client }).await
            }
            Err(refusal) => Box::pin(refuse(refusal, &head, &mut body)).await,
        };
        self.progress.answered();
        without_body(&method, response)
    }
}

fn http_server() -> auto::Builder<TokioExecutor> {
    let mut server = auto::Builder::new(TokioExecutor::new());
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
        .max_header_list_size(HEAD_BYTES_MAX as u32)
        .keep_alive_interval(SEND_TIME_MAX);
    server
}

/// Over HTTP/1 lets the client finish what it sends, within bounds, before it is refused: one that
/// is cut off while it sends may never read why. What is more ends the connection.
async fn refuse(
    mut refusal: Response<Full<Bytes>>,
    head: &http::request::Parts,
    body: &mut Incoming,
) -> Response<Full<Bytes>> {
    if head.version >= Version::HTTP_2 {
        return refusal;
    }
    let sends_now = !head.headers.contains_key(EXPECT)
        && body.size_hint().lower() <= DISCARDED_BYTES_MAX as u64;
    if refusal.status() == StatusCode::PAYLOAD_TOO_LARGE && sends_now {
        let discarded = async {
            let mut left = DISCARDED_BYTES_MAX;
            while let Some(Ok(frame)) = body.frame().await {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                match left.checked_sub(bytes) {
                    Some(rest) => left = rest,
                    None => return,
                }
            }
        };
        let _ = timeout(SEND_TIME_MAX, discarded).await;
    }
    if !body.is_end_stream() {
        let headers = refusal.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    refusal
}

/// Reads a body of bounded length in bounded time.
async fn read_body(body: &mut Incoming) -> Result<Bytes, Response<Full<Bytes>>> {
    let too_large = || {
        error(
            StatusCode::PAYLOAD_TOO_LARGE,
            &format!("body has more than {BODY_BYTES_MAX} bytes"),
        )
    };
    if body.size_hint().lower() > BODY_BYTES_MAX as u64 {
        return Err(too_large());
    }
    match timeout(SEND_TIME_MAX, Limited::new(body, BODY_BYTES_MAX).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(problem)) if problem.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(error(StatusCode::BAD_REQUEST, "body is not complete")),
        Err(_) => Err(error(
            StatusCode::REQUEST_TIMEOUT,
            "body took too long to arrive",
        )),
    }
}
