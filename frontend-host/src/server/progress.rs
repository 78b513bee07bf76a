//! How far a connection has got, so that one that takes too long is cut off.
//!
//! hyper's own timeout for a request's head arms a timer for every request. Here a request costs
//! a few stores: each connection notes what it waits for and since when, by a clock of its worker
//! that is read rather than asked, and looks at the note now and then.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use http::Version;

use super::worker::Seat;
use crate::config::{IDLE_TIME_MAX, SEND_TIME_MAX};

/// How exact a [`Tally`]'s clock is.
pub(super) const TICK: Duration = Duration::from_millis(250);

/// How often a connection looks whether it is overdue. What is overdue lasts longer by this and
/// a tick at most.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What a worker counts for its connections.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Its clock, since it began.
    ticks: AtomicU64,
    /// What has been answered.
    answers: AtomicU64,
}

impl Tally {
    /// Lets the clock go, for ever.
    pub(super) async fn run(&self) {
        let mut ticks = tokio::time::interval(TICK);
        // Time during which the worker was held up has passed as well.
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
        loop {
            ticks.tick().await;
            self.ticks.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn ticks(&self) -> u64 {
        self.ticks.load(Ordering::Relaxed)
    }

    /// How many requests have been answered.
    pub(super) fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
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
pub(super) struct Progress {
    /// Whose clock it goes by.
    seat: Seat,
    /// The kind of wait in the lowest two bits, the clock's ticks above them.
    note: AtomicU64,
    /// Whether it has changed workers since its socket was last used.
    moved: AtomicBool,
}

impl Progress {
    /// Of a connection that has just begun.
    pub(super) fn begin(seat: Seat) -> Self {
        let progress = Self {
            seat,
            note: AtomicU64::default(),
            moved: AtomicBool::default(),
        };
        progress.await_from_now(Awaited::Head);
        progress
    }

    fn ticks(&self) -> u64 {
        self.seat.tally().ticks()
    }

    fn await_from_now(&self, awaited: Awaited) {
        self.set_note(awaited, self.ticks());
    }

    fn set_note(&self, awaited: Awaited, since: u64) {
        self.note
            .store(since << 2 | awaited as u64, Ordering::Relaxed);
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
    pub(super) fn received(&self) {
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
        self.seat.tally().answers.fetch_add(1, Ordering::Relaxed);
        if self.note().0 == Awaited::Answer {
            self.await_from_now(Awaited::Request);
        }
    }

    /// Whether it waits for another request and has none, nor an answer, on its way.
    pub(super) fn is_between_requests(&self) -> bool {
        self.note().0 == Awaited::Request
    }

    /// It goes to another worker, and has waited for as long by that one's clock.
    pub(super) fn moves(&self, worker: usize) {
        let (awaited, since) = self.note();
        let waited = self.ticks().saturating_sub(since);
        self.seat.change(worker);
        self.set_note(awaited, self.ticks().saturating_sub(waited));
        self.moved.store(true, Ordering::Relaxed);
    }

    /// Whether it has changed workers since this was last called.
    pub(super) fn take_moved(&self) -> bool {
        // Not a swap: only its own task does either, and a swap is dear.
        let moved = self.moved.load(Ordering::Relaxed);
        if moved {
            self.moved.store(false, Ordering::Relaxed);
        }
        moved
    }

    /// Whether it has waited too long.
    pub(super) fn is_overdue(&self) -> bool {
        let (awaited, since) = self.note();
        let longest = match awaited {
            Awaited::Head => SEND_TIME_MAX,
            Awaited::Request => IDLE_TIME_MAX,
            Awaited::Answer | Awaited::Pings => return false,
        };
        let waited = self.ticks().saturating_sub(since);
        u128::from(waited) * TICK.as_millis() > longest.as_millis()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::worker::Desk;
    use super::*;

    /// At the first of so many workers.
    fn at_one_of(workers: usize) -> (Arc<[Desk]>, Progress) {
        let desks: Arc<[Desk]> = (0..workers).map(|_| Desk::new().0).collect();
        let progress = Progress::begin(Seat::at(&desks, 0));
        (desks, progress)
    }

    fn ticks(time: Duration) -> u64 {
        (time.as_millis() / TICK.as_millis()) as u64
    }

    fn after(time: Duration, progress: &Progress) -> bool {
        let clock = &progress.seat.tally().ticks;
        let before = clock.fetch_add(ticks(time) + 1, Ordering::Relaxed);
        let overdue = progress.is_overdue();
        clock.store(before, Ordering::Relaxed);
        overdue
    }

    #[test]
    fn time_passes_by_the_clock_of_whoever_serves_it() {
        let (desks, progress) = at_one_of(2);
        let clock = |worker: usize| &desks[worker].tally.ticks;
        progress.asked(Version::HTTP_11);
        progress.answered();
        // One began long before the other.
        clock(1).store(ticks(IDLE_TIME_MAX * 9), Ordering::Relaxed);
        clock(0).fetch_add(ticks(IDLE_TIME_MAX / 2), Ordering::Relaxed);
        progress.moves(1);
        assert!(progress.take_moved() && !progress.take_moved());
        assert!(!after(IDLE_TIME_MAX / 3, &progress));
        assert!(after(IDLE_TIME_MAX * 2 / 3, &progress), "half had passed");
    }

    #[test]
    fn a_connection_counts_where_it_is_and_no_longer_than_it_lives() {
        let (desks, progress) = at_one_of(2);
        let connections = || [desks[0].connections(), desks[1].connections()];
        assert_eq!(connections(), [1, 0]);
        progress.moves(1);
        assert_eq!(connections(), [0, 1]);
        drop(progress);
        assert_eq!(connections(), [0, 0]);
    }

    #[test]
    fn a_head_has_less_time_than_a_pause_between_requests() {
        let (_desks, progress) = at_one_of(1);
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
        let (_desks, progress) = at_one_of(1);
        progress.asked(Version::HTTP_2);
        progress.received();
        progress.answered();
        assert!(!after(IDLE_TIME_MAX * 2, &progress));
    }
}
