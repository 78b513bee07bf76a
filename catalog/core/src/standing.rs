//! How long those who hold stocks keep trades waiting, and whether they are lent any more.
//!
//! A trade waits for every holder of its stock: until it acknowledges, or its lease is over. One that never
//! acknowledges, and opens another session each time, would so hold up every trade of a stock for a lease. So the time
//! that a holder takes beyond a grace is charged to it, against an allowance that comes back slowly, in the manner of the
//! generic cell rate algorithm (ITU-T I.371); and while that is spent, it is lent nothing. It can still read.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use domain::time::BootTime;

use crate::Round;

/// What an acknowledgement may take that is not charged: a lease divided by this.
const GRACE_DIVISOR: u32 = 10;

/// How many leases a holder may keep trades waiting for in a row, as one does that dies, or whose machine stands still.
const LEASES_MAX: u32 = 3;

/// How long it takes until a part of that comes back, as a multiple of the part: so in the long run a holder holds trades
/// up for a thirtieth of the time at most, and for what is within its grace.
const RECOVERY: u32 = 30;

/// What is charged to one holder, over all of its sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    lease_max: Duration,
    /// When all that was charged has come back.
    settled_at: BootTime,
    /// When it was charged last.
    charged_at: BootTime,
}

impl Standing {
    /// Of one to whom nothing is charged. `lease_max` is how long its leases count.
    pub fn new(lease_max: Duration) -> Self {
        Self {
            lease_max,
            settled_at: BootTime::default(),
            charged_at: BootTime::default(),
        }
    }

    /// How long of a wait up to now there was no wait that was charged before.
    pub fn uncharged(&self, waited: Duration, now: BootTime) -> Duration {
        waited.min(now.since(self.charged_at))
    }

    /// Trades waited for it so long beyond its grace, up to now.
    pub fn charge(&mut self, waited: Duration, now: BootTime) {
        if waited.is_zero() {
            return;
        }
        let owed = self.settled_at.since(now) + waited.min(self.lease_max) * RECOVERY;
        // One lease more than there is to spend: who goes on does not shut itself out for ever.
        let owed = owed.min(self.lease_max * (LEASES_MAX + 1) * RECOVERY);
        self.settled_at = now + owed;
        self.charged_at = now;
    }

    /// Whether it may be lent stocks.
    pub fn may_hold(&self, now: BootTime) -> bool {
        self.settled_at.since(now) <= self.lease_max * (LEASES_MAX * RECOVERY - 1)
    }

    /// Whether it is as one to whom nothing was ever charged.
    pub fn is_settled(&self, now: BootTime) -> bool {
        self.settled_at <= now
    }
}

/// What a session has been told to let go of, and not acknowledged yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owing {
    grace: Duration,
    /// Rounds whose batch is not durable yet: until it is, no trade waits for them.
    told: BTreeSet<Round>,
    /// Since when trades wait for each.
    rounds: BTreeMap<Round, BootTime>,
    /// Up to when its waits are charged.
    charged_until: BootTime,
}

impl Owing {
    /// Of a session that owes nothing. `lease_max` is how long its lease counts.
    pub fn new(lease_max: Duration) -> Self {
        Self {
            grace: lease_max / GRACE_DIVISOR,
            told: BTreeSet::new(),
            rounds: BTreeMap::new(),
            charged_until: BootTime::default(),
        }
    }

    /// It is told, while the batch is on its way to the disk.
    pub fn tell(&mut self, round: Round) {
        self.told.insert(round);
    }

    /// That batch is durable: from now on trades wait for what it was told.
    pub fn begin(&mut self, now: BootTime) {
        let told = std::mem::take(&mut self.told);
        self.rounds
            .extend(told.into_iter().map(|round| (round, now)));
    }

    /// That batch never will be: nobody waits for what it was told.
    pub fn abandon(&mut self) {
        self.told.clear();
    }

    /// It has acknowledged. Returns how long trades waited beyond its grace, but for what was returned before.
    pub fn end(&mut self, round: Round, now: BootTime) -> Duration {
        self.told.remove(&round);
        let begun = self.rounds.remove(&round);
        begun.map_or(Duration::ZERO, |begun| self.waited(begun, now))
    }

    /// It is over. Returns how long trades have waited beyond its grace, but for what was returned before.
    pub fn end_all(mut self, now: BootTime) -> Duration {
        let begun = self.rounds.values().min().copied();
        begun.map_or(Duration::ZERO, |begun| self.waited(begun, now))
    }

