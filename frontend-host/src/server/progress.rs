//! How far a connection has got, so that one that takes too long is cut off.
//!
//! hyper's own timeout for a request's head arms a timer for every request. Here a request costs
//! a few stores: each connection notes what it waits for and since when, by a clock of its worker
//! that is read rather than asked, and looks at the note now and then.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::leaving::{Leaving, Moment};
use super::slot::{TICK_MS, WorkerSlot};
use super::streams::Stream;
use crate::config::Bounds;

/// How often a connection looks whether it is overdue. What is overdue lasts longer by this and
/// a tick at most.
pub(super) const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// What a connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Awaited {
    /// The rest of a request's head, or the first request.
    Head,
    /// An answer. Over HTTP/2, one at least, or that its client takes it: see [`Leaving`].
    Answer,
    /// Another request, over HTTP/1.
    Request,
    /// That its client takes more of a large answer, over HTTP/1.
    Room,
    /// Another request, over HTTP/2. Pings are none.
    Stream,
}

/// How many bits of a note tell what is awaited.
const AWAITED_BITS: u32 = 3;

/// One connection's note: what it waits for, and since when. Only those who serve it write it: its
/// task and those of its streams, for clients all on one thread.
pub(super) struct Progress {
    /// Whose clock it goes by.
    slot: WorkerSlot,
    /// The kind of wait in the lowest bits, the clock's ticks above them.
    note: AtomicU64,
    /// Requests over HTTP/2 of which not all is done, the last byte of the answer among it.
    streams: AtomicU32,
    /// How many there ever were.
    streams_begun: AtomicU64,
    /// What is on its way of their answers.
    leaving: Mutex<Leaving<Stream>>,
    /// What the client's socket has taken, in bytes.
    sent_bytes: AtomicU64,
}

impl Progress {
    /// Of a connection that has just begun.
    pub(super) fn begin(slot: WorkerSlot) -> Self {
        let progress = Self {
            slot,
            note: AtomicU64::default(),
            streams: AtomicU32::default(),
            streams_begun: AtomicU64::default(),
            leaving: Mutex::default(),
            sent_bytes: AtomicU64::default(),
        };
        progress.await_from_now(Awaited::Head);
        progress
    }

    fn ticks(&self) -> u64 {
        self.slot.stats().ticks()
    }

    fn await_from_now(&self, awaited: Awaited) {
        self.set_note(awaited, self.ticks());
    }

    fn set_note(&self, awaited: Awaited, since: u64) {
        self.note
            .store(since << AWAITED_BITS | awaited as u64, Ordering::Relaxed);
    }

    fn note(&self) -> (Awaited, u64) {
        let note = self.note.load(Ordering::Relaxed);
        let awaited = match note & ((1 << AWAITED_BITS) - 1) {
            0 => Awaited::Head,
            1 => Awaited::Answer,
            2 => Awaited::Request,
            3 => Awaited::Room,
            _ => Awaited::Stream,
        };
        (awaited, note >> AWAITED_BITS)
    }

    pub(super) fn on_bytes_received(&self) {
        if self.note().0 == Awaited::Request {
            self.await_from_now(Awaited::Head);
        }
    }

    /// A request's head is complete, over HTTP/1.
    pub(super) fn on_request(&self) {
        self.await_from_now(Awaited::Answer);
    }

    /// The answer to it will be ready before the rest of it has come, over HTTP/1. That has the time
    /// that a head has, and the next request's head with it.
    pub(super) fn on_refusal(&self) {
        self.await_from_now(Awaited::Head);
    }

    /// The answer to it is ready.
    pub(super) fn on_response(&self) {
        if self.note().0 == Awaited::Answer {
            self.await_from_now(Awaited::Request);
        }
    }

    /// The same, where that is so much that the client may not take it at once.
    pub(super) fn on_long_response(&self) {
        self.await_from_now(Awaited::Room);
    }

    /// The client made room for some more of it.
    pub(super) fn on_chunk_taken(&self) {
        if self.note().0 == Awaited::Room {
            self.await_from_now(Awaited::Room);
        }
    }

