//! The orders of a caller that has many: placed and answered over one stream.
//!
//! Nothing waits for a message to fill. A message of answers holds those that are there when
//! the connection can take one, so messages grow as traffic does.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use protocol::wire::order::v1::place_many_request::Placement;
use protocol::wire::order::v1::place_many_response::{Answer, answer};
use protocol::wire::order::v1::{PlaceManyRequest, PlaceManyResponse};
use protocol::{Invalid, JournalId, Order, identity};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_stream::Stream;
use tonic::{Status, Streaming};

use crate::core::message::{Placed, Unavailable};
use crate::driver::Handle;

/// Most orders, or answers, in one message.
pub const MESSAGE_ORDERS_MAX: usize = 1024;

/// Most orders of a stream that are without an answer, or whose answer the caller has not taken.
/// With so many no further message is read.
const STREAM_ORDERS_MAX: u32 = 4 * MESSAGE_ORDERS_MAX as u32;

/// Where the answer to one of a stream's orders goes.
#[derive(Debug)]
pub(crate) struct Reply {
    tag: u64,
    /// [`STREAM_ORDERS_MAX`] bounds what is in it.
    answers: mpsc::UnboundedSender<Answer>,
}

impl Reply {
    pub(crate) fn send(self, placed: Result<Placed, Unavailable>) {
        self.answer(match placed {
            Ok(Placed::Number(number)) => answer::Result::Number(number.0),
            Ok(Placed::Refused(refusal)) => answer::Result::Refusal(refusal.into()),
            Err(unavailable) => answer::Result::Unavailable(unavailable.to_string()),
        });
    }

    fn refuse(self, invalid: &Invalid) {
        self.answer(answer::Result::Invalid(invalid.to_string()));
    }

    fn answer(self, result: answer::Result) {
        let answer = Answer {
            tag: self.tag,
            result: Some(result),
        };
        let _ = self.answers.send(answer); // the caller may have left
    }
}

/// The answers to a stream's orders. Ends once the orders do and all are answered; dropping it
/// ends the taking in of orders.
pub struct Answers {
    answers: mpsc::UnboundedReceiver<Answer>,
    room: Arc<Semaphore>,
    /// One task, which ends with what is wrong with the orders' stream.
    taking_in: JoinSet<Result<(), Status>>,
}

impl Answers {
    /// Places what comes in until `closed`.
    pub(crate) fn to(
        orders: Streaming<PlaceManyRequest>,
        journal: JournalId,
        handle: Handle,
        closed: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        let (sender, answers) = mpsc::unbounded_channel();
        let room = Arc::new(Semaphore::new(STREAM_ORDERS_MAX as usize));
        let mut taking_in = JoinSet::new();
        #[expect(clippy::disallowed_methods, reason = "joined where answers end")]
        taking_in.spawn({
            let room = Arc::clone(&room);
            async move {
                tokio::select! {
                    taken = take_in(orders, journal, &handle, &room, sender) => taken,
                    () = closed => Ok(()),
                }
            }
        });
        Self {
            answers,
            room,
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
            return Poll::Ready(Some(Ok(PlaceManyResponse { answers })));
        }
        let ended = ready!(self.taking_in.poll_join_next(cx));
        Poll::Ready(match ended {
            Some(Ok(Err(status))) => Some(Err(status)),
            Some(Err(_)) => Some(Err(Status::internal("placing orders failed"))),
            Some(Ok(Ok(()))) | None => None,
        })
    }
}

async fn take_in(
    mut orders: Streaming<PlaceManyRequest>,
    journal: JournalId,
    handle: &Handle,
    room: &Semaphore,
    answers: mpsc::UnboundedSender<Answer>,
) -> Result<(), Status> {
    while let Some(message) = orders.message().await? {
        identity::check(&message.journal, journal)?;
        let placements = message.placements;
        if placements.len() > MESSAGE_ORDERS_MAX {
            let problem = format!("are more than {MESSAGE_ORDERS_MAX}");
            return Err(Invalid::new("placements", problem).into());
        }
        let taken = room.acquire_many(placements.len() as u32).await;
        taken.expect("never closed").forget();
        for Placement { tag, order } in placements {
            let answers = answers.clone();
            let reply = Reply { tag, answers };
            let order = order.ok_or_else(|| Invalid::new("order", "is missing"));
            match order.and_then(Order::try_from) {
                Ok(order) => handle.place_for(order, reply).await?,
                Err(invalid) => reply.refuse(&invalid),
            }
        }
    }
    Ok(())
}
