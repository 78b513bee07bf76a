use std::time::Duration;

use domain::{ChainHash, Epoch, RowNumber};

use super::*;
use crate::backoff::{RETRY_PAUSE_MAX, RETRY_PAUSE_MIN};
use crate::election::{Role, Status};

const AT: fn(u64) -> BootTime = BootTime::from_millis;

fn id(id: u32) -> ReplicaId {
    ReplicaId::new(id).expect("not 0")
}

/// Answered a probe that was sent then.
fn answers(replica: u32, asked: u64) -> Probed {
    Probed {
        status: Ok(Status {
            role: Role::Leader,
            epoch: Epoch(1),
            leader: Some(id(1)),
            rows: RowNumber(0),
            stock_changes: 0,
            chain: ChainHash::EMPTY,
            reaches_catalog: true,
        }),
        asked: AT(asked),
        ..Probed::unknown(id(replica))
    }
}

fn silent(replica: u32, asked: u64, why: Unanswered) -> Probed {
    Probed {
        status: Err(why),
        asked: AT(asked),
        ..Probed::unknown(id(replica))
    }
}

fn led_by(leader: u32) -> CurrentLeader {
    CurrentLeader {
        term: Term {
            epoch: Epoch(leader.into()),
            leader: Some(id(leader)),
        },
        active: true,
    }
}

#[test]
fn an_attempt_is_made_again_where_its_connection_is_silent_and_later_each_time() {
    let mut repeats = Repeats::begin(AT(0), Duration::from_millis(500));
    for (look_at, heard, expected) in [
        (500, None, true),
        (1_500, Some(501), false),
        (3_500, Some(1_500), true),
        (7_500, Some(3_501), false),
    ] {
        assert_eq!(repeats.look_at(), AT(look_at));
        assert_eq!(repeats.look(AT(look_at), heard.map(AT)), expected);
    }
}

#[test]
fn a_catalog_that_never_answered_is_not_called() {
    let mut read = CatalogRead::default();
    assert_eq!(read.next(AT(1), None), Next::Wait(None));
    assert_eq!(read.next(AT(1), Some(AT(0))), Next::Call(()));
}

#[test]
fn a_catalog_that_failed_is_called_again_after_a_pause_once_it_answered_somebody_since() {
    let mut read = CatalogRead::default();
    assert_eq!(read.next(AT(1), Some(AT(0))), Next::Call(()));
    read.failed(RetryClass::Later, AT(10), 0.0);
    assert_eq!(read.next(AT(10), Some(AT(0))), Next::Suspect);
    let retry_at = AT(10) + RETRY_PAUSE_MIN;
    assert_eq!(read.next(AT(10), Some(AT(11))), Next::Wait(Some(retry_at)));
    assert_eq!(read.next(retry_at, Some(AT(10))), Next::Wait(None));
    assert_eq!(read.next(retry_at, Some(AT(11))), Next::Call(()));
}

#[test]
fn a_read_that_the_catalog_will_never_answer_is_given_up_and_nobody_is_suspected() {
    for class in [RetryClass::Elsewhere, RetryClass::Never] {
        let mut read = CatalogRead::default();
        read.failed(class, AT(10), 0.0);
        assert_eq!(read.next(AT(10), Some(AT(11))), Next::GiveUp);
    }
}

#[test]
fn an_order_is_placed_with_the_leader_and_waits_while_there_is_none() {
    let mut placement = Placement::default();
    let probed = [answers(1, 0), answers(2, 0)];
    let nobody = CurrentLeader::default();
    assert_eq!(placement.next(AT(1), nobody, &probed), Next::Wait(None));
    assert_eq!(placement.next(AT(1), led_by(2), &probed), Next::Call(id(2)));
    assert!(!placement.is_overtaken(&led_by(2)));
    assert!(placement.is_overtaken(&led_by(1)));
    assert_eq!(placement.next(AT(1), led_by(1), &probed), Next::Call(id(1)));
}

#[test]
fn a_leader_that_is_gone_or_without_a_catalog_gets_no_order_and_one_that_is_slow_gets_it() {
    let without_catalog = {
        let mut probed = answers(1, 0);
        if let Ok(status) = &mut probed.status {
            status.reaches_catalog = false;
        }
        probed
    };
    for (probed, expected) in [
        (without_catalog, Next::Wait(None)),
        (silent(1, 0, Unanswered::Gone), Next::Wait(None)),
        (silent(1, 0, Unanswered::Foreign), Next::Wait(None)),
        (silent(1, 0, Unanswered::Silent), Next::Call(id(1))),
    ] {
        let mut placement = Placement::default();
        assert_eq!(placement.next(AT(1), led_by(1), &[probed]), expected);
    }
}

#[test]
fn a_leader_that_failed_gets_the_order_again_after_a_pause_once_it_answered_a_probe_since() {
    let mut placement = Placement::default();
    placement.next(AT(1), led_by(1), &[answers(1, 0)]);
    placement.failed(RetryClass::Later, AT(10), 0.0);
    let retry_at = AT(10) + RETRY_PAUSE_MIN;
    assert_eq!(
        placement.next(AT(10), led_by(1), &[answers(1, 0)]),
        Next::Suspect
    );
    for (now, asked, expected) in [
        (AT(10), 11, Next::Wait(Some(retry_at))),
        (retry_at, 10, Next::Wait(None)),
        (retry_at, 11, Next::Call(id(1))),
    ] {
        let probed = [answers(1, asked)];
        assert_eq!(placement.next(now, led_by(1), &probed), expected);
    }
}

