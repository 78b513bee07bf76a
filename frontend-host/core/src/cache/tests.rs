use super::*;
use crate::lease::Session;

const LENGTH: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

fn name() -> StockName {
    StockName::new("nvidia").unwrap()
}

fn at(millis: u64) -> BootTime {
    BootTime::from_millis(millis)
}

/// The lease of a session that was opened at time 0.
fn lease(session: u64) -> Lease {
    Session::opened(SessionId::new(session).unwrap(), LENGTH, at(0)).lease()
}

fn registered(version: u64) -> Answer {
    Answer {
        version: Version(version),
        registered: true,
    }
}

/// Asks under session 1, and is answered.
fn kept(version: u64) -> Tag {
    let mut fetches = Fetches::default();
    let ask = fetches.begin(name(), Freshness::Linearizable, &lease(1), at(10));
    fetches.admit(&ask, registered(version), &lease(1)).unwrap()
}

#[test]
fn what_is_kept_is_current_while_its_session_has_a_lease() {
    let tag = kept(1);
    assert!(tag.is_fresh(Freshness::Linearizable, &lease(1), at(900)));
    assert!(!tag.is_fresh(Freshness::Linearizable, &lease(1), at(1000)));
    assert!(
        !tag.is_fresh(Freshness::Linearizable, &lease(2), at(900)),
        "another session was told nothing of it"
    );
    assert!(!tag.is_fresh(Freshness::Linearizable, &Lease::default(), at(900)));
    assert!(!tag.is_fresh(Freshness::Bypass, &lease(1), at(900)));
}

#[test]
fn what_is_young_enough_or_current_is_fresh_by_age() {
    let tag = kept(1);
    let aged = |millis| Freshness::AtMost(Duration::from_millis(millis));
    assert!(tag.is_fresh(aged(100), &Lease::default(), at(110)));
    assert!(!tag.is_fresh(aged(100), &Lease::default(), at(111)));
    assert!(tag.is_fresh(aged(100), &lease(1), at(900)), "it is current");
}

#[test]
fn an_invalidation_takes_what_is_below_its_floor() {
    let mut fetches = Fetches::default();
    assert!(!fetches.invalidate(&name(), Version(4), Some(kept(4))));
    assert!(fetches.invalidate(&name(), Version(5), Some(kept(4))));
    assert!(!fetches.invalidate(&name(), Version(5), None));
}

#[test]
fn an_invalidation_that_overtakes_an_answer_keeps_it_out() {
    let mut fetches = Fetches::default();
    let lease = lease(1);
    let first = fetches.begin(name(), Freshness::Linearizable, &lease, at(10));
    let second = fetches.begin(name(), Freshness::Linearizable, &lease, at(20));
    fetches.invalidate(&name(), Version(3), None);
    fetches.invalidate(&name(), Version(2), None);
    assert!(fetches.admit(&first, registered(2), &lease).is_none());
    fetches.end(&first);
    assert!(fetches.admit(&second, registered(2), &lease).is_none());
    assert!(fetches.admit(&second, registered(3), &lease).is_some());
    fetches.end(&second);
    assert!(fetches.is_empty(), "floors last no longer than questions");
}

#[test]
fn an_answer_is_not_kept_under_a_session_that_ended_or_was_not_registered() {
    let mut fetches = Fetches::default();
    let ask = fetches.begin(name(), Freshness::Linearizable, &lease(1), at(10));
    assert_eq!(ask.session(), lease(1).session());
    let unregistered = Answer {
        registered: false,
        ..registered(1)
    };
    assert!(fetches.admit(&ask, unregistered, &lease(1)).is_none());
    assert!(fetches.admit(&ask, registered(1), &lease(2)).is_none());
    assert!(
        fetches
            .admit(&ask, registered(1), &Lease::default())
            .is_none()
    );
}

#[test]
fn without_a_lease_only_age_counts() {
    let mut fetches = Fetches::default();
    let asks = [
        fetches.begin(name(), Freshness::AtMost(MINUTE), &lease(1), at(10)),
        fetches.begin(name(), Freshness::Linearizable, &lease(1), at(1000)),
    ];
    for ask in asks {
        assert_eq!(ask.session(), None);
        let unregistered = Answer {
            registered: false,
            ..registered(1)
        };
        let tag = fetches.admit(&ask, unregistered, &lease(1)).unwrap();
        assert!(tag.is_fresh(Freshness::AtMost(MINUTE), &lease(1), at(1000)));
        assert!(!tag.is_fresh(Freshness::Linearizable, &lease(1), at(20)));
    }
}
