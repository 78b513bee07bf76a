//! Orders as they are placed, for clients that follow them: server-sent events.
//!
//! One feed for all streams of a gateway: while there is any, it asks a replica for new orders, renders each once, and keeps the
//! last ones. A stream has nothing but a place among them. One that begins further back reads pages of the ledger until it is
//! there.
//!
//! - [`recent`]: the last events;
//! - [`stream`]: one client's stream;
//! - here: the feed, and how many may follow it.

mod recent;
mod stream;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use domain::OrderNumber;
use frontend_policy::decision::{Order, Unavailability};
use frontend_policy::{Trial, Versions};
use rpc::clients::{Clients, Connected, PerClientMax};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::sleep;

use crate::config::Bounds;
use crate::upstream::backend::Backend;
use recent::Recent;
pub use stream::{EventStream, GREETING};

/// Streams at a time.
pub const STREAMS_MAX: usize = 1_024;

/// Streams of one client, but for those from this machine, where nobody has said how many connections it may have.
pub const STREAMS_PER_CLIENT_MAX: usize = 32;

/// Between two looks for new orders, where the last look found few: what an event comes later at most. As often as replicas
/// are probed, which tells whether there are any.
const PAUSE: Duration = Duration::from_millis(50);

/// Orders that are asked for at a time.
const PAGE_ORDERS: u32 = 1_000;

/// The same, for a stream that begins further back: so many events go out at a time.
const OLDER_ORDERS: u32 = 100;

/// Pages that are read at a time for streams that begin further back; more wait.
const CATCHING_UP_MAX: usize = 2;

/// How often a replica is asked for them: it may say that it has some before they are in its ledger, and fail.
const OLDER_LOOKS_MAX: u32 = 40;

/// What let a client follow.
#[derive(Debug, Clone, Copy)]
pub struct LetIn {
    /// The version of the policy.
    pub version: u64,
    /// What was published when it did.
    pub generation: u64,
}

/// Why nobody follows.
#[derive(Debug, PartialEq, Eq)]
pub enum NotFollowed {
    /// There are as many streams as may be, of all clients or of this one.
    Crowded,
    /// The gateway stops: another one is there in a moment.
    Ending,
    /// Where orders end now nobody says.
    Unavailable(Unavailability),
}

/// The orders of a gateway's bazaar, as they are placed.
pub struct Events {
    backend: Arc<Backend>,
    policy: Arc<Versions>,
    recent: Mutex<Option<Recent>>,
    /// What streams wait for.
    progress: watch::Sender<Progress>,
    /// How many streams there are.
    streams: watch::Sender<usize>,
    places: Arc<Semaphore>,
    clients: Arc<Clients<()>>,
    /// For each page that is read for a stream.
    catching_up: Semaphore,
}

/// How far the feed is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Progress {
    /// Of new orders that were taken in.
    pages: u64,
    /// No more come.
    is_over: bool,
}

/// One of the streams that may be there at a time.
struct StreamPlace {
    events: Arc<Events>,
    _client: Connected<()>,
    _permit: OwnedSemaphorePermit,
}

impl StreamPlace {
    fn take(events: &Arc<Events>, client: IpAddr) -> Option<Self> {
        let permit = Arc::clone(&events.places).try_acquire_owned().ok()?;
        let client = events.clients.admit(client, || ())?;
        events.streams.send_modify(|streams| *streams += 1);
        Some(Self {
            events: Arc::clone(events),
            _client: client,
            _permit: permit,
        })
    }
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        self.events.streams.send_modify(|streams| *streams -= 1);
    }
}

impl Events {
    /// Of which nobody follows any yet.
    pub fn new(bounds: &Bounds, backend: Arc<Backend>, policy: Arc<Versions>) -> Arc<Self> {
        Arc::new(Self {
            backend,
            policy,
            recent: Mutex::default(),
            progress: watch::Sender::default(),
            streams: watch::Sender::default(),
            places: Arc::new(Semaphore::new(STREAMS_MAX)),
            clients: Clients::new(PerClientMax {
                told: bounds.connections_per_client_max,
                otherwise: STREAMS_PER_CLIENT_MAX,
            }),
            catching_up: Semaphore::new(CATCHING_UP_MAX),
        })
    }

