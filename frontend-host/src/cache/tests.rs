use super::*;
use domain::Price;
use frontend_core::Session;

use frontend_policy::Ambient;
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

fn key(policy: u64, vary_key: &[u8]) -> RenderKey<'_> {
    RenderKey { policy, vary_key }
}

/// Made under that key.
fn made<'a>(key: RenderKey<'a>, reply: &'a Reply) -> Rendering<'a> {
    Rendering {
        key,
        reply,
        ambient: Ambient { now_ms: 0, seed: 0 },
    }
}

/// A lease that begins now.
fn lease(session: u64, length: Duration) -> Lease {
    Session::opened(SessionId::new(session).unwrap(), length, BootTime::now()).lease()
}

/// A cache under a lease of an hour.
fn leased(session: u64) -> Arc<Cache> {
    let cache = Arc::new(Cache::new(SETTINGS, CacheBounds::default()));
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
    let cache = Arc::new(Cache::new(SETTINGS, CacheBounds::default()));
    let fetch = cache.fetch(name(), Freshness::AtMost(Duration::from_secs(60)));
    assert_eq!(fetch.session(), None);
    assert!(fetch.store(stock(1), Version(1), false).is_some());
    assert!(is_fresh(&cache, Freshness::AtMost(Duration::from_secs(60))));
    assert!(!is_fresh(&cache, Freshness::Linearizable));
}

fn kept(cache: &Arc<Cache>) -> Arc<CacheEntry<Stock>> {
    let fetch = cache.fetch(name(), Freshness::Linearizable);
    fetch.store(stock(1), Version(1), true).unwrap()
}

#[test]
fn a_response_is_served_only_for_the_version_and_key_that_made_it() {
    let kept = kept(&leased(1));
    kept.render(made(key(3, b"key"), &reply(1)), kept.fetched);
    assert!(kept.rendered(key(3, b"key")).is_some());
    assert!(kept.rendered(key(4, b"key")).is_none());
    assert!(kept.rendered(key(3, b"other")).is_none());
}

#[test]
fn several_responses_are_kept_of_a_stock_and_the_newest() {
    let kept = kept(&leased(1));
    let keys: Vec<_> = (0..=limits::RENDERINGS_MAX as u8).map(|n| [n]).collect();
    for vary_key in &keys {
        let length = 100 + usize::from(vary_key[0]);
        kept.render(made(key(3, vary_key), &reply(length)), kept.fetched);
    }
    let length = |vary_key: &[u8]| {
        let found = kept.rendered(key(3, vary_key));
        found.map(|rendered| rendered.reply.body.len())
    };
    assert_eq!(length(&keys[0]), None, "the oldest made room");
    for vary_key in &keys[1..] {
        assert_eq!(length(vary_key), Some(100 + usize::from(vary_key[0])));
    }
    // Made again, it takes its own place.
    kept.render(made(key(3, &keys[1]), &reply(7)), kept.fetched);
    assert_eq!(length(&keys[1]), Some(7));
    assert!(keys[2..].iter().all(|key| length(key).is_some()));
    for vary_key in &keys {
        kept.forget(key(3, vary_key));
        assert_eq!(length(vary_key), None);
    }
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
    let kept = kept(&leased(1));
    kept.render(made(key(3, b""), &reply(1)), kept.fetched);
    let rendered = kept.rendered(key(3, b"")).unwrap();
    assert!(!rendered.has_expired(kept.fetched + Duration::from_millis(500)));
    assert!(rendered.has_expired(kept.fetched + Duration::from_millis(501)));
}

#[test]
fn responses_are_kept_as_long_as_there_is_room_for_them() {
    let cache = leased(1);
    let (first, second) = (kept(&cache), kept(&cache));
    let large = reply(limits::RENDERED_BYTES_MAX * 3 / 5);
    let render = |entry: &CacheEntry<Stock>, vary_key: &[u8]| {
        entry.render(made(key(3, vary_key), &large), entry.fetched);
        entry.rendered(key(3, vary_key)).is_some()
    };
    assert!(render(&first, b"a"));
    assert!(!render(&second, b"a"), "there is no room");
    assert!(render(&first, b"b"), "its own makes room");
    assert!(first.rendered(key(3, b"a")).is_none());
    first.forget(key(3, b"b"));
    assert!(render(&second, b"a"), "there is again");
}
