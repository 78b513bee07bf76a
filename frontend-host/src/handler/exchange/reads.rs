//! Reads: from the cache where that has enough, from a backend otherwise.

use std::sync::Arc;

use domain::time::BootTime;
use domain::{OrderNumber, Protocol, StockName};
use tokio::sync::Semaphore;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout_at};

use super::{Exchange, OnReply, StepResult, request_parts};
use crate::cache::{CacheEntry, CacheLookup, Found, RenderKey, Rendered, ttl_seconds};
use crate::config::STALE_WAIT_MAX;
use crate::events::{LetIn, NotFollowed};
use crate::handler::cache_status::{CacheStatus, Forward};
use crate::handler::events;
use crate::handler::refusal::Refusal as Refused;
use crate::handler::response::{self, complete};
use crate::upstream::backend::StockAnswer;
use frontend_policy::decision::{
    Caching, Freshness, Listing, Order, OrderListing, Outcome, Page, Refusal, Stock, Unavailability,
};
use frontend_policy::limits;

/// A stock that the catalog is to be asked for.
pub(super) struct ToFetch {
    pub(super) why: Forward,
    /// What may do where it does not answer.
    stale: Option<Arc<CacheEntry<Stock>>>,
}

impl ToFetch {
    fn for_lack_of_entry(why: Forward) -> Self {
        Self { why, stale: None }
    }

    fn instead_of(stale: Arc<CacheEntry<Stock>>) -> Self {
        Self {
            why: Forward::Stale,
            stale: Some(stale),
        }
    }
}

impl<'a> Exchange<'a> {
    /// What the cache has of a stock: the response made of it before, or the stock for the policy
    /// to make one of. Where that is not enough, the catalog is to be asked.
    pub(super) fn find_stock(
        &mut self,
        name: &StockName,
        caching: &Caching,
        memo: &[u8],
    ) -> Result<StepResult, ToFetch> {
        if caching.freshness == Freshness::Bypass {
            return Err(ToFetch::for_lack_of_entry(Forward::Bypass));
        }
        let (entry, now) = match self.gateway.cache.stock(name, caching.freshness) {
            CacheLookup::Current(entry, now) => (entry, now),
            CacheLookup::Stale(entry) => return Err(ToFetch::instead_of(entry)),
            CacheLookup::Miss => return Err(ToFetch::for_lack_of_entry(Forward::Miss)),
            CacheLookup::Off => return Err(ToFetch::for_lack_of_entry(Forward::Bypass)),
        };
        // Past its age it is fresh by its lease.
        let fresh_until = fresh_until(entry.fetched, caching.freshness).filter(|at| now <= *at);
        let Some(rendered) = self.rendered(&entry, caching, memo, Outcome::Stock) else {
            let stock = Outcome::Stock(entry.value.clone());
            let on_reply = cached_stock(entry, fresh_until, false);
            return Ok(StepResult::Outcome(stock, Some(on_reply)));
        };
        if rendered.has_expired(now) {
            return Err(ToFetch::instead_of(entry));
        }
        Ok(self.hit(&rendered, fresh_until, now))
    }

    /// The response that was kept beside an entry for this request. Of some it is checked whether
    /// this request would get the same.
    fn rendered<V: Clone>(
        &self,
        entry: &CacheEntry<V>,
        caching: &Caching,
        memo: &[u8],
        outcome: fn(V) -> Outcome,
    ) -> Option<Found> {
        let key = self.render_key(&caching.vary_key);
        if !self.decider.version().may_keep() || !self.is_operation_its_own() {
            return None;
        }
        if self.decider.renders_anew() {
            return None;
        }
        let rendered = entry.rendered(key)?;
        if self.decider.checks_kept()
            && !self.would_be(&rendered, memo, &outcome(entry.value.clone()))
        {
            entry.forget(key);
            return None;
        }
        Some(rendered)
    }

    /// Whether this request would get that response, had it come when the response was made.
    // Inlined, it would lengthen the code of every hit.
    #[inline(never)]
    fn would_be(&self, rendered: &Rendered, memo: &[u8], outcome: &Outcome) -> bool {
        let request = request_parts(&self.request, self.now_ms);
        let decider = &self.decider;
        decider.is_rendered_alike(request, rendered.ambient, memo, outcome, |reply| {
            complete(reply, true);
            reply.is_kept_as(&rendered.reply)
        })
    }

