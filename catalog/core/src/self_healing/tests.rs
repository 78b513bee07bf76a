use domain::{IdempotencyKey, Order, Price, Quantity, Side, Version};
use proptest::prelude::*;

use super::*;

const AT: fn(u64) -> BootTime = BootTime::from_millis;
const GIVES_UP_AT: BootTime = BootTime::from_millis(5_000);

fn id(id: u32) -> ReplicaId {
    ReplicaId::new(id).expect("an id")
}

fn ids(of: &[u32]) -> BTreeSet<ReplicaId> {
    of.iter().copied().map(id).collect()
}

fn term(epoch: u64, leader: u32, in_sync: &[u32]) -> Term {
    Term {
        epoch: Epoch(epoch),
        leader: Some(id(leader)),
        in_sync: ids(in_sync),
        change: ChangeNumber::NONE.next(),
    }
}

/// A catalog with one stock, after so many trades in one epoch.
fn traded(trades: usize) -> (CatalogState, Vec<Row>) {
    let stock = Stock {
        name: StockName::new("nvidia").expect("a name"),
        price: Price::from_minor(100).expect("a price"),
        quantity: 1_000,
        volume: 0,
        version: Version(1),
    };
    let mut state = CatalogState::new([stock], LedgerEnd::default(), term(3, 1, &[1, 2]));
    let mut rows = Vec::new();
    for number in 0..trades {
        rows.extend(trade(&mut state, number));
    }
    (state, rows)
}

fn trade(state: &mut CatalogState, number: usize) -> Vec<Row> {
    let order = Order {
        key: IdempotencyKey::new(&format!("key-{number}")).expect("a key"),
        name: StockName::new("nvidia").expect("a name"),
        side: Side::Buy,
        quantity: Quantity::new(1 + number as u64).expect("a quantity"),
    };
    let mut staged = state.stage();
    staged.trade(Epoch(3), order, None).expect("it is epoch 3");
    let batch = staged.into_batch();
    let rows = batch.rows.clone();
    state.apply(batch);
    rows
}

fn end(rows: &[Row]) -> LedgerEnd {
    rows.last().map(LedgerEnd::of).unwrap_or_default()
}

/// What a replica with these rows reports, whose newest set is that of a term.
fn report(replica: u32, rows: &[Row], of: &Term) -> LedgerReport {
    LedgerReport {
        replica: id(replica),
        end: end(rows),
        beside: Vec::new(),
        term: domain::Term {
            epoch: of.epoch,
            leader: of.leader,
        },
        in_sync: InSyncSet::of(of),
    }
}

/// The healing of a database with these rows and that term.
fn healing(rows: &[Row], term: &Term) -> SelfHealing {
    let found = Found {
        journal: end(rows),
        term: term.clone(),
        ..Found::default()
    };
    SelfHealing::new(found, GIVES_UP_AT)
}

/// Has a replica report to a catalog with such a journal.
fn hear(healing: &mut SelfHealing, journal: &[Row], report: LedgerReport) {
    let there = journal.get(..report.end.rows.0 as usize);
    let heard = healing.heard(report, there.map(|rows| end(rows).chain));
    heard.expect("it is a copy");
}

fn wait(pending: &[u32], until: Option<BootTime>) -> HealingStep {
    HealingStep::Wait {
        pending: ids(pending),
        until,
    }
}

fn serve(unheard: &[u32]) -> HealingStep {
    HealingStep::Serve {
        unheard: ids(unheard),
    }
}

