//! The calls and answers on their way, and what the catalog makes of those that reach it.

use std::collections::BTreeSet;

use catalog_core::{Batch, InSyncRefused, PriorOutcome, Rules, Term, TradeResult};
use domain::ChangeNumber;
use domain::JournalHead;
use domain::LedgerEnd;
use domain::{Entry, Epoch, ReplicaId, Row};
use order_core::message::{CallFailure, CallId, Outcome, Refused, Shipment, Source};
use order_core::{Command, Event};

use super::bounds::Bounds;
use super::world::{Committing, World, end};

/// Something on its way.
#[derive(Debug, Clone, PartialEq)]
pub enum Packet {
    /// To the catalog or a replica.
    Call {
        from: ReplicaId,
        command: Command,
        /// The caller has not given up, nor crashed, since.
        awaited: bool,
    },
    /// Of a call that is awaited.
    Answer { to: ReplicaId, event: Event },
}

impl World {
    /// A replica makes a call.
    pub fn send(&mut self, from: ReplicaId, mut command: Command) {
        if let Command::Append { shipment, .. } = &mut command
            && let Shipment::Stored {
                from: first,
                rows_max,
            } = *shipment
        {
            let rows = self.machine(from).disk.rows.iter();
            let rows = rows.skip(first.0 as usize).take(rows_max);
            *shipment = Shipment::Rows(rows.cloned().collect());
        }
        self.network.push(Packet::Call {
            from,
            command,
            awaited: true,
        });
    }

