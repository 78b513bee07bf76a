use domain::Price;

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

fn stock(text: &str, version: u64) -> Stock {
    let price = Price::from_minor(100).unwrap();
    Stock {
        name: name(text),
        price,
        quantity: 100 - version,
        volume: version,
        version: Version(version),
        is_listed: true,
    }
}

fn batch(stocks: &[Stock]) -> Batch {
    Batch {
        stocks: stocks.to_vec(),
        ..Batch::default()
    }
}

/// Stocks `a` and `b` in version 1; sessions 1 and 2, opened at 0, hold nothing.
fn visibility() -> Visibility {
    let stocks = [stock("a", 1), stock("b", 1)];
    let mut visibility = Visibility::new(stocks, Leases::new(LEASE, MARGIN), Duration::ZERO, at(0));
    visibility.open(id(1), at(0)).unwrap();
    visibility.open(id(2), at(0)).unwrap();
    visibility
}

/// What session `session` sees: the version, and whether it may keep it.
#[track_caller]
fn check(
    visibility: &mut Visibility,
    text: &str,
    session: u64,
    now: u64,
    version: u64,
    cacheable: bool,
) {
    let seen = visibility
        .read(&name(text), SessionId::new(session), at(now))
        .unwrap();
    assert_eq!(
        (seen.stock.version, seen.cacheable),
        (Version(version), cacheable)
    );
}

#[test]
fn only_a_living_session_may_keep_what_it_reads() {
    let mut visibility = visibility();
    check(&mut visibility, "a", 1, 10, 1, true);
    check(&mut visibility, "a", 0, 10, 1, false);
    check(&mut visibility, "a", 9, 10, 1, false);
    check(&mut visibility, "a", 1, 1100, 1, false);
    assert!(
        visibility
            .read(&name("none"), Some(id(1)), at(10))
            .is_none()
    );
}

#[test]
fn a_change_nobody_holds_is_shown_once_it_is_durable() {
    let mut visibility = visibility();
    check(&mut visibility, "b", 1, 10, 1, true);
    let change = [stock("a", 2)];
    assert!(visibility.prepare(&batch(&change)).is_empty());
    check(&mut visibility, "a", 1, 10, 1, false);
    assert!(!visibility.is_shown(&name("a"), Version(2)));
    visibility.mark_durable(&change);
    assert!(visibility.is_shown(&name("a"), Version(2)));
    check(&mut visibility, "a", 1, 10, 2, true);
}

#[test]
fn a_held_change_is_shown_once_it_is_durable_and_all_let_go() {
    // In either order.
    for acknowledged_first in [true, false] {
        let mut visibility = visibility();
        check(&mut visibility, "a", 1, 10, 1, true);
        check(&mut visibility, "a", 2, 10, 1, true);
        let change = [stock("a", 2)];
        let invalidations = visibility.prepare(&batch(&change));
        assert_eq!(invalidations.len(), 2);
        if !acknowledged_first {
            visibility.mark_durable(&change);
        }
        check(&mut visibility, "a", 1, 20, 1, false);
        for invalidation in invalidations {
            assert!(!visibility.is_shown(&name("a"), Version(2)));
            visibility
                .acknowledge(invalidation.session, invalidation.round, at(20))
                .unwrap();
        }
        if acknowledged_first {
            check(&mut visibility, "a", 1, 20, 1, false);
            visibility.mark_durable(&change);
        }
        check(&mut visibility, "a", 1, 20, 2, true);
    }
}

#[test]
fn a_holder_that_says_nothing_delays_its_stock_until_it_expires_and_no_other() {
    let mut visibility = visibility();
    check(&mut visibility, "a", 1, 10, 1, true);
    let change = [stock("a", 2), stock("b", 2)];
    visibility.prepare(&batch(&change));
    visibility.mark_durable(&change);
    check(&mut visibility, "b", 2, 20, 2, true);
    check(&mut visibility, "a", 2, 1099, 1, false);
    assert!(visibility.expire(at(1099)).is_empty());
    check(&mut visibility, "a", 0, 1099, 1, false);
    assert_eq!(visibility.expire(at(1100)), [id(1), id(2)]);
    check(&mut visibility, "a", 0, 1100, 2, false);
}

