//! What the gateway keeps: outcomes of reads, each with the response that a policy made of it.
//!
//! An entry is an outcome. The rendered response beside it is tagged with the version of the
//! policy that made it and with that policy's memo: another version renders the same outcome
//! anew, without asking a backend.
//!
//! A cached stock is *current* while the session it was read under holds a lease (`lease`).
//! Between asking the catalog and inserting its answer an invalidation may pass by; the
//! **floor** of a stock that is being fetched remembers it, and an answer below the floor is
//! not inserted.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use moka::policy::EvictionPolicy;
use moka::sync::Cache as Moka;
use protocol::time::BootTime;
use protocol::{OrderNumber, StockName, Version};

use crate::lease::Lease;
use crate::policy::decision::{CacheSettings, Eviction, Freshness, Order, Reply, Stock};
use crate::policy::limits;

/// Locks that floors are spread over. A power of two.
const FLOOR_SHARDS: usize = 64;

/// The caches of one gateway.
pub struct Cache {
    kept: ArcSwap<Tables>,
    /// Of the policy that is followed.
    generation: AtomicU64,
    /// Held while another policy is followed.
    following: Mutex<()>,
    lease: ArcSwap<Lease>,
    floors: Floors,
    room: Arc<Room>,
    /// What lookups of stocks came to.
    pub stock_counts: Counts,
    /// What lookups of orders came to.
    pub order_counts: Counts,
}

/// What lookups came to.
#[derive(Debug, Default)]
pub struct Counts {
    /// Answered from the cache.
    pub hits: AtomicU64,
    /// Not there.
    pub misses: AtomicU64,
    /// There, but no longer fresh enough.
    pub stale: AtomicU64,
}

struct Tables {
    settings: CacheSettings,
    stocks: Moka<StockName, Arc<Kept<Stock>>>,
    orders: Moka<OrderNumber, Arc<Kept<Order>>>,
}

/// An outcome that was kept, and what was made of it.
pub struct Kept<V> {
    /// What a backend said.
    pub value: V,
    /// The stock's version; 0 for an order, which never changes.
    version: Version,
    /// The session under which the catalog tells of changes; 0 for none.
    session: u64,
    /// When the backend was asked.
    pub fetched: BootTime,
    rendered: ArcSwapOption<Rendered>,
    room: Arc<Room>,
}

/// A response, and what it holds for.
pub struct Rendered {
    /// The response.
    pub reply: Reply,
    /// Until when it may be served.
    pub keep_until: BootTime,
    policy: u64,
    memo: Vec<u8>,
    bytes: usize,
    room: Arc<Room>,
}

impl Rendered {
    /// Whether it may not be served any more.
    pub fn has_expired(&self, now: BootTime) -> bool {
        now > self.keep_until
    }
}

impl Drop for Rendered {
    fn drop(&mut self) {
        self.room.give_back(self.bytes);
    }
}

/// Bytes that rendered responses may still take. Entries are bounded by their number; what a
/// policy renders of each can be large.
struct Room(AtomicUsize);

impl Room {
    fn take(&self, bytes: usize) -> bool {
        let left = |left: usize| left.checked_sub(bytes);
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, left)
            .is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl<V> Kept<V> {
    /// The response that this version of the policy made of it, with the same memo.
    pub fn rendered(&self, policy: u64, memo: &[u8]) -> Option<Arc<Rendered>> {
        let rendered = self.rendered.load();
        let rendered = rendered.as_ref()?;
        (rendered.policy == policy && rendered.memo == memo).then(|| Arc::clone(rendered))
    }

    /// Puts a response beside it. Does nothing where the policy did not want it kept, or where
    /// there is no room for it.
    pub fn render(&self, policy: u64, memo: &[u8], reply: &Reply) {
        let Some(keep) = reply.keep else { return };
        let bytes = memo.len() + reply.bytes();
        if self.room.take(bytes) {
            let rendered = Rendered {
                reply: reply.clone(),
                keep_until: self.fetched + keep,
                policy,
                memo: memo.to_vec(),
                bytes,
                room: Arc::clone(&self.room),
            };
            self.rendered.store(Some(Arc::new(rendered)));
        }
    }
}

/// What a lookup found.
pub enum Found<V> {
    /// Fresh enough.
    Fresh(Arc<Kept<V>>),
    /// Kept, but not fresh enough.
    Stale(Arc<Kept<V>>),
    /// Nothing.
    Missing,
}

impl Cache {
    /// An empty cache.
    pub fn new(settings: CacheSettings) -> Self {
        Self {
            kept: ArcSwap::from_pointee(Tables::new(settings)),
            generation: AtomicU64::new(1),
            following: Mutex::new(()),
            lease: ArcSwap::from_pointee(Lease::default()),
            floors: Floors::new(),
            room: Arc::new(Room(AtomicUsize::new(limits::RENDERED_BYTES_MAX))),
            stock_counts: Counts::default(),
            order_counts: Counts::default(),
        }
    }

