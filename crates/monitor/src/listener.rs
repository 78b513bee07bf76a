//! Takes connections: few at a time, each for one request, within a time.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::IpAddr;
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

/// Connections at a time. For one more, the oldest of whoever has most ends: so nobody who asks at once is kept from it by those
/// who say nothing, nor by one address that comes again and again.
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
    let mut connections: VecDeque<(IpAddr, JoinHandle<()>)> = VecDeque::new();
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                connections.retain(|(_, connection)| !connection.is_finished());
                if connections.len() >= CONNECTIONS_MAX {
                    let from: Vec<IpAddr> = connections.iter().map(|(from, _)| *from).collect();
                    if let Some((_, ended)) = connections.remove(place_to_end(&from)) {
                        ended.abort();
                    }
                }
                let answered = answer(stream, tls.clone(), monitor.clone());
                let answering = tasks::spawn_for_caller(async move {
                    let _ = timeout(CONNECTION_TIME_MAX, answered).await;
                });
                connections.push_back((from.ip().to_canonical(), answering));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection to the metrics");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Of connections by where they are from, the oldest first: the first one of whoever has most.
fn place_to_end(from: &[IpAddr]) -> usize {
    let count = |of: &IpAddr| from.iter().filter(|it| *it == of).count();
    let most = from.iter().map(count).max();
    let place = from.iter().position(|it| Some(count(it)) == most);
    place.unwrap_or_default()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn for_one_more_the_oldest_of_whoever_has_most_ends() {
        let [one, other] = [1, 2].map(|host| IpAddr::from([192, 0, 2, host]));
        for (from, ends) in [
            (&[one][..], 0),
            (&[one, other], 0),
            (&[one, other, other, one, other], 1),
            (&[other, one, one, one], 1),
        ] {
            assert_eq!(place_to_end(from), ends, "{from:?}");
        }
    }
}
