//! What goes to one service in messages of many: orders to a replica, takes to the catalog.
//!
//! All that a thread asks for goes over one stream. Nothing waits for a message to fill: a message
//! holds what has queued when the connection can take one, so messages grow as traffic does, and
//! what is alone leaves at once. Each worker has a stream and a connection of its own, which live in
//! its runtime: nothing changes threads in this process.
//!
//! A stream that is silent while something waits for its answer has another one take its place, on another connection. It
//! lives on until what went over it is answered, or it breaks.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::thread::{self, ThreadId};
use std::time::Duration;

use daemon::tasks;
use domain::time::BootTime;
use rpc::failover::Endpoints;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::Stream;
use tonic::transport::Channel;
use tonic::{Response, Status, Streaming};

use crate::journal::OwnJournal;
use crate::upstream::attempt::attempt;

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

    /// How long a stream may be silent before what waits for its answer goes over another one as well.
    const ATTEMPT_TIME_MAX: Duration;

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
/// the gateway takes at once, and by what the orders of batches may take in bytes.
type Streams<B> = Mutex<HashMap<ThreadId, Open<B>>>;

/// A stream that takes items.
struct Open<B: Batched> {
    items: mpsc::UnboundedSender<Queued<B>>,
    heard: Heard,
}

/// When answers last came over a stream. Two are the same where they are of the same one.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Option<BootTime>>>);

impl Heard {
    fn note(&self) {
        *self.lock() = Some(BootTime::now());
    }

    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    fn lock(&self) -> MutexGuard<'_, Option<BootTime>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

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

    /// Sends an item, and waits until `read` makes something of its answer: sends it again where its stream is silent, so it may
    /// be taken twice. Where that fails it may or may not have arrived.
    pub async fn ask<T>(
        &self,
        item: impl Fn() -> B::Item,
        read: impl Fn(B::Answer) -> Result<T, Status>,
    ) -> Result<T, Status> {
        let read = &read;
        let send = |silent: Option<&Heard>| {
            let (reply, answer) = oneshot::channel();
            let item = item();
            let heard = self.send(Queued { item, reply }, silent);
            let answered = async move {
                let broken = |_| {
                    Err(Status::unavailable(
                        "the service broke off before it answered",
                    ))
                };
                answer.await.unwrap_or_else(broken).and_then(read)
            };
            (heard, answered)
        };
        attempt(B::ATTEMPT_TIME_MAX, send, |heard: &Heard| *heard.lock()).await
    }

    /// Puts an item on this thread's stream, and opens one where there is none that works, or it is the `silent` one. Returns
    /// when that stream is heard.
    fn send(&self, mut item: Queued<B>, silent: Option<&Heard>) -> Heard {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let thread = thread::current().id();
        let is_silent = |open: &&Open<B>| silent.is_some_and(|silent| open.heard.is(silent));
        if let Some(open) = streams.get(&thread).filter(|open| !is_silent(open)) {
            match open.items.send(item) {
                Ok(()) => return open.heard.clone(),
                Err(unsent) => item = unsent.0,
            }
        }
        let (stream, items) = mpsc::unbounded_channel();
        let _ = stream.send(item); // its receiver is at hand
        let heard = Heard::default();
        let open = Open {
            items: stream,
            heard: heard.clone(),
        };
        // The one before gets no more items, and ends when it has its answers.
        streams.insert(thread, open);
        let journal = Arc::clone(&self.journal);
        // Its end drops the replies, and another stream is opened for what comes next.
        let service = self.service.clone();
        tasks::spawn_for_caller(run::<B>(service, journal, items, heard.clone()));
        heard
    }
}

/// Runs a stream until it breaks. Those who wait for an answer hear why, or that there is none.
async fn run<B: Batched>(
    service: Endpoints,
    journal: Arc<OwnJournal>,
    items: mpsc::UnboundedReceiver<Queued<B>>,
    heard: Heard,
) {
    let sent = Sent::<B>::default();
    let outgoing = Outgoing {
        journal,
        items,
        sent: sent.clone(),
        last_tag: 0,
    };
    if let Err(status) = exchange(&service, outgoing, (&sent, &heard)).await {
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
    (sent, heard): (&Sent<B>, &Heard),
) -> Result<(), Status> {
    let mut answers = B::open(service.channel(), outgoing).await?.into_inner();
    while let Some(message) = answers.message().await? {
        heard.note();
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
