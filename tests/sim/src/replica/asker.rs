//! The question to the catalog, who leads and how long the journal is.

use order_core::Save;
use order_core::asker::{Action, Input};
use order_core::timing::HEAD_TIMEOUT;

use super::Replica;
use crate::messages::{Failure, Purpose, Request};
use crate::oracle::Oracle;
use crate::timeline::Timeline;

impl Replica {
    /// Tells its asker what happened, and does what that wants done.
    pub(super) fn ask(&mut self, line: &mut Timeline, oracle: &mut Oracle, input: Option<Input>) {
        let now = line.clock(self.run.node);
        let status = self.core.status();
        let asker = self.asker.as_mut().expect("it has joined");
        for action in asker.step(now, &status, input) {
            match action {
                Action::Ask => {
                    let request = Request::GetLeadership;
                    self.call_catalog(line, request, HEAD_TIMEOUT, Purpose::JournalHead);
                }
                Action::Keep(identity) => self.saves.push_back(Save {
                    identity: Some(identity),
                    ..Save::default()
                }),
                Action::Tell(event) => self.step(line, oracle, Some(event)),
                Action::LetThrough(ticket) => {
                    let claimant = self.claimants.remove(&ticket);
                    let (caller, request) = claimant.expect("answered once");
                    self.told(line, oracle, caller, request);
                }
                Action::Refuse(ticket) => {
                    let (caller, _) = self.claimants.remove(&ticket).expect("answered once");
                    line.reply(self.run.node, caller, Err(Failure::Unavailable));
                }
            }
        }
    }
}
