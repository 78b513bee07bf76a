//! Between which values a quantile lies.

use super::bets::{that_greater, that_less};

/// Two values with a quantile between them. Where too little is known, that is 0 and [`u64::MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval {
    pub low: u64,
    pub high: u64,
}

/// Between which values a quantile of `sorted` lies, `quantile` between 0 and 1. With a probability of at
/// most `error_rate` it ever lies outside, however often one looks.
///
/// The true quantile is a value that a share of at least `quantile` is not above, and of at most as much is
/// below. Whatever value the observations contradict in this, by [bets](super::bets) on each, is not the
/// quantile.
pub fn interval(sorted: &[u64], quantile: f64, error_rate: f64) -> Interval {
    let all = sorted.len() as u64;
    // Each of the two ends has half of the errors.
    let shown = 2.0 / error_rate;
    let of = |below: usize| [(1.0, below as u64), (0.0, all - below as u64)];
    // With so few observations up to a value, too few are: the quantile is above it.
    let too_few = |up_to: usize| that_less(&of(up_to), quantile, 1.0) >= shown;
    // With so many observations below a value, too many are: the quantile is below it.
    let too_many = |below: usize| that_greater(&of(below), quantile, 0.0) >= shown;
    let fewest = first(sorted.len() + 1, |up_to| !too_few(up_to));
    let most = first(sorted.len() + 1, too_many);
    Interval {
        low: match fewest {
            0 => 0,
            fewest => sorted[fewest - 1],
        },
        high: sorted
            .get(most.wrapping_sub(1))
            .copied()
            .unwrap_or(u64::MAX),
    }
}

/// The first of `0..end` of which it is true, which it then is of all after it; `end` where it is of none.
fn first(end: usize, is_true: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, end);
    while low < high {
        let middle = low + (high - low) / 2;
        match is_true(middle) {
            true => high = middle,
            false => low = middle + 1,
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_lies_between_ever_closer_values() {
        let mut before = u64::MAX;
        for all in [100, 1000, 10_000, 100_000] {
            let sorted: Vec<u64> = (1..=all).map(|rank| rank * 1_000_000 / all).collect();
            let Interval { low, high } = interval(&sorted, 0.5, 0.01);
            assert!(low <= 500_000 && 500_000 <= high, "{all}: {low} to {high}");
            assert!(high - low < before, "{all}: {low} to {high}");
            before = high - low;
        }
        assert!(before < 20_000, "{before}");
    }

    #[test]
    fn what_little_is_known_of_is_anything() {
        let anything = Interval {
            low: 0,
            high: u64::MAX,
        };
        assert_eq!(interval(&[], 0.5, 0.01), anything);
        assert_eq!(interval(&[7], 0.5, 0.01), anything);
        assert_eq!(
            interval(&[7; 100], 0.99, 0.01),
            Interval {
                low: 7,
                high: u64::MAX
            }
        );
    }

    #[test]
    fn equal_values_are_the_quantile() {
        assert_eq!(
            interval(&[7; 1000], 0.9, 0.01),
            Interval { low: 7, high: 7 }
        );
    }
}
