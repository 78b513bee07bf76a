//! Which requests a version is not asked about for a while, since it wastes too much time over them.
//!
//! A version that loops behind one path, or for one client, must not take the time of all others, and
//! none of those is to lose the version for it. So what a version's failures and slowness cost is
//! charged to the client on that path, to the client, and to the path. Where one of them has used up
//! what it may within a second, it is broken off for a second; where it uses that up again, for twice as long.
//! A path that others use as well is broken off only where several clients waste time over it, and is never
//! refused to all of them: no client chooses what others get.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use domain::time::BootTime;

/// What one path or client may waste of each second of a processor.
const WASTE_MAX: Duration = Duration::from_millis(50);

/// How many times as much all clients together may waste over a path.
const TOGETHER: u32 = 4;

/// How long it is counted together.
const SECOND: Duration = Duration::from_secs(1);

/// How often the time doubles for which it is broken off: up to 64 s.
const DOUBLINGS_MAX: u32 = 6;

/// Paths and clients that are watched at a time.
const METERS_MAX: usize = 4096;

/// What requests have in common that are broken off together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Common {
    Path(u64),
    Client(u64),
    /// Those of one client for one path.
    Both {
        path: u64,
        client: u64,
    },
}

/// How many clients a version serves: whether they can be told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SharedBy {
    Few,
    Many,
}

/// What becomes of a request that a version is not asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Instead {
    /// The version behind decides.
    StandIn,
    /// It is refused.
    Refuse,
}

impl fmt::Display for Instead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::StandIn => "the version behind decides",
            Self::Refuse => "they are refused",
        })
    }
}

/// The requests that a version is not asked about.
#[derive(Debug, Clone, Default)]
pub(crate) struct BrokenOff(HashMap<Common, (BootTime, Instead)>);

impl BrokenOff {
    /// What becomes of a request, where the version is not asked about it.
    pub(crate) fn instead(&self, path: u64, client: u64, now: BootTime) -> Option<Instead> {
        let of = |common| {
            let (until, instead) = self.0.get(&common)?;
            (now < *until).then_some(*instead)
        };
        of(Common::Both { path, client })
            .or_else(|| of(Common::Client(client)))
            .or_else(|| of(Common::Path(path)))
    }

    /// How many paths are broken off for all, and how many clients, from one path or all.
    pub(crate) fn count(&self, now: BootTime) -> (usize, usize) {
        let broken_off = self.0.iter().filter(|(_, (until, _))| now < *until);
        let (paths, clients): (Vec<_>, Vec<_>) =
            broken_off.partition(|(common, _)| matches!(common, Common::Path(_)));
        (paths.len(), clients.len())
    }
}

/// What was wasted over a path or a client.
#[derive(Debug, Clone, Copy)]
struct Meter {
    /// The beginning of the second that is counted.
    since: BootTime,
    wasted: Duration,
    /// Whether some of it is not counted, since what it was wasted over is broken off.
    has_forgiven: bool,
    /// How long it was broken off last, and until when.
    broken_off: Option<(Duration, BootTime)>,
}

impl Meter {
    fn begin(now: BootTime) -> Self {
        Self {
            since: now,
            wasted: Duration::ZERO,
            has_forgiven: false,
            broken_off: None,
        }
    }

    fn charge(&mut self, wasted: Duration, now: BootTime) {
        if now.since(self.since) > SECOND {
            self.since = now;
            self.wasted = Duration::ZERO;
            self.has_forgiven = false;
        }
        self.wasted += wasted;
    }

    /// Does not count what will not be wasted any more, and says whether it did. Once a second only: who finds one
    /// path after the other wastes as much over each.
    fn forgives(&mut self, wasted: Duration) -> bool {
        if self.has_forgiven {
            return false;
        }
        self.wasted = self.wasted.saturating_sub(wasted);
        self.has_forgiven = true;
        true
    }

