//! One connection to its end, whoever answers on it: the HTTP that is spoken there, and its bounds.

use std::future::{Future, poll_fn};
use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use frontend_policy::Versions;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulConnection;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::{Instant, interval, timeout};

use super::finish::Watcher;
use super::progress::{CHECK_INTERVAL, Progress};
use super::refusals::Refusals;
use super::socket::Socket;
use super::streams::Streams;
use crate::config::{Bounds, DRAIN_TIME_MAX, HEAD_BYTES_MAX, HEADERS_MAX, STREAMS_MAX};

/// What an HTTP/2 connection may be sent of bodies that nobody has read yet: of one, and in all.
const STREAM_WINDOW_BYTES: u32 = 64 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 256 << 10;

/// What h2 holds of one answer at most.
const STREAM_BUFFER_BYTES_MAX: usize = 64 << 10;

/// What h2 takes of one head, in bytes (RFC 9113, section 6.5.2): more than the gateway does, which
/// says why it takes no more, where h2 sends a bare 431.
const HEAD_LIST_BYTES_MAX: u32 = 2 * HEAD_BYTES_MAX as u32;

/// Sets a socket up before anything comes over it.
pub(super) fn prepare(stream: &TcpStream, bounds: &Bounds) {
    // Small answers must not wait for an acknowledgement.
    let _ = stream.set_nodelay(true);
    // A client that reads nothing of its answers is cut off.
    let _ = SockRef::from(stream).set_tcp_user_timeout(Some(bounds.receive_time_max));
}

