//! Medians of rounds, and ratios within them.
//!
//! Absolute figures of a shared machine mean little, and drift. So contenders take turns, and two
//! are compared round by round: the ratio of figures that were measured seconds apart.

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
    fn ratios_are_taken_round_by_round() {
        // The machine became twice as slow after the first round: the ratio did not.
        let ratio = Spread::of_ratios([200.0, 100.0, 110.0], [100.0, 50.0, 50.0]).unwrap();
        assert_eq!((ratio.median, ratio.min, ratio.max), (2.0, 2.0, 2.2));
    }
}
