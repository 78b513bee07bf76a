//! A request under way: what the policy decides is done, until that is a response.
//!
//! A hit takes the shortest way. It waits for nothing, so whatever waits for a backend is boxed:
//! the future of a request, which hyper moves about, stays small.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use domain::time::BootTime;
use domain::{IdempotencyKey, OrderNumber, StockName};
use tokio::sync::SemaphorePermit;
use tokio::time::{Instant, sleep, timeout_at};

use super::admission::{Refusal as Inadmissible, check_content_coding, check_readable};
use super::cache_status::{CacheStatus, Forward};
use super::response::complete;
use super::{Gateway, Request};
use crate::backend::StockAnswer;
use crate::cache::{Counts, Fetch, Found, Kept, Rendered, ttl_seconds};
use crate::config::STALE_WAIT_MAX;
use frontend_policy::decision::{
    Action, Caching, Decision, Freshness, Listing, Order, Outcome, Page, Refusal, Reply, Stock,
    TradeAction, Unavailability,
};
use frontend_policy::{Decider, RequestParts, Undecided, limits};

/// A request under way.
pub(super) struct Deciding<'a> {
    gateway: &'a Gateway,
    parts: RequestParts<'a>,
    decider: Decider<'a>,
    /// Until when backends are asked; set when the first one is.
    deadlines: Option<Deadlines>,
    /// Made once, for every attempt to trade.
    key: Option<IdempotencyKey>,
    /// Kept until the list that was read is rendered.
    list: Option<SemaphorePermit<'a>>,
}

/// They are the request's, not a step's.
#[derive(Clone, Copy)]
struct Deadlines {
    read: Instant,
    trade: Instant,
}

/// What a request is answered with.
pub(super) enum Answer {
    /// A response that was kept.
    Kept {
        rendered: Arc<Rendered>,
        status: CacheStatus,
    },
    /// One that the policy has just made.
    Fresh {
        reply: Reply,
        status: Option<CacheStatus>,
    },
    /// None that the policy could give: it would list all stocks at once, and there are more than it
    /// can be shown.
    ListTooLong,
}

/// How a step ended.
enum Stepped {
    /// With an answer that the policy is not asked for.
    Answered(Answer),
    /// With an outcome to decide about.
    Outcome(Outcome, Source),
}

/// Where the outcome of a step came from.
enum Source {
    /// No read.
    None,
    /// From the cache; the response made of it can be put beside it.
    Stock {
        kept: Arc<Kept<Stock>>,
        /// Until when it is fresh; none for as long as it is kept.
        fresh_until: Option<BootTime>,
        /// It is not, but no backend answers.
        is_stale: bool,
    },
    Order(Arc<Kept<Order>>),
    /// From the catalog, and may be kept.
    FetchedStock {
        fetch: Fetch,
        answer: Option<Cacheable>,
        forwarded: Forward,
    },
    /// From a replica, and may be kept.
    FetchedOrder {
        order: Order,
        asked: BootTime,
    },
    /// From a backend, and is not kept.
    Passed(Forward),
}

/// A stock and what it takes to keep it.
struct Cacheable {
    stock: Stock,
    version: domain::Version,
    registered: bool,
}

/// What the cache had for a read.
enum Lookup {
    /// Enough.
    Found(Stepped),
    /// Not enough: a backend is to be asked.
    Ask {
        why: Forward,
        /// What may do where no backend answers.
        kept: Option<Arc<Kept<Stock>>>,
    },
}

impl Lookup {
    fn ask(why: Forward) -> Self {
        Self::Ask { why, kept: None }
    }

    /// Counts it as `Cache-Status` will tell it.
    fn count(self, counts: &Counts) -> Self {
        let counter = match &self {
            Self::Found(_) => &counts.hits,
            Self::Ask { why, .. } => match why {
                Forward::Bypass => &counts.bypasses,
                Forward::Miss => &counts.misses,
                Forward::Stale => &counts.stale,
            },
        };
        counter.fetch_add(1, Ordering::Relaxed);
        self
    }
}

impl<'a> Deciding<'a> {
    /// Takes a request up; or refuses it, where the policy that decides cannot be shown its headers
    /// or make sense of its body. What was published when it was let in may be another by now.
    pub(super) fn begin(gateway: &'a Gateway, request: &'a Request) -> Result<Self, Inadmissible> {
        let decider = client(gateway, request, |client| gateway.policy.decider(client));
        let published = decider.published();
        gateway
            .cache
            .follow(published.generation, published.active.manifest.cache);
        let head = &request.admitted.head;
        check_readable(&head.headers, published.wanted_headers())?;
        if request.body.as_ref().is_some_and(|body| !body.is_empty()) {
            check_content_coding(&head.headers, decider.version().manifest.headers.iter())?;
        }
        let target = head.uri.path_and_query();
        Ok(Self {
            gateway,
            parts: RequestParts {
                method: &head.method,
                target: target.map_or("/", |target| target.as_str()),
                headers: &head.headers,
                body: request.body.as_deref(),
                now_ms: unix_ms(),
            },
            decider,
            deadlines: None,
            key: None,
            list: None,
        })
    }

