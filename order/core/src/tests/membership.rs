use std::time::Duration;

use domain::{ChangeNumber, Epoch, RowNumber};

use super::bench::*;
use crate::followers::APPEND_ROWS_MAX;
use crate::message::*;
use crate::{Command, Event};

/// Places an order and has the catalog commit it.
fn trade(bench: &mut Bench, rows: &mut Vec<domain::Row>, key: &str) -> Ticket {
    let ticket = bench.place(key);
    let (call, orders) = bench.trade();
    let row = commit(rows, Epoch(5), orders[0].clone());
    bench.traded(call, &[row]);
    ticket
}

fn confirm(bench: &mut Bench, expected: &[u32]) {
    let (call, _, in_sync) = bench.set_in_sync();
    assert_eq!(in_sync, ids(expected));
    bench.step([Event::InSyncSet {
        call,
        result: Ok(head(5, 1, &[])),
    }]);
}

#[test]
fn a_follower_counts_from_before_it_is_added() {
    let mut rows = journal(1);
    let mut bench = Bench::leader(&rows);
    bench.appended(2, Ok(end(&rows)));
    let (call, _, in_sync) = bench.set_in_sync();
    assert_eq!(in_sync, ids(&[1, 2]));
    let ticket = trade(&mut bench, &mut rows, "a");
    bench.store();
    assert_eq!(
        bench.placed(ticket),
        None,
        "the catalog may have added it already"
    );
    bench.appended(2, Ok(end(&rows)));
    assert_eq!(bench.placed(ticket), Some(number(1)));
    bench.step([Event::InSyncSet {
        call,
        result: Ok(head(5, 1, &rows)),
    }]);
    assert!(
        bench
            .commands
            .iter()
            .all(|command| !matches!(command, Command::SetInSync { .. }))
    );
}

#[test]
fn a_follower_counts_until_its_removal_is_confirmed() {
    let mut rows = journal(1);
    let mut bench = Bench::leader_with_follower(&rows);
    let ticket = trade(&mut bench, &mut rows, "a");
    bench.store();
    bench.appended(2, Err(CallFailure::Failed));
    assert!(bench.reported(Report::FollowerLagging { peer: id(2) }));
    assert_eq!(bench.placed(ticket), None);
    // The catalog cannot be reached for a while: nothing is acknowledged.
    for _ in 0..5 {
        let (call, _, in_sync) = bench.set_in_sync();
        assert_eq!(in_sync, ids(&[1]));
        bench.step([Event::InSyncSet {
            call,
            result: Err(CallFailure::Failed),
        }]);
        assert_eq!(bench.placed(ticket), None);
        bench.pass(500);
    }
    confirm(&mut bench, &[1]);
    assert_eq!(bench.placed(ticket), Some(number(1)));
}

#[test]
fn a_removed_follower_is_probed_and_taken_back_once_it_has_caught_up() {
    let mut rows = journal(1);
    let mut bench = Bench::leader_with_follower(&rows);
    trade(&mut bench, &mut rows, "a");
    bench.store();
    bench.appended(2, Err(CallFailure::Failed));
    confirm(&mut bench, &[1]);
    for _ in 0..6 {
        bench.commands.clear();
        let wake = bench.replica.wake().unwrap();
        assert!(wake.since(bench.now) <= Duration::from_millis(500));
        bench.pass(500);
        bench.appended(2, Err(CallFailure::Failed));
    }
    trade(&mut bench, &mut rows, "b");
    bench.store();
    bench.pass(500);
    assert_eq!(
        bench.appended(2, Ok(end(&rows[..2]))),
        Shipment::Rows(rows[1..].to_vec())
    );
    assert!(
        bench
            .commands
            .iter()
            .all(|command| !matches!(command, Command::SetInSync { .. })),
        "it still lacks one"
    );
    assert_eq!(
        bench.appended(2, Ok(end(&rows))),
        Shipment::Rows(rows[2..].to_vec())
    );
    confirm(&mut bench, &[1, 2]);
}

/// Has a follower fall out of the in-sync set, and returns how many milliseconds it stays out where it answers from then on.
fn fall(bench: &mut Bench, rows: &[domain::Row]) -> u64 {
    bench.pass(250);
    bench.appended(2, Err(CallFailure::Failed));
    confirm(bench, &[1]);
    let mut out = 0;
    loop {
        bench.commands.clear();
        bench.pass(250);
        out += 250;
        bench.appended(2, Ok(end(rows)));
        if bench.reported(Report::FollowerInSync { peer: id(2) }) {
            confirm(bench, &[1, 2]);
            return out;
        }
    }
}

#[test]
fn a_follower_that_falls_again_and_again_stays_out_for_longer_each_time_until_it_has_not_for_long()
{
    let rows = journal(1);
    let mut bench = Bench::leader_with_follower(&rows);
    let falls = [0; 8].map(|_| fall(&mut bench, &rows));
    assert_eq!(
        falls,
        [250, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]
    );
    for _ in 0..4 * 60 {
        bench.pass(250);
        bench.appended(2, Ok(end(&rows)));
    }
    assert_eq!(fall(&mut bench, &rows), 250);
}

#[test]
fn a_follower_that_comes_back_during_its_removal_is_not_forgotten() {
    let mut rows = journal(1);
    let mut bench = Bench::leader_with_follower(&rows);
    bench.pass(250);
    bench.appended(2, Err(CallFailure::Failed));
    let (removal, _, _) = bench.set_in_sync();
    bench.pass(100);
    bench.appended(2, Ok(end(&rows)));
    bench.step([Event::InSyncSet {
        call: removal,
        result: Ok(head(5, 1, &rows)),
    }]);
    let (_, _, in_sync) = bench.set_in_sync();
    assert_eq!(in_sync, ids(&[1, 2]));
    let ticket = trade(&mut bench, &mut rows, "a");
    bench.store();
    assert_eq!(bench.placed(ticket), None, "it is being added again");
}

