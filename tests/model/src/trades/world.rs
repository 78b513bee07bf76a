//! The catalog, the replicas with their disks, and what is on its way between them.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use catalog_core::self_healing::LedgerReport;
use catalog_core::{Batch, CatalogState, RefusedOrder, Stock};
use domain::LedgerEnd;
use domain::time::BootTime;
use domain::{
    Entry, Epoch, IdempotencyKey, Note, Order, OrderNumber, Price, Quantity, ReplicaId, Role, Row,
    RowNumber, Side, StockChange, StockChangeKind, StockName,
};
use domain::{JournalHead, Term};
use order_core::asker::is_known;
use order_core::durable::Save;
use order_core::memory::Memory;
use order_core::message::{
    CallFailure, CallId, Outcome, Placed, Refused, Report, Source, Ticket, Unavailable,
};
use order_core::{Command, Durable, Event, Replica};

use super::bounds::{Action, Bounds};
use super::healing::{Healing, Older};
use super::network::Packet;

/// Shares at the start.
pub const SHARES: u64 = 1;

/// Longer than anything a replica waits for.
const LEAP: Duration = Duration::from_secs(3600);

/// Tickets of appends start here, those of orders are below.
const APPEND_TICKETS: u64 = 100;

/// Most attempts at an order.
const ATTEMPTS_MAX: u64 = 8;

#[derive(Debug, Clone, PartialEq)]
pub struct World {
    pub catalog: CatalogState,
    pub journal: Vec<Row>,
    /// Proposed, and not yet committed.
    pub committing: Option<Committing>,
    /// Whether the database may go back.
    may_roll_back: bool,
    /// The database before the first commit.
    pub older: Option<Box<Older>>,
    /// The catalog has started on that, and does not serve yet.
    pub healing: Option<Healing>,
    /// What the catalog remembers of orders that it refused.
    pub refused: Vec<RefusedOrder>,
    /// The terms so far, from epoch 1.
    pub terms: Vec<Term>,
    pub machines: Vec<Machine>,
    pub network: Vec<Packet>,
    pub answered: BTreeSet<Answered>,
    /// The epoch in which the catalog last removed a follower from the in-sync set.
    pub removed: Option<Epoch>,
    /// A follower was removed and taken back by one leader.
    pub taken_back: bool,
    pub spent: Spent,
    /// What should not have happened.
    pub broken: Option<&'static str>,
}

/// What has happened as often as it may, or less.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Spent {
    pub attempts: Vec<u8>,
    pub give_ups: u8,
    pub restarts: u8,
    pub disk_failures: u8,
    pub leaps: u8,
    pub polls: u8,
    pub losses: u8,
    pub rollbacks: u8,
    pub interrupts: u8,
}

/// An acknowledgement that a client got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Answered {
    pub order: usize,
    /// Of its row.
    pub number: RowNumber,
    /// As clients number it, where it is one.
    pub known_as: Option<OrderNumber>,
    pub epoch: Epoch,
}

/// A replica and its disk.
#[derive(Debug, Clone, PartialEq)]
pub struct Machine {
    pub replica: Replica,
    pub disk: Memory,
    pub saves: Vec<Save>,
    /// Leaders that wait for what they sent to be durable; `None` where they gave up.
    pub callers: BTreeMap<Ticket, Option<(ReplicaId, CallId)>>,
    pub leaps: u32,
}

impl Machine {
    fn new(id: ReplicaId, bounds: &Bounds) -> Self {
        let mut machine = Self {
            replica: start(id, bounds, Default::default(), 0),
            disk: Memory::default(),
            saves: Vec::new(),
            callers: BTreeMap::new(),
            leaps: 0,
        };
        // The journal is empty, and was asked: nothing else can come of it.
        for command in machine.replica.step(now(0), []) {
            let Command::Fetch { call, .. } = command else {
                panic!("it starts by asking the journal")
            };
            let event = Event::Fetched {
                call,
                result: Ok(Vec::new()),
            };
            machine.replica.step(now(0), [event]);
        }
        let nothing = Event::JournalHead {
            head: Some(JournalHead {
                term: Term::default(),
                end: LedgerEnd::default(),
            }),
            held: LedgerEnd::default(),
        };
        machine.replica.step(now(0), [nothing]);
        machine
    }

    pub fn id(&self) -> ReplicaId {
        self.replica.status().id
    }

    /// The last epoch that it need not be told of (again).
    pub fn heard(&self) -> Epoch {
        let known = self.replica.status().term.epoch;
        if self.saves.is_empty() {
            // Also where the disk failed to take the term.
            known.min(self.disk.term.epoch)
        } else {
            known
        }
    }