#[test]
fn changes_that_pile_up_behind_a_holder_are_shown_at_once() {
    let mut visibility = visibility();
    check(&mut visibility, "a", 1, 10, 1, true);
    for version in 2..5 {
        let change = [stock("a", version)];
        visibility.prepare(&batch(&change));
        visibility.mark_durable(&change);
        check(&mut visibility, "a", 2, 20, 1, false);
    }
    visibility.prepare(&batch(&[stock("a", 5)]));
    visibility.release(id(1));
    assert!(visibility.is_shown(&name("a"), Version(4)));
    check(&mut visibility, "a", 2, 20, 4, false); // 5 is still on its way to the disk
    visibility.mark_durable(&[stock("a", 5)]);
    check(&mut visibility, "a", 2, 20, 5, true);
}

#[test]
fn a_change_that_the_disk_had_no_room_for_is_never_shown() {
    let mut visibility = visibility();
    check(&mut visibility, "a", 1, 10, 1, true);
    let invalidation = visibility.prepare(&batch(&[stock("a", 2)])).remove(0);
    visibility.abandon();
    check(&mut visibility, "a", 2, 20, 1, true);
    check(&mut visibility, "a", 1, 20, 1, false); // it was told to let go, and has not answered
    visibility
        .acknowledge(id(1), invalidation.round, at(20))
        .unwrap();
    check(&mut visibility, "a", 1, 20, 1, true);
    visibility.prepare(&batch(&[stock("a", 2)]));
    visibility.mark_durable(&[stock("a", 2)]);
    check(&mut visibility, "a", 0, 20, 1, false); // both let go first
    visibility.release(id(1));
    visibility.release(id(2));
    check(&mut visibility, "a", 0, 20, 2, false);
}

#[test]
fn after_a_crash_one_lease_passes_before_anything_is_read() {
    let mut visibility = Visibility::new(
        [stock("a", 1)],
        Leases::new(LEASE, MARGIN),
        Duration::from_millis(700),
        at(100),
    );
    assert_eq!(visibility.serving_from(), at(800));
    assert!(
        !visibility.is_unheld(at(799)),
        "sessions of the run before may be alive"
    );
    assert!(visibility.is_unheld(at(800)));
    visibility.open(id(1), at(800)).unwrap();
    assert!(!visibility.is_unheld(at(900)));
    visibility.release(id(1));
    assert!(visibility.is_unheld(at(900)));
}

#[test]
#[should_panic(expected = "one batch at a time")]
fn two_batches_are_not_on_their_way_at_once() {
    let mut visibility = visibility();
    visibility.prepare(&batch(&[stock("a", 2)]));
    visibility.prepare(&batch(&[stock("b", 2)]));
}

#[test]
#[should_panic(expected = "versions of a rise")]
fn a_version_is_not_shown_twice() {
    visibility().prepare(&batch(&[stock("a", 1)]));
}

mod model {
    //! A random run of gateways, trades, a slow disk and a clock, in which no gateway that
    //! keeps the rules may ever serve a value older than the newest shown to anybody.

    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Read(u64),
        /// The same where the catalog lends the stock to nobody for a while.
        ReadWithheld(u64),
        Renew(u64),
        /// The gateway gets to its invalidations.
        Deliver(u64),
        /// The gateway gets no more invalidations, and does not know.
        Partition(u64),
        Prepare,
        Finish(bool),
        Wait(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let session = 1..3_u64;
        let step = prop_oneof![
            6 => session.clone().prop_map(Step::Read),
            2 => session.clone().prop_map(Step::ReadWithheld),
            2 => session.clone().prop_map(Step::Renew),
            3 => session.clone().prop_map(Step::Deliver),
            1 => session.prop_map(Step::Partition),
            4 => Just(Step::Prepare),
            4 => prop::bool::weighted(0.8).prop_map(Step::Finish),
            3 => (1..400_u64).prop_map(Step::Wait),
        ];
        proptest::collection::vec(step, 1..300)
    }

