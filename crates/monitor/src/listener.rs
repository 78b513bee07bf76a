//! Takes connections: few at a time, each for one request, within a time.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use daemon::tasks;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use crate::Monitor;

/// Connections at a time; others wait with the kernel.
pub(crate) const CONNECTIONS_MAX: usize = 16;

/// How long one may take from its beginning to its end.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(5);

/// Bytes of a request's head: the least that hyper takes.
const HEAD_BYTES_MAX: usize = 8 << 10;

/// Pause after accepting failed, as it does when file descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Answers whoever asks, for as long as it is polled.
pub async fn serve(listener: TcpListener, monitor: Monitor) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let place = Arc::clone(&places).acquire_owned().await;
        let place = place.expect("never closed");
        match listener.accept().await {
            Ok((stream, _)) => {
                let monitor = monitor.clone();
                tasks::spawn_for_caller(async move {
                    let _ = timeout(CONNECTION_TIME_MAX, answer(stream, monitor)).await;
                    drop(place);
                });
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
        let answer = monitor.answer(request.method(), request.uri().path());
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