    /// Decides and acts until there is an answer.
    pub(super) async fn run(mut self) -> Result<Answer, Undecided> {
        let Decision {
            mut action,
            mut memo,
        } = self.decider.on_request(self.parts)?;
        let mut action_before = None;
        for _ in 0..limits::STEPS_MAX {
            match action {
                // Of no read: nothing to say of the cache.
                Action::Respond(mut reply) => {
                    complete(&mut reply, false);
                    return Ok(self.respond(*reply, Source::None, &memo));
                }
                Action::Retry(pause) => {
                    let left = self.deadlines().trade - Instant::now();
                    Box::pin(sleep(pause.min(left))).await;
                    action = action_before.ok_or(Undecided)?;
                }
                Action::ReadStock { .. }
                | Action::ListStocks(_)
                | Action::ReadOrder { .. }
                | Action::Trade(_) => {}
            }
            let (outcome, source) = match self.step(&action, &memo).await {
                Stepped::Answered(answer) => return Ok(answer),
                Stepped::Outcome(outcome, source) => (outcome, source),
            };
            let decision = self.decider.on_outcome(self.parts, &memo, &outcome)?;
            // What is kept is found again by the memo that came with the action.
            if let Action::Respond(mut reply) = decision.action {
                let is_read = matches!(outcome, Outcome::Stock(_) | Outcome::Order(_));
                complete(&mut reply, is_read);
                return Ok(self.respond(*reply, source, &memo));
            }
            action_before = Some(std::mem::replace(&mut action, decision.action));
            memo = decision.memo;
        }
        tracing::warn!(policy = %self.decider.version(), target = self.parts.target, "the policy took too many steps");
        Err(Undecided)
    }

    async fn step(&mut self, action: &Action, memo: &[u8]) -> Stepped {
        match action {
            Action::ReadStock { name, caching } => {
                let lookup = self.cached_stock(name, *caching, memo);
                match lookup.count(&self.gateway.cache.stock_counts) {
                    Lookup::Found(stepped) => stepped,
                    Lookup::Ask { why, kept } => {
                        Box::pin(self.fetch_stock(name, *caching, why, kept)).await
                    }
                }
            }
            Action::ReadOrder { number, caching } => {
                let lookup = self.cached_order(*number, *caching, memo);
                match lookup.count(&self.gateway.cache.order_counts) {
                    Lookup::Found(stepped) => stepped,
                    Lookup::Ask { why, .. } => Box::pin(self.fetch_order(*number, why)).await,
                }
            }
            Action::ListStocks(listing) => Box::pin(self.list_stocks(listing)).await,
            Action::Trade(trade) => {
                let order = self.order(trade);
                let deadline = self.deadlines().trade;
                let outcome = Box::pin(self.gateway.backend.trade(&order, deadline)).await;
                Stepped::Outcome(outcome, Source::None)
            }
            Action::Respond(_) | Action::Retry(_) => {
                unreachable!("`run` deals with answers and retries")
            }
        }
    }

    /// Few are in memory at a time, however many are asked for.
    async fn page(
        &mut self,
        after: Option<&StockName>,
        limit: u32,
    ) -> Result<Page, Unavailability> {
        let deadline = self.deadlines().read;
        let gateway = self.gateway;
        if self.list.is_none() {
            let permit = timeout_at(deadline, gateway.lists.acquire()).await;
            let permit = permit.map_err(|_| Unavailability::NoCatalog)?;
            self.list = Some(permit.expect("never closed"));
        }
        gateway.backend.list_stocks(after, limit, deadline).await
    }

    fn deadlines(&mut self) -> Deadlines {
        let gateway = self.gateway;
        *self.deadlines.get_or_insert_with(|| {
            let now = Instant::now();
            Deadlines {
                read: now + gateway.read_time_max,
                trade: now + gateway.trade_time_max,
            }
        })
    }

    /// The order that a trade places, with the client's key or the one made for this request.
    fn order(&mut self, trade: &TradeAction) -> domain::Order {
        let key = trade
            .key
            .clone()
            .unwrap_or_else(|| self.key.get_or_insert_with(|| new_key(unix_ms())).clone());
        domain::Order {
            key,
            name: trade.name.clone(),
            side: trade.side,
            quantity: trade.quantity,
        }
    }

