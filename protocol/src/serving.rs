//! How every service takes connections: so many at a time, each with so many calls.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use daemon::tasks::{self, Task};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Sleep, sleep};
use tokio_stream::Stream;
use tonic::transport::Server;
use tonic::transport::server::{Connected, TcpConnectInfo};

/// Most calls at a time on one connection.
const STREAMS_MAX: u32 = 1024;

/// How often a connection is probed, and how long the answer may take. Finds peers that are
/// gone without a word.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a peer may take nothing of what is sent to it.
const SEND_TIME_MAX: Duration = Duration::from_secs(10);

/// What every client of HTTP/2 begins with (RFC 9113, section 3.4).
const PREFACE_BYTES: usize = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len();

/// Pause after accepting failed, as it does when file descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A server with the limits of every service.
pub fn server() -> Server {
    Server::builder()
        .max_concurrent_streams(STREAMS_MAX)
        .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
}

/// What is let in.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most connections at a time; more wait with the kernel until others end.
    pub connections_max: usize,
    /// Longest wait for the opening of HTTP/2; a connection is not probed before it is complete.
    pub opening_max: Duration,
}

impl Default for Limits {
    /// 1,024 connections, 5 s.
    fn default() -> Self {
        Self {
            connections_max: 1024,
            opening_max: Duration::from_secs(5),
        }
    }
}

/// The connections that come in. Dropping it ends the taking in.
#[derive(Debug)]
pub struct Incoming {
    accepted: mpsc::Receiver<Connection>,
    _accepting: Task<()>,
}

impl Incoming {
    /// Accepts within limits.
    pub fn new(listener: TcpListener, limits: Limits) -> Self {
        let (sender, accepted) = mpsc::channel(1);
        Self {
            accepted,
            _accepting: tasks::spawn("accept", accept(listener, limits, sender)),
        }
    }
}

impl From<TcpListener> for Incoming {
    /// Accepts within the limits of every service.
    fn from(listener: TcpListener) -> Self {
        Self::new(listener, Limits::default())
    }
}

impl Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.accepted
            .poll_recv(context)
            .map(|accepted| accepted.map(Ok))
    }
}

async fn accept(listener: TcpListener, limits: Limits, accepted: mpsc::Sender<Connection>) {
    let places = Arc::new(Semaphore::new(limits.connections_max));
    loop {
        let place = Arc::clone(&places).acquire_owned().await;
        let place = place.expect("never closed");
        let stream = listener.accept().await;
        let connection = stream.and_then(|(stream, _)| {
            // Small messages must not wait for an acknowledgement.
            stream.set_nodelay(true)?;
            SockRef::from(&stream).set_tcp_user_timeout(Some(SEND_TIME_MAX))?;
            Ok(Connection {
                stream,
                opening: Some(Opening {
                    bytes: 0,
                    deadline: Box::pin(sleep(limits.opening_max)),
                }),
                _place: place,
            })
        });
        match connection {
            Ok(connection) => {
                if accepted.send(connection).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One of the connections that may be open at a time.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    /// Until it is complete.
    opening: Option<Opening>,
    _place: OwnedSemaphorePermit,
}

/// How far a client has opened its connection.
#[derive(Debug)]
struct Opening {
    bytes: usize,
    deadline: Pin<Box<Sleep>>,
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let Some(opening) = &mut self.opening else {
            return read;
        };
        let came = buffer.filled().len() - before;
        opening.bytes += came;
        if opening.bytes >= PREFACE_BYTES || (read.is_ready() && came == 0) {
            self.opening = None; // complete, or there will be no more
        } else if opening.deadline.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
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
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
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
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.stream.connect_info()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio_stream::StreamExt as _;

    use super::*;

    /// Far more than any of these needs.
    const LONG: Duration = Duration::from_secs(60);

    async fn incoming(connections_max: usize, opening_max: Duration) -> (Incoming, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let limits = Limits {
            connections_max,
            opening_max,
        };
        let client = client.await.unwrap();
        (Incoming::new(listener, limits), client)
    }

    #[tokio::test]
    async fn a_connection_too_many_waits_until_another_ends() {
        let (mut incoming, client) = incoming(1, LONG).await;
        let first = incoming.next().await.unwrap().unwrap();
        let mut second = TcpStream::connect(client.peer_addr().unwrap())
            .await
            .unwrap();
        second.write_all(b"hello").await.unwrap();
        // Long enough for whoever would take it in, on any machine that runs at all.
        let early = tokio::time::timeout(Duration::from_millis(100), incoming.next());
        assert!(early.await.is_err(), "there is no place");
        drop(first);
        let mut taken = incoming.next().await.unwrap().unwrap();
        let mut bytes = [0; 5];
        taken.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"hello");
    }

    #[tokio::test]
    async fn who_does_not_open_its_connection_is_cut_off_and_who_did_is_not() {
        let opening_max = Duration::from_millis(200);
        let (mut incoming, mut slow) = incoming(2, opening_max).await;
        slow.write_all(b"PRI").await.unwrap();
        let mut connection = incoming.next().await.unwrap().unwrap();
        let mut bytes = [0; PREFACE_BYTES];
        let cut_off = connection.read_exact(&mut bytes).await.unwrap_err();
        assert_eq!(cut_off.kind(), io::ErrorKind::TimedOut);

        let address = slow.peer_addr().unwrap();
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(&bytes).await.unwrap();
        let mut connection = incoming.next().await.unwrap().unwrap();
        connection.read_exact(&mut bytes).await.unwrap();
        let waits = tokio::time::timeout(2 * opening_max, connection.read_u8());
        assert!(waits.await.is_err(), "it may be idle from now on");
    }
}