    /// How many streams there are, and how many were refused since their client had enough.
    pub fn figures(&self) -> (usize, u64) {
        (*self.streams.borrow(), self.clients.refused())
    }

    /// Follows orders for a client whom the policy lets: from behind the one of that number, else from now on.
    /// A number of no order stands for now: it is another journal's.
    ///
    /// # Errors
    /// Where there are enough streams, or the catalog does not answer.
    pub async fn follow(
        self: &Arc<Self>,
        after: Option<OrderNumber>,
        let_in: LetIn,
        client: IpAddr,
    ) -> Result<EventStream, NotFollowed> {
        if self.places.is_closed() {
            return Err(NotFollowed::Ending);
        }
        let place = StreamPlace::take(self, client).ok_or(NotFollowed::Crowded)?;
        // After this question: whatever is acknowledged once the stream has begun is behind it.
        let end = self.backend.orders_end().await;
        let end = end.map_err(NotFollowed::Unavailable)?;
        let from = after.map_or(end, |after| OrderNumber(after.0.saturating_add(1)).min(end));
        self.recent()
            .get_or_insert_with(|| Recent::beginning_at(end));
        Ok(EventStream::new(place, from, let_in))
    }

    /// Nothing is followed any more: every stream ends.
    pub fn end(&self) {
        self.places.close();
        self.catching_up.close();
        self.progress
            .send_modify(|progress| progress.is_over = true);
    }

    /// Looks for new orders while there are streams, and at each swap of the policy, for as long as the gateway runs.
    pub async fn keep_looking(self: Arc<Self>) {
        tokio::join!(self.look_for_orders(), self.tell_of_swaps());
    }

    /// Has streams look whether the version that let them in still serves.
    async fn tell_of_swaps(&self) {
        let mut swaps = self.policy.swaps();
        // Its sender is where the policy is.
        while swaps.changed().await.is_ok() {
            self.progress.send_modify(|_| ());
        }
    }

    async fn look_for_orders(&self) {
        let mut streams = self.streams.subscribe();
        loop {
            // Its sender is here.
            let _ = streams.wait_for(|streams| *streams > 0).await;
            while !self.look().await {}
            sleep(PAUSE).await;
            let mut recent = self.recent();
            if *self.streams.borrow() == 0 {
                *recent = None;
            }
        }
    }

    /// Takes in a page of new orders, and says whether there are no more for now.
    async fn look(&self) -> bool {
        let next = self.recent().as_ref().map(Recent::next);
        let Some(next) = next else {
            return true;
        };
        let Some(replica) = self.backend.replica_beyond(next) else {
            return true;
        };
        let orders = self.backend.orders_from(replica, next, PAGE_ORDERS).await;
        let orders = orders.unwrap_or_default(); // it is asked again, or another one is
        if let Some(recent) = &mut *self.recent() {
            recent.take(&orders);
        }
        if !orders.is_empty() {
            self.progress.send_modify(|progress| progress.pages += 1);
        }
        orders.len() < PAGE_ORDERS as usize
    }

    /// Whether a version of the policy decides for anybody, as a shadow does not.
    fn is_in_service(&self, version: u64) -> bool {
        let published = self.policy.current();
        let canary = published
            .candidate
            .as_ref()
            .filter(|it| matches!(it.trial, Trial::Canary(_)));
        published.active.id == version || canary.is_some_and(|it| it.version.id == version)
    }

    fn recent(&self) -> MutexGuard<'_, Option<Recent>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Orders from further back than is kept, of which there are some.
    async fn older(&self, from: OrderNumber) -> Option<Vec<Order>> {
        for _ in 0..OLDER_LOOKS_MAX {
            let turn = self.catching_up.acquire().await.ok()?;
            if let Some(replica) = self.backend.replica_beyond(from) {
                let orders = self.backend.orders_from(replica, from, OLDER_ORDERS);
                let orders = orders.await.ok().filter(|orders| !orders.is_empty());
                if orders.is_some() {
                    return orders;
                }
            }
            drop(turn);
            sleep(PAUSE).await;
        }
        None
    }
}

#[cfg(test)]
mod tests;
