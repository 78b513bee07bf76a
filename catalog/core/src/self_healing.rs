//! Self-healing: what a catalog that starts does before it serves, so that it has every acknowledged row.
//!
//! A database may come back without rows that it had acknowledged: after an asynchronous fail-over, or where an older
//! copy was put in its place. It cannot tell; the replicas' ledgers can, since whoever is in sync has all of them. So
//! replicas report where their ledgers end, and what the journal lacks is put back from the longest.
//!
//! The in-sync set in such a database may be as old as its rows, so it does not say who may have more. Everybody may who
//! is named: the members of that set, the epoch's leader, whoever reports, and the peers that those who report are
//! configured with, which is all replicas as soon as one has reported; so one is waited for in any case. They are waited
//! for [`HEALING_WAIT_MAX`] at most where nothing is known to be missing, so that a replica that is gone delays a start by
//! that much. Where something is missing they are waited for however long it takes, unless an operator
//! [accepts](SelfHealing::accept_loss_of) by name what they may have had. That something is missing a later epoch says, or
//! a row that continues the journal, which a replica with a longer ledger has to [show](SelfHealing::shown). A replica whose disk is empty counts as one
//! that was not heard then: its disk may have been lost, or not be where it belongs.
//!
//! Where the database is [known to have come back](Found::may_lack_rows) they are waited for as long: time says nothing of
//! it. The leader that it names is in every in-sync set of that leader's epoch, and has all of it; but epochs may be lost
//! with the rows, each of which anybody can have led, alone in sync, without anybody else's having heard of it. So no smaller
//! set than all will do.
//!
//! Where a catalog has heard all in this incarnation of the database, it is [unbroken](Found::is_unbroken): it has what was
//! committed since, the last in-sync set with it, and a replica that is away and out of that set delays no start. Those in
//! the set are heard all the same, lest a server is believed that was replaced for a while, and does not know: whoever came
//! next had heard all of them as well, before anything was acknowledged there.
//!
//! A report counts only if nothing of before comes to the replica after it: see `order_core::Replica`, which lets go of
//! everything that is under way before it reports, and takes nothing more until a later epoch has begun. None begins
//! before the healing is over.
//!
//! What replicas hold beside their ledgers may have been acknowledged as well, or have come to nothing. It is put back
//! where ledgers had more than the database, in the same commit as their last rows, and where the database is known to
//! have come back as another one: never after a crash alone, when its client may have been told that nothing was made.
//!
//! The caller tells of what is [heard](SelfHealing::heard), does what is [next](SelfHealing::next), and serves nothing
//! before that is [`HealingStep::Serve`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use domain::time::BootTime;
use domain::{
    ChainHash, ChangeNumber, Epoch, LedgerEnd, Refusal, ReplicaId, Row, RowNumber, StockName,
};

use super::ablation::{Rule, Rules};
use super::ledger::{Batch, CatalogState, Leadership, Stock, Term};

/// Longest wait for ledgers where nothing is known to be missing. Replicas ask every 250 ms,
/// and one that does not answer every 50 ms, so those that run have reported long before.
pub const HEALING_WAIT_MAX: Duration = Duration::from_secs(1);

/// Most replicas whose reports are taken.
pub const REPORTS_MAX: usize = 64;

/// The highest epoch that leaves some above it: databases' integers have 63 bits.
pub const EPOCH_MAX: Epoch = Epoch(1 << 62);

/// What a replica says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerReport {
    pub replica: ReplicaId,
    /// Where its ledger ends, with the committed rows that are yet to be saved.
    pub end: LedgerEnd,
    /// The epoch of the last of those rows; 0 where there is none. Of two ledgers that differ, the one whose last row is
    /// of the later epoch is the journal: whoever began that epoch did so on top of all that was known to be committed.
    pub last_epoch: Epoch,
    /// What is on its disk beyond that: proposed rows, of which it does not know whether they are committed.
    pub beside: Vec<Row>,
    /// Its disk has nothing of this journal, not even its name.
    pub is_empty: bool,
    /// The newest term that it has noted.
    pub term: domain::Term,
    /// The other replicas that it knows of.
    pub peers: BTreeSet<ReplicaId>,
    /// The longest time for which it heard a catalog count a gateway's lease.
    pub lease_horizon: Duration,
}

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HealingStep {
    /// Wait for these to report, until then; where no time is said, until they do, or their loss is accepted.
    Wait {
        pending: BTreeSet<ReplicaId>,
        until: Option<BootTime>,
    },
    /// Rows of that replica's ledger are missing: fetch them from the journal's end on, and
    /// [put them back](SelfHealing::batch).
    PutBack { from: ReplicaId },
    /// These rows are missing, which replicas hold beside their ledgers: put them back.
    PutBackProposed(Vec<Row>),
    /// Nothing is missing that can be had. These did not report.
    Serve { unheard: BTreeSet<ReplicaId> },
}

