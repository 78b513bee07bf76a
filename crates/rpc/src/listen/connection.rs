//! One connection, and when it has to end.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use socket2::SockRef;
use tls::{PROVEN_FOR, Principal, Proof, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep, sleep};
use tonic::transport::server::Connected;
use tonic::{Request, Status};

use super::{Budgets, Limits, Shared};
use crate::budget::{Exhausted, Share};
use crate::clients::{Client, Connected as OfClient};

/// What every client of HTTP/2 begins with (RFC 9113, section 3.4).
pub(super) const PREFACE_BYTES: usize = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len();

/// A connection checks so often whether it has to end, as a part of the shortest wait there is.
const LOOKS: u32 = 4;

/// How long a connection may be idle while no place is left for another.
const SCARCE_TIME_MAX: Duration = Duration::from_secs(1);

/// One of the connections that may be open at a time.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    /// Until it is complete.
    opening: Option<Opening>,
    next_check: Pin<Box<Sleep>>,
    /// When it is asked next whether its peer is still believed.
    prove_again_at: Instant,
    peer: Peer,
    _place: (OwnedSemaphorePermit, OfClient<Budgets>),
}

/// How far a client has opened its connection.
#[derive(Debug)]
struct Opening {
    bytes: usize,
    deadline: Instant,
}

impl Connection {
    pub(super) fn new(
        stream: Stream,
        peer: Peer,
        place: (OwnedSemaphorePermit, OfClient<Budgets>),
    ) -> Self {
        let limits = *peer.limits();
        Self {
            stream,
            opening: Some(Opening {
                bytes: 0,
                deadline: Instant::now() + limits.opening_max,
            }),
            next_check: Box::pin(sleep(check_interval(&limits))),
            prove_again_at: Instant::now() + PROVEN_FOR,
            peer,
            _place: place,
        }
    }

    /// Ends it where its peer takes too long. To be asked whenever it is read or written, since
    /// either may be what waits.
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        while self.next_check.as_mut().poll(context).is_ready() {
            let now = Instant::now();
            let opening = self.opening.as_ref();
            if opening.is_some_and(|opening| now >= opening.deadline) || self.peer.is_overdue(now) {
                return Err(io::ErrorKind::TimedOut.into());
            }
            if now >= self.prove_again_at {
                self.prove_again_at = now + PROVEN_FOR;
                if !self.peer.is_believed() {
                    tracing::warn!(
                        client = %self.peer,
                        "a connection ends: its client's certificate has expired, or its authority is believed no more"
                    );
                    return Err(io::ErrorKind::PermissionDenied.into());
                }
            }
            let next = now + check_interval(self.peer.limits());
            self.next_check.as_mut().reset(next);
        }
        Ok(())
    }
}

/// Sets a socket up before anything comes over it.
pub(super) fn prepare(stream: &TcpStream, limits: &Limits) -> io::Result<()> {
    // Small messages must not wait for an acknowledgement.
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_tcp_user_timeout(Some(limits.taking_max))
}

fn check_interval(limits: &Limits) -> Duration {
    let shortest = limits
        .opening_max
        .min(limits.idle_max)
        .min(limits.taking_max);
    shortest.min(SCARCE_TIME_MAX) / LOOKS
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if let Some(opening) = &mut self.opening {
            let came = buffer.filled().len() - before;
            opening.bytes += came;
            if opening.bytes >= PREFACE_BYTES || (read.is_ready() && came == 0) {
                self.opening = None; // complete, or there will be no more
            }
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.peer.clone()
    }
}

/// The other end of a connection, as each of its calls knows it.
#[derive(Debug, Clone)]
pub struct Peer {
    shared: Arc<Shared>,
    address: IpAddr,
    client: Client,
    /// Where that is asked for.
    proof: Option<Proof>,
    budgets: Budgets,
    doing: Arc<Mutex<Doing>>,
}

/// Who it has proven to be, where that is asked for, and its address: `spiffe://bazaar/gateway/edge-2 at 192.0.2.7`.
impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(principal) = self.principal() {
            write!(f, "{principal} at ")?;
        }
        write!(f, "{}", self.address)
    }
}

/// What a peer does.
#[derive(Debug)]
struct Doing {
    /// Calls but for those that wait for it, and messages that are arriving.
    under_way: usize,
    /// While nothing is.
    idle_since: Instant,
    /// When each chunk of an answer was let go that has not gone out yet. Their numbers rise.
    leaving: BTreeMap<u64, Instant>,
    last_chunk: u64,
    /// The log says that it called what it may not.
    is_denied: bool,
}

impl Peer {
    pub(super) fn new(
        shared: &Arc<Shared>,
        address: IpAddr,
        client: Client,
        budgets: Budgets,
    ) -> Self {
        Self {
            shared: Arc::clone(shared),
            address,
            client,
            proof: None,
            budgets,
            doing: Arc::new(Mutex::new(Doing {
                under_way: 0,
                idle_since: Instant::now(),
                leaving: BTreeMap::new(),
                last_chunk: 0,
                is_denied: false,
            })),
        }
    }

