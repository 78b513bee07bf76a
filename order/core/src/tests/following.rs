use domain::Role;
use domain::{Epoch, LedgerEnd, RowNumber};

use super::bench::*;
use crate::catch_up::CHUNK_ROWS;
use crate::message::*;
use crate::{Command, Event};

#[test]
fn rows_are_acknowledged_once_they_and_the_term_are_durable() {
    let rows = journal(3);
    let mut bench = Bench::follower(term(1, 2), &rows[..1]);
    let ticket = bench.append(2, 3, &rows[1..]);
    assert_eq!(bench.append_answer(ticket), None);
    bench.store();
    assert_eq!(bench.append_answer(ticket), Some(Ok(end(&rows))));
    assert_eq!(bench.disk.term, term(2, 3));
}

#[test]
fn rows_that_it_has_are_passed_over_but_not_before_they_are_durable() {
    let rows = journal(3);
    let mut bench = Bench::follower(term(1, 2), &[]);
    let first = bench.append(1, 2, &rows);
    let again = bench.append(1, 2, &rows);
    assert_eq!(
        (bench.append_answer(first), bench.append_answer(again)),
        (None, None)
    );
    bench.store();
    assert_eq!(bench.append_answer(first), Some(Ok(end(&rows))));
    assert_eq!(bench.append_answer(again), Some(Ok(end(&rows))));
}

#[test]
fn rows_past_a_gap_are_answered_with_what_it_holds() {
    let rows = journal(3);
    let mut bench = Bench::follower(term(1, 2), &rows[..1]);
    let ticket = bench.append(1, 2, &rows[2..]);
    assert_eq!(bench.append_answer(ticket), Some(Ok(end(&rows[..1]))));
    bench.store();
    assert_eq!(bench.disk.durable().end, end(&rows[..1]));
}

#[test]
fn rows_of_another_history_are_refused_loudly() {
    let rows = journal(3);
    let mut other = journal(1);
    commit(&mut other, Epoch(1), order("other"));
    let chain = end(&rows[..2]).chain;
    let third = commit(&mut other.clone(), Epoch(1), order("third"));
    for (sent, broken) in [
        (vec![other[1].clone()], other[1].number),
        (vec![third.clone()], third.number),
    ] {
        let mut bench = Bench::follower(term(1, 2), &rows[..2]);
        let ticket = bench.append(1, 2, &sent);
        assert_eq!(
            bench.append_answer(ticket),
            Some(Err(Refused::Broken { number: broken }))
        );
        assert!(bench.reported(Report::Broken {
            from: Sender::Replica(id(2)),
            number: broken,
            chain
        }));
        bench.store();
        assert_eq!(
            bench.disk.durable().end,
            end(&rows[..2]),
            "nothing of it is stored"
        );
    }
}

#[test]
fn lower_epochs_are_refused() {
    let rows = journal(1);
    let mut bench = Bench::follower(term(4, 2), &[]);
    let (announced, appended) = (bench.announce(3, 3), bench.append(3, 3, &rows));
    let stale = Refused::Stale { known: Epoch(4) };
    assert_eq!(bench.announced(announced), Some(Err(stale)));
    assert_eq!(bench.append_answer(appended), Some(Err(stale)));
    // A higher one is known before it is durable.
    bench.announce(6, 2);
    let ticket = bench.append(5, 3, &rows);
    assert_eq!(
        bench.append_answer(ticket),
        Some(Err(Refused::Stale { known: Epoch(6) }))
    );
}

#[test]
fn one_epoch_has_one_leader() {
    let mut bench = Bench::follower(term(4, 2), &[]);
    let (announced, appended, own) = (
        bench.announce(4, 3),
        bench.append(4, 3, &[]),
        bench.append(5, 1, &[]),
    );
    let refused = Refused::OtherLeader { epoch: Epoch(4) };
    assert_eq!(bench.announced(announced), Some(Err(refused)));
    assert_eq!(bench.append_answer(appended), Some(Err(refused)));
    assert_eq!(
        bench.append_answer(own),
        Some(Err(Refused::OtherLeader { epoch: Epoch(5) })),
        "it sends itself nothing"
    );
    assert_eq!(bench.role(), Role::Activating);
    assert_eq!(bench.replica.status().term, term(5, 1));
}