    /// A call reaches the catalog or a peer; the answer goes on its way.
    pub fn call(&mut self, bounds: &Bounds, from: ReplicaId, command: Command, awaited: bool) {
        if self.healing.is_some() && !matches!(command, Command::Append { .. }) {
            let is_to_peer = matches!(
                command,
                Command::Fetch {
                    source: Source::Peer(_),
                    ..
                }
            );
            if !is_to_peer {
                let event = unanswered(&command);
                self.network.push(Packet::Answer { to: from, event });
                return;
            }
        }
        if matches!(command, Command::Trade { .. } | Command::SetInSync { .. }) {
            // One batch at a time.
            self.commit();
        }
        let event = match command {
            Command::Trade {
                call,
                epoch,
                orders,
            } => match self.trade(epoch, orders) {
                Err(failure) => Event::Traded {
                    call,
                    result: Err(failure),
                },
                Ok((batch, outcomes)) => {
                    let committing = Committing {
                        batch,
                        to: from,
                        call,
                        outcomes,
                        awaited,
                    };
                    return self.propose(bounds, committing);
                }
            },
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
                let before = self.committed().get(..first.0 as usize).map(end);
                if before.map(|end| end.chain) != Some(previous) {
                    self.broken = Some("a ledger is not the journal's beginning");
                }
                Event::Fetched {
                    call,
                    result: Ok(self.fetch(source, first, rows_max)),
                }
            }
            Command::Append {
                call,
                peer,
                epoch,
                shipment: Shipment::Rows(rows),
                committed,
            } => return self.append(peer, (from, call), epoch, (rows, committed)),
            other => unreachable!("not a call: {other:?}"),
        };
        self.network.push(Packet::Answer { to: from, event });
    }

    /// A follower answers a leader.
    pub fn appended(
        &mut self,
        at: ReplicaId,
        caller: Option<(ReplicaId, CallId)>,
        answer: Result<LedgerEnd, Refused>,
    ) {
        let Some((to, call)) = caller else { return };
        let disk = &self.machine(at).disk;
        let rows = disk.rows.iter().cloned().chain(disk.continuing());
        let rows: Vec<Row> = rows.collect();
        let holds = |held: LedgerEnd| rows.get(..held.rows.0 as usize).map(end) == Some(held);
        if answer.is_ok_and(|held| !holds(held)) {
            self.broken = Some("a follower says that it holds what it does not");
        }
        let result = answer.map_err(|refused| match refused {
            Refused::Stale { .. } | Refused::LeadsNoMore { .. } | Refused::LetGo { .. } => {
                CallFailure::Fenced
            }
            Refused::Unconfirmed { .. }
            | Refused::OtherLeader { .. }
            | Refused::StoreFailed
            | Refused::Broken { .. } => CallFailure::Failed,
        });
        let event = Event::Appended {
            call,
            peer: at,
            result,
        };
        self.network.push(Packet::Answer { to, event });
    }

    /// What a caller is told that gives up a call. The call itself may still arrive.
    pub fn give_up(&mut self, at: ReplicaId, given_up: CallId) -> Event {
        for (index, packet) in self.network.iter_mut().enumerate() {
            match packet {
                Packet::Call {
                    from,
                    command,
                    awaited,
                } if *from == at && *awaited && call_of(command) == given_up => {
                    *awaited = false;
                    return unanswered(command);
                }
                // The answer itself comes later.
                Packet::Answer {
                    event: Event::Proposed { .. },
                    ..
                } => {}
                Packet::Answer { to, event } if *to == at && answer_to(event) == given_up => {
                    let event = failed(event);
                    self.network.swap_remove(index);
                    return event;
                }
                _ => {}
            }
        }
        for machine in &mut self.machines {
            let mut callers = machine.callers.values_mut();
            if let Some(caller) = callers.find(|caller| **caller == Some((at, given_up))) {
                *caller = None;
                return Event::Appended {
                    call: given_up,
                    peer: machine.id(),
                    result: Err(CallFailure::Failed),
                };
            }
        }
        if let Some(committing) = &mut self.committing
            && (committing.to, committing.call) == (at, given_up)
        {
            committing.awaited = false;
            return Event::Traded {
                call: given_up,
                result: Err(CallFailure::Failed),
            };
        }
        panic!("call {given_up:?} of replica {at} got lost")
    }

    /// A replica crashes: nobody waits for its calls any more.
    pub fn cut_off(&mut self, crashed: ReplicaId) {
        for packet in &mut self.network {
            if let Packet::Call { from, awaited, .. } = packet
                && *from == crashed
            {
                *awaited = false;
            }
        }
        self.network
            .retain(|packet| !matches!(packet, Packet::Answer { to, .. } if *to == crashed));
        if let Some(committing) = &mut self.committing {
            committing.awaited &= committing.to != crashed;
        }
        for machine in &mut self.machines {
            let callers = machine.callers.values_mut();
            for caller in callers.filter(|caller| caller.is_some_and(|(from, _)| from == crashed)) {
                *caller = None;
            }
        }
    }

    /// Takes out what makes no difference any more, so that fewer states differ.
    pub fn forget(&mut self, bounds: &Bounds) {
        let awaited: Vec<Vec<CallId>> = self
            .machines
            .iter()
            .map(|machine| machine.replica.awaited())
            .collect();
        let awaits = |by: ReplicaId, call| awaited[by.get() as usize - 1].contains(&call);
        for packet in &mut self.network {
            if let Packet::Call {
                from,
                command,
                awaited,
            } = packet
            {
                *awaited &= awaits(*from, call_of(command));
            }
        }
        for machine in &mut self.machines {
            for caller in machine.callers.values_mut() {
                *caller = caller.filter(|(from, call)| awaits(*from, *call));
            }
        }
        if let Some(committing) = &mut self.committing {
            committing.awaited &= awaits(committing.to, committing.call);
        }
        let current = self.catalog.leadership().term;
        let disks: Vec<_> = self.machines.iter().map(|it| it.disk.durable()).collect();
        let all_rules = bounds.catalog_rules() == Rules::default();
        self.network.retain(|packet| match packet {
            Packet::Answer { to, event } => awaits(*to, answer_to(event)),
            Packet::Call { awaited: true, .. } => true,
            Packet::Call { command, .. } => match command {
                Command::Fetch { .. } => false,
                Command::Append {
                    peer,
                    epoch,
                    shipment,
                    committed,
                    ..
                } => {
                    let disk = disks[peer.get() as usize - 1];
                    let refused = *epoch < disk.term.epoch;
                    // With no news it does what an announcement does.
                    let has_rows = *shipment != Shipment::Rows(Vec::new());
                    !refused && (has_rows || *committed > disk.end.rows)
                }
                call => !all_rules || !is_refused(call, &current),
            },
        });
    }

    /// Tells the caller of new rows before they are committed, or commits them at once.
    fn propose(&mut self, bounds: &Bounds, committing: Committing) {
        let rows = committing.batch.rows.clone();
        let Committing {
            to, call, awaited, ..
        } = committing;
        self.committing = Some(committing);
        if !bounds.proposes || rows.is_empty() {
            return self.commit();
        }
        if awaited {
            let event = Event::Proposed { call, rows };
            self.network.push(Packet::Answer { to, event });
        }
    }

    /// What becomes of orders.
    fn trade(
        &mut self,
        epoch: Epoch,
        orders: Vec<Entry>,
    ) -> Result<(Batch, Vec<Outcome>), CallFailure> {
        let mut staged = self.catalog.stage();
        staged.check_epoch(epoch).map_err(|_| CallFailure::Fenced)?;
        let mut outcomes = Vec::new();
        for order in orders {
            let mut rows = self.journal.iter();
            let row = rows.find(|row| row.entry.key() == order.key());
            let mut refused = self.refused.iter();
            let refused = refused.find(|refused| refused.entry.key() == order.key());
            let refused = refused.cloned().map(PriorOutcome::Refused);
            let known = row.cloned().map(PriorOutcome::Row).or(refused);
            let result = staged
                .trade(epoch, order, known)
                .map_err(|_| CallFailure::Fenced)?;
            outcomes.push(match result {
                TradeResult::Row(row) => Outcome::Row(row),
                TradeResult::Refused(refusal) => Outcome::Refused(refusal),
            });
        }
        Ok((staged.into_batch(), outcomes))
    }

    fn set_in_sync(
        &mut self,
        epoch: Epoch,
        change: ChangeNumber,
        in_sync: BTreeSet<ReplicaId>,
    ) -> Result<JournalHead, CallFailure> {
        let before = self.catalog.leadership().term;
        let mut staged = self.catalog.stage();
        staged
            .set_in_sync(epoch, change, in_sync)
            .map_err(|refused| match refused {
                InSyncRefused::Stale(_) => CallFailure::Fenced,
                InSyncRefused::Overtaken { .. } | InSyncRefused::WithoutLeader(_) => {
                    CallFailure::Failed
                }
            })?;
        let batch = staged.into_batch();
        self.catalog.apply(batch);
        let after = self.catalog.leadership().term;
        // The first change of an epoch sets the leader's own set.
        if before.change > ChangeNumber::NONE {
            self.taken_back |= self.removed == Some(epoch) && after.in_sync > before.in_sync;
            if after.in_sync < before.in_sync {
                self.removed = Some(epoch);
            }
        }
        Ok(self.head())
    }
}

