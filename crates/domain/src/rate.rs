//! How often something may be done.

use std::time::Duration;

use crate::time::BootTime;

/// How many tokens a bucket holds, and how fast they come back.
///
/// What is kept of a bucket is when it is full again (the generic cell rate algorithm, ITU-T I.371,
/// appendix A): a full one is like one that there never was.
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

/// The shortest time in which a token comes back.
const PER_TOKEN_MIN: Duration = Duration::from_nanos(1_000_000_000 / TOKENS_PER_SECOND_MAX as u64);

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
        is_bounded
            .then(|| Self::of_token(per_token, burst))
            .flatten()
    }

    /// A token comes back after so long, up to `burst` of them. `None` where it is beyond the bounds
    /// above.
    pub fn of_token(per_token: Duration, burst: u32) -> Option<Self> {
        let is_bounded = (PER_TOKEN_MIN..=PERIOD_MAX).contains(&per_token);
        (is_bounded && (1..=BURST_MAX).contains(&burst)).then_some(Self { per_token, burst })
    }

    /// How long it takes until a token is back.
    pub fn per_token(self) -> Duration {
        self.per_token
    }

    /// Tokens that a bucket holds.
    pub fn burst(self) -> u32 {
        self.burst
    }

    /// How long it takes until so many are back.
    pub fn time_of(self, tokens: u32) -> Duration {
        self.per_token * tokens
    }

    /// Takes tokens out of a bucket that is full at `full_at`; returns when it is full then.
    ///
    /// # Errors
    /// Where there are not so many in it: how long it takes until there are, if nobody else takes any.
    pub fn take(self, full_at: BootTime, cost: u32, now: BootTime) -> Result<BootTime, Duration> {
        let full_at = full_at.max(now) + self.time_of(cost);
        let of_empty = now + self.time_of(self.burst);
        if full_at > of_empty {
            return Err(full_at.since(of_empty));
        }
        Ok(full_at)
    }
}

/// What is to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Take {
    /// Whose bucket it is. Of one rate: another has another key.
    pub key: u128,
    /// What those share for whom there is no room; of one rate as well.
    pub crowd: u128,
    /// Of the bucket.
    pub rate: Rate,
    /// Tokens: 1 to the rate's burst. More are never there.
    pub cost: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(millis: u64) -> BootTime {
        BootTime::from_millis(millis)
    }

    #[test]
    fn a_burst_is_there_at_once_and_comes_back_evenly() {
        let rate = Rate::new(10, SECOND, 3).unwrap();
        let mut full_at = BootTime::default();
        let mut one = |millis| {
            full_at = rate.take(full_at, 1, at(millis))?;
            Ok(())
        };
        assert_eq!([0; 3].map(&mut one), [Ok(()); 3]);
        assert_eq!(one(0), Err(Duration::from_millis(100)));
        assert_eq!(one(40), Err(Duration::from_millis(60)));
        assert_eq!(one(100), Ok(()));
        assert_eq!(one(100), Err(Duration::from_millis(100)));
        // No more than the burst, however long nobody takes any.
        assert_eq!([9_000; 3].map(&mut one), [Ok(()); 3]);
        assert_eq!(one(9_000), Err(Duration::from_millis(100)));
    }

    #[test]
    fn a_rate_is_one_or_none() {
        for (tokens, period, burst) in [
            (0, SECOND, 1),
            (1, SECOND, 0),
            (1, SECOND, BURST_MAX + 1),
            (TOKENS_PER_SECOND_MAX + 1, SECOND, 1),
            (1, PERIOD_MAX + SECOND, 1),
            (1, Duration::ZERO, 1),
        ] {
            assert_eq!(Rate::new(tokens, period, burst), None);
        }
        let slowest = Rate::new(1, PERIOD_MAX, BURST_MAX).unwrap();
        assert_eq!(slowest.time_of(BURST_MAX), PERIOD_MAX * BURST_MAX);
        let fastest = Rate::new(TOKENS_PER_SECOND_MAX, SECOND, 1).unwrap();
        for rate in [slowest, fastest] {
            assert_eq!(Rate::of_token(rate.per_token(), rate.burst()), Some(rate));
        }
        let too_fast = fastest.per_token() - Duration::from_nanos(1);
        assert_eq!(Rate::of_token(too_fast, 1), None);
        assert_eq!(
            Rate::of_token(PERIOD_MAX + Duration::from_nanos(1), 1),
            None
        );
        // Rounded so that never more come back than should.
        assert!(Rate::new(3, SECOND, 1).unwrap().time_of(3) >= SECOND);
    }
}