/// A ledger is no copy of what the journal has, or the longest ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the ledger of replica {replica} differs from the journal before row {rows}")]
pub struct Forked {
    pub replica: ReplicaId,
    /// How many rows it has.
    pub rows: RowNumber,
}

/// Why rows are not put back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CannotPutBack {
    #[error(transparent)]
    Forked(#[from] Forked),
    #[error("row {0} does not continue the journal")]
    Discontinuous(RowNumber),
    #[error("row {0} is of an epoch above {EPOCH_MAX}, which no catalog can have come to")]
    NoEpochLeft(RowNumber),
    #[error("row {0} is of a stock that there is not")]
    UnknownStock(RowNumber),
    #[error("row {0} has another price than its stock")]
    OtherPrice(RowNumber),
    #[error("row {0} trades what there is not, or lists what there is")]
    Impossible(RowNumber),
}

/// What a catalog that takes over finds in the database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Where the journal ends.
    pub journal: LedgerEnd,
    pub term: Term,
    /// Whether this is another incarnation of the database than the one in which the last term was, so that it may
    /// lack what was committed then. It is not believed before all have been heard.
    pub may_lack_rows: bool,
    /// Whether a catalog was healed in this incarnation, and heard all then: its in-sync set is the last one. Nobody else is
    /// waited for.
    pub is_unbroken: bool,
}

impl Found {
    /// Whether the database itself names a replica.
    fn names(&self, replica: ReplicaId) -> bool {
        self.term.in_sync.contains(&replica) || self.term.leader == Some(replica)
    }
}

/// The healing of one start.
#[derive(Debug, Clone)]
pub struct SelfHealing {
    found: Found,
    gives_up_at: BootTime,
    /// Somebody showed a committed row that is missing, or knows of a later epoch: any replica may have more.
    has_lost: bool,
    /// Who showed that its ledger continues the journal.
    proven: BTreeSet<ReplicaId>,
    /// Something was missing, or put back.
    has_changed: bool,
    /// Nothing more that is beside ledgers is put back.
    is_proposed_over: bool,
    reports: BTreeMap<ReplicaId, LedgerReport>,
    /// Where ledgers end that turned out to be no copies of the journal.
    forked: BTreeMap<ReplicaId, LedgerEnd>,
    accepted: BTreeSet<ReplicaId>,
    rules: Rules,
}

impl SelfHealing {
    /// Of a catalog that waits until then for ledgers where nothing is missing, nor [may be](Found::may_lack_rows).
    pub fn new(found: Found, gives_up_at: BootTime) -> Self {
        Self {
            found,
            gives_up_at,
            has_lost: false,
            proven: BTreeSet::new(),
            has_changed: false,
            is_proposed_over: false,
            reports: BTreeMap::new(),
            forked: BTreeMap::new(),
            accepted: BTreeSet::new(),
            rules: Rules::default(),
        }
    }

    /// The same without a protective rule.
    #[cfg(feature = "ablation")]
    pub fn under(self, rules: Rules) -> Self {
        Self { rules, ..self }
    }