    /// Follows the wishes of the policy that is active since publication `generation`. Where
    /// they differ from those before, the cache starts empty.
    pub fn follow(&self, generation: u64, settings: CacheSettings) {
        if self.generation.load(Ordering::Acquire) >= generation {
            return;
        }
        let _following = self
            .following
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if self.generation.load(Ordering::Acquire) < generation {
            if self.kept.load().settings != settings {
                self.kept.store(Arc::new(Tables::new(settings)));
            }
            self.generation.store(generation, Ordering::Release);
        }
    }

    /// How many stocks and how many orders are kept.
    pub fn entries(&self) -> (u64, u64) {
        let kept = self.kept.load();
        // The tables count late otherwise.
        kept.stocks.run_pending_tasks();
        kept.orders.run_pending_tasks();
        (kept.stocks.entry_count(), kept.orders.entry_count())
    }

    /// The lease has changed.
    pub fn set_lease(&self, lease: Lease) {
        self.lease.store(Arc::new(lease));
    }

    /// The lease as it is.
    pub fn lease(&self) -> Lease {
        **self.lease.load()
    }

    /// Looks a stock up.
    pub fn stock(&self, name: &StockName, freshness: Freshness) -> Found<Stock> {
        let Some(kept) = self.kept.load().stocks.get(name) else {
            self.stock_counts.misses.fetch_add(1, Ordering::Relaxed);
            return Found::Missing;
        };
        // The clock and the lease are read after the entry: this is the linearization point.
        let now = BootTime::now();
        let fresh = match freshness {
            Freshness::Linearizable => self.lease.load().covers(kept.session, now),
            Freshness::AtMost(age) => {
                now.since(kept.fetched) <= age || self.lease.load().covers(kept.session, now)
            }
            Freshness::Bypass => false,
        };
        if fresh {
            Found::Fresh(kept)
        } else {
            self.stock_counts.stale.fetch_add(1, Ordering::Relaxed);
            Found::Stale(kept)
        }
    }

    /// Looks an order up. Rows never change: what is there is right.
    pub fn order(&self, number: OrderNumber) -> Found<Order> {
        match self.kept.load().orders.get(&number) {
            Some(kept) => Found::Fresh(kept),
            None => {
                self.order_counts.misses.fetch_add(1, Ordering::Relaxed);
                Found::Missing
            }
        }
    }

    /// Announces that a stock is about to be asked for, under the current session where the
    /// answer is to be current, under none where its age is what matters.
    pub fn fetch(self: &Arc<Self>, name: StockName, freshness: Freshness) -> Fetch {
        let now = BootTime::now();
        let lease = self.lease();
        let wanted = freshness == Freshness::Linearizable && lease.covers(lease.session, now);
        self.floors.begin(&name);
        Fetch {
            cache: Arc::clone(self),
            name,
            session: if wanted { lease.session } else { 0 },
            asked: now,
        }
    }

    /// Keeps an order.
    pub fn keep_order(&self, order: Order, asked: BootTime) -> Arc<Kept<Order>> {
        let number = order.number;
        let kept = Arc::new(Kept {
            value: order,
            version: Version(0),
            session: 0,
            fetched: asked,
            rendered: ArcSwapOption::empty(),
            room: Arc::clone(&self.room),
        });
        self.kept.load().orders.insert(number, Arc::clone(&kept));
        kept
    }

