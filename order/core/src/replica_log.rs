//! What this replica holds: on its disk, and on the way there.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};

use domain::LedgerEnd;
use domain::{Epoch, OrderNumber, Row, RowNumber};

use crate::durable::{Durable, PROPOSED_SLOTS, Proposed};
use domain::Term;

/// The replica's term and ledger. The ledger is a gapless prefix of the journal: rows are
/// taken in number order, and only where they continue the hash chain.
///
/// Rows that the leader proposes are not in the ledger, yet what was saved of them is held: when
/// they turn out to be committed, their place in the ledger can wait. In one epoch no two rows are
/// proposed under one number, so a proposed row is the committed one if its epoch commits any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ReplicaLog {
    durable: Durable,
    /// Known, and durable or on its way to the disk.
    term: Term,
    /// The store failed and no save of the term came after.
    term_is_lost: bool,
    /// The ledger's end with the rows that are on their way to the disk or wait to be.
    accepted_end: LedgerEnd,
    /// The last rows of the ledger, which are yet to be saved there.
    waiting: Vec<Row>,
    /// Rows proposed in this epoch that are not durable in the ledger, in number order.
    proposed: VecDeque<Row>,
    /// A row of this epoch is committed: the known one, which is lower, is over.
    over_by: Option<Epoch>,
}

impl Hash for ReplicaLog {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self {
            durable,
            term,
            term_is_lost,
            accepted_end,
            waiting,
            proposed,
            over_by,
        } = self;
        (
            durable,
            term,
            term_is_lost,
            accepted_end.rows,
            accepted_end.chain,
        )
            .hash(state);
        let last = proposed.back().map(|row| row.chain);
        (waiting.len(), proposed.len(), last, over_by).hash(state);
    }
}

/// Why rows were not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AppendRejected {
    /// Rows before them are missing.
    Gap,
    /// This row does not continue the hash chain.
    Broken(RowNumber),
}

impl ReplicaLog {
    /// What was found on the disk. `proposed` are the rows there that continue its ledger.
    pub(super) fn new(durable: Durable, proposed: Vec<Row>) -> Self {
        let mut own = Self {
            durable,
            term: durable.term,
            term_is_lost: false,
            accepted_end: durable.end,
            waiting: Vec::new(),
            proposed: VecDeque::new(),
            over_by: None,
        };
        let of_this_epoch = |row: &Row| row.epoch == durable.term.epoch;
        let current = proposed.into_iter().take_while(of_this_epoch).collect();
        let taken = own.propose(current);
        let end = taken.ok().and_then(|rows| rows.last().map(LedgerEnd::of));
        own.durable.proposed = end.map_or_else(Proposed::default, |end| Proposed {
            epoch: durable.term.epoch,
            end,
        });
        own
    }

    pub(super) fn durable(&self) -> Durable {
        self.durable
    }

    pub(super) fn term(&self) -> Term {
        self.term
    }

    pub(super) fn accepted_end(&self) -> LedgerEnd {
        self.accepted_end
    }

    /// Where the ledger ends with the rows proposed for it.
    pub(super) fn proposed_end(&self) -> LedgerEnd {
        let last = self.proposed.back().map(LedgerEnd::of).unwrap_or_default();
        if last.rows > self.accepted_end.rows {
            last
        } else {
            self.accepted_end
        }
    }

    /// What is durable, be it in the ledger or as rows proposed in this epoch.
    pub(super) fn durable_end(&self) -> LedgerEnd {
        let Proposed { epoch, end } = self.durable.proposed;
        let counts = epoch == self.term.epoch && self.over_by.is_none();
        let known = self.durable.end.rows..=self.proposed_end().rows;
        if counts && end.rows > self.durable.end.rows && known.contains(&end.rows) {
            end
        } else {
            self.durable.end
        }
    }

    /// How many rows are on their way to the disk, or wait to be.
    pub(super) fn unsaved(&self) -> u64 {
        self.accepted_end.rows.0 - self.durable.end.rows.0
    }

