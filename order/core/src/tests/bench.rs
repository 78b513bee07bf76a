//! One replica on a bench: the test plays its disk, the catalog and the peers.

use domain::Role;
use std::collections::BTreeSet;

use domain::LedgerEnd;
use domain::time::BootTime;
use domain::{
    Entry, Epoch, IdempotencyKey, Note, Order, OrderNumber, Price, Quantity, ReplicaId, Row,
    RowNumber, Side, StockChange, StockChangeKind, StockName,
};

use crate::durable::{Save, gather};
use crate::memory::Memory;
use crate::message::*;
use crate::{Command, Event, Replica};
use domain::{CatalogRun, ChangeNumber, JournalHead, Term};

pub fn id(id: u32) -> ReplicaId {
    ReplicaId::new(id).unwrap()
}

pub fn ids(ids: &[u32]) -> BTreeSet<ReplicaId> {
    ids.iter().map(|&id| self::id(id)).collect()
}

pub fn term(epoch: u64, leader: u32) -> Term {
    Term {
        epoch: Epoch(epoch),
        leader: ReplicaId::new(leader),
    }
}

/// A change of the stock that [`order`]s are for.
pub fn stock_change(key: &str) -> StockChange {
    StockChange {
        key: IdempotencyKey::new(key).unwrap(),
        name: StockName::new("nvidia").unwrap(),
        kind: StockChangeKind::Restock {
            quantity: Quantity::new(1).unwrap(),
        },
        note: Note::new("somebody", "because"),
    }
}

pub fn order(key: &str) -> Order {
    Order {
        key: IdempotencyKey::new(key).unwrap(),
        name: StockName::new("nvidia").unwrap(),
        side: Side::Sell,
        quantity: Quantity::new(1).unwrap(),
    }
}

/// Adds the row of an order at the end of a journal.
pub fn commit(journal: &mut Vec<Row>, epoch: Epoch, entry: impl Into<Entry>) -> Row {
    let price = Price::from_minor(100).unwrap();
    journal.push(Row::following(&end(journal), epoch, entry, price));
    journal[journal.len() - 1].clone()
}

pub fn end(rows: &[Row]) -> LedgerEnd {
    rows.last().map(LedgerEnd::of).unwrap_or_default()
}

/// A journal of so many rows of epoch 1.
pub fn journal(rows: usize) -> Vec<Row> {
    let mut journal = Vec::new();
    for number in 0..rows {
        commit(&mut journal, Epoch(1), order(&format!("key-{number}")));
    }
    journal
}

/// Replica 1 of 3, and what it has asked for.
pub struct Bench {
    pub replica: Replica,
    pub now: BootTime,
    pub disk: Memory,
    pub commands: Vec<Command>,
    /// The last change of the in-sync set that was asked for.
    pub last_change: (Epoch, ChangeNumber),
    tickets: u64,
}

impl Bench {
    /// Starts with this on disk.
    pub fn new(term: Term, rows: &[Row]) -> Self {
        Self::on(Memory::holding(term, rows.to_vec()))
    }

    /// Starts on this disk.
    pub fn on(mut disk: Memory) -> Self {
        let now = BootTime::from_millis(1_000_000);
        let replica = Replica::new(id(1), vec![id(2), id(3)], disk.reopen(), now);
        let mut bench = Self {
            replica,
            now,
            disk,
            commands: Vec::new(),
            last_change: Default::default(),
            tickets: 0,
        };
        bench.step([]);
        bench
    }

    /// Has caught up with a journal.
    pub fn follower(term: Term, rows: &[Row]) -> Self {
        let mut bench = Self::new(term, rows);
        bench.fetched(Ok(vec![]));
        bench.joined();
        bench.commands.clear();
        bench
    }

    /// Leads epoch 5 alone with this on disk; the first calls to the followers are under way.
    pub fn leader(rows: &[Row]) -> Self {
        let mut bench = Self::follower(term(4, 2), rows);
        bench.announce(5, 1);
        bench.store();
        bench.fetched(Ok(vec![]));
        let (call, epoch, in_sync) = bench.set_in_sync();
        assert_eq!((epoch, in_sync), (Epoch(5), ids(&[1])));
        bench.step([Event::InSyncSet {
            call,
            result: Ok(head(5, 1, rows)),
        }]);
        assert_eq!(bench.replica.status().role, Role::Leader);
        bench
            .commands
            .retain(|command| matches!(command, Command::Append { .. }));
        bench
    }

