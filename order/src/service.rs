//! The gRPC services, for gateways and for other replicas.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use domain::{Epoch, Invalid, JournalId, OrderNumber, ReplicaId, Row, RowNumber, StockName};
use rpc::call_streams;
use rpc::clients::PerClient;
use rpc::listen::{caller_of, client_of};
use tls::Principal;
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};
use traces::{Kind, Span, Traces};
use wire::Malformed;
use wire::identity;
use wire::order::v1::orders_server::Orders;
use wire::order::v1::replication_server::Replication;
use wire::order::v1::{
    AnnounceRequest, AppendRequest, AppendResponse, FetchRequest, FetchResponse, GetRequest,
    GetResponse, ListRequest, ListResponse, ListedOrder, PlaceManyRequest, ReplicaStatus, Role,
    StatusRequest,
};

use crate::driver::{Handle, read, read_order, read_orders};
use crate::error::RequestError;
use crate::order_stream::{Answers, CLIENT_ORDERS_MAX};
use crate::peers::Catalog;
use crate::store::ReadRows;
use crate::traced;
use order_core::listing::{self, Listing, Page, Wanted};
use order_core::lookup::{Action, Input};
use order_core::timing::CONFIRM_TIMEOUT;
use order_core::{self, Lookup, Rules};
use wire::leadership::term;

/// The most orders of a page.
const LISTED_MAX: u32 = 10_000;

/// Pages that are read at a time, each of which reads up to [`LOOKED_AT_MAX`](listing::LOOKED_AT_MAX) rows; more wait, so
/// that no more than one processor is kept from orders.
const PAGES_MAX: usize = 1;

/// Between two looks for rows that the journal is known to have.
const LOOK_PAUSE: Duration = Duration::from_millis(10);

/// Rows in one message of a fetch.
const FETCH_MESSAGE_ROWS: usize = 512;

#[derive(Clone)]
pub struct OrdersService {
    journal: JournalId,
    handle: Handle,
    reader: Arc<dyn ReadRows>,
    catalog: Catalog,
    traces: Traces,
    /// Orders that may wait in the core.
    waiting: Arc<PerClient>,
    /// For each page that is read: of all clients, and of each, so that one with very many waits for itself.
    pages: Arc<Semaphore>,
    pages_of_client: Arc<PerClient>,
    /// Becomes true when the replica stops.
    closing: watch::Receiver<bool>,
}

impl OrdersService {
    pub(crate) fn new(
        journal: JournalId,
        handle: Handle,
        reader: Arc<dyn ReadRows>,
        catalog: Catalog,
        traces: Traces,
        closing: watch::Receiver<bool>,
    ) -> Self {
        Self {
            journal,
            handle,
            reader,
            catalog,
            traces,
            waiting: Arc::new(PerClient::new(CLIENT_ORDERS_MAX)),
            pages: Arc::new(Semaphore::new(PAGES_MAX)),
            pages_of_client: Arc::new(PerClient::new(PAGES_MAX)),
            closing,
        }
    }

    /// The span of a call, where it is traced.
    fn answering<T>(&self, request: &Request<T>, method: &'static str) -> Option<Span> {
        let parent = self.traces.join_call(request.metadata())?;
        Some(parent.begin_call(Kind::Server, method))
    }

    /// Looks for an order, here and in the journal.
    async fn find(&self, number: OrderNumber) -> Result<Row, Status> {
        let mut lookup = Lookup::new(number, Rules::default());
        let mut input = Input::Begin;
        loop {
            input = match lookup.step(input) {
                Action::ReadLedger => Input::Found(read_order(&self.reader, number).await?),
                Action::FindRecent => Input::Found(self.handle.find(number).await?),
                Action::AwaitCatalog => {
                    let reached = self.handle.wait_for_catalog();
                    Input::Reached(timeout(CONFIRM_TIMEOUT, reached).await.is_ok())
                }
                Action::AskCatalog => {
                    // Before it answers: what comes meanwhile it need not know of.
                    let held = self.handle.status().end.rows;
                    let said = self.catalog.get_leadership(CONFIRM_TIMEOUT).await;
                    Input::CatalogSaid {
                        answer: said.map_err(|error| error.failure),
                        held,
                    }
                }
                Action::Fetch { rows } => {
                    self.handle.note_journal_len(rows).await;
                    let rows = self.catalog.read_order(number).await;
                    Input::Fetched(rows.map_err(|error| error.failure))
                }
                Action::Answer(answer) => return Ok(answer.map_err(RequestError::from)?),
            };
        }
    }
}

