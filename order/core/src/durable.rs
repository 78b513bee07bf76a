//! What a replica's disk holds, what is to be saved on it, and what a save makes of it. All saves that
//! have queued are written together (group commit).

use std::hash::{Hash, Hasher};

use domain::{ChainHash, Epoch, Identity, LedgerEnd, Row};

use domain::Term;

/// How many proposed rows a replica has room for, beyond its ledger's end.
pub const PROPOSED_SLOTS: u64 = 64;

/// What a replica would find on its disk if it started now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Durable {
    /// The highest term that it has seen.
    pub term: Term,
    /// Where its ledger ends.
    pub end: LedgerEnd,
    /// The rows beyond that.
    pub proposed: Proposed,
}

impl Hash for Durable {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self {
            term,
            end,
            proposed,
        } = self;
        (term, end.rows, end.chain).hash(state);
        let Proposed { epoch, end } = proposed;
        (epoch, end.rows, end.chain).hash(state);
    }
}

/// Rows that continue a ledger, were proposed in one epoch, and may or may not be committed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Proposed {
    /// Which epoch; 0 where there are none.
    pub epoch: Epoch,
    /// Where a ledger with them would end. Below the ledger's own end they are of no interest.
    pub end: LedgerEnd,
}

impl Proposed {
    /// Rows that end with this one.
    pub fn ending_with(row: &Row) -> Self {
        Self {
            epoch: row.epoch,
            end: LedgerEnd::of(row),
        }
    }
}

/// What is to be made durable.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Save {
    /// Whose journal's copy the ledger is. That never changes once it is known.
    pub identity: Option<Identity>,
    pub term: Option<Term>,
    /// Rows that continue the ledger.
    pub rows: Vec<Row>,
    /// Rows that continue it with those and what was proposed before in this epoch. They are
    /// to be kept beside it.
    pub proposed: Vec<Row>,
}

/// Rows that one transaction takes before it is committed, more or less.
pub const GROUP_ROWS_MAX: usize = 8192;

/// Puts what has queued behind a save together with it.
pub fn gather(mut group: Save, mut next: impl FnMut() -> Option<Save>) -> Save {
    while group.rows.len() + group.proposed.len() < GROUP_ROWS_MAX
        && let Some(next) = next()
    {
        group.identity = next.identity.or(group.identity);
        group.term = next.term.or(group.term);
        group.rows.extend(next.rows);
        group.proposed.extend(next.proposed);
    }
    group
}

/// Why a save was refused: what it adds does not follow on what is there. Says which row, or journal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Discontinuous(pub String);

/// What of a save is new.
#[derive(Debug, Default)]
pub struct New<'a> {
    /// Which continue the ledger.
    pub rows: Vec<&'a Row>,
    /// With the chain hash of the row before each.
    pub proposed: Vec<(&'a Row, ChainHash)>,
}

/// What of a save continues a ledger and what was proposed for it, and what is durable after.
///
/// # Errors
/// Where it does not continue it.
pub fn continuation(
    mut durable: Durable,
    save: &Save,
) -> Result<(New<'_>, Durable), Discontinuous> {
    let mut new = New::default();
    durable.term = save.term.unwrap_or(durable.term);
    for row in &save.rows {
        if row.number >= durable.end.rows {
            check_continues(durable.end, row)?;
            durable.end = LedgerEnd::of(row);
            new.rows.push(row);
        }
    }
    // What was proposed before a later epoch began came to nothing, or is among its rows.
    let term = durable.term.epoch;
    let last = save.rows.last().map(|last| last.epoch);
    let is_void = |row: &Row| row.epoch < term || last.is_some_and(|last| row.epoch < last);
    for row in &save.proposed {
        let Proposed { epoch, end } = durable.proposed;
        let follows = epoch == row.epoch && end.rows > durable.end.rows;
        let end = if follows { end } else { durable.end };
        if row.number < end.rows || is_void(row) {
            continue;
        }
        check_continues(end, row)?;
        if row.number.0 - durable.end.rows.0 >= PROPOSED_SLOTS {
            return Err(Discontinuous(format!(
                "row {} is proposed to a ledger of {} rows, which is too far ahead",
                row.number, durable.end.rows
            )));
        }
        durable.proposed = Proposed::ending_with(row);
        new.proposed.push((row, end.chain));
    }
    Ok((new, durable))
}

fn check_continues(end: LedgerEnd, row: &Row) -> Result<(), Discontinuous> {
    if row.number != end.rows {
        return Err(Discontinuous(format!(
            "row {} cannot follow a ledger of {} rows",
            row.number, end.rows
        )));
    }
    if !row.follows(&end.chain) {
        return Err(Discontinuous(format!(
            "row {} does not continue the hash chain",
            row.number
        )));
    }
    Ok(())
}

/// What is known once a save's identity is, too.
///
/// # Errors
/// Where that is another journal's.
pub fn continued_identity(
    before: Option<Identity>,
    saved: Option<Identity>,
) -> Result<Option<Identity>, Discontinuous> {
    let (Some(before), Some(saved)) = (before, saved) else {
        return Ok(before.or(saved));
    };
    if saved.journal != before.journal {
        return Err(Discontinuous(format!(
            "a ledger of journal {} cannot become one of journal {}",
            before.journal, saved.journal
        )));
    }
    let lease_horizon = before.lease_horizon.max(saved.lease_horizon);
    Ok(Some(Identity {
        lease_horizon,
        ..before
    }))
}