#[test]
fn an_announcement_is_answered_once_the_term_is_durable() {
    let mut bench = Bench::follower(term(4, 2), &[]);
    let ticket = bench.announce(5, 3);
    assert_eq!(bench.announced(ticket), None);
    let again = bench.announce(5, 3);
    assert_eq!(bench.announced(again), None);
    bench.store();
    assert_eq!(bench.announced(ticket).unwrap().unwrap().term, term(5, 3));
    assert!(bench.announced(again).is_some());
    let later = bench.announce(5, 3);
    assert!(bench.announced(later).is_some());
}

#[test]
fn a_term_that_could_not_be_stored_is_stored_when_it_is_announced_again() {
    let mut bench = Bench::follower(term(4, 2), &[]);
    let ticket = bench.announce(5, 3);
    bench.fail_to_store();
    assert_eq!(bench.announced(ticket), Some(Err(Refused::StoreFailed)));
    let ticket = bench.announce(5, 3);
    assert_eq!(bench.announced(ticket), None);
    bench.store();
    assert!(bench.announced(ticket).unwrap().is_ok());
    assert_eq!(bench.disk.term, term(5, 3));
}

#[test]
fn a_full_disk_refuses_rows_and_later_takes_them() {
    let rows = journal(4);
    let mut bench = Bench::follower(term(1, 2), &rows[..1]);
    let (first, second) = (
        bench.append(1, 2, &rows[1..2]),
        bench.append(1, 2, &rows[2..]),
    );
    bench.fail_to_store();
    assert_eq!(bench.append_answer(first), Some(Err(Refused::StoreFailed)));
    assert_eq!(bench.append_answer(second), Some(Err(Refused::StoreFailed)));
    let ticket = bench.append(1, 2, &rows[1..]);
    bench.store();
    assert_eq!(bench.append_answer(ticket), Some(Ok(end(&rows))));
}

#[test]
fn it_catches_up_at_its_start_from_the_journal_the_peers_and_the_journal() {
    let rows = journal(2 * CHUNK_ROWS + 2);
    let mut bench = Bench::new(term(1, 2), &[]);
    assert_eq!(
        bench.fetched(Ok(rows[..CHUNK_ROWS].to_vec())),
        Source::Journal
    );
    bench.store();
    let (call, source, from) = bench.fetch();
    assert_eq!(
        (source, from),
        (Source::Peer(id(3)), end(&rows[..CHUNK_ROWS]).rows)
    );
    bench.step([Event::Fetched {
        call,
        result: Ok(rows[CHUNK_ROWS..2 * CHUNK_ROWS].to_vec()),
    }]);
    bench.store();
    assert_eq!(
        bench.fetched(Ok(rows[2 * CHUNK_ROWS..][..1].to_vec())),
        Source::Peer(id(3)),
        "it may have more"
    );
    assert_eq!(bench.fetched(Err(CallFailure::Failed)), Source::Peer(id(2)));
    assert_eq!(
        bench.fetched(Ok(rows[2 * CHUNK_ROWS + 1..].to_vec())),
        Source::Journal
    );
    bench.store();
    assert_eq!(bench.disk.durable().end, end(&rows));
    assert!(bench.reported(Report::CaughtUp {
        orders: end(&rows).rows
    }));
    assert_eq!(bench.replica.wake(), None, "it has nothing more to do");
}

#[test]
fn it_goes_on_trying_to_catch_up_and_takes_what_peers_have_meanwhile() {
    let rows = journal(3);
    let mut bench = Bench::new(term(1, 2), &[]);
    for round in 0..5 {
        assert_eq!(
            bench.fetched(Err(CallFailure::Failed)),
            Source::Journal,
            "round {round}"
        );
        assert_eq!(bench.fetched(Ok(rows[..2].to_vec())), Source::Peer(id(3)));
        bench.store();
        assert_eq!(bench.disk.durable().end, end(&rows[..2]));
        assert_eq!(bench.fetched(Ok(vec![])), Source::Peer(id(2)));
        assert_eq!(bench.fetched(Err(CallFailure::Failed)), Source::Journal);
        assert!(
            bench
                .commands
                .iter()
                .all(|command| !matches!(command, crate::Command::Fetch { .. })),
            "it waits"
        );
        bench.now = bench.replica.wake().unwrap();
        bench.step([]);
    }
    bench.fetched(Ok(rows[2..].to_vec()));
    bench.store();
    assert_eq!(bench.disk.durable().end, end(&rows));
}

