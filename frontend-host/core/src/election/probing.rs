//! When a replica is probed, and what its answer changes.

use std::mem;
use std::time::Duration;

use domain::time::BootTime;
use domain::{ChainHash, RowNumber};

use super::{Probed, Status, Unanswered};
use crate::recurring::Recurring;
use crate::timing::{HASTENED_PAUSE_MAX, PROBE_INTERVAL, STEP_PAUSE};

/// When to probe one replica. A suspicion hastens the next probe. However many have one, probes do not
/// come without a pause, and while they find nothing new, pauses grow.
#[derive(Debug)]
pub struct ProbeTimer {
    next: Recurring,
    /// The least pause after the probe under way.
    least: Duration,
    /// How often something had changed when the last probe was over.
    changes: u64,
}

impl ProbeTimer {
    /// The first probe is due now.
    pub fn new(now: BootTime) -> Self {
        Self {
            next: Recurring::due(now),
            least: STEP_PAUSE,
            changes: 0,
        }
    }

    /// When the next probe is due; `None` while one is under way.
    pub fn wake(&self) -> Option<BootTime> {
        self.next.wake()
    }

    /// Whether somebody has a suspicion.
    pub fn is_hurried(&self) -> bool {
        self.next.is_hurried()
    }

    /// Somebody has a suspicion.
    pub fn hurry(&mut self) {
        self.next.hurry();
    }

    /// Begins a probe where it is time.
    pub fn begin_if_due(&mut self, now: BootTime) -> bool {
        let hastened = self.next.is_hurried();
        let is_due = self.next.begin_if_due(now);
        if is_due {
            self.least = match hastened {
                true => (self.least * 2).min(HASTENED_PAUSE_MAX),
                false => STEP_PAUSE,
            };
        }
        is_due
    }

    /// The probe is over, and the next one is due.
    pub fn again(&mut self, now: BootTime) {
        self.next.pause(now, Duration::ZERO, Duration::ZERO);
    }

    /// The probe is over. `changes` is how often something has changed by now, at any replica or in
    /// who leads.
    pub fn over(&mut self, now: BootTime, changes: u64) {
        if mem::replace(&mut self.changes, changes) != changes {
            self.least = STEP_PAUSE;
        }
        self.next.pause(now, self.least, PROBE_INTERVAL);
    }
}

impl Probed {
    /// The replica said something, or nothing, when it was asked at `asked`; `round_trip` where that
    /// was a probe. Whether it is another replica for that than it was.
    pub fn note(
        &mut self,
        status: Result<Status, Unanswered>,
        asked: BootTime,
        round_trip: Option<Duration>,
        now: BootTime,
    ) -> bool {
        match status {
            Ok(_) => self.round_trip = round_trip.unwrap_or(self.round_trip),
            Err(Unanswered::Gone | Unanswered::Foreign) => {}
            Err(Unanswered::Unheard | Unanswered::Silent) => return self.replace(status, asked),
        }
        self.heard = self.heard.max(now);
        self.replace(status, asked)
    }

    fn replace(&mut self, status: Result<Status, Unanswered>, asked: BootTime) -> bool {
        self.asked = self.asked.max(asked);
        let before = mem::replace(&mut self.status, status);
        before.map(without_orders) != status.map(without_orders)
    }
}

/// More orders are no reason to elect.
fn without_orders(status: Status) -> Status {
    Status {
        rows: RowNumber(0),
        stock_changes: 0,
        chain: ChainHash::EMPTY,
        ..status
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long after a probe the next one is due, where there is a suspicion at once.
    fn hastened(timer: &mut ProbeTimer, now: &mut BootTime, changes: u64) -> Duration {
        assert!(timer.begin_if_due(*now));
        timer.over(*now, changes);
        timer.hurry();
        let due = timer.wake().expect("it is over");
        let pause = due.since(*now);
        *now = due;
        pause
    }

    #[test]
    fn suspicions_hasten_probes_less_and_less_until_something_is_found() {
        let mut now = BootTime::from_millis(1);
        let mut timer = ProbeTimer::new(now);
        let pauses: Vec<_> = [0, 0, 0, 0, 1, 1]
            .into_iter()
            .map(|changes| hastened(&mut timer, &mut now, changes).as_millis())
            .collect();
        assert_eq!(pauses, [5, 10, 20, 20, 5, 10]);
    }

    #[test]
    fn without_a_suspicion_a_replica_is_probed_at_leisure_and_the_next_one_hastens_anew() {
        let mut now = BootTime::from_millis(1);
        let mut timer = ProbeTimer::new(now);
        for _ in 0..3 {
            hastened(&mut timer, &mut now, 0);
        }
        assert!(timer.begin_if_due(now));
        timer.over(now, 0);
        assert_eq!(timer.wake(), Some(now + PROBE_INTERVAL));
        now = now + PROBE_INTERVAL;
        assert_eq!(hastened(&mut timer, &mut now, 0), STEP_PAUSE);
    }
}
