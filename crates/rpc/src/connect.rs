//! How every service connects to another.

use std::error::Error as StdError;
use std::future::Future;
use std::io;
use std::iter;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use domain::time::BootTime;
use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use rustix::io::Errno;
use tls::{Cluster, Expected, PROVEN_FOR, Proof};
use tokio::net::TcpStream;
use tokio_util::either::Either;
use tonic::transport::{Channel, Endpoint, Error};
use tower_service::Service;

use crate::release::own_tokens;

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

/// How long a peer is let be that does not believe this service, or is not believed: until somebody replaces a certificate it
/// stays so, and each attempt costs both a handshake.
const UNBELIEVED_PAUSE: Duration = Duration::from_secs(1);

/// Pause between two lines in the log about what is lacking on this machine.
const REPORT_PAUSE: Duration = Duration::from_secs(10);

/// How a service proves to its peers who it is, and who they are to be.
#[derive(Debug, Clone)]
pub struct Security(Option<(Cluster, Expected)>);

impl Security {
    /// Nobody proves anything, and all of it can be read on the way.
    pub const NONE: Self = Self(None);

    /// Mutual TLS to whom is expected, where this service is of a cluster that has it.
    pub fn of(cluster: Option<&Cluster>, expected: Expected) -> Self {
        Self(cluster.map(|cluster| (cluster.clone(), expected)))
    }
}

/// Why a URL cannot be connected to.
#[derive(Debug, thiserror::Error)]
pub enum UrlError {
    /// It is none.
    #[error("not an http://host:port or https://host:port URL: {0}")]
    Invalid(#[from] Error),
    /// It is not encrypted, where this service has certificates.
    #[error(
        "not encrypted, as every connection between services is once there are certificates (--cluster-cert): https://…"
    )]
    Plain,
    /// It is encrypted, and this service has no certificates.
    #[error("encrypted: it wants --cluster-ca, --cluster-cert and --cluster-key")]
    NoCertificate,
}

/// A channel that connects when it is first used, and again whenever it must.
/// Each call sets a deadline of its own.
///
/// # Errors
/// Where `url` is not `http://host:port`, or `https://host:port` with [`Security`].
pub fn lazy(url: &str, security: &Security) -> Result<Channel, UrlError> {
    let connector = Connector::new(security.clone());
    Ok(endpoint(url, security)?.connect_with_connector_lazy(connector))
}

/// How connections to a URL are kept.
pub(crate) fn endpoint(url: &str, security: &Security) -> Result<Endpoint, UrlError> {
    let endpoint = Endpoint::from_shared(url.to_owned())?.user_agent(own_tokens())?;
    match (endpoint.uri().scheme_str(), &security.0) {
        (Some("https"), None) => return Err(UrlError::NoCertificate),
        (Some("https"), Some(_)) | (_, None) => {}
        (_, Some(_)) => return Err(UrlError::Plain),
    }
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true))
}

/// Makes connections. Logs where that cannot be since this machine lacks something, or since whoever is there is not
/// believed, or does not believe this service: what waits for the peer, and suspects it, cannot know.
#[derive(Clone)]
pub(crate) struct Connector {
    tcp: HttpConnector,
    security: Security,
    disbelief: Arc<Disbelief>,
}

impl Connector {
    pub(crate) fn new(security: Security) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        // Shared out among the addresses of a name, so that the last is tried as well.
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        // Elsewhere keep-alive finds it out.
        #[cfg(target_os = "linux")]
        tcp.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX));
        Self {
            tcp,
            security,
            disbelief: Arc::default(),
        }
    }
}

/// That the last connection did not come about for what a certificate says, or does not.
#[derive(Debug, Default)]
struct Disbelief(Mutex<Option<Disbelieved>>);

#[derive(Debug)]
struct Disbelieved {
    /// Whoever else is connected to has nothing to do with it.
    peer: Uri,
    at: BootTime,
    why: String,
}

impl Disbelief {
    /// A connection has failed, and the log says so where it is for that. Returns why, in words.
    fn note(&self, peer: &Uri, error: io::Error) -> io::Error {
        let error = tls::readable(error);
        if error.kind() == io::ErrorKind::InvalidData {
            *self.last() = Some(Disbelieved {
                peer: peer.clone(),
                at: BootTime::now(),
                why: error.to_string(),
            });
            report(peer, &error, "see to the certificates of both");
        }
        error
    }

    /// Whether it may be tried again.
    ///
    /// # Errors
    /// As the last time, where that is less than a second ago.
    fn check(&self, peer: &Uri) -> io::Result<()> {
        let now = BootTime::now();
        match &*self.last() {
            Some(last) if last.peer == *peer && now.since(last.at) < UNBELIEVED_PAUSE => {
                Err(io::Error::new(io::ErrorKind::InvalidData, last.why.clone()))
            }
            _ => Ok(()),
        }
    }

