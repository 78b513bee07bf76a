//! How every service connects to another.

use std::error::Error as StdError;
use std::future::Future;
use std::io;
use std::iter;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use domain::time::BootTime;
use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use rustix::io::Errno;
use tonic::transport::{Channel, Endpoint, Error};
use tower_service::Service;

/// Longest wait for a connection.
pub const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// How often an idle connection is probed, and how long the answer may take. Finds peers
/// that are gone without a word.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the peer's machine may leave what was sent unacknowledged. A connection whose packets are
/// lost while others get through is dropped then, and made anew; by retransmission alone it could
/// take minutes, and by keep-alive it took 4 s. Linux counts as well how long a peer that takes nothing
/// leaves no room for more: one that is stopped for longer has to be connected to again.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(1);

/// Pause between two lines in the log about what is lacking on this machine.
const REPORT_PAUSE: Duration = Duration::from_secs(10);

/// A channel that connects when it is first used, and again whenever it must.
/// Each call sets a deadline of its own.
///
/// # Errors
/// Where `url` is not an `http://host:port` URL.
pub fn lazy(url: &str) -> Result<Channel, Error> {
    Ok(endpoint(url)?.connect_with_connector_lazy(Connector::default()))
}

/// How connections to a URL are kept.
pub(crate) fn endpoint(url: &str) -> Result<Endpoint, Error> {
    Ok(Endpoint::from_shared(url.to_owned())?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true))
}

/// Makes connections. Logs where that cannot be since this machine lacks something: what waits for the peer, and
/// suspects it, cannot know.
#[derive(Clone)]
pub(crate) struct Connector(HttpConnector);

impl Default for Connector {
    fn default() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        // Shared out among the addresses of a name, so that the last is tried as well.
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        // Elsewhere keep-alive finds it out.
        #[cfg(target_os = "linux")]
        connector.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX));
        Self(connector)
    }
}

type Connection = <HttpConnector as Service<Uri>>::Response;
type ConnectError = <HttpConnector as Service<Uri>>::Error;

impl Service<Uri> for Connector {
    type Response = Connection;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Connection, ConnectError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, peer: Uri) -> Self::Future {
        let connecting = self.0.call(peer.clone());
        Box::pin(async move {
            let connected = connecting.await;
            if let Err(error) = &connected
                && let Some(remedy) = lacking(error)
            {
                report(&peer, error, remedy);
            }
            connected
        })
    }
}

/// What to do where it is this machine that lacks something.
fn lacking(error: &(dyn StdError + 'static)) -> Option<&'static str> {
    let mut causes = iter::successors(Some(error), |error: &&(dyn StdError + 'static)| {
        (*error).source()
    });
    let cause = causes.find_map(|cause| cause.downcast_ref::<io::Error>())?;
    match Errno::from_io_error(cause)? {
        Errno::ADDRNOTAVAIL => Some(
            "no port is free to connect from: widen net.ipv4.ip_local_port_range, or see who holds them",
        ),
        Errno::MFILE | Errno::NFILE => {
            Some("no file can be opened any more: raise the limit (ulimit -n, LimitNOFILE=)")
        }
        Errno::NOBUFS | Errno::NOMEM => Some("the kernel has no memory left for sockets"),
        _ => None,
    }
}

fn report(peer: &Uri, error: &ConnectError, remedy: &str) {
    static REPORTED: Mutex<Option<BootTime>> = Mutex::new(None);
    let now = BootTime::now();
    let mut reported = REPORTED.lock().unwrap_or_else(PoisonError::into_inner);
    if reported.is_none_or(|at| now.since(at) >= REPORT_PAUSE) {
        *reported = Some(now);
        tracing::error!(%peer, error = error as &dyn StdError, remedy, "cannot connect: this machine lacks something");
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use socket2::SockRef;

    use super::*;

    fn url(listener: &TcpListener) -> Uri {
        let address = listener.local_addr().unwrap();
        format!("http://{address}").parse().unwrap()
    }

    #[tokio::test]
    async fn a_connection_that_nothing_comes_back_on_is_given_up_soon() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let connection = Connector::default().call(url(&listener)).await.unwrap();
        let socket = SockRef::from(connection.inner());
        #[cfg(target_os = "linux")]
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(UNACKNOWLEDGED_MAX));
        assert!(socket.tcp_nodelay().unwrap());
    }

    #[tokio::test]
    async fn what_this_machine_lacks_is_told_from_what_the_peer_does() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let peer = url(&listener);
        let Connector(mut from_nowhere) = Connector::default();
        // For documentation only (RFC 5737): no machine has it, so no port of it is free.
        from_nowhere.set_local_address(Some(Ipv4Addr::new(192, 0, 2, 1).into()));
        let error = from_nowhere.call(peer.clone()).await.unwrap_err();
        assert!(lacking(&error).unwrap().contains("no port is free"));
        drop(listener);
        let error = Connector::default().0.call(peer).await.unwrap_err();
        assert_eq!(lacking(&error), None, "the peer refuses it");
    }
}
