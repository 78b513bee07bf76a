//! A replica's start: its ledger is compared with the catalog's journal before anything of it is served.

use catalog_core::self_healing::LedgerReport;
use domain::{CatalogRun, Epoch, JournalId, LedgerEnd, RowNumber, Term};
use order::store::Store as _;
use order_core::durable::Save;
use order_core::join::{Action, Found, Input, Joined};
use order_core::message::{CallFailure, Heard};
use order_core::timing::{JOIN_TIMEOUT, JOURNAL_TIMEOUT};
use order_core::{Asker, Failure as Refuted};

use super::calls::heard;
use super::{FAR_BEHIND_ROWS, Replica, ids};
use crate::messages::{Node, Purpose, Request, Response, Told};
use crate::oracle::Oracle;
use crate::timeline::Timeline;

/// Rows that a catalog which lacks them is shown at a time: few, so that it takes several.
const RESTORED_ROWS: usize = 7;

impl Replica {
    /// Takes a step of its start.
    pub(super) fn join(&mut self, line: &mut Timeline, oracle: &mut Oracle, input: Input) {
        let found = Found {
            known: self.store.identity(),
            durable: self.store.durable(),
        };
        match self.join.step(&found, input) {
            Action::AskCatalog => {
                line.host(self.run.node).journal = None;
                let request = Request::GetLeadership;
                self.call_catalog(line, request, JOIN_TIMEOUT, Purpose::Join);
            }
            Action::Compare { catalog, held } => {
                self.name(line, catalog.journal);
                let request = Request::ReadRows {
                    from: held.rows,
                    previous: Some(held.chain),
                    rows_max: 1,
                };
                self.call_catalog(line, request, JOURNAL_TIMEOUT, Purpose::Compare);
            }
            Action::Report { catalog, run } => {
                self.name(line, catalog.journal);
                let (end, term) = (found.durable.end, found.durable.term);
                self.report(line, oracle, run, (end, term));
            }
            Action::ShowMissing {
                catalog, number, ..
            } => {
                assert!(oracle.was_apart(), "replica {}: {number} is lost", self.id);
                self.name(line, catalog.journal);
                if !self.report_missing(line, number) {
                    self.join(line, oracle, Input::Shown(Err(CallFailure::Failed)));
                }
            }
            Action::Wait(pause) => self.waits_until = Some(line.now() + pause),
            Action::Adopt(joined) => self.joined(line, oracle, joined),
            Action::Fail(failure) => self.refuted = Some(failure),
            Action::SetAside(failure) => unreachable!("whoever operates it does that: {failure}"),
        }
    }

    /// The catalog said what its ledger is to be compared with, or nothing.
    pub(super) fn compare(&mut self, line: &mut Timeline, oracle: &mut Oracle, told: Told) {
        let looked = heard(told);
        if let Ok(Heard { head, .. }) = &looked {
            let (rows, held) = (head.end.rows, self.store.durable().end.rows);
            let lacks = rows.0.saturating_sub(held.0);
            self.far_behind = (lacks > FAR_BEHIND_ROWS).then_some(rows);
        }
        self.join(line, oracle, Input::CatalogSaid(looked));
    }

    fn joined(&mut self, line: &mut Timeline, oracle: &mut Oracle, joined: Joined) {
        let Joined {
            identity,
            is_news,
            copies,
        } = joined;
        let save = Save {
            identity: Some(identity),
            ..Save::default()
        };
        if is_news && self.store.save(&save).is_err() {
            self.failed = true; // ends, and is started again
            return;
        }
        let held = self.store.durable().end.rows;
        self.copies = copies.filter(|&rows| held < rows);
        self.name(line, identity.journal);
        self.journal = Some(identity.journal);
        self.asker = Some(Asker::new(identity, line.clock(self.run.node)));
        self.ask(line, oracle, None);
        self.step(line, oracle, None);
    }

