//! Which stocks are lent to nobody for a while, since leases on them do not pay.
//!
//! A lease pays where it answers reads at the gateway before it is recalled. Each recall is an invalidation and an
//! acknowledgement for each holder, and the trade waits for all of them; a read without a lease is a look-up at the
//! catalog. What a gateway answers by a lease the catalog does not see, so it finds out what leases would save by
//! lending none: it withholds a stock that was recalled [`RECALLS_HOT`] times within a second or so, and every read of
//! it is a look-up that is counted. Of each session the first one after a trade would have been lent the stock, and
//! that lease recalled by the next trade; all others it would have answered. Where that is
//! [`LOOKUPS_PER_RECALL`] for each recall, the stock is lent again.
//!
//! An answer without a lease is right at any time: this decides what reads and trades cost, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use domain::time::BootTime;
use domain::{SessionId, StockName};

use crate::leases::SESSIONS_MAX;

/// So many look-ups each recall must have saved for leases to pay. On the machine of `docs/SCALING.md` a recall took as much
/// processor time as 2.3 look-ups; and trades wait for it, also those of other stocks that share a commit with them.
const LOOKUPS_PER_RECALL: u64 = 4;

/// A stock that was recalled so often is withheld. The count is halved once each [`PERIOD`], so that is by 16 to 32 trades a second.
const RECALLS_HOT: u32 = 32;

/// How often counts of recalls are halved.
const PERIOD: Duration = Duration::from_secs(1);

/// Trades between which look-ups are to be counted before it is believed that leases pay: one long pause says little.
const TRADES_JUDGED: u64 = 16;

/// Look-ups that leases would have answered after which it is believed sooner. So to find out that they pay costs so many
/// look-ups, or [`LOOKUPS_PER_RECALL`] for each session that reads the stock.
const LOOKUPS_JUDGED: u64 = 1024;

/// A stock is withheld for so long after its last trade at most.
const WITHHELD_MAX: Duration = Duration::from_secs(1);

/// Where leases pay, it is not asked again for so long.
const PAYS_FOR: Duration = Duration::from_secs(10);

/// Most stocks whose recalls are counted.
const COUNTED_MAX: usize = 256;

/// Most stocks that are withheld, or were. More are lent, as all others.
const TRIED_MAX: usize = 256;

/// The stocks that are traded the most while gateways hold them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HotStocks {
    /// Of those that are recalled most often, by Misra & Gries ("Finding repeated elements", Science of Computer
    /// Programming 2, 1982): one that has more than a 256th of all recalls since the last halving is among them.
    recalls: BTreeMap<StockName, u32>,
    halved_at: BootTime,
    tried: BTreeMap<StockName, Tried>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Tried {
    Withheld(Account),
    /// Leases on it pay, as far as is known until then.
    Pays {
        until: BootTime,
    },
}

impl Tried {
    fn is_over(&self, now: BootTime) -> bool {
        match self {
            Self::Withheld(account) => account.until <= now,
            Self::Pays { until } => *until <= now,
        }
    }
}

/// What leases on a stock would have come to, had it been lent.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Account {
    /// Those who would hold it: they have looked it up since the last trade.
    readers: BTreeSet<SessionId>,
    /// Look-ups that leases would have answered.
    answered: u64,
    /// Leases that trades would have recalled.
    recalls: u64,
    trades: u64,
    until: BootTime,
}

impl Account {
    fn new(now: BootTime) -> Self {
        Self {
            readers: BTreeSet::new(),
            answered: 0,
            recalls: 0,
            trades: 0,
            until: now + WITHHELD_MAX,
        }
    }

    /// Returns whether it is known now that leases pay.
    fn looked_up(&mut self, session: SessionId) -> bool {
        if self.readers.contains(&session) {
            self.answered += 1;
        } else if self.readers.len() < SESSIONS_MAX {
            self.readers.insert(session);
        }
        let recalls = self.recalls + self.readers.len() as u64;
        let is_judged = self.trades >= TRADES_JUDGED || self.answered >= LOOKUPS_JUDGED;
        is_judged && self.answered >= LOOKUPS_PER_RECALL * recalls
    }

    fn traded(&mut self, now: BootTime) {
        self.recalls += self.readers.len() as u64;
        self.readers.clear();
        self.trades += 1;
        self.until = now + WITHHELD_MAX;
        // What was long ago counts for less and less.
        if self.trades >= 2 * TRADES_JUDGED {
            self.trades /= 2;
            self.recalls /= 2;
            self.answered /= 2;
        }
    }
}

impl HotStocks {
    /// Whether a session that looks up a stock, no change of which is under way, may be lent it.
    pub fn may_lend(&mut self, name: &StockName, session: SessionId, now: BootTime) -> bool {
        let Some(Tried::Withheld(account)) = self.tried.get_mut(name) else {
            return true;
        };
        if account.until <= now {
            self.tried.remove(name);
            return true;
        }
        if !account.looked_up(session) {
            return false;
        }
        let until = now + PAYS_FOR;
        self.tried.insert(name.clone(), Tried::Pays { until });
        true
    }

    /// A trade of the stock found it held.
    pub fn recalled(&mut self, name: &StockName) {
        if let Some(count) = self.recalls.get_mut(name) {
            *count = count.saturating_add(1);
        } else if self.recalls.len() < COUNTED_MAX {
            self.recalls.insert(name.clone(), 1);
        } else {
            self.recalls.retain(|_, count| {
                *count -= 1;
                *count > 0
            });
        }
    }

    /// Trades of these stocks, each of which is named once, are durable.
    pub fn traded<'a>(&mut self, names: impl IntoIterator<Item = &'a StockName>, now: BootTime) {
        self.forget(now);
        for name in names {
            let tried = self.tried.get_mut(name);
            match tried.filter(|tried| !tried.is_over(now)) {
                Some(Tried::Withheld(account)) => account.traded(now),
                Some(Tried::Pays { .. }) => {}
                None => self.withhold_if_hot(name, now),
            }
        }
    }

    /// How many stocks are withheld.
    pub fn withheld(&self, now: BootTime) -> usize {
        let tried = self.tried.values();
        tried
            .filter(|tried| matches!(tried, Tried::Withheld(account) if account.until > now))
            .count()
    }

    fn withhold_if_hot(&mut self, name: &StockName, now: BootTime) {
        let is_hot = self.recalls.get(name) >= Some(&RECALLS_HOT);
        let has_room = self.tried.len() < TRIED_MAX || self.tried.contains_key(name);
        if is_hot && has_room {
            self.recalls.remove(name);
            let withheld = Tried::Withheld(Account::new(now));
            self.tried.insert(name.clone(), withheld);
        }
    }

    /// Once each period: halves what was counted for each that has passed, and forgets what is over.
    fn forget(&mut self, now: BootTime) {
        let passed = now.since(self.halved_at).as_millis() / PERIOD.as_millis();
        if passed == 0 {
            return;
        }
        let halvings = u32::try_from(passed).unwrap_or(u32::MAX);
        self.recalls.retain(|_, count| {
            *count = count.checked_shr(halvings).unwrap_or(0);
            *count > 0
        });
        self.tried.retain(|_, tried| !tried.is_over(now));
        self.halved_at = now;
    }
}

#[cfg(test)]
mod tests;