#[test]
fn where_nothing_is_missing_the_in_sync_set_is_waited_for_and_no_longer() {
    let (_, rows) = traded(3);
    let term = term(3, 1, &[1, 2]);
    let mut healing = healing(&rows, &term);
    assert_eq!(healing.next(AT(0)), wait(&[1, 2], Some(GIVES_UP_AT)));
    hear(&mut healing, &rows, report(1, &rows, &term));
    hear(&mut healing, &rows, report(3, &rows[..1], &Term::default()));
    assert_eq!(healing.next(AT(4_999)), wait(&[2], Some(GIVES_UP_AT)));
    assert_eq!(healing.next(GIVES_UP_AT), serve(&[2]));
    hear(&mut healing, &rows, report(2, &rows[..2], &term));
    assert_eq!(healing.next(AT(0)), serve(&[]));
    assert_eq!(healing.term(), None);
}

#[test]
fn rows_that_the_database_lost_come_back_from_the_longest_ledger() {
    let (after, rows) = traded(5);
    let (mut state, _) = traded(2);
    let term = term(3, 1, &[1, 2]);
    let mut healing = healing(&rows[..2], &term);
    let longest = LedgerReport {
        beside: vec![rows[4].clone()],
        ..report(1, &rows[..4], &term)
    };
    hear(&mut healing, &rows[..2], longest);
    hear(&mut healing, &rows[..2], report(2, &rows[..3], &term));
    let from_ledger = HealingStep::PutBack { from: id(1) };
    let from_beside = HealingStep::PutBackProposed(rows[4..].to_vec());
    for (some, step) in [
        (&rows[2..3], &from_ledger),
        (&rows[3..4], &from_ledger),
        (&rows[4..], &from_beside),
    ] {
        assert_eq!(healing.next(AT(0)), *step);
        let batch = healing.batch(&state, some.to_vec());
        state.apply(batch.expect("they continue it"));
        healing.put_back(some.last().expect("rows"));
    }
    assert_eq!(healing.next(AT(0)), serve(&[]));
    assert_eq!(state, after, "stocks and all");
}

#[test]
fn where_rows_are_missing_all_are_waited_for_who_may_have_more_or_their_loss_is_accepted() {
    let (_, rows) = traded(3);
    let stored = term(3, 1, &[1, 2]);
    let mut healing = healing(&rows[..1], &stored);
    let newest = term(4, 3, &[3, 4]);
    hear(&mut healing, &rows[..1], report(2, &rows, &newest));
    assert_eq!(healing.next(AT(9_000)), wait(&[1, 3, 4], None));
    hear(&mut healing, &rows[..1], report(4, &rows, &newest));
    healing.accept_loss_of(id(1));
    assert_eq!(healing.next(AT(9_000)), wait(&[3], None));
    healing.accept_loss_of(id(3));
    let step = healing.next(AT(9_000));
    assert!(matches!(step, HealingStep::PutBack { .. }), "{step:?}");
    let goes_on = healing.term().expect("the database's is older");
    assert_eq!(goes_on, newest);
}

#[test]
fn a_set_or_an_epoch_that_the_database_does_not_know_is_a_sign_that_rows_are_missing() {
    let (_, rows) = traded(2);
    let stored = term(3, 1, &[1, 2]);
    let later_set = Term {
        change: stored.change.next(),
        in_sync: ids(&[1, 3]),
        ..stored.clone()
    };
    let later_epoch = domain::Term {
        epoch: Epoch(4),
        leader: Some(id(3)),
    };
    let with_set = report(2, &rows, &later_set);
    let with_epoch = LedgerReport {
        term: later_epoch,
        ..report(2, &rows, &stored)
    };
    for report in [with_set, with_epoch] {
        let mut healing = healing(&rows, &stored);
        hear(&mut healing, &rows, report.clone());
        assert_eq!(healing.next(AT(9_000)), wait(&[1, 3], None), "{report:?}");
    }
}

#[test]
fn in_another_incarnation_all_known_replicas_are_asked() {
    let (_, rows) = traded(2);
    let found = Found {
        journal: end(&rows),
        term: term(3, 1, &[1, 2]),
        replicas: ids(&[1, 2, 3]),
        may_lack_rows: true,
    };
    let healing = SelfHealing::new(found, GIVES_UP_AT);
    assert_eq!(healing.next(AT(0)), wait(&[1, 2, 3], Some(GIVES_UP_AT)));
}

