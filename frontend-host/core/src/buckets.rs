//! Token buckets: how often something may be done.
//!
//! A bucket holds up to `burst` tokens, which come back evenly. What is kept of one is when it is full
//! again (the generic cell rate algorithm, ITU-T I.371, appendix A): a full one is like one that there
//! never was, so nothing is kept of it.
//!
//! There is room for so many buckets that are not full. Whoever is new when there is none shares a
//! bucket with all others who came in vain, and begins with what is left in it when there is room
//! again. So nobody ever takes more than `burst`, and what comes back meanwhile; in a crowd some get
//! less.

use std::collections::HashMap;
use std::time::Duration;

use domain::time::BootTime;

/// How many tokens a bucket holds, and how fast they come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    /// How long it takes until a token is back: to the nanosecond, and no shorter than it should be.
    per_token: Duration,
    burst: u32,
}

/// Tokens that come back in a second, at most.
pub const TOKENS_PER_SECOND_MAX: u32 = 1_000_000;

/// Longest time in which tokens are said to come back.
pub const PERIOD_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Tokens that a bucket may hold.
pub const BURST_MAX: u32 = 1_000_000;

impl Rate {
    /// So many `tokens` come back evenly in `period`, up to `burst` of them. `None` where that is none,
    /// or beyond the bounds above.
    pub fn new(tokens: u32, period: Duration, burst: u32) -> Option<Self> {
        let per_token = period.as_nanos().div_ceil(u128::from(tokens.max(1)));
        let per_token = Duration::from_nanos(per_token.try_into().ok()?);
        let per_second = u128::from(tokens) * 1_000_000_000;
        let is_bounded = tokens > 0
            && period <= PERIOD_MAX
            && per_second <= u128::from(TOKENS_PER_SECOND_MAX) * period.as_nanos();
        (is_bounded && (1..=BURST_MAX).contains(&burst)).then_some(Self { per_token, burst })
    }

    /// Tokens that a bucket holds.
    pub fn burst(self) -> u32 {
        self.burst
    }

    /// How long it takes until so many are back.
    fn time_of(self, tokens: u32) -> Duration {
        self.per_token * tokens
    }
}

/// What is to be taken.
#[derive(Debug, Clone, Copy)]
pub struct Take {
    /// Whose bucket it is. Of one rate: another has another key.
    pub key: u128,
    /// What those share for whom there is no room; of one rate as well.
    pub crowd: u128,
    pub rate: Rate,
    /// Tokens: 1 to the rate's burst. More are never there.
    pub cost: u32,
}

/// The buckets that are not full.
#[derive(Debug)]
pub struct Buckets {
    /// When each is full again.
    full_at: HashMap<u128, BootTime>,
    /// Most of them, but for those of crowds.
    room: usize,
    /// Before then none of them is full, as far as known.
    none_full_before: BootTime,
}

impl Buckets {
    /// With room for so many that are not full, and for one more of each crowd.
    pub fn new(room: usize) -> Self {
        Self {
            full_at: HashMap::new(),
            room,
            none_full_before: BootTime::default(),
        }
    }

    /// Takes tokens out of a bucket.
    ///
    /// # Errors
    /// Where there are not so many in it: how long it takes until there are, if nobody else takes any.
    pub fn take(&mut self, take: &Take, now: BootTime) -> Result<(), Duration> {
        let rate = take.rate;
        let key = self.place_of(take, now);
        // Who is new begins with what those had who had no room.
        let full_at = self.full_at.get(&key).or(self.full_at.get(&take.crowd));
        let full_at = full_at.map_or(now, |at| (*at).max(now)) + rate.time_of(take.cost);
        let empty = now + rate.time_of(rate.burst);
        if full_at > empty {
            return Err(full_at.since(empty));
        }
        self.full_at.insert(key, full_at);
        self.none_full_before = self.none_full_before.min(full_at);
        Ok(())
    }

    /// How many are kept.
    pub fn kept(&self) -> usize {
        self.full_at.len()
    }

    /// Under which key there is a bucket for it.
    fn place_of(&mut self, take: &Take, now: BootTime) -> u128 {
        if self.full_at.len() < self.room || self.full_at.contains_key(&take.key) {
            return take.key;
        }
        if now >= self.none_full_before {
            self.full_at.retain(|_, full_at| *full_at > now);
            let earliest = self.full_at.values().min();
            self.none_full_before = earliest.copied().unwrap_or(now);
        }
        if self.full_at.len() < self.room {
            take.key
        } else {
            take.crowd
        }
    }
}

#[cfg(test)]
mod tests;
