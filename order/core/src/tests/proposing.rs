//! Rows that are proposed before they are committed.

use crate::durable::PROPOSED_SLOTS;
use domain::OrderNumber;
use domain::Role;
use domain::{Epoch, Row, RowNumber};

use super::bench::*;
use crate::durable::Save;
use crate::memory::Memory;
use crate::message::*;
use crate::{Command, Event};

const EPOCH: Epoch = Epoch(5);

/// Longer than anything waits to be settled.
const SETTLED_MS: u64 = 20;

/// A leader with a follower that has placed an order, and been told of its row.
fn proposing(rows: &mut Vec<Row>) -> (Bench, Ticket, CallId) {
    let mut bench = Bench::leader_with_follower(rows);
    let ticket = bench.place("a");
    let (call, orders) = bench.trade();
    let row = commit(rows, EPOCH, orders[0].clone());
    bench.step([Event::Proposed {
        call,
        rows: vec![row],
    }]);
    (bench, ticket, call)
}

#[test]
fn what_is_held_everywhere_is_acknowledged_as_soon_as_it_is_committed() {
    let mut rows = journal(2);
    let (mut bench, ticket, call) = proposing(&mut rows);
    bench.store();
    let sent = bench.appended(2, Ok(end(&rows)));
    assert_eq!(sent, Shipment::Rows(rows[2..].to_vec()));
    assert_eq!(bench.placed(ticket), None, "it is not committed");
    assert_eq!(bench.disk.durable().end, end(&rows[..2]));
    bench.traded(call, &rows[2..]);
    assert_eq!(bench.placed(ticket), Some(number(2)));
}

#[test]
fn what_is_committed_is_acknowledged_as_soon_as_it_is_held_everywhere() {
    let mut rows = journal(2);
    let (mut bench, ticket, call) = proposing(&mut rows);
    bench.traded(call, &rows[2..]);
    assert_eq!(bench.placed(ticket), None, "only the journal holds it");
    bench.appended(2, Ok(end(&rows)));
    assert_eq!(bench.placed(ticket), None, "the leader lacks it");
    bench.store();
    assert_eq!(bench.placed(ticket), Some(number(2)));
}

#[test]
fn what_is_committed_is_in_the_ledger_after_a_while_and_found_before() {
    let mut rows = journal(2);
    let (mut bench, _, call) = proposing(&mut rows);
    let third = OrderNumber(2);
    bench.store();
    assert_eq!(bench.replica.find(third), None, "it is not committed");
    bench.traded(call, &rows[2..]);
    assert_eq!(bench.replica.find(third), Some(&rows[2]));
    bench.store();
    assert_eq!(bench.disk.durable().end, end(&rows[..2]), "it can wait");
    bench.pass(SETTLED_MS);
    bench.store();
    assert_eq!(bench.disk.durable().end, end(&rows));
}

#[test]
fn followers_are_told_what_is_committed_where_nothing_else_is_sent() {
    let mut rows = journal(2);
    let (mut bench, _, call) = proposing(&mut rows);
    bench.appended(2, Ok(end(&rows)));
    bench.traded(call, &rows[2..]);
    let told = |command: &Command| match command {
        Command::Append {
            peer, committed, ..
        } if *peer == id(2) => Some(*committed),
        _ => None,
    };
    assert_eq!(bench.find(told), None, "the next row may tell it");
    bench.store();
    bench.pass_until_woken();
    assert_eq!(bench.find(told), Some(RowNumber(3)));
}

#[test]
fn what_waits_to_be_settled_wakes_the_replica() {
    let mut rows = journal(2);
    let third = commit(&mut rows, Epoch(2), order("third"));
    let mut bench = Bench::follower(term(2, 3), &rows[..2]);
    bench.append_proposed(2, 3, &[third], 2);
    bench.store();
    assert_eq!(bench.replica.wake(), None);
    bench.append_proposed(2, 3, &[], 3);
    bench.pass_until_woken();
    bench.store();
    assert_eq!(bench.replica.status().end, end(&rows));
}

#[test]
fn what_queued_for_the_disk_when_the_next_epoch_began_keeps_nothing_from_it() {
    let mut rows = journal(2);
    let mut others = rows.clone();
    let lost = ["lost", "lost, too"].map(|key| commit(&mut rows, Epoch(2), order(key)));
    commit(&mut others, Epoch(3), order("third"));
    let mut bench = Bench::follower(term(2, 3), &rows[..2]);
    bench.append_proposed(2, 3, &lost, 2);
    let ticket = bench.append(3, 3, &others[2..]);
    bench.store_together();
    assert_eq!(bench.append_answer(ticket), Some(Ok(end(&others))));
    assert_eq!(bench.disk.term, term(3, 3));
    assert_eq!(bench.disk.kept, []);
}

#[test]
fn rows_that_come_to_nothing_end_no_leadership_and_are_not_acknowledged() {
    let mut rows = journal(2);
    let (mut bench, ticket, call) = proposing(&mut rows);
    bench.store();
    bench.appended(2, Ok(end(&rows)));
    bench.step([Event::Traded {
        call,
        result: Err(CallFailure::Failed),
    }]);
    let answer = bench.placed(ticket);
    assert_eq!(answer, Some(Err(Unavailable::CatalogUnreachable)));
    // The journal has the last word.
    bench.fetched(Ok(vec![]));
    assert_eq!(bench.role(), Role::Leader);
    assert_eq!(bench.replica.status().end, end(&rows[..2]));
}

