use super::*;
use StatementOutcome::{Durable, Failed, Fenced, Unknown};

const AT: fn(u64) -> BootTime = BootTime::from_millis;
const LEASE: Duration = Duration::from_secs(1);
const HERE: Incarnation = Incarnation {
    system: 7,
    timeline: 1,
    started_us: 5,
};
const ELSEWHERE: Incarnation = Incarnation {
    timeline: 2,
    ..HERE
};

fn row(term: u64, beat: u64, holder: Option<u64>) -> WriterRow {
    WriterRow {
        term: WriterTerm(term),
        beat,
        holder: holder.map(WriterId),
    }
}

fn fence(term: u64, holder: u64) -> Fence {
    Fence {
        term: WriterTerm(term),
        holder: WriterId(holder),
    }
}

/// A catalog that stands by from 0 on, and has looked then.
fn standby(seen: WriterRow) -> WriterLease {
    let mut lease = WriterLease::new(WriterId(1), LEASE, AT(0));
    assert_eq!(lease.next(AT(0)), Some(WriterStep::Look));
    lease.seen(seen, HERE, AT(0));
    lease
}

/// A catalog that was told at 1,000 that it holds term 1, which it asked for then.
fn loading() -> WriterLease {
    let mut lease = standby(row(0, 0, None));
    lease.next(AT(1_000));
    lease.seen(row(0, 0, None), HERE, AT(1_000));
    let step = lease.next(AT(1_000));
    assert!(matches!(step, Some(WriterStep::TakeOver(_))), "{step:?}");
    lease.told(Durable, AT(1_000));
    assert_eq!(lease.next(AT(1_000)), Some(WriterStep::Load));
    lease
}

/// The same, once it has loaded.
fn active() -> WriterLease {
    let mut lease = loading();
    lease.loaded();
    lease
}

/// Has it look at a row whenever it would, from a time on. Returns when it takes over, and from whom.
fn take_over(lease: &mut WriterLease, seen: WriterRow, from: u64) -> Option<(u64, Claim)> {
    for at in from..from + 5_000 {
        while let Some(step) = lease.next(AT(at)) {
            match step {
                WriterStep::Look => lease.seen(seen, HERE, AT(at)),
                WriterStep::TakeOver(claim) => return Some((at, claim)),
                step => panic!("{step:?}"),
            }
        }
    }
    None
}

#[test]
fn a_term_is_taken_over_once_its_holder_has_shown_nothing_for_a_lease() {
    let mut lease = standby(row(3, 8, Some(2)));
    let (at, claim) = take_over(&mut lease, row(3, 8, Some(2)), 0).expect("it takes over");
    assert_eq!(at, 1_000);
    let expected = Claim {
        term: WriterTerm(3),
        beat: 8,
        next: fence(4, 1),
    };
    assert_eq!(claim, expected);
}

#[test]
fn every_sign_of_life_is_waited_for_anew() {
    for (seen, incarnation) in [
        (row(3, 9, Some(2)), HERE),
        (row(4, 8, Some(3)), HERE),
        (row(3, 8, Some(2)), ELSEWHERE),
        (row(3, 8, None), ELSEWHERE),
    ] {
        let mut lease = standby(row(3, 8, Some(2)));
        lease.next(AT(600));
        lease.seen(seen, incarnation, AT(600));
        assert_eq!(lease.next(AT(1_599)), Some(WriterStep::Look), "{seen:?}");
        lease.seen(seen, incarnation, AT(1_599));
        assert_eq!(lease.next(AT(1_599)), None, "{seen:?}");
        let step = lease.next(AT(1_600));
        assert!(matches!(step, Some(WriterStep::TakeOver(_))), "{step:?}");
    }
}

#[test]
fn a_term_that_was_handed_over_is_not_waited_for_where_the_database_is_known() {
    let mut lease = standby(row(3, 8, Some(2)));
    lease.next(AT(1_010));
    lease.seen(row(3, 9, None), HERE, AT(1_010));
    let step = lease.next(AT(1_010));
    assert!(matches!(step, Some(WriterStep::TakeOver(_))), "{step:?}");

    let mut just_started = standby(row(3, 9, None));
    let taken = take_over(&mut just_started, row(3, 9, None), 0);
    assert_eq!(taken.map(|(at, _)| at), Some(1_000));
}

#[test]
fn who_lost_the_race_looks_who_won() {
    let mut lease = standby(row(0, 0, None));
    assert!(take_over(&mut lease, row(0, 0, None), 0).is_some());
    lease.told(Fenced, AT(1_003));
    assert_eq!(lease.role(), WriterRole::Standby);
    assert_eq!(lease.next(AT(1_003)), Some(WriterStep::Look));
    lease.seen(row(1, 1, Some(2)), HERE, AT(1_003));
    assert_eq!(lease.next(AT(1_003)), None);
    assert_eq!(lease.last_seen(), Some(row(1, 1, Some(2))));
}

