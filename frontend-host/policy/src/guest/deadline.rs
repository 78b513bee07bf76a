//! A decision's deadline, in processor time of the thread that decides.
//!
//! Epochs tick in wall time, and checking them costs a guest next to nothing. But on a busy machine a
//! thread may wait for a processor most of that time, and its decision is no slower for it. So when
//! half of the time is over, the thread's processor clock is looked at, and from then on only what
//! it says counts. A decision that ends before, as an honest one does by far, never gets to that.

use std::time::Duration;

use crate::limits;

/// How many times its processor time a decision may last, however little it got of a processor.
const WALL_TIMES_MAX: u64 = 10;

/// The same where nobody waits for it, on a thread that lets all others go first: a busy machine is
/// no reason to call a policy slow.
const WALL_TIMES_MAX_UNHURRIED: u64 = 400;

/// So many ticks of the clock that the deadlines go by are this long at least.
pub(crate) fn ticks(time: Duration) -> u64 {
    // One more, because the first tick may come at once.
    time.as_nanos().div_ceil(limits::EPOCH_TICK.as_nanos()) as u64 + 1
}

/// The deadline of one call.
#[derive(Debug, Default)]
pub(crate) struct Deadline {
    /// Whether nobody waits for the call.
    unhurried: bool,
    /// How many ticks of processor time the call may take, about.
    ticks: u64,
    /// Since its processor time counts.
    watched: Option<Watched>,
}

#[derive(Debug)]
struct Watched {
    /// The thread's processor clock when it began to count.
    since: Duration,
    /// How much of it the call may use from then on.
    allowed: Duration,
    /// Ticks that passed since, or will have at the next check.
    ticks: u64,
}

impl Watched {
    fn from(since: Duration, ticks: u64) -> Self {
        Self {
            since,
            allowed: limits::EPOCH_TICK * u32::try_from(ticks).unwrap_or(u32::MAX),
            ticks,
        }
    }
}

impl Deadline {
    /// Of calls that nobody waits for.
    pub(crate) fn unhurried() -> Self {
        Self {
            unhurried: true,
            ..Self::default()
        }
    }

    /// A call begins. `processor_time` is the thread's processor clock, which costs about as much
    /// as a short decision to read. Returns after how many ticks to check the deadline first.
    pub(crate) fn begin(&mut self, ticks: u64, processor_time: impl FnOnce() -> Duration) -> u64 {
        self.ticks = ticks;
        if self.unhurried {
            self.watched = Some(Watched::from(processor_time(), ticks));
            ticks
        } else {
            self.watched = None;
            ticks.div_ceil(2)
        }
    }

    /// It is time to check. `processor_time` is what the thread's processor clock says. Returns after
    /// how many ticks to check again; `None` where the call has taken what it may.
    pub(crate) fn check(&mut self, processor_time: Duration) -> Option<u64> {
        let Some(watched) = &mut self.watched else {
            let second_half = (self.ticks / 2).max(1);
            self.watched = Some(Watched::from(processor_time, second_half));
            return Some(second_half);
        };
        let wall_times_max = match self.unhurried {
            true => WALL_TIMES_MAX_UNHURRIED,
            false => WALL_TIMES_MAX,
        };
        let left = watched
            .allowed
            .saturating_sub(processor_time.saturating_sub(watched.since));
        if left.is_zero() || watched.ticks >= self.ticks * wall_times_max {
            return None;
        }
        let ticks = left.as_nanos().div_ceil(limits::EPOCH_TICK.as_nanos()) as u64;
        watched.ticks += ticks;
        Some(ticks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many ticks a call lasts that never ends by itself, where the thread gets a share of a
    /// processor.
    fn lasts(ticks: u64, share: f64) -> u64 {
        lasts_under(Deadline::default(), ticks, share)
    }

    fn lasts_under(mut deadline: Deadline, ticks: u64, share: f64) -> u64 {
        let mut passed = deadline.begin(ticks, || Duration::ZERO);
        while let Some(more) = deadline.check(limits::EPOCH_TICK.mul_f64(passed as f64 * share)) {
            assert!(more > 0);
            passed += more;
        }
        passed
    }

    #[test]
    fn an_endless_call_is_stopped_in_time_on_an_idle_machine() {
        for ticks in [1, 2, 3, 11, 401] {
            for deadline in [Deadline::default(), Deadline::unhurried()] {
                let lasted = lasts_under(deadline, ticks, 1.0);
                assert!((ticks..=ticks + 2).contains(&lasted), "{ticks}: {lasted}");
            }
        }
    }

    #[test]
    fn waiting_for_a_processor_does_not_count() {
        let lasted = lasts(10, 0.25);
        assert!(
            (20..=30).contains(&lasted),
            "5 ticks, then 5 at a quarter: {lasted}"
        );
    }

    #[test]
    fn a_call_that_gets_no_processor_at_all_ends() {
        assert!(lasts(10, 0.0) <= 10 * (WALL_TIMES_MAX + 1));
        let unhurried = lasts_under(Deadline::unhurried(), 10, 0.0);
        assert!(unhurried <= 10 * (WALL_TIMES_MAX_UNHURRIED + 1));
    }

    #[test]
    fn who_is_in_no_hurry_waits_longer_for_a_processor_and_gets_no_more_of_it() {
        let share = 0.02;
        assert!(lasts(10, share) < 5 + (5.0 / share) as u64, "cut off");
        let lasted = lasts_under(Deadline::unhurried(), 10, share);
        assert!(
            (500..=560).contains(&lasted),
            "10 ticks at a fiftieth: {lasted}"
        );
    }

    #[test]
    fn every_call_has_a_deadline_of_its_own() {
        let mut deadline = Deadline::default();
        deadline.begin(2, || Duration::ZERO);
        deadline.check(Duration::ZERO);
        assert_eq!(deadline.check(Duration::from_secs(1)), None);
        deadline.begin(2, || Duration::from_secs(1));
        assert!(deadline.check(Duration::from_secs(1)).is_some());
    }
}
