use domain::Refusal;
use domain::Role;
use domain::{Epoch, RowNumber};

use super::bench::*;
use crate::in_flight::{BATCH_ORDERS_MAX, BATCHES_MAX, ORDERS_WAITING_MAX};
use crate::message::*;
use crate::{Command, Event};

const EPOCH: Epoch = Epoch(5);

#[test]
fn an_order_is_acknowledged_once_leader_and_followers_hold_it() {
    for leader_first in [true, false] {
        let mut rows = journal(2);
        let mut bench = Bench::leader_with_follower(&rows);
        let ticket = bench.place("a");
        let (call, orders) = bench.trade();
        let row = commit(&mut rows, EPOCH, orders[0].clone());
        bench.traded(call, std::slice::from_ref(&row));
        assert_eq!(bench.placed(ticket), None, "only the journal holds it");
        if leader_first {
            bench.store();
            assert_eq!(bench.placed(ticket), None, "the follower lacks it");
            assert_eq!(bench.appended(2, Ok(end(&rows))), Shipment::Rows(vec![row]));
        } else {
            assert_eq!(bench.appended(2, Ok(end(&rows))), Shipment::Rows(vec![row]));
            assert_eq!(bench.placed(ticket), None, "the leader lacks it");
            bench.store();
        }
        assert_eq!(bench.placed(ticket), Some(number(2)));
    }
}

#[test]
fn a_change_of_a_stock_is_acknowledged_like_an_order_and_counts_as_none() {
    let mut rows = journal(2);
    let mut bench = Bench::leader_with_follower(&rows);
    let changing = bench.place_entry(stock_change("a"));
    let (call, entries) = bench.trade();
    let changed = commit(&mut rows, EPOCH, entries[0].clone());
    bench.traded(call, std::slice::from_ref(&changed));
    let buying = bench.place("b");
    let (call, entries) = bench.trade();
    let bought = commit(&mut rows, EPOCH, entries[0].clone());
    bench.traded(call, std::slice::from_ref(&bought));
    bench.store();
    assert_eq!(bench.placed(changing), None, "the follower lacks it");
    bench.appended(2, Ok(end(&rows[..3])));
    bench.appended(2, Ok(end(&rows)));
    let number_of_row = Ok(Placed::StockChanged(RowNumber(2)));
    assert_eq!(bench.placed(changing), Some(number_of_row));
    assert_eq!(bench.placed(buying), Some(number(2)), "the third order");
}

#[test]
fn refusals_are_answered_at_once() {
    let mut bench = Bench::leader_with_follower(&[]);
    let ticket = bench.place("a");
    let (call, _) = bench.trade();
    bench.step([Event::Traded {
        call,
        result: Ok(vec![Outcome::Refused(Refusal::NotEnough)]),
    }]);
    assert_eq!(
        bench.placed(ticket),
        Some(Ok(Placed::Refused(Refusal::NotEnough)))
    );
}

#[test]
fn what_queues_goes_out_as_one_batch() {
    let mut bench = Bench::leader(&[]);
    bench.place_many(BATCH_ORDERS_MAX + 1);
    assert_eq!(bench.trade().1.len(), BATCH_ORDERS_MAX);
    assert_eq!(bench.trade().1.len(), 1);
}

#[test]
fn few_batches_are_under_way() {
    let mut bench = Bench::leader(&[]);
    let mut rows = Vec::new();
    let calls: Vec<_> = (0..BATCHES_MAX)
        .map(|batch| {
            bench.place(&format!("first-{batch}"));
            bench.trade()
        })
        .collect();
    bench.place_many(10);
    assert!(
        bench
            .find(|command| matches!(command, Command::Trade { .. }).then_some(()))
            .is_none()
    );
    let (call, orders) = &calls[0];
    commit(&mut rows, EPOCH, orders[0].clone());
    bench.traded(*call, &rows);
    assert_eq!(bench.trade().1.len(), 10);
}

