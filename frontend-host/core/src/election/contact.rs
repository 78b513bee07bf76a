//! Whether this gateway hears anybody at all.

use std::time::Duration;

use domain::time::BootTime;

use crate::timing::{PATIENCE_MIN, RECONNECTED_AFTER};

/// When a gateway heard from anybody, a replica or the catalog: a gateway that is cut off, suspended, or starved of
/// its processor hears nobody, and that says nothing of those whom it does not hear.
#[derive(Debug, Clone)]
pub struct Contact {
    heard: BootTime,
    /// Of the gaps between two times that it heard somebody, the one that matters longest.
    gap: Gap,
}

#[derive(Debug, Clone, Copy, Default)]
struct Gap {
    end: BootTime,
    length: Duration,
}

impl Gap {
    /// By then TCP has sent again what was lost in the gap, since its pauses double; or the connection was given up, and
    /// made anew.
    fn mended(&self) -> BootTime {
        self.end + self.length.min(RECONNECTED_AFTER)
    }
}

impl Contact {
    /// From now on.
    pub fn new(now: BootTime) -> Self {
        Self {
            heard: now,
            gap: Gap::default(),
        }
    }

    /// A replica said something, or its machine that nobody is there; or the catalog answered.
    pub fn heard(&mut self, now: BootTime) {
        let gap = Gap {
            end: now,
            length: now.since(self.heard),
        };
        if gap.length > PATIENCE_MIN && gap.mended() > self.gap.mended() {
            self.gap = gap;
        }
        self.heard = self.heard.max(now);
    }

    /// Whether a replica that was silent for so long has had that time to be heard in: others were.
    pub(super) fn has_lasted(&self, now: BootTime, patience: Duration) -> bool {
        let is_mended = self.gap.length <= patience || now >= self.gap.mended() + patience;
        now.since(self.heard) <= patience && is_mended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: fn(u64) -> BootTime = BootTime::from_millis;
    const PATIENCE: Duration = PATIENCE_MIN;

    /// Hears somebody every 20 ms from then on, and says from when on that has lasted.
    fn lasts_from(contact: &mut Contact, from: u64) -> u64 {
        let mut now = from;
        loop {
            contact.heard(AT(now));
            if contact.has_lasted(AT(now), PATIENCE) {
                return now - from;
            }
            now += 20;
        }
    }

    #[test]
    fn who_hears_nobody_has_no_contact() {
        let contact = Contact::new(AT(1_000));
        assert!(contact.has_lasted(AT(1_080), PATIENCE));
        assert!(!contact.has_lasted(AT(1_081), PATIENCE));
        assert!(
            contact.has_lasted(AT(1_160), PATIENCE * 2),
            "as patient as that"
        );
    }

    #[test]
    fn after_a_gap_it_takes_as_long_again_and_at_most_until_connections_are_made_anew() {
        for (gap, expected) in [(80, 0), (100, 180), (600, 680), (10_000, 1_080)] {
            let mut contact = Contact::new(AT(1_000));
            assert_eq!(lasts_from(&mut contact, 1_000 + gap), expected, "{gap}");
        }
    }

    #[test]
    fn a_short_gap_does_not_end_the_wait_after_a_long_one() {
        let mut contact = Contact::new(AT(1_000));
        contact.heard(AT(11_000));
        contact.heard(AT(11_100));
        assert_eq!(lasts_from(&mut contact, 11_120), 1_080 - 120);
    }
}
