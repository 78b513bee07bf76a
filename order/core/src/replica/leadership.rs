//! Leading: orders to the catalog, rows to the own store and the followers, acknowledgements.

use domain::LedgerEnd;
use domain::time::BootTime;
use domain::{ReplicaId, Row, RowNumber};

use super::{Leadership, Replica, RoleState, UNSAVED_ROWS_MAX};
use crate::followers::APPEND_ROWS_MAX;
use crate::message::{CallFailure, CallId, Command, Outcome, Sender, Shipment, StepDown};
use crate::recent_rows::Recent;
use crate::replica_log::AppendRejected;

impl Replica {
    pub(super) fn lead(&mut self, now: BootTime) {
        self.extend_ledger();
        self.notice_succession();
        let RoleState::Leader(leadership) = &mut self.role else {
            return;
        };
        let Leadership {
            trades,
            recent,
            followers,
        } = &mut **leadership;
        let epoch = self.log.term().epoch;
        let committed = self.log.accepted_end().rows;
        let held = self.log.durable_end().rows;
        followers.committed(now, committed);
        let end = self.log.proposed_end().rows;
        while let Some((call, peer, from)) = followers.next_call(now, end, &mut self.calls) {
            let shipment = from.map_or(Shipment::Rows(Vec::new()), |from| ship(recent, from));
            self.commands.push(Command::Append {
                call,
                peer,
                epoch,
                shipment,
                committed,
            });
        }
        trades.acknowledge(followers.acknowledged(held), &mut self.commands);
        while self.log.unsaved() < UNSAVED_ROWS_MAX
            && let Some((call, orders)) = trades.next_batch(&mut self.calls)
        {
            self.commands.push(Command::Trade {
                call,
                epoch,
                orders,
            });
        }
        if let Some((call, change, in_sync)) = followers.next_change(now, &mut self.calls) {
            self.commands.push(Command::SetInSync {
                call,
                epoch,
                change,
                in_sync,
            });
        }
    }

    /// Takes committed rows into the ledger as far as they have no gaps.
    fn extend_ledger(&mut self) {
        let RoleState::Leader(leadership) = &mut self.role else {
            return;
        };
        let rows = leadership.trades.in_order(self.log.accepted_end().rows);
        self.known = self.known.max(leadership.trades.known());
        match self.log.take(rows) {
            Ok(rows) => self.note_recent(&rows),
            Err(AppendRejected::Gap) => unreachable!("rows are taken out in order"),
            Err(AppendRejected::Broken(number)) => {
                self.report_broken(Sender::Catalog, number);
                self.step_down(StepDown::Broken);
            }
        }
    }

    /// Keeps in mind rows that followers may be sent.
    pub(super) fn note_recent(&mut self, rows: &[Row]) {
        if let RoleState::Leader(leadership) = &mut self.role {
            leadership.recent.extend(rows, self.log.durable().end.rows);
        }
    }

    /// Rows are on their way to the journal's disk, and may go to others beside it. What does not
    /// fit is sent when it is committed.
    pub(super) fn proposed(&mut self, call: CallId, rows: Vec<Row>) {
        let awaits =
            matches!(&self.role, RoleState::Leader(leadership) if leadership.trades.awaits(call));
        if !awaits {
            return;
        }
        if let Ok(rows) = self.propose(rows) {
            self.note_recent(&rows);
        }
    }

    pub(super) fn traded(
        &mut self,
        now: BootTime,
        call: CallId,
        result: Result<Vec<Outcome>, CallFailure>,
    ) {
        let RoleState::Leader(leadership) = &mut self.role else {
            return;
        };
        let trades = &mut leadership.trades;
        match result {
            _ if !trades.awaits(call) => {}
            Ok(outcomes) => trades.traded(
                call,
                outcomes,
                self.log.accepted_end().rows,
                &mut self.commands,
            ),
            Err(CallFailure::Fenced) => self.step_down(StepDown::Superseded),
            Err(_) => {
                trades.batch_failed(call, &mut self.commands);
                // It may have started anew, and wait for this replica.
                self.commands.push(Command::AskCatalog);
                // The journal says which of its orders were committed.
                if !self.catch_up.is_running() {
                    self.catch_up.restart(now);
                }
            }
        }
    }

    pub(super) fn appended(
        &mut self,
        now: BootTime,
        (call, peer): (CallId, ReplicaId),
        result: Result<LedgerEnd, CallFailure>,
    ) {
        let RoleState::Leader(leadership) = &mut self.role else {
            return;
        };
        let Leadership {
            recent, followers, ..
        } = &mut **leadership;
        let held_here = self.log.durable_end();
        let ends = [
            self.log.durable().end,
            held_here,
            self.log.accepted_end(),
            LedgerEnd::default(),
        ];
        let chain_at = |rows| {
            let end = ends.iter().find(|end| end.rows == rows);
            end.map(|end| end.chain).or_else(|| recent.chain_at(rows))
        };
        match result {
            _ if !followers.awaits(call) => {}
            Ok(held) => {
                if held.rows > self.log.proposed_end().rows {
                    self.known = self.known.max(held.rows);
                }
                followers.answered(
                    now,
                    (call, peer),
                    held,
                    held_here.rows,
                    chain_at,
                    &mut self.commands,
                );
            }
            // Whether another epoch has begun is for the catalog to say; a follower that claims so
            // on its own is out of sync.
            Err(failure) => {
                followers.failed(now, call, peer, &mut self.commands);
                if failure == CallFailure::Fenced {
                    self.commands.push(Command::AskCatalog);
                }
            }
        }
    }
}

/// What a follower is sent from a number on. What is not durable yet is always among the
/// recent rows.
fn ship(recent: &Recent, from: RowNumber) -> Shipment {
    let rows = recent.from(from, APPEND_ROWS_MAX).map(Shipment::Rows);
    rows.unwrap_or(Shipment::Stored {
        from,
        rows_max: APPEND_ROWS_MAX,
    })
}
