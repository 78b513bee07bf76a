//! Takes connections: few at a time, each for one request, within a time.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use daemon::tasks;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::either::Either;

use crate::Monitor;

/// Connections at a time. For one more, the oldest ends: so nobody who asks at once is kept from it by those who say nothing.
pub(crate) const CONNECTIONS_MAX: usize = 64;

/// How long one may take from its beginning to its end, a handshake included.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(2);

/// Bytes of a request's head: the least that hyper takes.
const HEAD_BYTES_MAX: usize = 8 << 10;

/// Pause after accepting failed, as it does when file descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What is spoken over TLS (RFC 7301).
pub const PROTOCOLS: [&[u8]; 1] = [b"http/1.1"];

/// Answers whoever asks, over TLS where there is a certificate, for as long as it is polled.
pub async fn serve((listener, tls): (TcpListener, Option<tls::Server>), monitor: Monitor) {
    let mut connections: VecDeque<JoinHandle<()>> = VecDeque::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.retain(|connection| !connection.is_finished());
                if connections.len() >= CONNECTIONS_MAX
                    && let Some(oldest) = connections.pop_front()
                {
                    oldest.abort();
                }
                let answered = answer(stream, tls.clone(), monitor.clone());
                connections.push_back(tasks::spawn_for_caller(async move {
                    let _ = timeout(CONNECTION_TIME_MAX, answered).await;
                }));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection to the metrics");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn answer(stream: TcpStream, tls: Option<tls::Server>, monitor: Monitor) {
    let (stream, shown) = match tls {
        None => (Either::Left(stream), None),
        Some(tls) => match tls.accept(stream).await {
            Ok((stream, chain)) => (stream, Some((tls, chain))),
            Err(error) => {
                return tracing::debug!(%error, "no TLS came about with who asks for the metrics");
            }
        },
    };
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let answer = monitor.answer(&request, || {
            let shown = shown.as_ref();
            shown.is_none_or(|(tls, chain)| tls.judge(chain).principal.is_some())
        });
        async move { Ok::<_, Infallible>(answer) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection to the metrics ended");
    }
}