    /// A large answer over HTTP/1 is gone.
    pub(super) fn on_sent_all(&self) {
        if self.note().0 == Awaited::Room {
            self.await_from_now(Awaited::Request);
        }
    }

    /// An event is released, over HTTP/1: it is to be taken like a part of a large answer.
    pub(super) fn on_event(&self) {
        self.await_from_now(Awaited::Room);
    }

    /// There was room for all events so far. How long it takes to the next is nobody's fault.
    pub(super) fn on_events_taken(&self) {
        if self.note().0 == Awaited::Room {
            self.await_from_now(Awaited::Answer);
        }
    }

    pub(super) fn on_bytes_sent(&self, bytes: usize) {
        // Not an addition in one: only its own task does this, and that is dear.
        let sent_bytes = self.sent_bytes.load(Ordering::Relaxed) + bytes as u64;
        self.sent_bytes.store(sent_bytes, Ordering::Relaxed);
    }

    /// A request has come over HTTP/2; returns its number.
    pub(super) fn on_stream_begin(&self) -> u64 {
        self.streams.fetch_add(1, Ordering::Relaxed);
        self.await_from_now(Awaited::Answer);
        self.streams_begun.fetch_add(1, Ordering::Relaxed)
    }

    /// A chunk of the answer to one is let go, by the stream that is polled.
    pub(super) fn on_chunk_release(&self, number: u64) {
        let now = self.now();
        self.leaving().release(number, now, Stream::current);
    }

    /// A chunk of it has gone out, or nobody wants it any more.
    pub(super) fn on_chunk_sent(&self, number: u64) {
        let now = self.now();
        self.leaving().note_sent(number, now);
    }