#[test]
fn a_take_over_that_failed_is_tried_again_after_a_look_and_not_at_once() {
    let mut lease = standby(row(0, 0, None));
    assert!(take_over(&mut lease, row(0, 0, None), 0).is_some());
    lease.told(Failed, AT(1_003));
    assert_eq!(lease.next(AT(1_052)), None);
    assert_eq!(lease.next(AT(1_053)), Some(WriterStep::Look));
}

#[test]
fn nothing_is_answered_or_lent_before_all_is_loaded() {
    let mut lease = loading();
    assert!(!lease.serves(AT(1_000)));
    assert_eq!(lease.grantable(AT(1_000), AT(1_000)), Duration::ZERO);
    // Rows that are missing are put back meanwhile.
    assert_eq!(lease.begin(AT(1_001)), Ok(fence(1, 1)));
    lease.told(Durable, AT(1_003));
    lease.loaded();
    assert!(lease.serves(AT(1_900)));
    assert!(!lease.serves(AT(1_901)));
}

#[test]
fn it_answers_from_when_a_beat_was_sent_for_a_lease_less_a_margin() {
    let mut lease = active();
    assert!(lease.serves(AT(1_899)));
    assert!(!lease.serves(AT(1_900)));
    assert_eq!(lease.next(AT(1_332)), None);
    assert_eq!(lease.next(AT(1_333)), None);
    assert_eq!(lease.next(AT(1_334)), Some(WriterStep::Beat(fence(1, 1))));
    assert!(lease.is_writing());
    lease.told(Durable, AT(1_700));
    assert!(lease.serves(AT(2_233)));
    assert!(!lease.serves(AT(2_234)));
}

#[test]
fn a_commit_is_a_beat_and_one_that_failed_is_none() {
    let mut lease = active();
    assert_eq!(lease.begin(AT(1_300)), Ok(fence(1, 1)));
    lease.told(Durable, AT(1_310));
    assert_eq!(lease.next(AT(1_633)), None);
    assert_eq!(lease.begin(AT(1_500)), Ok(fence(1, 1)));
    lease.told(Failed, AT(1_510));
    assert!(lease.serves(AT(2_199)));
    assert!(!lease.serves(AT(2_200)));
}

#[test]
fn a_lease_that_ran_out_comes_back_with_the_next_beat() {
    let mut lease = active();
    assert!(!lease.serves(AT(3_000)));
    assert_eq!(lease.next(AT(3_000)), Some(WriterStep::Beat(fence(1, 1))));
    lease.told(Durable, AT(3_002));
    assert_eq!(lease.role(), WriterRole::Active);
    assert!(lease.serves(AT(3_002)));
}

#[test]
fn no_gateway_is_granted_more_than_is_left() {
    let lease = active();
    for (received, now, granted) in [
        (1_000, 1_000, 900),
        (1_400, 1_400, 500),
        (1_100, 1_800, 800), // it was waited for what it owed
        (1_899, 1_900, 0),
    ] {
        let granted = Duration::from_millis(granted);
        assert_eq!(
            lease.grantable(AT(received), AT(now)),
            granted,
            "{received}"
        );
    }
}

#[test]
fn what_nobody_knows_ends_the_term() {
    for (outcome, why) in [(Fenced, StepDown::Fenced), (Unknown, StepDown::Unknown)] {
        let mut lease = active();
        lease.begin(AT(1_100)).expect("it is active");
        lease.told(outcome, AT(1_110));
        assert!(!lease.serves(AT(1_110)));
        assert_eq!(lease.begin(AT(1_110)), Err(NotActive));
        assert_eq!(lease.next(AT(1_110)), Some(WriterStep::StepDown(why)));
        assert_eq!(lease.next(AT(1_110)), Some(WriterStep::Look));
    }
}

#[test]
fn a_lost_connection_ends_the_term_whether_or_not_anything_is_on_its_way() {
    for (is_writing, why) in [(true, StepDown::Unknown), (false, StepDown::ConnectionLost)] {
        let mut lease = active();
        if is_writing {
            lease.begin(AT(1_100)).expect("it is active");
        }
        lease.lost(AT(1_200));
        assert_eq!(lease.next(AT(1_200)), Some(WriterStep::StepDown(why)));
    }
}