    /// Each round has a grace of its own; what is beyond that of several at once is one wait.
    fn waited(&mut self, begun: BootTime, now: BootTime) -> Duration {
        let from = (begun + self.grace).max(self.charged_until);
        if now > from {
            self.charged_until = now;
        }
        now.since(from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(1);

    fn at(seconds: u64) -> BootTime {
        BootTime::default() + Duration::from_secs(1_000 + seconds)
    }

    #[test]
    fn who_acknowledges_within_the_grace_holds_for_ever() {
        let mut owing = Owing::new(LEASE);
        let mut now = at(0);
        for round in 0..100_000 {
            owing.tell(Round(round));
            owing.begin(now);
            now = now + LEASE / GRACE_DIVISOR;
            assert_eq!(owing.end(Round(round), now), Duration::ZERO);
        }
    }

    /// As where a rack of gateways that share a name is lost: trades waited for all of them at once.
    #[test]
    fn waits_at_once_are_one_wait_where_that_is_asked_for() {
        let mut standing = Standing::new(LEASE);
        let wait = LEASE * 9 / 10;
        let all_told: Duration = (0..100)
            .map(|ended| {
                let now = at(0) + Duration::from_millis(ended);
                let waited = standing.uncharged(wait, now);
                standing.charge(waited, now);
                waited
            })
            .sum();
        assert_eq!(all_told, wait + Duration::from_millis(99));
        assert!(standing.may_hold(at(0)));
        assert_eq!(
            standing.uncharged(wait, at(60)),
            wait,
            "one after the other"
        );
    }

    #[test]
    fn nobody_waits_for_what_is_not_durable() {
        let mut owing = Owing::new(LEASE);
        owing.tell(Round(1));
        owing.tell(Round(2));
        assert_eq!(owing.end(Round(1), at(9)), Duration::ZERO);
        owing.begin(at(9));
        assert_eq!(owing.end(Round(2), at(9)), Duration::ZERO);
        owing.tell(Round(3));
        owing.abandon();
        owing.begin(at(10));
        assert_eq!(owing.end_all(at(20)), Duration::ZERO);
    }

    /// One that is let go of at once does not hide another that is not.
    #[test]
    fn a_round_that_is_acknowledged_late_is_charged_whatever_else_is_acknowledged_meanwhile() {
        let mut owing = Owing::new(LEASE);
        owing.tell(Round(1));
        owing.begin(at(0));
        let almost = at(0) + LEASE * 19 / 20;
        owing.tell(Round(2));
        owing.begin(almost);
        assert_eq!(owing.end(Round(2), almost), Duration::ZERO);
        let late = at(0) + LEASE * 99 / 100;
        assert_eq!(owing.end(Round(1), late), LEASE * 89 / 100);
    }

    #[test]
    fn who_never_acknowledges_holds_trades_up_for_a_thirtieth_of_the_time() {
        let mut standing = Standing::new(LEASE);
        let (mut held_up, mut first) = (0, None);
        let hour = 3_600;
        let mut now = 0;
        while now < hour {
            if standing.may_hold(at(now)) {
                now += 1;
                held_up += 1;
                standing.charge(LEASE - LEASE / GRACE_DIVISOR, at(now));
            } else {
                first.get_or_insert(held_up);
                now += 1;
            }
        }
        assert!((3..=4).contains(&first.unwrap()), "{first:?}");
        assert!(held_up <= 3 + hour / 25, "{held_up}");
    }

    #[test]
    fn who_died_once_is_lent_to_at_once_and_who_stops_it_is_lent_to_again() {
        let mut standing = Standing::new(LEASE);
        standing.charge(LEASE, at(0));
        assert!(standing.may_hold(at(0)));
        for _ in 0..1_000 {
            standing.charge(LEASE, at(0));
        }
        assert!(!standing.may_hold(at(0)));
        let until = (0..).find(|seconds| standing.may_hold(at(*seconds)));
        assert!(until.unwrap() <= 60, "{until:?}");
    }

    #[test]
    fn rounds_that_overlap_are_one_wait() {
        let mut owing = Owing::new(LEASE);
        let grace = LEASE / GRACE_DIVISOR;
        for (round, begun) in [(1, 0), (2, 1), (3, 2)] {
            owing.tell(Round(round));
            owing.begin(at(begun));
        }
        let seconds = Duration::from_secs;
        assert_eq!(owing.end(Round(2), at(4)), seconds(3) - grace);
        assert_eq!(owing.end(Round(1), at(5)), seconds(1));
        assert_eq!(owing.end(Round(1), at(9)), seconds(0), "it is no more");
        assert_eq!(owing.end_all(at(7)), seconds(2));
    }
}