    pub fn leads(&self) -> bool {
        self.replica.status().role == Role::Leader
    }

    fn save(&mut self) -> Event {
        for save in self.saves.drain(..) {
            let saved = self.disk.save(&save);
            saved.expect("what is saved continues what is there");
        }
        Event::Stored(self.disk.durable())
    }

    /// How many rows of a journal the disk holds, as a ledger or beside it.
    pub fn held(&self, journal: &[Row]) -> RowNumber {
        let ledger = self.disk.rows.len();
        let beyond = journal.get(ledger..).unwrap_or_default();
        let kept = beyond.iter().take_while(|row| self.disk.kept.contains(row));
        RowNumber((ledger + kept.count()) as u64)
    }
}

/// A batch that goes to the catalog's disk.
#[derive(Debug, Clone, PartialEq)]
pub struct Committing {
    pub batch: Batch,
    /// Whose call it answers.
    pub to: ReplicaId,
    pub call: CallId,
    pub outcomes: Vec<Outcome>,
    /// The caller has not given up, nor crashed, since.
    pub awaited: bool,
}

impl World {
    pub fn new(bounds: &Bounds) -> Self {
        let stock = Stock::first(stock_name(), Price::from_minor(100).unwrap(), SHARES);
        let catalog = CatalogState::new([stock], LedgerEnd::default(), Default::default());
        let ids = (1..=bounds.replicas).map(|id| ReplicaId::new(id).unwrap());
        Self {
            catalog: catalog.under(bounds.catalog_rules()),
            journal: Vec::new(),
            committing: None,
            may_roll_back: bounds.rollbacks > 0,
            older: None,
            healing: None,
            refused: Vec::new(),
            terms: Vec::new(),
            machines: ids.map(|id| Machine::new(id, bounds)).collect(),
            network: Vec::new(),
            answered: BTreeSet::new(),
            removed: None,
            taken_back: false,
            spent: Spent {
                attempts: vec![0; bounds.attempts.len()],
                ..Spent::default()
            },
            broken: None,
        }
    }

    pub fn act(&mut self, bounds: &Bounds, action: Action) {
        match action {
            Action::Elect(candidate) => self.elect(candidate),
            Action::Announce(at, epoch) => {
                let leader = self.terms[epoch.0 as usize - 1].leader;
                self.confirm(at, epoch);
                let event = Event::Announce {
                    ticket: Ticket(0),
                    epoch,
                    leader: leader.expect("every epoch has a leader"),
                };
                self.step(at, Some(event));
            }
            Action::Place { order, at } => {
                let attempt = u64::from(self.spent.attempts[order]);
                self.spent.attempts[order] += 1;
                let event = Event::Place {
                    ticket: Ticket(order as u64 * ATTEMPTS_MAX + attempt),
                    order: the_order(order),
                };
                self.step(at, Some(event));
            }
            Action::Deliver(packet) => match self.network.swap_remove(packet) {
                Packet::Call {
                    from,
                    command,
                    awaited,
                } => self.call(bounds, from, command, awaited),
                Packet::Answer { to, event } => self.step(to, Some(event)),
            },
            Action::GiveUp { at, call } => {
                self.spent.give_ups += 1;
                let call = self.machine(at).replica.awaited()[call];
                let event = self.give_up(at, call);
                self.step(at, Some(event));
            }
            Action::Commit => self.commit(),
            Action::Lose => {
                self.spent.losses += 1;
                self.lose();
            }
            Action::Save(at) => {
                let stored = self.machine(at).save();
                self.step(at, Some(stored));
            }
            Action::FailToSave(at) => {
                self.spent.disk_failures += 1;
                let machine = self.machine(at);
                machine.saves.clear();
                let failed = Event::StoreFailed(machine.disk.durable());
                self.step(at, Some(failed));
            }
            Action::Restart(at) => {
                self.spent.restarts += 1;
                self.restart(at, bounds);
            }
            Action::Leap(at) => {
                self.spent.leaps += 1;
                self.machine(at).leaps += 1;
                self.step(at, None);
            }
            Action::Poll(at) => {
                self.spent.polls += 1;
                self.hear(at);
            }
            Action::RollBack => {
                self.spent.rollbacks += 1;
                self.roll_back();
            }
            Action::Tell(at) => self.tell(at),
            Action::Heal => self.heal(bounds),
            Action::Interrupt => {
                self.spent.interrupts += 1;
                let healing = self.healing.as_mut().expect("it heals");
                healing.forget();
            }
        }
        self.forget(bounds);
    }

