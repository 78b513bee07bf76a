//! When what is done again and again is next to be done.

use std::time::Duration;

use domain::time::BootTime;

/// Something that is done, over and over, after pauses. A pause has a shortest and a longest
/// length: it ends early where there is a reason to hurry.
#[derive(Debug, Clone)]
pub struct Recurring {
    /// A reason to hurry came up since it was last begun.
    hurried: bool,
    /// When the pause may end and when it does; `None` while it is being done.
    pause: Option<(BootTime, BootTime)>,
}

impl Recurring {
    /// To be done for the first time now.
    pub fn due(now: BootTime) -> Self {
        Self {
            hurried: false,
            pause: Some((now, now)),
        }
    }

    /// When it is to be done; `None` while it is being done.
    pub fn wake(&self) -> Option<BootTime> {
        self.pause
            .map(|(least, most)| if self.hurried { least } else { most })
    }

    /// Begins where it is time. Reasons to hurry count for the time after this one from then on.
    pub fn begin_if_due(&mut self, now: BootTime) -> bool {
        let is_due = self.wake().is_some_and(|at| at <= now);
        if is_due {
            self.hurried = false;
            self.pause = None;
        }
        is_due
    }

    /// It was done: the next pause.
    pub fn pause(&mut self, now: BootTime, least: Duration, most: Duration) {
        self.pause = Some((now + least, now + most));
    }

    /// There is a reason to do it soon.
    pub fn hurry(&mut self) {
        self.hurried = true;
    }

    /// Whether there is.
    pub fn is_hurried(&self) -> bool {
        self.hurried
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: fn(u64) -> BootTime = BootTime::from_millis;

    #[test]
    fn a_pause_ends_early_for_a_reason_and_never_before_its_least() {
        let mut recurring = Recurring::due(AT(0));
        assert!(recurring.begin_if_due(AT(0)));
        assert_eq!(recurring.wake(), None, "while it is being done");
        recurring.pause(AT(10), Duration::from_millis(5), Duration::from_millis(200));
        assert_eq!(recurring.wake(), Some(AT(210)));
        assert!(!recurring.begin_if_due(AT(209)));
        recurring.hurry();
        assert!(!recurring.begin_if_due(AT(14)));
        assert!(recurring.begin_if_due(AT(15)));
    }

    #[test]
    fn a_reason_that_comes_up_while_it_is_being_done_shortens_the_next_pause_alone() {
        let (least, most) = (Duration::from_millis(5), Duration::from_millis(200));
        let mut recurring = Recurring::due(AT(0));
        assert!(recurring.begin_if_due(AT(0)));
        recurring.hurry();
        recurring.pause(AT(0), least, most);
        assert!(recurring.begin_if_due(AT(5)));
        recurring.pause(AT(5), least, most);
        assert_eq!(recurring.wake(), Some(AT(205)));
    }
}
