//! A client's socket, which goes with its connection from one worker to another.

use std::io;
use std::net::TcpStream as StdTcpStream;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::progress::Progress;

/// Notes when bytes come in and how many go out. A runtime wakes only its own tasks for a socket, so a socket is
/// registered anew where it is first used after its connection moved.
pub(super) struct Socket {
    stream: Stream,
    progress: Arc<Progress>,
}

enum Stream {
    /// With no runtime yet; `None` for good once registering has failed.
    Unregistered(Option<StdTcpStream>),
    Registered(TokioIo<TcpStream>),
}

impl Socket {
    /// Of a stream that does not block.
    pub(super) fn new(stream: StdTcpStream, progress: Arc<Progress>) -> Self {
        Self {
            stream: Stream::Unregistered(Some(stream)),
            progress,
        }
    }

    /// The stream, registered with the runtime of the worker that this is called on.
    fn here(&mut self) -> io::Result<Pin<&mut TokioIo<TcpStream>>> {
        if self.progress.take_moved() {
            let free = Stream::Unregistered(None);
            let stream = match std::mem::replace(&mut self.stream, free) {
                Stream::Unregistered(stream) => stream,
                Stream::Registered(stream) => Some(stream.into_inner().into_std()?),
            };
            self.stream = Stream::Unregistered(stream);
        }
        if let Stream::Unregistered(stream) = &mut self.stream {
            let stream = stream.take().ok_or(io::ErrorKind::NotConnected)?;
            self.stream = Stream::Registered(TokioIo::new(TcpStream::from_std(stream)?));
        }
        match &mut self.stream {
            Stream::Registered(stream) => Ok(Pin::new(stream)),
            Stream::Unregistered(_) => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    fn note_sent(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = &written {
            self.progress.sent(*bytes);
        }
        written
    }
}

impl Read for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let read = self.here()?.poll_read(cx, buffer);
        if read.is_ready() {
            self.progress.received();
        }
        read
    }
}

impl Write for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = self.here()?.poll_write(cx, bytes);
        self.note_sent(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = self.here()?.poll_write_vectored(cx, slices);
        self.note_sent(written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.here()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.here()?.poll_shutdown(cx)
    }
}