#[test]
fn a_follower_that_lacks_known_rows_for_long_fetches_them() {
    let rows = journal(3);
    let mut bench = Bench::follower(term(1, 2), &rows[..1]);
    bench.heard(Some(head(1, 2, &rows)), end(&rows[..1]));
    bench.pass(900);
    bench.append(1, 2, &rows[..2]);
    bench.store();
    bench.pass(900);
    assert!(
        bench
            .find(|command| matches!(command, crate::Command::Fetch { .. }).then_some(()))
            .is_none()
    );
    bench.pass(100);
    assert_eq!(bench.fetched(Ok(rows[2..].to_vec())), Source::Journal);
    bench.store();
    assert_eq!(bench.disk.durable().end, end(&rows));
}

#[test]
fn the_catalog_alone_tells_of_a_higher_epoch() {
    let mut bench = Bench::follower(term(4, 2), &[]);
    let forged = bench.announce_unconfirmed(1 << 40, 3);
    let unconfirmed = Refused::Unconfirmed {
        epoch: Epoch(1 << 40),
        known: Epoch(4),
    };
    assert_eq!(bench.announced(forged), Some(Err(unconfirmed)));
    assert_eq!(bench.replica.status().term, term(4, 2));
    bench.heard(Some(head(5, 3, &[])), end(&[]));
    bench.store();
    assert_eq!(bench.disk.term, term(5, 3));
    bench.heard(Some(head(6, 1, &[])), end(&[]));
    assert_eq!(bench.role(), Role::Activating);
}

#[test]
fn a_replica_above_the_catalogs_epoch_is_the_one_that_fails() {
    let rows = journal(1);
    let mut bench = Bench::follower(term(1 << 40, 2), &rows);
    bench.heard(Some(head(4, 3, &rows)), end(&rows));
    let failure = Failure::AboveCatalog {
        own: Epoch(1 << 40),
        catalog: Epoch(4),
    };
    assert_eq!(bench.failed(), Some(failure));
}

#[test]
fn a_ledger_that_the_journal_does_not_begin_with_ends_its_replica() {
    let (rows, mut other) = (journal(2), journal(1));
    commit(&mut other, Epoch(2), order("another"));
    let differs = Failure::Differs { rows: RowNumber(2) };
    let mut bench = Bench::follower(term(4, 2), &rows);
    bench.heard(Some(head(4, 2, &other)), end(&rows));
    assert_eq!(bench.failed(), Some(differs));

    let mut bench = Bench::new(term(4, 2), &rows);
    assert_eq!(bench.fetched(Err(CallFailure::Differs)), Source::Journal);
    assert_eq!(bench.failed(), Some(differs));

    let mut bench = Bench::new(term(4, 2), &rows);
    bench.fetched(Err(CallFailure::Failed));
    assert_eq!(
        bench.fetched(Err(CallFailure::Differs)),
        Source::Peer(id(3))
    );
    assert_eq!(bench.failed(), None, "a peer is not the journal");
}

#[test]
fn a_catalog_that_lost_rows_is_shown_the_first_of_them() {
    let rows = journal(3);
    let mut bench = Bench::leader(&rows);
    bench.heard(Some(head(5, 1, &rows[..1])), end(&rows));
    let (journal, held) = (RowNumber(1), RowNumber(3));
    assert!(bench.reported(Report::CatalogLostRows { journal, held }));
    assert_eq!(bench.role(), Role::Follower);
    for _ in 0..2 {
        let missing = |command: &Command| match command {
            Command::ReportMissing(number) => Some(*number),
            _ => None,
        };
        assert_eq!(bench.find(missing), Some(RowNumber(1)));
        bench.heard(Some(head(5, 1, &rows[..1])), end(&rows));
        assert!(!bench.reported(Report::CatalogLostRows { journal, held }));
    }
    assert_eq!(bench.failed(), None);

    let mut bench = Bench::new(term(4, 2), &rows);
    bench.fetched(Err(CallFailure::Beyond));
    let asks = |command: &Command| matches!(command, Command::AskCatalog).then_some(());
    assert!(bench.find(asks).is_some());
}

