//! The world: what carries messages, keeps disks and commits trades.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use protocol::time::BootTime;
use protocol::{Epoch, Order, OrderNumber, ReplicaId, Row};
use storage::rows::End;

use super::{KEYS, REPLICAS, Random};
use crate::core::message::*;
use crate::core::tests::bench::{commit, end, id, order};
use crate::core::{Command, Durable, Event, Head, Replica, Term};
use crate::store::continuation;

/// One run of a replica, which ends with a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    pub id: ReplicaId,
    number: u64,
}

pub struct Machine {
    pub run: Run,
    /// `None` while it is down.
    pub replica: Option<Replica>,
    disk: Durable,
    pub rows: Vec<Row>,
    saves: VecDeque<(Option<Term>, Vec<Row>)>,
    callers: BTreeMap<Ticket, Caller>,
}

enum Caller {
    Client { order: Order },
    Gateway,
    Leader { run: Run, call: CallId },
}

#[derive(Debug)]
pub enum Packet {
    Call { from: Run, command: Command },
    Event { to: Run, event: Event },
    Announce { to: ReplicaId, term: Term },
}

pub struct World {
    pub random: Random,
    now: BootTime,
    pub term: Term,
    pub in_sync: BTreeSet<ReplicaId>,
    pub journal: Vec<Row>,
    pub machines: BTreeMap<ReplicaId, Machine>,
    pub network: Vec<Packet>,
    tickets: u64,
    /// One more than the highest acknowledged number.
    acknowledged: OrderNumber,
    pub answers: usize,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut world = Self {
            random: Random(seed),
            now: BootTime::from_millis(1_000_000),
            term: Term::default(),
            in_sync: BTreeSet::new(),
            journal: Vec::new(),
            machines: BTreeMap::new(),
            network: Vec::new(),
            tickets: 0,
            acknowledged: OrderNumber(0),
            answers: 0,
        };
        for number in 1..=REPLICAS {
            let run = Run {
                id: id(number),
                number: 0,
            };
            let (disk, rows) = (Durable::default(), Vec::new());
            let machine = Machine {
                run,
                replica: None,
                disk,
                rows,
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
        machine.replica = Some(Replica::new(id, peers, machine.disk, self.now));
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
                Command::Save { term, rows } => self
                    .machines
                    .get_mut(&id)
                    .unwrap()
                    .saves
                    .push_back((term, rows)),
                Command::AnswerPlace { ticket, answer } => self.placed(id, ticket, answer),
                Command::AnswerAnnounce { ticket, answer } => self.announced(id, ticket, answer),
                Command::AnswerAppend { ticket, answer } => self.appended(id, ticket, answer),
                Command::Report(
                    Report::Broken { .. }
                    | Report::FollowerDiverged { .. }
                    | Report::FollowerLostRows { .. },
                ) => {
                    panic!("nothing is damaged in this world: {command:?}")
                }
                Command::Report(_) => {}
                call => self.network.push(Packet::Call {
                    from,
                    command: call,
                }),
            }
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
        let Placed::Number(number) = placed else {
            panic!("nothing is refused in this world")
        };
        assert_eq!(
            self.journal[number.0 as usize].order, order,
            "the order's own number"
        );
        assert!(
            self.machines[&id].disk.end.rows > number,
            "the leader holds it"
        );
        self.acknowledged = self.acknowledged.max(number.next());
        self.answers += 1;
        self.check_in_sync();
    }

    fn announced(&mut self, id: ReplicaId, ticket: Ticket, answer: Result<Status, Refused>) {
        let Caller::Gateway = self.caller(id, ticket) else {
            panic!("no gateway")
        };
        if let Ok(status) = answer {
            let disk = self.machines[&id].disk;
            assert!(
                disk.term.epoch > Epoch(0) && status.end.rows <= disk.end.rows,
                "what it says is durable"
            );
        }
    }

    fn appended(&mut self, id: ReplicaId, ticket: Ticket, answer: Result<End, Refused>) {
        let Caller::Leader { run, call } = self.caller(id, ticket) else {
            panic!("no leader")
        };
        let result = answer.map_err(|refused| match refused {
            Refused::Stale { .. } => CallFailure::Fenced,
            Refused::StoreFailed => CallFailure::Failed,
            other => panic!("not in this world: {other}"),
        });
        if let Ok(end) = result {
            assert!(
                self.machines[&id].disk.end.rows >= end.rows,
                "it holds what it says"
            );
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
            let held = self.machines[member].disk.end.rows;
            assert!(
                held >= self.acknowledged,
                "{member} holds {held}, acknowledged are {}",
                self.acknowledged
            );
        }
    }

    pub fn head(&self) -> Head {
        Head {
            term: self.term,
            in_sync: self.in_sync.clone(),
            end: end(&self.journal),
        }
    }

