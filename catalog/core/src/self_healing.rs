//! Self-healing: rows that the database lost come back from ledgers before anybody is served.
//!
//! A database may come back without rows that it had acknowledged, after an asynchronous fail-over or where an older
//! copy was put in its place. Replicas in sync hold every acknowledged order, so the longest of their ledgers has what
//! is missing. The in-sync set in such a database may be as old as its rows, however. What helps:
//!
//! - a set counts, so that something is acknowledged by it, only once each of its members has noted it durably, and a
//!   replica keeps the newest set that it heard of;
//! - a set has its epoch's leader in it, and who leads an epoch has noted it durably before.
//!
//! So a set that nobody knows who was heard has none of them in it: the last set is the newest that is known, or one
//! of replicas that were not heard. Where rows are missing, or a replica knows of something later than the database
//! does, all replicas are waited for that anything known names, however long that takes, unless an operator
//! [accepts](SelfHealing::accept_loss_of) by name what they may have had. Where nothing is known to be missing, ledgers
//! are waited for as in every [ledger check](super::ledger_check), and no longer.
//!
//! The caller tells of what is [heard](SelfHealing::heard), does what is [next](SelfHealing::next), and serves nothing
//! before that is [`HealingStep::Serve`].

use std::collections::{BTreeMap, BTreeSet};

use domain::time::BootTime;
use domain::{ChainHash, ChangeNumber, Epoch, LedgerEnd, OrderNumber, ReplicaId, Row, StockName};

use super::ablation::{Rule, Rules};
use super::ledger::{Batch, CatalogState, Stock, Term};
use super::ledger_check::LedgerCheck;

/// An in-sync set, and when it was made.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InSyncSet {
    pub epoch: Epoch,
    pub change: ChangeNumber,
    pub members: BTreeSet<ReplicaId>,
}

/// What a replica says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerReport {
    pub replica: ReplicaId,
    /// Where its ledger ends, with the committed rows that are yet to be saved.
    pub end: LedgerEnd,
    /// What it has beside its ledger: proposed rows, of which it does not know whether they are committed.
    pub beside: Vec<Row>,
    /// The newest term that it has noted.
    pub term: domain::Term,
    /// The newest in-sync set that it has noted.
    pub in_sync: InSyncSet,
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
    pub rows: OrderNumber,
}

/// Why rows are not put back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CannotPutBack {
    #[error(transparent)]
    Forked(#[from] Forked),
    #[error("row {0} does not continue the journal")]
    Discontinuous(OrderNumber),
    #[error("row {0} is of a stock that there is not")]
    UnknownStock(OrderNumber),
    #[error("row {0} has another price than its stock")]
    OtherPrice(OrderNumber),
    #[error("row {0} trades what there is not")]
    Impossible(OrderNumber),
}

/// What a catalog that takes over finds in the database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Where the journal ends.
    pub journal: LedgerEnd,
    pub term: Term,
    /// All replicas that it knows of, in sync or not. The more it knows of, the surer it is.
    pub replicas: BTreeSet<ReplicaId>,
    /// Whether this is another incarnation of the database than the one in which the last term was, so that it may
    /// lack what was committed then.
    pub may_lack_rows: bool,
}

/// The healing of one start.
#[derive(Debug, Clone)]
pub struct SelfHealing {
    found: Found,
    check: LedgerCheck,
    reports: BTreeMap<ReplicaId, LedgerReport>,
    accepted: BTreeSet<ReplicaId>,
    rules: Rules,
}

impl InSyncSet {
    /// The one of a term.
    pub fn of(term: &Term) -> Self {
        Self {
            epoch: term.epoch,
            change: term.change,
            members: term.in_sync.clone(),
        }
    }

    /// Sets of one epoch are made one after the other, and so are epochs.
    fn made(&self) -> (Epoch, ChangeNumber) {
        (self.epoch, self.change)
    }
}

impl SelfHealing {
    /// Of a catalog that waits until then for ledgers where nothing is missing.
    pub fn new(found: Found, gives_up_at: BootTime) -> Self {
        let mut expected = found.term.in_sync.clone();
        if found.may_lack_rows {
            expected.extend(&found.replicas);
        }
        Self {
            found,
            check: LedgerCheck::new(expected, gives_up_at),
            reports: BTreeMap::new(),
            accepted: BTreeSet::new(),
            rules: Rules::default(),
        }
    }

    /// The same without a protective rule.
    #[cfg(feature = "ablation")]
    pub fn under(self, rules: Rules) -> Self {
        Self { rules, ..self }
    }

    /// A replica reports. `there` is the chain hash that the journal has before the number with which the replica's
    /// ledger ends; none where the journal is shorter.
    ///
    /// # Errors
    /// Where its ledger is no copy of the journal: nobody is to be served then.
    pub fn heard(&mut self, report: LedgerReport, there: Option<ChainHash>) -> Result<(), Forked> {
        let LedgerReport { replica, end, .. } = report;
        if end.rows <= self.found.journal.rows && there != Some(end.chain) {
            return Err(Forked {
                replica,
                rows: end.rows,
            });
        }
        self.check.confirm(replica);
        self.reports.insert(replica, report);
        Ok(())
    }

    /// An operator accepts that whatever only this replica has is lost.
    pub fn accept_loss_of(&mut self, replica: ReplicaId) {
        self.accepted.insert(replica);
    }