#[test]
fn a_follower_far_behind_is_sent_chunks_from_the_store() {
    let rows = journal(3 * APPEND_ROWS_MAX);
    let mut bench = Bench::leader(&rows);
    let shipment = bench.appended(2, Ok(end(&rows[..5])));
    assert_eq!(shipment, Shipment::Rows(vec![]), "first it is asked");
    let stored = |from| Shipment::Stored {
        from: RowNumber(from),
        rows_max: APPEND_ROWS_MAX,
    };
    assert_eq!(bench.appended(2, Ok(end(&rows[..1029]))), stored(5));
    assert_eq!(bench.appended(2, Ok(end(&rows[..2053]))), stored(1029));
    assert_eq!(bench.appended(2, Ok(end(&rows))), stored(2053));
    confirm(&mut bench, &[1, 2]);
}

#[test]
fn a_follower_that_takes_nothing_is_left_alone_for_a_while() {
    let rows = journal(3);
    let mut bench = Bench::leader(&rows);
    bench.appended(2, Ok(end(&rows[..1])));
    bench.appended(2, Ok(end(&rows[..1])));
    let call = bench.find(|command| {
        matches!(command, Command::Append { peer, .. } if *peer == id(2)).then_some(())
    });
    assert!(call.is_none());
}

#[test]
fn a_follower_with_another_history_is_not_admitted() {
    let rows = journal(2);
    let mut other = journal(1);
    commit(&mut other, Epoch(1), order("other"));
    let mut bench = Bench::leader(&rows);
    bench.appended(2, Ok(end(&other)));
    assert!(bench.reported(Report::FollowerDiverged {
        peer: id(2),
        orders: RowNumber(2)
    }));
    assert!(
        bench
            .commands
            .iter()
            .all(|command| !matches!(command, Command::SetInSync { .. }))
    );
}

#[test]
fn a_follower_that_lost_rows_is_removed() {
    let rows = journal(2);
    let mut bench = Bench::leader_with_follower(&rows);
    bench.pass(250);
    bench.appended(2, Ok(end(&rows[..1])));
    let (acknowledged, holds) = (RowNumber(2), RowNumber(1));
    assert!(bench.reported(Report::FollowerLostRows {
        peer: id(2),
        acknowledged,
        holds
    }));
    confirm(&mut bench, &[1]);
}

#[test]
fn a_follower_ahead_of_the_leader_shows_it_what_it_lacks() {
    let rows = journal(2);
    let mut bench = Bench::leader(&rows[..1]);
    bench.appended(2, Ok(end(&rows)));
    assert!(
        bench
            .commands
            .iter()
            .all(|command| !matches!(command, Command::SetInSync { .. })),
        "not verified yet"
    );
    bench.pass(20);
    assert_eq!(bench.fetched(Ok(rows[1..].to_vec())), Source::Journal);
    bench.store();
    bench.pass(250);
    bench.appended(2, Ok(end(&rows)));
    confirm(&mut bench, &[1, 2]);
}

#[test]
fn changes_are_numbered_from_the_first_of_the_activation_on() {
    let rows = journal(1);
    let mut bench = Bench::follower(term(4, 2), &rows);
    let answered = |bench: &mut Bench, expected: &[u32], result| {
        let (call, _, in_sync) = bench.set_in_sync();
        assert_eq!(in_sync, ids(expected));
        bench.step([Event::InSyncSet { call, result }]);
        bench.last_change
    };
    let confirmed = || Ok(head(5, 1, &rows));
    let failed = || Err(CallFailure::Failed);
    bench.announce(5, 1);
    bench.store();
    bench.fetched(Ok(vec![]));
    let numbered = |number| (Epoch(5), ChangeNumber::new(number).unwrap());
    assert_eq!(answered(&mut bench, &[1], failed()), numbered(1));
    bench.pass(500);
    assert_eq!(answered(&mut bench, &[1], confirmed()), numbered(2));
    bench.appended(2, Ok(end(&rows)));
    assert_eq!(answered(&mut bench, &[1, 2], failed()), numbered(3));
    bench.pass(250);
    bench.appended(2, Err(CallFailure::Failed));
    assert_eq!(answered(&mut bench, &[1, 2], failed()), numbered(4));
    bench.pass(500);
    // Those that failed may yet arrive: this one overtakes them.
    assert_eq!(answered(&mut bench, &[1], confirmed()), numbered(5));
    bench.announce(6, 1);
    bench.store();
    bench.fetched(Ok(vec![]));
    let (_, _, in_sync) = bench.set_in_sync();
    assert_eq!(in_sync, ids(&[1]));
    assert_eq!(bench.last_change, (Epoch(6), ChangeNumber::new(1).unwrap()));
}

#[test]
fn an_idle_follower_in_sync_is_asked_for_a_sign_of_life() {
    let rows = journal(1);
    let mut bench = Bench::leader_with_follower(&rows);
    bench.pass(250);
    assert_eq!(bench.appended(2, Ok(end(&rows))), Shipment::Rows(vec![]));
    assert!(
        bench
            .commands
            .iter()
            .all(|command| !matches!(command, Command::SetInSync { .. }))
    );
}
