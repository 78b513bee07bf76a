//! What is on its way to a client over HTTP/2, and whether that takes it too long.
//!
//! What else a connection is used for says nothing of a stream. Each has a chunk of its answer that
//! is the oldest one that was let go and has not gone out, and that one is to go out in time.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use crate::config::{CHUNK_BYTES, STREAMS_MAX};

/// Streams take turns, so one may wait longer while its connection takes bytes of others: a second
/// for so many. Who takes as much is not cut off for having asked for much at once.
const TURN_BYTES_PER_SECOND: u64 = 32 << 10;

/// It waits so for a chunk of each other stream at most, or the others would hold its chunk for
/// ever.
const TURNS_BYTES_MAX: u64 = STREAMS_MAX as u64 * CHUNK_BYTES as u64;

/// The streams of a connection that have chunks on their way, by their numbers, and what stands
/// for each.
#[derive(Debug)]
pub(super) struct Leaving<S> {
    streams: BTreeMap<u64, OnTheWay<S>>,
}

/// A moment of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub time: Duration,
    /// What was sent until then, in bytes.
    pub sent_bytes: u64,
}

/// What is on its way of one answer.
#[derive(Debug)]
struct OnTheWay<S> {
    stream: S,
    chunks: usize,
    /// When it was the oldest one's turn to go: it was let go then, or the one before it went.
    since: Moment,
}

impl<S> Default for Leaving<S> {
    fn default() -> Self {
        Self {
            streams: BTreeMap::new(),
        }
    }
}

impl<S> Leaving<S> {
    /// A chunk of a stream is let go.
    pub(super) fn release(&mut self, number: u64, now: Moment, stream: impl FnOnce() -> S) {
        let on_the_way = self.streams.entry(number).or_insert_with(|| OnTheWay {
            stream: stream(),
            chunks: 0,
            since: now,
        });
        on_the_way.chunks += 1;
    }

    /// A chunk has gone out, or nobody wants it any more.
    pub(super) fn note_sent(&mut self, number: u64, now: Moment) {
        let Entry::Occupied(mut on_the_way) = self.streams.entry(number) else {
            return;
        };
        if on_the_way.get().chunks == 1 {
            on_the_way.remove();
        } else {
            let on_the_way = on_the_way.get_mut();
            on_the_way.chunks -= 1;
            on_the_way.since = now;
        }
    }

    /// The streams whose client has not taken their oldest chunk in time.
    pub(super) fn overdue(&self, now: Moment, time_max: Duration) -> impl Iterator<Item = &S> {
        let is_overdue = move |on_the_way: &&OnTheWay<S>| {
            let since = on_the_way.since;
            let turns = now.sent_bytes.saturating_sub(since.sent_bytes);
            let turns = turns.min(TURNS_BYTES_MAX) * 1000 / TURN_BYTES_PER_SECOND;
            now.time.saturating_sub(since.time) > time_max + Duration::from_millis(turns)
        };
        let overdue = self.streams.values().filter(is_overdue);
        overdue.map(|on_the_way| &on_the_way.stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{RECEIVE_TIME_MAX, STREAM_BYTES_PER_SECOND_MIN};

    /// The chunks of a long answer.
    const CHUNKS: u64 = 10;

    const NONE: [u64; 0] = [];

    fn at(seconds: u64, sent_bytes: u64) -> Moment {
        Moment {
            time: Duration::from_secs(seconds),
            sent_bytes,
        }
    }

    fn overdue(leaving: &Leaving<u64>, now: Moment) -> Vec<u64> {
        let overdue = leaving.overdue(now, RECEIVE_TIME_MAX);
        overdue.copied().collect()
    }

    /// Whether a client that takes so much is cut off before it has taken a long answer, with two
    /// chunks on their way at a time.
    fn is_cut_off(bytes_per_second: u64) -> bool {
        let mut leaving = Leaving::default();
        let (mut released, mut sent) = (0, 0);
        (0..)
            .find_map(|seconds| {
                let now = at(seconds, 0); // of others
                while sent < bytes_per_second * seconds / CHUNK_BYTES as u64 && sent < released {
                    leaving.note_sent(1, now);
                    sent += 1;
                }
                while released < CHUNKS && released < sent + 2 {
                    leaving.release(1, now, || 1);
                    released += 1;
                }
                let is_overdue = !overdue(&leaving, now).is_empty();
                (is_overdue || sent == CHUNKS).then_some(is_overdue)
            })
            .expect("one or the other")
    }

    #[test]
    fn who_takes_a_stream_steadily_has_time_and_who_takes_less_has_not() {
        assert!(!is_cut_off(STREAM_BYTES_PER_SECOND_MIN + 1));
        assert!(is_cut_off(STREAM_BYTES_PER_SECOND_MIN * 9 / 10));
    }

    #[test]
    fn a_stream_is_judged_by_its_own_oldest_chunk() {
        let late = RECEIVE_TIME_MAX.as_secs() + 1;
        let mut leaving = Leaving::default();
        leaving.release(1, at(0, 0), || 1);
        leaving.release(2, at(0, 0), || 2);
        leaving.release(2, at(1, 0), || 2);
        leaving.release(3, at(5, 0), || 3);
        assert_eq!(overdue(&leaving, at(late - 1, 0)), NONE);
        leaving.note_sent(2, at(late - 1, 0));
        assert_eq!(overdue(&leaving, at(late, 0)), [1], "another's went out");
        leaving.note_sent(1, at(late, 0));
        assert_eq!(overdue(&leaving, at(late, 0)), NONE);
        assert_eq!(overdue(&leaving, at(2 * late, 0)), [2, 3]);
        leaving.note_sent(2, at(2 * late, 0));
        leaving.note_sent(3, at(2 * late, 0));
        assert_eq!(overdue(&leaving, at(9 * late, 0)), NONE);
    }

    #[test]
    fn a_stream_waits_for_its_turn_and_not_for_ever() {
        let time = RECEIVE_TIME_MAX.as_secs();
        let mut leaving = Leaving::default();
        for stream in 0..u64::from(STREAMS_MAX) {
            leaving.release(stream, at(0, 0), || stream);
        }
        // One gets nothing meanwhile.
        let mut sent = 0;
        let mut seconds = 0;
        while overdue(&leaving, at(seconds, sent)).is_empty() {
            seconds += 1;
            sent += TURN_BYTES_PER_SECOND;
            leaving.note_sent(seconds, at(seconds, sent));
        }
        assert_eq!(overdue(&leaving, at(seconds, sent)), [0]);
        let turns = TURNS_BYTES_MAX / TURN_BYTES_PER_SECOND;
        assert_eq!(seconds, time + turns + 1);
        // Where nothing is taken at all, nobody waits longer.
        let mut idle = Leaving::default();
        idle.release(7, at(0, 0), || 7);
        assert_eq!(overdue(&idle, at(time, 0)), NONE);
        assert_eq!(overdue(&idle, at(time + 1, 0)), [7]);
    }
}
