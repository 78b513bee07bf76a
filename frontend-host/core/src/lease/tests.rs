use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn at(millis: u64) -> BootTime {
    BootTime::from_millis(millis)
}

fn id(id: u64) -> SessionId {
    SessionId::new(id).unwrap()
}

#[test]
fn a_lease_runs_from_before_it_was_asked_for_and_ends_early() {
    let lease = Session::opened(id(7), SECOND, at(100)).lease();
    assert!(lease.covers(id(7), at(1084)));
    assert!(!lease.covers(id(7), at(1085)), "the margin is 15 ms");
    assert!(!lease.covers(id(6), at(100)), "another session's entry");
    assert_eq!(lease.current(at(1084)), Some(id(7)));
    assert_eq!(lease.current(at(1085)), None);
}

#[test]
fn without_a_session_nothing_is_current() {
    assert_eq!(Lease::default().current(at(0)), None);
    assert!(!Lease::default().covers(id(7), at(0)));
}

#[test]
fn a_renewal_counts_from_its_sending() {
    let mut session = Session::opened(id(7), SECOND, at(0));
    let first = session.renew(at(250));
    let second = session.renew(at(500));
    session.renewed(second);
    assert_eq!(session.lease().deadline, at(1485));
    session.renewed(first);
    assert_eq!(
        session.lease().deadline,
        at(1485),
        "an older answer takes nothing back"
    );
}

#[test]
fn an_answer_to_a_renewal_that_was_never_sent_changes_nothing() {
    let mut session = Session::opened(id(7), SECOND, at(0));
    session.renewed(99);
    assert_eq!(session.lease().deadline, at(985));
}

#[test]
fn the_oldest_of_too_many_renewals_is_forgotten() {
    let mut session = Session::opened(id(7), SECOND, at(0));
    let first = session.renew(at(100));
    for _ in 0..RENEWALS_MAX {
        session.renew(at(200));
    }
    session.renewed(first);
    assert_eq!(session.lease().deadline, at(985));
}