/// Agrees with a client on how the connection is encrypted, for which it has `patience`, by what that is at each check, and
/// not once all are to finish.
pub(super) async fn encrypted(
    tls: &tls::Server,
    stream: TcpStream,
    finish: &Watcher,
    patience: impl Fn() -> Duration,
) -> io::Result<(tls::Stream, tls::Chain)> {
    let began = Instant::now();
    let mut agreeing = pin!(tls.accept(stream));
    let mut told = pin!(finish.wait_until_told());
    loop {
        tokio::select! {
            agreed = timeout(CHECK_INTERVAL, &mut agreeing) => match agreed {
                Ok(agreed) => return agreed,
                // As places get scarce, who waits has to go earlier.
                Err(_) if began.elapsed() < patience() => {}
                Err(_) => return Err(io::ErrorKind::TimedOut.into()),
            },
            () = &mut told => return Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }
}

/// A socket, watched for its progress, on which refusals have bodies, and the headers of every reply where there is a policy.
pub(super) fn watched(
    stream: tls::Stream,
    progress: &Arc<Progress>,
    policy: Option<Arc<Versions>>,
) -> TokioIo<Refusals<TokioIo<Socket>>> {
    let socket = TokioIo::new(Socket::new(stream, Arc::clone(progress)));
    TokioIo::new(Refusals::new(socket, policy))
}

/// HTTP/1.1, and HTTP/2 where that is what a client begins with.
pub(super) fn http_server(bounds: &Bounds) -> auto::Builder<Streams> {
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

/// Why a connection ended before its client wanted it to.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A connection that is served when it is polled, and can be asked to come to its end.
pub(super) trait Http: Future<Output = Result<(), Failure>> + Send {
    fn finish(self: Pin<&mut Self>);
}

impl<C> Http for C
where
    C: GracefulConnection<Error = Failure> + Send,
{
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// Whose connection it is.
pub(super) trait Client {
    fn address(&self) -> IpAddr;

    /// What it may take at the moment.
    fn bounds(&self) -> Bounds;

    /// Whether it is still served, for what it has shown. Asked once a second.
    fn is_served(&mut self, now: Instant) -> bool;

    /// From now on each answer over HTTP/1 is to say that it was the last, and to be it: a request that is on its way is not
    /// lost.
    fn say_last(&self);
}

/// A connection, served by the task that polls it.
pub(super) struct Served {
    http: Pin<Box<dyn Http>>,
    progress: Arc<Progress>,
    finish: Watcher,
    /// Wakes the task that serves it once it is to finish; none before that has polled it.
    woken: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    is_finishing: bool,
}

impl Served {
    /// `http` notes in `progress` how far it has got.
    pub(super) fn new(http: Pin<Box<dyn Http>>, progress: Arc<Progress>, finish: Watcher) -> Self {
        Self {
            http,
            progress,
            finish,
            woken: None,
            is_finishing: false,
        }
    }

    /// Serves it until it ends, its client takes too long, or is to be served no more.
    pub(super) async fn run(mut self, mut client: impl Client) {
        let mut checks = interval(CHECK_INTERVAL);
        let mut ending = Ending::No;
        poll_fn(|cx| {
            if let Poll::Ready(ended) = self.poll(cx) {
                if let Err(error) = ended {
                    tracing::debug!(%error, "connection ended");
                }
                return Poll::Ready(());
            }
            while checks.poll_tick(cx).is_ready() {
                let now = Instant::now();
                let before = ending;
                let is_overdue = self.is_overdue(&client.bounds());
                ending = ending.at_check(now, is_overdue, || client.is_served(now));
                if ending == before {
                    continue;
                }
                match ending {
                    Ending::No => {}
                    Ending::Said => client.say_last(),
                    Ending::Finishing { .. } => {
                        self.finish();
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    Ending::Over => {
                        tracing::debug!(client = %client.address(), "its client took too long");
                        return Poll::Ready(());
                    }
                }
            }
            Poll::Pending
        })
        .await;
    }

    /// Serves it as far as that goes without waiting.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        if self.woken.is_none() {
            let mut woken = Box::pin(self.finish.wait_until_told());
            let _ = woken.as_mut().poll(cx);
            self.woken = Some(woken);
        }
        if !self.is_finishing && self.finish.is_told() {
            self.finish();
        }
        self.http.as_mut().poll(cx)
    }

    /// From now on it takes no more requests, says so where the protocol can, and ends once all
    /// is answered. Over HTTP/2 this loses none.
    fn finish(&mut self) {
        self.is_finishing = true;
        self.http.as_mut().finish();
    }

    /// Whether its client takes too long. Single streams that it does not take are ended.
    fn is_overdue(&self, bounds: &Bounds) -> bool {
        self.progress.end_overdue_streams(bounds);
        self.progress.is_overdue(bounds)
    }
}

/// How far a connection has got on its way to an end that its client does not want.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    No,
    /// Its client is believed no more, and its next answer says that it is the last.
    Said,
    /// It takes no more requests, and may finish until then what it has.
    Finishing {
        until: Instant,
    },
    Over,
}

impl Ending {
    /// What is so from a check on. `is_served` tells whether the client is still served, for what it has shown.
    fn at_check(self, now: Instant, is_overdue: bool, is_served: impl FnOnce() -> bool) -> Self {
        match self {
            Self::Finishing { until } if is_overdue || now >= until => Self::Over,
            // Until the next check it may say so, and end by itself.
            Self::No | Self::Said if is_overdue => Self::Finishing { until: now },
            Self::Said => Self::Finishing {
                until: now + DRAIN_TIME_MAX,
            },
            Self::No if !is_served() => Self::Said,
            same => same,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_is_believed_no_more_hears_it_and_has_time_for_its_last_answer() {
        let now = Instant::now();
        let after = |ending: Ending, checks: u32, is_served| {
            ending.at_check(now + checks * CHECK_INTERVAL, false, || is_served)
        };
        assert_eq!(after(Ending::No, 0, true), Ending::No);
        let said = after(Ending::No, 1, false);
        assert_eq!(said, Ending::Said);
        let finishing = after(said, 2, false);
        let until = now + 2 * CHECK_INTERVAL + DRAIN_TIME_MAX;
        assert_eq!(finishing, Ending::Finishing { until });
        assert_eq!(after(finishing, 3, false), finishing);
        assert_eq!(finishing.at_check(until, false, || false), Ending::Over);
    }

    #[test]
    fn a_client_that_takes_too_long_has_until_the_next_check() {
        let now = Instant::now();
        for ending in [Ending::No, Ending::Said] {
            let finishing = ending.at_check(now, true, || true);
            assert_eq!(finishing, Ending::Finishing { until: now });
            let next = now + CHECK_INTERVAL;
            assert_eq!(finishing.at_check(next, true, || true), Ending::Over);
        }
    }
}
