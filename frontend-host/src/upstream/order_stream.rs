//! Orders on their way to one replica, over streams that stay open: see [`Batches`].

use std::sync::Arc;
use std::time::Duration;

use frontend_core::timing::TRADE_ATTEMPT_TIME_MAX;
use rpc::failover::Endpoints;
use tonic::transport::Channel;
use tonic::{Response, Status, Streaming};
use wire::catalog::v1::Order;
use wire::order::v1::orders_client::OrdersClient;
use wire::order::v1::place_many_request::Placement;
use wire::order::v1::place_many_response::answer;
use wire::order::v1::{PlaceManyRequest, PlaceManyResponse};

use crate::journal::OwnJournal;
use crate::upstream::batches::{Batched, Batches, Outgoing};

/// Most orders in one message; the replica refuses longer ones.
const MESSAGE_ORDERS_MAX: usize = 1024;

/// The streams to one replica.
#[derive(Clone)]
pub struct OrderStreams(Batches<Orders>);

impl OrderStreams {
    /// To a replica, which is connected to when there is an order.
    pub fn new(replica: Endpoints, journal: Arc<OwnJournal>) -> Self {
        Self(Batches::new(replica, journal))
    }

    /// Places an order, until `read` makes something of what became of it. It may be placed more than once, under its one
    /// key. Where it fails it may or may not have been committed.
    pub async fn place<T>(
        &self,
        order: impl Fn() -> Order,
        read: impl Fn(answer::Result) -> Result<T, Status>,
    ) -> Result<T, Status> {
        self.0.ask(order, read).await
    }
}

struct Orders;

impl Batched for Orders {
    type Item = Order;
    type Answer = answer::Result;
    type Request = PlaceManyRequest;
    type Response = PlaceManyResponse;

    const MESSAGE_ITEMS_MAX: usize = MESSAGE_ORDERS_MAX;
    const ATTEMPT_TIME_MAX: Duration = TRADE_ATTEMPT_TIME_MAX;

    fn message(orders: Vec<(u64, Self::Item)>, journal: Vec<u8>) -> PlaceManyRequest {
        let placement = |(tag, order)| Placement {
            tag,
            order: Some(order),
        };
        PlaceManyRequest {
            placements: orders.into_iter().map(placement).collect(),
            journal,
        }
    }

    fn answers(message: PlaceManyResponse) -> impl Iterator<Item = (u64, Option<answer::Result>)> {
        let answers = message.answers.into_iter();
        answers.map(|answer| (answer.tag, answer.result))
    }

    async fn open(
        replica: Channel,
        messages: Outgoing<Self>,
    ) -> Result<Response<Streaming<PlaceManyResponse>>, Status> {
        OrdersClient::new(replica).place_many(messages).await
    }
}

#[cfg(test)]
mod tests;
