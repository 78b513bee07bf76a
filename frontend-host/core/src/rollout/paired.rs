//! Decisions that both versions made about the same input.

use std::time::Duration;

/// How two versions decided about the same inputs. Since nothing but the version differs, what is seen of few
/// inputs says much.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Paired {
    /// Inputs that both decided about.
    pub decisions: u64,
    /// Those about which they decided differently.
    pub different: u64,
    /// Those at which the version on trial failed.
    pub failed: u64,
    /// Those at which it alone refused something: with an answer of 400 or more.
    pub refused: u64,
    /// Those at which it let in what the active version refused with an answer of 400 to 499.
    pub admitted: u64,
    /// Those whose decisions were timed in both.
    pub timed: u64,
    /// Those of them that took the version on trial more than its limit allows.
    pub slower: u64,
}

/// What is seen of one decision of the version on trial.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    pub is_different: bool,
    pub has_failed: bool,
    /// It refused what the active version did not.
    pub has_refused: bool,
    /// It let in what the active version refused.
    pub has_admitted: bool,
}

/// By how much a decision may always take longer: what a clock and a cold cache make of it.
const SLOWER_BY_MIN: Duration = Duration::from_micros(50);

impl Paired {
    /// Both decided. A failure is a difference as well.
    pub fn note(&mut self, seen: Seen) {
        self.decisions += 1;
        self.different += u64::from(seen.is_different || seen.has_failed);
        self.failed += u64::from(seen.has_failed);
        self.refused += u64::from(seen.has_refused);
        self.admitted += u64::from(seen.has_admitted);
    }

    /// Both were timed; `ratio_max` times as long is within the limit.
    pub fn note_times(&mut self, active: Duration, candidate: Duration, ratio_max: f64) {
        self.timed += 1;
        let longest = active.mul_f64(ratio_max).max(active + SLOWER_BY_MIN);
        self.slower += u64::from(candidate > longest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_is_slower_by_a_ratio_and_by_a_time() {
        let mut paired = Paired::default();
        let us = Duration::from_micros;
        for (active, candidate) in [(10, 59), (1000, 1499)] {
            paired.note_times(us(active), us(candidate), 1.5);
        }
        assert_eq!((paired.timed, paired.slower), (2, 0));
        for (active, candidate) in [(10, 61), (1000, 1501)] {
            paired.note_times(us(active), us(candidate), 1.5);
        }
        assert_eq!((paired.timed, paired.slower), (4, 2));
    }
}
