//! Whether the mean of what is observed is greater than a bound, or less.
//!
//! One bets against the hypothesis that it is not: of each observation one wins what is above the bound
//! and loses what is below, times a stake. Where the hypothesis is true one cannot expect to win, so the
//! wealth that one began with is ever multiplied by 1/α with a probability of at most α, however often one
//! looks (Ville, 1939; Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting",
//! 2024). The best stake is not known, so a part of the wealth goes on each of several.
//!
//! Nothing is assumed of how observations are distributed, but that each has, whatever came before it, a
//! mean that the hypothesis allows.

/// Stakes that the wealth is spread over, each half of the one before.
const STAKES: i32 = 15;

/// Of the stake at which one observation can take everything.
const GREATEST_STAKE: f64 = 0.9;

/// No stake is greater than to win so much from one observation, where none can be lost.
const GAIN_MAX: f64 = 1e6;

/// Observations, by their value.
type Observed<'a> = &'a [(f64, u64)];

/// By how much a bet has multiplied its wealth that the mean is greater than `bound`, which is at least
/// `least`, the least value that there can be.
pub fn that_greater(observed: Observed<'_>, bound: f64, least: f64) -> f64 {
    wealth(observed, bound - least, |value| value - bound)
}

/// By how much a bet has multiplied its wealth that the mean is less than `bound`, which is at most
/// `greatest`, the greatest value that there can be.
pub fn that_less(observed: Observed<'_>, bound: f64, greatest: f64) -> f64 {
    wealth(observed, greatest - bound, |value| bound - value)
}

/// `loss_max` is what one observation can cost, for a stake of 1.
fn wealth(observed: Observed<'_>, loss_max: f64, gain: impl Fn(f64) -> f64) -> f64 {
    let greatest = (GREATEST_STAKE / loss_max).min(GAIN_MAX);
    let of_stakes = (0..STAKES).map(|halvings| {
        let stake = greatest / f64::from(1 << halvings);
        let log = |&(value, times): &(f64, u64)| times as f64 * (stake * gain(value)).ln_1p();
        observed.iter().map(log).sum::<f64>().exp()
    });
    of_stakes.sum::<f64>() / f64::from(STAKES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_so_is_shown_and_what_is_not_is_not() {
        let of = |ones, all| [(1.0, ones), (0.0, all - ones)];
        // 50 of 100 are more than 30 %, and 1 of 1,000 less than 1 %.
        assert!(that_greater(&of(50, 100), 0.3, 0.0) > 100.0);
        assert!(that_less(&of(1, 1000), 0.01, 1.0) > 20.0);
        // Neither is shown of a mean that is the bound.
        assert!(that_greater(&of(30, 100), 0.3, 0.0) < 1.0);
        assert!(that_less(&of(10, 1000), 0.01, 1.0) < 1.0);
        // Nothing says nothing.
        assert_eq!(that_greater(&[], 0.3, 0.0), 1.0);
    }

    #[test]
    fn one_that_cannot_be_is_enough() {
        assert!(that_greater(&[(0.0, 1000), (1.0, 1)], 0.0, 0.0) > 10_000.0);
        assert_eq!(that_greater(&[(0.0, 1000)], 0.0, 0.0), 1.0);
    }

    #[test]
    fn wealth_beyond_all_numbers_is_infinite_and_never_less_than_nothing() {
        let all = that_greater(&[(1.0, 1 << 40)], 0.5, 0.0);
        assert!(all.is_infinite() && all > 0.0);
        let none = that_less(&[(1.0, 1 << 40)], 0.5, 1.0);
        assert_eq!(none, 0.0);
    }
}