    /// Leads with replica 2 in sync, which the catalog has confirmed. Replica 3 is dead.
    pub fn leader_with_follower(rows: &[Row]) -> Self {
        let mut bench = Self::leader(rows);
        bench.appended(2, Ok(end(rows)));
        let (call, _, in_sync) = bench.set_in_sync();
        assert_eq!(in_sync, ids(&[1, 2]));
        bench.step([Event::InSyncSet {
            call,
            result: Ok(head(5, 1, rows)),
        }]);
        bench.appended(3, Err(CallFailure::Failed));
        bench.commands.clear();
        bench
    }

    pub fn step<const N: usize>(&mut self, events: [Event; N]) {
        let commands = self.replica.step(self.now, events);
        self.commands.extend(commands);
    }

    pub fn pass(&mut self, millis: u64) {
        self.now = self.now + std::time::Duration::from_millis(millis);
        self.step([]);
    }

    /// Until the replica wants to be woken, which must be soon.
    pub fn pass_until_woken(&mut self) {
        let wake = self.replica.wake().expect("it is to be woken");
        assert!(wake <= self.now + std::time::Duration::from_millis(10));
        self.now = wake;
        self.step([]);
    }

    /// Takes out the first command that the closure wants.
    pub fn take<T>(&mut self, wanted: impl Fn(&Command) -> Option<T>) -> T {
        let found = self.find(wanted);
        found.unwrap_or_else(|| panic!("not asked for; instead: {:#?}", self.commands))
    }

    pub fn find<T>(&mut self, wanted: impl Fn(&Command) -> Option<T>) -> Option<T> {
        let (index, found) = self
            .commands
            .iter()
            .enumerate()
            .find_map(|(i, command)| Some((i, wanted(command)?)))?;
        self.commands.remove(index);
        Some(found)
    }

    /// Makes everything durable that was to be saved, and says so.
    pub fn store(&mut self) {
        while let Some(save) = self.next_save() {
            self.disk.save(&save).unwrap();
        }
        self.step([Event::Stored(self.disk.durable())]);
    }

    /// The same in one transaction.
    pub fn store_together(&mut self) {
        let first = self.next_save().expect("there is something to be saved");
        let save = gather(first, || self.next_save());
        self.disk.save(&save).unwrap();
        self.step([Event::Stored(self.disk.durable())]);
    }

    fn next_save(&mut self) -> Option<Save> {
        self.find(|command| match command {
            Command::Save(save) => Some(save.clone()),
            _ => None,
        })
    }

    /// Loses what was to be saved, and says so.
    pub fn fail_to_store(&mut self) {
        self.commands
            .retain(|command| !matches!(command, Command::Save(_)));
        self.step([Event::StoreFailed(self.disk.durable())]);
    }

    pub fn place(&mut self, key: &str) -> Ticket {
        self.place_entry(order(key))
    }

    pub fn place_entry(&mut self, entry: impl Into<Entry>) -> Ticket {
        let ticket = self.ticket();
        let order = entry.into();
        self.step([Event::Place { ticket, order }]);
        ticket
    }

    pub fn place_many(&mut self, orders: usize) {
        let place = |n| Event::Place {
            ticket: self.ticket(),
            order: order(&format!("one of many-{n}")).into(),
        };
        let events: Vec<_> = (0..orders).map(place).collect();
        let commands = self.replica.step(self.now, events);
        self.commands.extend(commands);
    }

    /// The catalog says that an epoch has begun, which whoever runs a core asks before the core is
    /// told of one by anybody else.
    pub fn begun(&mut self, epoch: u64, leader: u32) {
        if Epoch(epoch) > self.replica.status().term.epoch {
            let held = self.replica.status().end;
            let term = term(epoch, leader);
            self.heard(Some(JournalHead { term, end: held }), held);
        }
    }

    /// The catalog answers as it was when this replica last heard of it.
    pub fn joined(&mut self) {
        let Status { term, end, .. } = self.replica.status();
        self.heard(Some(JournalHead { term, end }), end);
    }

    /// The catalog has started, and is to be reported to. Returns what it is told.
    pub fn catalog_starts(&mut self, run: u64) -> (LedgerEnd, Term) {
        let run = CatalogRun::new(run).unwrap();
        self.step([Event::CatalogHeals(run)]);
        self.take(|command| match command {
            Command::ReportLedger {
                run: to,
                end,
                term,
                peers,
            } => {
                assert_eq!((*to, &peers[..]), (run, &[id(2), id(3)][..]));
                Some((*end, *term))
            }
            _ => None,
        })
    }

    /// The catalog's answer, asked when the ledger ended there.
    pub fn heard(&mut self, head: Option<JournalHead>, held: LedgerEnd) {
        self.step([Event::JournalHead { head, held }]);
    }

    pub fn announce(&mut self, epoch: u64, leader: u32) -> Ticket {
        self.begun(epoch, leader);
        self.announce_unconfirmed(epoch, leader)
    }