    /// The catalog or a peer gets a call; the answer goes on its way.
    fn call(&mut self, from: Run, command: Command) {
        let event = match command {
            Command::Trade {
                call,
                epoch,
                orders,
            } => Event::Traded {
                call,
                result: self.trade(epoch, orders),
            },
            Command::SetInSync {
                call,
                epoch,
                in_sync,
            } if epoch == self.term.epoch => {
                self.in_sync = in_sync;
                self.check_in_sync();
                Event::InSyncSet {
                    call,
                    result: Ok(self.head()),
                }
            }
            Command::SetInSync { call, .. } => Event::InSyncSet {
                call,
                result: Err(CallFailure::Fenced),
            },
            Command::Fetch {
                call,
                source,
                from: first,
                rows_max,
            } => {
                let rows = match source {
                    Source::Journal => Some(&self.journal),
                    Source::Peer(peer) => Some(&self.machines[&peer])
                        .filter(|it| it.replica.is_some())
                        .map(|it| &it.rows),
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
            } => {
                let rows = match shipment {
                    Shipment::Rows(rows) => rows,
                    Shipment::Stored {
                        from: first,
                        rows_max,
                    } => self.machines[&from.id]
                        .rows
                        .iter()
                        .skip(first.0 as usize)
                        .take(rows_max)
                        .cloned()
                        .collect(),
                };
                let caller = Caller::Leader { run: from, call };
                return self.ask(peer, caller, |ticket| Event::Append {
                    ticket,
                    epoch,
                    leader: from.id,
                    rows,
                });
            }
            other => unreachable!("not a call: {other:?}"),
        };
        self.network.push(Packet::Event { to: from, event });
    }

    fn trade(&mut self, epoch: Epoch, orders: Vec<Order>) -> Result<Vec<Outcome>, CallFailure> {
        if epoch != self.term.epoch {
            return Err(CallFailure::Fenced);
        }
        let mut row = |order: Order| {
            let known = self
                .journal
                .iter()
                .find(|row| row.order.key == order.key)
                .cloned();
            known.unwrap_or_else(|| commit(&mut self.journal, epoch, order))
        };
        Ok(orders
            .into_iter()
            .map(|order| Outcome::Row(row(order)))
            .collect())
    }

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
                self.ask(to, Caller::Gateway, |ticket| Event::Announce {
                    ticket,
                    epoch,
                    leader,
                });
            }
        }
    }

    /// A message is lost: a caller gets no answer in time. A trade or rows may still arrive after
    /// their caller gave up. A change of the in-sync set may not: the catalog could not tell it
    /// from a later one.
    pub fn lose(&mut self, index: usize) {
        let Packet::Call { from, command } = &self.network[index] else {
            let lost = self.network.swap_remove(index);
            if let Packet::Event { to, event } = lost
                && let Some(event) = failed(event)
            {
                self.network.push(Packet::Event { to, event });
            }
            return;
        };
        let (to, result) = (*from, CallFailure::Failed);
        let (event, may_arrive) = match *command {
            Command::Trade { call, .. } => (
                Event::Traded {
                    call,
                    result: Err(result),
                },
                true,
            ),
            Command::Append { call, peer, .. } => (
                Event::Appended {
                    call,
                    peer,
                    result: Err(result),
                },
                true,
            ),
            Command::SetInSync { call, .. } => (
                Event::InSyncSet {
                    call,
                    result: Err(result),
                },
                false,
            ),
            Command::Fetch { call, .. } => (
                Event::Fetched {
                    call,
                    result: Err(result),
                },
                false,
            ),
            _ => unreachable!("not a call"),
        };
        if !may_arrive || self.random.below(2) == 0 {
            self.network.swap_remove(index);
        }
        self.network.push(Packet::Event { to, event });
    }

    /// A disk gets round to what queues.
    pub fn save(&mut self, id: ReplicaId, fails: bool) {
        let machine = self.machines.get_mut(&id).unwrap();
        if machine.replica.is_none() || machine.saves.is_empty() {
            return;
        }
        let group = 1 + self.random.below(machine.saves.len() as u64) as usize;
        let saves: Vec<_> = machine.saves.drain(..group).collect();
        let rows: Vec<Row> = saves.iter().flat_map(|(_, rows)| rows.clone()).collect();
        let term = saves
            .iter()
            .rev()
            .find_map(|(term, _)| *term)
            .unwrap_or(machine.disk.term);
        let event = match continuation(machine.disk.end, &rows) {
            Ok((new, end)) if !fails => {
                machine.rows.extend(new.into_iter().cloned());
                machine.disk = Durable { term, end };
                assert!(
                    self.journal.starts_with(&machine.rows),
                    "a ledger is a prefix of the journal"
                );
                Event::Stored(machine.disk)
            }
            _ => Event::StoreFailed(machine.disk),
        };
        self.step(id, Some(event));
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

    pub fn elect(&mut self, leader: ReplicaId) {
        self.term = Term {
            epoch: self.term.epoch.next(),
            leader: Some(leader),
        };
        let term = self.term;
        self.network.extend(
            self.machines
                .keys()
                .map(|&to| Packet::Announce { to, term }),
        );
    }

    pub fn place(&mut self, id: ReplicaId) {
        let order = order(&format!("key-{}", self.random.below(KEYS)));
        let caller = Caller::Client {
            order: order.clone(),
        };
        self.ask(id, caller, |ticket| Event::Place { ticket, order });
    }
}

/// What the caller gets instead of an answer that is lost; `None` for what is no answer.
fn failed(event: Event) -> Option<Event> {
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
