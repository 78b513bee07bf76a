//! What the gateway keeps: outcomes of reads, each with the response that a policy made of it.
//!
//! An entry is an outcome. The rendered responses beside it are tagged with the version of the
//! policy that made them and with the key of its read: another version, or for another key, renders
//! the same outcome anew, without asking a backend.
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
use metrics::Counter;
use moka::notification::RemovalCause;
use moka::policy::EvictionPolicy;
use moka::sync::Cache as Moka;

use frontend_policy::decision::{CacheSettings, Eviction, Order, Stock};
use frontend_policy::limits;

mod contents;
mod entry;

pub use contents::Contents;
use contents::LastEvicted;
use entry::ByteBudget;
pub use entry::{CacheEntry, Found, RenderKey, Rendered, Rendering};

/// Locks that the stocks that are being fetched are spread over. A power of two.
const FETCH_SHARDS: usize = 64;

/// The caches of one gateway.
pub struct Cache {
    tables: ArcSwap<Tables>,
    bounds: CacheBounds,
    /// Of the policy whose settings apply.
    generation: AtomicU64,
    /// Held while those of another are applied.
    applying: Mutex<()>,
    lease: ArcSwap<Lease>,
    fetches: Shards,
    budget: Arc<ByteBudget>,
    /// What lookups of stocks came to.
    pub stock_counts: Counts,
    /// What lookups of orders came to.
    pub order_counts: Counts,
    evicted: Evicted,
}

/// What had to make room lately.
#[derive(Debug, Default)]
struct Evicted {
    stocks: Arc<LastEvicted<StockName>>,
    orders: Arc<LastEvicted<OrderNumber>>,
}

/// What lookups came to.
#[derive(Debug, Default)]
pub struct Counts {
    /// Answered from the cache.
    pub hits: Counter,
    pub misses: Counter,
    /// There, but no longer fresh enough.
    pub stale: Counter,
    /// Not looked for, as the policy wanted it.
    pub bypasses: Counter,
    /// Entries that had to make room, or got none.
    pub evicted: Arc<AtomicU64>,
    /// Entries that the catalog had it let go of.
    pub invalidated: AtomicU64,
}

/// What is kept at most, however much a policy asks for. Nothing beyond what it asks for where absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheBounds {
    /// Stocks; 0 for none.
    pub stocks_max: Option<u32>,
    /// Orders; 0 for none.
    pub orders_max: Option<u32>,
}

impl CacheBounds {
    fn bound(self, settings: CacheSettings) -> CacheSettings {
        let bound = |asked: u32, max: Option<u32>| max.map_or(asked, |max| asked.min(max));
        CacheSettings {
            stocks_max: bound(settings.stocks_max, self.stocks_max),
            orders_max: bound(settings.orders_max, self.orders_max),
            ..settings
        }
    }
}

struct Tables {
    settings: CacheSettings,
    stocks: Moka<StockName, Tagged>,
    orders: Moka<OrderNumber, Arc<CacheEntry<Order>>>,
}

/// A stock that is kept, and under what.
#[derive(Clone)]
struct Tagged {
    tag: Tag,
    entry: Arc<CacheEntry<Stock>>,
}

/// What a lookup came to.
pub enum CacheLookup<V> {
    /// It is there and fresh enough, by a clock that was read after the entry.
    Current(Arc<CacheEntry<V>>, BootTime),
    /// It is there, but not fresh enough.
    Stale(Arc<CacheEntry<V>>),
    /// It is not there.
    Miss,
    /// None is kept.
    Off,
}

impl Cache {
    /// As a policy asks for it, within bounds.
    pub fn new(settings: CacheSettings, bounds: CacheBounds) -> Self {
        let [stock_counts, order_counts] = [Counts::default(), Counts::default()];
        let evicted = Evicted::default();
        let counts = [&stock_counts, &order_counts];
        let tables = Tables::new(bounds.bound(settings), counts, &evicted);
        Self {
            tables: ArcSwap::from_pointee(tables),
            bounds,
            generation: AtomicU64::new(1),
            applying: Mutex::new(()),
            lease: ArcSwap::from_pointee(Lease::default()),
            fetches: Shards::new(),
            budget: Arc::new(ByteBudget::of(limits::RENDERED_BYTES_MAX)),
            stock_counts,
            order_counts,
            evicted,
        }
    }

    /// Applies the settings of the policy that is active since publication `generation`. Where
    /// they differ from those before, the cache starts empty.
    pub fn apply_settings(&self, generation: u64, settings: CacheSettings) {
        if self.generation.load(Ordering::Acquire) >= generation {
            return;
        }
        let _applying = self.applying.lock().unwrap_or_else(PoisonError::into_inner);
        if self.generation.load(Ordering::Acquire) < generation {
            let settings = self.bounds.bound(settings);
            if self.tables.load().settings != settings {
                let counts = [&self.stock_counts, &self.order_counts];
                let tables = Tables::new(settings, counts, &self.evicted);
                self.tables.store(Arc::new(tables));
            }
            self.generation.store(generation, Ordering::Release);
        }
    }

