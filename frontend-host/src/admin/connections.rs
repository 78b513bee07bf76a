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
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

use crate::config::{ADMIN_CONNECTIONS_MAX, ADMIN_DRAIN_TIME_MAX};
use crate::server::operators::{OperatorConnection, OperatorConnections};

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
    let operators = OperatorConnections::new();
    let mut connections = Connections::default();
    let mut leaving = pin!(leaving);
    loop {
        // Who is accepted is served: nothing else is given up for `leaving`.
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = &mut leaving => break,
        };
        connections
            .take_in(accepted, tls.as_ref(), &router, &operators)
            .await;
    }
    drop(listener);
    shutdown.await;
    if timeout(ADMIN_DRAIN_TIME_MAX, operators.shutdown())
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
        operators: &OperatorConnections,
    ) {
        match accepted {
            Ok((stream, address)) => {
                self.make_room().await;
                let address = address.ip().to_canonical();
                let trusted = Trusted::default();
                let entering = Entering {
                    stream,
                    address,
                    tls: tls.cloned(),
                    trusted: trusted.clone(),
                    operator: operators.entering(address),
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
    operator: OperatorConnection,
}

impl Entering {
    /// Serves it to its end.
    async fn serve(self, router: Router) {
        let Self {
            stream,
            address,
            tls,
            trusted,
            operator,
        } = self;
        let (stream, chain) = match operator.agreed(stream, tls.as_ref()).await {
            Ok(agreed) => agreed,
            Err(error) => {
                return tracing::debug!(%address, %error, "no TLS came about with an operator");
            }
        };
        let peer = Peer {
            address,
            chain,
            trusted,
        };
        operator.serve(stream, router, peer).await;
    }
}
