use domain::{Epoch, IdempotencyKey, Order, Price, Quantity, Side};
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
    let name = StockName::new("nvidia").expect("a name");
    let stock = Stock::first(name, Price::from_minor(100).expect("a price"), 1_000);
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

/// What one of three replicas with these rows reports, which knows of that term.
fn report(replica: u32, rows: &[Row], of: &Term) -> LedgerReport {
    LedgerReport {
        replica: id(replica),
        end: end(rows),
        last_epoch: rows.last().map_or(Epoch(0), |row| row.epoch),
        beside: Vec::new(),
        is_empty: false,
        term: domain::Term {
            epoch: of.epoch,
            leader: of.leader,
        },
        peers: (1..=3).filter(|&peer| peer != replica).map(id).collect(),
        lease_horizon: Duration::from_millis(700),
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

/// Has a replica that reported these rows show that they continue the journal.
fn prove(healing: &mut SelfHealing, replica: u32, rows: &[Row]) {
    let next = healing.wanted_of(id(replica), AT(0));
    let next = next.expect("it is asked to show it").0 as usize;
    healing
        .shown(id(replica), &rows[next])
        .expect("it is a copy");
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
fn where_nothing_is_missing_all_are_waited_for_who_are_named_and_no_longer() {
    let (_, rows) = traded(3);
    let term = term(3, 1, &[2]);
    let mut healing = healing(&rows, &term);
    assert_eq!(healing.next(AT(0)), wait(&[1, 2], Some(GIVES_UP_AT)));
    hear(&mut healing, &rows, report(1, &rows, &term));
    assert_eq!(healing.next(AT(4_999)), wait(&[2, 3], Some(GIVES_UP_AT)));
    hear(&mut healing, &rows, report(3, &rows[..1], &Term::default()));
    assert_eq!(healing.next(AT(4_999)), wait(&[2], Some(GIVES_UP_AT)));
    assert_eq!(healing.next(GIVES_UP_AT), serve(&[2]));
    hear(&mut healing, &rows, report(2, &rows[..2], &term));
    assert_eq!(healing.next(AT(0)), serve(&[]));
    assert_eq!((healing.term(), healing.lease_horizon()), (None, None));
}

#[test]
fn a_journal_that_nobody_ever_led_may_be_an_older_copy_as_well() {
    let (_, rows) = traded(2);
    let mut healing = healing(&[], &Term::default());
    assert_eq!(healing.next(AT(0)), wait(&[], Some(GIVES_UP_AT)));
    assert_eq!(healing.next(GIVES_UP_AT), serve(&[]));
    let empty = |replica| LedgerReport {
        is_empty: true,
        ..report(replica, &[], &Term::default())
    };
    hear(&mut healing, &[], empty(1));
    assert_eq!(healing.next(AT(0)), wait(&[2, 3], Some(GIVES_UP_AT)));
    hear(&mut healing, &[], empty(2));
    let mut new = healing.clone();
    hear(&mut new, &[], empty(3));
    assert_eq!(new.next(AT(0)), serve(&[]));
    // Others may have had what one has, and lost their disks.
    hear(&mut healing, &[], report(3, &rows, &term(3, 3, &[3])));
    prove(&mut healing, 3, &rows);
    assert_eq!(healing.next(GIVES_UP_AT), wait(&[1, 2], None));
    healing.accept_loss_of(id(1));
    healing.accept_loss_of(id(2));
    assert_eq!(healing.next(AT(0)), HealingStep::PutBack { from: id(3) });
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
    // Each shows at once that it is a copy, and nothing comes back before all are heard.
    assert_eq!(healing.next(AT(0)), wait(&[1, 2, 3], Some(GIVES_UP_AT)));
    for replica in [1, 2] {
        prove(&mut healing, replica, &rows);
        assert_eq!(healing.wanted_of(id(replica), AT(0)), None);
    }
    assert_eq!(healing.next(AT(0)), wait(&[3], None));
    hear(&mut healing, &rows[..2], report(3, &[], &Term::default()));
    for wanted in [2, 3] {
        let step = HealingStep::PutBack { from: id(1) };
        assert_eq!(healing.next(AT(0)), step);
        let asked = [1, 2, 3].map(|replica| healing.wanted_of(id(replica), AT(0)));
        assert_eq!(asked, [Some(RowNumber(wanted)), None, None]);
        let number = wanted as usize;
        let some = healing.completed(rows[number..=number].to_vec());
        // What is beside the ledger comes back in the same commit as the last row of it.
        let all = if wanted == 3 { &rows[3..] } else { &rows[2..3] };
        assert_eq!(some, all);
        let batch = healing.batch(&state, some).expect("they continue it");
        state.apply(batch.clone());
        healing.committed(&batch);
    }
    assert_eq!(healing.next(AT(0)), serve(&[]));
    assert_eq!(state, after, "stocks and all");
    let goes_on = healing.term().expect("the set is another");
    let whole = Term {
        in_sync: ids(&[1]),
        change: term.change.next(),
        ..term
    };
    assert_eq!(goes_on, whole);
    assert_eq!(healing.lease_horizon(), Some(Duration::from_millis(700)));
}

#[test]
fn of_two_ledgers_that_differ_the_one_of_the_later_epoch_is_the_journal() {
    let (mut state, rows) = traded(1);
    let stored = term(3, 1, &[1, 2]);
    let branch = |epoch, trades: usize| {
        let mut branch = rows.clone();
        for number in 0..trades {
            let last = branch.last().expect("one").clone();
            let order = Order {
                key: IdempotencyKey::new(&format!("{epoch}-{number}")).expect("a key"),
                ..last.order().expect("one").clone()
            };
            branch.push(Row::following(
                &LedgerEnd::of(&last),
                Epoch(epoch),
                order,
                last.price,
            ));
        }
        branch
    };
    let (given_up, journal) = (branch(3, 5), branch(4, 2));
    let mut healing = healing(&rows, &stored);
    hear(&mut healing, &rows, report(3, &given_up, &stored));
    hear(&mut healing, &rows, report(1, &journal, &term(4, 1, &[1])));
    hear(
        &mut healing,
        &rows,
        report(2, &journal[..2], &term(4, 1, &[1])),
    );
    for (replica, rows) in [(1, &journal), (2, &journal), (3, &given_up)] {
        prove(&mut healing, replica, rows);
    }
    let asked = |healing: &SelfHealing| [1, 2, 3].map(|it| healing.wanted_of(id(it), AT(0)));
    assert_eq!(asked(&healing), [Some(RowNumber(1)), None, None]);
    let batch = healing.batch(&state, journal[1..].to_vec());
    let batch = batch.expect("they continue it");
    state.apply(batch.clone());
    healing.committed(&batch);
    // A row of before says nothing. The other one is still longer, and shows that it is no copy.
    healing
        .shown(id(3), &given_up[1])
        .expect("it is not the next");
    assert_eq!(asked(&healing), [None, None, Some(RowNumber(3))]);
    let forked = healing.shown(id(3), &given_up[3]);
    let forked = forked.expect_err("it does not continue the journal");
    assert_eq!(healing.next(AT(0)), wait(&[3], None));
    assert_eq!(
        healing.heard(report(3, &given_up, &stored), None),
        Err(forked)
    );
    healing.accept_loss_of(id(3));
    assert_eq!(healing.next(AT(0)), serve(&[]));
}

#[test]
fn a_ledger_that_was_given_up_stops_nobody() {
    let (state, rows) = traded(1);
    let (_, journal) = traded(6);
    let stored = term(3, 1, &[1, 2]);
    let other = Row::following(
        &LedgerEnd::of(&rows[0]),
        Epoch(2),
        journal[3].entry.clone(),
        journal[3].price,
    );
    let given_up = [rows[0].clone(), other];
    let mut healing = healing(&rows, &stored);
    hear(&mut healing, &rows, report(3, &given_up, &stored));
    for replica in [1, 2] {
        hear(&mut healing, &rows, report(replica, &journal, &stored));
        prove(&mut healing, replica, &journal);
    }
    prove(&mut healing, 3, &given_up);
    let forked = Forked {
        replica: id(3),
        rows: RowNumber(2),
    };
    let batch = healing.batch(&state, journal[1..].to_vec());
    assert_eq!(batch, Err(CannotPutBack::Forked(forked)));
    assert!(!healing.give_up_older(id(1)) && healing.give_up_older(id(3)));
    healing
        .batch(&state, journal[1..].to_vec())
        .expect("nobody else differs");
}

/// The healing of a database with these rows and that term, which is known to have come back.
fn suspicious(rows: &[Row], term: &Term) -> SelfHealing {
    let found = Found {
        journal: end(rows),
        term: term.clone(),
        may_lack_rows: true,
        ..Found::default()
    };
    SelfHealing::new(found, GIVES_UP_AT)
}

#[test]
fn a_database_in_which_all_were_heard_has_nobody_waited_for_whom_it_does_not_name() {
    let (_, rows) = traded(3);
    let term = term(3, 1, &[2]);
    let found = Found {
        journal: end(&rows[..2]),
        term: term.clone(),
        is_unbroken: true,
        ..Found::default()
    };
    let mut healing = SelfHealing::new(found, GIVES_UP_AT);
    assert_eq!(healing.next(AT(0)), wait(&[1, 2], Some(GIVES_UP_AT)));
    hear(&mut healing, &rows[..2], report(1, &rows[..2], &term));
    assert_eq!(healing.next(AT(0)), wait(&[2], Some(GIVES_UP_AT)));
    let mut served = healing.clone();
    hear(&mut served, &rows[..2], report(2, &rows[..2], &term));
    assert_eq!(served.next(AT(0)), serve(&[3]));
    // Unless it says that it has more: where a server that was replaced is back, it was so for long.
    hear(&mut healing, &rows[..2], report(3, &rows, &term));
    hear(&mut healing, &rows[..2], report(2, &rows[..2], &term));
    assert_eq!(healing.next(AT(0)), wait(&[3], Some(GIVES_UP_AT)));
    prove(&mut healing, 3, &rows);
    assert_eq!(healing.next(AT(0)), HealingStep::PutBack { from: id(3) });
}

#[test]
fn what_is_beside_ledgers_alone_comes_back_to_a_database_that_came_back() {
    let (_, rows) = traded(2);
    let stored = term(3, 1, &[1, 2]);
    let mut healing = suspicious(&rows[..1], &stored);
    let beside = LedgerReport {
        beside: rows[1..].to_vec(),
        ..report(1, &rows[..1], &term(3, 1, &[1]))
    };
    hear(&mut healing, &rows[..1], beside);
    assert_eq!(healing.next(GIVES_UP_AT), wait(&[2, 3], None));
    for replica in [2, 3] {
        hear(
            &mut healing,
            &rows[..1],
            report(replica, &rows[..1], &stored),
        );
    }
    let (mut state, _) = traded(1);
    let step = healing.next(AT(0));
    assert_eq!(step, HealingStep::PutBackProposed(rows[1..].to_vec()));
    let mut given_up = healing.clone();
    given_up.give_up_proposed();
    assert_eq!(given_up.next(AT(0)), serve(&[]));
    assert_eq!(given_up.term(), None);
    let batch = healing
        .batch(&state, rows[1..].to_vec())
        .expect("they continue it");
    state.apply(batch.clone());
    healing.committed(&batch);
    assert_eq!(healing.next(AT(0)), serve(&[]));
    assert_eq!(healing.term().map(|term| term.in_sync), Some(ids(&[1])));
}

/// The server that was lost had taken in_sync {3} and a row that 3 alone holds; the one that was promoted has neither.
#[test]
fn a_database_that_came_back_is_not_believed_while_its_leader_is_silent() {
    let (_, rows) = traded(2);
    let (before, stored) = (&rows[..1], term(7, 3, &[1, 2, 3]));
    let mut healing = suspicious(before, &stored);
    for replica in [1, 2] {
        hear(&mut healing, before, report(replica, before, &stored));
    }
    assert_eq!(healing.next(GIVES_UP_AT), wait(&[3], None));
    assert!(!healing.has_lost(), "it may be whole");
    let mut accepted = healing.clone();
    accepted.accept_loss_of(id(3));
    assert_eq!(accepted.next(AT(0)), serve(&[]));
    hear(&mut healing, before, report(3, &rows, &stored));
    prove(&mut healing, 3, &rows);
    assert_eq!(healing.next(AT(0)), HealingStep::PutBack { from: id(3) });
}

/// It lost an epoch as well, in which 2 led, alone in sync, and of which nobody else has heard.
#[test]
fn nor_while_anybody_else_is_who_can_have_led_an_epoch_that_it_lost() {
    let (_, rows) = traded(2);
    let (before, stored) = (&rows[..1], term(7, 3, &[1, 3]));
    let mut healing = suspicious(before, &stored);
    assert_eq!(healing.next(GIVES_UP_AT), wait(&[1, 3], None));
    for replica in [1, 3] {
        hear(&mut healing, before, report(replica, before, &stored));
    }
    assert_eq!(healing.next(GIVES_UP_AT), wait(&[2], None));
    hear(&mut healing, before, report(2, &rows, &term(8, 2, &[2])));
    assert!(healing.has_lost());
    prove(&mut healing, 2, &rows);
    assert_eq!(healing.next(AT(0)), HealingStep::PutBack { from: id(2) });
    // One that names nobody is not believed before anybody has reported.
    let healing = suspicious(&[], &Term::default());
    assert_eq!(healing.next(GIVES_UP_AT), wait(&[], None));
    // Where all replicas are lost, an operator can say so of those that are known.
    let mut healing = suspicious(before, &stored);
    for replica in [1, 3] {
        healing.accept_loss_of(id(replica));
    }
    assert_eq!(healing.next(AT(0)), wait(&[], Some(GIVES_UP_AT)));
    assert_eq!(healing.next(GIVES_UP_AT), serve(&[]));
}

#[test]
fn no_more_replicas_are_heard_than_there_may_be() {
    let (_, rows) = traded(1);
    let mut healing = healing(&rows, &Term::default());
    for replica in 1..=2 * REPORTS_MAX as u32 {
        hear(
            &mut healing,
            &rows,
            report(replica, &rows, &Term::default()),
        );
    }
    assert_eq!(healing.reports.len(), REPORTS_MAX);
}

#[test]
fn rows_of_a_later_epoch_than_the_databases_come_back_with_that() {
    let (mut state, _) = traded(1);
    let (_, rows) = traded(3);
    let newest = term(7, 2, &[2]);
    let mut healing = healing(&rows[..1], &term(3, 1, &[1, 2]));
    for replica in [1, 2, 3] {
        hear(&mut healing, &rows[..1], report(replica, &rows, &newest));
    }
    for row in &rows[1..] {
        let batch = healing.batch(&state, vec![row.clone()]);
        let batch = batch.expect("it continues the journal");
        state.apply(batch.clone());
        healing.committed(&batch);
        assert_eq!(state.leadership().term.epoch, Epoch(7));
    }
    let goes_on = healing.term().expect("the set is another");
    state.apply(Batch {
        term: Some(goes_on.clone()),
        ..Batch::default()
    });
    let (epoch, in_sync) = (Epoch(7), ids(&[1, 2, 3]));
    assert_eq!((goes_on.epoch, goes_on.in_sync), (epoch, in_sync));
}

#[test]
fn where_rows_are_missing_all_are_waited_for_who_may_have_more_or_their_loss_is_accepted() {
    let (_, rows) = traded(3);
    let mut healing = healing(&rows[..1], &term(3, 4, &[4]));
    let newest = term(5, 3, &[3, 4]);
    hear(&mut healing, &rows[..1], report(2, &rows, &newest));
    prove(&mut healing, 2, &rows);
    assert_eq!(healing.next(AT(9_000)), wait(&[1, 3, 4], None));
    hear(&mut healing, &rows[..1], report(4, &rows, &newest));
    prove(&mut healing, 4, &rows);
    healing.accept_loss_of(id(1));
    assert_eq!(healing.next(AT(9_000)), wait(&[3], None));
    healing.accept_loss_of(id(3));
    let step = healing.next(AT(9_000));
    assert!(matches!(step, HealingStep::PutBack { .. }), "{step:?}");
    let goes_on = healing.term().expect("the database's is older");
    assert_eq!((goes_on.epoch, goes_on.leader), (Epoch(5), Some(id(3))));
}

#[test]
fn whose_loss_is_accepted_is_not_heard() {
    let (_, rows) = traded(3);
    let term = term(3, 1, &[1, 2]);
    let mut healing = healing(&rows[..1], &term);
    for given_up in [1, 2] {
        healing.accept_loss_of(id(given_up));
        hear(&mut healing, &rows[..1], report(given_up, &rows, &term));
    }
    assert_eq!(
        healing.next(AT(0)),
        wait(&[], Some(GIVES_UP_AT)),
        "3 may be there"
    );
    hear(&mut healing, &rows[..1], report(3, &rows[..1], &term));
    assert_eq!(healing.next(AT(0)), serve(&[]));
}

#[test]
fn an_epoch_that_the_database_does_not_know_is_a_sign_that_rows_are_missing() {
    let (_, rows) = traded(2);
    let stored = term(3, 1, &[1, 2]);
    let mut healing = healing(&rows, &stored);
    let later = domain::Term {
        epoch: Epoch(4),
        leader: Some(id(5)),
    };
    let report = LedgerReport {
        term: later,
        ..report(2, &rows, &stored)
    };
    hear(&mut healing, &rows, report);
    assert_eq!(healing.next(AT(9_000)), wait(&[1, 3, 5], None));
}

#[test]
fn what_was_shown_to_be_missing_is_missing_whatever_becomes_of_who_showed_it() {
    let (_, rows) = traded(2);
    let term = term(3, 1, &[1]);
    let mut healing = healing(&rows[..1], &term);
    hear(&mut healing, &rows[..1], report(1, &rows, &term));
    // Anybody can say so.
    assert_eq!(healing.next(AT(0)), wait(&[1, 2, 3], Some(GIVES_UP_AT)));
    assert_eq!(healing.next(GIVES_UP_AT), serve(&[1, 2, 3]));
    prove(&mut healing, 1, &rows);
    hear(&mut healing, &rows[..1], report(1, &rows[..1], &term));
    assert_eq!(healing.next(GIVES_UP_AT), wait(&[2, 3], None));
    hear(&mut healing, &rows[..1], report(2, &rows[..1], &term));
    hear(&mut healing, &rows[..1], report(3, &rows[..1], &term));
    assert_eq!(healing.next(AT(0)), serve(&[]));
}

#[test]
fn what_is_held_beside_ledgers_comes_back_where_it_may_have_been_acknowledged() {
    let (_, rows) = traded(3);
    let term = term(3, 1, &[1]);
    let (first, second) = (rows[1].clone(), rows[2].clone());
    let in_vain = Row::following(
        &LedgerEnd::of(&rows[0]),
        Epoch(2),
        second.entry.clone(),
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
        hear(&mut healing, &rows[..1], beside(3, &[]));
        assert_eq!(healing.next(AT(0)), expected);
    }
}

#[test]
fn a_ledger_that_is_no_copy_is_not_heard_and_nothing_is_put_back_beside_one() {
    let (state, rows) = traded(3);
    let term = term(3, 1, &[1, 2]);
    let other = Row::following(
        &LedgerEnd::of(&rows[0]),
        Epoch(3),
        rows[2].entry.clone(),
        rows[2].price,
    );
    let forked = Forked {
        replica: id(2),
        rows: RowNumber(2),
    };
    let strange = report(2, &[rows[0].clone(), other], &term);

    let mut longer = healing(&rows, &term);
    let heard = longer.heard(strange.clone(), Some(rows[1].chain));
    assert_eq!(heard, Err(forked));
    let step = longer.next(AT(0));
    assert_eq!(step, wait(&[1, 2], Some(GIVES_UP_AT)));

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
    let before = LedgerEnd::of(&rows[0]);
    let altered = |order: Order, price| Row::following(&before, Epoch(3), order, price);
    let number = RowNumber(1);
    let (order, price) = (other[1].order().expect("one").clone(), other[1].price);
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
        (other[2].clone(), CannotPutBack::Discontinuous(RowNumber(2))),
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
    /// The leader makes another set, with itself; members catch up before it counts.
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
        history.follow(term);
        for event in events {
            history.happens(event, &rows);
        }
        history
    }

    fn happens(&mut self, event: Event, rows: &[Row]) {
        match event {
            Event::Trade => {
                self.rows.push(rows[self.rows.len()].clone());
                self.follow(self.term.clone());
            }
            Event::Set(mut members) => {
                members.extend(self.term.leader);
                self.follow(Term {
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

    /// Members of a set hold all rows, and know of its epoch.
    fn follow(&mut self, term: Term) {
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
        may_lack_rows in any::<bool>(),
    ) {
        let history = History::of(events);
        let (copied, term) = &history.copy;
        let found = Found {
            journal: end(&history.rows[..*copied]),
            term: term.clone(),
            may_lack_rows,
            ..Found::default()
        };
        let mut healing = SelfHealing::new(found, GIVES_UP_AT);
        for report in history.replicas.values() {
            if heard.contains(&report.replica) {
                hear(&mut healing, &history.rows[..*copied], report.clone());
            }
        }
        for replica in &heard {
            if healing.wanted_of(*replica, AT(0)).is_some() {
                prove(&mut healing, replica.get(), &history.rows);
            }
        }
        // At any time, where it is known to have come back; else before it gives up on those who are silent although
        // nothing seems to be missing.
        let now = if may_lack_rows { GIVES_UP_AT } else { AT(0) };
        match healing.next(now) {
            HealingStep::Wait { pending, .. } => prop_assert!(pending.is_disjoint(&heard)),
            HealingStep::PutBack { from } => {
                prop_assert_eq!(history.replicas[&from].end, end(&history.rows));
                let goes_on = healing.term().expect("something was missing");
                prop_assert!(goes_on.epoch >= history.replicas.values().map(|it| it.term.epoch).max().expect("three"));
            }
            step => {
                prop_assert_eq!(step, serve(&[]));
                prop_assert_eq!(*copied, history.rows.len());
            }
        }
    }
}
