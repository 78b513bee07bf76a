//! The last rows of a leader's ledger, and those proposed for it, kept in memory to be sent to
//! followers.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};

use domain::{ChainHash, Row, RowNumber};

/// Rows kept although they are durable.
const RECENT_ROWS_MAX: usize = 4096;

/// The rows from some number on, to the end of the ledger.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Recent {
    rows: VecDeque<Row>,
}

impl Hash for Recent {
    /// The last row's chain hash covers those before it.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let last = self.rows.back().map(|row| row.chain);
        (self.rows.len(), last).hash(state);
    }
}

impl Recent {
    /// Adds rows at the end of the ledger, or that are proposed as its continuation; passes over
    /// those that it has. All rows from `durable` on stay.
    pub(super) fn extend(&mut self, rows: &[Row], durable: RowNumber) {
        for row in rows {
            let next = self
                .rows
                .back()
                .map_or(row.number, |last| last.number.next());
            if row.number < next {
                continue;
            }
            assert_eq!(row.number, next, "recent rows have no gaps");
            self.rows.push_back(row.clone());
        }
        while self.rows.len() > RECENT_ROWS_MAX
            && self
                .rows
                .front()
                .is_some_and(|first| first.number < durable)
        {
            self.rows.pop_front();
        }
    }

    /// At most `rows_max` rows from a number on; `None` where the first of them is not kept.
    pub(super) fn from(&self, number: RowNumber, rows_max: usize) -> Option<Vec<Row>> {
        let skipped = self.index(number)?;
        Some(self.rows.range(skipped..).take(rows_max).cloned().collect())
    }

    /// The chain hash of a ledger of so many rows, where its last row is kept.
    pub(super) fn chain_at(&self, rows: RowNumber) -> Option<ChainHash> {
        let last = RowNumber(rows.0.checked_sub(1)?);
        Some(self.rows[self.index(last)?].chain)
    }

    fn index(&self, number: RowNumber) -> Option<usize> {
        let first = self.rows.front()?.number;
        let index = usize::try_from(number.0.checked_sub(first.0)?).ok()?;
        (index < self.rows.len()).then_some(index)
    }
}