    pub(super) async fn fetch_stock(
        &mut self,
        name: &StockName,
        caching: &Caching,
        ToFetch { why, stale }: ToFetch,
    ) -> StepResult {
        let freshness = match why {
            Forward::Bypass => Freshness::Bypass,
            _ => caching.freshness,
        };
        let fetch = self.gateway.cache.fetch(name.clone(), freshness);
        let may_serve = |entry: &Arc<CacheEntry<Stock>>| {
            BootTime::now().since(entry.fetched) <= caching.stale_on_error
        };
        let mut deadline = self.deadlines().read;
        if stale.as_ref().is_some_and(may_serve) {
            deadline = deadline.min(Instant::now() + STALE_WAIT_MAX);
        }
        let (backend, call) = (&self.gateway.backend, self.call(deadline));
        let (outcome, on_reply) = match backend.read_stock(name, fetch.session(), call).await {
            Ok(StockAnswer::Found { stock, .. }) if why == Forward::Bypass => {
                (Outcome::Stock(stock), not_stored(why))
            }
            Ok(StockAnswer::Found {
                stock,
                version,
                registered,
            }) => {
                let outcome = Outcome::Stock(stock.clone());
                let on_reply: OnReply = Box::new(move |rendering| {
                    let wanted = rendering.reply.keep.is_some();
                    let entry = wanted.then(|| fetch.store(stock, version, registered));
                    let entry = entry.flatten();
                    if let Some(entry) = &entry {
                        entry.render(rendering, entry.fetched);
                    }
                    let stored = entry.is_some();
                    CacheStatus::Forwarded { why, stored }
                });
                (outcome, on_reply)
            }
            Ok(StockAnswer::NotFound) => {
                (Outcome::Refused(Refusal::StockNotFound), not_stored(why))
            }
            Err(unavailable) => match stale.filter(may_serve) {
                Some(entry) => {
                    let until = fresh_until(entry.fetched, caching.freshness);
                    let outcome = Outcome::Stock(entry.value.clone());
                    let until = until.or(Some(entry.fetched));
                    (outcome, cached_stock(entry, until, true))
                }
                None => (Outcome::Unavailable(unavailable), not_stored(why)),
            },
        };
        StepResult::Outcome(outcome, Some(on_reply))
    }

    /// The same of an order as of a stock.
    pub(super) fn find_order(
        &mut self,
        number: OrderNumber,
        caching: &Caching,
        memo: &[u8],
    ) -> Result<StepResult, Forward> {
        if caching.freshness == Freshness::Bypass {
            return Err(Forward::Bypass);
        }
        let (entry, now) = match self.gateway.cache.order(number) {
            CacheLookup::Current(entry, now) => (entry, now),
            CacheLookup::Off => return Err(Forward::Bypass),
            CacheLookup::Miss | CacheLookup::Stale(_) => return Err(Forward::Miss),
        };
        let rendered = self.rendered(&entry, caching, memo, Outcome::Order);
        // An order never changes: what has expired is rendered anew.
        Ok(
            match rendered.filter(|rendered| !rendered.has_expired(now)) {
                Some(rendered) => self.hit(&rendered, None, now),
                None => {
                    let outcome = Outcome::Order(entry.value.clone());
                    StepResult::Outcome(outcome, Some(cached_order(entry)))
                }
            },
        )
    }

    pub(super) async fn fetch_order(&mut self, number: OrderNumber, why: Forward) -> StepResult {
        let requested_at = BootTime::now();
        let deadline = self.deadlines().read;
        let outcome = self
            .gateway
            .backend
            .read_order(number, self.call(deadline))
            .await;
        let on_reply = match &outcome {
            Outcome::Order(order) if why != Forward::Bypass => {
                let (order, cache) = (order.clone(), Arc::clone(&self.gateway.cache));
                let on_reply: OnReply = Box::new(move |rendering| {
                    let stored = rendering.reply.keep.is_some();
                    if stored {
                        let entry = cache.store_order(order, requested_at);
                        entry.render(rendering, requested_at);
                    }
                    CacheStatus::Forwarded { why, stored }
                });
                on_reply
            }
            _ => not_stored(why),
        };
        StepResult::Outcome(outcome, Some(on_reply))
    }

    pub(super) async fn list_stocks(&mut self, listing: &Listing) -> StepResult {
        let (after, limit) = match listing {
            Listing::Page { after, limit } => (after.as_ref(), *limit),
            Listing::All => (None, limits::LISTED_MAX),
        };
        let outcome = match self.page(after, limit).await {
            Ok(page) if page.more && *listing == Listing::All => {
                return StepResult::Response(Refused::ListTooLong.response());
            }
            Ok(page) => Outcome::Stocks(page),
            Err(unavailable) => Outcome::Unavailable(unavailable),
        };
        StepResult::Outcome(outcome, Some(not_stored(Forward::Bypass)))
    }

    async fn page(
        &mut self,
        after: Option<&StockName>,
        limit: u32,
    ) -> Result<Page, Unavailability> {
        let deadline = self.deadlines().read;
        let permitted = self.permit_list(&self.gateway.lists, deadline).await;
        permitted.map_err(|_| Unavailability::NoCatalog)?;
        let (backend, call) = (&self.gateway.backend, self.call(deadline));
        backend.list_stocks(after, limit, call).await
    }

