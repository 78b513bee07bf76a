//! What is archived or merged next. Pure.
//!
//! Files are merged by tiers (O'Neil et al., "The log-structured merge-tree", 1996; tiered as in Cassandra): eight neighbours of
//! about one size become one. So a journal of n rows is in a number of files that grows with log n until these are as large as
//! files get, and each row is copied again as often.

use std::ops::Range;

use crate::archive::Part;

/// Rows of a file before it is merged, at most: their keys are sorted in memory, some 10 MB.
const FIRST_ROWS_MAX: u64 = 1 << 17;

/// And at least.
const FIRST_ROWS_MIN: u64 = 64;

/// Files that become one.
const MERGED: usize = 8;

/// Rows of a file, at most. By tiers it comes to half of that, some 1 GB: so much more room is taken while one is made, and a
/// stop throws it away.
const ROWS_MAX: u64 = 1 << 24;

/// Files that may still become larger, at most.
const SMALL_PARTS_MAX: usize = 64;

/// How many rows are archived together, where so many stay in the database.
pub(super) fn first_rows(kept: u64) -> u64 {
    (kept / 4).clamp(FIRST_ROWS_MIN, FIRST_ROWS_MAX)
}

/// How many of the rows that no file has are archived next, if any: of many at once as many as eight files have, or eight times
/// eight.
pub(super) fn archived_next(unarchived: u64, kept: u64) -> Option<u64> {
    let mut rows = first_rows(kept);
    let spare = unarchived.checked_sub(kept)?;
    if spare < rows {
        return None;
    }
    while rows * MERGED as u64 <= spare.min(FIRST_ROWS_MAX) {
        rows *= MERGED as u64;
    }
    Some(rows)
}

/// Which files are merged next, if any: the first eight neighbours of one tier. Where files are of so many sizes that there are
/// too many of them, the eight neighbours that are smallest.
pub(super) fn merged_next(parts: &[Part]) -> Option<Range<usize>> {
    // Eight of a tier make one of the next.
    let tier = |part: &Part| part.rows().ilog2() / 3;
    let sum = |parts: &[Part]| parts.iter().map(Part::rows).sum::<u64>();
    let together = parts.windows(MERGED).position(|parts| {
        let first = tier(&parts[0]);
        sum(parts) <= ROWS_MAX && parts.iter().all(|part| tier(part) == first)
    });
    let smallest = || {
        let sums = parts.windows(MERGED).map(sum).enumerate();
        let fitting = sums.filter(|(_, rows)| *rows <= ROWS_MAX);
        let least = fitting.min_by_key(|(_, rows)| *rows);
        least
            .map(|(first, _)| first)
            .filter(|_| are_too_many(parts))
    };
    let first = together.or_else(smallest)?;
    Some(first..first + MERGED)
}

/// Whether there are more files than tiers leave, so that merging cannot wait: each is looked at for each key, and open.
pub(super) fn are_too_many(parts: &[Part]) -> bool {
    let is_small = |part: &&Part| part.rows() < ROWS_MAX / 4;
    parts.iter().filter(is_small).count() > SMALL_PARTS_MAX
}

#[cfg(test)]
mod tests {
    use domain::{LedgerEnd, RowNumber};

    use super::*;

    /// Files of as many rows each.
    fn parts(rows: &[u64]) -> Vec<Part> {
        let mut next = 0;
        let part = |rows: &u64| {
            let first = next;
            next += rows;
            let end = LedgerEnd {
                rows: RowNumber(next),
                ..LedgerEnd::default()
            };
            Part {
                first: RowNumber(first),
                end,
            }
        };
        rows.iter().map(part).collect()
    }

    #[test]
    fn eight_neighbours_of_a_size_are_merged() {
        let cases: [(&[u64], _); 6] = [
            (&[], None),
            (&[100; 7], None),
            (&[100; 8], Some(0..8)),
            (&[800, 100, 100, 100, 100, 100, 100, 100], None),
            (&[800, 100, 101, 102, 103, 104, 105, 106, 107], Some(1..9)),
            (&[ROWS_MAX; 9], None),
        ];
        for (rows, merged) in cases {
            assert_eq!(merged_next(&parts(rows)), merged, "{rows:?}");
        }
    }

    #[test]
    fn files_are_few_however_long_the_journal_and_rows_are_copied_a_few_times() {
        for kept in [100, 1_000_000] {
            let first = first_rows(kept);
            let (mut sizes, mut copied) = (Vec::new(), 0_u64);
            for archived in 1..=20_000_u64 {
                sizes.push(first);
                while let Some(range) = merged_next(&parts(&sizes)) {
                    let sum = sizes[range.clone()].iter().sum();
                    sizes.splice(range, [sum]);
                    copied += sum;
                }
                let rows = archived * first;
                let largest = (ROWS_MAX / 8).max(first);
                let bound = 8 * 8 + rows / largest;
                assert!(sizes.len() as u64 <= bound, "{} of {rows}", sizes.len());
            }
            let rows = 20_000 * first;
            assert!(copied <= 6 * rows, "{copied} for {rows}");
        }
    }

    #[test]
    fn files_are_few_while_rows_come_faster_than_they_are_archived_and_of_any_size() {
        // Nothing is merged that could wait.
        let mut sizes: Vec<u64> = Vec::new();
        for archived in 0..20_000_u64 {
            sizes.push([64, 512, 70, 32_768, 64, 4_096][archived as usize % 6]);
            while are_too_many(&parts(&sizes)) {
                let range = merged_next(&parts(&sizes)).unwrap();
                let sum = sizes[range.clone()].iter().sum();
                sizes.splice(range, [sum]);
            }
            let rows: u64 = sizes.iter().sum();
            let bound = SMALL_PARTS_MAX as u64 + rows / (ROWS_MAX / 4);
            assert!(sizes.len() as u64 <= bound, "{} of {rows}", sizes.len());
        }
    }

    #[test]
    fn of_a_long_backlog_more_rows_are_archived_together() {
        for (unarchived, rows) in [(164, 64), (611, 64), (612, 512), (1_000_000, 32_768)] {
            assert_eq!(archived_next(unarchived, 100), Some(rows), "{unarchived}");
        }
    }

    #[test]
    fn what_stays_is_never_archived() {
        for kept in [100, 4_000, 1_000_000, u64::MAX] {
            for unarchived in [0, 1, kept, kept.saturating_add(63), 10_000_000] {
                if let Some(rows) = archived_next(unarchived, kept) {
                    assert!(unarchived - rows >= kept, "{rows} of {unarchived}");
                }
            }
        }
    }
}
