//! Orders on their way to one replica.
//!
//! All orders of a thread go over one stream. Nothing waits for a message to fill: a message
//! holds the orders that have queued when the connection can take one, so messages grow as
//! traffic does, and a lone order leaves at once. Each worker has a stream and a connection of
//! its own, which live in its runtime: an order changes threads nowhere in this process.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::thread::{self, ThreadId};

use daemon::tasks;
use rpc::connect;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::Stream;
use tonic::Status;
use wire::order::v1::PlaceManyRequest;
use wire::order::v1::orders_client::OrdersClient;
use wire::order::v1::place_many_request::Placement;
use wire::order::v1::place_many_response::{Answer, answer};

use crate::journal::OwnJournal;

/// Most orders in one message; the replica refuses longer ones.
const MESSAGE_ORDERS_MAX: usize = 1024;

/// What became of an order.
pub type Placed = Result<answer::Result, Status>;

/// An order that is to be sent.
struct Order {
    order: wire::catalog::v1::Order,
    reply: oneshot::Sender<Placed>,
}

/// The streams to one replica.
#[derive(Clone)]
pub struct OrderStreams {
    url: Arc<str>,
    journal: Arc<OwnJournal>,
    /// One for each thread that has placed an order. What is in them is bounded by the requests
    /// that the gateway takes at once.
    streams: Arc<Mutex<HashMap<ThreadId, mpsc::UnboundedSender<Order>>>>,
}

impl OrderStreams {
    /// At a replica's URL, which is connected to when there is an order.
    pub fn new(url: &str, journal: Arc<OwnJournal>) -> Self {
        Self {
            url: url.into(),
            journal,
            streams: Arc::default(),
        }
    }

    /// Places an order. Where it fails the order may or may not have been committed.
    pub async fn place(&self, order: &domain::Order) -> Placed {
        let (reply, answer) = oneshot::channel();
        self.send(Order {
            order: order.into(),
            reply,
        });
        let broken = |_| {
            Err(Status::unavailable(
                "the replica broke off before it answered",
            ))
        };
        answer.await.unwrap_or_else(broken)
    }

    /// Puts an order on this thread's stream, and opens one where there is none that works.
    fn send(&self, order: Order) {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let thread = thread::current().id();
        let unsent = match streams.get(&thread) {
            Some(stream) => stream.send(order).err().map(|unsent| unsent.0),
            None => Some(order),
        };
        if let Some(order) = unsent {
            let (stream, orders) = mpsc::unbounded_channel();
            let _ = stream.send(order); // its receiver is at hand
            streams.insert(thread, stream);
            let journal = self.journal.to_wire();
            // Its end drops the replies, and another stream is opened for the next order.
            tasks::spawn_for_caller(run(Arc::clone(&self.url), journal, orders));
        }
    }
}

/// Runs a stream until it breaks. Those who wait for an answer hear why, or that there is none.
async fn run(url: Arc<str>, journal: Vec<u8>, orders: mpsc::UnboundedReceiver<Order>) {
    let sent = Sent::default();
    let outgoing = Outgoing {
        journal,
        orders,
        sent: sent.clone(),
        last_tag: 0,
    };
    if let Err(status) = exchange(&url, outgoing, &sent).await {
        tracing::debug!(url = &*url, %status, "placing orders failed");
        for (_, reply) in sent.lock().drain() {
            let _ = reply.send(Err(status.clone())); // whoever asked may have left
        }
    }
    sent.lock().clear();
}

async fn exchange(url: &str, outgoing: Outgoing, sent: &Sent) -> Result<(), Status> {
    let channel = connect::lazy(url).map_err(|error| Status::internal(error.to_string()))?;
    let mut replica = OrdersClient::new(channel);
    let mut answers = replica.place_many(outgoing).await?.into_inner();
    while let Some(message) = answers.message().await? {
        let mut sent = sent.lock();
        for Answer { tag, result } in message.answers {
            if let (Some(reply), Some(result)) = (sent.remove(&tag), result) {
                let _ = reply.send(Ok(result)); // whoever asked may have left
            }
        }
    }
    Ok(())
}

/// Orders that were sent and are without an answer, by their tags.
#[derive(Clone, Default)]
struct Sent(Arc<Mutex<HashMap<u64, oneshot::Sender<Placed>>>>);

impl Sent {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Placed>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The messages of one stream.
struct Outgoing {
    journal: Vec<u8>,
    orders: mpsc::UnboundedReceiver<Order>,
    sent: Sent,
    last_tag: u64,
}

impl Stream for Outgoing {
    type Item = PlaceManyRequest;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let mut orders = Vec::new();
        let count = ready!(
            this.orders
                .poll_recv_many(cx, &mut orders, MESSAGE_ORDERS_MAX)
        );
        if count == 0 {
            return Poll::Ready(None); // the gateway stops
        }
        let mut sent = this.sent.lock();
        let placements = orders.into_iter().map(|Order { order, reply }| {
            this.last_tag += 1;
            sent.insert(this.last_tag, reply);
            Placement {
                tag: this.last_tag,
                order: Some(order),
            }
        });
        let placements = placements.collect();
        Poll::Ready(Some(PlaceManyRequest {
            placements,
            journal: this.journal.clone(),
        }))
    }
}

#[cfg(test)]
mod tests;