    /// Nothing of that stock below `floor` may be served any more. When this returns, no
    /// lookup finds such an entry, and no fetch under way will insert one.
    pub fn invalidate(&self, name: &StockName, floor: Version) {
        let mut fetches = self.floors.shard(name);
        if let Some(fetching) = fetches.get_mut(name) {
            fetching.floor = fetching.floor.max(floor);
        }
        let kept = self.kept.load();
        if kept
            .stocks
            .get(name)
            .is_some_and(|kept| kept.version < floor)
        {
            kept.stocks.invalidate(name);
        }
    }
}

impl Tables {
    fn new(settings: CacheSettings) -> Self {
        Self {
            settings,
            stocks: table(settings.stocks_max, settings.eviction),
            orders: table(settings.orders_max, settings.eviction),
        }
    }
}

fn table<K, V>(entries_max: u32, eviction: Eviction) -> Moka<K, V>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    let eviction = match eviction {
        Eviction::Lru => EvictionPolicy::lru(),
        Eviction::TinyLfu => EvictionPolicy::tiny_lfu(),
    };
    Moka::builder()
        .max_capacity(entries_max.into())
        .eviction_policy(eviction)
        .build()
}

/// A stock that is being asked for. Until it is dropped, its floor is remembered.
pub struct Fetch {
    cache: Arc<Cache>,
    name: StockName,
    /// To be named to the catalog; 0 for none.
    pub session: u64,
    /// When the asking began.
    pub asked: BootTime,
}

impl Fetch {
    /// Keeps what the catalog answered, unless that is no longer current: the session must be
    /// the one it was asked under, and no invalidation above its version may have passed by.
    /// `registered` is the catalog's word that it will tell this session of changes.
    pub fn keep(
        &self,
        stock: Stock,
        version: Version,
        registered: bool,
    ) -> Option<Arc<Kept<Stock>>> {
        debug_assert_eq!(
            stock.name, self.name,
            "the catalog answers what it was asked"
        );
        if self.session != 0 && !registered {
            return None;
        }
        // Invalidations take the same lock: each comes wholly before or wholly after this.
        let fetches = self.cache.floors.shard(&self.name);
        let below_floor = fetches
            .get(&self.name)
            .is_some_and(|fetching| version < fetching.floor);
        if below_floor || (self.session != 0 && self.cache.lease().session != self.session) {
            return None;
        }
        let kept = Arc::new(Kept {
            value: stock,
            version,
            session: self.session,
            fetched: self.asked,
            rendered: ArcSwapOption::empty(),
            room: Arc::clone(&self.cache.room),
        });
        self.cache
            .kept
            .load()
            .stocks
            .insert(self.name.clone(), Arc::clone(&kept));
        Some(kept)
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        self.cache.floors.end(&self.name);
    }
}

/// Stocks that are being fetched, and what invalidations passed by meanwhile.
struct Floors {
    shards: Vec<Mutex<HashMap<StockName, Fetching>>>,
    hasher: RandomState,
}

#[derive(Default)]
struct Fetching {
    fetches: u32,
    floor: Version,
}

impl Floors {
    fn new() -> Self {
        let shards = (0..FLOOR_SHARDS).map(|_| Mutex::default()).collect();
        Self {
            shards,
            hasher: RandomState::new(),
        }
    }

    fn shard(&self, name: &StockName) -> MutexGuard<'_, HashMap<StockName, Fetching>> {
        let shard = self.hasher.hash_one(name) as usize % FLOOR_SHARDS;
        self.shards[shard]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, name: &StockName) {
        self.shard(name).entry(name.clone()).or_default().fetches += 1;
    }

    fn end(&self, name: &StockName) {
        let mut fetches = self.shard(name);
        if let Some(fetching) = fetches.get_mut(name) {
            fetching.fetches -= 1;
            if fetching.fetches == 0 {
                fetches.remove(name);
            }
        }
    }
}

