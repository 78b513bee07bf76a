//! What the gateway keeps: outcomes of reads, each with the response that a policy made of it.
//!
//! An entry is an outcome. The rendered response beside it is tagged with the version of the
//! policy that made it and with that policy's memo: another version renders the same outcome
//! anew, without asking a backend.
//!
//! What may be kept of a stock, and what may be served, `frontend_core` decides. Here is what
//! many threads share, and what its rules ask for: an answer is admitted and inserted, and an
//! entry is invalidated and removed, under one lock; a lookup takes none.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use domain::time::BootTime;
use domain::{OrderNumber, SessionId, StockName, Version};
use frontend_core::{Answer, Ask, Fetches, Freshness, Lease, Tag};
use moka::policy::EvictionPolicy;
use moka::sync::Cache as Moka;

use frontend_policy::decision::{CacheSettings, Eviction, Order, Stock};
use frontend_policy::limits;

mod kept;

use kept::Room;
pub use kept::{Kept, Rendered};

/// Locks that the stocks that are being fetched are spread over. A power of two.
const FETCH_SHARDS: usize = 64;

/// The caches of one gateway.
pub struct Cache {
    kept: ArcSwap<Tables>,
    /// Of the policy that is followed.
    generation: AtomicU64,
    /// Held while another policy is followed.
    following: Mutex<()>,
    lease: ArcSwap<Lease>,
    fetches: Shards,
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
    /// Not looked for, as the policy wanted it.
    pub bypasses: AtomicU64,
}

struct Tables {
    settings: CacheSettings,
    stocks: Moka<StockName, Held>,
    orders: Moka<OrderNumber, Arc<Kept<Order>>>,
}

/// A stock that is kept, and under what.
#[derive(Clone)]
struct Held {
    tag: Tag,
    kept: Arc<Kept<Stock>>,
}

/// What a lookup found.
pub enum Found<V> {
    /// Fresh enough, by a clock that was read after the entry.
    Fresh(Arc<Kept<V>>, BootTime),
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
            fetches: Shards::new(),
            room: Arc::new(Room::of(limits::RENDERED_BYTES_MAX)),
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
        let Some(Held { tag, kept }) = self.kept.load().stocks.get(name) else {
            return Found::Missing;
        };
        // The clock and the lease are read after the entry: this is the linearization point.
        let now = BootTime::now();
        if tag.is_fresh(freshness, &self.lease.load(), now) {
            Found::Fresh(kept, now)
        } else {
            Found::Stale(kept)
        }
    }

    /// Looks an order up. Rows never change: what is there is right.
    pub fn order(&self, number: OrderNumber) -> Option<Arc<Kept<Order>>> {
        self.kept.load().orders.get(&number)
    }

    /// Announces that a stock is about to be asked for, under the current session where the
    /// answer is to be current, under none where its age is what matters.
    pub fn fetch(self: &Arc<Self>, name: StockName, freshness: Freshness) -> Fetch {
        let (lease, now) = (self.lease(), BootTime::now());
        let ask = self
            .fetches
            .of(&name)
            .begin(name.clone(), freshness, &lease, now);
        Fetch {
            cache: Arc::clone(self),
            ask,
        }
    }

    /// Keeps an order.
    pub fn keep_order(&self, order: Order, asked: BootTime) -> Arc<Kept<Order>> {
        let number = order.number;
        let kept = Kept::new(order, asked, &self.room);
        self.kept.load().orders.insert(number, Arc::clone(&kept));
        kept
    }

    /// Nothing of that stock below `floor` may be served any more. When this returns, no
    /// lookup finds such an entry, and no fetch under way will insert one.
    pub fn invalidate(&self, name: &StockName, floor: Version) {
        let mut fetches = self.fetches.of(name);
        let kept = self.kept.load();
        let held = kept.stocks.get(name).map(|held| held.tag);
        if fetches.invalidate(name, floor, held) {
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
    ask: Ask,
}

impl Fetch {
    /// To be named to the catalog.
    pub fn session(&self) -> Option<SessionId> {
        self.ask.session()
    }

    /// Keeps what the catalog answered, unless that is no longer current (see
    /// [`Fetches::admit`]). `registered` is the catalog's word that it will tell the session of
    /// changes.
    pub fn keep(
        &self,
        stock: Stock,
        version: Version,
        registered: bool,
    ) -> Option<Arc<Kept<Stock>>> {
        debug_assert_eq!(
            &stock.name,
            self.ask.name(),
            "the catalog answers what it was asked"
        );
        let answer = Answer {
            version,
            registered,
        };
        let cache = &self.cache;
        let fetches = cache.fetches.of(self.ask.name());
        let tag = fetches.admit(&self.ask, answer, &cache.lease())?;
        let kept = Kept::new(stock, self.ask.asked(), &cache.room);
        let held = Held {
            tag,
            kept: Arc::clone(&kept),
        };
        let name = self.ask.name().clone();
        cache.kept.load().stocks.insert(name, held);
        drop(fetches); // what is admitted is inserted before anything is invalidated
        Some(kept)
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        self.cache.fetches.of(self.ask.name()).end(&self.ask);
    }
}

/// The stocks that are being fetched, spread over locks.
struct Shards {
    all: Vec<Mutex<Fetches>>,
    hasher: RandomState,
}

impl Shards {
    fn new() -> Self {
        let all = (0..FETCH_SHARDS).map(|_| Mutex::default()).collect();
        Self {
            all,
            hasher: RandomState::new(),
        }
    }

    /// The shard that a stock is in.
    fn of(&self, name: &StockName) -> MutexGuard<'_, Fetches> {
        let shard = self.hasher.hash_one(name) as usize % FETCH_SHARDS;
        self.all[shard]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
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
mod tests;
