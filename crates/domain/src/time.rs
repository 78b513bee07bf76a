//! The clock that leases are measured on.

use std::ops::{Add, Sub};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// A point on the machine's boot-time clock, which goes on while the machine is suspended:
/// a gateway that wakes up finds its lease gone. (`std::time::Instant` on Linux stops.)
/// Means nothing on another machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BootTime(Duration);

impl BootTime {
    /// Reads the clock.
    pub fn now() -> Self {
        #[cfg(feature = "simulated-clock")]
        if let Some(shown) = simulated::shown() {
            return shown;
        }
        let now = clock_gettime(ClockId::Boottime);
        // The boot-time clock starts at 0 and the kernel keeps nanoseconds below 10⁹.
        Self(Duration::new(now.tv_sec as u64, now.tv_nsec as u32))
    }

    /// A point so long after boot, for tests and simulations.
    pub const fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// How long after `earlier` this is; zero where it is not after it.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for BootTime {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}

impl Sub<Duration> for BootTime {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(duration))
    }
}

/// For the simulation of what asks the clock itself: another one in its place.
#[cfg(feature = "simulated-clock")]
pub mod simulated {
    use std::cell::Cell;

    use super::BootTime;

    thread_local! {
        static SHOWN: Cell<Option<BootTime>> = const { Cell::new(None) };
    }

    /// What the clock shows to this thread from now on; the machine's own where that is `None`. Returns what it
    /// showed before.
    pub fn show(shown: Option<BootTime>) -> Option<BootTime> {
        SHOWN.replace(shown)
    }

    pub(super) fn shown() -> Option<BootTime> {
        SHOWN.get()
    }
}