    /// A replica reports, in the place of what it reported before. `there` is the chain hash that the journal has
    /// before the number with which the replica's ledger ends; none where the journal is shorter.
    ///
    /// # Errors
    /// Where its ledger is no copy of the journal. It is not heard then: which of the two is damaged nobody knows.
    pub fn heard(&mut self, report: LedgerReport, there: Option<ChainHash>) -> Result<(), Forked> {
        let LedgerReport { replica, end, .. } = report;
        let differs = end.rows <= self.found.journal.rows && there != Some(end.chain);
        if differs || self.forked.get(&replica) == Some(&end) {
            return Err(self.fork(replica, end));
        }
        let is_one_too_many =
            self.reports.len() >= REPORTS_MAX && !self.reports.contains_key(&replica);
        if !self.accepted.contains(&replica) && !is_one_too_many {
            self.has_lost |= report.epoch() > self.found.term.epoch;
            self.reports.insert(replica, report);
        }
        self.has_changed |= self.has_lost;
        Ok(())
    }

    /// A replica whose ledger is longer shows the row behind the journal's end. It is believed from then on that rows are
    /// missing, whatever becomes of that replica.
    ///
    /// # Errors
    /// Where the row does not continue the journal: the ledger is no copy.
    pub fn shown(&mut self, replica: ReplicaId, row: &Row) -> Result<(), Forked> {
        let end = self.found.journal;
        if row.number != end.rows {
            return Ok(()); // it was asked before others were put back: it says nothing
        }
        if !row.follows(&end.chain) {
            let held = self.reports.get(&replica).map(|report| report.end);
            return Err(self.fork(replica, held.unwrap_or_default()));
        }
        self.believe(replica);
        Ok(())
    }

    /// What a replica showed continues the journal.
    pub fn believe(&mut self, replica: ReplicaId) {
        if self.reports.contains_key(&replica) {
            self.proven.insert(replica);
            (self.has_lost, self.has_changed) = (true, true);
        }
    }

    /// Whether a ledger is known to be no copy of the one that is being put back: of two that differ, the one whose last
    /// row is of an earlier epoch was given up. It is not heard any more then.
    pub fn give_up_older(&mut self, replica: ReplicaId) -> bool {
        let journal = self.longest().map(|longest| longest.last_epoch);
        let other = self.reports.get(&replica);
        let other = other.filter(|other| Some(other.last_epoch) < journal);
        let end = other.map(|other| other.end);
        end.map(|end| self.fork(replica, end)).is_some()
    }

    fn fork(&mut self, replica: ReplicaId, end: LedgerEnd) -> Forked {
        self.reports.remove(&replica);
        self.proven.remove(&replica);
        if self.forked.len() < REPORTS_MAX {
            self.forked.insert(replica, end);
        }
        Forked {
            replica,
            rows: end.rows,
        }
    }

    /// An operator accepts that whatever only this replica has is lost: it is neither waited for nor heard.
    pub fn accept_loss_of(&mut self, replica: ReplicaId) {
        self.accepted.insert(replica);
        self.reports.remove(&replica);
    }

    /// Whether something is known to be missing, rather than that it may be.
    pub fn has_lost(&self) -> bool {
        self.has_lost
    }

    /// What is to be done at `now`.
    pub fn next(&self, now: BootTime) -> HealingStep {
        let lacks = self.has_lost;
        let is_heard = |report: &LedgerReport| {
            let is_unproven =
                report.end.rows > self.found.journal.rows && !self.proven.contains(&report.replica);
            !(is_unproven || lacks && report.is_empty)
        };
        let mut unheard = self.named();
        unheard.retain(|replica| {
            !self.accepted.contains(replica) && !self.reports.get(replica).is_some_and(is_heard)
        });
        if !self.rules.keep(Rule::SelfHealing) {
            return HealingStep::Serve { unheard };
        }
        let mut pending = unheard.clone();
        if !lacks && self.found.is_unbroken {
            // Who reported to have more is to show it all the same.
            pending.retain(|it| self.found.names(*it) || self.reports.contains_key(it));
        }
        // Whoever gave up all that are named knows what came back.
        let is_given_up = pending.is_empty() && !self.accepted.is_empty();
        let is_believed = !lacks && (!self.found.may_lack_rows || is_given_up);
        let until = Some(self.gives_up_at).filter(|_| is_believed);
        // Where the database names nobody, or whoever it names is given up, others may be there.
        let waits = !pending.is_empty() || self.reports.is_empty();
        if waits && until.is_none_or(|until| now < until) {
            return HealingStep::Wait { pending, until };
        }
        if let Some(longest) = self.longest() {
            return HealingStep::PutBack {
                from: longest.replica,
            };
        }
        let proposed = self.proposed(self.found.journal);
        if proposed.is_empty() {
            return HealingStep::Serve { unheard };
        }
        HealingStep::PutBackProposed(proposed)
    }