    fn cached_stock(&self, name: &StockName, caching: Caching, memo: &[u8]) -> Lookup {
        if caching.freshness == Freshness::Bypass {
            return Lookup::ask(Forward::Bypass);
        }
        let cache = &self.gateway.cache;
        let (kept, now) = match cache.stock(name, caching.freshness) {
            Found::Fresh(kept, now) => (kept, now),
            Found::Stale(kept) => {
                return Lookup::Ask {
                    why: Forward::Stale,
                    kept: Some(kept),
                };
            }
            Found::Missing => return Lookup::ask(Forward::Miss),
        };
        let rendered = kept.rendered(self.decider.version().id, memo);
        if rendered
            .as_ref()
            .is_some_and(|rendered| rendered.has_expired(now))
        {
            return Lookup::Ask {
                why: Forward::Stale,
                kept: Some(kept),
            };
        }
        // Past its age it is fresh by its lease.
        let fresh_until = fresh_until(kept.fetched, caching.freshness).filter(|at| now <= *at);
        Lookup::Found(match rendered {
            Some(rendered) => Stepped::Answered(hit(rendered, fresh_until, now)),
            None => Stepped::Outcome(
                Outcome::Stock(kept.value.clone()),
                Source::Stock {
                    kept,
                    fresh_until,
                    is_stale: false,
                },
            ),
        })
    }

    async fn fetch_stock(
        &mut self,
        name: &StockName,
        caching: Caching,
        forwarded: Forward,
        kept_before: Option<Arc<Kept<Stock>>>,
    ) -> Stepped {
        let fetch = self.gateway.cache.fetch(name.clone(), caching.freshness);
        let may_serve =
            |kept: &Arc<Kept<Stock>>| BootTime::now().since(kept.fetched) <= caching.stale_on_error;
        let mut deadline = self.deadlines().read;
        if kept_before.as_ref().is_some_and(may_serve) {
            deadline = deadline.min(Instant::now() + STALE_WAIT_MAX);
        }
        let backend = &self.gateway.backend;
        match backend.read_stock(name, fetch.session(), deadline).await {
            Ok(StockAnswer::Found {
                stock,
                version,
                registered,
            }) => {
                let outcome = Outcome::Stock(stock.clone());
                let answer = (forwarded != Forward::Bypass).then_some(Cacheable {
                    stock,
                    version,
                    registered,
                });
                let source = Source::FetchedStock {
                    fetch,
                    answer,
                    forwarded,
                };
                Stepped::Outcome(outcome, source)
            }
            Ok(StockAnswer::NotFound) => {
                let outcome = Outcome::Refused(Refusal::StockNotFound);
                Stepped::Outcome(outcome, Source::Passed(forwarded))
            }
            Err(unavailable) => match kept_before.filter(may_serve) {
                Some(kept) => {
                    let until = fresh_until(kept.fetched, caching.freshness);
                    let source = Source::Stock {
                        fresh_until: until.or(Some(kept.fetched)),
                        is_stale: true,
                        kept: Arc::clone(&kept),
                    };
                    Stepped::Outcome(Outcome::Stock(kept.value.clone()), source)
                }
                None => {
                    Stepped::Outcome(Outcome::Unavailable(unavailable), Source::Passed(forwarded))
                }
            },
        }
    }

    fn cached_order(&self, number: OrderNumber, caching: Caching, memo: &[u8]) -> Lookup {
        if caching.freshness == Freshness::Bypass {
            return Lookup::ask(Forward::Bypass);
        }
        let cache = &self.gateway.cache;
        let Some(kept) = cache.order(number) else {
            return Lookup::ask(Forward::Miss);
        };
        let now = BootTime::now();
        let rendered = kept.rendered(self.decider.version().id, memo);
        // An order never changes: what has expired is rendered anew.
        Lookup::Found(match rendered.filter(|kept| !kept.has_expired(now)) {
            Some(rendered) => Stepped::Answered(hit(rendered, None, now)),
            None => Stepped::Outcome(Outcome::Order(kept.value.clone()), Source::Order(kept)),
        })
    }

    async fn fetch_order(&mut self, number: OrderNumber, forwarded: Forward) -> Stepped {
        let asked = BootTime::now();
        let deadline = self.deadlines().read;
        let outcome = self.gateway.backend.read_order(number, deadline).await;
        let source = match &outcome {
            Outcome::Order(order) if forwarded != Forward::Bypass => Source::FetchedOrder {
                order: order.clone(),
                asked,
            },
            _ => Source::Passed(forwarded),
        };
        Stepped::Outcome(outcome, source)
    }

