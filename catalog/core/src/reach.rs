//! Whether callers reach the active one of several catalogs, or turn to one that stands by.
//!
//! A gateway or a replica asks the catalog that it follows who leads, four times a second, and the others only while that
//! one does not answer. So a standby that more callers ask than the active one is reached by more, too. It says so in the
//! database, and where that goes on the active one hands over, as when it is told to stop: at any time that is safe, and
//! what is here only decides when.
//!
//! Two catalogs do not hand over to each other for ever. Whoever asks the standby reaches it, so each hand-over is to one that
//! more callers reach than the one before, while the network is as it was. Where nobody reaches either, nobody
//! is counted, and nothing is done. Of more than two, any that stands by may be the next one: until it is one that no other
//! outdoes.

use std::time::Duration;

use domain::time::BootTime;

/// For how long a caller counts that asked. They ask four times a second.
pub const CALLER_COUNTS_FOR: Duration = Duration::from_secs(2);

/// How often a standby says how many callers ask it, while some do: first that long after they began, by which time a catalog
/// that died has been taken over from.
pub const SAY_INTERVAL: Duration = Duration::from_secs(1);

/// How long such a count is good for.
const COUNT_GOOD_FOR: Duration = Duration::from_secs(3);

/// For how long without a break more callers have to ask standbys before the active one hands over: longer than callers take
/// to find out who is active, and than they are busy elsewhere.
pub const TURNED_AWAY_MAX: Duration = Duration::from_secs(5);

/// How long it is active at least before: so whoever has stolen a key, and asks a standby from many addresses, makes catalogs
/// hand over to each other now and then, and not all the time.
pub const ACTIVE_MIN: Duration = Duration::from_secs(20);

/// What standbys said last, all together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SaidCallers {
    /// How often any of them has said something. Rises.
    pub said: u64,
    /// How many callers asked the one that said it last.
    pub callers: u64,
}

/// An active catalog's view of who reaches whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    active_since: BootTime,
    /// [`SaidCallers::said`] as it was read last: before, it may be of long ago.
    said: Option<u64>,
    turned: Option<Turned>,
}

/// More callers ask a standby.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Turned {
    since: BootTime,
    /// When it was said last.
    last: BootTime,
}

impl Reach {
    /// Of one that is active since then.
    pub fn new(active_since: BootTime) -> Self {
        Self {
            active_since,
            said: None,
            turned: None,
        }
    }

