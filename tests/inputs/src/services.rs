//! gRPC messages, as whoever reaches a service's port may send them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use catalog::stocks::Listing;
use catalog_core::self_healing::{EPOCH_MAX, Found};
use catalog_core::{
    Batch, CatalogState, HealingStep, Limits, PriorOutcome, SelfHealing, Stock, TradeResult,
};
use domain::ChangeNumber;
use domain::JournalHead;
use domain::LedgerEnd;
use domain::time::BootTime;
use domain::{CatalogRun, Entry, Epoch, ReplicaId, Row, Side, StockChangeKind, StockName};
use order_core::durable::Save;
use order_core::memory::Memory;
use order_core::message::Ticket;
use order_core::{Command, Event, Replica};
use prost::Message;
use wire::catalog::v1;
use wire::order::v1 as order_v1;

/// Messages of one run.
const MESSAGES_MAX: usize = 64;

/// Takes bytes apart: each message is its kind, its length, and so many bytes.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (&[kind, high, low], rest) = bytes.split_first_chunk()?;
        let length = usize::from(u16::from_be_bytes([high, low])).min(rest.len());
        let (message, rest) = rest.split_at(length);
        bytes = rest;
        Some((kind, message))
    })
    .take(MESSAGES_MAX)
}

/// The opposite, for a corpus.
pub fn join(messages: &[(u8, Vec<u8>)]) -> Vec<u8> {
    messages
        .iter()
        .flat_map(|(kind, message)| {
            let length = u16::try_from(message.len()).expect("a corpus has short messages");
            [&[*kind][..], &length.to_be_bytes(), message].concat()
        })
        .collect()
}

/// Messages to the catalog: converted, and put to its state. Whatever they say, shares neither
/// appear nor vanish, every key has one row, and at one moment no more tokens are taken than a bucket holds.
pub fn check_catalog(bytes: &[u8]) {
    let stocks = catalog::stocks::built_in();
    let first = |listing: Listing| Stock::first(listing.name, listing.price, listing.quantity);
    let stocks = stocks.into_iter().map(first);
    let mut state = CatalogState::new(stocks, LedgerEnd::default(), catalog_core::Term::default());
    let mut journal: Vec<Row> = Vec::new();
    let mut taken = Taken::default();
    let found = Found::default();
    let mut healing = SelfHealing::new(found, BootTime::default());
    for (kind, message) in messages(bytes) {
        let batch = match kind % 6 {
            3 => {
                taken.take(message);
                None
            }
            4 => {
                report(&mut healing, &journal, message);
                None
            }
            5 => put_back(&mut healing, &state, &journal, message),
            kind => stage(&state, &journal, kind, message),
        };
        if let Some(batch) = batch {
            journal.extend(batch.rows.iter().cloned());
            state.apply(batch);
        }
        // Whatever was said, there is something to be done next.
        healing.next(BootTime::now());
        if let Some(term) = healing.term() {
            assert!(term.epoch <= EPOCH_MAX, "there is an epoch after it");
        }
    }
    let mut keys = BTreeSet::new();
    let mut end = LedgerEnd::default();
    for row in &journal {
        assert!(end.is_continued_by(row), "the journal is a chain");
        end = LedgerEnd::of(row);
        assert!(keys.insert(row.entry.key().clone()), "a key has one row");
    }
    let listed = catalog::stocks::built_in().into_iter();
    let mut expected: BTreeMap<StockName, i128> = listed
        .map(|listing| (listing.name, i128::from(listing.quantity)))
        .collect();
    for row in &journal {
        let quantity = expected.get_mut(row.entry.name());
        match &row.entry {
            Entry::Order(order) => {
                let shares = i128::from(order.quantity.get());
                *quantity.expect("what is traded is listed") += match order.side {
                    Side::Buy => -shares,
                    Side::Sell => shares,
                };
            }
            Entry::StockChange(change) => match change.kind {
                StockChangeKind::Add { quantity, .. } => {
                    let before = expected.insert(change.name.clone(), quantity.into());
                    assert_eq!(before, None, "{} is listed twice", change.name);
                }
                StockChangeKind::Restock { quantity: more } => {
                    *quantity.expect("it is listed") += i128::from(more.get());
                }
                StockChangeKind::Price { price } => assert_eq!(price, row.price),
                StockChangeKind::Delist => {
                    expected.remove(&change.name).expect("it is listed");
                }
            },
        }
    }
    let found = state.stocks();
    let found = found.map(|stock| (stock.name.clone(), i128::from(stock.quantity)));
    assert_eq!(found.collect::<BTreeMap<_, _>>(), expected);
}