#[test]
fn a_statement_that_is_never_answered_is_given_up() {
    let mut lease = active();
    lease.begin(AT(1_100)).expect("it is active");
    assert_eq!(lease.next(AT(4_099)), None);
    let step = Some(WriterStep::StepDown(StepDown::Unknown));
    assert_eq!(lease.next(AT(4_100)), step);

    let mut lease = standby(row(0, 0, None));
    let (at, _) = take_over(&mut lease, row(0, 0, None), 0).expect("it is free");
    assert_eq!(lease.next(AT(at + 2_999)), None);
    assert_eq!(lease.next(AT(at + 3_000)), step);
}

#[test]
fn its_own_term_is_taken_up_again_once_what_it_lent_is_over() {
    let mut lease = active();
    lease.lost(AT(1_200));
    lease.next(AT(1_200));
    let taken = take_over(&mut lease, row(1, 1, Some(1)), 1_200);
    let taken = taken.map(|(at, claim)| (at, claim.next));
    assert_eq!(taken, Some((2_000, fence(2, 1))));
}

#[test]
fn a_take_over_of_which_nobody_knows_is_made_anew_and_not_believed() {
    let mut lease = standby(row(0, 0, None));
    assert!(take_over(&mut lease, row(0, 0, None), 0).is_some());
    lease.lost(AT(1_010));
    let step = Some(WriterStep::StepDown(StepDown::Unknown));
    assert_eq!(lease.next(AT(1_010)), step);
    assert_eq!(lease.next(AT(1_010)), Some(WriterStep::Look));
    lease.seen(row(1, 1, Some(1)), HERE, AT(1_012));
    assert_eq!(lease.role(), WriterRole::Standby);
    let Some(WriterStep::TakeOver(claim)) = lease.next(AT(1_012)) else {
        panic!("it takes over from itself");
    };
    assert_eq!((claim.beat, claim.next), (1, fence(2, 1)));
}

#[test]
fn a_catalog_that_stops_gives_its_term_back_once_nobody_holds_anything() {
    let mut lease = active();
    lease.begin(AT(1_100)).expect("it is active");
    lease.stop();
    assert_eq!(lease.role(), WriterRole::Stopping);
    assert!(!lease.serves(AT(1_100)));
    assert_eq!(lease.grantable(AT(1_100), AT(1_100)), Duration::ZERO);
    lease.unheld();
    assert_eq!(lease.next(AT(1_101)), None, "a commit is on its way");
    lease.told(Durable, AT(1_105));
    assert_eq!(lease.begin(AT(1_105)), Err(NotActive));
    let release = Some(WriterStep::Release(fence(1, 1)));
    assert_eq!(lease.next(AT(1_105)), release);
    lease.told(Durable, AT(1_108));
    assert_eq!(lease.role(), WriterRole::Stopped);
    assert_eq!((lease.wake(), lease.next(AT(9_000))), (None, None));

    // Those who do not say so are waited for until their leases are over.
    let mut lease = active();
    lease.stop();
    assert_eq!(lease.next(AT(1_999)), None);
    assert_eq!(lease.next(AT(2_000)), release);
}

#[test]
fn a_catalog_may_be_stopped_at_any_time() {
    let mut waiting = standby(row(3, 8, Some(2)));
    waiting.stop();
    assert_eq!(waiting.role(), WriterRole::Stopped);

    let mut taking_over = standby(row(0, 0, None));
    assert!(take_over(&mut taking_over, row(0, 0, None), 0).is_some());
    taking_over.stop();
    taking_over.told(Durable, AT(1_003));
    let release = Some(WriterStep::Release(fence(1, 1)));
    assert_eq!(taking_over.next(AT(1_003)), release);

    let mut loading = loading();
    loading.stop();
    assert_eq!(loading.next(AT(1_003)), release);

    let mut fenced = active();
    fenced.begin(AT(1_100)).expect("it is active");
    fenced.stop();
    fenced.told(Fenced, AT(1_103));
    assert_eq!(fenced.role(), WriterRole::Stopped);
}

#[test]
fn a_fence_lets_nobody_else_write() {
    let mut table = WriterTable::default();
    let claim = |term, beat, holder| Claim {
        term: WriterTerm(term),
        beat,
        next: fence(term + 1, holder),
    };
    assert!(table.take_over(claim(0, 0, 1)));
    assert!(!table.take_over(claim(0, 0, 2)), "the term is another");
    assert!(table.beat(fence(1, 1)));
    assert!(!table.beat(fence(1, 2)));
    assert!(!table.take_over(claim(1, 1, 2)), "the beat is another");
    assert!(table.take_over(claim(1, 2, 2)));
    assert!(!table.beat(fence(1, 1)) && !table.release(fence(1, 1)));
    assert!(table.release(fence(2, 2)));
    assert_eq!(table.row(), row(2, 4, None));
    assert!(!table.beat(fence(2, 2)), "it was given back");
}
