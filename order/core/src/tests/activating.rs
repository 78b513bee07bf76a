use domain::Role;
use domain::{Epoch, LedgerEnd, Row, RowNumber};

use super::bench::*;
use crate::message::*;
use crate::{Command, Event};

#[test]
fn a_leader_elect_leads_only_once_it_is_complete_and_confirmed() {
    let rows = journal(3);
    let mut bench = Bench::follower(term(4, 2), &rows[..1]);
    let announced = bench.announce(5, 1);
    bench.fetched(Ok(rows[1..].to_vec()));
    assert!(bench.announced(announced).is_none());
    let asks = |bench: &mut Bench| {
        bench
            .commands
            .iter()
            .any(|command| matches!(command, Command::SetInSync { .. }))
    };
    assert!(!asks(&mut bench), "neither rows nor term are durable");
    let early = bench.place("early");
    assert_eq!(bench.placed(early), Some(Err(Unavailable::Activating)));
    bench.store();
    assert_eq!(
        bench.announced(announced).unwrap().unwrap().role,
        Role::Activating
    );
    let (call, epoch, in_sync) = bench.set_in_sync();
    assert_eq!((epoch, in_sync), (Epoch(5), ids(&[1])));
    assert_eq!(bench.role(), Role::Activating);
    bench.step([Event::InSyncSet {
        call,
        result: Ok(head(5, 1, &rows)),
    }]);
    assert_eq!(bench.role(), Role::Leader);
    let again = bench.announce(5, 1);
    assert!(bench.announced(again).unwrap().is_ok());
}

#[test]
fn what_was_asked_before_the_election_does_not_count() {
    let rows = journal(2);
    let mut bench = Bench::new(term(4, 2), &[]);
    let (old_call, _, _) = bench.fetch();
    bench.announce(5, 1);
    bench.store();
    // Answered before the last trade of epoch 4.
    bench.step([Event::Fetched {
        call: old_call,
        result: Ok(rows[..1].to_vec()),
    }]);
    bench.store();
    assert!(
        bench
            .commands
            .iter()
            .all(|command| !matches!(command, Command::SetInSync { .. }))
    );
    bench.fetched(Ok(rows.clone()));
    bench.store();
    bench.set_in_sync();
}

#[test]
fn a_fenced_leader_elect_steps_down() {
    let mut bench = Bench::follower(term(4, 2), &[]);
    bench.announce(5, 1);
    bench.store();
    bench.fetched(Ok(vec![]));
    let (call, ..) = bench.set_in_sync();
    bench.step([Event::InSyncSet {
        call,
        result: Err(CallFailure::Fenced),
    }]);
    assert_eq!(bench.role(), Role::Follower);
    let again = bench.announce(5, 1);
    assert_eq!(
        bench.announced(again),
        Some(Err(Refused::LeadsNoMore { epoch: Epoch(5) }))
    );
}

#[test]
fn a_confirmation_that_fails_is_asked_for_again() {
    let mut bench = Bench::follower(term(4, 2), &[]);
    bench.announce(5, 1);
    bench.store();
    bench.fetched(Ok(vec![]));
    for _ in 0..10 {
        let (call, ..) = bench.set_in_sync();
        bench.step([Event::InSyncSet {
            call,
            result: Err(CallFailure::Failed),
        }]);
        assert_eq!(bench.role(), Role::Activating);
        let wake = bench.replica.wake().unwrap();
        assert!(wake > bench.now && wake.since(bench.now) <= std::time::Duration::from_millis(500));
        bench.now = wake;
        bench.step([]);
    }
}

#[test]
fn a_confirmation_that_shows_a_longer_journal_sends_it_back_to_fetching() {
    let rows = journal(2);
    let mut bench = Bench::follower(term(4, 2), &[]);
    bench.announce(5, 1);
    bench.store();
    bench.fetched(Ok(rows[..1].to_vec()));
    bench.store();
    let (call, ..) = bench.set_in_sync();
    bench.step([Event::InSyncSet {
        call,
        result: Ok(head(5, 1, &rows)),
    }]);
    assert_eq!(bench.role(), Role::Activating);
    bench.fetched(Ok(rows[1..].to_vec()));
    bench.store();
    let (call, ..) = bench.set_in_sync();
    bench.step([Event::InSyncSet {
        call,
        result: Ok(head(5, 1, &rows)),
    }]);
    assert_eq!(bench.role(), Role::Leader);
}

#[test]
fn a_ledger_that_differs_from_the_journal_cannot_lead() {
    let rows = journal(2);
    let mut other = journal(1);
    commit(&mut other, Epoch(1), order("other"));
    for journal in [&other[..], &rows[..1]] {
        let mut bench = Bench::follower(term(4, 2), &rows);
        bench.announce(5, 1);
        bench.store();
        bench.fetched(Ok(vec![]));
        let (call, ..) = bench.set_in_sync();
        bench.step([Event::InSyncSet {
            call,
            result: Ok(head(5, 1, journal)),
        }]);
        assert_eq!(bench.role(), Role::Follower);
        assert!(bench.reported(Report::SteppedDown {
            epoch: Epoch(5),
            why: StepDown::Broken
        }));
    }
    let mut bench = Bench::follower(term(4, 2), &rows[..1]);
    bench.announce(5, 1);
    let elsewhere = LedgerEnd {
        rows: RowNumber(1),
        ..LedgerEnd::of(&other[1])
    };
    let row = Row::following(&elsewhere, Epoch(1), order("third"), other[1].price);
    bench.fetched(Ok(vec![row]));
    assert_eq!(bench.role(), Role::Follower);
}

#[test]
fn a_restarted_leader_does_not_lead_the_same_epoch_again() {
    let mut bench = Bench::follower(term(5, 1), &[]);
    assert_eq!(bench.role(), Role::Follower);
    bench.heard(Some(head(5, 1, &[])), end(&[]));
    let ticket = bench.announce(5, 1);
    assert_eq!(
        bench.announced(ticket),
        Some(Err(Refused::LeadsNoMore { epoch: Epoch(5) }))
    );
    assert_eq!(bench.role(), Role::Follower);
    bench.announce(6, 1);
    assert_eq!(bench.role(), Role::Activating);
}

#[test]
fn a_higher_epoch_ends_an_activation() {
    let mut bench = Bench::follower(term(4, 2), &[]);
    bench.announce(5, 1);
    bench.store();
    bench.fetched(Ok(vec![]));
    let (call, ..) = bench.set_in_sync();
    bench.append(6, 3, &[]);
    bench.step([Event::InSyncSet {
        call,
        result: Ok(head(5, 1, &[])),
    }]);
    assert_eq!(bench.role(), Role::Follower);
    assert_eq!(bench.replica.status().term, term(6, 3));
}