    #[derive(Default)]
    struct Gateway {
        cached: Option<Version>,
        lease_until: u64,
        inbox: Vec<Invalidation>,
        partitioned: bool,
    }

    struct World {
        visibility: Visibility,
        now: u64,
        gateways: BTreeMap<u64, Gateway>,
        on_its_way: Option<Stock>,
        newest: u64,
        /// The newest version that any client has seen.
        seen: Version,
    }

    impl World {
        fn new() -> Self {
            let gateway = || Gateway {
                lease_until: 1000,
                ..Gateway::default()
            };
            let gateways = [1, 2].map(|session| (session, gateway())).into();
            Self {
                visibility: visibility(),
                now: 0,
                gateways,
                on_its_way: None,
                newest: 1,
                seen: Version(1),
            }
        }

        fn step(&mut self, step: Step) {
            let now = at(self.now);
            match step {
                Step::Read(session) => self.read(session, Some(id(session))),
                Step::ReadWithheld(session) => self.read(session, None),
                Step::Renew(session) => {
                    let gateway = self.gateways.get_mut(&session).unwrap();
                    let renewed =
                        self.visibility.renew(id(session), 0, now) == Ok(Renewal::Granted);
                    if renewed && !gateway.partitioned {
                        gateway.lease_until = self.now + 1000;
                    }
                }
                Step::Deliver(session) => {
                    let gateway = self.gateways.get_mut(&session).unwrap();
                    for invalidation in std::mem::take(&mut gateway.inbox) {
                        gateway.cached = None;
                        let _ = self
                            .visibility
                            .acknowledge(id(session), invalidation.round, now);
                    }
                }
                Step::Partition(session) => {
                    self.gateways.get_mut(&session).unwrap().partitioned = true;
                    self.visibility.disconnect(id(session));
                }
                Step::Prepare => self.prepare(),
                Step::Finish(durable) => {
                    let Some(stock) = self.on_its_way.take() else {
                        return;
                    };
                    if durable {
                        self.newest = stock.version.0;
                        self.visibility.mark_durable(&[stock]);
                    } else {
                        self.visibility.abandon();
                    }
                }
                Step::Wait(millis) => {
                    self.now += millis;
                    self.visibility.expire(at(self.now));
                }
            }
        }

        fn read(&mut self, session: u64, lent_to: Option<SessionId>) {
            let gateway = self.gateways.get_mut(&session).unwrap();
            if let Some(version) = gateway.cached
                && self.now < gateway.lease_until
            {
                assert!(
                    version >= self.seen,
                    "a stale hit: {version:?} after {:?}",
                    self.seen
                );
                return;
            }
            gateway.cached = None;
            let seen = self
                .visibility
                .read(&name("a"), lent_to, at(self.now))
                .unwrap();
            assert!(
                seen.stock.version >= self.seen,
                "the catalog itself went back"
            );
            self.seen = seen.stock.version;
            let fits = gateway
                .inbox
                .iter()
                .flat_map(|invalidation| &invalidation.floors);
            let fits = fits
                .map(|floor| floor.version)
                .all(|floor| seen.stock.version >= floor);
            if seen.cacheable && fits {
                gateway.cached = Some(seen.stock.version);
            }
        }

