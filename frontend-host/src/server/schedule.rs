//! What the kernel's scheduler says of a thread.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

/// Longer than three numbers of 64 bits.
const TEXT_BYTES_MAX: usize = 64;

/// A thread's account; others may read it, however busy the thread is.
#[derive(Debug)]
pub(super) struct Schedule(File);

/// Since the thread began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Times {
    /// On a processor.
    pub running: Duration,
    /// Ready to run, while others had the processor.
    pub waiting: Duration,
    /// How often it was given one.
    pub turns: u64,
}

impl Schedule {
    /// Opens the account of the thread that asks.
    ///
    /// # Errors
    /// Where the kernel keeps none, or `/proc` is missing.
    pub(super) fn of_this_thread() -> io::Result<Self> {
        let schedule = Self(File::open("/proc/thread-self/schedstat")?);
        // A kernel that does not count says nothing but zeros.
        if schedule.times()?.turns == 0 {
            return Err(io::ErrorKind::Unsupported.into());
        }
        Ok(schedule)
    }

    /// Reads it.
    ///
    /// # Errors
    /// Where the thread has ended, or the text is not what Linux' `sched-stats` describes.
    pub(super) fn times(&self) -> io::Result<Times> {
        let mut text = [0; TEXT_BYTES_MAX];
        let length = self.0.read_at(&mut text, 0)?;
        let text = String::from_utf8_lossy(&text[..length]);
        parse(&text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, text.into_owned()))
    }
}

impl Times {
    /// What was added to earlier ones.
    pub(super) fn since(self, earlier: Self) -> Self {
        Self {
            running: self.running.saturating_sub(earlier.running),
            waiting: self.waiting.saturating_sub(earlier.waiting),
            turns: self.turns.saturating_sub(earlier.turns),
        }
    }
}

/// Nanoseconds on a processor, nanoseconds waiting for one, and turns.
fn parse(text: &str) -> Option<Times> {
    let mut numbers = text.split_ascii_whitespace().map(str::parse);
    let mut next = || numbers.next()?.ok();
    Some(Times {
        running: Duration::from_nanos(next()?),
        waiting: Duration::from_nanos(next()?),
        turns: next()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_and_waiting_are_read() {
        let times = parse("906079 1430582 3\n").unwrap();
        assert_eq!(times.running.as_nanos(), 906_079);
        assert_eq!(times.waiting.as_nanos(), 1_430_582);
        assert_eq!(times.turns, 3);
        assert_eq!(parse("906079 1430582"), None);
        assert_eq!(parse("0 -1 3"), None);
    }

    #[test]
    fn a_thread_that_works_is_seen_to_run_from_outside() {
        let schedule = Schedule::of_this_thread().unwrap();
        let (seen, other) = std::thread::scope(|scope| {
            let other = scope.spawn(|| {
                let mut last = schedule.times().unwrap();
                // Ends when the thread outside has run longer than it has by now.
                let begun = last;
                while last.running == begun.running {
                    last = schedule.times().unwrap();
                    std::thread::yield_now();
                }
                last.since(begun)
            });
            let mut sum = 0_u64;
            while !other.is_finished() {
                sum = std::hint::black_box(sum.wrapping_add(1));
            }
            (other.join().unwrap(), sum)
        });
        assert!(seen.running > Duration::ZERO, "while it counted to {other}");
    }
}
