//! Becoming the leader: complete, durable, confirmed.

use std::collections::BTreeSet;
use std::time::Duration;

use domain::time::BootTime;

use super::{Leadership, Replica, RoleState};
use crate::ablation::Rule;
use crate::catch_up::backoff;
use crate::durable::Durable;
use crate::followers::Followers;
use crate::in_flight::InFlightOrders;
use crate::message::{CallFailure, CallId, Command, Report, Sender, StepDown};
use crate::recent_rows::Recent;
use domain::ChangeNumber;
use domain::JournalHead;

/// Wait before a leader-elect asks the catalog again to confirm it.
const CONFIRM_RETRY_MIN: Duration = Duration::from_millis(20);
const CONFIRM_RETRY_MAX: Duration = Duration::from_millis(500);

impl Replica {
    /// Whether a leader-elect holds everything durably.
    pub(super) fn is_ready(&self) -> bool {
        let activating =
            matches!(&self.role, RoleState::Activating(activation) if activation.confirm.is_none());
        let term_is_durable = self.log.durable().term == self.log.term();
        activating && term_is_durable && self.has_caught_up() && self.log.unsaved() == 0
    }

    fn has_caught_up(&self) -> bool {
        !self.catch_up.is_running() || !self.rules.keep(Rule::ActivationCatchUp)
    }

    pub(super) fn confirm(&mut self, now: BootTime) {
        if !self.is_ready() {
            return;
        }
        if let RoleState::Activating(activation) = &mut self.role
            && activation.try_at <= now
        {
            let call = self.calls.next();
            activation.confirm = Some(call);
            activation.last_change = activation.last_change.next();
            let in_sync = BTreeSet::from([self.id]);
            self.commands.push(Command::SetInSync {
                call,
                epoch: self.log.term().epoch,
                change: activation.last_change,
                in_sync,
            });
        }
    }

    pub(super) fn in_sync_set(
        &mut self,
        now: BootTime,
        call: CallId,
        result: Result<JournalHead, CallFailure>,
    ) {
        match &mut self.role {
            RoleState::Activating(activation) if activation.confirm == Some(call) => {
                activation.confirm = None;
                match result {
                    Ok(head) => {
                        let change = activation.last_change;
                        self.confirmed(now, &head, change);
                    }
                    Err(CallFailure::Fenced) => self.step_down(StepDown::Superseded),
                    Err(_) => {
                        activation.failures = activation.failures.saturating_add(1);
                        activation.try_at = now
                            + backoff(activation.failures, CONFIRM_RETRY_MIN, CONFIRM_RETRY_MAX);
                    }
                }
            }
            RoleState::Leader(leadership) if leadership.followers.awaits(call) => match result {
                Ok(_) => leadership.followers.changed(call),
                Err(CallFailure::Fenced) => self.step_down(StepDown::Superseded),
                Err(_) => leadership.followers.change_failed(now, call),
            },
            _ => {}
        }
    }

    /// The catalog says, as its answer to a change, that the epoch is still this replica's.
    fn confirmed(&mut self, now: BootTime, head: &JournalHead, change: ChangeNumber) {
        let Durable { term, end, .. } = self.log.durable();
        if head.term != term {
            self.step_down(StepDown::Superseded);
        } else if head.end.rows > end.rows && self.rules.keep(Rule::ActivationCatchUp) {
            self.catch_up.restart(now);
        } else if head.end.rows <= end.rows && head.end != end {
            self.report_broken(Sender::Catalog, head.end.rows);
            self.step_down(StepDown::Broken);
        } else {
            let leadership = Leadership {
                trades: InFlightOrders::default(),
                recent: Recent::default(),
                followers: Followers::new(self.id, &self.peers, change, now, self.rules),
            };
            self.role = RoleState::Leader(Box::new(leadership));
            self.commands.push(Command::Report(Report::Leading {
                epoch: term.epoch,
                orders: end.rows,
            }));
        }
    }
}