    async fn list_stocks(&mut self, listing: &Listing) -> Stepped {
        let (after, limit) = match listing {
            Listing::Page { after, limit } => (after.as_ref(), *limit),
            Listing::All => (None, limits::LISTED_MAX),
        };
        let outcome = match self.page(after, limit).await {
            Ok(page) if page.more && *listing == Listing::All => {
                return Stepped::Answered(Answer::ListTooLong);
            }
            Ok(page) => Outcome::Stocks(page),
            Err(unavailable) => Outcome::Unavailable(unavailable),
        };
        Stepped::Outcome(outcome, Source::Passed(Forward::Bypass))
    }

    /// Keeps the response where the policy wants that and it may be kept.
    fn respond(&self, reply: Reply, source: Source, memo: &[u8]) -> Answer {
        let policy = self.decider.version().id;
        let status = match source {
            Source::None => None,
            Source::Passed(why) => Some(CacheStatus::Forwarded { why, stored: false }),
            Source::Stock {
                kept,
                fresh_until,
                is_stale,
            } => {
                kept.render(policy, memo, &reply, kept.fetched);
                let keep_until = kept.fetched + reply.keep.unwrap_or_default();
                let now = BootTime::now();
                let ttl = ttl_seconds(fresh_until.map_or(keep_until, |at| at.min(keep_until)), now);
                Some(CacheStatus::Hit {
                    ttl: if is_stale { ttl } else { ttl.max(0) },
                    age: now.since(kept.fetched).as_secs(),
                })
            }
            // It never changes, so its time begins anew.
            Source::Order(kept) => {
                let now = BootTime::now();
                kept.render(policy, memo, &reply, now);
                Some(CacheStatus::Hit {
                    ttl: ttl_seconds(now + reply.keep.unwrap_or_default(), now),
                    age: now.since(kept.fetched).as_secs(),
                })
            }
            Source::FetchedStock {
                fetch,
                answer,
                forwarded: why,
            } => {
                let wanted = answer.filter(|_| reply.keep.is_some());
                let kept = wanted
                    .and_then(|answer| fetch.keep(answer.stock, answer.version, answer.registered));
                if let Some(kept) = &kept {
                    kept.render(policy, memo, &reply, kept.fetched);
                }
                let stored = kept.is_some();
                Some(CacheStatus::Forwarded { why, stored })
            }
            Source::FetchedOrder { order, asked } => {
                let stored = reply.keep.is_some();
                if stored {
                    let kept = self.gateway.cache.keep_order(order, asked);
                    kept.render(policy, memo, &reply, asked);
                }
                let why = Forward::Miss;
                Some(CacheStatus::Forwarded { why, stored })
            }
        };
        Answer::Fresh { reply, status }
    }
}

/// What a canary knows the client by.
fn client<T>(gateway: &Gateway, request: &Request, with: impl FnOnce(&[u8]) -> T) -> T {
    let header = gateway
        .client_header
        .as_ref()
        .and_then(|name| request.admitted.head.headers.get(name));
    match (header, request.client) {
        (Some(value), _) => with(value.as_bytes()),
        (None, IpAddr::V4(address)) => with(&address.octets()),
        (None, IpAddr::V6(address)) => with(&address.octets()),
    }
}

/// When a value ceases to be fresh by its age.
fn fresh_until(fetched: BootTime, freshness: Freshness) -> Option<BootTime> {
    match freshness {
        Freshness::AtMost(age) => Some(fetched + age),
        Freshness::Linearizable | Freshness::Bypass => None,
    }
}

fn hit(rendered: Arc<Rendered>, fresh_until: Option<BootTime>, now: BootTime) -> Answer {
    let keep_until = rendered.keep_until;
    let until = fresh_until.map_or(keep_until, |at| at.min(keep_until));
    let status = CacheStatus::Hit {
        ttl: ttl_seconds(until, now),
        age: now.since(rendered.fetched).as_secs(),
    };
    Answer::Kept { rendered, status }
}

/// A key that nobody else makes: the time and 80 random bits. Keys made at about the same time
/// lie beside each other in the databases' indexes, so that a group of orders changes few pages
/// (the idea of ULID, and of UUID version 7 in RFC 9562, section 5.7).
fn new_key(now_ms: u64) -> IdempotencyKey {
    let mut random = [0; 10];
    getrandom::fill(&mut random).expect("the system has randomness");
    let random = random
        .iter()
        .fold(0, |bits, &byte| bits << 8 | u128::from(byte));
    let key = format!("gateway-{:012x}{random:020x}", now_ms & 0xffff_ffff_ffff);
    IdempotencyKey::new(&key).expect("40 printable bytes")
}

fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ_and_rise_with_the_time() {
        assert_ne!(new_key(7), new_key(7));
        let keys = [7, 8, 255, 256, u64::MAX].map(new_key);
        assert!(keys.is_sorted_by_key(|key| key.as_str()));
        assert!(keys.iter().all(|key| key.as_str().len() == 40));
    }
}
