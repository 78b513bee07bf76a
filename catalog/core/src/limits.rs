//! How often something may be done, over all gateways: buckets of tokens.
//!
//! A bucket holds up to `burst` tokens, which come back evenly. What is kept of one is when it is full
//! again ([`Rate`](domain::Rate)): a full one is like one that there never was, so nothing is kept of it.
//!
//! There is room for so many buckets that are not full. Whoever is new when there is none shares a
//! bucket with all others who came in vain, and begins with what is left in it when there is room
//! again. So nobody ever takes more than `burst`, and what comes back meanwhile; in a crowd some get
//! less.
//!
//! No database has the buckets while they are used. A catalog that starts again and was left no [`Snapshot`] does not know
//! what was taken before, so all of them begin empty then.

use std::collections::BTreeMap;
use std::time::Duration;

use domain::Take;
use domain::time::BootTime;

use super::ablation::{Rule, Rules};

/// Parts that keys are spread over. A power of two.
pub const SHARDS: usize = 64;

/// Buckets that are not full, of one part: 262,144 in all, which take some 16 MiB. Who is beyond them
/// shares one with the others of its part.
pub const ROOM: usize = 4096;

/// The buckets that are not full.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Limits {
    /// A look through one for those that are full again takes microseconds.
    shards: Vec<Shard>,
    /// Most in each, but for those of crowds.
    room: usize,
    /// Since when tokens have come back into those of which nothing is kept; `None`: for ever.
    empty: Option<Empty>,
    rules: Rules,
}

/// Since when tokens have come back: at that time they had for so long. By a clock that begins anew with the
/// machine, the one alone may be before its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Empty {
    at: BootTime,
    before: Duration,
}

/// What is left to come back, at a moment that may be on another clock by now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// For how long tokens have come back into those of which nothing is kept; `None`: for ever.
    pub since_empty: Option<Duration>,
    /// Of each part, after how long its buckets are full.
    pub shards: Vec<Vec<(u128, Duration)>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Shard {
    /// When each is full again.
    full_at: BTreeMap<u128, BootTime>,
    /// Before then none of them is full, as far as known.
    none_full_before: BootTime,
}

impl Limits {
    /// All buckets are full: nobody has taken anything yet.
    pub fn new() -> Self {
        Self {
            shards: vec![Shard::default(); SHARDS],
            room: ROOM,
            empty: None,
            rules: Rules::default(),
        }
    }

    /// All buckets are empty: what was taken before is not known.
    pub fn empty_at(now: BootTime) -> Self {
        Self {
            empty: Some(Empty {
                at: now,
                before: Duration::ZERO,
            }),
            ..Self::new()
        }
    }

    /// As they were left: whatever has passed since, nothing has come back. `None` where no limits leave
    /// that.
    pub fn resumed(left: &Snapshot, now: BootTime) -> Option<Self> {
        let is_whole = left.shards.len() == SHARDS;
        let shard = |buckets: &Vec<(u128, Duration)>| Shard {
            full_at: buckets
                .iter()
                .map(|(key, left)| (*key, now + *left))
                .collect(),
            none_full_before: BootTime::default(),
        };
        is_whole.then(|| Self {
            shards: left.shards.iter().map(shard).collect(),
            empty: left.since_empty.map(|before| Empty { at: now, before }),
            ..Self::new()
        })
    }

    /// What is left to come back.
    pub fn snapshot(&self, now: BootTime) -> Snapshot {
        let left = |shard: &Shard| {
            let left = shard.full_at.iter().map(|(key, at)| (*key, at.since(now)));
            left.filter(|(_, left)| !left.is_zero()).collect()
        };
        Snapshot {
            since_empty: self.empty.map(|empty| empty.before + now.since(empty.at)),
            shards: self.shards.iter().map(left).collect(),
        }
    }

    /// The same with so many parts, and room for so many buckets in each.
    pub fn within(self, shards: usize, room: usize) -> Self {
        Self {
            shards: vec![Shard::default(); shards],
            room,
            ..self
        }
    }

    /// The same without a protective rule.
    #[cfg(feature = "ablation")]
    pub fn under(self, rules: Rules) -> Self {
        Self { rules, ..self }
    }

    /// Takes tokens out of a bucket.
    ///
    /// # Errors
    /// Where there are not so many in it: how long it takes until there are, if nobody else takes any.
    pub fn take(&mut self, take: &Take, now: BootTime) -> Result<(), Duration> {
        let shard = take.key as usize % self.shards.len();
        let shard = &mut self.shards[shard];
        let key = shard.place_of(take, self.room, now);
        // Who is new begins with what those had who had no room.
        let kept = match shard.full_at.get(&key) {
            None if self.rules.keep(Rule::CrowdsRest) => shard.full_at.get(&take.crowd),
            kept => kept,
        };
        let full_at = match (kept, self.empty) {
            (Some(full_at), _) => *full_at,
            (None, Some(empty)) if self.rules.keep(Rule::EmptyStart) => {
                let takes = take.rate.time_of(take.rate.burst());
                empty.at + takes.saturating_sub(empty.before)
            }
            (None, _) => now,
        };
        let full_at = take.rate.take(full_at, take.cost, now)?;
        shard.full_at.insert(key, full_at);
        shard.none_full_before = shard.none_full_before.min(full_at);
        Ok(())
    }

    /// How many are kept.
    pub fn kept(&self) -> usize {
        self.shards.iter().map(|shard| shard.full_at.len()).sum()
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::new()
    }
}

impl Shard {
    /// Under which key there is a bucket for it.
    fn place_of(&mut self, take: &Take, room: usize, now: BootTime) -> u128 {
        if self.full_at.len() < room || self.full_at.contains_key(&take.key) {
            return take.key;
        }
        if now >= self.none_full_before {
            self.full_at.retain(|_, full_at| *full_at > now);
            let earliest = self.full_at.values().min();
            self.none_full_before = earliest.copied().unwrap_or(now);
        }
        if self.full_at.len() < room {
            take.key
        } else {
            take.crowd
        }
    }
}

#[cfg(test)]
mod tests;
