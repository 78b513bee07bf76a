//! Medians of rounds, and ratios within them.
//!
//! Absolute figures of a shared machine mean little, and drift. So contenders take turns, and two
//! are compared round by round: the ratio of figures that were measured seconds apart.
//!
//! What one start of a contender happens to get, places in memory and on disk, processors, lasts for all rounds of it, and is no
//! smaller for more of them. Where a difference of few percent matters they are started anew: a sitting, which counts as one figure.

use serde::{Deserialize, Serialize};

/// The median of some rounds, and the range that they were in.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The middle one; of an even number, the mean of the two in the middle.
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    /// Of at least one figure.
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = figures.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            (sorted[middle - 1] + sorted[middle]) / 2.0
        };
        Some(Self { median, min, max })
    }

    /// Of the ratios of ours to theirs, round by round.
    pub fn of_ratios(
        ours: impl IntoIterator<Item = f64>,
        theirs: impl IntoIterator<Item = f64>,
    ) -> Option<Self> {
        let rounds = ours.into_iter().zip(theirs);
        Self::of(rounds.map(|(ours, theirs)| ours / theirs))
    }
}

/// How sure it is at least that a median is within its [interval](Interval::of_median).
const CONFIDENCE: f64 = 0.95;

/// Between which values something lies.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    pub low: f64,
    pub high: f64,
}

impl Interval {
    /// Where the median of all sittings that there could be lies, by 95 % at least, however they are distributed: by order
    /// statistics (Conover, Practical Nonparametric Statistics, section 3.2). `None` of fewer than 6.
    pub fn of_median(sittings: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = sittings.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let left_out = left_out(sorted.len())?;
        Some(Self {
            low: sorted[left_out],
            high: sorted[sorted.len() - 1 - left_out],
        })
    }
}

/// How many of the lowest, and of the highest, figures can be left out of an interval.
fn left_out(count: usize) -> Option<usize> {
    // That so many of them are below the median, each by an even chance.
    let mut chance = 0.5_f64.powi(i32::try_from(count).ok()?);
    let mut at_most = 0.0;
    let mut fitting = None;
    for below in 0..count / 2 {
        at_most += chance;
        if 1.0 - 2.0 * at_most < CONFIDENCE {
            break;
        }
        fitting = Some(below);
        chance *= (count - below) as f64 / (below + 1) as f64;
    }
    fitting
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_of_the_sorted_rounds() {
        for (figures, expected) in [
            (&[][..], None),
            (&[3.0], Some((3.0, 3.0, 3.0))),
            (&[9.0, 1.0, 4.0], Some((4.0, 1.0, 9.0))),
            (&[9.0, 1.0, 4.0, 5.0], Some((4.5, 1.0, 9.0))),
        ] {
            let spread = Spread::of(figures.iter().copied());
            let found = spread.map(|spread| (spread.median, spread.min, spread.max));
            assert_eq!(found, expected, "{figures:?}");
        }
    }

    #[test]
    fn a_median_is_as_sure_as_there_are_sittings() {
        // As the tables of the binomial distribution have it.
        for (count, expected) in [
            (0, None),
            (5, None),
            (6, Some((1.0, 6.0))),
            (8, Some((1.0, 8.0))),
            (9, Some((2.0, 8.0))),
            (12, Some((3.0, 10.0))),
            (20, Some((6.0, 15.0))),
        ] {
            let interval = Interval::of_median((1..=count).rev().map(f64::from));
            let found = interval.map(|interval| (interval.low, interval.high));
            assert_eq!(found, expected, "{count}");
        }
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        // The machine became twice as slow after the first round: the ratio did not.
        let ratio = Spread::of_ratios([200.0, 100.0, 110.0], [100.0, 50.0, 50.0]).unwrap();
        assert_eq!((ratio.median, ratio.min, ratio.max), (2.0, 2.0, 2.2));
    }
}