#[test]
fn too_many_waiting_orders_are_refused() {
    let mut bench = Bench::leader(&[]);
    for n in 0..ORDERS_WAITING_MAX {
        bench.place(&format!("key-{n}"));
    }
    let ticket = bench.place("one too many");
    assert_eq!(bench.placed(ticket), Some(Err(Unavailable::Overloaded)));
}

#[test]
fn answers_out_of_order_make_a_ledger_in_order() {
    let mut rows = Vec::new();
    let mut bench = Bench::leader(&[]);
    let tickets = ["a", "b", "c"].map(|key| bench.place(key));
    let calls = [bench.trade(), bench.trade(), bench.trade()];
    for (_, orders) in &calls {
        commit(&mut rows, EPOCH, orders[0].clone());
    }
    for n in [2, 1] {
        bench.traded(calls[n].0, &rows[n..=n]);
        bench.store();
        assert_eq!(bench.disk.durable().end, end(&[]));
        assert_eq!(bench.placed(tickets[n]), None);
    }
    bench.traded(calls[0].0, &rows[..1]);
    bench.store();
    assert_eq!(bench.disk.durable().end, end(&rows));
    for (n, ticket) in tickets.into_iter().enumerate() {
        assert_eq!(bench.placed(ticket), Some(number(n as u64)));
    }
}

#[test]
fn a_row_that_does_not_come_is_read_from_the_journal() {
    let mut rows = Vec::new();
    let mut bench = Bench::leader(&[]);
    let (lost, kept) = (bench.place("a"), bench.place("b"));
    let calls = [bench.trade(), bench.trade()];
    for (_, orders) in &calls {
        commit(&mut rows, EPOCH, orders[0].clone());
    }
    bench.traded(calls[1].0, &rows[1..]);
    bench.pass(19);
    assert!(
        bench
            .find(|command| matches!(command, Command::Fetch { .. }).then_some(()))
            .is_none()
    );
    bench.pass(1);
    assert_eq!(bench.fetched(Ok(rows.clone())), Source::Journal);
    bench.store();
    assert_eq!(bench.placed(kept), Some(number(1)));
    bench.traded(calls[0].0, &rows[..1]);
    assert_eq!(
        bench.placed(lost),
        Some(number(0)),
        "its answer came after all"
    );
}

#[test]
fn a_failed_batch_is_answered_and_what_it_committed_is_fetched() {
    let mut rows = Vec::new();
    let mut bench = Bench::leader(&[]);
    let ticket = bench.place("a");
    let (call, orders) = bench.trade();
    commit(&mut rows, EPOCH, orders[0].clone());
    bench.step([Event::Traded {
        call,
        result: Err(CallFailure::Failed),
    }]);
    assert_eq!(
        bench.placed(ticket),
        Some(Err(Unavailable::CatalogUnreachable))
    );
    let (fetch, source, _) = bench.fetch();
    assert_eq!(source, Source::Journal);
    // The client tries again before the journal answers.
    let again = bench.place("a");
    let (call, _) = bench.trade();
    bench.traded(call, &rows);
    bench.store();
    assert_eq!(bench.placed(again), Some(number(0)));
    bench.step([Event::Fetched {
        call: fetch,
        result: Ok(rows.clone()),
    }]);
    bench.store();
    assert_eq!(bench.disk.durable().end, end(&rows));
}

#[test]
fn a_known_keys_row_is_answered_at_once() {
    let rows = journal(2);
    let mut bench = Bench::leader_with_follower(&rows);
    let ticket = bench.place("key-0");
    let (call, _) = bench.trade();
    bench.traded(call, &rows[..1]);
    assert_eq!(bench.placed(ticket), Some(number(0)));
}