    /// The same, who has proven to be that. All its connections from one network are one client's.
    pub(super) fn proven(self, proof: Proof, network: IpAddr) -> Self {
        Self {
            client: Client::Service(proof.principal().clone(), network),
            proof: Some(proof),
            ..self
        }
    }

    /// A place for its connection, once there is one.
    pub(super) async fn place(&self) -> OwnedSemaphorePermit {
        let place = Arc::clone(&self.shared.places).acquire_owned().await;
        place.expect("never closed")
    }

    /// Whether it is still believed, where that is asked for.
    fn is_believed(&self) -> bool {
        self.proof.as_ref().is_none_or(Proof::holds)
    }

    /// Whose connection it is.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Who has proven to be there, where that is asked for.
    pub fn principal(&self) -> Option<&Principal> {
        self.proof.as_ref().map(Proof::principal)
    }

    /// It called what it may not. The log says so once for each connection.
    pub(super) fn note_denied(&self, denied: &Status) {
        if !std::mem::replace(&mut self.doing().is_denied, true) {
            tracing::warn!(
                client = %self,
                why = denied.message(),
                "a call was refused, and others of the connection may be"
            );
        }
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    /// Something has begun, and lasts for as long as what this returns.
    pub(super) fn begin(&self) -> UnderWay {
        self.doing().begin();
        UnderWay { peer: self.clone() }
    }

    /// A share, without bytes, of what may be held of requests.
    pub(super) fn received(&self) -> Share {
        self.budgets.received.share()
    }

    /// The bytes of a part of an answer, which count until they are gone.
    pub(super) fn unsent(&self, bytes: usize) -> Result<Share, Exhausted> {
        let mut share = self.budgets.unsent.share();
        share.grow(bytes).map(|()| share)
    }

    /// A chunk that is let go now, and is to go out within bounds of time.
    pub(super) fn leaving(&self, bytes: Bytes, share: Share) -> Bytes {
        let mut doing = self.doing();
        doing.last_chunk += 1;
        let number = doing.last_chunk;
        doing.leaving.insert(number, Instant::now());
        drop(doing);
        Bytes::from_owner(Chunk {
            bytes,
            number,
            peer: self.clone(),
            _share: share,
        })
    }

    fn is_overdue(&self, now: Instant) -> bool {
        let limits = &self.shared.limits;
        let doing = self.doing();
        let longer = |since: Instant, longest| now.saturating_duration_since(since) > longest;
        if let Some((_, let_go)) = doing.leaving.first_key_value() {
            return longer(*let_go, limits.taking_max);
        }
        let idle_max = if self.shared.places.available_permits() == 0 {
            limits.idle_max.min(SCARCE_TIME_MAX)
        } else {
            limits.idle_max
        };
        doing.under_way == 0 && longer(doing.idle_since, idle_max)
    }

    fn doing(&self) -> MutexGuard<'_, Doing> {
        self.doing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Doing {
    fn begin(&mut self) {
        self.under_way += 1;
    }

    fn end(&mut self) {
        self.under_way -= 1;
        self.idle_since = Instant::now();
    }
}

/// Something that a peer does: while there is any, its connection is not idle.
#[derive(Debug)]
pub(super) struct UnderWay {
    peer: Peer,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.peer.doing().end();
    }
}

impl UnderWay {
    /// Whose it is.
    pub(super) fn peer(&self) -> &Peer {
        &self.peer
    }
}

/// How a request brings along that it is under way.
#[derive(Debug, Clone)]
pub(super) struct Brought(pub(super) Arc<UnderWay>);

/// A call, as its handler knows it: it is under way until this is dropped, and its answer
/// has been let go.
#[derive(Debug)]
pub struct CallUnderWay(Arc<UnderWay>);

impl CallUnderWay {
    /// Takes it out of the request that it begins with; none where that did not come through
    /// [`Incoming`](super::Incoming).
    pub fn of<T>(request: &mut Request<T>) -> Option<Self> {
        let brought = request.extensions_mut().remove::<Brought>();
        brought.map(|Brought(call)| Self(call))
    }

    /// The call waits for its peer: meanwhile it does not keep its connection from being idle.
    pub fn pause(self) -> Waiting {
        self.0.peer.doing().end();
        Waiting(self.0)
    }
}

/// A call that waits for its peer. When this is dropped it no longer does.
#[derive(Debug)]
pub struct Waiting(Arc<UnderWay>);

impl Waiting {
    /// The peer has sent what was waited for.
    pub fn resume(self) -> CallUnderWay {
        CallUnderWay(Arc::clone(&self.0))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // Before the call itself may end.
        self.0.peer.doing().begin();
    }
}

/// A chunk of an answer.
struct Chunk {
    bytes: Bytes,
    number: u64,
    peer: Peer,
    _share: Share,
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        self.peer.doing().leaving.remove(&self.number);
    }
}