    /// What is to be done at `now`.
    pub fn next(&self, now: BootTime) -> HealingStep {
        if !self.rules.keep(Rule::SelfHealing) {
            return HealingStep::Serve {
                unheard: BTreeSet::new(),
            };
        }
        let is_missing = |replica: &ReplicaId| {
            !self.reports.contains_key(replica) && !self.accepted.contains(replica)
        };
        let mut pending = self.check.pending().clone();
        pending.retain(is_missing);
        if self.lacks_something() {
            let mut named = self.named();
            named.retain(is_missing);
            if !named.is_empty() {
                return HealingStep::Wait {
                    pending: named,
                    until: None,
                };
            }
        } else if !pending.is_empty() && now < self.check.over_at() {
            return HealingStep::Wait {
                pending,
                until: Some(self.check.over_at()),
            };
        }
        if let Some(longest) = self.longest() {
            return HealingStep::PutBack {
                from: longest.replica,
            };
        }
        let proposed = self.proposed();
        if self.lacks_something() && !proposed.is_empty() {
            return HealingStep::PutBackProposed(proposed);
        }
        HealingStep::Serve { unheard: pending }
    }

    /// What puts rows back that continue the journal.
    ///
    /// # Errors
    /// Where they cannot have been committed by this catalog, or a replica's ledger is no copy of them: nobody is to
    /// be served then.
    pub fn batch(&self, state: &CatalogState, rows: Vec<Row>) -> Result<Batch, CannotPutBack> {
        let known: BTreeMap<&StockName, &Stock> =
            state.stocks().map(|stock| (&stock.name, stock)).collect();
        let mut changed: BTreeMap<StockName, Stock> = BTreeMap::new();
        let mut end = state.leadership().end;
        for row in &rows {
            let number = row.number;
            if number != end.rows || !row.follows(&end.chain) {
                return Err(CannotPutBack::Discontinuous(number));
            }
            end = LedgerEnd::of(row);
            self.compare(end)?;
            let name = &row.order.name;
            let stock = changed.get(name).or_else(|| known.get(name).copied());
            let stock = stock.ok_or(CannotPutBack::UnknownStock(number))?;
            if stock.price != row.price {
                return Err(CannotPutBack::OtherPrice(number));
            }
            let after = stock.traded(&row.order);
            let after = after.map_err(|_| CannotPutBack::Impossible(number))?;
            changed.insert(name.clone(), after);
        }
        Ok(Batch {
            rows,
            stocks: changed.into_values().collect(),
            ..Batch::default()
        })
    }

    /// What was put back is durable, up to this row. A database that lacked it may lack what is held beside ledgers.
    pub fn put_back(&mut self, last: &Row) {
        self.found.journal = LedgerEnd::of(last);
        self.found.may_lack_rows = true;
    }

    /// The term to go on from, which is the newest that anybody knows: the next epoch is to begin after it, as after
    /// every start. None where the database has the newest.
    pub fn term(&self) -> Option<Term> {
        let terms = self.reports.values().map(|report| report.term);
        let newest = terms.max_by_key(|term| term.epoch)?;
        let set = self.newest_set();
        let epoch = newest.epoch.max(set.epoch);
        let is_newer = (epoch, set.change) > (self.found.term.epoch, self.found.term.change)
            && epoch >= self.found.term.epoch;
        if !is_newer {
            return None;
        }
        let change = if epoch == set.epoch {
            set.change
        } else {
            ChangeNumber::NONE
        };
        let known = newest.leader.or(self.found.term.leader);
        let leader = known.or(set.members.first().copied())?;
        Some(Term {
            epoch,
            leader: Some(leader),
            in_sync: set.members,
            change,
        })
    }

    /// Whether anybody knows of something that the database does not.
    fn lacks_something(&self) -> bool {
        let stored = InSyncSet::of(&self.found.term);
        let mut reports = self.reports.values();
        reports.any(|report| {
            report.end.rows > self.found.journal.rows
                || report.term.epoch > self.found.term.epoch
                || report.in_sync.made() > stored.made()
        }) || self.found.may_lack_rows && !self.proposed().is_empty()
    }

    /// All replicas that anything known names.
    fn named(&self) -> BTreeSet<ReplicaId> {
        let reports = self.reports.values();
        let mut named = self.found.replicas.clone();
        named.extend(&self.found.term.in_sync);
        named.extend(self.found.term.leader);
        for report in reports {
            named.extend(report.term.leader);
            named.extend(&report.in_sync.members);
        }
        named
    }

    fn newest_set(&self) -> InSyncSet {
        let noted = self.reports.values().map(|report| &report.in_sync);
        let stored = InSyncSet::of(&self.found.term);
        noted.max_by_key(|set| set.made()).map_or_else(
            || stored.clone(),
            |newest| {
                if newest.made() > stored.made() {
                    newest.clone()
                } else {
                    stored.clone()
                }
            },
        )
    }

    /// The longest ledger, where the journal is shorter.
    fn longest(&self) -> Option<&LedgerReport> {
        let longest = self.reports.values().max_by_key(|report| report.end.rows)?;
        (longest.end.rows > self.found.journal.rows).then_some(longest)
    }

    /// The rows behind the journal's end that replicas hold beside their ledgers. In one epoch a number is proposed
    /// for one row only; and after one was committed there is none of that number in a later epoch. So of two the
    /// later is the one that may have been acknowledged.
    fn proposed(&self) -> Vec<Row> {
        let mut rows: Vec<Row> = Vec::new();
        let mut end = self.found.journal;
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

#[cfg(test)]
mod tests;
