//! What is counted with: atomics that are never locked, allocated or looked up while a request waits.

use std::cell::Cell;
use std::num::NonZero;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::available_parallelism;
use std::time::Duration;

use crate::scale::{CELLS, Native, SECONDS, Scale};

/// Most threads that count apart from each other.
const SLOTS_MAX: usize = 64;

/// The buckets of a histogram, for one combination of its labels, in cells of a [`Scale`].
#[derive(Debug)]
pub struct Buckets {
    cells: [AtomicU64; CELLS],
    sum: AtomicU64,
}

impl Default for Buckets {
    fn default() -> Self {
        Self {
            cells: [const { AtomicU64::new(0) }; CELLS],
            sum: AtomicU64::default(),
        }
    }
}

impl Buckets {
    /// Notes how long something took, on the scale of [`SECONDS`].
    pub fn note(&self, took: Duration) {
        // 584 years are enough.
        self.add(&SECONDS, took.as_nanos() as u64);
    }

    /// Notes a number, on some scale.
    pub fn add(&self, scale: &Scale, value: u64) {
        self.cells[scale.cell(value)].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// What was noted so far, added to what others noted.
    pub fn add_to(&self, total: &mut Count) {
        for (cell, count) in total.cells.iter_mut().zip(&self.cells) {
            *cell += count.load(Ordering::Relaxed);
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

/// What was noted in a histogram. All of it is to be asked for on the scale on which it was noted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Count {
    cells: [u64; CELLS],
    sum: u64,
}

impl Default for Count {
    fn default() -> Self {
        Self {
            cells: [0; CELLS],
            sum: 0,
        }
    }
}

impl Count {
    /// How many were noted.
    pub fn total(&self) -> u64 {
        self.cells.iter().sum()
    }

    /// All of them together, as it is exported.
    pub fn sum(&self, scale: &Scale) -> f64 {
        scale.exported(self.sum)
    }

    /// How many were up to each of the scale's bounds, and more than the one before; the last is of those above all.
    pub fn buckets(&self, scale: &Scale) -> Vec<u64> {
        scale.classic(&self.cells)
    }

    pub(crate) fn native(&self, scale: &Scale) -> Native {
        scale.native(&self.cells)
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

/// A counter that threads add to at the same time, without one waiting for another.
#[derive(Debug, Default)]
pub struct Counter(PerThread<AtomicU64>);

impl Counter {
    /// One more.
    pub fn increment(&self) {
        self.0.mine().fetch_add(1, Ordering::Relaxed);
    }

    /// All so far.
    pub fn total(&self) -> u64 {
        self.0
            .all()
            .map(|count| count.load(Ordering::Relaxed))
            .sum()
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
    fn what_was_noted_is_counted_once_and_summed_up() {
        let noted = Buckets::default();
        for nanos in [0, 10_000, 10_001, 10_000_000_000, 10_000_000_001] {
            noted.note(Duration::from_nanos(nanos));
        }
        let count = noted.count();
        let buckets = count.buckets(&SECONDS);
        assert_eq!((&buckets[..2], &buckets[18..]), (&[2, 1][..], &[1, 1][..]));
        let native = count.native(&SECONDS);
        assert_eq!((native.zero_count, native.spans.len()), (1, 2));
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
