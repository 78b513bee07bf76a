//! The world: the replicas, their disks and callers, and what must hold of them.

mod network;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use domain::LedgerEnd;
use domain::time::BootTime;
use domain::{Entry, Epoch, ReplicaId, Row, RowNumber};

use super::{KEYS, REPLICAS, Random};
use crate::asker::is_known;
use crate::durable::{Save, gather};
use crate::memory::Memory;
use crate::message::*;
use crate::tests::bench::{self, end, id, order, stock_change};
use crate::{Command, Event, Replica};
use domain::{ChangeNumber, JournalHead, Term};

pub use network::Packet;

/// One run of a replica, which ends with a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    pub id: ReplicaId,
    number: u64,
}

/// What the key with that number stands for: every fourth one for a change of a stock.
fn entry(number: u64) -> Entry {
    let key = format!("key-{number}");
    match number % 4 {
        0 => stock_change(&key).into(),
        _ => order(&key).into(),
    }
}

pub struct Machine {
    pub run: Run,
    /// `None` while it is down.
    pub replica: Option<Replica>,
    pub disk: Memory,
    saves: VecDeque<Save>,
    callers: BTreeMap<Ticket, Caller>,
}

enum Caller {
    Client { order: Entry },
    Gateway,
    Leader { run: Run, call: CallId },
}

/// Rows that were proposed, and the answer once they are committed.
pub struct Committing {
    pub rows: Vec<Row>,
    pub answer: Packet,
}