#[test]
fn what_is_held_beside_ledgers_comes_back_where_it_may_have_been_acknowledged() {
    let (_, rows) = traded(3);
    let term = term(3, 1, &[1]);
    let (first, second) = (rows[1].clone(), rows[2].clone());
    let in_vain = Row::following(
        &rows[0].chain,
        first.number,
        Epoch(2),
        second.order.clone(),
        second.price,
    );
    for (may_lack_rows, expected) in [
        (
            true,
            HealingStep::PutBackProposed(vec![first.clone(), second.clone()]),
        ),
        (false, serve(&[])),
    ] {
        let found = Found {
            journal: end(&rows[..1]),
            term: term.clone(),
            may_lack_rows,
            ..Found::default()
        };
        let mut healing = SelfHealing::new(found, GIVES_UP_AT);
        let beside = |replica, beside: &[&Row]| LedgerReport {
            beside: beside.iter().copied().cloned().collect(),
            ..report(replica, &rows[..1], &term)
        };
        hear(&mut healing, &rows[..1], beside(1, &[&in_vain, &second]));
        hear(&mut healing, &rows[..1], beside(2, &[&first]));
        assert_eq!(healing.next(AT(0)), expected);
    }
}

#[test]
fn a_ledger_that_is_no_copy_stops_the_catalog() {
    let (state, rows) = traded(3);
    let term = term(3, 1, &[1, 2]);
    let other = Row::following(
        &rows[0].chain,
        rows[1].number,
        Epoch(3),
        rows[2].order.clone(),
        rows[2].price,
    );
    let forked = Forked {
        replica: id(2),
        rows: OrderNumber(2),
    };
    let strange = report(2, &[rows[0].clone(), other], &term);

    let mut longer = healing(&rows, &term);
    let heard = longer.heard(strange.clone(), Some(rows[1].chain));
    assert_eq!(heard, Err(forked));

    let (shorter, _) = traded(1);
    let mut healing = healing(&rows[..1], &term);
    hear(&mut healing, &rows[..1], report(1, &rows, &term));
    healing
        .heard(strange, None)
        .expect("the journal is shorter");
    let batch = healing.batch(&shorter, rows[1..].to_vec());
    assert_eq!(batch, Err(CannotPutBack::Forked(forked)));
    assert_eq!(state.leadership().end, end(&rows));
}

#[test]
fn rows_that_this_catalog_cannot_have_committed_are_not_put_back() {
    let (state, rows) = traded(1);
    let (_, other) = traded(3);
    let healing = healing(&rows, &term(3, 1, &[1]));
    let (number, before) = (OrderNumber(1), rows[0].chain);
    let altered = |order: Order, price| Row::following(&before, number, Epoch(3), order, price);
    let (order, price) = (other[1].order.clone(), other[1].price);
    let unknown = Order {
        name: StockName::new("meta").expect("a name"),
        ..order.clone()
    };
    let too_many = Order {
        quantity: Quantity::new(1_000).expect("a quantity"),
        ..order.clone()
    };
    let dear = Price::from_minor(101).expect("a price");
    for (row, why) in [
        (
            other[2].clone(),
            CannotPutBack::Discontinuous(OrderNumber(2)),
        ),
        (altered(unknown, price), CannotPutBack::UnknownStock(number)),
        (altered(order, dear), CannotPutBack::OtherPrice(number)),
        (altered(too_many, price), CannotPutBack::Impossible(number)),
    ] {
        assert_eq!(healing.batch(&state, vec![row]), Err(why));
    }
}

/// What happens to three replicas and a database, until it is lost.
#[derive(Debug, Clone)]
enum Event {
    /// A row is acknowledged: it is in the journal, and at every member of the in-sync set.
    Trade,
    /// The leader makes another set, with itself; members catch up and note it before it counts.
    Set(BTreeSet<ReplicaId>),
    /// Another leads, once it has caught up. Those hear of it.
    Elect(ReplicaId, BTreeSet<ReplicaId>),
    /// The database is copied.
    Copy,
}