    /// From which number on the journal lacks rows that a replica's ledger has, where it is to show them: at once, so that
    /// it is known to be a copy; and to have them put back, once all are heard. Whoever has all of them is asked then,
    /// lest one that falls silent is waited for although others have the same.
    pub fn wanted_of(&self, replica: ReplicaId, now: BootTime) -> Option<RowNumber> {
        let report = self.reports.get(&replica)?;
        let rows = self.found.journal.rows;
        let is_longer = report.end.rows > rows;
        let is_wanted = !self.proven.contains(&replica) || self.puts_back(replica, now);
        (is_longer && is_wanted).then_some(rows)
    }

    /// Whether what a replica shows is to be put back now.
    pub fn puts_back(&self, replica: ReplicaId, now: BootTime) -> bool {
        let end = self.reports.get(&replica).map(|report| report.end);
        let has_all = self.longest().map(|longest| longest.end) == end;
        has_all && matches!(self.next(now), HealingStep::PutBack { .. })
    }

    /// These rows, and where they are the last that ledgers have, what replicas hold beside those: either all of it
    /// comes back or the database still lacks some of it.
    pub fn completed(&self, mut rows: Vec<Row>) -> Vec<Row> {
        let end = rows.last().map(LedgerEnd::of);
        if let Some(end) = end.filter(|end| self.longest().is_some_and(|it| it.end == *end)) {
            rows.extend(self.proposed(end));
        }
        rows
    }

    /// What replicas hold beside their ledgers is not what the journal lacks.
    pub fn give_up_proposed(&mut self) {
        self.is_proposed_over = true;
    }

    /// For how long gateways may serve what they were lent in a term that this database may lack something of.
    pub fn lease_horizon(&self) -> Option<Duration> {
        let may_be = self.has_changed || !self.accepted.is_empty();
        let horizons = self.reports.values().map(|report| report.lease_horizon);
        horizons.max().filter(|_| may_be)
    }

    /// What puts rows back that continue the journal.
    ///
    /// # Errors
    /// Where they cannot have been committed by this catalog, or a replica's ledger is no copy of them: nobody is to
    /// be served then.
    pub fn batch(&self, state: &CatalogState, rows: Vec<Row>) -> Result<Batch, CannotPutBack> {
        let staged = state.stage();
        let mut changed: BTreeMap<StockName, Stock> = BTreeMap::new();
        let Leadership { term, mut end } = state.leadership();
        for row in &rows {
            let number = row.number;
            if !end.is_continued_by(row) {
                return Err(CannotPutBack::Discontinuous(number));
            }
            if row.epoch > EPOCH_MAX {
                return Err(CannotPutBack::NoEpochLeft(number));
            }
            end = LedgerEnd::of(row);
            self.compare(end)?;
            let name = row.entry.name();
            let before = changed.get(name).or_else(|| staged.stock(name));
            let after = Stock::after(before, &row.entry, number);
            let after = after.map_err(|refusal| match refusal {
                Refusal::StockNotFound => CannotPutBack::UnknownStock(number),
                _ => CannotPutBack::Impossible(number),
            })?;
            if after.price != row.price {
                return Err(CannotPutBack::OtherPrice(number));
            }
            changed.insert(name.clone(), after);
        }
        // No journal has rows of an epoch that it does not know.
        let epoch = rows.iter().map(|row| row.epoch).max();
        let later = self.later_term(epoch.unwrap_or_default());
        Ok(Batch {
            rows,
            stocks: changed.into_values().collect(),
            term: later.filter(|later| later.epoch > term.epoch),
            ..Batch::default()
        })
    }

    /// What puts rows back is durable.
    pub fn committed(&mut self, batch: &Batch) {
        self.has_changed |= !batch.rows.is_empty();
        if let Some(last) = batch.rows.last() {
            self.found.journal = LedgerEnd::of(last);
        }
        if let Some(term) = &batch.term {
            self.found.term.clone_from(term);
        }
    }

