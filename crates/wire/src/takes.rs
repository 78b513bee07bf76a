//! Tokens that are taken out of buckets.

use std::time::Duration;

use domain::{Invalid, Rate, Take};

use crate::Malformed;
use crate::catalog::v1::take_request;
use crate::catalog::v1::take_response::Answer;

/// A take as messages have it.
pub fn to_wire(tag: u64, take: &Take) -> take_request::Take {
    let token_ns = take.rate.per_token().as_nanos();
    take_request::Take {
        tag,
        bucket: take.crowd.to_be_bytes().to_vec(),
        key: take.key.to_be_bytes().to_vec(),
        token_ns: token_ns.try_into().expect("a day has fewer"),
        burst: take.rate.burst(),
        cost: take.cost,
    }
}

impl TryFrom<&take_request::Take> for Take {
    type Error = Malformed;

    fn try_from(take: &take_request::Take) -> Result<Self, Malformed> {
        let invalid = |what, problem: &str| Malformed(Invalid::new(what, problem));
        let rate = Rate::of_token(Duration::from_nanos(take.token_ns), take.burst);
        let rate = rate.ok_or_else(|| invalid("rate", "is none, or beyond its bounds"))?;
        if !(1..=take.burst).contains(&take.cost) {
            return Err(invalid("cost", "is not from 1 to the burst"));
        }
        let id = |what, field: &[u8]| {
            let bytes = field.try_into();
            bytes
                .map(u128::from_be_bytes)
                .map_err(|_| invalid(what, "does not have 16 bytes"))
        };
        Ok(Self {
            key: id("key", &take.key)?,
            crowd: id("bucket", &take.bucket)?,
            rate,
            cost: take.cost,
        })
    }
}

/// What came of a take, as messages have it: it was granted, or after so long there are so many tokens.
pub fn answer(tag: u64, taken: Result<(), Duration>) -> Answer {
    let wait = |wait: Duration| wait.as_nanos().div_ceil(1000).max(1);
    let wait_us = taken.err().map_or(0, wait);
    let wait_us = wait_us.try_into().unwrap_or(u64::MAX);
    Answer { tag, wait_us }
}

/// Reads what came of a take.
pub fn taken(answer: &Answer) -> Result<(), Duration> {
    match answer.wait_us {
        0 => Ok(()),
        wait_us => Err(Duration::from_micros(wait_us)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Take {
        Take {
            key: u128::MAX - 7,
            crowd: 1,
            rate: Rate::new(3, Duration::from_secs(10), 5).unwrap(),
            cost: 5,
        }
    }

    #[test]
    fn a_take_and_what_came_of_it_are_read_as_they_are_written() {
        assert_eq!(Take::try_from(&to_wire(9, &some())), Ok(some()));
        let longest = Rate::new(1, domain::rate::PERIOD_MAX, domain::rate::BURST_MAX).unwrap();
        for came in [
            Ok(()),
            Err(Duration::from_micros(1)),
            Err(longest.time_of(longest.burst())),
        ] {
            let answer = answer(7, came);
            assert_eq!((answer.tag, taken(&answer)), (7, came));
        }
        let short = answer(7, Err(Duration::from_nanos(1)));
        assert_eq!(taken(&short), Err(Duration::from_micros(1)), "no grant");
    }

    #[test]
    fn a_take_that_cannot_be_is_refused() {
        type Change = fn(&mut take_request::Take);
        let changes: [(&str, Change); 8] = [
            ("rate", |take| take.token_ns = 0),
            ("rate", |take| take.token_ns = 999),
            ("rate", |take| take.token_ns = 86_400_000_000_001),
            ("rate", |take| take.burst = 0),
            ("rate", |take| take.burst = 1_000_001),
            ("cost", |take| take.cost = 0),
            ("cost", |take| take.cost = 6),
            ("key", |take| take.key.push(0)),
        ];
        for (what, change) in changes {
            let mut wire = to_wire(9, &some());
            change(&mut wire);
            let refused = Take::try_from(&wire).unwrap_err();
            assert_eq!(refused.0.what, what, "{wire:?}");
        }
    }
}
