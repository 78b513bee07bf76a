//! Who may hold which stock in a cache, and until when.
//!
//! Callbacks with leases (Gray & Cheriton, "Leases: An Efficient Fault-Tolerant Mechanism for
//! Distributed File Cache Consistency", SOSP 1989). A holder that is asked to let go either
//! acknowledges, or releases its session, or is waited for until its lease is certainly over.
//! A broken stream ends nothing early: the gateway behind it may still be serving.
//!
//! A gateway counts its lease from before it asked; here it counts from the receipt, plus a
//! margin for clocks that do not run at one speed. So a lease is over at its holder first.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use domain::time::BootTime;
use domain::{SessionId, StockName, Version};

use super::ablation::{Rule, Rules};

/// Most sessions at a time.
pub const SESSIONS_MAX: usize = 256;

/// What a session is asked to let go of at once, and acknowledges as one. Rises from 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Round(pub u64);

/// Nothing of that stock below that version may be kept any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Floor {
    pub name: StockName,
    /// The version that it is about to have.
    pub version: Version,
}

/// A session to be told to let go of stocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalidation {
    pub session: SessionId,
    /// What it is to acknowledge.
    pub round: Round,
    /// The stocks that it holds of those that change.
    pub floors: Vec<Floor>,
}

/// What a renewal came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// To be answered now.
    Granted,
    /// To be answered after the acknowledgements that the session owes. Otherwise a gateway
    /// that renews, but never acknowledges, could hold a trade up for ever.
    Deferred,
}

/// What an acknowledgement came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Acknowledged {
    /// Stocks that one holder less holds.
    pub released: Vec<StockName>,
    /// Nonce of the renewal that is now to be answered.
    pub renewed: Option<u64>,
}

/// The session is over, or never was. Only a new one helps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the session is over: open a new one")]
pub struct SessionExpired;

/// Why no session was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotOpened {
    /// There are [`SESSIONS_MAX`].
    #[error("{SESSIONS_MAX} sessions are open, which is as many as there may be")]
    TooMany,
    /// The id is a living session's.
    #[error("the session's id is taken")]
    Taken,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Leases {
    /// The lease, plus the margin.
    lease_max: Duration,
    sessions: BTreeMap<SessionId, Session>,
    holders: BTreeMap<StockName, BTreeSet<SessionId>>,
    last_round: Round,
    rules: Rules,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Session {
    expires: BootTime,
    /// Its stream is broken: it cannot be told to let go, so it gets nothing more to hold.
    is_disconnected: bool,
    holds: BTreeSet<StockName>,
    /// Rounds that it has not acknowledged.
    owes: BTreeMap<Round, Vec<StockName>>,
    deferred: Option<Deferred>,
}

/// A renewal that waits until `until` and all rounds before it are acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Deferred {
    nonce: u64,
    received: BootTime,
    until: Round,
}

impl Session {
    fn owes(&self, stock: &StockName) -> bool {
        self.owes.values().any(|stocks| stocks.contains(stock))
    }
}

impl Leases {
    /// No sessions. Their lease is counted here as `lease` plus `margin`.
    pub fn new(lease: Duration, margin: Duration) -> Self {
        Self {
            lease_max: lease + margin,
            sessions: BTreeMap::new(),
            holders: BTreeMap::new(),
            last_round: Round::default(),
            rules: Rules::default(),
        }
    }

    /// The same leases without a protective rule.
    #[cfg(feature = "ablation")]
    pub fn under(self, rules: Rules) -> Self {
        Self { rules, ..self }
    }

    /// The rules in force.
    pub(super) fn rules(&self) -> Rules {
        self.rules
    }

    /// How long after its last renewal a session is certainly over.
    pub fn lease_max(&self) -> Duration {
        self.lease_max
    }

    /// Opens a session, whose request came in at `received`.
    pub fn open(&mut self, id: SessionId, received: BootTime) -> Result<(), NotOpened> {
        if self.sessions.len() >= SESSIONS_MAX {
            return Err(NotOpened::TooMany);
        }
        if self.sessions.contains_key(&id) {
            return Err(NotOpened::Taken);
        }
        let session = Session {
            expires: received + self.lease_max,
            is_disconnected: false,
            holds: BTreeSet::new(),
            owes: BTreeMap::new(),
            deferred: None,
        };
        self.sessions.insert(id, session);
        Ok(())
    }

    /// Renews a session's lease. Of several renewals that must wait the first is kept, and
    /// the others are never answered.
    pub fn renew(
        &mut self,
        id: SessionId,
        nonce: u64,
        received: BootTime,
    ) -> Result<Renewal, SessionExpired> {
        let lease_max = self.lease_max;
        let session = self.living(id, received)?;
        if session.is_disconnected {
            return Err(SessionExpired);
        }
        if let Some((&until, _)) = session.owes.last_key_value() {
            session.deferred.get_or_insert(Deferred {
                nonce,
                received,
                until,
            });
            return Ok(Renewal::Deferred);
        }
        session.expires = session.expires.max(received + lease_max);
        Ok(Renewal::Granted)
    }

