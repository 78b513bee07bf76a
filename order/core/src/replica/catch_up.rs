//! What the catalog says of itself; and catching up: at the start, when elected, and whenever known rows do not come
//! by themselves.

use std::time::Duration;

use domain::LedgerEnd;
use domain::Row;
use domain::time::BootTime;

use super::{Behind, Feeding, Replica, RoleState, UNSAVED_ROWS_MAX};
use crate::ablation::Rule;
use crate::catch_up::{CHUNK_ROWS, FetchResult};
use crate::message::{
    CallFailure, CallId, Command, Failure, Refused, Report, Sender, Source, StepDown,
};
use crate::replica_log::AppendRejected;
use domain::{CatalogRun, JournalHead};

/// How long a leader waits for a row that was committed before another one that it has, before
/// it reads it from the journal.
pub const LEADER_PATIENCE: Duration = Duration::from_millis(20);

/// How long a follower that knows of rows it lacks waits for the next one, before it fetches
/// them itself.
pub const FOLLOWER_PATIENCE: Duration = Duration::from_secs(1);

impl Replica {
    /// The catalog said who leads, and where the journal ends; the ledger ended in `held` when it was
    /// asked. Nobody else is believed about epochs.
    pub(super) fn head(&mut self, now: BootTime, head: Option<JournalHead>, held: LedgerEnd) {
        self.reaches_catalog = head.is_some();
        let Some(head) = head else { return };
        let lost_rows = head.end.rows < held.rows;
        if std::mem::replace(&mut self.catalog_lost_rows, lost_rows) != lost_rows && lost_rows {
            self.commands.push(Command::Report(Report::CatalogLostRows {
                journal: head.end.rows,
                held: held.rows,
            }));
            self.step_down(StepDown::CatalogLostRows);
        }
        let own = self.log.term().epoch;
        if lost_rows {
            self.commands.push(Command::ReportMissing(head.end.rows));
        } else if head.end.rows == held.rows && head.end != held {
            self.fail(Failure::Differs { rows: held.rows });
        } else if head.term.epoch == own && head.term != self.log.term() {
            self.fail(Failure::OtherLeader { epoch: own });
        } else if head.term.epoch < own {
            self.fail(Failure::AboveCatalog {
                own,
                catalog: head.term.epoch,
            });
        } else {
            self.known = self.known.max(head.end.rows);
            let has_begun = head.term.epoch > own;
            if has_begun {
                self.enter(now, head.term);
            }
            match self.feeding {
                Feeding::Unasked => self.feeding = Feeding::Open,
                Feeding::LetGo(_) if has_begun => {
                    self.feeding = Feeding::Open;
                    self.catch_up.restart(now);
                }
                Feeding::LetGo(_) | Feeding::Open => {}
            }
        }
    }

    /// A catalog has started, and serves once it has heard what is here, which may be more than its database has.
    /// What it is told must stay true until it begins another epoch: an order that is acknowledged by then must be
    /// here, and be told. So what is under way is let go of, in whatever epoch and of whichever run of the catalog.
    pub(super) fn report_to(&mut self, run: CatalogRun) {
        self.reaches_catalog = true;
        if self.feeding != Feeding::LetGo(run) && self.rules.keep(Rule::LetGo) {
            self.feeding = Feeding::LetGo(run);
            let epoch = self.log.term().epoch;
            self.step_down(StepDown::CatalogStarted);
            self.refuse_appends(Refused::LetGo { epoch });
            self.catch_up.finish();
        }
        self.commands.push(Command::ReportLedger {
            run,
            end: self.log.accepted_end(),
            term: self.log.term(),
            peers: self.peers.clone(),
        });
    }

    pub(super) fn takes_rows(&self) -> bool {
        self.feeding == Feeding::Open || !self.rules.keep(Rule::LetGo)
    }

    fn fail(&mut self, failure: Failure) {
        self.step_down(StepDown::Broken);
        self.commands.push(Command::Fail(failure));
    }

    /// Starts fetching rows that are known to be in the journal and do not come by themselves.
    pub(super) fn detect_gap(&mut self, now: BootTime) {
        let tail = self.log.accepted_end().rows;
        let has_let_go = matches!(self.feeding, Feeding::LetGo(_));
        if tail >= self.known || self.catch_up.is_running() || has_let_go {
            self.behind = None;
            return;
        }
        let since = self
            .behind
            .filter(|behind| behind.tail == tail)
            .map_or(now, |behind| behind.since);
        self.behind = Some(Behind { tail, since });
        if since + self.patience() <= now {
            self.behind = None;
            self.catch_up.restart(now);
        }
    }

    pub(super) fn patience(&self) -> Duration {
        match self.role {
            RoleState::Follower => FOLLOWER_PATIENCE,
            RoleState::Activating(_) | RoleState::Leader(_) => LEADER_PATIENCE,
        }
    }

    pub(super) fn may_fetch(&self) -> bool {
        self.log.unsaved() < UNSAVED_ROWS_MAX
    }

    pub(super) fn fetch(&mut self, now: BootTime) {
        if !self.may_fetch() {
            return;
        }
        if let Some((call, source)) = self.catch_up.next(now, &mut self.calls) {
            let LedgerEnd { rows, chain, .. } = self.log.accepted_end();
            self.commands.push(Command::Fetch {
                call,
                source,
                from: rows,
                previous: chain,
                rows_max: CHUNK_ROWS,
            });
        }
    }

    pub(super) fn fetched(
        &mut self,
        now: BootTime,
        call: CallId,
        result: Result<Vec<Row>, CallFailure>,
    ) {
        let refused = result.as_ref().err().copied();
        if self.catch_up.asks_journal(call) {
            match refused {
                Some(CallFailure::Differs) => {
                    let rows = self.log.accepted_end().rows;
                    self.fail(Failure::Differs { rows });
                }
                // It lacks rows: its head says how many.
                Some(CallFailure::Beyond) => self.commands.push(Command::AskCatalog),
                _ => {}
            }
        }
        let Some(FetchResult { source, rows, last }) = self.catch_up.answered(now, call, result)
        else {
            return;
        };
        let full = rows.len() >= CHUNK_ROWS;
        match self.log.take(rows) {
            Ok(rows) => {
                if full && rows.is_empty() {
                    self.catch_up.unusable(now, source);
                }
                self.note_recent(&rows);
                if last {
                    self.caught_up();
                }
            }
            Err(AppendRejected::Gap) => self.catch_up.unusable(now, source),
            Err(AppendRejected::Broken(number)) => {
                self.catch_up.unusable(now, source);
                match source {
                    Source::Peer(peer) => self.report_broken(Sender::Replica(peer), number),
                    Source::Journal => {
                        self.report_broken(Sender::Catalog, number);
                        self.step_down(StepDown::Broken);
                    }
                }
            }
        }
    }

    fn caught_up(&mut self) {
        self.catch_up.finish();
        let orders = self.log.accepted_end().rows;
        // What was heard meanwhile is heard again, and what was heard wrongly is forgotten.
        self.known = orders;
        self.commands
            .push(Command::Report(Report::CaughtUp { orders }));
    }
}
