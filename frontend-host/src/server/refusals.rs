//! Why a head is refused that hyper cannot read.
//!
//! No request comes of such a head, so hyper answers it by itself: a status, no body, and the end of
//! the connection. It has no hook for that. But what it writes then is always the same but for the
//! date, it begins where all before it was flushed, as every head does, and it is the last thing
//! on a connection. Here it gets the body that all errors have, and the headers that the policy adds to
//! every reply, whatever was asked; and where the target alone has no end within a head's bounds, the
//! status that says so.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use frontend_policy::Versions;
use http::{HeaderMap, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::handler::{Refusal as Refused, error_body};

/// What the answer to every such head begins with.
const BEGIN: &[u8] = b"HTTP/1.1 4";

/// A client's socket on which refusals have bodies.
pub(super) struct Refusals<S> {
    socket: S,
    /// Whose headers every reply has.
    policy: Option<Arc<Versions>>,
    /// What came in since the last answer.
    asked: Asked,
    /// All that was written has gone out: what is written next is the head of an answer.
    is_flushed: bool,
    refusal: Option<Refusal>,
}

/// The beginning of what a client has sent, as far as it tells how to refuse it.
#[derive(Debug, Default)]
struct Asked {
    has_begun: bool,
    /// It wants no body.
    is_head: bool,
    /// There is all of the target.
    has_line: bool,
}

/// An answer in the place of hyper's, as far as it is still to be written.
struct Refusal {
    bytes: Vec<u8>,
    written: usize,
}

impl<S> Refusals<S> {
    pub(super) fn new(socket: S, policy: Option<Arc<Versions>>) -> Self {
        Self {
            socket,
            policy,
            asked: Asked::default(),
            is_flushed: true,
            refusal: None,
        }
    }
}

impl Asked {
    fn note(&mut self, bytes: &[u8]) {
        if !self.has_begun {
            self.is_head = bytes.starts_with(b"HEAD ");
            self.has_begun = !bytes.is_empty();
        }
        // The end of the line is near the beginning of almost everything that comes.
        self.has_line = self.has_line || bytes.contains(&b'\n');
    }

    /// What is to be written in the place of what hyper would.
    fn refusal(&self, written: &[u8], policy: Option<&Versions>) -> Option<Refusal> {
        let date = date_of_refusal(written)?;
        let status = StatusCode::from_bytes(written.get(9..12)?).ok()?;
        let refused = match status {
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE if !self.has_line => Refused::TargetTooLong,
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => Refused::HeadTooLarge,
            status => Refused::UnreadableHead(status),
        };
        let status = refused.status();
        let body = error_body(status, &refused.to_string());
        let mut bytes = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncache-control: no-store\r\n\
             content-length: {}\r\nconnection: close\r\ndate: {date}\r\n",
            body.len()
        )
        .into_bytes();
        let mut added = HeaderMap::new();
        if let Some(policy) = policy {
            policy.add_headers_to_unread(&mut added);
        }
        for (name, value) in &added {
            bytes.extend_from_slice(name.as_str().as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value.as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"\r\n");
        if !self.is_head {
            bytes.extend_from_slice(&body);
        }
        Some(Refusal { bytes, written: 0 })
    }
}

/// The date in what hyper writes; none where anything is in it that hyper does not write. The
/// gateway's own errors say at least whether they may be kept.
fn date_of_refusal(written: &[u8]) -> Option<&str> {
    let head = str::from_utf8(written).ok()?.strip_suffix("\r\n\r\n")?;
    let mut date = None;
    for header in head.split("\r\n").skip(1) {
        match header.split_once(": ")? {
            ("date", value) => date = Some(value),
            ("connection", "close") | ("content-length", "0") => {}
            _ => return None,
        }
    }
    date
}

impl<S: AsyncWrite + Unpin> Refusals<S> {
    /// Takes note of what is to be written, and whether that is something else.
    fn is_refusal(&mut self, slices: &[IoSlice<'_>]) -> bool {
        let is_head = std::mem::replace(&mut self.is_flushed, false);
        let asked = std::mem::take(&mut self.asked);
        // Almost nothing is an error, and that is all it takes to know.
        if let [first] = slices
            && is_head
            && first.starts_with(BEGIN)
        {
            self.refusal = asked.refusal(first, self.policy.as_deref());
        }
        self.refusal.is_some()
    }

    fn poll_write_refusal(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(refusal) = &mut self.refusal
            && refusal.written < refusal.bytes.len()
        {
            let rest = &refusal.bytes[refusal.written..];
            match ready!(Pin::new(&mut self.socket).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => refusal.written += written,
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Refusals<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.socket).poll_read(cx, buffer))?;
        if !self.asked.has_line {
            self.asked.note(&buffer.filled()[before..]);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Refusals<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.refusal.is_some() {
            // Nothing follows a refusal.
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if self.is_refusal(slices) {
            // It goes out when this is flushed.
            return Poll::Ready(Ok(slices[0].len()));
        }
        Pin::new(&mut self.socket).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write_refusal(cx))?;
        ready!(Pin::new(&mut self.socket).poll_flush(cx))?;
        self.is_flushed = true;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write_refusal(cx))?;
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
