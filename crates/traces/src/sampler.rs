//! Which requests are traced. It is decided once, where a request comes in, by its head.
//!
//! By chance, so many of all; and beyond that whoever says in its `traceparent` that it traces the request itself, so that its
//! trace has no hole where Bazaar is. Anybody can say that, so of those there are so many a second at most.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use domain::rate::{BURST_MAX, Rate};
use domain::time::BootTime;

/// Requests a second that are traced since their clients ask for it, unless it is said otherwise.
pub const ASKED_MAX: u32 = 10;

/// What is to be traced.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Which share of the requests, 0 to 1. Where it is 0 nothing is traced, whoever asks.
    pub share: f64,
    /// Requests a second that are traced beyond that, since their clients ask for it.
    pub asked_max: u32,
}

/// Why a request is traced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// By chance.
    Chance,
    /// Its client asks for it.
    Asked,
}

/// Decides.
#[derive(Debug)]
pub struct Sampler {
    /// A request is traced where a random number is not above it; none is where absent.
    chance: Option<u64>,
    /// Of requests whose clients ask: how many, and when that many may be again.
    asked: Option<(Rate, Mutex<BootTime>)>,
}

impl Sampler {
    /// Of what is wanted. More than [`BURST_MAX`] of a second are as many as that.
    pub fn new(sampling: &Sampling) -> Self {
        let is_any = sampling.share > 0.0;
        let asked = sampling.asked_max.min(BURST_MAX);
        let rate = Rate::new(asked, Duration::from_secs(1), asked);
        let asked = rate.map(|rate| (rate, Mutex::default()));
        Self {
            // Of 1 it is all that there are.
            chance: is_any.then_some((sampling.share * u64::MAX as f64) as u64),
            asked: asked.filter(|_| is_any),
        }
    }

    /// Why a request is traced, if it is, given whether its client asks for that and a random number; and whether that was
    /// asked for in vain.
    pub fn decide(
        &self,
        asks: bool,
        random: u64,
        now: impl FnOnce() -> BootTime,
    ) -> (Option<Why>, bool) {
        if asks && self.takes_asked(now) {
            return (Some(Why::Asked), false);
        }
        let is_chosen = self.chance.is_some_and(|chance| random <= chance);
        (is_chosen.then_some(Why::Chance), asks)
    }

    fn takes_asked(&self, now: impl FnOnce() -> BootTime) -> bool {
        let Some((rate, full_at)) = &self.asked else {
            return false;
        };
        let mut full_at = full_at.lock().unwrap_or_else(PoisonError::into_inner);
        match rate.take(*full_at, 1, now()) {
            Ok(then) => {
                *full_at = then;
                true
            }
            Err(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampler(share: f64, asked_max: u32) -> Sampler {
        Sampler::new(&Sampling { share, asked_max })
    }

    fn at(millis: u64) -> impl Fn() -> BootTime {
        move || BootTime::from_millis(millis)
    }

    #[test]
    fn of_all_so_many_are_traced_by_chance() {
        let mut random = fastrand::Rng::with_seed(7);
        for (share, least, most) in [(0.0, 0, 0), (0.01, 900, 1_100), (1.0, 100_000, 100_000)] {
            let sampler = sampler(share, 0);
            let traced = (0..100_000).filter(|_| {
                let decided = sampler.decide(false, random.u64(..), at(0));
                decided == (Some(Why::Chance), false)
            });
            let traced = traced.count();
            assert!((least..=most).contains(&traced), "{share}: {traced}");
        }
        assert_eq!(
            sampler(1.0, 0).decide(false, u64::MAX, at(0)).0,
            Some(Why::Chance)
        );
    }

    #[test]
    fn whoever_asks_is_traced_within_a_bound() {
        let sampler = sampler(f64::MIN_POSITIVE, 10);
        let asked = |millis| {
            let asked = (0..1_000).map(|_| sampler.decide(true, u64::MAX, at(millis)));
            let taken = asked.filter(|decided| *decided == (Some(Why::Asked), false));
            taken.count()
        };
        assert_eq!(asked(5_000), 10);
        assert_eq!(asked(5_099), 0);
        assert_eq!(asked(5_300), 3);
        assert_eq!(asked(60_000), 10);
        // In vain, and then by chance.
        assert_eq!(sampler.decide(true, u64::MAX, at(60_000)), (None, true));
        assert_eq!(
            sampler.decide(true, 0, at(60_000)),
            (Some(Why::Chance), true)
        );
    }

    #[test]
    fn where_nothing_is_to_be_traced_nobody_gets_it_by_asking() {
        let nothing = sampler(0.0, 10);
        assert_eq!(nothing.decide(true, 0, at(5_000)), (None, true));
        let nobody_asks = sampler(f64::MIN_POSITIVE, 0);
        assert_eq!(nobody_asks.decide(true, 1, at(5_000)), (None, true));
    }
}
