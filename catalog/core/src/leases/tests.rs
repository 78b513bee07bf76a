use super::*;

const LEASE: Duration = Duration::from_millis(1000);
const MARGIN: Duration = Duration::from_millis(100);

fn at(millis: u64) -> BootTime {
    BootTime::from_millis(millis)
}

fn id(id: u64) -> SessionId {
    SessionId::new(id).unwrap()
}

fn name(name: &str) -> StockName {
    StockName::new(name).unwrap()
}

fn floor(stock: &str, version: u64) -> Floor {
    Floor {
        name: name(stock),
        version: Version(version),
    }
}

/// Sessions 1 and 2, opened at 0; session 1 holds `a` and `b`, session 2 holds `a`.
fn leases() -> Leases {
    let mut leases = Leases::new(LEASE, MARGIN);
    leases.open(id(1), at(0)).unwrap();
    leases.open(id(2), at(0)).unwrap();
    assert!(leases.register(id(1), &name("a"), at(0)));
    assert!(leases.register(id(1), &name("b"), at(0)));
    assert!(leases.register(id(2), &name("a"), at(0)));
    leases
}

#[test]
fn a_session_is_over_one_lease_and_margin_after_its_last_renewal() {
    let mut leases = leases();
    assert_eq!(leases.next_expiry(), Some(at(1100)));
    assert_eq!(leases.renew(id(1), 1, at(500)), Ok(Renewal::Granted));
    assert!(leases.expire(at(1099)).is_empty());
    assert_eq!(leases.expire(at(1100)), [(id(2), vec![name("a")])]);
    assert_eq!(leases.next_expiry(), Some(at(1600)));
    assert_eq!(
        leases.expire(at(1600)),
        [(id(1), vec![name("a"), name("b")])]
    );
    assert!(leases.is_empty() && !leases.is_held(&name("a")));
}

#[test]
fn a_session_that_is_over_is_over_for_good() {
    let mut leases = leases();
    let round = leases.invalidate(&[floor("a", 2)])[0].round;
    // Whether or not somebody has swept it up yet.
    for swept in [false, true] {
        if swept {
            leases.expire(at(1100));
        }
        assert_eq!(leases.renew(id(1), 1, at(1100)), Err(SessionExpired));
        assert_eq!(
            leases.acknowledge(id(1), round, at(1100)),
            Err(SessionExpired)
        );
        assert!(!leases.register(id(1), &name("c"), at(1100)));
    }
    assert_eq!(
        leases.renew(id(9), 1, at(0)),
        Err(SessionExpired),
        "never opened"
    );
    assert!(!leases.register(id(9), &name("a"), at(0)));
}

#[test]
fn a_late_renewal_does_not_shorten_a_lease() {
    let mut leases = leases();
    leases.renew(id(1), 1, at(500)).unwrap();
    leases.renew(id(1), 2, at(400)).unwrap();
    leases.release(id(2));
    assert_eq!(leases.next_expiry(), Some(at(1600)));
}

#[test]
fn only_holders_are_told_and_only_of_what_they_hold() {
    let mut leases = leases();
    let invalidations = leases.invalidate(&[floor("b", 3), floor("c", 8)]);
    let expected = Invalidation {
        session: id(1),
        round: Round(1),
        floors: vec![floor("b", 3)],
    };
    assert_eq!(invalidations, [expected]);
    assert!(leases.invalidate(&[floor("c", 9)]).is_empty());
}

#[test]
fn a_stock_is_held_until_every_holder_let_go() {
    let mut leases = leases();
    let invalidations = leases.invalidate(&[floor("a", 2), floor("b", 2)]);
    assert_eq!(invalidations.len(), 2);
    let round = invalidations[0].round;
    let released = leases.acknowledge(id(1), round, at(10)).unwrap().released;
    assert_eq!(released, [name("a"), name("b")]);
    assert!(leases.is_held(&name("a")) && !leases.is_held(&name("b")));
    leases.acknowledge(id(1), round, at(11)).unwrap();
    assert!(
        leases.is_held(&name("a")),
        "one cannot acknowledge for another"
    );
    assert_eq!(leases.release(id(2)), [name("a")]);
    assert!(!leases.is_held(&name("a")));
}

