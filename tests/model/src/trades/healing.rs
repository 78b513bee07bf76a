//! A catalog that comes back with an older copy of its database, and heals before it serves.

use std::collections::BTreeMap;

use catalog_core::self_healing::{Found, LedgerReport};
use catalog_core::{Batch, CatalogState, HealingStep, SelfHealing};
use domain::time::BootTime;
use domain::{CatalogRun, Epoch, ReplicaId, Row, Term};
use order_core::Event;

use super::bounds::Bounds;
use super::world::{World, end};

/// When a catalog gives up on replicas that are silent.
const GIVES_UP_AT: BootTime = BootTime::from_millis(u64::MAX / 2_000_000);

/// Where the database is known to have come back, the catalog may start as late as it likes: it gives up on nobody. Where it
/// is not, that is left out: all report.
fn now(bounds: &Bounds) -> BootTime {
    match bounds.suspects {
        true => GIVES_UP_AT,
        false => BootTime::default(),
    }
}

/// The database as it was before the first commit.
#[derive(Debug, Clone, PartialEq)]
pub struct Older {
    catalog: CatalogState,
    rows: usize,
    refused: usize,
    terms: usize,
}

impl Older {
    /// What tells it from others of one history.
    pub fn place(&self) -> (usize, usize, catalog_core::Term) {
        (self.rows, self.terms, self.catalog.leadership().term)
    }
}

/// A catalog that has started on an older copy, until it serves.
#[derive(Debug, Clone, PartialEq)]
pub struct Healing {
    /// What was committed before.
    pub lost: Vec<Row>,
    terms: Vec<Term>,
    pub has_put_back: bool,
    pub reports: BTreeMap<ReplicaId, LedgerReport>,
}

impl Healing {
    /// The catalog ends, and another one knows nothing of what it heard.
    pub fn forget(&mut self) {
        self.reports.clear();
        self.has_put_back = false;
    }
}

impl World {
    /// What has been committed, be it in the database or not.
    pub fn committed(&self) -> &[Row] {
        let healing = self.healing.as_ref();
        healing.map_or(&self.journal, |healing| &healing.lost)
    }

    /// Keeps in mind how the database is before the first commit.
    pub fn copy(&mut self) {
        self.older = Some(Box::new(Older {
            catalog: self.catalog.clone(),
            rows: self.journal.len(),
            refused: self.refused.len(),
            terms: self.terms.len(),
        }));
    }

    /// The catalog ends, and another one starts on the copy.
    pub fn roll_back(&mut self) {
        let older = self.older.take().expect("there is a copy");
        let healing = Healing {
            lost: self.journal.clone(),
            terms: self.terms.clone(),
            has_put_back: false,
            reports: BTreeMap::new(),
        };
        self.journal.truncate(older.rows);
        self.refused.truncate(older.refused);
        self.terms.truncate(older.terms);
        self.catalog = older.catalog;
        self.healing = Some(healing);
    }

    /// Whether a ledger has more than the copy.
    pub fn is_loss_seen(&self) -> bool {
        let rows = self.older.as_ref().map_or(0, |older| older.rows);
        self.machines.iter().any(|it| it.disk.rows.len() > rows)
    }

    /// A replica hears of the catalog that has started, and reports.
    pub fn tell(&mut self, at: ReplicaId) {
        let run = CatalogRun::new(1).expect("not 0");
        self.step(at, Some(Event::CatalogHeals(run)));
    }

    pub fn reported(&mut self, mut report: LedgerReport) {
        let beside = self.machine(report.replica).disk.continuing();
        let last = report.end.rows.0.checked_sub(1);
        let beyond = |row: &Row| row.number >= report.end.rows;
        report.last_epoch = last.map_or(Epoch(0), |last| self.committed()[last as usize].epoch);
        report.beside = beside.into_iter().filter(beyond).collect();
        let healing = self.healing.as_mut().expect("it heals");
        healing.reports.insert(report.replica, report);
    }

    fn self_healing(&self, bounds: &Bounds) -> SelfHealing {
        let found = Found {
            journal: end(&self.journal),
            term: self.catalog.leadership().term,
            may_lack_rows: bounds.suspects,
            is_unbroken: false,
        };
        let core = SelfHealing::new(found, GIVES_UP_AT);
        let mut core = core.under(bounds.catalog_rules());
        let healing = self.healing.as_ref().expect("it heals");
        for report in healing.reports.values() {
            let there = self.journal.get(..report.end.rows.0 as usize);
            let there = there.map(|rows| end(rows).chain);
            let heard = core.heard(report.clone(), there);
            heard.expect("ledgers are copies of what was committed");
            if core.wanted_of(report.replica, now(bounds)).is_some() {
                // It can show that, once it is on its disk.
                let disk = &self.machines[report.replica.get() as usize - 1].disk;
                if let Some(row) = disk.rows.get(self.journal.len()) {
                    let shown = core.shown(report.replica, row);
                    shown.expect("ledgers are copies of what was committed");
                }
            }
        }
        if healing.has_put_back {
            let last = self.journal.last().cloned().into_iter();
            core.committed(&Batch {
                rows: last.collect(),
                ..Batch::default()
            });
        }
        core
    }

    /// Whether it has heard all that it waits for, and who is to show rows has them in its ledger.
    pub fn may_heal(&self, bounds: &Bounds) -> bool {
        match self.self_healing(bounds).next(now(bounds)) {
            HealingStep::Wait { .. } => false,
            HealingStep::PutBack { from } => {
                let disk = &self.machines[from.get() as usize - 1].disk;
                disk.rows.len() > self.journal.len()
            }
            HealingStep::PutBackProposed(_) | HealingStep::Serve { .. } => true,
        }
    }

    /// Puts back what is missing, step by step, and then begins the next epoch.
    pub fn heal(&mut self, bounds: &Bounds) {
        let core = self.self_healing(bounds);
        let rows = match core.next(now(bounds)) {
            HealingStep::PutBack { from } => {
                // One at a time.
                let held = self.journal.len();
                core.completed(vec![self.machine(from).disk.rows[held].clone()])
            }
            HealingStep::PutBackProposed(rows) => rows,
            HealingStep::Serve { .. } => return self.healed(core.term()),
            HealingStep::Wait { .. } => unreachable!("it has heard all"),
        };
        let batch = core.batch(&self.catalog, rows.clone());
        let batch = batch.expect("they continue the journal");
        if let (Some(term), Some(healing)) = (&batch.term, &self.healing) {
            self.terms.clone_from(&healing.terms);
            self.terms.truncate(term.epoch.0 as usize);
        }
        self.catalog.apply(batch);
        self.journal.extend(rows);
        let healing = self.healing.as_mut().expect("it heals");
        healing.has_put_back = true;
    }

    fn healed(&mut self, newest: Option<catalog_core::Term>) {
        let healing = self.healing.take().expect("it heals");
        if let Some(term) = newest {
            self.terms = healing.terms;
            self.terms.truncate(term.epoch.0 as usize);
            self.catalog.apply(Batch {
                term: Some(term),
                ..Batch::default()
            });
        }
        let mut staged = self.catalog.stage();
        staged.begin_next_epoch();
        let batch = staged.into_batch();
        self.begin(batch);
        let lost = &healing.lost;
        if (self.answered.iter()).any(|answered| {
            let number = answered.number.0 as usize;
            self.journal.get(number) != lost.get(number)
        }) {
            self.broken = Some("what was acknowledged is not in the journal that is served");
        }
    }
}
