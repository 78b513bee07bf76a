//! What this replica holds: on its disk, and on the way there.

use std::hash::{Hash, Hasher};

use protocol::{OrderNumber, Row};
use storage::rows::End;

use super::message::{Durable, Term};

/// The replica's term and ledger. The ledger is a gapless prefix of the journal: rows are
/// taken in number order, and only where they continue the hash chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Own {
    durable: Durable,
    /// Known, and durable or on its way to the disk.
    term: Term,
    /// The store failed and no save of the term came after.
    term_is_lost: bool,
    /// The ledger's end with the rows that are on their way to the disk.
    tail: End,
}

impl Hash for Own {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self {
            durable,
            term,
            term_is_lost,
            tail,
        } = self;
        (durable, term, term_is_lost, tail.rows, tail.chain).hash(state);
    }
}

/// Why rows were not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotTaken {
    /// Rows before them are missing.
    Gap,
    /// This row does not continue the hash chain.
    Broken(OrderNumber),
}

impl Own {
    pub(super) fn new(durable: Durable) -> Self {
        Self {
            durable,
            term: durable.term,
            term_is_lost: false,
            tail: durable.end,
        }
    }

    pub(super) fn durable(&self) -> Durable {
        self.durable
    }

    pub(super) fn term(&self) -> Term {
        self.term
    }

    pub(super) fn tail(&self) -> End {
        self.tail
    }

    /// How many rows are on their way to the disk.
    pub(super) fn unsaved(&self) -> u64 {
        self.tail.rows.0 - self.durable.end.rows.0
    }

    /// Takes a term, which must not be lower than the known one.
    pub(super) fn adopt(&mut self, term: Term) {
        assert!(
            term.epoch >= self.term.epoch,
            "epochs only rise: {term:?} after {:?}",
            self.term
        );
        self.term = term;
    }

    /// The term, which the caller has made durable.
    pub(super) fn save_term(&mut self) -> Term {
        self.term_is_lost = false;
        self.term
    }

    /// Whether the term is neither durable nor on its way to the disk.
    pub(super) fn term_is_lost(&self) -> bool {
        self.term_is_lost
    }

    /// Takes the rows that continue the ledger and returns them; passes over those that it has.
    /// All or nothing.
    pub(super) fn take(&mut self, mut rows: Vec<Row>) -> Result<Vec<Row>, NotTaken> {
        let is_last = |row: &&Row| row.number.next() == self.tail.rows;
        if let Some(last) = rows
            .iter()
            .find(is_last)
            .filter(|last| last.chain != self.tail.chain)
        {
            return Err(NotTaken::Broken(last.number));
        }
        rows.retain(|row| row.number >= self.tail.rows);
        let mut tail = self.tail;
        for row in &rows {
            if row.number != tail.rows {
                return Err(NotTaken::Gap);
            }
            if !row.follows(&tail.chain) {
                return Err(NotTaken::Broken(row.number));
            }
            tail = End {
                rows: row.number.next(),
                chain: row.chain,
            };
        }
        self.tail = tail;
        Ok(rows)
    }

    /// The store made everything up to here durable.
    pub(super) fn stored(&mut self, durable: Durable) {
        assert!(
            durable.end.rows >= self.durable.end.rows
                && durable.term.epoch >= self.durable.term.epoch,
            "what is durable stays: {durable:?} after {:?}",
            self.durable
        );
        self.durable = durable;
        if self.tail.rows < durable.end.rows {
            self.tail = durable.end;
        }
    }

    /// What was on its way to the disk is lost.
    pub(super) fn store_failed(&mut self, durable: Durable) {
        self.stored(durable);
        self.tail = durable.end;
        self.term_is_lost = durable.term != self.term;
    }
}