#[test]
fn acknowledging_a_round_lets_go_of_nothing_else() {
    let mut leases = leases();
    let first = leases.invalidate(&[floor("a", 2)])[0].round;
    let second = leases.invalidate(&[floor("b", 2)])[0].round;
    assert!(first < second);
    leases.acknowledge(id(1), second, at(10)).unwrap();
    leases.acknowledge(id(1), Round(77), at(10)).unwrap();
    leases.acknowledge(id(2), first, at(10)).unwrap();
    assert!(leases.is_held(&name("a")) && !leases.is_held(&name("b")));
}

#[test]
fn a_broken_stream_ends_nothing_early_but_is_lent_nothing_more() {
    let mut leases = leases();
    leases.disconnect(id(1));
    assert!(leases.is_held(&name("b")));
    assert!(!leases.register(id(1), &name("c"), at(10)));
    assert_eq!(leases.renew(id(1), 1, at(10)), Err(SessionExpired));
    assert_eq!(leases.invalidate(&[floor("b", 2)]).len(), 1);
    assert!(leases.expire(at(1099)).is_empty());
    assert!(leases.is_held(&name("b")));
    leases.expire(at(1100));
    assert!(!leases.is_held(&name("b")));
}

#[test]
fn who_was_told_is_not_told_again_and_gets_nothing_to_hold_before_it_let_go() {
    let mut leases = leases();
    let round = leases.invalidate(&[floor("b", 2)])[0].round;
    assert!(leases.invalidate(&[floor("b", 3)]).is_empty());
    assert!(!leases.register(id(1), &name("b"), at(10)));
    leases.acknowledge(id(1), round, at(10)).unwrap();
    assert!(leases.register(id(1), &name("b"), at(10)));
    assert_eq!(leases.invalidate(&[floor("b", 3)]).len(), 1);
}

#[test]
fn who_renews_but_never_acknowledges_is_waited_for_one_lease() {
    let mut leases = leases();
    leases.renew(id(1), 1, at(900)).unwrap();
    leases.invalidate(&[floor("b", 2)]);
    for millis in (1000..2000).step_by(100) {
        assert_eq!(
            leases.renew(id(1), millis, at(millis)),
            Ok(Renewal::Deferred)
        );
    }
    assert_eq!(leases.expire(at(2000)).len(), 2);
}

#[test]
fn a_deferred_renewal_is_granted_as_of_its_receipt() {
    let mut leases = leases();
    leases.release(id(2));
    let first = leases.invalidate(&[floor("a", 2)])[0].round;
    assert_eq!(leases.renew(id(1), 7, at(500)), Ok(Renewal::Deferred));
    assert_eq!(leases.renew(id(1), 8, at(600)), Ok(Renewal::Deferred));
    let second = leases.invalidate(&[floor("b", 2)])[0].round;
    assert_eq!(
        leases.acknowledge(id(1), first, at(700)).unwrap().renewed,
        Some(7)
    );
    assert_eq!(leases.next_expiry(), Some(at(1600)));
    assert_eq!(
        leases.acknowledge(id(1), second, at(800)).unwrap().renewed,
        None
    );
    assert_eq!(leases.renew(id(1), 9, at(900)), Ok(Renewal::Granted));
}

#[test]
fn sessions_have_distinct_ids_and_a_bound() {
    let mut leases = Leases::new(LEASE, MARGIN);
    for number in 1..=SESSIONS_MAX as u64 {
        leases.open(id(number), at(0)).unwrap();
    }
    assert_eq!(leases.open(id(9999), at(0)), Err(NotOpened::TooMany));
    leases.release(id(5));
    assert_eq!(leases.open(id(6), at(0)), Err(NotOpened::Taken));
    leases.open(id(9999), at(0)).unwrap();
}
