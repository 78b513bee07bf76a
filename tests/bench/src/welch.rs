//! Between which values the difference of two means lies: Welch's approximate t-test ("The generalization of 'Student's'
//! problem when several different population variances are involved", Biometrika 34, 1947), which takes the two to be as
//! scattered as they are, and of as many figures as there are.

use std::f64::consts::{FRAC_PI_2, PI};

use crate::statistics::Interval;

/// From here on Student's distribution is the normal one, to three digits.
const FREEDOM_MAX: f64 = 1000.0;

/// How often an angle's range is halved: until it is as narrow as numbers are.
const HALVINGS: usize = 60;

/// The difference of the means, later less earlier, and where it lies with this confidence. `None` of fewer than two
/// figures on a side.
pub fn difference(earlier: &[f64], later: &[f64], confidence: f64) -> Option<(f64, Interval)> {
    let (earlier, later) = (Sample::of(earlier)?, Sample::of(later)?);
    let difference = later.mean - earlier.mean;
    let error = (earlier.error_squared + later.error_squared).sqrt();
    let half = if error > 0.0 {
        t_quantile(confidence, freedom(&earlier, &later)) * error
    } else {
        0.0
    };
    let interval = Interval {
        low: difference - half,
        high: difference + half,
    };
    Some((difference, interval))
}

/// Independent figures of one thing.
struct Sample {
    count: f64,
    mean: f64,
    /// The variance of the mean.
    error_squared: f64,
}

impl Sample {
    fn of(figures: &[f64]) -> Option<Self> {
        if figures.len() < 2 {
            return None;
        }
        let count = figures.len() as f64;
        let mean = figures.iter().sum::<f64>() / count;
        let squares: f64 = figures.iter().map(|figure| (figure - mean).powi(2)).sum();
        Some(Self {
            count,
            mean,
            error_squared: squares / (count - 1.0) / count,
        })
    }
}

/// Degrees of freedom by Welch and Satterthwaite, rounded down: rather too wide an interval than one too narrow.
fn freedom(earlier: &Sample, later: &Sample) -> usize {
    let part = |sample: &Sample| sample.error_squared.powi(2) / (sample.count - 1.0);
    let sum = earlier.error_squared + later.error_squared;
    let freedom = sum.powi(2) / (part(earlier) + part(later));
    freedom.clamp(1.0, FREEDOM_MAX) as usize
}

/// Which value a variable of Student's distribution stays below with this chance, its sign left out.
fn t_quantile(confidence: f64, freedom: usize) -> f64 {
    let (mut low, mut high) = (0.0, FRAC_PI_2);
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(low, high);
        if chance_within(middle, freedom) < confidence {
            low = middle;
        } else {
            high = middle;
        }
    }
    (freedom as f64).sqrt() * low.tan()
}

/// That a variable of Student's distribution is at most the tangent of this angle times the root of its degrees of freedom,
/// its sign left out: Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4.
fn chance_within(angle: f64, freedom: usize) -> f64 {
    let (sine, cosine) = angle.sin_cos();
    let first = freedom % 2 + 2;
    let mut term = if freedom.is_multiple_of(2) {
        1.0
    } else {
        cosine
    };
    let mut sum = if freedom == 1 { 0.0 } else { term };
    for step in (first..freedom.saturating_sub(1)).step_by(2) {
        term *= (step as f64 - 1.0) / step as f64 * cosine.powi(2);
        sum += term;
    }
    if freedom.is_multiple_of(2) {
        sine * sum
    } else {
        2.0 / PI * (angle + sine * sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_tables() {
        for (confidence, freedom, expected) in [
            (0.95, 1, 12.706),
            (0.95, 2, 4.303),
            (0.95, 3, 3.182),
            (0.95, 4, 2.776),
            (0.95, 5, 2.571),
            (0.95, 10, 2.228),
            (0.99, 30, 2.750),
            (0.95, 1000, 1.962),
        ] {
            let found = t_quantile(confidence, freedom);
            assert!(
                (found - expected).abs() < 1e-3,
                "{confidence} {freedom}: {found}"
            );
        }
    }

    /// Two samples of 15 with variances of 7.9 and 3.8: t is 2.46, of 25.0 degrees of freedom.
    #[test]
    fn an_interval_is_as_wide_as_both_samples_make_it() {
        let earlier = [
            27.5, 21.0, 19.0, 23.6, 17.0, 17.9, 16.9, 20.1, 21.9, 22.6, 23.1, 19.6, 19.0, 21.7,
            21.4,
        ];
        let later = [
            27.1, 22.0, 20.8, 23.4, 23.4, 23.5, 25.8, 22.0, 24.8, 20.2, 21.9, 22.1, 22.9, 20.5,
            24.4,
        ];
        let (difference, interval) = difference(&earlier, &later, 0.95).unwrap();
        for (found, expected) in [
            (difference, 2.167),
            (interval.low, 0.346),
            (interval.high, 3.988),
        ] {
            assert!((found - expected).abs() < 0.01, "{found}: {expected}");
        }
    }

    #[test]
    fn one_figure_tells_nothing_and_equal_ones_are_certain() {
        assert!(difference(&[1.0], &[1.0, 2.0], 0.95).is_none());
        assert!(difference(&[1.0, 2.0], &[], 0.95).is_none());
        let (difference, interval) = difference(&[1.0, 1.0], &[3.0, 3.0], 0.95).unwrap();
        assert_eq!((difference, interval.low, interval.high), (2.0, 2.0, 2.0));
    }
}
