//! Until when the gateway may believe its cache.
//!
//! Callbacks with leases after Gray and Cheriton, "Leases: An Efficient Fault-Tolerant
//! Mechanism for Distributed File Cache Consistency" (SOSP 1989). The catalog promises to
//! tell before it lets anyone see a newer value, for as long as the lease runs. The gateway
//! counts the lease from before it asked, the catalog from when it was asked, so the gateway
//! stops believing first.

use std::collections::VecDeque;
use std::time::Duration;

use domain::SessionId;
use domain::time::BootTime;

use crate::ablation::{Rule, Rules};

/// By how much earlier than the catalog the gateway lets a lease go, for clocks that do not
/// run at quite the same rate: a hundredth of the lease and this.
const MARGIN_MIN: Duration = Duration::from_millis(5);
const MARGIN_SHARE: u32 = 100;

/// Renewals that may be under way. Past that the oldest is forgotten, which is safe.
const RENEWALS_MAX: usize = 16;

/// What the gateway may believe, and until when. The default is nothing: there is no session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Lease {
    session: Option<SessionId>,
    /// From then on nothing cached under the session is current.
    deadline: BootTime,
    length: Duration,
    rules: Rules,
}

impl Lease {
    /// The session that the catalog knows the gateway by, whether or not its lease runs.
    pub fn session(&self) -> Option<SessionId> {
        self.session
    }

    /// How long a lease is.
    pub fn length(&self) -> Duration {
        self.length
    }

    /// The session whose lease runs at `now`.
    pub fn current(&self, now: BootTime) -> Option<SessionId> {
        self.session
            .filter(|_| now < self.deadline || !self.rules.keep(Rule::LeaseCheck))
    }

    /// Whether what was cached under `session` is current at `now`. Call it *after* reading
    /// the cached entry, with a clock read after it as well.
    pub fn covers(&self, session: SessionId, now: BootTime) -> bool {
        self.current(now)
            .is_some_and(|current| current == session || !self.rules.keep(Rule::SessionCheck))
    }
}

/// Follows one session from its opening to its end.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Session {
    lease: Lease,
    /// Nonces and times of the renewals under way, oldest first.
    renewals: VecDeque<(u64, BootTime)>,
    nonce_last: u64,
}

impl Session {
    /// The catalog answered an Open that was sent at `sent`.
    pub fn opened(session: SessionId, length: Duration, sent: BootTime) -> Self {
        let lease = Lease {
            session: Some(session),
            deadline: deadline(sent, length),
            length,
            rules: Rules::default(),
        };
        Self {
            lease,
            renewals: VecDeque::new(),
            nonce_last: 0,
        }
    }

    #[cfg(feature = "ablation")]
    pub fn under(self, rules: Rules) -> Self {
        self.with_rules(rules)
    }

    pub(crate) fn with_rules(mut self, rules: Rules) -> Self {
        self.lease.rules = rules;
        self
    }

    /// What may be believed now.
    pub fn lease(&self) -> Lease {
        self.lease
    }

    /// How long to wait between renewals.
    pub fn renewal_interval(&self) -> Duration {
        self.lease.length / 4
    }

    /// A renewal is about to be sent at `now`: its nonce.
    pub fn renew(&mut self, now: BootTime) -> u64 {
        self.nonce_last += 1;
        if self.renewals.len() == RENEWALS_MAX {
            self.renewals.pop_front();
        }
        self.renewals.push_back((self.nonce_last, now));
        self.nonce_last
    }

    /// The catalog answered the renewal with that nonce.
    pub fn renewed(&mut self, nonce: u64) {
        while let Some((sent_nonce, sent)) = self.renewals.front().copied() {
            if sent_nonce > nonce {
                return;
            }
            self.renewals.pop_front();
            if sent_nonce == nonce {
                let renewed = deadline(sent, self.lease.length);
                self.lease.deadline = self.lease.deadline.max(renewed);
            }
        }
    }
}

fn deadline(sent: BootTime, length: Duration) -> BootTime {
    sent + less_margin(length)
}

/// Of a time by the catalog's clock, how much has certainly not passed by then when it has passed by
/// this gateway's.
pub(crate) fn less_margin(length: Duration) -> Duration {
    length.saturating_sub(MARGIN_MIN + length / MARGIN_SHARE)
}

#[cfg(test)]
mod tests;