/// A replica's report.
fn report(healing: &mut SelfHealing, journal: &[Row], message: &[u8]) -> Option<()> {
    let request = v1::ReportLedgerRequest::decode(message).ok()?;
    let report = catalog::service::report_from_wire(request).ok()?;
    let rows = usize::try_from(report.end.rows.0).ok()?;
    let there = match rows.checked_sub(1) {
        None => Some(domain::ChainHash::EMPTY),
        Some(last) => journal.get(last).map(|row| row.chain),
    };
    healing.heard(report, there).ok()
}

/// Rows that a replica shows, none of which has a key that is known.
fn put_back(
    healing: &mut SelfHealing,
    state: &CatalogState,
    journal: &[Row],
    message: &[u8],
) -> Option<Batch> {
    let HealingStep::PutBack { .. } = healing.next(BootTime::now()) else {
        return None; // nobody is asked for any
    };
    let request = v1::PutBackRequest::decode(message).ok()?;
    let mut rows = healing.completed(wire::rows(request.rows).ok()?);
    let mut keys: BTreeSet<_> = journal.iter().map(|row| row.entry.key().clone()).collect();
    let new = rows
        .iter()
        .take_while(|row| keys.insert(row.entry.key().clone()));
    let new = new.count();
    rows.truncate(new);
    let batch = healing.batch(state, rows).ok()?;
    healing.committed(&batch);
    Some(batch)
}

/// What is taken out of buckets at one moment.
#[derive(Default)]
struct Taken {
    limits: Limits,
    /// By key: how long it takes until what was taken is back, and all that any such bucket holds.
    of_key: BTreeMap<u128, (Duration, Duration)>,
}

impl Taken {
    fn take(&mut self, message: &[u8]) -> Option<()> {
        let request = v1::TakeRequest::decode(message).ok()?;
        for (_, take) in catalog::takes::from_wire(&request).ok()? {
            let now = BootTime::from_millis(1_000_000);
            let (taken, held_max) = self.of_key.entry(take.key).or_default();
            *held_max = take.rate.time_of(take.rate.burst()).max(*held_max);
            if self.limits.take(&take, now).is_ok() {
                *taken += take.rate.time_of(take.cost);
            }
            assert!(*taken <= *held_max, "{take:?}: {taken:?}");
        }
        Some(())
    }
}

fn stage(state: &CatalogState, journal: &[Row], kind: u8, message: &[u8]) -> Option<Batch> {
    let mut staged = state.stage();
    match kind {
        0 => {
            let request = v1::TradeRequest::decode(message).ok()?;
            let (epoch, orders) = catalog::service::trade_from_wire(request).ok()?;
            for order in orders {
                let known = journal.iter().find(|row| row.entry.key() == order.key());
                let result = staged
                    .trade(epoch, order.clone(), known.cloned().map(PriorOutcome::Row))
                    .ok()?;
                if let TradeResult::Row(row) = result {
                    assert!(row.entry.is_same_as(&order), "an order's row is its own");
                }
            }
        }
        1 => {
            let request = v1::ElectRequest::decode(message).ok()?;
            let candidate = ReplicaId::new(request.candidate)?;
            staged.elect(Epoch(request.expected_epoch), candidate);
        }
        _ => {
            let request = v1::SetInSyncRequest::decode(message).ok()?;
            let change = ChangeNumber::new(request.change).ok()?;
            let in_sync = request.in_sync.into_iter().filter_map(ReplicaId::new);
            let epoch = Epoch(request.epoch);
            staged.set_in_sync(epoch, change, in_sync.collect()).ok()?;
        }
    }
    Some(staged.into_batch())
}