    /// What standbys say was read at `now`, when so many callers reached this one. Returns whether it is to hand over.
    pub fn is_lost(&mut self, said: SaidCallers, own: u64, now: BootTime) -> bool {
        let before = self.said.replace(said.said);
        let is_news = before.is_some_and(|before| before != said.said);
        let turned = self
            .turned
            .filter(|turned| now.since(turned.last) <= COUNT_GOOD_FOR);
        self.turned = match (said.callers > own, turned) {
            (false, _) => None,
            (true, turned) if is_news => Some(Turned {
                since: turned.map_or(now, |turned| turned.since),
                last: now,
            }),
            (true, turned) => turned,
        };
        let since = self.turned.filter(|_| is_news).map(|turned| turned.since);
        since.is_some_and(|since| now.since(since) >= TURNED_AWAY_MAX)
            && now.since(self.active_since) >= ACTIVE_MIN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_millis(250);

    /// Reads what is said each step, from then on, for so long; `counts` says how many callers ask the standby and reach the
    /// active one. Returns when it is lost.
    fn lost_after(length: Duration, counts: impl Fn(Duration) -> (u64, u64)) -> Option<Duration> {
        let begun = BootTime::from_millis(7_000);
        lost_by(Reach::new(begun), begun + ACTIVE_MIN, length, counts)
    }

    fn lost_by(
        mut reach: Reach,
        start: BootTime,
        length: Duration,
        counts: impl Fn(Duration) -> (u64, u64),
    ) -> Option<Duration> {
        let mut said = SaidCallers {
            said: 40,
            callers: 9,
        };
        let mut said_at = start;
        let mut now = start;
        while now.since(start) < length {
            let (standby, own) = counts(now.since(start));
            if standby > 0 && now.since(said_at) >= SAY_INTERVAL {
                said_at = now;
                said = SaidCallers {
                    said: said.said + 1,
                    callers: standby,
                };
            }
            if reach.is_lost(said, own, now) {
                return Some(now.since(start));
            }
            now = now + STEP;
        }
        None
    }

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn it_hands_over_once_more_callers_turned_to_a_standby_for_long_enough() {
        let soon = |lost: Option<Duration>| {
            let lost = lost.expect("it is lost");
            assert!(lost >= TURNED_AWAY_MAX, "{lost:?}");
            assert!(lost <= TURNED_AWAY_MAX + 2 * SAY_INTERVAL, "{lost:?}");
        };
        soon(lost_after(MINUTE, |_| (1, 0)));
        soon(lost_after(MINUTE, |_| (3, 2)));
    }

    #[test]
    fn it_goes_on_while_as_many_reach_it_or_nobody_asks_another_one() {
        assert_eq!(
            lost_after(MINUTE, |_| (0, 0)),
            None,
            "nobody reaches either"
        );
        assert_eq!(lost_after(MINUTE, |_| (0, 4)), None);
        assert_eq!(lost_after(MINUTE, |_| (2, 2)), None, "half of them each");
        assert_eq!(lost_after(MINUTE, |_| (1, 3)), None);
    }

    #[test]
    fn who_has_just_become_active_stays_so_for_a_while() {
        let begun = BootTime::from_millis(7_000);
        let lost = lost_by(Reach::new(begun), begun, MINUTE, |_| (6, 5));
        let lost = lost.expect("it is lost then");
        assert!(
            lost >= ACTIVE_MIN && lost <= ACTIVE_MIN + 2 * SAY_INTERVAL,
            "{lost:?}"
        );
    }

    #[test]
    fn what_was_said_before_it_looked_does_not_count() {
        let mut reach = Reach::new(BootTime::default());
        let said = SaidCallers {
            said: 40,
            callers: 9,
        };
        for second in 0..60 {
            let now = BootTime::from_millis(second * 1_000);
            assert!(!reach.is_lost(said, 0, now));
        }
    }

    /// As where callers look for the active one while it is busy, again and again.
    #[test]
    fn each_break_begins_it_anew() {
        let broken = |at: Duration| match at.as_millis() % 4_750 < 500 {
            true => (4, 4),
            false => (4, 0),
        };
        assert_eq!(lost_after(MINUTE, broken), None);
        let silent = |at: Duration| match at.as_secs() % 8 < 4 {
            true => (4, 0),
            false => (0, 0),
        };
        assert_eq!(lost_after(MINUTE, silent), None);
    }

    /// Which callers reach a catalog: one bit for each.
    type Callers = u8;

    const CALLERS: u32 = 4;

    /// Two catalogs, and who reaches them. Callers ask the active one, and the other while they do not reach that, or, where
    /// their pages are looked at, always.
    fn hand_overs(reached: [Callers; 2], ask_both: bool) -> (usize, usize) {
        let (mut active, mut hand_overs) = (0, 0);
        let mut now = BootTime::from_millis(7_000);
        let mut said = SaidCallers {
            said: 1,
            callers: 0,
        };
        let mut said_at = now;
        let mut reach = Reach::new(now);
        let end = now + MINUTE * 2;
        while now < end {
            let standby = 1 - active;
            let turned = match ask_both {
                true => reached[standby],
                false => reached[standby] & !reached[active],
            };
            let asking = u64::from(turned.count_ones());
            if asking > 0 && now.since(said_at) >= SAY_INTERVAL {
                said_at = now;
                said = SaidCallers {
                    said: said.said + 1,
                    callers: asking,
                };
            }
            let own = u64::from(reached[active].count_ones());
            if reach.is_lost(said, own, now) {
                (active, hand_overs) = (standby, hand_overs + 1);
                reach = Reach::new(now);
            }
            now = now + STEP;
        }
        (active, hand_overs)
    }

    #[test]
    fn two_catalogs_hand_over_once_at_most_in_any_network_that_stays_as_it_is() {
        let mut moved = 0;
        for first in 0..1 << CALLERS {
            for second in 0..1 << CALLERS {
                for ask_both in [false, true] {
                    let case = format!("{first:04b} {second:04b}, both: {ask_both}");
                    let reached: [Callers; 2] = [first, second];
                    let (active, hand_overs) = hand_overs(reached, ask_both);
                    assert!(hand_overs <= 1, "{case}: {hand_overs} hand-overs");
                    moved += hand_overs;
                    if hand_overs == 1 {
                        assert!(second.count_ones() > first.count_ones(), "{case}");
                    }
                    if first == 0 && second != 0 {
                        assert_eq!(active, 1, "{case}: nobody reaches the one that is active");
                    }
                }
            }
        }
        assert!(moved > 0);
    }
}
