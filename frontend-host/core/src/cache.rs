//! What may be kept of what the catalog answers, what may be served of it, and what an
//! invalidation does.
//!
//! A kept value has a [`Tag`], which only [`Fetches::admit`] makes. Between asking the catalog
//! and its answer an invalidation may pass by; the **floor** of a stock that is being fetched
//! remembers it, and an answer below the floor is not admitted.
//!
//! The caller sees to it that [`Fetches::admit`] with the insertion that follows, and
//! [`Fetches::invalidate`] with the removal that follows, come wholly before or after each
//! other; and that an invalidation is acknowledged only after both its steps.

use std::collections::BTreeMap;
use std::time::Duration;

use domain::time::BootTime;
use domain::{SessionId, StockName, Version};

use crate::ablation::{Rule, Rules};
use crate::lease::Lease;

/// How fresh a read must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// Never older than what any client has already seen.
    Linearizable,
    /// At most so old.
    AtMost(Duration),
    /// From the backend, and not kept.
    Bypass,
}

/// Under what a stock's value is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tag {
    version: Version,
    /// The session under which the catalog tells of changes.
    session: Option<SessionId>,
    asked: BootTime,
}

impl Tag {
    /// When the catalog was asked for the value.
    pub fn asked(&self) -> BootTime {
        self.asked
    }

    /// Whether the value may be served. The lease and the clock are to be read *after* the
    /// value was found: that is the read's linearization point.
    pub fn is_fresh(&self, freshness: Freshness, lease: &Lease, now: BootTime) -> bool {
        let is_current = || {
            self.session
                .is_some_and(|session| lease.covers(session, now))
        };
        match freshness {
            Freshness::Linearizable => is_current(),
            Freshness::AtMost(age) => now.since(self.asked) <= age || is_current(),
            Freshness::Bypass => false,
        }
    }
}

/// A question to the catalog that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Ask {
    name: StockName,
    session: Option<SessionId>,
    asked: BootTime,
}

impl Ask {
    pub fn name(&self) -> &StockName {
        &self.name
    }

    /// The session to be named to the catalog, which then tells it of changes.
    pub fn session(&self) -> Option<SessionId> {
        self.session
    }

    pub fn asked(&self) -> BootTime {
        self.asked
    }
}

/// What the catalog answered, but for the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Answer {
    pub version: Version,
    /// The catalog's word that it will tell the session of changes.
    pub registered: bool,
}

/// The stocks that are being asked for, and what invalidations passed by meanwhile.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Fetches {
    stocks: BTreeMap<StockName, Fetching>,
    rules: Rules,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
struct Fetching {
    asks: u32,
    floor: Version,
}

impl Fetches {
    #[cfg(feature = "ablation")]
    pub fn under(self, rules: Rules) -> Self {
        Self { rules, ..self }
    }

    /// The catalog is about to be asked: under the current session where the answer is to be
    /// current, under none where its age is what matters. To be [ended](Fetches::end).
    pub fn begin(
        &mut self,
        name: StockName,
        freshness: Freshness,
        lease: &Lease,
        now: BootTime,
    ) -> Ask {
        self.stocks.entry(name.clone()).or_default().asks += 1;
        let session = match freshness {
            Freshness::Linearizable => lease.current(now),
            Freshness::AtMost(_) | Freshness::Bypass => None,
        };
        Ask {
            name,
            session,
            asked: now,
        }
    }

    /// What an answer may be kept under; `None` where it may not be kept. It may where the
    /// session is still the one it was asked under, and no invalidation above its version has
    /// passed by.
    pub fn admit(&self, ask: &Ask, answer: Answer, lease: &Lease) -> Option<Tag> {
        if ask.session.is_some() {
            let registered = answer.registered || !self.rules.keep(Rule::Registered);
            let same = ask.session == lease.session() || !self.rules.keep(Rule::SessionCheck);
            if !(registered && same) {
                return None;
            }
        }
        let floor = self.stocks.get(&ask.name).map(|fetching| fetching.floor);
        let below = floor.is_some_and(|floor| answer.version < floor);
        if below && self.rules.keep(Rule::Floor) {
            return None;
        }
        Some(Tag {
            version: answer.version,
            session: ask.session,
            asked: ask.asked,
        })
    }

    /// The question is no longer under way, whatever came of it. Its stock's floor lasts no
    /// longer than the last question about it.
    pub fn end(&mut self, ask: &Ask) {
        let Some(fetching) = self.stocks.get_mut(&ask.name) else {
            return;
        };
        fetching.asks -= 1;
        if fetching.asks == 0 {
            self.stocks.remove(&ask.name);
        }
    }

    /// Nothing of that stock below `floor` may be served any more: no answer under way will be
    /// admitted that is. Says whether what is `kept` of the stock must go.
    pub fn invalidate(&mut self, name: &StockName, floor: Version, kept: Option<Tag>) -> bool {
        if let Some(fetching) = self.stocks.get_mut(name) {
            fetching.floor = fetching.floor.max(floor);
        }
        kept.is_some_and(|kept| kept.version < floor)
    }

    /// Whether nothing is under way.
    pub fn is_empty(&self) -> bool {
        self.stocks.is_empty()
    }
}

#[cfg(test)]
mod tests;
