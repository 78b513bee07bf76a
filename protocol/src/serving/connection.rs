//! One connection, and when it has to end.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep, sleep};
use tonic::transport::server::Connected;

use super::{Limits, Shared};
use crate::budget::{Budget, Exhausted, Share};

/// What every client of HTTP/2 begins with (RFC 9113, section 3.4).
pub(super) const PREFACE_BYTES: usize = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len();

/// A connection looks so often whether it has to end, as a part of the shortest wait there is.
const LOOKS: u32 = 4;

/// How long a connection may be idle while no place is left for another.
const SCARCE_TIME_MAX: Duration = Duration::from_secs(1);

/// Part of a budget that one connection may hold.
const CONNECTION_PART: usize = 4;

/// One of the connections that may be open at a time.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    /// Until it is complete.
    opening: Option<Opening>,
    look: Pin<Box<Sleep>>,
    peer: Peer,
    _place: OwnedSemaphorePermit,
}

/// How far a client has opened its connection.
#[derive(Debug)]
struct Opening {
    bytes: usize,
    deadline: Instant,
}

impl Connection {
    pub(super) fn new(
        stream: TcpStream,
        shared: &Arc<Shared>,
        place: OwnedSemaphorePermit,
    ) -> io::Result<Self> {
        let limits = shared.limits;
        // Small messages must not wait for an acknowledgement.
        stream.set_nodelay(true)?;
        SockRef::from(&stream).set_tcp_user_timeout(Some(limits.taking_max))?;
        Ok(Self {
            stream,
            opening: Some(Opening {
                bytes: 0,
                deadline: Instant::now() + limits.opening_max,
            }),
            look: Box::pin(sleep(look_interval(&limits))),
            peer: Peer::new(shared),
            _place: place,
        })
    }

    /// Ends it where its peer takes too long. To be asked whenever it is read or written, since
    /// either may be what waits.
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        while self.look.as_mut().poll(context).is_ready() {
            let now = Instant::now();
            let opening = self.opening.as_ref();
            if opening.is_some_and(|opening| now >= opening.deadline) || self.peer.is_overdue(now) {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let next = now + look_interval(&self.peer.shared.limits);
            self.look.as_mut().reset(next);
        }
        Ok(())
    }
}

fn look_interval(limits: &Limits) -> Duration {
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
    received: Arc<Budget>,
    unsent: Arc<Budget>,
    doing: Arc<Mutex<Doing>>,
}

/// What a peer does.
#[derive(Debug)]
struct Doing {
    calls: usize,
    /// While there are no calls.
    idle_since: Instant,
    /// When each chunk of an answer was let go that has not gone out yet. Their numbers rise.
    leaving: BTreeMap<u64, Instant>,
    last_chunk: u64,
}

impl Peer {
    fn new(shared: &Arc<Shared>) -> Self {
        let limits = &shared.limits;
        Self {
            received: shared
                .received
                .part(limits.received_bytes_max / CONNECTION_PART),
            unsent: shared
                .unsent
                .part(limits.unsent_bytes_max / CONNECTION_PART),
            shared: Arc::clone(shared),
            doing: Arc::new(Mutex::new(Doing {
                calls: 0,
                idle_since: Instant::now(),
                leaving: BTreeMap::new(),
                last_chunk: 0,
            })),
        }
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    /// A call has come, and lasts for as long as what this returns.
    pub(super) fn begin_call(&self) -> CallUnderWay {
        self.doing().calls += 1;
        CallUnderWay { peer: self.clone() }
    }

    /// A share, without bytes, of what may be held of requests.
    pub(super) fn received(&self) -> Share {
        self.received.share()
    }

    /// The bytes of a part of an answer, which count until they are gone.
    pub(super) fn unsent(&self, bytes: usize) -> Result<Share, Exhausted> {
        let mut share = self.unsent.share();
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
        doing.calls == 0 && longer(doing.idle_since, idle_max)
    }

    fn doing(&self) -> MutexGuard<'_, Doing> {
        self.doing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call, from its head until its answer has been let go.
#[derive(Debug)]
pub(super) struct CallUnderWay {
    peer: Peer,
}

impl CallUnderWay {
    /// Whose it is.
    pub(super) fn peer(&self) -> &Peer {
        &self.peer
    }
}

impl Drop for CallUnderWay {
    fn drop(&mut self) {
        let mut doing = self.peer.doing();
        doing.calls -= 1;
        doing.idle_since = Instant::now();
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
