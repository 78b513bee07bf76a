//! How a backup makes way for trades: it works in steps of about a millisecond, of whoever does the work, and rests after each
//! for four times as long. So it takes a fifth of a processor and of a disk, and a trade waits for one step at most.

use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{Advice, fadvise};
use storage::gentle::REST_TIMES;

/// Rows that a server is asked for at a time.
pub const STEP_ROWS: usize = 256;

/// Bytes that a disk gets at a time: 64 pages of a database.
pub const STEP_BYTES: usize = 256 << 10;

/// The shortest rest: a disk gets some 60 MB a second at most.
const REST_MIN: Duration = Duration::from_millis(4);

/// The longest, so that a backup ends however slow the server or the disk is.
const REST_MAX: Duration = Duration::from_millis(20);

/// What is on its way to a disk is waited for whenever it is so much: a disk that is slower than this writes would have ever more
/// to do.
const UNSYNCED_BYTES_MAX: u64 = 64 << 20;

/// How long to rest after a step that took so long.
pub fn rest_after(took: Duration) -> Duration {
    (took * REST_TIMES).clamp(REST_MIN, REST_MAX)
}

/// Paces who writes a file from its beginning to its end.
#[derive(Debug)]
pub struct Pace {
    /// When the last rest ended.
    began: Instant,
    /// Up to where the file is on its way to the disk.
    begun: u64,
    /// And up to where it was waited for.
    synced: u64,
}

/// What of a file is to be written to the disk now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Due {
    from: u64,
    bytes: NonZeroU64,
    /// All that was begun before is waited for.
    is_synced: bool,
}

impl Pace {
    /// Of a file whose first bytes, so many, are left to the system: where it is removed soon, they need never be on a disk.
    pub fn new(unwritten: u64) -> Self {
        Self {
            began: Instant::now(),
            begun: unwritten,
            synced: unwritten,
        }
    }

    /// Has the system begin to write what is new in a file that is so long by now: a disk that gets all of it at once, by a sync
    /// at the end say, keeps those who trade waiting for it.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn write_out(&mut self, file: &File, end: u64) -> io::Result<()> {
        let Some(due) = self.due(end) else {
            return Ok(());
        };
        // Linux begins to write what is asked to be let go of (mm/fadvise.c), and waits for nothing. Where a file system has no
        // such thing, it writes when it likes.
        let _ = fadvise(file, due.from, Some(due.bytes), Advice::DontNeed);
        match due.is_synced {
            true => file.sync_data(),
            false => Ok(()),
        }
    }

    /// A step is done.
    pub fn rest(&mut self) {
        sleep(rest_after(self.began.elapsed()));
        self.began = Instant::now();
    }

    fn due(&mut self, end: u64) -> Option<Due> {
        let from = self.begun;
        let bytes = NonZeroU64::new(end.saturating_sub(from))?;
        self.begun = end;
        let is_synced = end - self.synced >= UNSYNCED_BYTES_MAX;
        if is_synced {
            self.synced = end;
        }
        Some(Due {
            from,
            bytes,
            is_synced,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_rest_is_four_times_as_long_as_the_step_within_bounds() {
        for (took, rest) in [
            (Duration::ZERO, REST_MIN),
            (MS, 4 * MS),
            (3 * MS, 12 * MS),
            (REST_MAX, REST_MAX),
            (Duration::from_secs(3600), REST_MAX),
        ] {
            assert_eq!(rest_after(took), rest, "after {took:?}");
        }
    }

    #[test]
    fn ten_million_rows_take_half_an_hour_at_most_where_a_step_takes_no_longer_than_a_rest() {
        let steps = 10_000_000_u32.div_ceil(u32::try_from(STEP_ROWS).unwrap());
        assert!(steps * (MS + rest_after(MS)) < Duration::from_secs(4 * 60));
        assert!(steps * (REST_MAX + rest_after(REST_MAX)) < Duration::from_secs(30 * 60));
    }

    #[test]
    fn every_byte_is_written_out_once_and_waited_for_in_pieces() {
        const STEP: u64 = STEP_BYTES as u64;
        let (mut pace, mut next, mut waited) = (Pace::new(0), 0, Vec::new());
        for step in 1..=1024_u64 {
            let due = pace.due(step * STEP).unwrap();
            assert_eq!((due.from, due.bytes.get()), (next, STEP));
            next += STEP;
            waited.extend(due.is_synced.then_some(next));
        }
        assert_eq!(waited, [1, 2, 3, 4].map(|count| count * UNSYNCED_BYTES_MAX));
        assert_eq!(pace.due(next), None, "nothing is new");
    }

    #[test]
    fn what_is_removed_soon_is_written_out_beyond_some_length_alone() {
        let mut pace = Pace::new(100);
        assert_eq!(pace.due(99), None);
        assert_eq!(pace.due(100), None);
        let due = pace.due(130).unwrap();
        assert_eq!((due.from, due.bytes.get(), due.is_synced), (100, 30, false));
    }
}