    pub(super) async fn list_orders(&mut self, listing: &OrderListing) -> StepResult {
        if let Err(refusal) = self.check_order_pages() {
            return StepResult::Response(refusal.response());
        }
        let deadline = self.deadlines().read;
        let page = match self.permit_list(&self.gateway.order_lists, deadline).await {
            Ok(()) => {
                let (backend, call) = (&self.gateway.backend, self.call(deadline));
                backend.list_orders(listing, call).await
            }
            Err(_) => Err(Unavailability::NoReplica),
        };
        let outcome = page.map_or_else(Outcome::Unavailable, Outcome::Orders);
        StepResult::Outcome(outcome, Some(not_stored(Forward::Bypass)))
    }

    /// The client's own word of what it has seen last counts more than what the policy says.
    pub(super) async fn follow_orders(&mut self, after: Option<OrderNumber>) -> StepResult {
        let seen = match events::last_seen(&self.request.admitted.head.headers) {
            Ok(seen) => seen.or(after),
            Err(refusal) => return StepResult::Response(refusal.response()),
        };
        if let Err(refusal) = self.check_order_pages() {
            return StepResult::Response(refusal.response());
        }
        let let_in = LetIn {
            version: self.decider.version().id,
            generation: self.decider.published().generation,
        };
        let follow = self
            .gateway
            .events
            .follow(seen, let_in, self.request.client);
        match follow.await {
            Ok(stream) => StepResult::Response(events::response(stream)),
            Err(NotFollowed::Ending) => StepResult::Response(events::ended()),
            Err(NotFollowed::Crowded) => StepResult::Response(Refused::StreamsCrowded.response()),
            Err(NotFollowed::Unavailable(why)) => {
                StepResult::Outcome(Outcome::Unavailable(why), None)
            }
        }
    }

    /// Replicas of the release before give no pages of orders, and who waits for that waits for an operator.
    fn check_order_pages(&self) -> Result<(), Refused> {
        let protocol = self.gateway.backend.replicas.protocol();
        match protocol.is_some_and(|protocol| protocol < Protocol::ORDER_PAGES) {
            true => Err(Refused::NoOrderPages),
            false => Ok(()),
        }
    }

    /// Few lists are in memory at a time, however many are asked for.
    async fn permit_list(
        &mut self,
        lists: &'a Semaphore,
        deadline: Instant,
    ) -> Result<(), Elapsed> {
        if self.list.is_none() {
            let permit = timeout_at(deadline, lists.acquire()).await?;
            self.list = Some(permit.expect("never closed"));
        }
        Ok(())
    }

    pub(super) fn render_key<'k>(&self, vary_key: &'k [u8]) -> RenderKey<'k> {
        RenderKey {
            policy: self.decider.version().id,
            vary_key,
        }
    }

    /// A response that was made before.
    fn hit(
        &mut self,
        rendered: &Rendered,
        fresh_until: Option<BootTime>,
        now: BootTime,
    ) -> StepResult {
        let keep_until = rendered.keep_until;
        let until = fresh_until.map_or(keep_until, |at| at.min(keep_until));
        let status = CacheStatus::Hit {
            ttl: ttl_seconds(until, now),
            age: now.since(rendered.fetched).as_secs(),
        };
        let own = &self.decider.version().manifest.reply_headers;
        let is_needed = own.are_conditional();
        let head = &mut *self.request.admitted.head;
        StepResult::Response(response::cached(&rendered.reply, status, head, is_needed))
    }
}

/// For a read whose outcome is not kept.
fn not_stored(why: Forward) -> OnReply {
    let stored = false;
    Box::new(move |_| CacheStatus::Forwarded { why, stored })
}

/// For a stock that was cached: the reply can be put beside it. It is fresh until then, or for as
/// long as it is kept; or it is stale, and served since no backend answers.
fn cached_stock(
    entry: Arc<CacheEntry<Stock>>,
    fresh_until: Option<BootTime>,
    is_stale: bool,
) -> OnReply {
    Box::new(move |rendering| {
        entry.render(rendering, entry.fetched);
        let keep_until = entry.fetched + rendering.reply.keep.unwrap_or_default();
        let now = BootTime::now();
        let ttl = ttl_seconds(fresh_until.map_or(keep_until, |at| at.min(keep_until)), now);
        CacheStatus::Hit {
            ttl: if is_stale { ttl } else { ttl.max(0) },
            age: now.since(entry.fetched).as_secs(),
        }
    })
}

/// For an order that was cached. It never changes, so the time that its reply is kept begins anew.
fn cached_order(entry: Arc<CacheEntry<Order>>) -> OnReply {
    Box::new(move |rendering| {
        let now = BootTime::now();
        entry.render(rendering, now);
        CacheStatus::Hit {
            ttl: ttl_seconds(now + rendering.reply.keep.unwrap_or_default(), now),
            age: now.since(entry.fetched).as_secs(),
        }
    })
}

/// When a value ceases to be fresh by its age.
fn fresh_until(fetched: BootTime, freshness: Freshness) -> Option<BootTime> {
    match freshness {
        Freshness::AtMost(age) => Some(fetched + age),
        Freshness::Linearizable | Freshness::Bypass => None,
    }
}