pub struct World {
    pub random: Random,
    now: BootTime,
    pub term: Term,
    pub in_sync: BTreeSet<ReplicaId>,
    /// The last change of `in_sync` in this epoch.
    change: ChangeNumber,
    pub journal: Vec<Row>,
    /// On its way to the catalog's disk.
    pub committing: Option<Committing>,
    /// How often that came to something, and to nothing.
    pub commits: usize,
    pub failures: usize,
    pub machines: BTreeMap<ReplicaId, Machine>,
    pub network: Vec<Packet>,
    /// Calls that are still on their way after their callers gave up, and may be for long.
    pub late: Vec<(Run, Command)>,
    tickets: u64,
    /// One more than the highest acknowledged number.
    acknowledged: RowNumber,
    pub answers: usize,
    /// Changes of the in-sync set that came after a later one.
    pub overtaken: usize,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut world = Self {
            random: Random(seed),
            now: BootTime::from_millis(1_000_000),
            term: Term::default(),
            in_sync: BTreeSet::new(),
            change: ChangeNumber::default(),
            journal: Vec::new(),
            committing: None,
            commits: 0,
            failures: 0,
            machines: BTreeMap::new(),
            network: Vec::new(),
            late: Vec::new(),
            tickets: 0,
            acknowledged: RowNumber(0),
            answers: 0,
            overtaken: 0,
        };
        for number in 1..=REPLICAS {
            let run = Run {
                id: id(number),
                number: 0,
            };
            let machine = Machine {
                run,
                replica: None,
                disk: Memory::default(),
                saves: VecDeque::new(),
                callers: BTreeMap::new(),
            };
            world.machines.insert(id(number), machine);
            world.start(id(number));
        }
        world
    }

    pub fn start(&mut self, id: ReplicaId) {
        let peers = self
            .machines
            .keys()
            .copied()
            .filter(|&peer| peer != id)
            .collect();
        let machine = self.machines.get_mut(&id).unwrap();
        machine.run.number += 1;
        machine.replica = Some(Replica::new(id, peers, machine.disk.reopen(), self.now));
        self.step(id, None);
    }

    pub fn crash(&mut self, id: ReplicaId) {
        let machine = self.machines.get_mut(&id).unwrap();
        machine.replica = None;
        machine.saves.clear();
        let callers = std::mem::take(&mut machine.callers);
        for caller in callers.into_values() {
            if let Caller::Leader { run, call } = caller {
                let event = Event::Appended {
                    call,
                    peer: id,
                    result: Err(CallFailure::Failed),
                };
                self.network.push(Packet::Event { to: run, event });
            }
        }
    }

    /// Tells a replica something and does what it wants done.
    pub fn step(&mut self, id: ReplicaId, event: Option<Event>) {
        let machine = self.machines.get_mut(&id).unwrap();
        let from = machine.run;
        let Some(replica) = &mut machine.replica else {
            return;
        };
        for command in replica.step(self.now, event) {
            match command {
                Command::Save(save) => self.machines.get_mut(&id).unwrap().saves.push_back(save),
                Command::AnswerPlace { ticket, answer } => self.placed(id, ticket, answer),
                Command::AnswerAnnounce { ticket, answer } => self.announced(id, ticket, answer),
                Command::AnswerAppend { ticket, answer } => self.appended(id, ticket, answer),
                Command::Fail(_)
                | Command::ReportMissing(_)
                | Command::Report(
                    Report::Broken { .. }
                    | Report::CatalogLostRows { .. }
                    | Report::FollowerDiverged { .. }
                    | Report::FollowerLostRows { .. },
                ) => {
                    panic!("nothing is damaged in this world: {command:?}")
                }
                // It is told so often enough.
                Command::AskCatalog | Command::Report(_) => {}
                call => self.network.push(Packet::Call {
                    from,
                    command: call,
                }),
            }
        }
    }

    /// The catalog says who leads, and how long its journal is.
    pub fn hear(&mut self, id: ReplicaId) {
        self.step_head(id, Some(self.head()));
    }

    /// The catalog does not answer.
    pub fn hear_nothing(&mut self, id: ReplicaId) {
        self.step_head(id, None);
    }

    fn step_head(&mut self, id: ReplicaId, head: Option<JournalHead>) {
        if let Some(replica) = &self.machines[&id].replica {
            let held = replica.status().end;
            self.step(id, Some(Event::JournalHead { head, held }));
        }
    }

    /// Before a replica is told of an epoch that it does not know, it asks the catalog.
    fn confirm(&mut self, id: ReplicaId, epoch: Epoch) {
        let replica = self.machines[&id].replica.as_ref();
        if replica.is_some_and(|replica| !is_known(epoch, &replica.status())) {
            self.hear(id);
        }
    }

    fn ask(&mut self, id: ReplicaId, caller: Caller, event: impl FnOnce(Ticket) -> Event) {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let machine = self.machines.get_mut(&id).unwrap();
        if machine.replica.is_some() {
            machine.callers.insert(ticket, caller);
            self.step(id, Some(event(ticket)));
        } else if let Caller::Leader { run, call } = caller {
            let event = Event::Appended {
                call,
                peer: id,
                result: Err(CallFailure::Failed),
            };
            self.network.push(Packet::Event { to: run, event });
        }
    }

    fn caller(&mut self, id: ReplicaId, ticket: Ticket) -> Caller {
        self.machines
            .get_mut(&id)
            .unwrap()
            .callers
            .remove(&ticket)
            .expect("each caller is answered once")
    }

    fn placed(&mut self, id: ReplicaId, ticket: Ticket, answer: Result<Placed, Unavailable>) {
        let Caller::Client { order } = self.caller(id, ticket) else {
            panic!("no client")
        };
        let Ok(placed) = answer else { return };
        let mut rows = self.journal.iter();
        let row = match placed {
            Placed::Number(number) => rows.find(|row| row.order_number() == Some(number)),
            Placed::StockChanged(number) => rows.find(|row| row.number == number),
            Placed::Refused(_) => panic!("nothing is refused in this world"),
        };
        let row = row.expect("it is in the journal");
        assert_eq!(row.entry, order, "the order's own number");
        let number = row.number;
        assert!(self.held(id) > number, "the leader holds it");
        self.acknowledged = self.acknowledged.max(number.next());
        self.answers += 1;
        self.check_in_sync();
    }

    fn announced(&mut self, id: ReplicaId, ticket: Ticket, answer: Result<Status, Refused>) {
        let Caller::Gateway = self.caller(id, ticket) else {
            panic!("no gateway")
        };
        if let Ok(status) = answer {
            let disk = self.machines[&id].disk.durable();
            assert!(
                disk.term.epoch > Epoch(0) && status.end.rows <= disk.end.rows,
                "what it says is durable"
            );
        }
    }

    fn appended(&mut self, id: ReplicaId, ticket: Ticket, answer: Result<LedgerEnd, Refused>) {
        let Caller::Leader { run, call } = self.caller(id, ticket) else {
            panic!("no leader")
        };
        let result = answer.map_err(|refused| match refused {
            Refused::Stale { .. } => CallFailure::Fenced,
            Refused::StoreFailed => CallFailure::Failed,
            other => panic!("not in this world: {other}"),
        });
        if let Ok(end) = result {
            let disk = &self.machines[&id].disk;
            let rows: Vec<Row> = disk.rows.iter().cloned().chain(disk.continuing()).collect();
            let held = rows.get(..end.rows.0 as usize);
            assert_eq!(held.map(bench::end), Some(end), "it holds what it says");
        }
        self.network.push(Packet::Event {
            to: run,
            event: Event::Appended {
                call,
                peer: id,
                result,
            },
        });
    }

    /// Whoever the catalog believes in sync holds all that was acknowledged.
    fn check_in_sync(&self) {
        for member in &self.in_sync {
            let held = self.held(*member);
            assert!(
                held >= self.acknowledged,
                "{member} holds {held}, acknowledged are {}",
                self.acknowledged
            );
        }
    }

    /// How many rows of the journal a disk holds, as a ledger or beside it.
    fn held(&self, id: ReplicaId) -> RowNumber {
        let disk = &self.machines[&id].disk;
        let beyond = &self.journal[disk.rows.len()..];
        let kept = beyond.iter().take_while(|row| disk.kept.contains(row));
        RowNumber((disk.rows.len() + kept.count()) as u64)
    }

    pub fn head(&self) -> JournalHead {
        JournalHead {
            term: self.term,
            end: end(&self.journal),
        }
    }

    /// A disk gets round to what queues.
    pub fn save(&mut self, id: ReplicaId, fails: bool) {
        let machine = self.machines.get_mut(&id).unwrap();
        if machine.replica.is_none() || machine.saves.is_empty() {
            return;
        }
        let group = 1 + self.random.below(machine.saves.len() as u64) as usize;
        let mut saves = machine.saves.drain(..group);
        let first = saves.next().expect("at least one");
        let save = gather(first, || saves.next());
        drop(saves);
        let event = if fails {
            Event::StoreFailed(machine.disk.durable())
        } else {
            match machine.disk.save(&save) {
                Ok(durable) => Event::Stored(durable),
                Err(_) => Event::StoreFailed(machine.disk.durable()),
            }
        };
        assert!(
            self.journal.starts_with(&machine.disk.rows),
            "a ledger is a prefix of the journal"
        );
        self.step(id, Some(event));
    }

    /// A disk gets round to everything that queues.
    pub fn save_all(&mut self, id: ReplicaId) {
        while !self.machines[&id].saves.is_empty() {
            self.save(id, false);
        }
    }

    pub fn pass(&mut self, millis: u64) {
        self.now = self.now + Duration::from_millis(millis);
        let now = self.now;
        let due = |machine: &&Machine| {
            machine
                .replica
                .as_ref()
                .and_then(Replica::wake)
                .is_some_and(|wake| wake <= now)
        };
        let due: Vec<ReplicaId> = self
            .machines
            .values()
            .filter(due)
            .map(|machine| machine.run.id)
            .collect();
        for id in due {
            self.step(id, None);
        }
    }

    /// The catalog's disk gets round to what was proposed.
    pub fn commit(&mut self) {
        let Some(Committing { rows, answer }) = self.committing.take() else {
            return;
        };
        self.journal.extend(rows);
        self.network.push(answer);
        self.commits += 1;
    }

    /// The catalog crashes, or its disk is full: what was proposed came to nothing.
    pub fn fail_to_commit(&mut self) {
        let Some(Committing { answer, .. }) = self.committing.take() else {
            return;
        };
        if let Packet::Event { to, event } = answer
            && let Some(event) = network::failed(event)
        {
            self.network.push(Packet::Event { to, event });
        }
        self.failures += 1;
        let leader = self.term.leader.expect("somebody proposed");
        self.elect(leader);
    }

    pub fn elect(&mut self, leader: ReplicaId) {
        self.commit();
        self.term = Term {
            epoch: self.term.epoch.next(),
            leader: Some(leader),
        };
        self.change = ChangeNumber::default();
        let term = self.term;
        self.network.extend(
            self.machines
                .keys()
                .map(|&to| Packet::Announce { to, term }),
        );
    }

    pub fn place(&mut self, id: ReplicaId) {
        let order = entry(self.random.below(KEYS));
        let caller = Caller::Client {
            order: order.clone(),
        };
        self.ask(id, caller, |ticket| Event::Place { ticket, order });
    }
}
