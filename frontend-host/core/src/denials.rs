//! What a gateway knows of buckets of tokens that are not full.
//!
//! The catalog keeps the buckets. When it denies tokens it says after how long there are so many, if
//! nobody else takes any: until then another take of as many would be denied as well, so who is over
//! its limit does not cost a call each time. Nothing is denied here that the catalog would grant.

use std::collections::BTreeMap;
use std::time::Duration;

use domain::Take;
use domain::time::BootTime;

use crate::ablation::{Rule, Rules};
use crate::lease::less_margin;

/// Buckets that tokens were denied of, by their keys.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Denials {
    known: BTreeMap<u128, Denial>,
    /// Most of them. Others are asked for each time.
    room: usize,
    /// Before then none of them is full again, as far as known.
    none_over_before: BootTime,
    rules: Rules,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Denial {
    /// When the catalog was asked.
    asked: BootTime,
    /// The bucket is full then at the earliest.
    full_at: BootTime,
}

impl Denial {
    /// How long after it was asked so many tokens are there, at the earliest; by the catalog's clock.
    fn wait(&self, take: &Take) -> Duration {
        let full_at = self.full_at + take.rate.time_of(take.cost);
        full_at.since(self.asked + take.rate.time_of(take.rate.burst()))
    }
}

impl Denials {
    /// With room for so many.
    pub fn new(room: usize) -> Self {
        Self {
            known: BTreeMap::new(),
            room,
            none_over_before: BootTime::default(),
            rules: Rules::default(),
        }
    }

    /// The same without a protective rule.
    #[cfg(feature = "ablation")]
    pub fn under(self, rules: Rules) -> Self {
        Self { rules, ..self }
    }

    /// How long it takes until there are so many tokens, where there certainly are not. `None`: ask the
    /// catalog.
    pub fn wait(&self, take: &Take, now: BootTime) -> Option<Duration> {
        let denial = self.known.get(&take.key)?;
        let wait = denial.wait(take);
        let certain = match self.rules.keep(Rule::DenialMargin) {
            true => less_margin(wait),
            false => wait,
        };
        let over_at = denial.asked + wait;
        (now < denial.asked + certain).then(|| over_at.since(now))
    }

    /// The catalog, asked at `asked`, denied tokens; there are so many after `wait`.
    pub fn note(&mut self, take: &Take, wait: Duration, asked: BootTime, now: BootTime) {
        let asked = match self.rules.keep(Rule::DenialFromAsking) {
            true => asked,
            false => now,
        };
        let full_at = asked + take.rate.time_of(take.rate.burst()) + wait;
        let full_at = full_at - take.rate.time_of(take.cost);
        if let Some(known) = self.known.get_mut(&take.key) {
            if known.full_at < full_at {
                *known = Denial { asked, full_at };
            }
            return;
        }
        if self.known.len() >= self.room && now >= self.none_over_before {
            self.known.retain(|_, denial| denial.full_at > now);
            let earliest = self.known.values().map(|denial| denial.full_at).min();
            self.none_over_before = earliest.unwrap_or(now);
        }
        if self.known.len() < self.room {
            self.known.insert(take.key, Denial { asked, full_at });
            self.none_over_before = self.none_over_before.min(full_at);
        }
    }

    /// How many are known.
    pub fn known(&self) -> usize {
        self.known.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::Rate;

    fn at(millis: u64) -> BootTime {
        BootTime::from_millis(millis)
    }

    const fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// Of a bucket of four tokens, one of which comes back in a second.
    fn take(key: u128, cost: u32) -> Take {
        Take {
            key,
            crowd: 0,
            rate: Rate::new(1, millis(1000), 4).unwrap(),
            cost,
        }
    }

    #[test]
    fn a_denial_holds_for_a_little_less_than_the_catalog_said_from_before_it_was_asked() {
        let mut denials = Denials::new(9);
        assert_eq!(denials.wait(&take(1, 1), at(5_000)), None);
        denials.note(&take(1, 1), millis(1_000), at(5_000), at(5_300));
        assert_eq!(denials.wait(&take(1, 1), at(5_300)), Some(millis(700)));
        assert_eq!(denials.wait(&take(1, 1), at(5_984)), Some(millis(16)));
        assert_eq!(denials.wait(&take(1, 1), at(5_985)), None);
        assert_eq!(denials.wait(&take(2, 1), at(5_300)), None, "another's");
        // What costs more takes longer.
        assert_eq!(denials.wait(&take(1, 3), at(5_985)), Some(millis(2_015)));
    }

    #[test]
    fn tokens_that_may_be_there_are_not_denied() {
        let mut denials = Denials::new(9);
        denials.note(&take(1, 4), millis(1_000), at(5_000), at(5_000));
        assert_eq!(denials.wait(&take(1, 4), at(5_000)), Some(millis(1_000)));
        assert_eq!(denials.wait(&take(1, 3), at(5_000)), None, "three are left");
        // A later word counts, an earlier one that comes late does not.
        denials.note(&take(1, 3), millis(1_500), at(6_000), at(6_000));
        denials.note(&take(1, 4), millis(1_000), at(5_000), at(6_100));
        assert_eq!(denials.wait(&take(1, 3), at(6_100)), Some(millis(1_400)));
    }

    #[test]
    fn what_is_known_has_a_bound_and_makes_room_when_it_is_over() {
        let mut denials = Denials::new(2);
        for (key, wait) in [(1, 1_000), (2, 9_000), (3, 9_000)] {
            denials.note(&take(key, 4), millis(wait), at(0), at(0));
        }
        assert_eq!(denials.known(), 2);
        assert_eq!(denials.wait(&take(3, 4), at(10)), None, "there is no room");
        denials.note(&take(3, 4), millis(7_000), at(2_000), at(2_000));
        assert_eq!(denials.known(), 2);
        assert_eq!(denials.wait(&take(3, 4), at(2_000)), Some(millis(7_000)));
        assert_eq!(denials.wait(&take(2, 4), at(2_000)), Some(millis(7_000)));
    }
}