    fn last(&self) -> MutexGuard<'_, Option<Disbelieved>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection, which says in the log where its peer ends it at once: by TLS 1.3, whoever does not believe a client says
/// so when that takes itself to be connected already (RFC 8446, section 4.4).
pub(crate) struct Connection {
    stream: TokioIo<tls::Stream>,
    /// To whom, until something has come.
    fresh: Option<(Uri, Arc<Disbelief>)>,
    /// What proves who is there, where that is asked for, and when it is looked at again.
    proof: Option<(Proof, Instant)>,
}

impl Connection {
    fn in_the_clear(stream: TcpStream) -> Self {
        Self {
            stream: TokioIo::new(Either::Left(stream)),
            fresh: None,
            proof: None,
        }
    }

    /// Whether who is there is still believed. To be asked whenever it is read: while it is idle it is probed.
    fn check(&mut self) -> io::Result<()> {
        let Some((proof, look_again_at)) = &mut self.proof else {
            return Ok(());
        };
        let now = Instant::now();
        if now < *look_again_at {
            return Ok(());
        }
        *look_again_at = now + PROVEN_FOR;
        match proof.holds() {
            true => Ok(()),
            false => {
                let peer = proof.principal();
                tracing::warn!(%peer, "a connection ends: its server's certificate has expired, or its authority is believed no more");
                Err(io::ErrorKind::PermissionDenied.into())
            }
        }
    }
}

impl Read for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        self.check()?;
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        read.map(|read| match self.fresh.take() {
            Some((peer, disbelief)) => read.map_err(|error| disbelief.note(&peer, error)),
            None => read,
        })
    }
}

impl Write for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }
}

type BoxError = Box<dyn StdError + Send + Sync>;

impl Service<Uri> for Connector {
    type Response = Connection;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Connection, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, peer: Uri) -> Self::Future {
        let connecting = self.tcp.call(peer.clone());
        let Security(security) = self.security.clone();
        let disbelief = Arc::clone(&self.disbelief);
        Box::pin(async move {
            disbelief.check(&peer)?;
            let connected = connecting.await.inspect_err(|error| {
                if let Some(remedy) = lacking(error) {
                    report(&peer, error, remedy);
                }
            });
            let stream = connected?.into_inner();
            let Some((cluster, expected)) = security else {
                return Ok(Connection::in_the_clear(stream));
            };
            let secured = cluster.connect(stream, peer.host().unwrap_or_default(), expected);
            let secured = secured.await;
            let (stream, proof) = secured.map_err(|error| disbelief.note(&peer, error))?;
            Ok(Connection {
                stream: TokioIo::new(stream),
                fresh: Some((peer, disbelief)),
                proof: Some((proof, Instant::now() + PROVEN_FOR)),
            })
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

fn report(peer: &Uri, error: &(dyn StdError + 'static), remedy: &str) {
    static REPORTED: Mutex<Option<BootTime>> = Mutex::new(None);
    let now = BootTime::now();
    let mut reported = REPORTED.lock().unwrap_or_else(PoisonError::into_inner);
    if reported.is_none_or(|at| now.since(at) >= REPORT_PAUSE) {
        *reported = Some(now);
        tracing::error!(%peer, error, remedy, "cannot connect, and not for the want of an answer");
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
        let mut connector = Connector::new(Security::NONE);
        let connection = connector.call(url(&listener)).await.unwrap();
        let Either::Left(stream) = connection.stream.inner() else {
            panic!("nothing encrypts it");
        };
        let socket = SockRef::from(stream);
        #[cfg(target_os = "linux")]
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(UNACKNOWLEDGED_MAX));
        assert!(socket.tcp_nodelay().unwrap());
    }

    #[tokio::test]
    async fn what_this_machine_lacks_is_told_from_what_the_peer_does() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let peer = url(&listener);
        let mut from_nowhere = Connector::new(Security::NONE).tcp;
        // For documentation only (RFC 5737): no machine has it, so no port of it is free.
        from_nowhere.set_local_address(Some(Ipv4Addr::new(192, 0, 2, 1).into()));
        let error = from_nowhere.call(peer.clone()).await.unwrap_err();
        assert!(lacking(&error).unwrap().contains("no port is free"));
        drop(listener);
        let error = Connector::new(Security::NONE)
            .tcp
            .call(peer)
            .await
            .unwrap_err();
        assert_eq!(lacking(&error), None, "the peer refuses it");
    }
}
