//! When two states are one: what differs only in how calls are numbered, or in the order in
//! which packets were sent, is the same.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use domain::{ReplicaId, Row};
use order_core::durable::Save;
use order_core::message::{CallId, Outcome, Shipment};
use order_core::{Command, Event};

use super::network::{Packet, answer_to, call_of};
use super::world::{Committing, Machine, World, end};

impl Hash for World {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let calls = Calls(
            self.machines
                .iter()
                .map(|it| it.replica.awaited())
                .collect(),
        );
        self.catalog.leadership().term.hash(state);
        for stock in self.catalog.stocks() {
            stock.quantity.hash(state);
        }
        hash_rows(&self.journal, state);
        let refused = self.refused.iter().map(|refused| refused.entry.key());
        refused.collect::<BTreeSet<_>>().hash(state);
        if let Some(committing) = &self.committing {
            let Committing {
                batch,
                to,
                call,
                outcomes,
                awaited,
            } = committing;
            hash_rows(&batch.rows, state);
            let place = awaited.then(|| calls.place(*to, *call));
            (to, place, outcomes.iter().map(what).collect::<Vec<_>>()).hash(state);
        }
        self.terms.hash(state);
        let older = self.older.as_ref();
        older.map(|older| older.place()).hash(state);
        if let Some(healing) = &self.healing {
            hash_rows(&healing.lost, state);
            healing.has_put_back.hash(state);
            for (replica, report) in &healing.reports {
                (replica, report.end.rows, report.end.chain, report.term).hash(state);
                hash_rows(&report.beside, state);
            }
        }
        for machine in &self.machines {
            hash_machine(machine, &calls, state);
        }
        let mut packets: Vec<u64> = self.network.iter().map(|it| digest(it, &calls)).collect();
        packets.sort_unstable();
        packets.hash(state);
        (&self.answered, self.removed, self.taken_back).hash(state);
        (&self.spent, self.broken).hash(state);
    }
}

/// The calls that each replica waits for.
struct Calls(Vec<Vec<CallId>>);

impl Calls {
    /// A name for a call that does not depend on its number; `None` where nobody waits for it.
    fn place(&self, by: ReplicaId, call: CallId) -> Option<usize> {
        let mut calls = self.0[by.get() as usize - 1].iter();
        calls.position(|&awaited| awaited == call)
    }
}

fn hash_machine(machine: &Machine, calls: &Calls, state: &mut impl Hasher) {
    let Machine {
        replica,
        disk,
        saves,
        callers,
        leaps,
    } = machine;
    (replica, disk.durable(), leaps).hash(state);
    for kept in &disk.kept {
        (kept.number, kept.chain).hash(state);
    }
    (disk.kept.len(), saves.len()).hash(state);
    for Save {
        identity: _,
        term,
        rows,
        proposed,
    } in saves
    {
        term.hash(state);
        hash_rows(rows, state);
        hash_rows(proposed, state);
    }
    for (ticket, caller) in callers {
        let caller = caller.map(|(from, call)| (from, calls.place(from, call)));
        (ticket, caller).hash(state);
    }
}

fn digest(packet: &Packet, calls: &Calls) -> u64 {
    let mut state = DefaultHasher::new();
    match packet {
        Packet::Call {
            from,
            command,
            awaited,
        } => {
            let call = call_of(command);
            let place = awaited.then(|| calls.place(*from, call));
            (0, from, place).hash(&mut state);
            hash_command(command, &mut state);
        }
        Packet::Answer { to, event } => {
            (1, to, calls.place(*to, answer_to(event))).hash(&mut state);
            hash_answer(event, &mut state);
        }
    }
    state.finish()
}

fn hash_command(command: &Command, state: &mut impl Hasher) {
    match command {
        Command::Trade { epoch, orders, .. } => {
            (0, epoch).hash(state);
            orders.iter().for_each(|order| order.key().hash(state));
        }
        Command::SetInSync {
            epoch,
            change,
            in_sync,
            ..
        } => (1, epoch, change, in_sync).hash(state),
        Command::Fetch { source, from, .. } => (2, source, from).hash(state),
        Command::Append {
            peer,
            epoch,
            shipment: Shipment::Rows(rows),
            committed,
            ..
        } => {
            (3, peer, epoch, committed).hash(state);
            hash_rows(rows, state);
        }
        other => unreachable!("not a call: {other:?}"),
    }
}

fn hash_answer(event: &Event, state: &mut impl Hasher) {
    match event {
        Event::Proposed { rows, .. } => {
            4.hash(state);
            hash_rows(rows, state);
        }
        Event::Traded { result, .. } => {
            let outcomes = result.as_ref().map(|outcomes| outcomes.iter().map(what));
            let outcomes = outcomes.map(Vec::from_iter);
            (0, outcomes).hash(state);
        }
        Event::InSyncSet { result, .. } => {
            let head = result.as_ref();
            (1, head.map(|head| (head.term, head.end.rows))).hash(state);
        }
        Event::Fetched { result, .. } => {
            (2, result.as_ref().err()).hash(state);
            hash_rows(result.as_deref().unwrap_or_default(), state);
        }
        Event::Appended { peer, result, .. } => {
            (3, peer, result.map(|end| (end.rows, end.chain))).hash(state);
        }
        other => unreachable!("not an answer: {other:?}"),
    }
}

fn what(outcome: &Outcome) -> (Option<[u8; 32]>, i32) {
    match outcome {
        Outcome::Row(row) => (Some(*row.chain.as_bytes()), 0),
        Outcome::Refused(refusal) => (None, *refusal as i32),
    }
}

/// The last row's chain hash covers those before it.
fn hash_rows(rows: &[Row], state: &mut impl Hasher) {
    let end = end(rows);
    (end.rows, end.chain).hash(state);
}
