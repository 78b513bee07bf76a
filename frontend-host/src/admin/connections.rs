//! The admin listener's connections: few, so that no flood of them takes what clients need, and
//! those of operators before those of strangers.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_util::either::Either;

use crate::config::{
    ADMIN_CONNECTIONS_MAX, ADMIN_DRAIN_TIME_MAX, HEAD_BYTES_MAX, HEADERS_MAX, RECEIVE_TIME_MAX,
    SEND_TIME_MAX,
};

/// Pause after accepting failed, as it does when file descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The other end of a connection. Goes with each of its requests.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) address: IpAddr,
    /// Of its certificate, where it has shown one.
    pub(super) chain: tls::Chain,
    pub(super) trusted: Trusted,
}

/// Whether a request on this connection was let in.
#[derive(Debug, Clone, Default)]
pub(super) struct Trusted(Arc<AtomicBool>);

impl Trusted {
    pub(super) fn set(&self, is_trusted: bool) {
        self.0.store(is_trusted, Ordering::Relaxed);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Accepts until `leaving`, serves until `shutdown`, then lets requests finish for a bounded time.
pub(super) async fn serve(
    (listener, tls): (TcpListener, Option<tls::Server>),
    router: Router,
    leaving: impl Future,
    shutdown: impl Future,
) {
    let open = GracefulShutdown::new();
    let mut connections = Connections::default();
    let (close, closing) = watch::channel(false);
    let mut leaving = pin!(leaving);
    loop {
        // Who is accepted is served: nothing else is given up for `leaving`.
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = &mut leaving => break,
        };
        connections
            .take_in(accepted, tls.as_ref(), &router, (&open, &closing))
            .await;
    }
    drop(listener);
    shutdown.await;
    close.send_replace(true);
    if timeout(ADMIN_DRAIN_TIME_MAX, open.shutdown())
        .await
        .is_err()
    {
        tracing::warn!("requests to the admin API were cut off that took too long to finish");
    }
}

/// Those that are open, or were until lately. Dropped, they end.
#[derive(Default)]
struct Connections {
    tasks: JoinSet<()>,
    open: VecDeque<Open>,
}

struct Open {
    task: AbortHandle,
    trusted: Trusted,
}

impl Connections {
    async fn take_in(
        &mut self,
        accepted: io::Result<(TcpStream, SocketAddr)>,
        tls: Option<&tls::Server>,
        router: &Router,
        (open, closing): (&GracefulShutdown, &watch::Receiver<bool>),
    ) {
        match accepted {
            Ok((stream, address)) => {
                self.make_room().await;
                let trusted = Trusted::default();
                let entering = Entering {
                    stream,
                    address: address.ip().to_canonical(),
                    tls: tls.cloned(),
                    trusted: trusted.clone(),
                    watcher: open.watcher(),
                    closing: closing.clone(),
                };
                let serving = entering.serve(router.clone());
                #[expect(clippy::disallowed_methods, reason = "its client sees its end")]
                let task = self.tasks.spawn(serving);
                self.open.push_back(Open { task, trusted });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection of an operator");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }

    /// Where there is none, the oldest connection ends on which nobody was let in yet. Where
    /// operators have all of them, this waits for one to end.
    async fn make_room(&mut self) {
        loop {
            while self.tasks.try_join_next().is_some() {}
            self.open.retain(|open| !open.task.is_finished());
            if self.open.len() < ADMIN_CONNECTIONS_MAX {
                return;
            }
            let stranger = self.open.iter().position(|open| !open.trusted.is_set());
            match stranger.and_then(|place| self.open.remove(place)) {
                Some(stranger) => stranger.task.abort(),
                None => drop(self.tasks.join_next().await),
            }
        }
    }
}

/// A connection that came in.
struct Entering {
    stream: TcpStream,
    address: IpAddr,
    tls: Option<tls::Server>,
    trusted: Trusted,
    watcher: Watcher,
    /// Becomes true when the listener closes.
    closing: watch::Receiver<bool>,
}

impl Entering {
    /// Serves it to its end.
    async fn serve(self, router: Router) {
        let Self {
            stream,
            address,
            tls,
            trusted,
            watcher,
            mut closing,
        } = self;
        // Small answers must not wait for an acknowledgement, and who reads nothing is cut off.
        let _ = stream.set_nodelay(true);
        let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(RECEIVE_TIME_MAX));
        let (stream, chain) = match tls {
            None => (Either::Left(stream), Arc::from([])),
            Some(tls) => {
                let agreed = tokio::select! {
                    agreed = timeout(SEND_TIME_MAX, tls.accept(stream)) => agreed,
                    _ = closing.wait_for(|closing| *closing) => return,
                };
                match agreed {
                    Ok(Ok(agreed)) => agreed,
                    Ok(Err(error)) => {
                        return tracing::debug!(%address, %error, "no TLS came about with an operator");
                    }
                    Err(_) => return tracing::debug!(%address, "an operator's TLS took too long"),
                }
            }
        };
        let peer = Peer {
            address,
            chain,
            trusted,
        };
        let router = TowerToHyperService::new(router);
        let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
            request.extensions_mut().insert(peer.clone());
            router.call(request)
        });
        let serving = http1::Builder::new()
            .timer(TokioTimer::new())
            // Also how long a connection may ask for nothing.
            .header_read_timeout(SEND_TIME_MAX)
            .max_buf_size(HEAD_BYTES_MAX)
            .max_headers(HEADERS_MAX)
            .half_close(true)
            .serve_connection(TokioIo::new(stream), service);
        if let Err(error) = watcher.watch(serving).await {
            tracing::debug!(%error, "an operator's connection ended");
        }
    }
}
