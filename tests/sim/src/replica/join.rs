//! A replica's start: its ledger is compared with the catalog's journal before anything of it is served.

use domain::{Identity, OrderNumber};
use order::store::Store as _;
use order_core::durable::Save;
use order_core::message::CallFailure;
use order_core::{Claim, Failure as Refuted, claim};

use super::calls::{head_of, rows, said};
use super::{FAR_BEHIND_ROWS, JOIN_RETRY, JOIN_TIMEOUT, JOURNAL_TIMEOUT, Replica};
use crate::messages::{Node, Purpose, Request, Said, Told};
use crate::oracle::Oracle;
use crate::timeline::{Time, Timeline};

impl Replica {
    /// Asks the catalog for what its ledger is to be compared with.
    pub(super) fn join(&mut self, line: &mut Timeline) {
        self.head_at = Time::MAX;
        line.host(self.run.node).journal = None;
        let request = Request::GetLeadership { ledger: None };
        line.call(
            self.run,
            Node::Catalog,
            request,
            JOIN_TIMEOUT,
            Purpose::Join,
        );
    }

    /// The catalog answered, or did not.
    pub(super) fn compare(&mut self, line: &mut Timeline, oracle: &mut Oracle, told: Told) {
        let Ok(said) = said(told) else {
            self.head_at = line.now() + JOIN_RETRY;
            return;
        };
        let (identity, head) = (said.identity, head_of(&said));
        let lacks = head.end.rows.0 - self.store.durable().end.rows.0.min(head.end.rows.0);
        self.far_behind = (lacks > FAR_BEHIND_ROWS).then_some(head.end.rows);
        match claim(
            self.store.identity(),
            &self.store.durable(),
            &identity,
            &head,
        ) {
            Ok(Claim::Holds) => self.joined(line, oracle, said),
            Ok(Claim::Compare(held)) => {
                self.said = Some(said);
                // From now on it is asked by name.
                line.host(self.run.node).journal = Some(identity.journal);
                let request = Request::ReadRows {
                    from: held.rows,
                    previous: Some(held.chain),
                    rows_max: 1,
                };
                line.call(
                    self.run,
                    Node::Catalog,
                    request,
                    JOIN_TIMEOUT,
                    Purpose::Compare,
                );
            }
            Ok(lost @ Claim::CatalogLostRows(number)) => {
                assert!(oracle.was_apart(), "replica {}: {lost:?}", self.id);
                line.host(self.run.node).journal = Some(identity.journal);
                self.report_missing(line, number);
                self.head_at = line.now() + JOIN_RETRY;
            }
            Err(failure) => self.refuted = Some(failure),
        }
    }

    pub(super) fn compared(&mut self, line: &mut Timeline, oracle: &mut Oracle, told: Told) {
        let said = self.said.take().expect("it was compared with that");
        match rows(told) {
            Ok(_) => self.joined(line, oracle, said),
            Err(CallFailure::Differs) => {
                let rows = self.store.durable().end.rows;
                self.refuted = Some(Refuted::Differs { rows });
            }
            Err(_) => self.head_at = line.now() + JOIN_RETRY,
        }
    }

    pub(super) fn joined(&mut self, line: &mut Timeline, oracle: &mut Oracle, said: Said) {
        let identity = said.identity;
        let save = Save {
            identity: Some(identity),
            ..Save::default()
        };
        if self.is_news(identity) && self.store.save(&save).is_err() {
            self.failed = true; // ends, and is started again
            return;
        }
        self.identity = Some(identity);
        let (held, rows) = (self.store.durable().end.rows, said.leadership.end.rows);
        self.copies = (self.rebuilds && held < rows).then_some(rows);
        line.host(self.run.node).journal = Some(identity.journal);
        self.head_at = line.now();
        self.step(line, oracle, None);
    }

    /// Whether the disk does not know it yet: the journal, or how long the catalog counts a lease.
    pub(super) fn is_news(&self, heard: Identity) -> bool {
        let known = self.store.identity();
        known.is_none_or(|known| known.lease_horizon < heard.lease_horizon)
    }

    /// Shows the catalog a row that it lacks.
    pub(super) fn report_missing(&mut self, line: &mut Timeline, number: OrderNumber) {
        let Some(row) = self.read(number, 1).ok().and_then(|mut rows| rows.pop()) else {
            return; // it is yet to be saved
        };
        let request = Request::ReportMissing {
            replica: self.id,
            row,
        };
        let purpose = Purpose::ReportMissing(number);
        line.call(self.run, Node::Catalog, request, JOURNAL_TIMEOUT, purpose);
    }
}
