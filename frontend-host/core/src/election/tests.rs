use super::elector::Elector;
use super::*;

fn id(id: u32) -> ReplicaId {
    ReplicaId::new(id).unwrap()
}

fn replica(number: u32, role: Role, epoch: u64) -> Probed {
    let status = Status {
        role,
        epoch: Epoch(epoch),
        leader: (epoch > 0).then(|| id(3)),
        rows: RowNumber(0),
        stock_changes: 0,
        chain: ChainHash::EMPTY,
        reaches_catalog: true,
    };
    Probed {
        id: id(number),
        status: Ok(status),
        asked: BootTime::default(),
        heard: BootTime::default(),
        round_trip: Duration::ZERO,
    }
}

fn led_by_3() -> Term {
    Term {
        epoch: Epoch(2),
        leader: Some(id(3)),
    }
}

#[test]
fn the_first_leader_is_elected_and_every_replica_is_told() {
    let all: Vec<_> = (1..=3)
        .map(|number| replica(number, Role::Follower, 0))
        .collect();
    assert_eq!(
        next_step(Term::default(), &all, Some(id(3))),
        Step::Elect(id(3))
    );
    assert_eq!(
        next_step(led_by_3(), &all, Some(id(3))),
        Step::Announce(vec![id(1), id(2), id(3)])
    );
}

#[test]
fn nothing_is_done_while_the_leader_leads() {
    let all = [replica(1, Role::Follower, 2), replica(3, Role::Leader, 2)];
    assert_eq!(next_step(led_by_3(), &all, Some(id(3))), Step::Nothing);
    assert_eq!(next_step(led_by_3(), &all, None), Step::Nothing);
    assert!(leads(led_by_3(), &all));
}

#[test]
fn a_replica_that_came_back_is_told() {
    let all = [replica(1, Role::Follower, 1), replica(3, Role::Leader, 2)];
    assert_eq!(
        next_step(led_by_3(), &all, Some(id(3))),
        Step::Announce(vec![id(1)])
    );
}

#[test]
fn a_leader_that_restarted_is_told_and_may_refuse() {
    let all = [replica(1, Role::Follower, 2), replica(3, Role::Follower, 2)];
    assert_eq!(
        next_step(led_by_3(), &all, Some(id(3))),
        Step::Announce(vec![id(3)])
    );
    assert!(!leads(led_by_3(), &all));
}

#[test]
fn another_choice_of_the_policy_is_an_election() {
    let all = [replica(2, Role::Follower, 2), replica(3, Role::Leader, 2)];
    assert_eq!(next_step(led_by_3(), &all, Some(id(2))), Step::Elect(id(2)));
}

#[test]
fn a_replica_that_does_not_answer_is_not_elected() {
    let dead = Probed {
        status: Err(Unanswered::Silent),
        ..replica(2, Role::Follower, 0)
    };
    let all = [dead, replica(3, Role::Leader, 2)];
    assert_eq!(next_step(led_by_3(), &all, Some(id(2))), Step::Nothing);
}

#[test]
fn without_a_healthy_replica_nothing_can_be_done() {
    let dead = Probed {
        status: Err(Unanswered::Silent),
        ..replica(3, Role::Follower, 0)
    };
    assert_eq!(
        next_step(Term::default(), std::slice::from_ref(&dead), None),
        Step::Nothing
    );
    assert_eq!(next_step(led_by_3(), &[dead], None), Step::Nothing);
}

/// A gateway that starts finds a leader, and is not the one to depose it before it has heard it or that it is silent;
/// nor is one that hears nobody.
#[test]
fn a_leader_that_was_not_heard_yet_is_waited_for() {
    let at = BootTime::from_millis;
    let follower = replica(1, Role::Follower, 2);
    let unheard = Probed::unknown(id(3));
    let silent = Probed {
        status: Err(Unanswered::Silent),
        ..unheard.clone()
    };
    let looks = |leader: &Probed, now: u64| {
        let mut elector = Elector::new(at(1_000));
        let probed = vec![follower.clone(), leader.clone()];
        elector
            .look(led_by_3(), Vec::new(), probed, at(now))
            .is_some()
    };
    assert!(!looks(&unheard, 1_010) && !looks(&unheard, 100_000));
    assert!(looks(&replica(3, Role::Leader, 2), 1_010));
    assert!(looks(&silent, 1_010));
}

#[test]
fn whatever_the_catalog_says_last_is_news_also_where_its_epoch_fell() {
    let led = |epoch, leader| CurrentLeader {
        term: Term {
            epoch: Epoch(epoch),
            leader: Some(id(leader)),
        },
        active: true,
    };
    let idle = CurrentLeader {
        active: false,
        ..led(5, 3)
    };
    for (before, now, is_news) in [
        (led(5, 3), led(5, 3), false),
        (led(5, 3), led(6, 2), true),
        (idle, led(5, 3), true),
        // An older copy of the catalog's database was served, and is not any more.
        (led(5, 3), led(3, 2), true),
        (led(5, 3), led(5, 2), true),
    ] {
        assert_eq!(
            now.is_news_after(&before),
            is_news,
            "{now:?} after {before:?}"
        );
    }
}