#[test]
fn a_leader_proposes_no_more_than_disks_have_room_for() {
    let mut rows = journal(0);
    let mut bench = Bench::leader_with_follower(&rows);
    bench.place_many(PROPOSED_SLOTS as usize + 1);
    let (call, orders) = bench.trade();
    for order in orders {
        commit(&mut rows, EPOCH, order);
    }
    for row in &rows {
        let rows = vec![row.clone()];
        bench.step([Event::Proposed { call, rows }]);
    }
    bench.store();
    let held = &rows[..PROPOSED_SLOTS as usize];
    assert_eq!(bench.disk.durable().proposed.end, end(held));
    bench.traded(call, &rows);
    bench.store();
    assert_eq!(bench.disk.durable().end, end(&rows));
}

#[test]
fn a_follower_holds_what_is_proposed_beside_its_ledger() {
    let mut rows = journal(2);
    let third = commit(&mut rows, Epoch(2), order("third"));
    let mut bench = Bench::follower(term(2, 3), &rows[..2]);
    let ticket = bench.append_proposed(2, 3, std::slice::from_ref(&third), 2);
    assert_eq!(bench.append_answer(ticket), None, "it is not durable");
    bench.store();
    assert_eq!(bench.append_answer(ticket), Some(Ok(end(&rows))));
    assert_eq!(bench.replica.status().end, end(&rows[..2]));
    // Told that it is committed, it takes it over by itself.
    let ticket = bench.append_proposed(2, 3, &[], 3);
    assert_eq!(bench.append_answer(ticket), Some(Ok(end(&rows))));
    assert_eq!(bench.replica.find(OrderNumber(2)), Some(&third));
    bench.pass(SETTLED_MS);
    bench.store();
    assert_eq!(bench.replica.status().end, end(&rows));
}

#[test]
fn what_a_follower_held_it_holds_after_a_restart() {
    let mut rows = journal(2);
    let third = commit(&mut rows, Epoch(2), order("third"));
    let mut disk = Memory::holding(term(2, 3), rows[..2].to_vec());
    let save = Save {
        proposed: vec![third],
        ..Save::default()
    };
    disk.save(&save).unwrap();
    let mut bench = Bench::on(disk);
    bench.fetched(Ok(vec![]));
    bench.joined();
    let ticket = bench.append_proposed(2, 3, &[], 2);
    assert_eq!(bench.append_answer(ticket), Some(Ok(end(&rows))));
}

#[test]
fn in_the_next_epoch_what_was_proposed_before_is_held_for_nothing() {
    let mut rows = journal(2);
    let mut other = rows.clone();
    let lost = commit(&mut rows, Epoch(2), order("lost"));
    let third = commit(&mut other, Epoch(3), order("third"));
    let mut bench = Bench::follower(term(2, 3), &rows[..2]);
    bench.append_proposed(2, 3, &[lost], 2);
    bench.store();
    let ticket = bench.append_proposed(3, 3, &[], 2);
    bench.store();
    assert_eq!(bench.append_answer(ticket), Some(Ok(end(&rows[..2]))));
    let ticket = bench.append_proposed(3, 3, std::slice::from_ref(&third), 2);
    assert_eq!(bench.append_answer(ticket), None);
    bench.store();
    assert_eq!(bench.append_answer(ticket), Some(Ok(end(&other))));
    assert_eq!(bench.disk.kept, [third], "it took the other's slot");
}

#[test]
fn a_row_of_a_later_epoch_gives_the_epoch_away() {
    let mut rows = journal(2);
    let mut other = rows.clone();
    let lost = commit(&mut rows, Epoch(2), order("lost"));
    commit(&mut other, Epoch(3), order("third"));
    let mut bench = Bench::follower(term(2, 3), &rows[..2]);
    bench.append_proposed(2, 3, &[lost], 2);
    bench.store();
    bench.step([Event::Heard(RowNumber(3))]);
    bench.pass(1_000);
    bench.fetched(Ok(other[2..].to_vec()));
    bench.store();
    assert_eq!(bench.replica.status().end, end(&other));
    let ticket = bench.append_proposed(2, 3, &[], 2);
    let stale = Refused::Stale { known: Epoch(3) };
    assert_eq!(bench.append_answer(ticket), Some(Err(stale)));
}

#[test]
fn a_full_disk_takes_nothing_back_that_is_held() {
    let mut rows = journal(2);
    let third = commit(&mut rows, Epoch(2), order("third"));
    let fourth = commit(&mut rows, Epoch(2), order("fourth"));
    let mut bench = Bench::follower(term(2, 3), &rows[..2]);
    bench.append_proposed(2, 3, &[third], 2);
    bench.store();
    let ticket = bench.append_proposed(2, 3, std::slice::from_ref(&fourth), 3);
    bench.fail_to_store();
    assert_eq!(bench.append_answer(ticket), Some(Err(Refused::StoreFailed)));
    let ticket = bench.append_proposed(2, 3, &[], 3);
    assert_eq!(bench.append_answer(ticket), Some(Ok(end(&rows[..3]))));
    let ticket = bench.append_proposed(2, 3, &[fourth], 3);
    bench.pass(SETTLED_MS);
    bench.store();
    assert_eq!(bench.append_answer(ticket), Some(Ok(end(&rows))));
    assert_eq!(bench.replica.status().end, end(&rows[..3]));
}