#[test]
fn a_fenced_leader_steps_down_and_answers_all_who_wait() {
    let mut rows = Vec::new();
    let mut bench = Bench::leader_with_follower(&[]);
    let committed = bench.place("a");
    let (call, orders) = bench.trade();
    let row = commit(&mut rows, EPOCH, orders[0].clone());
    bench.traded(call, &[row]);
    let fenced = bench.place("b");
    let (call, _) = bench.trade();
    let under_way = bench.place("c");
    bench.step([Event::Traded {
        call,
        result: Err(CallFailure::Fenced),
    }]);
    for ticket in [committed, fenced, under_way] {
        assert_eq!(bench.placed(ticket), Some(Err(Unavailable::SteppedDown)));
    }
    assert_eq!(bench.role(), Role::Follower);
    let late = bench.place("d");
    assert_eq!(bench.placed(late), Some(Err(Unavailable::NotLeading)));
    // What comes for the leadership that was is passed over.
    bench.appended(2, Ok(end(&rows)));
    bench.store();
    assert!(
        bench
            .commands
            .iter()
            .all(|command| !matches!(command, Command::AnswerPlace { .. }))
    );
}

#[test]
fn the_old_leaderships_fencing_does_not_touch_the_new_one() {
    let mut bench = Bench::leader(&[]);
    bench.place("a");
    let (old, _) = bench.trade();
    bench.append(6, 3, &[]);
    bench.announce(7, 1);
    bench.store();
    bench.fetched(Ok(vec![]));
    let (call, ..) = bench.set_in_sync();
    bench.step([Event::InSyncSet {
        call,
        result: Ok(head(7, 1, &[])),
    }]);
    bench.step([Event::Traded {
        call: old,
        result: Err(CallFailure::Fenced),
    }]);
    assert_eq!(bench.role(), Role::Leader);
}

#[test]
fn a_follower_that_claims_a_higher_epoch_is_out_of_sync_until_the_catalog_says_so_too() {
    let mut rows = Vec::new();
    let mut bench = Bench::leader_with_follower(&[]);
    let ticket = bench.place("a");
    let (call, orders) = bench.trade();
    commit(&mut rows, EPOCH, orders[0].clone());
    bench.traded(call, &rows);
    bench.store();
    bench.appended(2, Err(CallFailure::Fenced));
    let asks = |command: &Command| matches!(command, Command::AskCatalog).then_some(());
    assert!(bench.find(asks).is_some(), "only the catalog knows");
    assert_eq!(
        bench.placed(ticket),
        None,
        "the follower counts until it is removed"
    );
    let (call, epoch, in_sync) = bench.set_in_sync();
    assert_eq!((epoch, in_sync), (EPOCH, ids(&[1])));
    bench.step([Event::InSyncSet {
        call,
        result: Ok(head(5, 1, &rows)),
    }]);
    assert_eq!(bench.placed(ticket), Some(number(0)));
    bench.begun(6, 2);
    assert_eq!(bench.role(), Role::Follower);
}

#[test]
fn a_leader_whose_disk_is_full_steps_down() {
    let mut rows = Vec::new();
    let mut bench = Bench::leader(&[]);
    let ticket = bench.place("a");
    let (call, orders) = bench.trade();
    commit(&mut rows, EPOCH, orders[0].clone());
    bench.traded(call, &rows);
    bench.fail_to_store();
    assert_eq!(bench.placed(ticket), Some(Err(Unavailable::SteppedDown)));
    let again = bench.announce(5, 1);
    assert_eq!(
        bench.announced(again),
        Some(Err(Refused::LeadsNoMore { epoch: EPOCH }))
    );
}

#[test]
fn a_leader_that_gets_a_row_of_another_history_steps_down() {
    let rows = journal(2);
    let mut other = journal(1);
    commit(&mut other, EPOCH, order("x"));
    let mut bench = Bench::leader(&rows);
    let ticket = bench.place("a");
    let (call, orders) = bench.trade();
    let row = commit(&mut other, EPOCH, orders[0].clone());
    bench.traded(call, &[row]);
    assert_eq!(bench.placed(ticket), Some(Err(Unavailable::SteppedDown)));
    assert!(bench.reported(Report::SteppedDown {
        epoch: EPOCH,
        why: StepDown::Broken
    }));
    bench.store();
    assert_eq!(bench.disk.durable().end, end(&rows));
}