/// Whole seconds that a response may still be served, as `Cache-Status` tells; negative once
/// it may not.
pub fn ttl_seconds(keep_until: BootTime, now: BootTime) -> i64 {
    let left = keep_until.since(now);
    if left > Duration::ZERO {
        left.as_secs() as i64
    } else {
        -(now.since(keep_until).as_secs() as i64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::Price;

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

    /// A cache under the lease of `session` for an hour.
    fn leased(session: u64) -> Arc<Cache> {
        let cache = Arc::new(Cache::new(SETTINGS));
        cache.set_lease(Lease {
            session,
            deadline: BootTime::now() + Duration::from_secs(3600),
            ..Lease::default()
        });
        cache
    }

    fn is_fresh(cache: &Cache, freshness: Freshness) -> bool {
        matches!(cache.stock(&name(), freshness), Found::Fresh(_))
    }

    #[test]
    fn an_answer_is_current_while_its_session_has_a_lease() {
        let cache = leased(1);
        assert!(
            cache
                .fetch(name(), Freshness::Linearizable)
                .keep(stock(1), Version(1), true)
                .is_some()
        );
        assert!(is_fresh(&cache, Freshness::Linearizable));
        cache.set_lease(Lease {
            session: 1,
            deadline: BootTime::now(),
            ..Lease::default()
        });
        assert!(
            !is_fresh(&cache, Freshness::Linearizable),
            "the lease has run out"
        );
        assert!(
            is_fresh(&cache, Freshness::AtMost(Duration::from_secs(60))),
            "young enough all the same"
        );
        cache.set_lease(Lease {
            session: 2,
            deadline: BootTime::now() + Duration::from_secs(60),
            ..Lease::default()
        });
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
            .keep(stock(1), Version(4), true);
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
        assert!(fetch.keep(stock(1), Version(1), true).is_none());
        drop(fetch);
        assert!(
            cache.floors.shard(&name()).is_empty(),
            "floors last no longer than fetches"
        );
        let fetch = cache.fetch(name(), Freshness::Linearizable);
        assert!(fetch.keep(stock(2), Version(2), true).is_some());
    }

    #[test]
    fn an_answer_is_not_kept_under_a_session_that_ended_or_did_not_register() {
        let cache = leased(1);
        let fetch = cache.fetch(name(), Freshness::Linearizable);
        assert!(fetch.keep(stock(1), Version(1), false).is_none());
        cache.set_lease(Lease {
            session: 2,
            deadline: BootTime::now() + Duration::from_secs(60),
            ..Lease::default()
        });
        assert!(fetch.keep(stock(1), Version(1), true).is_none());
    }

    #[test]
    fn without_a_session_only_age_counts() {
        let cache = Arc::new(Cache::new(SETTINGS));
        let fetch = cache.fetch(name(), Freshness::AtMost(Duration::from_secs(60)));
        assert_eq!(fetch.session, 0);
        assert!(fetch.keep(stock(1), Version(1), false).is_some());
        assert!(is_fresh(&cache, Freshness::AtMost(Duration::from_secs(60))));
        assert!(!is_fresh(&cache, Freshness::Linearizable));
    }

    #[test]
    fn a_response_is_served_only_for_the_version_and_memo_that_made_it() {
        let cache = leased(1);
        let kept = cache
            .fetch(name(), Freshness::Linearizable)
            .keep(stock(1), Version(1), true)
            .unwrap();
        kept.render(3, b"memo", &reply(1));
        assert!(kept.rendered(3, b"memo").is_some());
        assert!(kept.rendered(4, b"memo").is_none());
        assert!(kept.rendered(3, b"other").is_none());
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
            .keep(stock(1), Version(1), true)
            .unwrap();
        kept.render(3, b"", &reply(1));
        let rendered = kept.rendered(3, b"").unwrap();
        assert!(!rendered.has_expired(kept.fetched + Duration::from_millis(500)));
        assert!(rendered.has_expired(kept.fetched + Duration::from_millis(501)));
    }

    #[test]
    fn responses_are_kept_as_long_as_there_is_room_for_them() {
        let cache = leased(1);
        let keep = || {
            let fetch = cache.fetch(name(), Freshness::Linearizable);
            fetch.keep(stock(1), Version(1), true).unwrap()
        };
        let (first, second) = (keep(), keep());
        first.render(3, b"", &reply(limits::RENDERED_BYTES_MAX / 2));
        first.render(3, b"", &reply(limits::RENDERED_BYTES_MAX / 2));
        second.render(3, b"", &reply(1 + limits::RENDERED_BYTES_MAX / 2));
        assert!(second.rendered(3, b"").is_none(), "there is no room");
        first.render(4, b"", &reply(1));
        second.render(3, b"", &reply(1 + limits::RENDERED_BYTES_MAX / 2));
        assert!(second.rendered(3, b"").is_some(), "there is again");
    }
}