    /// The term to go on from: the newest that anybody knows, with those in sync that have all of the journal. The next
    /// epoch is to begin after it, as after every start. None where the database lacked nothing.
    pub fn term(&self) -> Option<Term> {
        if !self.has_changed {
            return None;
        }
        let stored = &self.found.term;
        let whole = self.reports.values().filter(|report| self.is_whole(report));
        let in_sync: BTreeSet<ReplicaId> = whole.map(|report| report.replica).collect();
        let later = self.later_term(Epoch::default());
        let goes_on = later.unwrap_or_else(|| Term {
            change: stored.change.next(),
            ..stored.clone()
        });
        goes_on.leader?;
        Some(Term { in_sync, ..goes_on })
    }

    /// The newest term that anybody reports or has a row of, where that is later than the database's.
    fn later_term(&self, rows: Epoch) -> Option<Term> {
        let reports = self.reports.values();
        let newest = reports.max_by_key(|report| (report.epoch(), report.term.epoch));
        let epoch = newest.map_or(rows, |report| report.epoch().max(rows));
        let named = self.named();
        (epoch > self.found.term.epoch).then(|| Term {
            epoch,
            // Whoever it is, the next epoch begins before anybody leads in this one.
            leader: newest
                .and_then(|report| report.term.leader)
                .or(self.found.term.leader)
                .or(named.first().copied()),
            // Nobody vouches for it.
            in_sync: BTreeSet::new(),
            change: ChangeNumber::NONE,
        })
    }

    /// Whether a replica has all of the journal.
    fn is_whole(&self, report: &LedgerReport) -> bool {
        let beside = report.beside.last().map(LedgerEnd::of);
        [Some(report.end), beside].contains(&Some(self.found.journal))
    }

    /// All replicas that anything known names.
    fn named(&self) -> BTreeSet<ReplicaId> {
        let mut named = self.found.term.in_sync.clone();
        named.extend(self.found.term.leader);
        for report in self.reports.values() {
            named.insert(report.replica);
            named.extend(&report.peers);
            named.extend(report.term.leader);
        }
        named
    }

    /// The ledger that is the journal, where that is shorter: see [`LedgerReport::last_epoch`].
    fn longest(&self) -> Option<&LedgerReport> {
        let reports = self.reports.values();
        let longer = reports.filter(|report| {
            report.end.rows > self.found.journal.rows && self.proven.contains(&report.replica)
        });
        longer.max_by_key(|report| (report.last_epoch, report.end.rows))
    }

    /// The rows behind an end that replicas hold beside their ledgers, where the database may lack some. In one epoch a
    /// number is proposed for one row only; and after one was committed there is none of that number in a later epoch.
    /// So of two the later is the one that may have been acknowledged.
    fn proposed(&self, mut end: LedgerEnd) -> Vec<Row> {
        let mut rows: Vec<Row> = Vec::new();
        if self.is_proposed_over || !(self.has_lost || self.found.may_lack_rows) {
            return rows;
        }
        let next = |end: LedgerEnd| {
            let beside = self.reports.values().flat_map(|report| &report.beside);
            beside
                .filter(|row| row.number == end.rows && row.follows(&end.chain))
                .max_by_key(|row| row.epoch)
        };
        while let Some(row) = next(end) {
            end = LedgerEnd::of(row);
            rows.push(row.clone());
        }
        rows
    }

    /// Whether all ledgers that end there end in the same row.
    fn compare(&self, end: LedgerEnd) -> Result<(), Forked> {
        let mut reports = self.reports.values();
        let differs = reports.find(|it| it.end.rows == end.rows && it.end.chain != end.chain);
        differs.map_or(Ok(()), |report| {
            Err(Forked {
                replica: report.replica,
                rows: end.rows,
            })
        })
    }
}

impl LedgerReport {
    /// The latest epoch that it knows of.
    fn epoch(&self) -> Epoch {
        self.term.epoch.max(self.last_epoch)
    }
}

#[cfg(test)]
mod tests;
