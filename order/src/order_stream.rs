//! The orders of a caller that has many: placed and answered over one stream.
//!
//! Nothing waits for a message to fill. A message of answers holds those that are there when
//! the connection can take one, so messages grow as traffic does.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use domain::{Entry, Invalid, JournalId};
use rpc::listen::{CallUnderWay, Waiting};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_stream::Stream;
use tonic::{Request, Status, Streaming};
use traces::Traces;
use wire::Malformed;
use wire::identity;
use wire::order::v1::place_many_request::Placement;
use wire::order::v1::place_many_response::Answer;
use wire::order::v1::{PlaceManyRequest, PlaceManyResponse};

use crate::driver::Handle;
use crate::driver::reply::Reply;
use crate::error::RequestError;
use crate::traced::TracedOrder;
use order_core::in_flight::ORDERS_WAITING_MAX;

/// Most orders, or answers, in one message.
pub const MESSAGE_ORDERS_MAX: usize = 1024;

/// Most orders of a stream that are without an answer, or whose answer the caller has not taken.
/// With so many no further message is read.
const STREAM_ORDERS_MAX: u32 = 4 * MESSAGE_ORDERS_MAX as u32;

/// Most orders of one client that wait for the core's answers; it has others wait. So there is room
/// in the core for those of others.
pub(crate) const CLIENT_ORDERS_MAX: usize = ORDERS_WAITING_MAX / 4;

/// The answers to a stream's orders. Ends once the orders do and all are answered; dropping it
/// ends the taking in of orders.
pub struct Answers {
    answers: mpsc::UnboundedReceiver<Answer>,
    room: Arc<Semaphore>,
    untaken: Arc<Untaken>,
    /// One task, which ends with what is wrong with the orders' stream.
    taking_in: JoinSet<Result<(), Status>>,
}

impl Answers {
    /// Places what comes in until `closed`, as far as the core has room `for_client`.
    pub(crate) fn begin(
        mut orders: Request<Streaming<PlaceManyRequest>>,
        (journal, traces): (JournalId, Traces),
        handle: Handle,
        for_client: Arc<Semaphore>,
        closed: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        let (answers, receiver) = mpsc::unbounded_channel();
        let room = Arc::new(Semaphore::new(STREAM_ORDERS_MAX as usize));
        let untaken = Arc::new(Untaken::new(CallUnderWay::of(&mut orders)));
        let intake = Intake {
            journal,
            traces,
            handle,
            room: Arc::clone(&room),
            for_client,
            untaken: Arc::clone(&untaken),
            answers,
        };
        let mut taking_in = JoinSet::new();
        #[expect(clippy::disallowed_methods, reason = "joined where answers end")]
        taking_in.spawn(async move {
            tokio::select! {
                taken = intake.take_in(orders.into_inner()) => taken,
                () = closed => Ok(()),
            }
        });
        Self {
            answers: receiver,
            room,
            untaken,
            taking_in,
        }
    }
}

impl Stream for Answers {
    type Item = Result<PlaceManyResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut answers = Vec::new();
        let count = ready!(
            self.answers
                .poll_recv_many(cx, &mut answers, MESSAGE_ORDERS_MAX)
        );
        if count > 0 {
            self.room.add_permits(count);
            self.untaken.take(count);
            return Poll::Ready(Some(Ok(PlaceManyResponse { answers })));
        }
        let ended = ready!(self.taking_in.poll_join_next(cx));
        Poll::Ready(match ended {
            Some(Ok(Err(status))) => Some(Err(status)),
            Some(Err(_)) => Some(Err(RequestError::Panicked.into())),
            Some(Ok(Ok(()))) | None => None,
        })
    }
}

/// Takes in a stream's orders.
struct Intake {
    journal: JournalId,
    traces: Traces,
    handle: Handle,
    /// For orders of this stream.
    room: Arc<Semaphore>,
    /// In the core, for those of all streams of the client.
    for_client: Arc<Semaphore>,
    untaken: Arc<Untaken>,
    answers: mpsc::UnboundedSender<Answer>,
}

impl Intake {
    async fn take_in(self, mut orders: Streaming<PlaceManyRequest>) -> Result<(), Status> {
        while let Some(message) = orders.message().await? {
            identity::check(&message.journal, self.journal).map_err(RequestError::NotOurs)?;
            let placements = message.placements;
            if placements.len() > MESSAGE_ORDERS_MAX {
                let problem = format!("are more than {MESSAGE_ORDERS_MAX}");
                let malformed = Malformed(Invalid::new("placements", problem));
                return Err(RequestError::Invalid(malformed).into());
            }
            let count = placements.len() as u32;
            self.untaken.add(placements.len());
            let room = self.room.acquire_many(count).await;
            room.expect("never closed").forget();
            let room = Arc::clone(&self.for_client).acquire_many_owned(count).await;
            let mut room = room.expect("never closed");
            for Placement { tag, order } in placements {
                let reply = Reply::new(tag, self.answers.clone(), room.split(1));
                let order = order.ok_or_else(|| Malformed(Invalid::new("order", "is missing")));
                let order = order.and_then(|mut order| {
                    let traceparent = std::mem::take(&mut order.traceparent);
                    Ok((Entry::try_from(order)?, traceparent))
                });
                match order {
                    Ok((order, traceparent)) => {
                        let traced = TracedOrder::begin(&self.traces, &traceparent, order.key());
                        self.handle.place(order, reply.traced(traced)).await?;
                    }
                    Err(invalid) => reply.refuse(&invalid),
                }
            }
        }
        Ok(())
    }
}

/// A stream's orders whose answers the caller has not taken. While there are none the call waits
/// for its caller.
#[derive(Debug)]
struct Untaken(Mutex<Orders>);

#[derive(Debug)]
struct Orders {
    count: usize,
    /// While there are any.
    call: Option<CallUnderWay>,
    /// While there are none.
    waiting: Option<Waiting>,
}

impl Untaken {
    fn new(call: Option<CallUnderWay>) -> Self {
        Self(Mutex::new(Orders {
            count: 0,
            call: None,
            waiting: call.map(CallUnderWay::pause),
        }))
    }

    fn add(&self, count: usize) {
        let mut orders = self.orders();
        orders.count += count;
        if orders.count > 0
            && let Some(waiting) = orders.waiting.take()
        {
            orders.call = Some(waiting.resume());
        }
    }

    fn take(&self, count: usize) {
        let mut orders = self.orders();
        orders.count -= count;
        if orders.count == 0 {
            orders.waiting = orders.call.take().map(CallUnderWay::pause);
        }
    }

    fn orders(&self) -> MutexGuard<'_, Orders> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
