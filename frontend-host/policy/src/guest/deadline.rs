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
#[derive(Debug)]
pub(crate) struct Deadline {
    /// How many times its processor time the call may last.
    wall_times_max: u64,
    /// How many ticks of processor time the call may take, about.
    ticks: u64,
    /// Since half of them have passed.
    watched: Option<Watched>,
}

#[derive(Debug)]
struct Watched {
    /// The thread's processor clock when half of the ticks had passed.
    since: Duration,
    /// Ticks that passed since, or will have at the next look.
    ticks: u64,
}

impl Default for Deadline {
    /// Of calls that somebody waits for.
    fn default() -> Self {
        Self {
            wall_times_max: WALL_TIMES_MAX,
            ticks: 0,
            watched: None,
        }
    }
}

impl Deadline {
    /// Of calls that nobody waits for.
    pub(crate) fn unhurried() -> Self {
        Self {
            wall_times_max: WALL_TIMES_MAX_UNHURRIED,
            ..Self::default()
        }
    }

    /// A call begins. Returns after how many ticks to look at its deadline first.
    pub(crate) fn begin(&mut self, ticks: u64) -> u64 {
        self.ticks = ticks;
        self.watched = None;
        ticks.div_ceil(2)
    }

    /// It is time to look. `processor_time` is what the thread's processor clock says. Returns after
    /// how many ticks to look again; `None` where the call has taken what it may.
    pub(crate) fn look(&mut self, processor_time: Duration) -> Option<u64> {
        let second_half = (self.ticks / 2).max(1);
        let Some(watched) = &mut self.watched else {
            self.watched = Some(Watched {
                since: processor_time,
                ticks: second_half,
            });
            return Some(second_half);
        };
        let used = processor_time.saturating_sub(watched.since);
        let allowed = limits::EPOCH_TICK * u32::try_from(second_half).unwrap_or(u32::MAX);
        if used >= allowed || watched.ticks >= self.ticks * self.wall_times_max {
            return None;
        }
        let left = (allowed - used).as_nanos();
        let ticks = left.div_ceil(limits::EPOCH_TICK.as_nanos()) as u64;
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
        let mut passed = deadline.begin(ticks);
        while let Some(more) = deadline.look(limits::EPOCH_TICK.mul_f64(passed as f64 * share)) {
            assert!(more > 0);
            passed += more;
        }
        passed
    }

    #[test]
    fn an_endless_call_is_stopped_in_time_on_an_idle_machine() {
        for ticks in [1, 2, 3, 11, 401] {
            let lasted = lasts(ticks, 1.0);
            assert!((ticks..=ticks + 2).contains(&lasted), "{ticks}: {lasted}");
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
            (255..=310).contains(&lasted),
            "5 ticks, then 5 at a fiftieth: {lasted}"
        );
    }

    #[test]
    fn every_call_has_a_deadline_of_its_own() {
        let mut deadline = Deadline::default();
        deadline.begin(2);
        deadline.look(Duration::ZERO);
        assert_eq!(deadline.look(Duration::from_secs(1)), None);
        deadline.begin(2);
        assert!(deadline.look(Duration::from_secs(1)).is_some());
    }
}