    /// From now on it is this journal that it asks about.
    fn name(&self, line: &mut Timeline, journal: JournalId) {
        line.host(self.run.node).journal = Some(journal);
    }

    /// Tells a catalog that has started what is here.
    pub(super) fn report(
        &mut self,
        line: &mut Timeline,
        oracle: &mut Oracle,
        run: CatalogRun,
        (end, term): (LedgerEnd, Term),
    ) {
        if std::mem::replace(&mut self.is_reporting, true) {
            return;
        }
        let beside = self.store.continuing();
        self.note_damage(&beside);
        let Ok(mut beside) = beside else {
            return self.has_reported(line, oracle);
        };
        let last = end.rows.0.checked_sub(1).map(RowNumber);
        let beside_last = beside.iter().find(|row| Some(row.number) == last).cloned();
        let last_row = match (last, beside_last) {
            (Some(last), None) => self.read(last, 1).ok().and_then(|mut rows| rows.pop()),
            (_, row) => row,
        };
        if last.is_some() && last_row.is_none() {
            return self.has_reported(line, oracle); // it is yet to be saved
        }
        beside.retain(|row| row.number >= end.rows);
        let lease_horizon = self.store.identity().map(|identity| identity.lease_horizon);
        let report = LedgerReport {
            replica: self.id,
            end,
            last_epoch: last_row.map_or(Epoch(0), |row| row.epoch),
            beside,
            is_empty: lease_horizon.is_none(),
            term,
            peers: ids().filter(|&peer| peer != self.id).collect(),
            lease_horizon: lease_horizon.unwrap_or_default(),
        };
        let request = Request::ReportLedger { run, report };
        self.call_catalog(line, request, JOURNAL_TIMEOUT, Purpose::Report(run));
    }

    /// What the catalog lacks of it, which it is shown as far as it is on the disk.
    pub(super) fn wanted(
        &mut self,
        line: &mut Timeline,
        oracle: &mut Oracle,
        run: CatalogRun,
        told: Told,
    ) {
        let rows = match told {
            Ok(Response::Missing(Some(from))) => self.read(from, RESTORED_ROWS).unwrap_or_default(),
            _ => Vec::new(),
        };
        if rows.is_empty() {
            return self.has_reported(line, oracle);
        }
        let replica = self.id;
        let request = Request::PutBack { run, replica, rows };
        self.call_catalog(line, request, JOURNAL_TIMEOUT, Purpose::Report(run));
    }

    fn has_reported(&mut self, line: &mut Timeline, oracle: &mut Oracle) {
        self.is_reporting = false;
        if self.is_joining() {
            self.join(line, oracle, Input::Reported);
        }
    }

    /// Shows the catalog a row that it lacks. Whether it is there to be shown: it may be yet to be
    /// saved.
    pub(super) fn report_missing(&mut self, line: &mut Timeline, number: RowNumber) -> bool {
        let Some(row) = self.read(number, 1).ok().and_then(|mut rows| rows.pop()) else {
            return false;
        };
        let request = Request::ReportMissing {
            replica: self.id,
            row,
        };
        let purpose = Purpose::ReportMissing(number);
        self.call_catalog(line, request, JOURNAL_TIMEOUT, purpose);
        true
    }

    /// What the catalog made of such a row.
    pub(super) fn reported(
        &mut self,
        line: &mut Timeline,
        oracle: &mut Oracle,
        number: RowNumber,
        result: Result<(), CallFailure>,
    ) {
        if self.is_joining() {
            self.join(line, oracle, Input::Shown(result));
        } else if result == Err(CallFailure::NotMissing) {
            // The row does not follow the journal's last: it went on without those that it lost.
            self.refuted = Some(Refuted::Differs { rows: number });
        }
    }

    pub(super) fn call_catalog(
        &self,
        line: &mut Timeline,
        request: Request,
        timeout: std::time::Duration,
        purpose: Purpose,
    ) {
        line.call(self.run, Node::Catalog, request, timeout, purpose);
    }
}