    /// Breaks it off: for twice as long as before, if that was not long ago.
    fn break_off(&mut self, now: BootTime) -> BootTime {
        let pause = match self.broken_off {
            Some((pause, until)) if now.since(until) <= pause => {
                (pause * 2).min(SECOND * (1 << DOUBLINGS_MAX))
            }
            _ => SECOND,
        };
        let until = now + pause;
        self.broken_off = Some((pause, until));
        self.wasted = Duration::ZERO;
        until
    }

    /// Whether nothing is known of it that matters still.
    fn is_idle(&self, now: BootTime) -> bool {
        let remembered = self
            .broken_off
            .is_none_or(|(pause, until)| now.since(until) > pause);
        remembered && now.since(self.since) > SECOND
    }
}

/// What a version wastes, and over what.
#[derive(Debug)]
pub(super) struct Breaker {
    waste_max: Duration,
    meters: HashMap<Common, Meter>,
    all: Option<Meter>,
    broken_off: BrokenOff,
}

impl Breaker {
    /// For a machine of so many processors.
    pub(super) fn new(processors: u32) -> Self {
        Self {
            waste_max: WASTE_MAX * processors,
            meters: HashMap::new(),
            all: None,
            broken_off: BrokenOff::default(),
        }
    }

    /// Time was wasted over a request. Returns what is broken off from now on, where that changes.
    pub(super) fn charge(
        &mut self,
        path: u64,
        client: u64,
        shared_by: SharedBy,
        wasted: Duration,
        instead: Instead,
        now: BootTime,
    ) -> Option<&BrokenOff> {
        if self.broken_off.instead(path, client, now).is_some() {
            // It was under way already.
            return None;
        }
        let (most, both) = (self.waste_max, Common::Both { path, client });
        // The least first. Where hardly anybody else is served, a path is less than a client.
        let meters: &[(Common, Duration)] = match (shared_by, instead) {
            (SharedBy::Few, Instead::StandIn) => &[(Common::Path(path), most)],
            (SharedBy::Few, Instead::Refuse) => {
                &[(both, most), (Common::Client(client), most * TOGETHER)]
            }
            (SharedBy::Many, Instead::Refuse) => &[(both, most), (Common::Client(client), most)],
            (SharedBy::Many, Instead::StandIn) => &[
                (both, most),
                (Common::Client(client), most),
                (Common::Path(path), most * TOGETHER),
            ],
        };
        let (common, over) = self.charge_meters(meters, wasted, instead, now)?;
        let is_of_client = |(common, _): &&(Common, Duration)| *common == Common::Client(client);
        if common == both
            && let Some((of_client, most)) = meters.iter().find(is_of_client)
            && let Some(meter) = self.meters.get_mut(of_client)
            && !meter.forgives(over)
            && meter.wasted >= *most
        {
            let until = meter.break_off(now);
            self.broken_off.0.insert(*of_client, (until, instead));
        }
        Some(&self.broken_off)
    }

    /// The same over a request of which it is known that others waste time over its path, and nothing of this
    /// client: it is charged to the path alone, and broken off for the version behind to decide.
    pub(super) fn charge_path(
        &mut self,
        path: u64,
        client: u64,
        shared_by: SharedBy,
        wasted: Duration,
        now: BootTime,
    ) -> Option<&BrokenOff> {
        if self.broken_off.instead(path, client, now).is_some() {
            return None;
        }
        let most = match shared_by {
            SharedBy::Few => self.waste_max,
            SharedBy::Many => self.waste_max * TOGETHER,
        };
        let meters = [(Common::Path(path), most)];
        self.charge_meters(&meters, wasted, Instead::StandIn, now)?;
        Some(&self.broken_off)
    }

    /// Charges each meter with what it may have at most. What is broken off, and what was wasted over it.
    fn charge_meters(
        &mut self,
        meters: &[(Common, Duration)],
        wasted: Duration,
        instead: Instead,
        now: BootTime,
    ) -> Option<(Common, Duration)> {
        let mut over = None;
        for (common, most) in meters {
            let Some(meter) = self.meter(*common, now) else {
                continue;
            };
            meter.charge(wasted, now);
            if over.is_none() && meter.wasted >= *most {
                over = Some((*common, meter.wasted, meter.break_off(now)));
            }
        }
        let (common, wasted, until) = over?;
        self.broken_off.0.retain(|_, (until, _)| now < *until);
        self.broken_off.0.insert(common, (until, instead));
        Some((common, wasted))
    }

