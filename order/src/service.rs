//! The gRPC services, for gateways and for other replicas.

use std::sync::Arc;
use std::time::Duration;

use daemon::tasks;
use protocol::wire::catalog::v1::Order as WireOrder;
use protocol::wire::order::v1::orders_server::Orders;
use protocol::wire::order::v1::replication_server::Replication;
use protocol::wire::order::v1::{
    AnnounceRequest, AppendRequest, AppendResponse, FetchRequest, FetchResponse, GetRequest,
    GetResponse, PlaceManyRequest, PlaceRequest, PlaceResponse, ReplicaStatus, Role, StatusRequest,
    place_response,
};
use protocol::{Invalid, JournalId, Order, OrderNumber, ReplicaId, Row, calls, identity, wire};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::clients::Catalog;
use crate::core::message::{Placed, RoleName};
use crate::core::{self, Missing, Rules};
use crate::driver::{Handle, read};
use crate::placing::Answers;
use crate::store::ReadRows;
use crate::wire::term;

/// Longest that an order waits for its acknowledgement before its caller is told to try again.
const PLACE_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest wait for the catalog to be there, and then to say whether an order that is not here
/// exists.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(1);

/// Rows in one message of a fetch, and messages read ahead of their being sent.
const FETCH_MESSAGE_ROWS: usize = 512;
const FETCH_MESSAGES_AHEAD: usize = 2;

/// What gateways use.
#[derive(Clone)]
pub struct OrdersService {
    journal: JournalId,
    handle: Handle,
    reader: Arc<dyn ReadRows>,
    catalog: Catalog,
    /// Becomes true when the replica stops.
    closing: watch::Receiver<bool>,
}

impl OrdersService {
    pub(crate) fn new(
        journal: JournalId,
        handle: Handle,
        reader: Arc<dyn ReadRows>,
        catalog: Catalog,
        closing: watch::Receiver<bool>,
    ) -> Self {
        Self {
            journal,
            handle,
            reader,
            catalog,
            closing,
        }
    }

    /// A row of the ledger, wherever it is: it may get into the file between two looks.
    async fn find(&self, number: OrderNumber) -> Result<Option<Row>, Status> {
        if let Some(row) = read(&self.reader, number, 1).await?.pop() {
            return Ok(Some(row));
        }
        if let Some(row) = self.handle.find(number).await? {
            return Ok(Some(row));
        }
        Ok(read(&self.reader, number, 1).await?.pop())
    }

    /// A row that is not here: the catalog knows whether there is one.
    async fn confirm(&self, number: OrderNumber) -> Result<Row, Status> {
        let unreachable =
            || Status::unavailable("the catalog cannot be asked whether the order exists");
        // However many ask, a catalog that is away is asked by the driver alone.
        let reached = tokio::time::timeout(CONFIRM_TIMEOUT, self.handle.reaches_catalog()).await;
        reached.map_err(|_| unreachable())?;
        let looked = self.catalog.look(CONFIRM_TIMEOUT).await;
        // A journal that ends before the ledger here has lost rows: it cannot say that there is none.
        let held = self.handle.status().end.rows;
        let heads = looked.ok().map(|(_, head)| head.end);
        let journal = heads.filter(|end| end.rows >= held);
        match Missing::of(number, journal, Rules::default()) {
            Missing::DoesNotExist => return Err(Status::not_found("no such order")),
            Missing::Unknown => return Err(unreachable()),
            Missing::InJournal { rows } => self.handle.heard(rows).await,
        }
        let rows = self.catalog.read_journal(number, None, 1).await;
        let rows = rows.map_err(|_| unreachable())?;
        let row = rows.into_iter().next().filter(|row| row.number == number);
        row.ok_or_else(|| Status::unavailable("the catalog did not give the order"))
    }
}

#[tonic::async_trait]
impl Orders for OrdersService {
    async fn place(
        &self,
        request: Request<PlaceRequest>,
    ) -> Result<Response<PlaceResponse>, Status> {
        let request = request.into_inner();
        identity::check(&request.journal, self.journal)?;
        let order: WireOrder = request
            .order
            .ok_or_else(|| Invalid::new("order", "is missing"))?;
        let order = Order::try_from(order)?;
        let placed = tokio::time::timeout(PLACE_TIMEOUT, self.handle.place(order)).await;
        let placed =
            placed.map_err(|_| Status::unavailable("the order was not acknowledged in time"))??;
        let result = match placed {
            Placed::Number(number) => place_response::Result::Number(number.0),
            Placed::Refused(refusal) => place_response::Result::Refusal(refusal.into()),
        };
        Ok(Response::new(PlaceResponse {
            result: Some(result),
        }))
    }

    type PlaceManyStream = Answers;

    async fn place_many(
        &self,
        request: Request<Streaming<PlaceManyRequest>>,
    ) -> Result<Response<Answers>, Status> {
        let closed = closed(self.closing.clone());
        let orders = request.into_inner();
        let answers = Answers::to(orders, self.journal, self.handle.clone(), closed);
        Ok(Response::new(answers))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let request = request.into_inner();
        identity::check(&request.journal, self.journal)?;
        let number = OrderNumber(request.number);
        let row = match self.find(number).await? {
            Some(row) => row,
            None => self.confirm(number).await?,
        };
        Ok(Response::new(GetResponse {
            row: Some((&row).into()),
        }))
    }

