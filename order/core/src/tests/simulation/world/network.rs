//! The calls and answers on their way, and what the catalog makes of those that reach it.

use std::collections::BTreeSet;

use domain::{Entry, Epoch, ReplicaId};

use super::{Caller, Committing, Run, World};
use crate::message::*;
use crate::tests::bench::{self, commit};
use crate::{Command, Event};
use domain::{ChangeNumber, JournalHead, Term};

#[derive(Debug)]
pub enum Packet {
    Call { from: Run, command: Command },
    Event { to: Run, event: Event },
    Announce { to: ReplicaId, term: Term },
}

impl World {
    pub fn deliver(&mut self, index: usize) {
        match self.network.swap_remove(index) {
            Packet::Call { from, command } => self.call(from, command),
            Packet::Event { to, event } if self.machines[&to.id].run == to => {
                self.step(to.id, Some(event))
            }
            Packet::Event { .. } => {}
            Packet::Announce { to, term } => {
                let Term { epoch, leader } = term;
                let leader = leader.expect("somebody was elected");
                self.confirm(to, epoch);
                self.ask(to, Caller::Gateway, |ticket| Event::Announce {
                    ticket,
                    epoch,
                    leader,
                });
            }
        }
    }

    /// A message is lost: a caller gets no answer in time. What it asked for may still arrive,
    /// at any time after, and be done.
    pub fn lose(&mut self, index: usize) {
        let (to, event) = match self.network.swap_remove(index) {
            Packet::Call { from, command } => {
                let event = unanswered(&command);
                if self.random.below(2) == 0 {
                    self.late.push((from, command));
                }
                (from, Some(event))
            }
            Packet::Event { to, event } => (to, failed(event)),
            Packet::Announce { .. } => return,
        };
        if let Some(event) = event {
            self.network.push(Packet::Event { to, event });
        }
    }

    /// A call arrives that its caller gave up.
    pub fn arrive_late(&mut self, index: usize) {
        let (from, command) = self.late.swap_remove(index);
        self.call(from, command);
    }

    /// The catalog or a peer gets a call; the answer goes on its way.
    fn call(&mut self, from: Run, command: Command) {
        let commits = matches!(command, Command::Trade { .. } | Command::SetInSync { .. });
        if commits {
            // One group at a time.
            self.commit();
        }
        let event = match command {
            Command::Trade {
                call,
                epoch,
                orders,
            } => return self.trade(from, call, epoch, orders),
            Command::SetInSync {
                call,
                epoch,
                change,
                in_sync,
            } => Event::InSyncSet {
                call,
                result: self.set_in_sync(epoch, change, in_sync),
            },
            Command::Fetch {
                call,
                source,
                from: first,
                previous,
                rows_max,
            } => {
                let before = self.journal.get(..first.0 as usize).map(bench::end);
                assert_eq!(before.map(|end| end.chain), Some(previous), "a copy of it");
                let rows = match source {
                    Source::Journal => Some(&self.journal),
                    Source::Peer(peer) => Some(&self.machines[&peer])
                        .filter(|it| it.replica.is_some())
                        .map(|it| &it.disk.rows),
                };
                let rows = rows.map(|rows| {
                    rows.iter()
                        .skip(first.0 as usize)
                        .take(rows_max)
                        .cloned()
                        .collect()
                });
                Event::Fetched {
                    call,
                    result: rows.ok_or(CallFailure::Failed),
                }
            }
            Command::Append {
                call,
                peer,
                epoch,
                shipment,
                committed,
            } => {
                let rows = match shipment {
                    Shipment::Rows(rows) => rows,
                    Shipment::Stored {
                        from: first,
                        rows_max,
                    } => self.machines[&from.id]
                        .disk
                        .rows
                        .iter()
                        .skip(first.0 as usize)
                        .take(rows_max)
                        .cloned()
                        .collect(),
                };
                let caller = Caller::Leader { run: from, call };
                self.confirm(peer, epoch);
                return self.ask(peer, caller, |ticket| Event::Append {
                    ticket,
                    epoch,
                    leader: from.id,
                    rows,
                    committed,
                });
            }
            other => unreachable!("not a call: {other:?}"),
        };
        self.network.push(Packet::Event { to: from, event });
    }

    fn set_in_sync(
        &mut self,
        epoch: Epoch,
        change: ChangeNumber,
        in_sync: BTreeSet<ReplicaId>,
    ) -> Result<JournalHead, CallFailure> {
        if epoch != self.term.epoch {
            return Err(CallFailure::Fenced);
        }
        if change <= self.change {
            self.overtaken += 1;
            return Err(CallFailure::Failed);
        }
        (self.change, self.in_sync) = (change, in_sync);
        self.check_in_sync();
        Ok(self.head())
    }

    /// Commits at once, or proposes first.
    fn trade(&mut self, from: Run, call: CallId, epoch: Epoch, orders: Vec<Entry>) {
        let answer = |result| Packet::Event {
            to: from,
            event: Event::Traded { call, result },
        };
        if epoch != self.term.epoch {
            return self.network.push(answer(Err(CallFailure::Fenced)));
        }
        let mut journal = self.journal.clone();
        let mut row = |order: Entry| {
            let known = journal.iter().find(|row| row.entry.key() == order.key());
            let known = known.cloned();
            known.unwrap_or_else(|| commit(&mut journal, epoch, order))
        };
        let outcomes = orders.into_iter().map(|order| Outcome::Row(row(order)));
        let answer = answer(Ok(outcomes.collect()));
        let rows = journal.split_off(self.journal.len());
        if !rows.is_empty() && self.random.below(4) > 0 {
            let event = Event::Proposed {
                call,
                rows: rows.clone(),
            };
            self.network.push(Packet::Event { to: from, event });
        }
        self.committing = Some(Committing { rows, answer });
        if self.random.below(4) == 0 {
            self.commit();
        }
    }
}

/// What the caller of a call gets that is not answered in time.
fn unanswered(call: &Command) -> Event {
    let lost = CallFailure::Failed;
    match *call {
        Command::Trade { call, .. } => Event::Traded {
            call,
            result: Err(lost),
        },
        Command::SetInSync { call, .. } => Event::InSyncSet {
            call,
            result: Err(lost),
        },
        Command::Fetch { call, .. } => Event::Fetched {
            call,
            result: Err(lost),
        },
        Command::Append { call, peer, .. } => Event::Appended {
            call,
            peer,
            result: Err(lost),
        },
        _ => unreachable!("not a call"),
    }
}

/// What the caller gets instead of an answer that is lost; `None` for what is no answer.
pub(super) fn failed(event: Event) -> Option<Event> {
    let lost = CallFailure::Failed;
    match event {
        Event::Traded { call, .. } => Some(Event::Traded {
            call,
            result: Err(lost),
        }),
        Event::InSyncSet { call, .. } => Some(Event::InSyncSet {
            call,
            result: Err(lost),
        }),
        Event::Fetched { call, .. } => Some(Event::Fetched {
            call,
            result: Err(lost),
        }),
        Event::Appended { call, peer, .. } => Some(Event::Appended {
            call,
            peer,
            result: Err(lost),
        }),
        _ => None,
    }
}
