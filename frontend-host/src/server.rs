//! The listener for clients: HTTP/1.1 with keep-alive, and HTTP/2 by prior knowledge.
//!
//! One thread accepts and deals connections out in turn to the workers. A worker is a thread
//! with a runtime of its own, so that a request is served on one core from its first byte to
//! its last, with that thread's instance of the policy.

mod progress;

use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, TcpStream as StdTcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, EXPECT};
use http::{HeaderValue, Response, StatusCode, Version};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{sleep, timeout};

use crate::config::{
    BODY_BYTES_MAX, CONNECTIONS_MAX, DISCARDED_BYTES_MAX, DRAIN_TIME_MAX, HEAD_BYTES_MAX,
    HEADERS_MAX, RECEIVE_TIME_MAX, SEND_TIME_MAX, STREAMS_MAX,
};
use crate::gateway::{Gateway, Request, error, without_body};

use progress::{Clock, LOOK_INTERVAL, Noting, Progress};

/// Connections that wait for a worker to take them up.
const DEALT_MAX: usize = 256;

/// Pause after accepting failed, as it does when file descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves clients until `shutdown`, then lets open requests finish for a bounded time.
///
/// # Errors
/// Where threads cannot be had.
pub async fn serve(
    listener: TcpListener,
    gateway: Arc<Gateway>,
    workers: usize,
    shutdown: impl Future<Output = ()>,
) -> std::io::Result<()> {
    let (stop, stopped) = watch::channel(false);
    let mut hands = Vec::new();
    let mut threads = Vec::new();
    for number in 0..workers.max(1) {
        let (dealt, connections) = mpsc::channel(DEALT_MAX);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let worker = Worker {
            gateway: Arc::clone(&gateway),
            stopped: stopped.clone(),
        };
        let thread = thread::Builder::new().name(format!("worker-{number}"));
        threads.push(thread.spawn(move || runtime.block_on(worker.run(connections)))?);
        hands.push(dealt);
    }
    tokio::select! {
        () = accept(&listener, &hands) => {}
        () = shutdown => {}
    }
    drop(listener);
    drop(hands);
    let _ = stop.send(true);
    let joined = tokio::task::spawn_blocking(move || {
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a worker panicked");
            }
        }
    });
    joined.await.map_err(std::io::Error::other)
}

/// A connection and its place among [`CONNECTIONS_MAX`].
struct Dealt {
    stream: StdTcpStream,
    client: IpAddr,
    place: tokio::sync::OwnedSemaphorePermit,
}

async fn accept(listener: &TcpListener, hands: &[mpsc::Sender<Dealt>]) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut turn = 0;
    loop {
        let place = Arc::clone(&places)
            .acquire_owned()
            .await
            .expect("never closed");
        let accepted = listener.accept().await;
        let accepted = accepted.and_then(|(stream, client)| Ok((stream.into_std()?, client.ip())));
        let (stream, client) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        turn = (turn + 1) % hands.len();
        if hands[turn]
            .send(Dealt {
                stream,
                client,
                place,
            })
            .await
            .is_err()
        {
            tracing::error!("a worker is gone");
        }
    }
}

struct Worker {
    gateway: Arc<Gateway>,
    stopped: watch::Receiver<bool>,
}

impl Worker {
    async fn run(mut self, mut connections: mpsc::Receiver<Dealt>) {
        let open = GracefulShutdown::new();
        let clock = Arc::new(Clock::default());
        let ticking = tokio::spawn({
            let clock = Arc::clone(&clock);
            async move { clock.run().await }
        });
        loop {
            tokio::select! {
                dealt = connections.recv() => match dealt {
                    Some(dealt) => {
                        let gateway = Arc::clone(&self.gateway);
                        let progress = Progress::begin(Arc::clone(&clock));
                        tokio::spawn(serve_connection(dealt, gateway, progress, open.watcher()));
                    }
                    None => break,
                },
                _ = self.stopped.changed() => break,
            }
        }
        if timeout(DRAIN_TIME_MAX, open.shutdown()).await.is_err() {
            tracing::warn!("connections were cut off that took too long to finish");
        }
        ticking.abort();
    }
}

async fn serve_connection(dealt: Dealt, gateway: Arc<Gateway>, progress: Progress, open: Watcher) {
    let Dealt {
        stream,
        client,
        place: _place,
    } = dealt;
    let stream = match TcpStream::from_std(stream) {
        Ok(stream) => stream,
        Err(error) => return tracing::warn!(%error, "cannot take a connection up"),
    };
    // Small answers must not wait for an acknowledgement.
    let _ = stream.set_nodelay(true);
    // A client that reads nothing of its answers is cut off.
    let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(RECEIVE_TIME_MAX));
    let progress = Arc::new(progress);
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
    let server = http_server();
    let io = Noting::new(stream, Arc::clone(&progress));
    let connection = open.watch(server.serve_connection(io, service).into_owned());
    tokio::pin!(connection);
    let mut looks = tokio::time::interval(LOOK_INTERVAL);
    let ended = loop {
        tokio::select! {
            biased;
            ended = &mut connection => break ended,
            _ = looks.tick() => if progress.is_overdue() {
                return tracing::debug!(%client, "no request came in time");
            },
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
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
