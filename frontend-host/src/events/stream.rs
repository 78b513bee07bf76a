//! One client's stream of events.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use domain::OrderNumber;
use frontend_policy::decision::Order;
use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::recent::{Given, event};
use super::{LetIn, Progress, StreamPlace};

/// How often a stream looks whether the version that let it in is in service, besides at each swap: the one behind may have
/// stood in.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// After so many of them without an event a comment is sent: 15 s. Proxies take connections for dead that are quiet for long.
const QUIET_LOOKS_MAX: u32 = 3;

/// The first line: after how many milliseconds a client comes back whose stream has ended: later than a gateway that stops
/// closes its idle connections.
pub const GREETING: &[u8] = b"retry: 2000\n\n";

/// A comment.
const COMMENT: &[u8] = b":\n\n";

/// What is awaited of the feed.
type Changed = Pin<Box<dyn Future<Output = watch::Receiver<Progress>> + Send>>;

/// A page from further back.
type Older = Pin<Box<dyn Future<Output = Option<Vec<Order>>> + Send>>;

/// A stream, which holds nothing but its place.
pub struct EventStream {
    place: StreamPlace,
    next: OrderNumber,
    /// It has been where the feed is.
    was_up_to_date: bool,
    is_greeted: bool,
    changed: Changed,
    older: Option<Older>,
    looks: Interval,
    quiet_looks: u32,
    let_in: LetIn,
}

impl EventStream {
    pub(super) fn new(place: StreamPlace, from: OrderNumber, let_in: LetIn) -> Self {
        let progress = place.events.progress.subscribe();
        let mut looks = interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        looks.reset();
        Self {
            let_in,
            place,
            next: from,
            was_up_to_date: false,
            is_greeted: false,
            changed: changed(progress),
            older: None,
            looks,
            quiet_looks: 0,
        }
    }

    /// The next bytes; `None` at the end.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if !std::mem::replace(&mut self.is_greeted, true) {
            return Poll::Ready(Some(Bytes::from_static(GREETING)));
        }
        // However much there is to give.
        while self.looks.poll_tick(cx).is_ready() {
            if !self.place.events.is_in_service(self.let_in.version) {
                return Poll::Ready(None);
            }
            self.quiet_looks += 1;
        }
        loop {
            if self.is_over() {
                return Poll::Ready(None);
            }
            if let Some(older) = &mut self.older {
                let Poll::Ready(orders) = older.as_mut().poll(cx) else {
                    if self.is_woken(cx) {
                        continue;
                    }
                    break;
                };
                self.older = None;
                // Nobody gives them: the client comes back.
                let Some(last) = orders.as_ref().and_then(|orders| orders.last()) else {
                    return Poll::Ready(None);
                };
                self.next = OrderNumber(last.number.0 + 1);
                let page: String = orders.iter().flatten().map(event).collect();
                return self.give(page.into());
            }
            let given = match &*self.place.events.recent() {
                Some(recent) => recent.from(self.next),
                None => Given::Gone,
            };
            match given {
                Given::Events(bytes, next) => {
                    self.next = next;
                    self.was_up_to_date = true;
                    return self.give(bytes);
                }
                // It takes less than is placed.
                Given::Gone if self.was_up_to_date => return Poll::Ready(None),
                Given::Gone => {
                    let (events, from) = (Arc::clone(&self.place.events), self.next);
                    self.older = Some(Box::pin(async move { events.older(from).await }));
                }
                Given::UpToDate => {
                    self.was_up_to_date = true;
                    if !self.is_woken(cx) {
                        break;
                    }
                }
            }
        }
        if self.quiet_looks < QUIET_LOOKS_MAX {
            return Poll::Pending;
        }
        self.give(Bytes::from_static(COMMENT))
    }

    /// Whether the gateway stops, or a swap took away the version that let it in.
    fn is_over(&mut self) -> bool {
        let events = &self.place.events;
        let generation = events.policy.current().generation;
        let was = std::mem::replace(&mut self.let_in.generation, generation);
        let is_out = was != generation && !events.is_in_service(self.let_in.version);
        is_out || events.progress.borrow().is_over
    }

    /// Whether there may be something new; else its task is woken once there is.
    fn is_woken(&mut self, cx: &mut Context<'_>) -> bool {
        let Poll::Ready(progress) = self.changed.as_mut().poll(cx) else {
            return false;
        };
        self.changed = changed(progress);
        true
    }

    fn give(&mut self, bytes: Bytes) -> Poll<Option<Bytes>> {
        self.quiet_looks = 0;
        Poll::Ready(Some(bytes))
    }
}

/// Waits until there is something new, or was a swap.
fn changed(mut progress: watch::Receiver<Progress>) -> Changed {
    Box::pin(async move {
        // Its sender is where the stream's place is.
        let _ = progress.changed().await;
        progress
    })
}