    async fn announce(
        &self,
        request: Request<AnnounceRequest>,
    ) -> Result<Response<ReplicaStatus>, Status> {
        let AnnounceRequest {
            epoch,
            leader,
            journal,
        } = request.into_inner();
        identity::check(&journal, self.journal)?;
        let (epoch, leader) = term(epoch, leader)?;
        let status = self.handle.announce(epoch, leader).await?;
        Ok(Response::new(replica_status(status, self.journal)))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<ReplicaStatus>, Status> {
        let status = self.handle.status();
        Ok(Response::new(replica_status(status, self.journal)))
    }
}

/// What replicas use among themselves.
#[derive(Clone)]
pub struct ReplicationService {
    journal: JournalId,
    handle: Handle,
    reader: Arc<dyn ReadRows>,
    /// Becomes true when the replica stops.
    closing: watch::Receiver<bool>,
}

impl ReplicationService {
    pub(crate) fn new(
        journal: JournalId,
        handle: Handle,
        reader: Arc<dyn ReadRows>,
        closing: watch::Receiver<bool>,
    ) -> Self {
        Self {
            journal,
            handle,
            reader,
            closing,
        }
    }
}

#[tonic::async_trait]
impl Replication for ReplicationService {
    type FetchStream = ReceiverStream<Result<FetchResponse, Status>>;

    async fn append(
        &self,
        request: Request<AppendRequest>,
    ) -> Result<Response<AppendResponse>, Status> {
        let appended = append(self.journal, &self.handle, request.into_inner()).await?;
        Ok(Response::new(appended))
    }

    type AppendManyStream = ReceiverStream<Result<AppendResponse, Status>>;

    async fn append_many(
        &self,
        request: Request<Streaming<AppendRequest>>,
    ) -> Result<Response<Self::AppendManyStream>, Status> {
        let (journal, handle) = (self.journal, self.handle.clone());
        let closed = closed(self.closing.clone());
        let answers = calls::serve(request, closed, move |request, _| {
            let handle = handle.clone();
            async move { append(journal, &handle, request).await }
        });
        Ok(Response::new(answers))
    }

    async fn fetch(
        &self,
        request: Request<FetchRequest>,
    ) -> Result<Response<Self::FetchStream>, Status> {
        let FetchRequest {
            from,
            rows_max,
            journal,
        } = request.into_inner();
        identity::check(&journal, self.journal)?;
        let rows_max = if rows_max == 0 { u64::MAX } else { rows_max };
        let (sender, stream) = mpsc::channel(FETCH_MESSAGES_AHEAD);
        tasks::spawn_for_caller(send_rows(
            Arc::clone(&self.reader),
            OrderNumber(from),
            rows_max,
            sender,
        ));
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

async fn append(
    journal: JournalId,
    handle: &Handle,
    request: AppendRequest,
) -> Result<AppendResponse, Status> {
    identity::check(&request.journal, journal)?;
    let (epoch, leader) = term(request.epoch, request.leader)?;
    let rows = wire::rows(request.rows)?;
    let committed = wire::order_number(request.committed)?;
    let end = handle.append((epoch, leader), rows, committed).await?;
    Ok(AppendResponse {
        orders: end.rows.0,
        chain_hash: end.chain.as_bytes().to_vec(),
    })
}

async fn closed(mut closing: watch::Receiver<bool>) {
    let _ = closing.wait_for(|&closing| closing).await; // or gone: as good
}

/// Sends rows until there are no more, enough have been sent, or the caller has gone.
async fn send_rows(
    reader: Arc<dyn ReadRows>,
    mut from: OrderNumber,
    mut rows_max: u64,
    sender: mpsc::Sender<Result<FetchResponse, Status>>,
) {
    loop {
        let wanted = usize::try_from(rows_max)
            .unwrap_or(usize::MAX)
            .min(FETCH_MESSAGE_ROWS);
        let message = read(&reader, from, wanted).await;
        let count = message.as_ref().map_or(0, Vec::len);
        from = OrderNumber(from.0.saturating_add(count as u64));
        rows_max -= count as u64;
        let message = message.map(|rows| FetchResponse {
            rows: rows.iter().map(Into::into).collect(),
        });
        if sender.send(message).await.is_err() || count < wanted || rows_max == 0 {
            return;
        }
    }
}

fn replica_status(status: core::Status, journal: JournalId) -> ReplicaStatus {
    let role = match status.role {
        RoleName::Follower => Role::Follower,
        RoleName::Activating => Role::Activating,
        RoleName::Leader => Role::Leader,
    };
    ReplicaStatus {
        id: status.id.get(),
        role: role.into(),
        epoch: status.term.epoch.0,
        leader: status.term.leader.map_or(0, ReplicaId::get),
        orders: status.end.rows.0,
        chain_hash: status.end.chain.as_bytes().to_vec(),
        reaches_catalog: status.reaches_catalog,
        journal: identity::to_wire(Some(journal)),
    }
}
