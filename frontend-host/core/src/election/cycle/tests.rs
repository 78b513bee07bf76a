use std::time::Duration;

use domain::{ChainHash, RowNumber};

use super::*;
use crate::election::{Role, Status};

const AT: fn(u64) -> BootTime = BootTime::from_millis;

fn id(id: u32) -> ReplicaId {
    ReplicaId::new(id).expect("not 0")
}

fn probed(replica: u32, role: Role, epoch: u64) -> Probed {
    Probed {
        status: Ok(Status {
            role,
            epoch: Epoch(epoch),
            leader: Some(id(1)).filter(|_| epoch > 0),
            rows: RowNumber(0),
            stock_changes: 0,
            chain: ChainHash::EMPTY,
            reaches_catalog: true,
        }),
        asked: AT(1),
        ..Probed::unknown(id(replica))
    }
}

fn said(epoch: u64, leader: u32) -> Result<LeadershipAnswer, RetryClass> {
    Ok(LeadershipAnswer {
        term: led(epoch, leader),
        in_sync: Vec::new(),
    })
}

fn led(epoch: u64, leader: u32) -> Term {
    Term {
        epoch: Epoch(epoch),
        leader: ReplicaId::new(leader),
    }
}

/// That asks the catalog for the first time.
fn asking() -> ElectionCycle {
    let mut cycle = ElectionCycle::new(AT(1));
    assert_eq!(cycle.next(AT(1)), Some(ElectionTask::AskCatalog));
    assert_eq!(cycle.next(AT(1)), None, "one thing at a time");
    cycle
}

/// The task that follows where the catalog says so and the policy wants replica 1.
fn wanting_1(
    cycle: &mut ElectionCycle,
    said: Result<LeadershipAnswer, RetryClass>,
    probed: Vec<Probed>,
    now: BootTime,
) -> Option<ElectionTask> {
    match cycle.catalog_said(said, probed, now, 0.0) {
        Some(ElectionTask::AskPolicy(_)) => cycle.policy_wants(Some(id(1)), now, 0.0),
        other => other,
    }
}

fn two(role: Role, epoch: u64) -> Vec<Probed> {
    vec![probed(1, role, epoch), probed(2, Role::Follower, epoch)]
}

#[test]
fn nobody_leads_so_one_is_elected_and_all_are_told_and_trades_go_to_it() {
    let mut cycle = asking();
    let idle = two(Role::Follower, 0);
    let elect = wanting_1(&mut cycle, said(0, 0), idle.clone(), AT(2));
    let expected = ElectionTask::Elect {
        expected: Epoch(0),
        candidate: id(1),
    };
    assert_eq!(elect, Some(expected));
    let announce = cycle.elected(Some(led(1, 1)), &idle, AT(3));
    let expected = ElectionTask::Announce {
        epoch: Epoch(1),
        leader: id(1),
        replicas: vec![id(1), id(2)],
    };
    assert_eq!(announce, Some(expected));
    assert_eq!(cycle.current().term, led(1, 1));
    assert!(!cycle.current().active);
    cycle.announced(&two(Role::Leader, 1), AT(4));
    assert!(cycle.current().active);
    assert_eq!(cycle.wake(), Some(AT(4) + STEP_PAUSE + ELECTION_INTERVAL));
    cycle.hurry();
    assert_eq!(cycle.wake(), Some(AT(4) + STEP_PAUSE));
}

#[test]
fn a_catalog_that_is_away_is_asked_after_growing_pauses_and_another_bazaars_at_leisure() {
    let mut cycle = asking();
    let mut now = AT(1);
    let mut pauses = Vec::new();
    for class in [RetryClass::Later, RetryClass::Later, RetryClass::Elsewhere] {
        cycle.hurry();
        let task = cycle.catalog_said(Err(class), Vec::new(), now, 0.0);
        assert_eq!(task, None);
        let due = cycle.wake().expect("nothing is under way");
        pauses.push(due.since(now));
        now = due;
        assert_eq!(cycle.next(now), Some(ElectionTask::AskCatalog));
    }
    assert_eq!(pauses, [STEP_PAUSE, STEP_PAUSE * 2, ELECTION_INTERVAL]);
}

#[test]
fn an_election_that_fails_is_followed_by_another_look() {
    let mut cycle = asking();
    let idle = two(Role::Follower, 0);
    wanting_1(&mut cycle, said(0, 0), idle.clone(), AT(2));
    assert_eq!(cycle.elected(None, &idle, AT(3)), None);
    assert_eq!(cycle.current(), CurrentLeader::default());
    assert!(cycle.wake().is_some());
}

#[test]
fn a_leader_that_says_no_is_given_another_epoch_soon_and_one_that_says_nothing_is_told_again() {
    for (class, refused) in [(RetryClass::Never, true), (RetryClass::Later, false)] {
        let mut cycle = asking();
        let uninformed = two(Role::Follower, 0);
        // It waits for a leader that it has not heard of, at first.
        let mut now = AT(1_000);
        let task = wanting_1(&mut cycle, said(1, 1), uninformed.clone(), now);
        assert!(
            matches!(task, Some(ElectionTask::Announce { .. })),
            "{task:?}"
        );
        assert!(
            !cycle.announcement_failed(id(2), RetryClass::Never),
            "it does not lead"
        );
        assert_eq!(cycle.announcement_failed(id(1), class), refused);
        cycle.announced(&uninformed, now);
        let most = if refused {
            STEP_PAUSE
        } else {
            STEP_PAUSE + ELECTION_INTERVAL
        };
        now = now + most;
        assert_eq!(cycle.wake(), Some(now));
        cycle.next(now);
        let task = wanting_1(&mut cycle, said(1, 1), uninformed, now);
        let elects = matches!(task, Some(ElectionTask::Elect { .. }));
        assert_eq!(elects, refused, "{task:?}");
    }
}

#[test]
fn nothing_is_done_while_all_is_as_it_should_be_and_the_policy_is_asked_each_time() {
    let mut cycle = asking();
    let mut now = AT(1_000);
    for _ in 0..3 {
        let task = cycle.catalog_said(said(1, 1), two(Role::Leader, 1), now, 0.0);
        assert!(matches!(task, Some(ElectionTask::AskPolicy(_))), "{task:?}");
        assert!(cycle.current().active, "before the policy is asked");
        assert_eq!(cycle.policy_wants(Some(id(1)), now, 0.0), None);
        now = now + Duration::from_secs(1);
        assert_eq!(cycle.next(now), Some(ElectionTask::AskCatalog));
    }
}
