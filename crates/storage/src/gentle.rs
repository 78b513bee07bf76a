//! Statements that make way for others: whoever runs them works for a quarter of a millisecond at a time, and rests for four
//! times as long, so that it takes a fifth of a processor at most.
//!
//! The lowest priority alone does not do: a processor that is never idle takes no waiting thread over from another one, and
//! one that is to wake up elsewhere waits there for the next tick. On two processors the p99 of trades beside such a thread
//! was 1.6 times what it is without, and with rests 1.05 times.

use std::time::Duration;

use rusqlite::Connection;
use rustix::time::{ClockId, clock_gettime};

/// Virtual instructions of SQLite's between two looks at the clock: some ten microseconds.
const OPS: i32 = 500;

/// Processor time at a time.
pub const WORK: Duration = Duration::from_micros(250);

/// How many times as long as it worked somebody rests who makes way for others.
pub const REST_TIMES: u32 = 4;

/// Longest rest. One row may take SQLite long, a sort say.
const REST_MAX: Duration = Duration::from_millis(20);

/// Has all statements of a connection make way for others. Those of one that writes keep their transaction meanwhile: it is for
/// databases that nobody else uses.
pub(crate) fn make_way(connection: &mut Connection) -> rusqlite::Result<()> {
    let mut began: Option<Duration> = None;
    let look = move || {
        let now = processor_time();
        let since = began.filter(|began| *began <= now).unwrap_or(now); // later, where it was another thread's
        began = Some(since);
        let worked = now.saturating_sub(since);
        if let Some(rest) = rest_after(worked) {
            std::thread::sleep(rest);
            began = Some(now);
        }
        false // it goes on
    };
    connection.progress_handler(OPS, Some(look))
}

/// How long to rest; `None` where it is not time yet.
fn rest_after(worked: Duration) -> Option<Duration> {
    (worked >= WORK).then(|| (worked * REST_TIMES).min(REST_MAX))
}

/// What this thread has had of processors.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_rest_is_four_times_as_long_as_the_work_within_bounds() {
        for (worked, rest) in [
            (WORK / 2, None),
            (WORK, Some(4 * WORK)),
            (2 * WORK, Some(8 * WORK)),
            (Duration::from_secs(1), Some(REST_MAX)),
        ] {
            assert_eq!(rest_after(worked), rest, "after {worked:?}");
        }
    }

    /// By what it had of processors, which a busy machine does not change.
    #[test]
    fn statements_that_make_way_take_no_more_than_their_part_of_a_processor() {
        let mut connection = Connection::open_in_memory().unwrap();
        make_way(&mut connection).unwrap();
        let (began, worked_before) = (Instant::now(), processor_time());
        let count = "WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number LIMIT 300000)
                     SELECT count(*) FROM number";
        let counted: u64 = connection.query_row(count, [], |row| row.get(0)).unwrap();
        assert_eq!(counted, 300_000);
        let worked = processor_time().saturating_sub(worked_before);
        assert!(worked > 10 * WORK, "{worked:?}: it is too short to tell");
        // A third, since a look may come late, and the last piece is followed by no rest.
        assert!(
            3 * worked < began.elapsed(),
            "{worked:?} of {:?}",
            began.elapsed()
        );
    }
}
