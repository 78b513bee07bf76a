//! What goes to one service in messages of many: orders to a replica, takes to the catalog.
//!
//! All that a thread asks for goes over one stream. Nothing waits for a message to fill: a message
//! holds what has queued when the connection can take one, so messages grow as traffic does, and
//! what is alone leaves at once. Each worker has a stream and a connection of its own, which live in
//! its runtime: nothing changes threads in this process.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::thread::{self, ThreadId};

use daemon::tasks;
use rpc::failover::Endpoints;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::Stream;
use tonic::transport::Channel;
use tonic::{Response, Status, Streaming};

use crate::journal::OwnJournal;

/// What goes there, and what comes back.
pub trait Batched: Send + Sync + Sized + 'static {
    type Item: Send;
    type Answer: Send;
    /// A message with items.
    type Request: Send;
    /// One with answers.
    type Response: Send;

    /// Most items in one message; the service refuses longer ones.
    const MESSAGE_ITEMS_MAX: usize;

    /// A message with items and their tags, about a journal.
    fn message(items: Vec<(u64, Self::Item)>, journal: Vec<u8>) -> Self::Request;

    /// Answers by the tags of their items; `None` where one makes no sense.
    fn answers(message: Self::Response) -> impl Iterator<Item = (u64, Option<Self::Answer>)>;

    /// Opens a stream.
    fn open(
        service: Channel,
        messages: Outgoing<Self>,
    ) -> impl Future<Output = Result<Response<Streaming<Self::Response>>, Status>> + Send;
}

/// An item that is to be sent.
struct Queued<B: Batched> {
    item: B::Item,
    reply: oneshot::Sender<Result<B::Answer, Status>>,
}

/// The streams to one service.
pub struct Batches<B: Batched> {
    service: Endpoints,
    journal: Arc<OwnJournal>,
    streams: Arc<Streams<B>>,
}

/// One for each thread that has asked for anything. What is in them is bounded by the requests that
/// the gateway takes at once.
type Streams<B> = Mutex<HashMap<ThreadId, mpsc::UnboundedSender<Queued<B>>>>;

impl<B: Batched> Clone for Batches<B> {
    fn clone(&self) -> Self {
        Self {
            service: self.service.clone(),
            journal: Arc::clone(&self.journal),
            streams: Arc::clone(&self.streams),
        }
    }
}

impl<B: Batched> Batches<B> {
    /// To a service, which is connected to when there is something for it.
    pub fn new(service: Endpoints, journal: Arc<OwnJournal>) -> Self {
        Self {
            service,
            journal,
            streams: Arc::default(),
        }
    }

    /// Sends an item, and waits for its answer. Where that fails it may or may not have arrived.
    pub async fn ask(&self, item: B::Item) -> Result<B::Answer, Status> {
        let (reply, answer) = oneshot::channel();
        self.send(Queued { item, reply });
        let broken = |_| {
            Err(Status::unavailable(
                "the service broke off before it answered",
            ))
        };
        answer.await.unwrap_or_else(broken)
    }

    /// Puts an item on this thread's stream, and opens one where there is none that works.
    fn send(&self, item: Queued<B>) {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let thread = thread::current().id();
        let unsent = match streams.get(&thread) {
            Some(stream) => stream.send(item).err().map(|unsent| unsent.0),
            None => Some(item),
        };
        if let Some(item) = unsent {
            let (stream, items) = mpsc::unbounded_channel();
            let _ = stream.send(item); // its receiver is at hand
            streams.insert(thread, stream);
            let journal = Arc::clone(&self.journal);
            // Its end drops the replies, and another stream is opened for what comes next.
            tasks::spawn_for_caller(run::<B>(self.service.clone(), journal, items));
        }
    }
}

/// Runs a stream until it breaks. Those who wait for an answer hear why, or that there is none.
async fn run<B: Batched>(
    service: Endpoints,
    journal: Arc<OwnJournal>,
    items: mpsc::UnboundedReceiver<Queued<B>>,
) {
    let sent = Sent::<B>::default();
    let outgoing = Outgoing {
        journal,
        items,
        sent: sent.clone(),
        last_tag: 0,
    };
    if let Err(status) = exchange(&service, outgoing, &sent).await {
        tracing::debug!(%service, %status, "a stream broke");
        for (_, reply) in sent.lock().drain() {
            let _ = reply.send(Err(status.clone())); // whoever asked may have left
        }
    }
    sent.lock().clear();
}

async fn exchange<B: Batched>(
    service: &Endpoints,
    outgoing: Outgoing<B>,
    sent: &Sent<B>,
) -> Result<(), Status> {
    let mut answers = B::open(service.channel(), outgoing).await?.into_inner();
    while let Some(message) = answers.message().await? {
        let mut sent = sent.lock();
        for (tag, answer) in B::answers(message) {
            if let (Some(reply), Some(answer)) = (sent.remove(&tag), answer) {
                let _ = reply.send(Ok(answer)); // whoever asked may have left
            }
        }
    }
    Ok(())
}

/// Who waits for the answer to an item, by its tag.
type Waiting<A> = HashMap<u64, oneshot::Sender<Result<A, Status>>>;

/// Items that were sent and are without an answer.
struct Sent<B: Batched>(Arc<Mutex<Waiting<B::Answer>>>);

impl<B: Batched> Default for Sent<B> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<B: Batched> Clone for Sent<B> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<B: Batched> Sent<B> {
    fn lock(&self) -> MutexGuard<'_, Waiting<B::Answer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The messages of one stream.
pub struct Outgoing<B: Batched> {
    journal: Arc<OwnJournal>,
    items: mpsc::UnboundedReceiver<Queued<B>>,
    sent: Sent<B>,
    last_tag: u64,
}

impl<B: Batched> Stream for Outgoing<B> {
    type Item = B::Request;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<B::Request>> {
        let this = &mut *self;
        let mut queued = Vec::new();
        while queued.is_empty() {
            let count = ready!(
                this.items
                    .poll_recv_many(cx, &mut queued, B::MESSAGE_ITEMS_MAX)
            );
            if count == 0 {
                return Poll::Ready(None); // the gateway stops
            }
            // Of what nobody waits for any more, nothing is to come.
            queued.retain(|Queued { reply, .. }| !reply.is_closed());
        }
        let mut sent = this.sent.lock();
        let items = queued.into_iter().map(|Queued { item, reply }| {
            this.last_tag += 1;
            sent.insert(this.last_tag, reply);
            (this.last_tag, item)
        });
        let items = items.collect();
        Poll::Ready(Some(B::message(items, this.journal.to_wire())))
    }
}
