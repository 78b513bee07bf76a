//! A replica's disk in memory, for models and tests.

use domain::LedgerEnd;
use domain::{Identity, Row};

use crate::durable::{
    Discontinuous, Durable, PROPOSED_SLOTS, Proposed, Save, continuation, continued_identity,
};
use domain::Term;

/// What a replica's database would hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memory {
    /// Whose journal's copy it is.
    pub identity: Option<Identity>,
    /// The highest term that was saved.
    pub term: Term,
    pub rows: Vec<Row>,
    /// Rows that were proposed, in the order in which they were saved.
    pub kept: Vec<Row>,
    /// See [`Durable::proposed`].
    last: Proposed,
}

impl Memory {
    /// With so much on it.
    pub fn holding(term: Term, rows: Vec<Row>) -> Self {
        Self {
            term,
            rows,
            ..Self::default()
        }
    }

    pub fn durable(&self) -> Durable {
        Durable {
            term: self.term,
            end: self.rows.last().map(LedgerEnd::of).unwrap_or_default(),
            proposed: self.last,
        }
    }

    /// Makes it durable, or changes nothing.
    pub fn save(&mut self, save: &Save) -> Result<Durable, Discontinuous> {
        let (new, durable) = continuation(self.durable(), save)?;
        self.identity = continued_identity(self.identity, save.identity)?;
        self.rows.extend(new.rows.into_iter().cloned());
        for (row, _) in new.proposed {
            let slot = |row: &Row| row.number.0 % PROPOSED_SLOTS;
            self.kept.retain(|older| slot(older) != slot(row));
            self.kept.push(row.clone());
        }
        (self.term, self.last) = (durable.term, durable.proposed);
        Ok(durable)
    }

    /// The process ends, and is started again: what it finds.
    pub fn reopen(&mut self) -> (Durable, Vec<Row>) {
        let proposed = self.continuing();
        self.last = proposed
            .last()
            .map(Proposed::ending_with)
            .unwrap_or_default();
        (self.durable(), proposed)
    }

    /// The rows that continue the ledger and were proposed in the last epoch seen.
    pub fn continuing(&self) -> Vec<Row> {
        let mut end = self.durable().end;
        let mut continuing = Vec::new();
        let next = |end: LedgerEnd| {
            let mut kept = self.kept.iter();
            kept.find(|row| row.number == end.rows && row.follows(&end.chain))
                .filter(|row| row.epoch == self.term.epoch)
        };
        while let Some(row) = next(end) {
            end = LedgerEnd::of(row);
            continuing.push(row.clone());
        }
        continuing
    }
}
