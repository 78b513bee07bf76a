//! What is counted with: atomics that are never locked, allocated or looked up while a request waits.

use std::cell::Cell;
use std::num::NonZero;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::available_parallelism;
use std::time::Duration;

/// Most bounds of a [`Scale`].
const BOUNDS_MAX: usize = 19;

/// Most threads that count apart from each other.
const SLOTS_MAX: usize = 64;

/// What a histogram tells apart.
#[derive(Debug)]
pub struct Scale {
    /// Inclusive upper bounds, rising. What is above all is in one more bucket.
    bounds: [u64; BOUNDS_MAX],
    /// How many of what is counted are one of what is exported.
    per_unit: f64,
}

/// Times: 1, 2 and 5 of each power of ten, from 10 µs to 10 s.
pub static SECONDS: Scale = Scale {
    bounds: log_spaced(10_000),
    per_unit: 1e9,
};

/// Rows: 1, 2 and 5 of each power of ten, from 1 on.
pub static ROWS: Scale = Scale {
    bounds: log_spaced(1),
    per_unit: 1.0,
};

const fn log_spaced(first: u64) -> [u64; BOUNDS_MAX] {
    let mut bounds = [0; BOUNDS_MAX];
    let (mut at, mut decade) = (0, first);
    while at < BOUNDS_MAX {
        bounds[at] = decade * [1, 2, 5][at % 3];
        at += 1;
        if at.is_multiple_of(3) {
            decade *= 10;
        }
    }
    bounds
}

impl Scale {
    /// The bounds, as they are exported.
    pub fn bounds(&self) -> impl Iterator<Item = f64> {
        self.bounds
            .iter()
            .map(|bound| *bound as f64 / self.per_unit)
    }
}

/// The buckets of a histogram, for one combination of its labels.
#[derive(Debug, Default)]
pub struct Buckets {
    counts: [AtomicU64; BOUNDS_MAX + 1],
    sum: AtomicU64,
}

impl Buckets {
    /// Notes how long something took, on the scale of [`SECONDS`].
    pub fn note(&self, took: Duration) {
        // 584 years are enough.
        self.add(&SECONDS, took.as_nanos() as u64);
    }

    /// Notes a number, on some scale.
    pub fn add(&self, scale: &Scale, value: u64) {
        let bucket = scale.bounds.partition_point(|bound| *bound < value);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// What was noted so far, added to what others noted.
    pub fn add_to(&self, total: &mut Count) {
        for (bucket, count) in total.buckets.iter_mut().zip(&self.counts) {
            *bucket += count.load(Ordering::Relaxed);
        }
        total.sum += self.sum.load(Ordering::Relaxed);
    }

    /// What was noted so far.
    pub fn count(&self) -> Count {
        let mut count = Count::default();
        self.add_to(&mut count);
        count
    }
}

/// What was noted in a histogram.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Count {
    /// How many were up to each bound, and more than the one before; the last is of those above all.
    pub buckets: [u64; BOUNDS_MAX + 1],
    sum: u64,
}

impl Count {
    /// How many were noted.
    pub fn total(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// All of them together, as it is exported.
    pub fn sum(&self, scale: &Scale) -> f64 {
        self.sum as f64 / scale.per_unit
    }
}

/// What threads count with that serve at the same time: each has its own, so that none waits for another's cache line.
#[derive(Debug)]
pub struct PerThread<T>(Box<[Slot<T>]>);

/// Two lines of a cache, which processors fetch in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Slot<T>(T);

impl<T: Default> Default for PerThread<T> {
    fn default() -> Self {
        let threads = available_parallelism().map_or(1, NonZero::get);
        let slots = threads.next_power_of_two().min(SLOTS_MAX);
        Self((0..slots).map(|_| Slot::default()).collect())
    }
}

impl<T> PerThread<T> {
    /// This thread's. Where there are more threads than processors, some share one.
    pub fn mine(&self) -> &T {
        &self.0[thread_number() % self.0.len()].0
    }

    /// Everybody's.
    pub fn all(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|slot| &slot.0)
    }
}

/// The number of this thread among those that have asked.
fn thread_number() -> usize {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    NUMBER.with(|number| {
        if number.get() == usize::MAX {
            number.set(ASKED.fetch_add(1, Ordering::Relaxed));
        }
        number.get()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_log_spaced_from_ten_microseconds_to_ten_seconds() {
        let bounds: Vec<_> = SECONDS.bounds().collect();
        assert_eq!(bounds[..4], [10e-6, 20e-6, 50e-6, 100e-6]);
        assert_eq!(bounds[BOUNDS_MAX - 1], 10.0);
        assert_eq!(ROWS.bounds().next(), Some(1.0));
    }

    #[test]
    fn what_was_noted_is_in_the_first_bucket_that_has_room_for_it() {
        let buckets = Buckets::default();
        for nanos in [0, 10_000, 10_001, 10_000_000_000, 10_000_000_001] {
            buckets.note(Duration::from_nanos(nanos));
        }
        let count = buckets.count();
        assert_eq!((count.buckets[0], count.buckets[1]), (2, 1));
        assert_eq!(count.buckets[BOUNDS_MAX - 1..], [1, 1]);
        assert_eq!(count.total(), 5);
        assert!((count.sum(&SECONDS) - 20.000_020_002).abs() < 1e-9);
    }

    #[test]
    fn nothing_is_lost_where_more_threads_count_than_there_are_processors() {
        let counted = PerThread::<AtomicU64>::default();
        std::thread::scope(|scope| {
            for _ in 0..2 * counted.0.len() {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        counted.mine().fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        let sum: u64 = counted.all().map(|one| one.load(Ordering::Relaxed)).sum();
        assert_eq!(sum, 2000 * counted.0.len() as u64);
    }
}
