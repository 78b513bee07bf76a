//! The row that catalogs over one database compete for, and the statements on it.

use std::time::Duration;

use domain::time::BootTime;

use crate::ablation::{Rule, Rules};

/// Counts the take-overs. 0 before the first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriterTerm(pub u64);

/// A catalog's process, by a number that it draws at random when it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriterId(pub u64);

/// One uninterrupted life of a database, as a connection finds it: nothing that an older one acknowledges is
/// acknowledged after a newer one was seen, and only with another one can rows be older than they were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Incarnation {
    /// Which database cluster it is (`system_identifier`).
    pub system: u64,
    /// Rises with each fail-over and each recovery to a point in time.
    pub timeline: u32,
    /// When its server started, in microseconds since 1970 by its own clock. Tells a snapshot that was put in
    /// its place, which keeps the other two.
    pub started_us: i64,
}

/// The row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct WriterRow {
    pub term: WriterTerm,
    /// Rises with every commit, also over take-overs.
    pub beat: u64,
    /// Whose term it is. Nobody's before the first, and once it was handed over.
    pub holder: Option<WriterId>,
}

/// What every writing statement compares with the row: it is this catalog's term still.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fence {
    pub term: WriterTerm,
    pub holder: WriterId,
}

/// What a take-over compares with the row, and puts in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Claim {
    /// The term that is taken over from, and its last beat.
    pub term: WriterTerm,
    pub beat: u64,
    /// The term after, and its holder.
    pub next: Fence,
}

/// The statements on the row, as a store in memory carries them out.
///
/// In SQL the beat that the writer knows stands where the holder stands here (`WHERE term = … AND beat = …`): a term
/// has one holder, and its beat also tells a server that has not all that this holder committed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct WriterTable {
    row: WriterRow,
    rules: Rules,
}

impl WriterTable {
    /// The same without a protective rule.
    #[cfg(feature = "ablation")]
    pub fn under(self, rules: Rules) -> Self {
        Self { rules, ..self }
    }

    pub fn row(&self) -> WriterRow {
        self.row
    }

    /// `UPDATE writer SET beat = beat + 1`, if the term is the holder's: begins every commit, or is one. Without it nothing of the commit is done.
    pub fn beat(&mut self, fence: Fence) -> bool {
        let passes = self.is_held(fence) || !self.rules.keep(Rule::WriterFence);
        self.row.beat += u64::from(passes);
        passes
    }

    /// `UPDATE writer SET term = …, holder = …, beat = beat + 1 WHERE term = … AND beat = …`: whoever was read.
    pub fn take_over(&mut self, claim: Claim) -> bool {
        let is_as_seen = claim.term == self.row.term
            && (claim.beat == self.row.beat || !self.rules.keep(Rule::TakeOverBeat));
        if is_as_seen {
            self.row = WriterRow {
                term: claim.next.term,
                beat: self.row.beat + 1,
                holder: Some(claim.next.holder),
            };
        }
        is_as_seen
    }

    /// `UPDATE writer SET holder = NULL, beat = beat + 1`, if the term is the holder's.
    pub fn release(&mut self, fence: Fence) -> bool {
        let is_held = self.is_held(fence);
        if is_held {
            self.row.beat += 1;
            self.row.holder = None;
        }
        is_held
    }

    fn is_held(&self, fence: Fence) -> bool {
        self.row.term == fence.term && self.row.holder == Some(fence.holder)
    }
}

/// What a catalog has seen of the row, and since when, by its own clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Sighting {
    pub row: WriterRow,
    /// Since when the row was seen to be as it is.
    pub since: BootTime,
    incarnation: Incarnation,
    /// Since when it is this incarnation.
    incarnation_since: BootTime,
}

/// A term of this catalog's that is over, and from when on nothing of it is believed by anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct EndedTerm {
    pub fence: Fence,
    pub over_at: BootTime,
}

impl Sighting {
    /// The row was read, with what was seen `before`. Counts from when the answer came.
    pub fn after(
        before: Option<Self>,
        row: WriterRow,
        incarnation: Incarnation,
        received: BootTime,
        rules: Rules,
    ) -> Self {
        let first = Self {
            row,
            since: received,
            incarnation,
            incarnation_since: received,
        };
        let Some(before) = before else {
            return first;
        };
        if before.incarnation != incarnation && rules.keep(Rule::Incarnation) {
            return first;
        }
        let since = if before.row == row {
            before.since
        } else {
            received
        };
        Self {
            since,
            incarnation_since: before.incarnation_since,
            ..first
        }
    }

    /// From when on the term may be taken over, by one whose own last term was `ended`.
    ///
    /// A term that was given back, or is over as its own holder knows, need not be waited for, but the database
    /// must have been seen for a lease: its rows may be older than a term that somebody serves in.
    pub fn free_at(&self, lease: Duration, ended: Option<EndedTerm>, rules: Rules) -> BootTime {
        if !rules.keep(Rule::TakeOverWait) {
            return self.since;
        }
        let settled = self.incarnation_since + lease;
        let own = ended.filter(|ended| {
            self.row.term == ended.fence.term && self.row.holder == Some(ended.fence.holder)
        });
        match (self.row.holder, own) {
            (None, _) => settled,
            (_, Some(own)) if rules.keep(Rule::OwnTermOver) => settled.max(own.over_at),
            (_, Some(_)) => settled,
            (Some(_), None) => self.since + lease,
        }
    }
}