    pub fn machine(&mut self, id: ReplicaId) -> &mut Machine {
        &mut self.machines[id.get() as usize - 1]
    }

    /// One more than the highest acknowledged number.
    pub fn acknowledged(&self) -> RowNumber {
        let numbers = self.answered.iter().map(|answered| answered.number.next());
        numbers.max().unwrap_or_default()
    }

    pub fn head(&self) -> JournalHead {
        JournalHead {
            term: self.terms.last().copied().unwrap_or_default(),
            end: end(&self.journal),
        }
    }

    /// The catalog tells a replica who leads.
    fn hear(&mut self, at: ReplicaId) {
        let held = self.machine(at).replica.status().end;
        let head = Some(self.head());
        self.step(at, Some(Event::JournalHead { head, held }));
    }

    /// Before a replica is told of an epoch that it does not know, it asks the catalog. The answer
    /// may as well have come at once: what it says of an epoch that has begun stays true. Whether it
    /// serves, and so may confirm it.
    fn confirm(&mut self, at: ReplicaId, epoch: Epoch) -> bool {
        let is_known = is_known(epoch, &self.machine(at).replica.status());
        if is_known {
            return true;
        }
        match self.healing {
            Some(_) => self.tell(at),
            None => self.hear(at),
        }
        self.healing.is_none()
    }

    /// Tells a replica something, and does what it wants done.
    pub fn step(&mut self, at: ReplicaId, event: Option<Event>) {
        let machine = self.machine(at);
        let now = now(machine.leaps);
        for command in machine.replica.step(now, event) {
            match command {
                Command::Save(save) => self.machine(at).saves.push(save),
                Command::AnswerPlace { ticket, answer } => self.placed(at, ticket, answer),
                Command::AnswerAnnounce { .. } => {}
                Command::AnswerAppend { ticket, answer } => {
                    let caller = self.machine(at).callers.remove(&ticket);
                    let caller = caller.expect("each caller is answered once");
                    self.appended(at, caller, answer);
                }
                Command::Fail(_)
                | Command::ReportMissing(_)
                | Command::Report(
                    Report::Broken { .. }
                    | Report::CatalogLostRows { .. }
                    | Report::FollowerDiverged { .. }
                    | Report::FollowerLostRows { .. },
                ) => self.broken = Some("a replica believes that a ledger is damaged"),
                Command::ReportLedger {
                    end, term, peers, ..
                } => self.reported(LedgerReport {
                    replica: at,
                    end,
                    last_epoch: Epoch(0),
                    beside: Vec::new(),
                    is_empty: false,
                    term,
                    peers: peers.into_iter().collect(),
                    lease_horizon: Duration::ZERO,
                }),
                // It is told when it polls.
                Command::AskCatalog | Command::Report(_) => {}
                call => self.send(at, call),
            }
        }
    }

    /// A leader's rows reach a follower.
    pub fn append(
        &mut self,
        at: ReplicaId,
        caller: (ReplicaId, CallId),
        epoch: Epoch,
        (rows, committed): (Vec<Row>, RowNumber),
    ) {
        if !self.confirm(at, epoch) {
            return self.appended(at, Some(caller), Err(Refused::LetGo { epoch }));
        }
        let callers = &mut self.machine(at).callers;
        let taken: HashSet<Ticket> = callers.keys().copied().collect();
        let ticket = (APPEND_TICKETS..)
            .map(Ticket)
            .find(|it| !taken.contains(it));
        let ticket = ticket.expect("numbers do not end");
        callers.insert(ticket, Some(caller));
        let event = Event::Append {
            ticket,
            epoch,
            leader: caller.0,
            rows,
            committed,
        };
        self.step(at, Some(event));
    }

    fn elect(&mut self, candidate: ReplicaId) {
        self.commit();
        let expected = Epoch(self.terms.len() as u64);
        let mut staged = self.catalog.stage();
        staged.elect(expected, candidate);
        let batch = staged.into_batch();
        self.begin(batch);
    }

    /// The catalog's disk makes durable what was proposed.
    pub fn commit(&mut self) {
        let Some(committing) = self.committing.take() else {
            return;
        };
        let batch = committing.batch.clone();
        if self.may_roll_back && self.older.is_none() && !batch.rows.is_empty() {
            self.copy();
        }
        self.refused.extend(batch.refused.iter().cloned());
        self.journal.extend(batch.rows.iter().cloned());
        self.catalog.apply(batch);
        self.traded(&committing, Ok(committing.outcomes.clone()));
    }

