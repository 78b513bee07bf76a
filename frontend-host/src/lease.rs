//! The gateway's side of the cache leases: pure, with the clock as a value.
//!
//! Callbacks with leases after Gray and Cheriton, "Leases: An Efficient Fault-Tolerant
//! Mechanism for Distributed File Cache Consistency" (SOSP 1989). The catalog promises to
//! tell before it lets anyone see a newer value, for as long as the lease runs. The gateway
//! counts the lease from before it asked, the catalog from when it was asked, so the gateway
//! stops believing first.

use std::collections::VecDeque;
use std::time::Duration;

use protocol::time::BootTime;

/// By how much earlier than the catalog the gateway lets a lease go, for clocks that do not
/// run at quite the same rate: a hundredth of the lease and this.
const MARGIN_MIN: Duration = Duration::from_millis(5);
const MARGIN_SHARE: u32 = 100;

/// Renewals that may be under way. Past that the oldest is forgotten, which is safe.
const RENEWALS_MAX: usize = 16;

/// What the gateway may believe, and until when.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lease {
    /// The session that the catalog knows the gateway by; 0 for none.
    pub session: u64,
    /// From then on nothing cached under the session is current.
    pub deadline: BootTime,
    /// How long a lease is.
    pub length: Duration,
}

impl Lease {
    /// Whether what was cached under `session` is current at `now`. Call it *after* reading
    /// the cached entry, with a clock read after it as well.
    pub fn covers(&self, session: u64, now: BootTime) -> bool {
        session != 0 && session == self.session && now < self.deadline
    }
}

/// Follows one session from its opening to its end.
#[derive(Debug)]
pub struct Session {
    lease: Lease,
    length: Duration,
    renewals: VecDeque<(u64, BootTime)>,
    nonce_last: u64,
}

impl Session {
    /// The catalog answered an Open that was sent at `sent`.
    pub fn opened(session: u64, length: Duration, sent: BootTime) -> Self {
        let lease = Lease {
            session,
            deadline: deadline(sent, length),
            length,
        };
        Self {
            lease,
            length,
            renewals: VecDeque::new(),
            nonce_last: 0,
        }
    }

    /// What may be believed now.
    pub fn lease(&self) -> Lease {
        self.lease
    }

    /// How long to wait between renewals.
    pub fn renewal_interval(&self) -> Duration {
        self.length / 4
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
                self.lease.deadline = self.lease.deadline.max(deadline(sent, self.length));
            }
        }
    }
}

fn deadline(sent: BootTime, length: Duration) -> BootTime {
    let margin = MARGIN_MIN + length / MARGIN_SHARE;
    sent + length.saturating_sub(margin)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(millis: u64) -> BootTime {
        BootTime::from_millis(millis)
    }

    #[test]
    fn a_lease_runs_from_before_it_was_asked_for_and_ends_early() {
        let session = Session::opened(7, SECOND, at(100));
        assert!(session.lease().covers(7, at(1084)));
        assert!(!session.lease().covers(7, at(1085)), "the margin is 15 ms");
        assert!(
            !session.lease().covers(6, at(100)),
            "another session's entry"
        );
        assert!(
            !Lease::default().covers(0, at(0)),
            "no session covers nothing"
        );
    }

    #[test]
    fn a_renewal_counts_from_its_sending() {
        let mut session = Session::opened(7, SECOND, at(0));
        let first = session.renew(at(250));
        let second = session.renew(at(500));
        session.renewed(second);
        assert_eq!(session.lease().deadline, at(1485));
        session.renewed(first);
        assert_eq!(
            session.lease().deadline,
            at(1485),
            "an older answer takes nothing back"
        );
    }

    #[test]
    fn an_answer_to_a_renewal_that_was_never_sent_changes_nothing() {
        let mut session = Session::opened(7, SECOND, at(0));
        session.renewed(99);
        assert_eq!(session.lease().deadline, at(985));
    }
}