#[test]
fn another_leader_gets_an_order_at_once_however_the_one_before_failed() {
    let probed = [answers(1, 0), answers(2, 0)];
    for class in [RetryClass::Later, RetryClass::Elsewhere] {
        let mut placement = Placement::default();
        placement.next(AT(1), led_by(1), &probed);
        placement.failed(class, AT(10), 0.0);
        assert_eq!(placement.next(AT(10), led_by(1), &probed), Next::Suspect);
        assert!(matches!(
            placement.next(AT(10), led_by(1), &probed),
            Next::Wait(_)
        ));
        assert_eq!(
            placement.next(AT(10), led_by(2), &probed),
            Next::Call(id(2)),
            "{class:?}"
        );
    }
}

#[test]
fn a_leader_that_will_not_place_an_order_is_asked_in_its_next_epoch_only() {
    let mut placement = Placement::default();
    let later = AT(10) + RETRY_PAUSE_MAX;
    placement.next(AT(1), led_by(1), &[answers(1, 0)]);
    placement.failed(RetryClass::Elsewhere, AT(10), 0.0);
    let probed = [answers(1, 20)];
    assert_eq!(placement.next(later, led_by(1), &probed), Next::Suspect);
    let inactive = CurrentLeader {
        active: false,
        ..led_by(1)
    };
    for current in [led_by(1), inactive] {
        assert_eq!(placement.next(later, current, &probed), Next::Wait(None));
    }
    let anew = CurrentLeader {
        term: Term {
            epoch: Epoch(9),
            leader: Some(id(1)),
        },
        active: true,
    };
    assert_eq!(placement.next(later, anew, &probed), Next::Call(id(1)));
}

#[test]
fn an_order_that_nobody_can_place_is_given_up_and_nobody_is_suspected() {
    let mut placement = Placement::default();
    let probed = [answers(1, 0)];
    placement.next(AT(1), led_by(1), &probed);
    placement.failed(RetryClass::Never, AT(10), 0.0);
    assert_eq!(placement.next(AT(10), led_by(1), &probed), Next::GiveUp);
}

fn leadership(leader: u32) -> Term {
    led_by(leader).term
}

#[test]
fn an_order_is_read_at_the_leader_and_then_at_the_others_round_by_round() {
    let mut read = OrderRead::default();
    let probed = [
        answers(1, 0),
        silent(2, 0, Unanswered::Silent),
        answers(3, 0),
    ];
    for expected in [3, 1, 2] {
        let next = read.next(AT(1), leadership(3), &probed, 0.0);
        assert_eq!(next, Next::Call(id(expected)));
        read.failed(RetryClass::Later);
    }
    let now = AT(10);
    assert_eq!(
        read.next(now, leadership(3), &probed, 0.0),
        Next::Suspect,
        "nobody answered"
    );
    let retry_at = now + RETRY_PAUSE_MIN;
    assert_eq!(
        read.next(now, leadership(3), &probed, 0.0),
        Next::Wait(Some(retry_at))
    );
    assert_eq!(
        read.next(retry_at, leadership(3), &probed, 0.0),
        Next::Wait(None),
        "until one answers a probe"
    );
    let probed = [answers(1, 11), silent(3, 12, Unanswered::Gone)];
    assert_eq!(
        read.next(retry_at, leadership(3), &probed, 0.0),
        Next::Call(id(1))
    );
}

#[test]
fn where_nobody_is_there_those_who_read_have_them_looked_at_and_wait() {
    let mut read = OrderRead::default();
    let probed = [silent(1, 0, Unanswered::Gone)];
    assert_eq!(read.next(AT(1), leadership(1), &probed, 0.0), Next::Suspect);
    let later = AT(1) + Duration::from_secs(1);
    assert_eq!(
        read.next(later, leadership(1), &probed, 0.0),
        Next::Wait(None)
    );
}

#[test]
fn a_replica_that_cannot_give_an_order_is_not_asked_again_and_one_that_nobody_can_give_is_given_up()
{
    let probed = [answers(1, 0), answers(2, 0)];
    let mut read = OrderRead::default();
    assert_eq!(
        read.next(AT(1), leadership(1), &probed, 0.0),
        Next::Call(id(1))
    );
    read.failed(RetryClass::Elsewhere);
    assert_eq!(
        read.next(AT(1), leadership(1), &probed, 0.0),
        Next::Call(id(2))
    );
    read.failed(RetryClass::Later);
    assert_eq!(read.next(AT(1), leadership(1), &probed, 0.0), Next::Suspect);
    let (later, since) = (AT(500), [answers(1, 400), answers(2, 400)]);
    assert_eq!(
        read.next(later, leadership(1), &since, 0.0),
        Next::Call(id(2)),
        "and not the first"
    );
    read.failed(RetryClass::Elsewhere);
    assert_eq!(read.next(later, leadership(1), &since, 0.0), Next::GiveUp);

    let mut read = OrderRead::default();
    read.next(AT(1), leadership(1), &probed, 0.0);
    read.failed(RetryClass::Never);
    assert_eq!(read.next(AT(1), leadership(1), &probed, 0.0), Next::GiveUp);
}