    /// How many stocks and how many orders are kept.
    pub fn entries(&self) -> (u64, u64) {
        let tables = self.tables.load();
        // The tables count late otherwise.
        tables.stocks.run_pending_tasks();
        tables.orders.run_pending_tasks();
        (tables.stocks.entry_count(), tables.orders.entry_count())
    }

    /// Which stocks and which orders are kept, the first so many of each by name and by number, and which had to make
    /// room lately. Looks at every entry: not for threads that serve.
    pub fn contents(&self, shown_max: usize) -> (Contents<StockName>, Contents<OrderNumber>) {
        let tables = self.tables.load();
        let Tables {
            settings,
            stocks,
            orders,
        } = &**tables;
        let evicted = &self.evicted;
        let stocks = Contents::of(stocks, settings.stocks_max, &evicted.stocks, shown_max);
        let orders = Contents::of(orders, settings.orders_max, &evicted.orders, shown_max);
        (stocks, orders)
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
    pub fn stock(&self, name: &StockName, freshness: Freshness) -> CacheLookup<Stock> {
        let tables = self.tables.load();
        let Some(Tagged { tag, entry }) = tables.stocks.get(name) else {
            return match tables.settings.stocks_max {
                0 => CacheLookup::Off,
                _ => CacheLookup::Miss,
            };
        };
        // The clock and the lease are read after the entry: this is the linearization point.
        let now = BootTime::now();
        if tag.is_fresh(freshness, &self.lease.load(), now) {
            CacheLookup::Current(entry, now)
        } else {
            CacheLookup::Stale(entry)
        }
    }

    /// Looks an order up. Rows never change: what is there is current.
    pub fn order(&self, number: OrderNumber) -> CacheLookup<Order> {
        let tables = self.tables.load();
        match (tables.orders.get(&number), tables.settings.orders_max) {
            (Some(entry), _) => CacheLookup::Current(entry, BootTime::now()),
            (None, 0) => CacheLookup::Off,
            (None, _) => CacheLookup::Miss,
        }
    }

    /// How many stocks and how many orders are kept at most.
    pub fn entries_max(&self) -> (u32, u32) {
        let settings = self.tables.load().settings;
        (settings.stocks_max, settings.orders_max)
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

    /// Keeps an order that a replica was asked for then.
    pub fn store_order(&self, order: Order, requested_at: BootTime) -> Arc<CacheEntry<Order>> {
        let number = order.number;
        let entry = CacheEntry::new(order, requested_at, &self.budget);
        self.tables.load().orders.insert(number, Arc::clone(&entry));
        entry
    }

    /// Nothing of that stock below `floor` may be served any more. When this returns, no
    /// lookup finds such an entry, and no fetch under way will insert one.
    pub fn invalidate(&self, name: &StockName, floor: Version) {
        let mut fetches = self.fetches.of(name);
        let tables = self.tables.load();
        let tag = tables.stocks.get(name).map(|stock| stock.tag);
        if fetches.invalidate(name, floor, tag) {
            tables.stocks.invalidate(name);
            let invalidated = &self.stock_counts.invalidated;
            invalidated.fetch_add(u64::from(tag.is_some()), Ordering::Relaxed);
        }
    }
}

impl Tables {
    fn new(settings: CacheSettings, [stocks, orders]: [&Counts; 2], evicted: &Evicted) -> Self {
        let CacheSettings {
            stocks_max,
            orders_max,
            eviction,
        } = settings;
        Self {
            settings,
            stocks: table(stocks_max, eviction, (&stocks.evicted, &evicted.stocks)),
            orders: table(orders_max, eviction, (&orders.evicted, &evicted.orders)),
        }
    }
}

fn table<K, V>(
    entries_max: u32,
    eviction: Eviction,
    (count, last): (&Arc<AtomicU64>, &Arc<LastEvicted<K>>),
) -> Moka<K, V>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    let eviction = match eviction {
        Eviction::Lru => EvictionPolicy::lru(),
        Eviction::TinyLfu => EvictionPolicy::tiny_lfu(),
    };
    let (count, last) = (Arc::clone(count), Arc::clone(last));
    Moka::builder()
        .max_capacity(entries_max.into())
        .eviction_policy(eviction)
        .eviction_listener(move |key, _, cause| {
            if cause == RemovalCause::Size {
                count.fetch_add(1, Ordering::Relaxed);
                last.note(key);
            }
        })
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
    pub fn store(
        &self,
        stock: Stock,
        version: Version,
        registered: bool,
    ) -> Option<Arc<CacheEntry<Stock>>> {
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
        let entry = CacheEntry::new(stock, self.ask.asked(), &cache.budget);
        let stock = Tagged {
            tag,
            entry: Arc::clone(&entry),
        };
        let name = self.ask.name().clone();
        cache.tables.load().stocks.insert(name, stock);
        drop(fetches); // what is admitted is inserted before anything is invalidated
        Some(entry)
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