impl OrdersService {
    /// Lists orders, of which none that was acknowledged before is missing unless that may be. `own` is what a client has of
    /// the turns to read.
    async fn page(&self, wanted: Wanted, own: &Semaphore) -> Result<Page, Status> {
        let mut listing = Listing::new(wanted);
        let mut input = listing::Input::Begin;
        loop {
            input = match listing.step(input) {
                listing::Action::Read { from, rows_max } => {
                    let _own = own.acquire().await.expect("never closed");
                    let _turn = self.pages.acquire().await.expect("never closed");
                    let rows = read_orders(&self.reader, from, rows_max).await?;
                    listing::Input::Rows(rows)
                }
                listing::Action::AwaitCatalog => {
                    let reached = self.handle.wait_for_catalog();
                    listing::Input::Reached(timeout(CONFIRM_TIMEOUT, reached).await.is_ok())
                }
                listing::Action::AskCatalog => {
                    let held = self.handle.status().end.rows;
                    let said = self.catalog.get_leadership(CONFIRM_TIMEOUT).await;
                    listing::Input::CatalogSaid {
                        answer: said.map_err(|error| error.failure),
                        held,
                    }
                }
                listing::Action::Pause { rows } => {
                    self.handle.note_journal_len(rows).await;
                    sleep(LOOK_PAUSE).await;
                    listing::Input::Begin
                }
                listing::Action::Answer(answer) => return Ok(answer.map_err(RequestError::from)?),
            };
        }
    }
}

#[tonic::async_trait]
impl Orders for OrdersService {
    type PlaceManyStream = Answers;