/// Whether the catalog refuses the call from now on, for good.
fn is_refused(call: &Command, current: &Term) -> bool {
    match call {
        Command::Trade { epoch, .. } => *epoch < current.epoch,
        Command::SetInSync { epoch, change, .. } => {
            (*epoch, *change) <= (current.epoch, current.change)
        }
        other => unreachable!("not a call to the catalog: {other:?}"),
    }
}

pub fn call_of(command: &Command) -> CallId {
    match command {
        Command::Trade { call, .. }
        | Command::SetInSync { call, .. }
        | Command::Fetch { call, .. }
        | Command::Append { call, .. } => *call,
        other => unreachable!("not a call: {other:?}"),
    }
}

pub fn answer_to(event: &Event) -> CallId {
    match event {
        Event::Proposed { call, .. }
        | Event::Traded { call, .. }
        | Event::InSyncSet { call, .. }
        | Event::Fetched { call, .. }
        | Event::Appended { call, .. } => *call,
        other => unreachable!("not an answer: {other:?}"),
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
        ref other => unreachable!("not a call: {other:?}"),
    }
}

/// What the caller gets instead of an answer that is lost.
fn failed(event: &Event) -> Event {
    let lost = CallFailure::Failed;
    match *event {
        Event::Traded { call, .. } => Event::Traded {
            call,
            result: Err(lost),
        },
        Event::InSyncSet { call, .. } => Event::InSyncSet {
            call,
            result: Err(lost),
        },
        Event::Fetched { call, .. } => Event::Fetched {
            call,
            result: Err(lost),
        },
        Event::Appended { call, peer, .. } => Event::Appended {
            call,
            peer,
            result: Err(lost),
        },
        ref other => unreachable!("not an answer: {other:?}"),
    }
}