    /// Every stock of that round is out of that session's cache. A round that the session
    /// does not owe changes nothing.
    pub fn acknowledge(
        &mut self,
        id: SessionId,
        round: Round,
        now: BootTime,
    ) -> Result<Acknowledged, SessionExpired> {
        let lease_max = self.lease_max;
        let session = self.living(id, now)?;
        let released = session.owes.remove(&round).unwrap_or_default();
        let oldest = session.owes.first_key_value().map(|(&round, _)| round);
        let ready = session
            .deferred
            .take_if(|waits| oldest.is_none_or(|owed| owed > waits.until));
        if let Some(renewal) = ready {
            session.expires = session.expires.max(renewal.received + lease_max);
        }
        // Not by going through all that it holds, which may be 10,000 stocks.
        for stock in &released {
            session.holds.remove(stock);
        }
        for stock in &released {
            drop_holder(&mut self.holders, stock, id);
        }
        Ok(Acknowledged {
            released,
            renewed: ready.map(|renewal| renewal.nonce),
        })
    }

    /// The gateway serves nothing more under the session. Returns the stocks that it held;
    /// none where it was over anyway.
    pub fn release(&mut self, id: SessionId) -> Vec<StockName> {
        let Some(session) = self.sessions.remove(&id) else {
            return Vec::new();
        };
        for stock in &session.holds {
            drop_holder(&mut self.holders, stock, id);
        }
        session.holds.into_iter().collect()
    }

    /// The session's stream is broken. It lives on until it expires, for the gateway may
    /// still be serving, but is lent nothing more and not renewed.
    pub fn disconnect(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.is_disconnected = true;
            session.deferred = None;
        }
    }

    /// Ends the sessions whose lease is certainly over. Returns each with what it held.
    pub fn expire(&mut self, now: BootTime) -> Vec<(SessionId, Vec<StockName>)> {
        let over = self
            .sessions
            .iter()
            .filter(|(_, session)| session.expires <= now);
        let over: Vec<SessionId> = over.map(|(&id, _)| id).collect();
        over.into_iter().map(|id| (id, self.release(id))).collect()
    }

    /// When the next session would expire.
    pub fn next_expiry(&self) -> Option<BootTime> {
        self.sessions.values().map(|session| session.expires).min()
    }

    /// Whether no gateway can be serving anything under a session.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Makes the session a holder of the stock, **before** the stock is read for it. Says
    /// whether it may keep what is read.
    pub fn register(&mut self, id: SessionId, stock: &StockName, now: BootTime) -> bool {
        let rules = self.rules;
        let Ok(session) = self.living(id, now) else {
            return false;
        };
        if session.is_disconnected || session.owes(stock) && rules.keep(Rule::OwedFirst) {
            return false;
        }
        if !rules.keep(Rule::Registration) {
            return true;
        }
        if session.holds.insert(stock.clone()) {
            self.holders.entry(stock.clone()).or_default().insert(id);
        }
        true
    }

    /// Whether any session may still hold the stock.
    pub fn is_held(&self, stock: &StockName) -> bool {
        self.holders.contains_key(stock)
    }

    /// Whether the session holds anything.
    pub fn holds_any(&self, id: SessionId) -> bool {
        let session = self.sessions.get(&id);
        session.is_some_and(|session| !session.holds.is_empty())
    }

    /// Starts a round: says which sessions are to be told to let go of which of the stocks.
    /// A session that was told before, and has not acknowledged yet, is not told again: since
    /// then it was lent nothing of that stock.
    pub fn invalidate(&mut self, changes: &[Floor]) -> Vec<Invalidation> {
        let mut holding: BTreeMap<SessionId, Vec<Floor>> = BTreeMap::new();
        for floor in changes {
            for id in self.holders.get(&floor.name).into_iter().flatten() {
                if !self.sessions[id].owes(&floor.name) {
                    holding.entry(*id).or_default().push(floor.clone());
                }
            }
        }
        if holding.is_empty() {
            return Vec::new();
        }
        let round = Round(self.last_round.0 + 1);
        self.last_round = round;
        let mut invalidations = Vec::with_capacity(holding.len());
        for (id, floors) in holding {
            let session = self
                .sessions
                .get_mut(&id)
                .expect("holders have living sessions");
            let stocks = floors.iter().map(|floor| floor.name.clone()).collect();
            session.owes.insert(round, stocks);
            invalidations.push(Invalidation {
                session: id,
                round,
                floors,
            });
        }
        invalidations
    }

    fn living(&mut self, id: SessionId, now: BootTime) -> Result<&mut Session, SessionExpired> {
        self.sessions
            .get_mut(&id)
            .filter(|session| now < session.expires)
            .ok_or(SessionExpired)
    }
}

/// A stock without holders has no entry.
fn drop_holder(
    holders: &mut BTreeMap<StockName, BTreeSet<SessionId>>,
    stock: &StockName,
    id: SessionId,
) {
    if let Some(of_stock) = holders.get_mut(stock) {
        of_stock.remove(&id);
        if of_stock.is_empty() {
            holders.remove(stock);
        }
    }
}

#[cfg(test)]
mod tests;
