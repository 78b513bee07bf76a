//! How many bytes may be held at a time: in all, for each client, and for each connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use http::{HeaderMap, Uri};

/// Bytes that may be held; those of a connection are its client's as well, and the process's.
#[derive(Debug)]
pub struct Budget {
    bytes_max: usize,
    held: AtomicUsize,
    /// How often there was not enough left.
    refusals: AtomicU64,
    /// What this is a part of.
    whole: Option<Arc<Budget>>,
}

impl Budget {
    /// Of the process.
    pub fn whole(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self {
            bytes_max,
            held: AtomicUsize::default(),
            refusals: AtomicU64::default(),
            whole: None,
        })
    }

    /// A part, which may be held in full by the first who ask: the parts of one budget together
    /// may be more than that.
    pub fn part(self: &Arc<Self>, bytes_max: usize) -> Arc<Self> {
        Arc::new(Self {
            bytes_max,
            held: AtomicUsize::default(),
            refusals: AtomicU64::default(),
            whole: Some(Arc::clone(self)),
        })
    }

    /// A share without bytes as yet.
    pub fn share(self: &Arc<Self>) -> Share {
        Share {
            budget: Arc::clone(self),
            bytes: 0,
        }
    }

    /// How many bytes may be held.
    pub fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// How many bytes are held.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// How often there was not enough left.
    pub fn refusals(&self) -> u64 {
        self.refusals.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: usize) -> Result<(), Exhausted> {
        let fits = |held: usize| {
            let after = held.checked_add(bytes)?;
            // A part takes in one thing however large, or that could never be had.
            let is_only = held == 0 && self.whole.is_some();
            (after <= self.bytes_max || is_only).then_some(after)
        };
        self.held
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits)
            .map_err(|_| self.refuse())?;
        if let Some(whole) = &self.whole {
            whole.take(bytes).inspect_err(|_| {
                self.held.fetch_sub(bytes, Ordering::Relaxed);
            })?;
        }
        Ok(())
    }

    fn refuse(&self) -> Exhausted {
        let mut budget = self;
        while let Some(whole) = &budget.whole {
            budget = whole;
        }
        budget.refusals.fetch_add(1, Ordering::Relaxed);
        Exhausted
    }

    fn give_back(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
        if let Some(whole) = &self.whole {
            whole.give_back(bytes);
        }
    }
}

/// There are not so many bytes left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too much is held already")]
pub struct Exhausted;

/// Bytes of a budget, given back when this is dropped.
#[derive(Debug)]
pub struct Share {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Share {
    /// Takes so many more.
    ///
    /// # Errors
    /// Where they are not left: nothing has changed then.
    pub fn grow(&mut self, bytes: usize) -> Result<(), Exhausted> {
        self.budget.take(bytes)?;
        self.bytes += bytes;
        Ok(())
    }

    /// Takes over the bytes of another share of the same budget.
    pub fn absorb(&mut self, mut other: Self) {
        assert!(Arc::ptr_eq(&self.budget, &other.budget), "of one budget");
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Parts with so many of its bytes.
    pub fn split(&mut self, bytes: usize) -> Self {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Self {
            budget: Arc::clone(&self.budget),
            bytes,
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}

/// What a map of headers takes when the first is put into it.
const HEADERS_BYTES: usize = 640;

/// What a header takes besides its name and value: its place in a map, which has up to twice as many as
/// are used.
const HEADER_BYTES: usize = 220;

/// What a request's head takes at most, but for what is left over of the buffer that it came in.
pub fn head_bytes(target: &Uri, headers: &HeaderMap) -> usize {
    let target = target.path_and_query();
    let target = target.map_or(0, |target| target.as_str().len());
    let header = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        HEADER_BYTES + name.as_str().len() + value.len()
    };
    HEADERS_BYTES + target + headers.iter().map(header).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_counts_for_every_whole_and_no_longer_than_it_lives() {
        let process = Budget::whole(100);
        let (one, other) = (process.part(60), process.part(60));
        let mut first = one.share();
        first.grow(50).unwrap();
        assert_eq!(first.grow(11), Err(Exhausted), "of its own part");
        let mut second = other.share();
        second.grow(40).unwrap();
        assert_eq!(second.grow(11), Err(Exhausted), "of the whole");
        assert_eq!(process.refusals(), 2);
        assert_eq!((one.held(), other.held(), process.held()), (50, 40, 90));
        let mut half = first.split(25);
        half.absorb(first.split(5));
        assert_eq!((one.held(), process.held()), (50, 90));
        drop(first);
        assert_eq!((one.held(), process.held()), (30, 70));
        drop((half, second));
        assert_eq!((one.held(), other.held(), process.held()), (0, 0, 0));
    }

    #[test]
    fn a_part_takes_one_thing_that_is_larger_and_the_whole_does_not() {
        let process = Budget::whole(100);
        let part = process.part(10);
        let mut large = part.share();
        large.grow(90).unwrap();
        assert_eq!(part.share().grow(1), Err(Exhausted));
        drop(large);
        assert_eq!(part.share().grow(101), Err(Exhausted));
        assert_eq!(process.held(), 0);
    }

    /// hyper and h2 keep names and values in what they read; a map's own memory is what this is about.
    #[test]
    fn a_head_counts_for_no_less_than_the_memory_that_it_takes() {
        let target = Uri::from_static("/");
        for count in [1, 7, 24, 25, 96, 97, 100] {
            let names: Vec<_> = (0..count).map(|number| format!("x-{number}")).collect();
            let names = names
                .iter()
                .map(|name| name.parse::<http::HeaderName>().unwrap());
            let names: Vec<_> = names.collect();
            let mut headers = HeaderMap::new();
            let taken = allocation_counter::measure(|| {
                for name in names {
                    headers.append(name, http::HeaderValue::from_static("v"));
                }
            });
            let counted = head_bytes(&target, &headers) as i64;
            assert!(
                counted >= taken.bytes_current,
                "{count} headers: {counted} counted, {} taken",
                taken.bytes_current
            );
        }
    }
}
