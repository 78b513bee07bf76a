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

use crate::Monitor;

/// Connections at a time. For one more, the oldest ends: so nobody who asks at once is kept from it by those who say nothing.
pub(crate) const CONNECTIONS_MAX: usize = 64;

/// How long one may take from its beginning to its end.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(2);

/// Bytes of a request's head: the least that hyper takes.
const HEAD_BYTES_MAX: usize = 8 << 10;

/// Pause after accepting failed, as it does when file descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Answers whoever asks, for as long as it is polled.
pub async fn serve(listener: TcpListener, monitor: Monitor) {
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
                let monitor = monitor.clone();
                connections.push_back(tasks::spawn_for_caller(async move {
                    let _ = timeout(CONNECTION_TIME_MAX, answer(stream, monitor)).await;
                }));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection to the metrics");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn answer(stream: TcpStream, monitor: Monitor) {
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let answer = monitor.answer(&request);
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
