use super::*;
use domain::Price;
use frontend_core::Session;

use frontend_policy::decision::Reply;

const HOUR: Duration = Duration::from_secs(3600);

const SETTINGS: CacheSettings = CacheSettings {
    stocks_max: 100,
    orders_max: 100,
    eviction: Eviction::Lru,
};

fn stock(quantity: u64) -> Stock {
    Stock {
        name: name(),
        price: Price::from_minor(100).unwrap(),
        quantity,
    }
}

fn name() -> StockName {
    StockName::new("nvidia").unwrap()
}

fn key(policy: u64, memo: &[u8]) -> RenderKey<'_> {
    RenderKey { policy, memo }
}

/// A lease that begins now.
fn lease(session: u64, length: Duration) -> Lease {
    Session::opened(SessionId::new(session).unwrap(), length, BootTime::now()).lease()
}

/// A cache under a lease of an hour.
fn leased(session: u64) -> Arc<Cache> {
    let cache = Arc::new(Cache::new(SETTINGS));
    cache.set_lease(lease(session, HOUR));
    cache
}

fn is_fresh(cache: &Cache, freshness: Freshness) -> bool {
    matches!(cache.stock(&name(), freshness), CacheLookup::Current(..))
}

#[test]
fn an_answer_is_current_while_its_session_has_a_lease() {
    let cache = leased(1);
    assert!(
        cache
            .fetch(name(), Freshness::Linearizable)
            .store(stock(1), Version(1), true)
            .is_some()
    );
    assert!(is_fresh(&cache, Freshness::Linearizable));
    cache.set_lease(lease(1, Duration::ZERO));
    assert!(
        !is_fresh(&cache, Freshness::Linearizable),
        "the lease has run out"
    );
    assert!(
        is_fresh(&cache, Freshness::AtMost(Duration::from_secs(60))),
        "young enough all the same"
    );
    cache.set_lease(lease(2, HOUR));
    assert!(
        !is_fresh(&cache, Freshness::Linearizable),
        "another session was told nothing of it"
    );
}

#[test]
fn an_invalidation_removes_what_is_below_its_floor() {
    let cache = leased(1);
    cache
        .fetch(name(), Freshness::Linearizable)
        .store(stock(1), Version(4), true);
    cache.invalidate(&name(), Version(4));
    assert!(
        is_fresh(&cache, Freshness::Linearizable),
        "version 4 is not below 4"
    );
    cache.invalidate(&name(), Version(5));
    assert!(!is_fresh(&cache, Freshness::Linearizable));
}

#[test]
fn an_invalidation_that_overtakes_an_answer_keeps_it_out() {
    let cache = leased(1);
    let fetch = cache.fetch(name(), Freshness::Linearizable);
    cache.invalidate(&name(), Version(2));
    assert!(fetch.store(stock(1), Version(1), true).is_none());
    drop(fetch);
    assert!(
        cache.fetches.of(&name()).is_empty(),
        "floors last no longer than fetches"
    );
    let fetch = cache.fetch(name(), Freshness::Linearizable);
    assert!(fetch.store(stock(2), Version(2), true).is_some());
}

#[test]
fn an_answer_is_not_kept_under_a_session_that_ended_or_did_not_register() {
    let cache = leased(1);
    let fetch = cache.fetch(name(), Freshness::Linearizable);
    assert!(fetch.store(stock(1), Version(1), false).is_none());
    cache.set_lease(lease(2, HOUR));
    assert!(fetch.store(stock(1), Version(1), true).is_none());
}

#[test]
fn without_a_session_only_age_counts() {
    let cache = Arc::new(Cache::new(SETTINGS));
    let fetch = cache.fetch(name(), Freshness::AtMost(Duration::from_secs(60)));
    assert_eq!(fetch.session(), None);
    assert!(fetch.store(stock(1), Version(1), false).is_some());
    assert!(is_fresh(&cache, Freshness::AtMost(Duration::from_secs(60))));
    assert!(!is_fresh(&cache, Freshness::Linearizable));
}

#[test]
fn a_response_is_served_only_for_the_version_and_memo_that_made_it() {
    let cache = leased(1);
    let kept = cache
        .fetch(name(), Freshness::Linearizable)
        .store(stock(1), Version(1), true)
        .unwrap();
    kept.render(key(3, b"memo"), &reply(1), kept.fetched);
    assert!(kept.rendered(key(3, b"memo")).is_some());
    assert!(kept.rendered(key(4, b"memo")).is_none());
    assert!(kept.rendered(key(3, b"other")).is_none());
}

fn reply(bytes: usize) -> Reply {
    Reply {
        status: http::StatusCode::OK,
        headers: http::HeaderMap::new(),
        body: vec![b'x'; bytes].into(),
        keep: Some(Duration::from_millis(500)),
    }
}

#[test]
fn a_response_is_served_no_longer_than_it_may_be_kept() {
    let cache = leased(1);
    let kept = cache
        .fetch(name(), Freshness::Linearizable)
        .store(stock(1), Version(1), true)
        .unwrap();
    kept.render(key(3, b""), &reply(1), kept.fetched);
    let rendered = kept.rendered(key(3, b"")).unwrap();
    assert!(!rendered.has_expired(kept.fetched + Duration::from_millis(500)));
    assert!(rendered.has_expired(kept.fetched + Duration::from_millis(501)));
}

#[test]
fn responses_are_kept_as_long_as_there_is_room_for_them() {
    let cache = leased(1);
    let keep = || {
        let fetch = cache.fetch(name(), Freshness::Linearizable);
        fetch.store(stock(1), Version(1), true).unwrap()
    };
    let (first, second) = (keep(), keep());
    first.render(
        key(3, b""),
        &reply(limits::RENDERED_BYTES_MAX / 2),
        first.fetched,
    );
    first.render(
        key(3, b""),
        &reply(limits::RENDERED_BYTES_MAX / 2),
        first.fetched,
    );
    second.render(
        key(3, b""),
        &reply(1 + limits::RENDERED_BYTES_MAX / 2),
        second.fetched,
    );
    assert!(second.rendered(key(3, b"")).is_none(), "there is no room");
    first.render(key(4, b""), &reply(1), first.fetched);
    second.render(
        key(3, b""),
        &reply(1 + limits::RENDERED_BYTES_MAX / 2),
        second.fetched,
    );
    assert!(second.rendered(key(3, b"")).is_some(), "there is again");
}