    /// So much was wasted by all together, as far as is known: see [`is_overrun`](Self::is_overrun).
    pub(super) fn charge_all(&mut self, wasted: Duration, now: BootTime) {
        let all = self.all.get_or_insert_with(|| Meter::begin(now));
        all.charge(wasted, now);
    }

    /// Whether more is wasted than any one path or client may: by all together, within a second.
    pub(super) fn is_overrun(&self, now: BootTime) -> bool {
        let wasted =
            |all: &Meter| now.since(all.since) <= SECOND && all.wasted >= self.waste_max * 2;
        self.all.as_ref().is_some_and(wasted)
    }

    fn meter(&mut self, common: Common, now: BootTime) -> Option<&mut Meter> {
        if !self.meters.contains_key(&common) && self.meters.len() >= METERS_MAX {
            self.meters.retain(|_, meter| !meter.is_idle(now));
            if self.meters.len() >= METERS_MAX {
                return None;
            }
        }
        Some(
            self.meters
                .entry(common)
                .or_insert_with(|| Meter::begin(now)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn breaker() -> (Breaker, BootTime) {
        (Breaker::new(2), BootTime::now())
    }

    fn instead(breaker: &Breaker, path: u64, client: u64, now: BootTime) -> Option<Instead> {
        breaker.broken_off.instead(path, client, now)
    }

    /// 50 ms are wasted; whether anything is broken off for it.
    fn waste(breaker: &mut Breaker, path: u64, client: u64, by: SharedBy, now: BootTime) -> bool {
        let broken_off = breaker.charge(path, client, by, 50 * MS, Instead::StandIn, now);
        broken_off.is_some()
    }

    #[test]
    fn where_few_are_served_a_loop_behind_one_path_breaks_off_that_path_alone() {
        let (mut breaker, now) = breaker();
        assert!(!waste(&mut breaker, 7, 1, SharedBy::Few, now));
        assert!(waste(&mut breaker, 7, 2, SharedBy::Few, now));
        assert_eq!(instead(&breaker, 7, 9, now), Some(Instead::StandIn));
        assert_eq!(instead(&breaker, 8, 1, now), None);
        assert_eq!(
            instead(&breaker, 7, 9, now + SECOND),
            None,
            "it is tried again"
        );
    }

    #[test]
    fn one_client_of_many_breaks_off_nobody_but_itself() {
        let (mut breaker, now) = breaker();
        let by = SharedBy::Many;
        assert!(!waste(&mut breaker, 7, 1, by, now) && waste(&mut breaker, 7, 1, by, now));
        assert_eq!(instead(&breaker, 7, 1, now), Some(Instead::StandIn));
        assert_eq!(
            (instead(&breaker, 7, 2, now), instead(&breaker, 8, 1, now)),
            (None, None)
        );
        // Who finds many paths is broken off from all.
        assert!(!waste(&mut breaker, 20, 1, by, now) && waste(&mut breaker, 21, 1, by, now));
        assert_eq!(instead(&breaker, 22, 1, now), Some(Instead::StandIn));
        assert_eq!(instead(&breaker, 20, 2, now), None, "others may go there");
    }

    /// Each path is broken off soon enough, and the next one is as good to it.
    #[test]
    fn who_finds_one_path_after_the_other_is_broken_off_from_all() {
        for (by, how, charged) in [
            (SharedBy::Many, Instead::StandIn, 4),
            (SharedBy::Many, Instead::Refuse, 4),
            (SharedBy::Few, Instead::Refuse, 10),
        ] {
            let (mut breaker, now) = breaker();
            for charge in 0..charged {
                assert_eq!(instead(&breaker, 99, 1, now), None, "{by:?}, {how:?}");
                breaker.charge(charge / 2, 1, by, 50 * MS, how, now);
            }
            assert_eq!(instead(&breaker, 99, 1, now), Some(how), "{by:?}");
            assert_eq!(instead(&breaker, 99, 2, now), None, "others are asked");
        }
    }

    /// Where each decision may take so long that one is as much as may be wasted over a path.
    #[test]
    fn who_needs_one_request_for_each_path_is_broken_off_from_all_as_well() {
        let (mut breaker, now) = breaker();
        for path in 0..2 {
            assert_eq!(instead(&breaker, 99, 1, now), None, "{path}");
            breaker.charge(path, 1, SharedBy::Many, 200 * MS, Instead::StandIn, now);
        }
        assert_eq!(instead(&breaker, 99, 1, now), Some(Instead::StandIn));
    }

    #[test]
    fn what_others_waste_over_a_path_is_charged_to_no_client() {
        for (by, charged) in [(SharedBy::Few, 2), (SharedBy::Many, 8)] {
            let (mut breaker, now) = breaker();
            for number in 1..=charged {
                let broken_off = breaker.charge_path(7, 1, by, 50 * MS, now).is_some();
                assert_eq!(broken_off, number == charged, "{by:?}: {number}");
            }
            assert_eq!(instead(&breaker, 7, 2, now), Some(Instead::StandIn));
            assert_eq!(instead(&breaker, 8, 1, now), None);
        }
    }

    #[test]
    fn a_path_that_many_waste_time_over_is_left_to_the_version_behind_and_refused_to_nobody() {
        for (instead, broken_off) in [(Instead::StandIn, 1), (Instead::Refuse, 0)] {
            let (mut breaker, now) = breaker();
            for client in 0..20 {
                breaker.charge(7, client, SharedBy::Many, 50 * MS, instead, now);
            }
            assert_eq!(
                breaker.broken_off.count(now),
                (broken_off, 0),
                "{instead:?}"
            );
        }
    }

    #[test]
    fn who_goes_on_is_broken_off_for_longer_each_time_up_to_a_minute() {
        let (mut breaker, mut now) = breaker();
        let mut pauses = Vec::new();
        for _ in 0..9 {
            assert!(
                breaker
                    .charge(7, 1, SharedBy::Few, 100 * MS, Instead::StandIn, now)
                    .is_some()
            );
            let (until, _) = breaker.broken_off.0[&Common::Path(7)];
            pauses.push(until.since(now).as_secs());
            now = until;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 64, 64]);
        now = now + SECOND * 200;
        breaker.charge(7, 1, SharedBy::Few, 100 * MS, Instead::StandIn, now);
        assert_eq!(instead(&breaker, 7, 1, now + SECOND), None, "long ago");
    }

    #[test]
    fn a_little_waste_now_and_then_is_nothing() {
        let (mut breaker, mut now) = breaker();
        for _ in 0..100 {
            let charged = breaker.charge(7, 1, SharedBy::Few, 90 * MS, Instead::StandIn, now);
            assert!(charged.is_none());
            breaker.charge_all(90 * MS, now);
            assert!(!breaker.is_overrun(now));
            now = now + SECOND + MS;
        }
    }

    #[test]
    fn many_paths_and_clients_at_a_time_are_bounded_and_noticed_together() {
        let (mut breaker, now) = breaker();
        for number in 0..10_000 {
            breaker.charge(number, number, SharedBy::Few, MS, Instead::StandIn, now);
            breaker.charge_all(MS, now);
        }
        assert!(breaker.meters.len() <= METERS_MAX);
        assert!(breaker.is_overrun(now));
        assert!(!breaker.is_overrun(now + SECOND * 2));
        breaker.charge(1, 1, SharedBy::Few, MS, Instead::StandIn, now + SECOND * 3);
        breaker.charge(
            20_000,
            20_000,
            SharedBy::Few,
            MS,
            Instead::StandIn,
            now + SECOND * 3,
        );
        assert!(
            breaker.meters.len() <= 4,
            "idle ones make room: {}",
            breaker.meters.len()
        );
    }
}
