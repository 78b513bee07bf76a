//! Which elections slow the next one down, and whom it passes over.
//!
//! Gateways that see different replicas would depose each other's choice without end, and so
//! would one that deposes whoever is slow on a busy machine. So elections that follow each other
//! too closely are slowed down. An election that replaces a leader that is *gone* does not count:
//! however often leaders die, the next one is elected at once.

use std::collections::VecDeque;
use std::time::Duration;

use domain::time::BootTime;
use domain::{ReplicaId, Term};

use super::{Probed, Unanswered};

/// Elections of one replica in a row, each soon after the one before, after which it is passed
/// over: it is there, and cannot lead (its disk is full, say).
const ELECTIONS_IN_VAIN_MAX: u32 = 3;

/// Within that time of its last election a replica is elected again in vain.
const IN_VAIN: Duration = Duration::from_secs(2);

/// How long a replica is passed over.
const PASSED_OVER: Duration = Duration::from_secs(5);

/// How far back elections are counted, by whichever gateway.
const COUNTED: Duration = Duration::from_secs(10);

/// Elections within that time that are not slowed down.
const ELECTIONS_AT_ONCE: usize = 8;

/// Elections that are counted. One more would not slow the next one down any further.
const ELECTIONS_COUNTED_MAX: usize = 32;

/// Pause before the first election that is slowed down; it doubles with each further one.
const SLOWED_DOWN_MIN: Duration = Duration::from_millis(200);
const SLOWED_DOWN_MAX: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Default)]
pub struct ElectionBackoff {
    last: Option<(ReplicaId, BootTime)>,
    in_vain: u32,
    passed_over: Option<(ReplicaId, BootTime)>,
    term: Term,
    /// The latest elections that count, oldest first.
    deposed: VecDeque<Deposed>,
}

/// A leader whose epoch is over.
#[derive(Debug, Clone, Copy)]
struct Deposed {
    leader: ReplicaId,
    at: BootTime,
    /// A probe that was sent since has shown that it was not gone.
    is_there: bool,
}

impl Deposed {
    /// Whether it still counts, after what the probes say.
    fn counts(&mut self, probed: &[Probed]) -> bool {
        let since = |probed: &&Probed| probed.id == self.leader && probed.asked >= self.at;
        if !self.is_there
            && let Some(probed) = probed.iter().find(since)
        {
            if probed.status == Err(Unanswered::Gone) {
                return false;
            }
            self.is_there = true;
        }
        true
    }
}

impl ElectionBackoff {
    /// This gateway had a replica elected.
    pub fn elected(&mut self, candidate: ReplicaId, now: BootTime) {
        let again = self
            .last
            .is_some_and(|(id, at)| id == candidate && now.since(at) < IN_VAIN);
        self.in_vain = if again { self.in_vain + 1 } else { 0 };
        self.last = Some((candidate, now));
        if self.in_vain >= ELECTIONS_IN_VAIN_MAX {
            self.in_vain = 0;
            self.passed_over = Some((candidate, now + PASSED_OVER));
        }
    }

    /// The catalog says who leads, whichever gateway had it elected; and so do the probes.
    pub fn observed(&mut self, term: Term, probed: &[Probed], now: BootTime) {
        let before = self.term;
        if term.epoch > before.epoch {
            self.term = term;
            if let Some(leader) = before.leader {
                self.deposed.push_back(Deposed {
                    leader,
                    at: now,
                    is_there: false,
                });
            }
        }
        self.deposed
            .retain_mut(|deposed| now.since(deposed.at) <= COUNTED && deposed.counts(probed));
        if self.deposed.len() > ELECTIONS_COUNTED_MAX {
            self.deposed.pop_front();
        }
    }

    /// Whether there may be another election now. `jitter`, from 0 to 1, keeps gateways that
    /// slow down from doing so in step.
    pub fn may_elect(&self, now: BootTime, jitter: f64) -> bool {
        let Some(latest) = self.deposed.back() else {
            return true;
        };
        let Some(slowed) = self.deposed.len().checked_sub(ELECTIONS_AT_ONCE) else {
            return true;
        };
        let doubled = SLOWED_DOWN_MIN.saturating_mul(1 << slowed.min(10));
        now.since(latest.at) >= doubled.min(SLOWED_DOWN_MAX).mul_f64(1.0 + jitter)
    }

    /// The replicas as the policy is to see them: one that is passed over does not seem
    /// healthy, where another does.
    pub fn seen(&self, probed: &[Probed], now: BootTime) -> Vec<Probed> {
        let passed_over = self
            .passed_over
            .filter(|(_, until)| now < *until)
            .map(|(id, _)| id);
        let others = probed
            .iter()
            .any(|other| other.status.is_ok() && Some(other.id) != passed_over);
        let mut seen = probed.to_vec();
        if others {
            seen.iter_mut()
                .filter(|one| Some(one.id) == passed_over)
                .for_each(|one| one.status = Err(Unanswered::Silent));
        }
        seen
    }
}

#[cfg(test)]
mod tests;