    /// Takes a term, which must not be lower than the known one.
    pub(super) fn adopt(&mut self, term: Term) {
        assert!(
            term.epoch >= self.term.epoch,
            "epochs only rise: {term:?} after {:?}",
            self.term
        );
        if term.epoch > self.term.epoch {
            self.proposed.clear();
            self.over_by = None;
        }
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
    /// All or nothing. They then [wait to be saved](Self::take_waiting).
    pub(super) fn take(&mut self, mut rows: Vec<Row>) -> Result<Vec<Row>, AppendRejected> {
        let is_last = |row: &&Row| row.number.next() == self.accepted_end.rows;
        if let Some(last) = rows
            .iter()
            .find(is_last)
            .filter(|last| last.chain != self.accepted_end.chain)
        {
            return Err(AppendRejected::Broken(last.number));
        }
        rows.retain(|row| row.number >= self.accepted_end.rows);
        let accepted_end = continued(self.accepted_end, &rows)?;
        if let Some(row) = rows.iter().find(|row| self.contradicts(row)) {
            return Err(AppendRejected::Broken(row.number));
        }
        if let Some(last) = rows.last().filter(|last| last.epoch > self.term.epoch) {
            self.over_by = Some(last.epoch);
            self.proposed.clear();
        }
        self.accepted_end = accepted_end;
        self.waiting.extend(rows.iter().cloned());
        Ok(rows)
    }

    fn proposed_as(&self, number: RowNumber) -> Option<&Row> {
        let found = self
            .proposed
            .binary_search_by_key(&number, |row| row.number);
        found.ok().map(|index| &self.proposed[index])
    }

    /// An order of the ledger whose row is durable as a proposed one.
    pub(super) fn find(&self, number: OrderNumber) -> Option<&Row> {
        let held = self.accepted_end.rows.min(self.durable_end().rows);
        let mut proposed = self.proposed.iter().take_while(|row| row.number < held);
        proposed.find(|row| row.order_number() == Some(number))
    }

    /// Whether another row was proposed under its number in the same epoch: one of them is damaged.
    fn contradicts(&self, row: &Row) -> bool {
        let proposed = self.proposed_as(row.number);
        proposed.is_some_and(|proposed| proposed.epoch == row.epoch && proposed.chain != row.chain)
    }

    /// The epoch that has begun since the known one, where a row gave it away.
    pub(super) fn over_by(&self) -> Option<Epoch> {
        self.over_by
    }

    /// Takes the proposed rows below a number into the ledger: they are committed.
    pub(super) fn promote(&mut self, committed: RowNumber) {
        let accepted_end = self.accepted_end.rows;
        let is_next = |row: &&Row| (accepted_end..committed).contains(&row.number);
        let rows = self.proposed.iter().filter(is_next).cloned().collect();
        if self.take(rows).is_err() {
            // After a save that failed they may not continue the ledger: they are sent again.
            self.proposed.clear();
        }
    }

    /// Whether all rows that wait to be saved in the ledger were proposed, and so are on the disk
    /// or on their way there.
    pub(super) fn may_wait(&self) -> bool {
        let waiting = self.waiting.iter();
        self.waiting.len() <= self.proposed.len()
            && waiting
                .rev()
                .all(|row| self.proposed_as(row.number).is_some())
    }

    /// How many rows wait to be saved in the ledger.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The rows that wait to be saved in the ledger, which the caller saves.
    pub(super) fn take_waiting(&mut self) -> Vec<Row> {
        std::mem::take(&mut self.waiting)
    }

    /// Whether the disk has room for rows proposed up to a number without losing one that is not
    /// in the ledger yet.
    pub(super) fn has_room(&self, last: RowNumber) -> bool {
        let saved = self.accepted_end.rows.0 - self.waiting.len() as u64;
        last.0 < saved.saturating_add(PROPOSED_SLOTS)
    }

    /// Takes rows that are proposed as the ledger's continuation, and returns those that are new
    /// and to be saved. All or nothing.
    pub(super) fn propose(&mut self, mut rows: Vec<Row>) -> Result<Vec<Row>, AppendRejected> {
        let end = self.proposed_end();
        rows.retain(|row| row.number >= end.rows);
        continued(end, &rows)?;
        let Some(last) = rows.last() else {
            return Ok(rows);
        };
        let of_this_epoch = rows.iter().all(|row| row.epoch == self.term.epoch);
        if self.over_by.is_some() || !of_this_epoch || !self.has_room(last.number) {
            return Err(AppendRejected::Gap);
        }
        self.proposed.extend(rows.iter().cloned());
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
        if self.accepted_end.rows < durable.end.rows {
            self.accepted_end = durable.end;
        }
        let in_ledger = |row: &mut Row| row.number < durable.end.rows;
        while self.proposed.pop_front_if(in_ledger).is_some() {}
    }

    /// What was on its way to the disk is lost.
    pub(super) fn store_failed(&mut self, durable: Durable) {
        self.stored(durable);
        self.accepted_end = durable.end;
        self.waiting.clear();
        let held = self.durable_end().rows;
        self.proposed.retain(|row| row.number < held);
        self.term_is_lost = durable.term != self.term;
    }
}

/// Where rows that continue a ledger end.
fn continued(mut end: LedgerEnd, rows: &[Row]) -> Result<LedgerEnd, AppendRejected> {
    for row in rows {
        if row.number != end.rows {
            return Err(AppendRejected::Gap);
        }
        if !end.is_continued_by(row) {
            return Err(AppendRejected::Broken(row.number));
        }
        end = LedgerEnd::of(row);
    }
    Ok(end)
}
