//! Between which values lies what a version is held to, as far as is shown: what people are shown of a verdict.

use super::bets::{that_greater, that_less};

/// How often the interval is halved that an end is looked for in.
const HALVINGS: u32 = 24;

/// What lies between two values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shown {
    /// Whose, or what it is.
    pub of: &'static str,
    /// Shares, or differences of shares, or microseconds, as the measure says.
    pub low: f64,
    /// `None` where no end is shown.
    pub high: Option<f64>,
    /// What the version is within where `high` is not above it, and beyond where `low` is.
    pub limit: Option<f64>,
}

impl Shown {
    /// The mean of what is observed, which is between `least` and `greatest`: every value but those that the bets of the verdict
    /// contradict. `low` is too high at most as often as there are false alarms, `high` too low as often as there are misses.
    pub(super) fn mean(
        of: &'static str,
        observed: &[(f64, u64)],
        [least, greatest]: [f64; 2],
        (limit, [false_alarm, miss]): (f64, [f64; 2]),
    ) -> Self {
        let is_above = |bound| that_greater(observed, bound, least) >= 1.0 / false_alarm;
        let is_below = |bound| that_less(observed, bound, greatest) >= 1.0 / miss;
        Self {
            of,
            low: last([least, greatest], is_above),
            high: Some(-last([-greatest, -least], |bound| is_below(-bound))),
            limit: Some(limit),
        }
    }
}

/// The last value between two of which it is true, which it then is of all before it; the first where it is of none.
fn last([mut low, mut high]: [f64; 2], is_true: impl Fn(f64) -> bool) -> f64 {
    for _ in 0..HALVINGS {
        let middle = low + (high - low) / 2.0;
        match is_true(middle) {
            true => low = middle,
            false => high = middle,
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATES: [f64; 2] = [0.01, 0.05];

    fn share(of: u64, all: u64) -> Shown {
        let observed = [(1.0, of), (0.0, all - of)];
        Shown::mean("candidate", &observed, [0.0, 1.0], (0.1, RATES))
    }

    #[test]
    fn a_share_lies_between_ever_closer_values() {
        let mut before = 1.1;
        for all in [10, 100, 1_000, 10_000, 100_000] {
            let Shown { low, high, .. } = share(all * 3 / 10, all);
            let high = high.unwrap();
            assert!(low <= 0.3 && 0.3 <= high, "{all}: {low} to {high}");
            assert!(high - low < before, "{all}: {low} to {high}");
            before = high - low;
        }
        assert!(before < 0.03, "{before}");
    }

    #[test]
    fn nothing_says_nothing_and_none_of_many_is_next_to_none() {
        let Shown { low, high, .. } = share(0, 0);
        assert!(
            low < 1e-6 && high.unwrap() > 1.0 - 1e-6,
            "{low} to {high:?}"
        );
        let Shown { low, high, .. } = share(0, 10_000);
        assert!(low < 1e-6 && high.unwrap() < 0.001, "{low} to {high:?}");
    }
}