    async fn place_many(
        &self,
        request: Request<Streaming<PlaceManyRequest>>,
    ) -> Result<Response<Answers>, Status> {
        let closed = closed(self.closing.clone());
        let for_client = self.waiting.of(&client_of(&request));
        let handle = self.handle.clone();
        let taking = (self.journal, self.traces.clone());
        let answers = Answers::begin(request, taking, handle, for_client, closed);
        Ok(Response::new(answers))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let _span = self.answering(&request, "order.v1.Orders/Get");
        let request = request.into_inner();
        identity::check(&request.journal, self.journal).map_err(RequestError::NotOurs)?;
        let number = OrderNumber(request.number);
        let row = self.find(number).await?;
        Ok(Response::new(GetResponse {
            row: Some((&row).into()),
        }))
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        let _span = self.answering(&request, "order.v1.Orders/List");
        let own = self.pages_of_client.of(&client_of(&request));
        let request = request.into_inner();
        identity::check(&request.journal, self.journal).map_err(RequestError::NotOurs)?;
        let wanted = wanted(request).map_err(RequestError::Invalid)?;
        let Page { rows, next, more } = self.page(wanted, &own).await?;
        Ok(Response::new(ListResponse {
            orders: rows.iter().filter_map(listed).collect(),
            next: next.0,
            more,
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
        identity::check(&journal, self.journal).map_err(RequestError::NotOurs)?;
        let (epoch, leader) = term(epoch, leader).map_err(RequestError::Invalid)?;
        let status = self.handle.announce(epoch, leader).await?;
        Ok(Response::new(replica_status(status, self.journal)))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<ReplicaStatus>, Status> {
        let status = self.handle.status();
        Ok(Response::new(replica_status(status, self.journal)))
    }
}

fn wanted(request: ListRequest) -> Result<Wanted, Malformed> {
    if !(1..=LISTED_MAX).contains(&request.limit) {
        let problem = format!("is {}, and must be 1 to {LISTED_MAX}", request.limit);
        return Err(Invalid::new("limit", problem).into());
    }
    let stock = Some(&request.stock).filter(|stock| !stock.is_empty());
    Ok(Wanted {
        from: OrderNumber(request.from),
        limit: request.limit as usize,
        stock: stock.map(|stock| StockName::new(stock)).transpose()?,
        may_lag: request.may_lag,
    })
}

fn listed(row: &Row) -> Option<ListedOrder> {
    let (number, order) = (row.order_number()?, row.order()?);
    Some(ListedOrder {
        number: number.0,
        name: order.name.as_str().to_owned(),
        side: wire::catalog::v1::Side::from(order.side).into(),
        quantity: order.quantity.get(),
    })
}

/// What replicas use among themselves.
#[derive(Clone)]
pub struct ReplicationService {
    journal: JournalId,
    handle: Handle,
    reader: Arc<dyn ReadRows>,
    /// Which replica it is, and where what is traced is.
    tracing: (ReplicaId, Traces),
    /// Becomes true when the replica stops.
    closing: watch::Receiver<bool>,
}

impl ReplicationService {
    pub(crate) fn new(
        journal: JournalId,
        handle: Handle,
        reader: Arc<dyn ReadRows>,
        tracing: (ReplicaId, Traces),
        closing: watch::Receiver<bool>,
    ) -> Self {
        Self {
            journal,
            handle,
            reader,
            tracing,
            closing,
        }
    }
}

#[tonic::async_trait]
impl Replication for ReplicationService {
    type FetchStream = Pin<Box<dyn Stream<Item = Result<FetchResponse, Status>> + Send>>;

    type AppendManyStream = ReceiverStream<Result<AppendResponse, Status>>;

    async fn append_many(
        &self,
        request: Request<Streaming<AppendRequest>>,
    ) -> Result<Response<Self::AppendManyStream>, Status> {
        let (journal, handle) = (self.journal, self.handle.clone());
        let (id, traces) = self.tracing.clone();
        let caller = caller_of(&request);
        let closed = closed(self.closing.clone());
        let answers = call_streams::serve(request, closed, move |request, _| {
            let (handle, caller) = (handle.clone(), caller.clone());
            let mut spans = traced::appending(&traces, &request.traced, id.get());
            async move {
                let appended = append(journal, &handle, caller, request).await;
                if let Err(status) = &appended {
                    spans.fail(status.message());
                }
                appended
            }
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
        identity::check(&journal, self.journal).map_err(RequestError::NotOurs)?;
        let rows_max = if rows_max == 0 { u64::MAX } else { rows_max };
        let messages = messages(Arc::clone(&self.reader), RowNumber(from), rows_max);
        Ok(Response::new(Box::pin(messages)))
    }
}

async fn append(
    journal: JournalId,
    handle: &Handle,
    caller: Option<Principal>,
    request: AppendRequest,
) -> Result<AppendResponse, Status> {
    identity::check(&request.journal, journal).map_err(RequestError::NotOurs)?;
    let (term, rows, committed) = rows_from_wire(request).map_err(RequestError::Invalid)?;
    let (_, replica) = term;
    if let Some(caller) = caller.filter(|caller| caller.replica() != Some(replica)) {
        return Err(RequestError::OtherReplica { caller, replica }.into());
    }
    let end = handle.append(term, rows, committed).await?;
    Ok(AppendResponse {
        rows: end.rows.0,
        stock_changes: end.stock_changes,
        chain_hash: end.chain.as_bytes().to_vec(),
    })
}

type Rows = ((Epoch, ReplicaId), Vec<Row>, RowNumber);

fn rows_from_wire(request: AppendRequest) -> Result<Rows, Malformed> {
    let term = term(request.epoch, request.leader)?;
    let rows = wire::rows(request.rows)?;
    Ok((term, rows, wire::row_number(request.committed)?))
}

async fn closed(mut closing: watch::Receiver<bool>) {
    let _ = closing.wait_for(|&closing| closing).await; // or gone: as good
}

/// Rows until there are no more, or enough. Each message is read once the one before it was taken:
/// a caller that takes none has nothing held for it.
fn messages(
    reader: Arc<dyn ReadRows>,
    from: RowNumber,
    rows_max: u64,
) -> impl Stream<Item = Result<FetchResponse, Status>> {
    let until = from.0.saturating_add(rows_max);
    let starts = tokio_stream::iter((from.0..until).step_by(FETCH_MESSAGE_ROWS));
    let messages = starts.then(move |start| {
        let reader = Arc::clone(&reader);
        async move {
            let wanted = (until - start).min(FETCH_MESSAGE_ROWS as u64) as usize;
            (wanted, read(&reader, RowNumber(start), wanted).await)
        }
    });
    let mut is_last = false;
    messages.map_while(move |(wanted, rows)| {
        if is_last {
            return None;
        }
        is_last = rows.as_ref().map_or(0, Vec::len) < wanted;
        let rows = rows.map_err(Status::from);
        Some(rows.map(|rows| FetchResponse {
            rows: rows.iter().map(Into::into).collect(),
        }))
    })
}

fn replica_status(status: order_core::Status, journal: JournalId) -> ReplicaStatus {
    let role = match status.role {
        domain::Role::Follower => Role::Follower,
        domain::Role::Activating => Role::Activating,
        domain::Role::Leader => Role::Leader,
    };
    ReplicaStatus {
        id: status.id.get(),
        role: role.into(),
        epoch: status.term.epoch.0,
        leader: status.term.leader.map_or(0, ReplicaId::get),
        rows: status.end.rows.0,
        stock_changes: status.end.stock_changes,
        chain_hash: status.end.chain.as_bytes().to_vec(),
        reaches_catalog: status.reaches_catalog,
        journal: identity::to_wire(Some(journal)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use storage::StorageError;

    use super::*;
    use crate::fixtures::journal;

    /// Long enough to read ahead in.
    const TIME_TO_READ: Duration = Duration::from_millis(20);

    /// Rows, and how often they were read.
    struct Rows(Vec<Row>, AtomicUsize);

    impl ReadRows for Rows {
        fn rows(&self, from: RowNumber, rows_max: usize) -> Result<Vec<Row>, StorageError> {
            self.1.fetch_add(1, Ordering::Relaxed);
            let rows = self.0.iter().skip(from.0 as usize).take(rows_max);
            Ok(rows.cloned().collect())
        }

        fn order(&self, number: OrderNumber) -> Result<Option<Row>, StorageError> {
            let mut rows = self.0.iter();
            let row = rows.find(|row| row.order_number() == Some(number));
            Ok(row.cloned())
        }

        fn beside(&self) -> Result<Vec<Row>, StorageError> {
            Ok(Vec::new())
        }
    }

    #[tokio::test]
    async fn rows_are_read_as_they_are_taken() {
        let reader = Arc::new(Rows(
            journal(2 * FETCH_MESSAGE_ROWS + 7),
            AtomicUsize::new(0),
        ));
        let all = reader.0.len();
        for (from, rows_max, wanted) in [
            (0, u64::MAX, all),
            (5, u64::MAX, all - 5),
            (0, 600, 600),
            (3, FETCH_MESSAGE_ROWS as u64, FETCH_MESSAGE_ROWS),
            (all as u64, u64::MAX, 0),
            (u64::MAX, 1, 0),
        ] {
            let reading = Arc::clone(&reader) as Arc<dyn ReadRows>;
            let mut messages = Box::pin(messages(reading, RowNumber(from), rows_max));
            reader.1.store(0, Ordering::Relaxed);
            let (mut read, mut taken) = (Vec::new(), 0);
            while let Some(message) = messages.next().await {
                read.extend(wire::rows(message.unwrap().rows).unwrap());
                taken += 1;
                tokio::time::sleep(TIME_TO_READ).await;
                assert_eq!(reader.1.load(Ordering::Relaxed), taken, "none ahead");
            }
            assert_eq!(read, reader.0[from.min(all as u64) as usize..][..wanted]);
        }
    }
}