        fn prepare(&mut self) {
            if self.on_its_way.is_some() || self.newest == 99 {
                return;
            }
            let change = stock("a", self.newest + 1);
            for invalidation in self
                .visibility
                .prepare(&batch(std::slice::from_ref(&change)))
            {
                let gateway = self.gateways.get_mut(&invalidation.session.get()).unwrap();
                if !gateway.partitioned {
                    gateway.inbox.push(invalidation);
                }
            }
            self.on_its_way = Some(change);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]
        #[test]
        fn no_gateway_serves_what_is_older_than_anybody_has_seen(steps in steps()) {
            let mut world = World::new();
            for step in steps {
                world.step(step);
            }
        }
    }
}

fn delisted(text: &str, version: u64) -> Stock {
    Stock {
        is_listed: false,
        ..stock(text, version)
    }
}

#[test]
fn a_stock_that_is_listed_is_there_once_that_is_durable() {
    let mut visibility = visibility();
    let listed = stock("new", 9);
    visibility.prepare(&batch(std::slice::from_ref(&listed)));
    for _ in 0..2 {
        assert_eq!(visibility.read(&listed.name, None, at(0)), None);
        assert!(!visibility.is_shown(&listed.name, listed.version));
        assert!(visibility.stocks_after(None).all(|stock| *stock != listed));
        visibility.abandon();
        assert!(
            visibility.is_shown(&listed.name, listed.version),
            "it is given up"
        );
        visibility.prepare(&batch(std::slice::from_ref(&listed)));
    }
    visibility.mark_durable(std::slice::from_ref(&listed));
    let seen = visibility.read(&listed.name, None, at(0)).unwrap();
    assert_eq!(seen.stock, listed);
    assert!(visibility.stocks_after(None).any(|stock| *stock == listed));
}

#[test]
fn a_stock_that_is_delisted_is_there_until_nobody_holds_it() {
    let mut visibility = visibility();
    let held = visibility.read(&name("a"), Some(id(1)), at(0)).unwrap();
    assert!(held.cacheable);
    let gone = delisted("a", held.stock.version.0 + 1);
    let told = visibility.prepare(&batch(std::slice::from_ref(&gone)));
    visibility.mark_durable(std::slice::from_ref(&gone));
    // Whoever is told that there is none waits, and whoever reads it meanwhile may not keep it.
    let unlisted = Version(100);
    assert!(!visibility.is_shown(&gone.name, unlisted));
    let seen = visibility.read(&gone.name, Some(id(1)), at(1)).unwrap();
    assert!(!seen.cacheable && seen.stock == held.stock);
    visibility.acknowledge(id(1), told[0].round, at(2)).unwrap();
    assert!(visibility.is_shown(&gone.name, unlisted));
    assert_eq!(visibility.read(&gone.name, Some(id(1)), at(3)), None);
    // Listed again and held by nobody, it is another one.
    let again = stock("a", 50);
    visibility.prepare(&batch(std::slice::from_ref(&again)));
    visibility.mark_durable(std::slice::from_ref(&again));
    let seen = visibility.read(&again.name, Some(id(1)), at(4)).unwrap();
    assert!(seen.cacheable && seen.stock == again);
}

#[test]
fn a_stock_that_is_delisted_and_listed_again_while_it_is_held_is_shown_as_the_new_one_at_once() {
    let mut visibility = visibility();
    visibility.read(&name("a"), Some(id(1)), at(0)).unwrap();
    let gone = delisted("a", 10);
    let told = visibility.prepare(&batch(std::slice::from_ref(&gone)));
    visibility.mark_durable(std::slice::from_ref(&gone));
    let again = stock("a", 20);
    visibility.prepare(&batch(std::slice::from_ref(&again)));
    visibility.mark_durable(std::slice::from_ref(&again));
    assert!(!visibility.is_shown(&again.name, again.version));
    visibility.acknowledge(id(1), told[0].round, at(2)).unwrap();
    assert!(visibility.is_shown(&again.name, again.version));
    assert_eq!(
        visibility.read(&again.name, None, at(3)).unwrap().stock,
        again
    );
}