#[test]
fn rows_that_came_since_the_catalog_was_asked_are_not_lost_by_it() {
    let rows = journal(3);
    let mut bench = Bench::follower(term(1, 2), &rows[..1]);
    bench.append(1, 2, &rows);
    bench.store();
    bench.heard(Some(head(1, 2, &rows[..1])), end(&rows[..1]));
    bench.heard(Some(head(1, 2, &rows[..2])), end(&rows[..1]));
    assert_eq!(bench.failed(), None);
    assert!(bench.commands.iter().all(|command| !matches!(
        command,
        Command::ReportMissing(_) | Command::Report(Report::CatalogLostRows { .. })
    )));
}

#[test]
fn whether_the_catalog_is_reached_is_known() {
    let mut bench = Bench::new(term(4, 2), &[]);
    assert!(!bench.replica.status().reaches_catalog);
    bench.heard(Some(head(4, 2, &[])), end(&[]));
    assert!(bench.replica.status().reaches_catalog);
    bench.heard(None, end(&[]));
    assert!(!bench.replica.status().reaches_catalog);
}

#[test]
fn before_the_catalog_was_heard_since_the_start_nothing_is_taken() {
    let rows = journal(2);
    let mut bench = Bench::new(term(1, 2), &rows[..1]);
    bench.fetched(Ok(vec![]));
    assert!(!bench.replica.status().takes_rows);
    let ticket = bench.append(1, 2, &rows);
    let refused = Refused::LetGo { epoch: Epoch(1) };
    assert_eq!(bench.append_answer(ticket), Some(Err(refused)));
    bench.heard(Some(head(1, 2, &rows[..1])), end(&rows[..1]));
    assert!(bench.replica.status().takes_rows);
    let ticket = bench.append(1, 2, &rows);
    bench.store();
    assert_eq!(bench.append_answer(ticket), Some(Ok(end(&rows))));
}

#[test]
fn what_is_under_way_is_let_go_of_before_a_catalog_that_has_started_is_told_anything() {
    let mut rows = journal(2);
    let mut bench = Bench::follower(term(1, 2), &rows[..1]);
    let saving = bench.append(1, 2, &rows);
    assert_eq!(bench.catalog_starts(7), (end(&rows), term(1, 2)));
    let refused = Some(Err(Refused::LetGo { epoch: Epoch(1) }));
    assert_eq!(
        bench.append_answer(saving),
        refused,
        "it would acknowledge it"
    );
    bench.store();
    commit(&mut rows, Epoch(1), order("another"));
    let late = bench.append(1, 2, &rows[2..]);
    assert_eq!(bench.append_answer(late), refused);
    // Nor does it fetch what it hears of, and it is asked again and again.
    bench.step([Event::Heard(RowNumber(9))]);
    bench.pass(10_000);
    assert_eq!(bench.catalog_starts(7), (end(&rows[..2]), term(1, 2)));
    assert!(
        bench
            .find(|it| matches!(it, Command::Fetch { .. }).then_some(()))
            .is_none()
    );
    // Another run begins the epoch that is known: it does not know of this replica's.
    bench.heard(Some(head(1, 2, &rows[..2])), end(&rows[..2]));
    assert!(!bench.replica.status().takes_rows);
    bench.heard(Some(head(2, 3, &rows[..2])), end(&rows[..2]));
    assert!(bench.replica.status().takes_rows);
    assert!(
        bench
            .find(|it| matches!(it, Command::Fetch { .. }).then_some(()))
            .is_some()
    );
    let ticket = bench.append(2, 3, &rows[2..]);
    bench.store();
    assert_eq!(bench.append_answer(ticket), Some(Ok(end(&rows))));
}

#[test]
fn a_leader_acknowledges_nothing_once_it_has_told_a_catalog_what_it_has() {
    let mut bench = Bench::leader(&[]);
    let ticket = bench.place("one");
    let (call, _) = bench.trade();
    bench.catalog_starts(7);
    assert_eq!(bench.role(), Role::Follower);
    assert_eq!(bench.placed(ticket), Some(Err(Unavailable::SteppedDown)));
    let mut rows = Vec::new();
    let row = commit(&mut rows, Epoch(5), order("one"));
    bench.step([Event::Traded {
        call,
        result: Ok(vec![Outcome::Row(row)]),
    }]);
    bench.store();
    assert_eq!(bench.catalog_starts(7).0, LedgerEnd::default());
}