/// Messages to a replica, and answers to what it asks: converted, and put to its core. Whatever
/// they say, what it saves continues its ledger.
pub fn check_order(bytes: &[u8]) {
    let id = |id| ReplicaId::new(id).expect("it is not 0");
    let mut now = BootTime::now();
    let mut replica = Replica::new(id(1), vec![id(2), id(3)], Default::default(), now);
    let mut disk = Memory::default();
    let mut calls = Vec::new();
    // A catalog is there.
    let nothing = JournalHead {
        term: Default::default(),
        end: LedgerEnd::default(),
    };
    let (head, held) = (Some(nothing), LedgerEnd::default());
    replica.step(now, [Event::JournalHead { head, held }]);
    for (ticket, (kind, message)) in (0..).map(Ticket).zip(messages(bytes)) {
        now = now + Duration::from_millis(u64::from(kind) * 8);
        let held = disk.durable().end;
        let event = event(ticket, kind, message, held, &mut calls);
        let mut events = Vec::from_iter(event);
        // What is saved is durable at once, which may make it do more.
        while !events.is_empty() {
            let commands = replica.step(now, events.drain(..));
            for command in commands {
                match command {
                    Command::Save(to_save) => events.push(save(&mut disk, to_save)),
                    Command::Fetch { call, .. } => calls.push(call),
                    _ => {}
                }
            }
        }
    }
}

fn event(
    ticket: Ticket,
    kind: u8,
    message: &[u8],
    held: LedgerEnd,
    calls: &mut Vec<order_core::message::CallId>,
) -> Option<Event> {
    match kind % 6 {
        0 => {
            let request = order_v1::place_many_request::Placement::decode(message).ok()?;
            let order = Entry::try_from(request.order?).ok()?;
            Some(Event::Place { ticket, order })
        }
        1 => {
            let request = order_v1::AnnounceRequest::decode(message).ok()?;
            let (epoch, leader) = wire::leadership::term(request.epoch, request.leader).ok()?;
            Some(Event::Announce {
                ticket,
                epoch,
                leader,
            })
        }
        2 => {
            let request = order_v1::AppendRequest::decode(message).ok()?;
            let (epoch, leader) = wire::leadership::term(request.epoch, request.leader).ok()?;
            Some(Event::Append {
                ticket,
                epoch,
                leader,
                rows: wire::rows(request.rows).ok()?,
                committed: wire::row_number(request.committed).ok()?,
            })
        }
        3 => {
            let leadership = v1::Leadership::decode(message).ok()?;
            let head: JournalHead = wire::leadership::head(&leadership).ok()?;
            let head = Some(head);
            Some(Event::JournalHead { head, held })
        }
        4 => {
            let leadership = v1::Leadership::decode(message).ok()?;
            CatalogRun::new(leadership.run).map(Event::CatalogHeals)
        }
        _ => {
            let response = v1::ReadJournalResponse::decode(message).ok()?;
            Some(Event::Fetched {
                call: calls.pop()?,
                result: Ok(wire::rows(response.rows).ok()?),
            })
        }
    }
}

/// A disk that never fails, and checks what it is given.
fn save(disk: &mut Memory, save: Save) -> Event {
    let mut rows = save.rows.iter().chain(&save.proposed);
    assert!(
        rows.all(|row| row.number.0 < i64::MAX as u64),
        "SQLite can hold it"
    );
    if let Some(term) = save.term {
        assert!(term.epoch >= disk.term.epoch, "epochs rise");
    }
    let saved = disk.save(&save);
    Event::Stored(saved.expect("what is saved continues what is there"))
}