    /// The catalog crashes, or its disk fails it: what was proposed came to nothing.
    fn lose(&mut self) {
        let committing = self.committing.take().expect("something was proposed");
        self.traded(&committing, Err(CallFailure::Failed));
        let mut staged = self.catalog.stage();
        staged.begin_next_epoch();
        let batch = staged.into_batch();
        self.begin(batch);
    }

    fn traded(&mut self, committing: &Committing, result: Result<Vec<Outcome>, CallFailure>) {
        let Committing {
            to, call, awaited, ..
        } = *committing;
        if awaited {
            let event = Event::Traded { call, result };
            self.network.push(Packet::Answer { to, event });
        }
    }

    /// A term begins, where the batch has one.
    pub fn begin(&mut self, batch: Batch) {
        let term = batch.term.as_ref().map(|term| Term {
            epoch: term.epoch,
            leader: term.leader,
        });
        self.terms.extend(term);
        self.catalog.apply(batch);
    }

    fn restart(&mut self, at: ReplicaId, bounds: &Bounds) {
        self.cut_off(at);
        let machine = self.machine(at);
        machine.saves.clear();
        machine.replica = start(at, bounds, machine.disk.reopen(), machine.leaps);
        let callers = std::mem::take(&mut machine.callers);
        self.network
            .extend(callers.into_values().flatten().map(|(to, call)| {
                let event = Event::Appended {
                    call,
                    peer: at,
                    result: Err(CallFailure::Failed),
                };
                Packet::Answer { to, event }
            }));
        self.step(at, None);
    }

    fn placed(&mut self, at: ReplicaId, ticket: Ticket, answer: Result<Placed, Unavailable>) {
        let Ok(placed) = answer else { return };
        let order = (ticket.0 / ATTEMPTS_MAX) as usize;
        let mut rows = self.committed().iter();
        let row = match placed {
            Placed::Number(number) => rows.find(|row| row.order_number() == Some(number)),
            Placed::StockChanged(number) => rows.find(|row| row.number == number),
            Placed::Refused(_) => return,
        };
        let Some(row) = row.filter(|row| row.entry == the_order(order)) else {
            self.broken = Some("what was acknowledged is not in the journal");
            return;
        };
        let (number, known_as) = (row.number, row.order_number());
        if self.machines[at.get() as usize - 1].held(self.committed()) <= number {
            self.broken = Some("what was acknowledged is not on the leader's disk");
        }
        let epoch = self.machine(at).replica.status().term.epoch;
        self.answered.insert(Answered {
            order,
            number,
            known_as,
            epoch,
        });
    }

    /// The rows that a source has, as it answers a fetch.
    pub fn fetch(&self, source: Source, from: RowNumber, rows_max: usize) -> Vec<Row> {
        let rows = match source {
            Source::Journal => &self.journal,
            Source::Peer(peer) => &self.machines[peer.get() as usize - 1].disk.rows,
        };
        let skipped = rows.iter().skip(from.0 as usize);
        skipped.take(rows_max).cloned().collect()
    }
}

fn start(id: ReplicaId, bounds: &Bounds, found: (Durable, Vec<Row>), leaps: u32) -> Replica {
    let ids = (1..=bounds.replicas).filter_map(ReplicaId::new);
    let peers = ids.filter(|&peer| peer != id).collect();
    Replica::new(id, peers, found, now(leaps)).under(bounds.order_rules())
}

fn now(leaps: u32) -> BootTime {
    BootTime::from_millis(1_000_000) + LEAP * leaps
}

pub fn end(rows: &[Row]) -> LedgerEnd {
    rows.last().map(LedgerEnd::of).unwrap_or_default()
}

fn stock_name() -> StockName {
    StockName::new("nvidia").unwrap()
}

/// The first order sells a share; the second buys more than there are without it; the third changes the stock, and
/// is none that clients count.
fn the_order(index: usize) -> Entry {
    let key = IdempotencyKey::new(["a", "b", "c"][index]).unwrap();
    let name = stock_name();
    let quantity = Quantity::new([1, SHARES + 1, 1][index]).unwrap();
    let side = match index {
        0 => Side::Sell,
        1 => Side::Buy,
        _ => {
            return Entry::StockChange(StockChange {
                key,
                name,
                kind: StockChangeKind::Restock { quantity },
                note: Note::new("somebody", "because"),
            });
        }
    };
    Entry::Order(Order {
        key,
        name,
        side,
        quantity,
    })
}
