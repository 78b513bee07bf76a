use domain::{ChainHash, Epoch, RowNumber};

use super::super::{Role, Status};
use super::*;

fn id(id: u32) -> ReplicaId {
    ReplicaId::new(id).unwrap()
}

fn at(millis: u64) -> BootTime {
    BootTime::from_millis(millis)
}

/// A replica that answered a probe, or did not, which was sent at a time.
fn probed(number: u32, unanswered: Option<Unanswered>, asked: BootTime) -> Probed {
    let status = Status {
        role: Role::Follower,
        epoch: Epoch(0),
        leader: None,
        rows: RowNumber(0),
        stock_changes: 0,
        chain: ChainHash::EMPTY,
        reaches_catalog: true,
    };
    Probed {
        id: id(number),
        status: unanswered.map_or(Ok(status), Err),
        asked,
        heard: asked,
        round_trip: Duration::ZERO,
    }
}

/// Elects as often as it may for a minute, 2 and 3 by turns. A probe of both is sent right after
/// each election: whoever was deposed is found like this. Returns how many elections there were.
fn elections_in_a_minute(deposed: Option<Unanswered>) -> u64 {
    let mut history = ElectionBackoff::default();
    let (mut now, mut epoch) = (0, 0);
    while now < 60_000 {
        let leader = id(2 + (epoch % 2) as u32);
        let term = Term {
            epoch: Epoch(epoch),
            leader: (epoch > 0).then_some(leader),
        };
        let all = |asked| [2, 3].map(|number| probed(number, deposed, asked));
        history.observed(term, &all(at(0)), at(now));
        history.observed(term, &all(at(now)), at(now));
        if history.may_elect(at(now), 0.0) {
            epoch += 1;
        }
        now += 10;
    }
    epoch
}

#[test]
fn gateways_that_depose_leaders_that_work_or_are_slow_slow_down() {
    for deposed in [None, Some(Unanswered::Silent)] {
        let elections = elections_in_a_minute(deposed);
        assert!(
            (8..100).contains(&elections),
            "{elections} in a minute, where it could be 6,000: {deposed:?}"
        );
    }
}

#[test]
fn however_often_leaders_die_the_next_one_is_elected_at_once() {
    assert_eq!(elections_in_a_minute(Some(Unanswered::Gone)), 6000);
}

#[test]
fn a_leader_that_is_gone_later_was_there_when_it_was_deposed() {
    let mut history = ElectionBackoff::default();
    let led = |epoch| Term {
        epoch: Epoch(epoch),
        leader: Some(id(3)),
    };
    history.observed(led(1), &[], at(0));
    for epoch in 2..=9 {
        let now = at(10 * epoch);
        history.observed(led(epoch), &[], now);
        history.observed(led(epoch), &[probed(3, None, now)], now);
    }
    assert!(!history.may_elect(at(90), 0.0));
    let gone = [probed(3, Some(Unanswered::Gone), at(100))];
    history.observed(led(9), &gone, at(110));
    assert!(!history.may_elect(at(110), 0.0), "each of them counts");
    assert!(history.may_elect(at(290), 0.0));
    assert!(!history.may_elect(at(290), 0.5), "with jitter, later");
}

#[test]
fn a_replica_that_is_elected_in_vain_is_passed_over_for_a_while() {
    let all = [probed(2, None, at(0)), probed(3, None, at(0))];
    let mut history = ElectionBackoff::default();
    for election in 0..4 {
        assert_eq!(history.seen(&all, at(election * 100)), all);
        history.elected(id(3), at(election * 100));
    }
    let seen = history.seen(&all, at(400));
    assert!(seen[0].status.is_ok() && seen[1].status.is_err());
    assert_eq!(
        history.seen(&all[1..], at(400)),
        all[1..],
        "unless there is no other"
    );
    assert_eq!(history.seen(&all, at(5400)), all);
}

#[test]
fn elections_far_apart_are_not_in_vain() {
    let all = [probed(2, None, at(0)), probed(3, None, at(0))];
    let mut history = ElectionBackoff::default();
    for election in 0..10 {
        history.elected(id(3), BootTime::from_millis(election * 3000));
    }
    assert_eq!(history.seen(&all, BootTime::from_millis(30_000)), all);
}