    /// By somebody whom the catalog does not confirm.
    pub fn announce_unconfirmed(&mut self, epoch: u64, leader: u32) -> Ticket {
        let ticket = self.ticket();
        self.step([Event::Announce {
            ticket,
            epoch: Epoch(epoch),
            leader: id(leader),
        }]);
        ticket
    }

    /// Rows that are committed.
    pub fn append(&mut self, epoch: u64, leader: u32, rows: &[Row]) -> Ticket {
        let committed = rows.last().map_or(0, |last| last.number.0 + 1);
        self.append_proposed(epoch, leader, rows, committed)
    }

    /// Rows of which those below `committed` are.
    pub fn append_proposed(
        &mut self,
        epoch: u64,
        leader: u32,
        rows: &[Row],
        committed: u64,
    ) -> Ticket {
        self.begun(epoch, leader);
        let ticket = self.ticket();
        self.step([Event::Append {
            ticket,
            epoch: Epoch(epoch),
            leader: id(leader),
            rows: rows.to_vec(),
            committed: RowNumber(committed),
        }]);
        ticket
    }

    fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    pub fn trade(&mut self) -> (CallId, Vec<Entry>) {
        self.take(|command| match command {
            Command::Trade { call, orders, .. } => Some((*call, orders.clone())),
            _ => None,
        })
    }

    /// The catalog commits a batch.
    pub fn traded(&mut self, call: CallId, rows: &[Row]) {
        let outcomes = rows.iter().cloned().map(Outcome::Row).collect();
        self.step([Event::Traded {
            call,
            result: Ok(outcomes),
        }]);
    }

    pub fn set_in_sync(&mut self) -> (CallId, Epoch, BTreeSet<ReplicaId>) {
        let (call, epoch, change, in_sync) = self.take(|command| match command {
            Command::SetInSync {
                call,
                epoch,
                change,
                in_sync,
            } => Some((*call, *epoch, *change, in_sync.clone())),
            _ => None,
        });
        assert!((epoch, change) > self.last_change, "the numbers rise");
        self.last_change = (epoch, change);
        (call, epoch, in_sync)
    }

    pub fn fetch(&mut self) -> (CallId, Source, RowNumber) {
        self.take(|command| match command {
            Command::Fetch {
                call, source, from, ..
            } => Some((*call, *source, *from)),
            _ => None,
        })
    }

    /// Answers the fetch that was asked for.
    pub fn fetched(&mut self, result: Result<Vec<Row>, CallFailure>) -> Source {
        let (call, source, _) = self.fetch();
        self.step([Event::Fetched { call, result }]);
        source
    }

    pub fn shipment(&mut self, peer: u32) -> (CallId, Shipment) {
        self.take(|command| match command {
            Command::Append {
                call,
                peer: to,
                shipment,
                ..
            } if *to == id(peer) => Some((*call, shipment.clone())),
            _ => None,
        })
    }

    /// Answers the call that was made to a follower.
    pub fn appended(&mut self, peer: u32, result: Result<LedgerEnd, CallFailure>) -> Shipment {
        let (call, shipment) = self.shipment(peer);
        self.step([Event::Appended {
            call,
            peer: id(peer),
            result,
        }]);
        shipment
    }

    pub fn placed(&mut self, wanted: Ticket) -> Option<Result<Placed, Unavailable>> {
        self.find(|command| match command {
            Command::AnswerPlace { ticket, answer } if *ticket == wanted => Some(*answer),
            _ => None,
        })
    }

    pub fn announced(&mut self, wanted: Ticket) -> Option<Result<Status, Refused>> {
        self.find(|command| match command {
            Command::AnswerAnnounce { ticket, answer } if *ticket == wanted => Some(*answer),
            _ => None,
        })
    }

    pub fn append_answer(&mut self, wanted: Ticket) -> Option<Result<LedgerEnd, Refused>> {
        self.find(|command| match command {
            Command::AnswerAppend { ticket, answer } if *ticket == wanted => Some(*answer),
            _ => None,
        })
    }

    pub fn reported(&mut self, wanted: Report) -> bool {
        self.find(|command| (*command == Command::Report(wanted)).then_some(()))
            .is_some()
    }

    /// Why it is to end, where it is.
    pub fn failed(&mut self) -> Option<Failure> {
        self.find(|command| match command {
            Command::Fail(failure) => Some(*failure),
            _ => None,
        })
    }

    pub fn role(&self) -> Role {
        self.replica.status().role
    }
}

pub fn head(epoch: u64, leader: u32, rows: &[Row]) -> JournalHead {
    JournalHead {
        term: term(epoch, leader),
        end: end(rows),
    }
}

pub fn number(number: u64) -> Result<Placed, Unavailable> {
    Ok(Placed::Number(OrderNumber(number)))
}
