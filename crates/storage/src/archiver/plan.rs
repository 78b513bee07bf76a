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

/// How many rows are archived together, where so many stay in the database.
pub(super) fn first_rows(kept: u64) -> u64 {
    (kept / 4).clamp(FIRST_ROWS_MIN, FIRST_ROWS_MAX)
}

/// How many of the rows that no file has are archived next, if any.
pub(super) fn archived_next(unarchived: u64, kept: u64) -> Option<u64> {
    let rows = first_rows(kept);
    let left = unarchived.checked_sub(rows);
    left.is_some_and(|left| left >= kept).then_some(rows)
}

/// Which files are merged next, if any: the first eight neighbours of one tier.
pub(super) fn merged_next(parts: &[Part]) -> Option<Range<usize>> {
    // Eight of a tier make one of the next.
    let tier = |part: &Part| part.rows().ilog2() / 3;
    let together = parts.windows(MERGED).position(|parts| {
        let rows: u64 = parts.iter().map(Part::rows).sum();
        let first = tier(&parts[0]);
        rows <= ROWS_MAX && parts.iter().all(|part| tier(part) == first)
    });
    together.map(|first| first..first + MERGED)
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
