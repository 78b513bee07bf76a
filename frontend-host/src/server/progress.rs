//! How far a connection has got, so that one that takes too long is cut off.
//!
//! hyper's own timeout for a request's head arms a timer for every request. Here a request costs
//! two stores: each connection notes what it waits for and since when, by a clock of its worker
//! that is read rather than asked, and looks at the note now and then.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Version;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::config::{IDLE_TIME_MAX, SEND_TIME_MAX};

/// How exact [`Clock`] is.
pub(super) const TICK: Duration = Duration::from_millis(250);

/// How often a connection looks whether it is overdue. What is overdue lasts longer by this and
/// a tick at most.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// A worker's clock, in ticks since the worker began.
#[derive(Debug, Default)]
pub(super) struct Clock(AtomicU64);

impl Clock {
    /// Lets it go, for ever.
    pub(super) async fn run(&self) {
        let mut ticks = tokio::time::interval(TICK);
        // Time during which the worker was held up has passed as well.
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
        loop {
            ticks.tick().await;
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn ticks(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Awaited {
    /// The rest of a request's head, or the first request.
    Head,
    /// An answer.
    Answer,
    /// Another request.
    Request,
    /// Nothing that is watched here: HTTP/2 has pings of its own.
    Pings,
}

/// One connection's note: what it waits for, and since when. Only one task writes it.
#[derive(Debug)]
pub(super) struct Progress {
    clock: Arc<Clock>,
    /// The kind of wait in the lowest two bits, the clock's ticks above them.
    note: AtomicU64,
}

impl Progress {
    /// Of a connection that has just begun.
    pub(super) fn begin(clock: Arc<Clock>) -> Self {
        let progress = Self {
            clock,
            note: AtomicU64::default(),
        };
        progress.await_from_now(Awaited::Head);
        progress
    }

    fn await_from_now(&self, awaited: Awaited) {
        let note = self.clock.ticks() << 2 | awaited as u64;
        self.note.store(note, Ordering::Relaxed);
    }

    fn note(&self) -> (Awaited, u64) {
        let note = self.note.load(Ordering::Relaxed);
        let awaited = match note & 3 {
            0 => Awaited::Head,
            1 => Awaited::Answer,
            2 => Awaited::Request,
            _ => Awaited::Pings,
        };
        (awaited, note >> 2)
    }

    /// Bytes came in.
    fn received(&self) {
        if self.note().0 == Awaited::Request {
            self.await_from_now(Awaited::Head);
        }
    }

    /// A request's head is complete.
    pub(super) fn asked(&self, version: Version) {
        self.await_from_now(if version >= Version::HTTP_2 {
            Awaited::Pings
        } else {
            Awaited::Answer
        });
    }

    /// The answer is ready.
    pub(super) fn answered(&self) {
        if self.note().0 == Awaited::Answer {
            self.await_from_now(Awaited::Request);
        }
    }

    /// Whether it has waited too long.
    pub(super) fn is_overdue(&self) -> bool {
        let (awaited, since) = self.note();
        let longest = match awaited {
            Awaited::Head => SEND_TIME_MAX,
            Awaited::Request => IDLE_TIME_MAX,
            Awaited::Answer | Awaited::Pings => return false,
        };
        let waited = self.clock.ticks().saturating_sub(since);
        u128::from(waited) * TICK.as_millis() > longest.as_millis()
    }
}

/// A stream that notes when bytes come in.
pub(super) struct Noting {
    stream: TokioIo<TcpStream>,
    progress: Arc<Progress>,
}

impl Noting {
    pub(super) fn new(stream: TcpStream, progress: Arc<Progress>) -> Self {
        Self {
            stream: TokioIo::new(stream),
            progress,
        }
    }
}

impl Read for Noting {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if read.is_ready() {
            self.progress.received();
        }
        read
    }
}

impl Write for Noting {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(time: Duration, progress: &Progress) -> bool {
        let ticks = time.as_millis() / TICK.as_millis() + 1;
        let before = progress.clock.0.fetch_add(ticks as u64, Ordering::Relaxed);
        let overdue = progress.is_overdue();
        progress.clock.0.store(before, Ordering::Relaxed);
        overdue
    }

    #[test]
    fn a_head_has_less_time_than_a_pause_between_requests() {
        let progress = Progress::begin(Arc::default());
        assert!(!progress.is_overdue());
        assert!(after(SEND_TIME_MAX, &progress), "nothing came at all");
        progress.received();
        assert!(after(SEND_TIME_MAX, &progress), "a byte buys no time");
        progress.asked(Version::HTTP_11);
        progress.received();
        assert!(!after(IDLE_TIME_MAX * 2, &progress), "backends take theirs");
        progress.answered();
        assert!(!after(SEND_TIME_MAX, &progress), "kept alive");
        assert!(after(IDLE_TIME_MAX, &progress), "but not for ever");
        progress.received();
        assert!(after(SEND_TIME_MAX, &progress), "the next request's head");
    }

    #[test]
    fn http_2_is_left_to_its_pings() {
        let progress = Progress::begin(Arc::default());
        progress.asked(Version::HTTP_2);
        progress.received();
        progress.answered();
        assert!(!after(IDLE_TIME_MAX * 2, &progress));
    }
}