fn some_ids() -> impl Strategy<Value = BTreeSet<ReplicaId>> {
    prop::collection::btree_set((1_u32..=3).prop_map(id), 0..=3)
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => Just(Event::Trade),
        2 => some_ids().prop_map(Event::Set),
        2 => ((1_u32..=3).prop_map(id), some_ids()).prop_map(|(who, told)| Event::Elect(who, told)),
        1 => Just(Event::Copy),
    ]
}

/// Replicas as they are when the database is lost, and the copy that takes its place.
struct History {
    rows: Vec<Row>,
    term: Term,
    replicas: BTreeMap<ReplicaId, LedgerReport>,
    copy: (usize, Term),
}

impl History {
    fn of(events: Vec<Event>) -> Self {
        let (_, rows) = traded(events.len());
        let term = term(1, 1, &[1]);
        let replicas = (1..=3).map(|replica| (id(replica), report(replica, &[], &Term::default())));
        let mut history = Self {
            copy: (0, term.clone()),
            term: term.clone(),
            replicas: replicas.collect(),
            rows: Vec::new(),
        };
        history.note(term);
        for event in events {
            history.happens(event, &rows);
        }
        history
    }

    fn happens(&mut self, event: Event, rows: &[Row]) {
        match event {
            Event::Trade => {
                self.rows.push(rows[self.rows.len()].clone());
                self.note(self.term.clone());
            }
            Event::Set(mut members) => {
                members.extend(self.term.leader);
                self.note(Term {
                    in_sync: members,
                    change: self.term.change.next(),
                    ..self.term.clone()
                });
            }
            Event::Elect(leader, told) => {
                // The set of before stays, until the new leader makes its own.
                self.term.epoch = self.term.epoch.next();
                self.term.leader = Some(leader);
                self.term.change = ChangeNumber::NONE;
                for replica in told {
                    let told = self.replicas.get_mut(&replica).expect("there are three");
                    (told.term.epoch, told.term.leader) = (self.term.epoch, self.term.leader);
                }
                self.happens(Event::Set(BTreeSet::new()), rows);
            }
            Event::Copy => self.copy = (self.rows.len(), self.term.clone()),
        }
    }

    /// Members of a set hold all rows, and note the set before it counts.
    fn note(&mut self, term: Term) {
        for member in &term.in_sync {
            let report = report(member.get(), &self.rows, &term);
            self.replicas.insert(*member, report);
        }
        self.term = term;
    }
}

proptest! {
    /// Whatever happened, and whoever is heard: where the catalog goes on, it has every row that was acknowledged.
    #[test]
    fn no_acknowledged_row_is_given_up(
        events in prop::collection::vec(event(), 0..12),
        heard in some_ids(),
    ) {
        let history = History::of(events);
        let (copied, term) = &history.copy;
        let found = Found {
            journal: end(&history.rows[..*copied]),
            term: term.clone(),
            replicas: ids(&[1, 2, 3]),
            may_lack_rows: true,
        };
        let mut healing = SelfHealing::new(found, GIVES_UP_AT);
        for report in history.replicas.values() {
            if heard.contains(&report.replica) {
                hear(&mut healing, &history.rows[..*copied], report.clone());
            }
        }
        // Before it gives up on those who are silent although nothing seems to be missing.
        match healing.next(AT(0)) {
            HealingStep::Wait { pending, .. } => prop_assert!(pending.is_disjoint(&heard)),
            HealingStep::PutBack { from } => {
                prop_assert_eq!(history.replicas[&from].end, end(&history.rows));
            }
            step => {
                prop_assert_eq!(step, serve(&[]));
                prop_assert_eq!(*copied, history.rows.len());
            }
        }
    }
}