    /// An answer over HTTP/2 is gone.
    pub(super) fn on_stream_end(&self) {
        if self.streams.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.await_from_now(Awaited::Stream);
        }
    }

    fn now(&self) -> Moment {
        Moment {
            time: Duration::from_millis(self.ticks() * TICK_MS),
            sent_bytes: self.sent_bytes.load(Ordering::Relaxed),
        }
    }

    fn leaving(&self) -> MutexGuard<'_, Leaving<Stream>> {
        self.leaving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the streams whose client takes too long, where it takes no more than that.
    pub(super) fn end_overdue_streams(&self, bounds: &Bounds) {
        // Each is dropped, and its chunks with it, once this is over.
        self.leaving()
            .overdue(self.now(), bounds.receive_time_max)
            .for_each(Stream::end);
    }

    /// Whether it has waited longer than its client may take, beyond single streams that can be
    /// ended.
    pub(super) fn is_overdue(&self, bounds: &Bounds) -> bool {
        let is_stuck = self
            .leaving()
            .overdue(self.now(), bounds.receive_time_max)
            .any(|stream| !stream.is_served());
        let (awaited, since) = self.note();
        let longest = match awaited {
            Awaited::Head => bounds.send_time_max,
            // One began as the last one's end was noted, which only threads of a common runtime can do at once.
            Awaited::Stream if self.streams.load(Ordering::Relaxed) > 0 => return is_stuck,
            Awaited::Request | Awaited::Stream => bounds.idle_time_max,
            Awaited::Room => bounds.receive_time_max,
            Awaited::Answer => return is_stuck,
        };
        let waited = self.ticks().saturating_sub(since);
        is_stuck || Duration::from_millis(waited * TICK_MS) > longest
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::slot::{TICK, WorkerStats};
    use super::*;
    use crate::config::{IDLE_TIME_MAX, RECEIVE_TIME_MAX, SEND_TIME_MAX};

    /// At the first of so many workers.
    fn at_one_of(workers: usize) -> (Arc<[WorkerStats]>, Progress) {
        let workers: Arc<[WorkerStats]> = (0..workers).map(|_| WorkerStats::default()).collect();
        let progress = Progress::begin(WorkerSlot::at(&workers, 0));
        (workers, progress)
    }

    fn ticks(time: Duration) -> u64 {
        (time.as_millis() / TICK.as_millis()) as u64
    }

    /// Whether it is overdue after a time, with places for as many as may come.
    fn after(time: Duration, progress: &Progress) -> bool {
        let clock = progress.slot.stats().clock();
        let before = clock.fetch_add(ticks(time) + 1, Ordering::Relaxed);
        let overdue = progress.is_overdue(&Bounds::default());
        clock.store(before, Ordering::Relaxed);
        overdue
    }

    #[test]
    fn a_head_has_less_time_than_a_pause_between_requests() {
        let (_workers, progress) = at_one_of(1);
        assert!(!after(Duration::ZERO, &progress));
        assert!(after(SEND_TIME_MAX, &progress), "nothing came at all");
        progress.on_bytes_received();
        assert!(after(SEND_TIME_MAX, &progress), "a byte buys no time");
        progress.on_request();
        progress.on_bytes_received();
        assert!(!after(IDLE_TIME_MAX * 2, &progress), "backends take theirs");
        progress.on_response();
        assert!(!after(SEND_TIME_MAX, &progress), "kept alive");
        assert!(after(IDLE_TIME_MAX, &progress), "but not for ever");
        progress.on_bytes_received();
        assert!(after(SEND_TIME_MAX, &progress), "the next request's head");
    }

    #[test]
    fn a_large_answer_is_to_be_taken_bit_by_bit() {
        let (_workers, progress) = at_one_of(1);
        progress.on_request();
        progress.on_long_response();
        progress.on_bytes_received();
        assert!(after(RECEIVE_TIME_MAX, &progress));
        let clock = progress.slot.stats().clock();
        clock.fetch_add(ticks(RECEIVE_TIME_MAX), Ordering::Relaxed);
        progress.on_chunk_taken();
        assert!(!after(RECEIVE_TIME_MAX / 2, &progress), "some was taken");
        progress.on_sent_all();
        assert!(!after(RECEIVE_TIME_MAX, &progress));
        assert!(after(IDLE_TIME_MAX, &progress));
    }

    #[test]
    fn a_quiet_stream_of_events_has_all_time_and_one_that_is_not_taken_has_not() {
        let (_workers, progress) = at_one_of(1);
        progress.on_request();
        progress.on_event();
        assert!(after(RECEIVE_TIME_MAX, &progress), "it is not taken");
        progress.on_events_taken();
        assert!(!after(IDLE_TIME_MAX * 10, &progress), "there are no more");
        progress.on_event();
        progress.on_sent_all();
        assert!(after(IDLE_TIME_MAX, &progress), "it is over");
    }

    #[test]
    fn http_2_is_idle_while_there_is_no_stream_and_pings_change_nothing() {
        let (_workers, progress) = at_one_of(1);
        progress.on_bytes_received();
        assert!(after(SEND_TIME_MAX, &progress), "nothing was ever asked");
        let [one, other] = [(); 2].map(|()| progress.on_stream_begin());
        assert!(!after(IDLE_TIME_MAX * 2, &progress), "backends take theirs");
        progress.on_chunk_release(one);
        assert!(!after(RECEIVE_TIME_MAX / 2, &progress));
        assert!(after(RECEIVE_TIME_MAX, &progress), "it is not taken");
        progress.on_chunk_sent(one);
        progress.on_stream_end();
        assert!(!after(IDLE_TIME_MAX * 2, &progress), "the other's do, too");
        progress.on_chunk_release(other);
        assert!(after(RECEIVE_TIME_MAX, &progress), "it is not taken");
        progress.on_chunk_sent(other);
        progress.on_stream_end();
        assert!(!after(RECEIVE_TIME_MAX, &progress), "kept alive");
        let clock = progress.slot.stats().clock();
        clock.fetch_add(ticks(IDLE_TIME_MAX / 2), Ordering::Relaxed);
        progress.on_bytes_received();
        assert!(!after(IDLE_TIME_MAX / 3, &progress));
        assert!(after(IDLE_TIME_MAX * 2 / 3, &progress), "pings buy nothing");
    }
}
