//! The gRPC service: reads a request into the domain, asks the shared, the writer or the
//! journal, and writes the answer back.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use daemon::tasks;
use domain::LedgerEnd;
use domain::time::BootTime;
use domain::{
    ChainHash, Entry, Epoch, Identity, Invalid, OrderNumber, Protocol, Protocols, ReplicaId, Row,
    RowNumber, SessionId, StockName,
};
use rpc::call_streams::{self, Early};
use rpc::clients::{Client, PerClient};
use rpc::listen::{caller_of, client_of};
use storage::StorageError;
use storage::damage::DamageReporter;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::yield_now;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};
use traces::{Kind, Span, Traces};
use wire::Malformed;
use wire::catalog::v1;
use wire::catalog::v1::catalog_server::Catalog;
use wire::identity;
use wire::leadership::say_start_waits;
use wire::row_number;

use crate::config::{LEASE_MAX, lease_max};
use crate::error::RequestError;
use crate::session::{Sessions, to_wire};
use crate::shared::{EVENTS_MAX, Shared};
use crate::store::Journal;
use crate::takes::Takes;
use crate::writer::group::{ProposedReply, Sender};
use crate::writer::healing::Told;
use crate::writer::{QUEUE_MAX, Writer};
use catalog_core::self_healing::{EPOCH_MAX, LedgerReport, REPORTS_MAX};
use catalog_core::{Leadership, Stock, TradeResult};
use domain::{CatalogRun, ChangeNumber, Term};

/// Most orders in one request.
pub const ORDERS_MAX: usize = 1024;

/// Most replicas in an in-sync set.
pub const REPLICAS_MAX: usize = REPORTS_MAX;

/// Most stocks in one page of a list. At most about 100 bytes each.
pub const LISTED_MAX: usize = 10_000;

/// Most trades of one client that are not answered; it has others wait.
pub const TRADES_PER_CLIENT_MAX: usize = QUEUE_MAX / 4;

/// How long gateways take at most to open a session again after a start.
const GATEWAYS_BACK_MAX: Duration = Duration::from_secs(3);

/// Stocks that are copied while readers and trades wait.
const LISTED_AT_ONCE: usize = 512;

/// Most rows that are put back at a time, at most about 300 bytes each.
const RESTORED_MAX: usize = 1024;

/// Most rows that a replica has beside its ledger.
const BESIDE_MAX: usize = 64;

/// Journal rows in one message. At most about 300 bytes each.
const ROWS_PER_MESSAGE: usize = 512;

#[derive(Clone)]
pub struct Service {
    pub shared: Arc<Shared>,
    pub writer: Writer,
    pub journal: Arc<dyn Journal>,
    pub sessions: Arc<Sessions>,
    pub takes: Arc<Takes>,
    /// How many each client may have under way.
    pub trades: Arc<PerClient>,
    pub lists: Arc<Lists>,
    /// Where calls that are traced are.
    pub traces: Traces,
    /// Which journal this is.
    pub identity: Identity,
    /// Which run of the catalog.
    pub run: CatalogRun,
    /// When it began to serve.
    pub since: BootTime,
    /// Told that the journal lacks rows.
    pub reporter: DamageReporter,
    /// Becomes true when the service stops.
    pub closing: watch::Receiver<bool>,
}

type Reply<T> = Result<Response<T>, Status>;
type StreamOf<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Catalog for Service {
    async fn get_stock(
        &self,
        request: Request<v1::GetStockRequest>,
    ) -> Reply<v1::GetStockResponse> {
        let _span = self.answering(&request, "catalog.v1.Catalog/GetStock");
        let request = request.into_inner();
        self.check_if_named(&request.journal)?;
        self.wait_until_settled().await?;
        // No stock has an invalid name.
        let name = StockName::new(&request.name).map_err(|_| RequestError::StockNotFound)?;
        let session = SessionId::new(request.session);
        let seen = self.shared.read(&name, session, BootTime::now());
        self.shared.check_answer(BootTime::now())?;
        let seen = seen.ok_or(RequestError::StockNotFound)?;
        let stock = Some(stock_to_wire(&seen.stock));
        Ok(Response::new(v1::GetStockResponse {
            stock,
            cacheable: seen.cacheable,
        }))
    }

    async fn list_stocks(
        &self,
        request: Request<v1::ListStocksRequest>,
    ) -> Reply<v1::ListStocksResponse> {
        let _span = self.answering(&request, "catalog.v1.Catalog/ListStocks");
        let client = client_of(&request);
        let request = request.into_inner();
        self.check_if_named(&request.journal)?;
        let (after, limit) = page_from_wire(&request).map_err(RequestError::from)?;
        self.wait_until_settled().await?;
        let page = self.lists.make(client, || self.page(after, limit)).await;
        self.shared.check_answer(BootTime::now())?;
        Ok(Response::new(page))
    }

    type TradeManyStream = StreamOf<v1::TradeResponse>;

    async fn trade_many(
        &self,
        request: Request<Streaming<v1::TradeRequest>>,
    ) -> Reply<Self::TradeManyStream> {
        let (service, closing) = (self.clone(), self.clone());
        let trader = Trader {
            client: client_of(&request),
            replica: caller_of(&request).and_then(|caller| caller.replica()),
        };
        let closed = async move { closing.closed().await };
        let answers = call_streams::serve(request, closed, move |request, early| {
            let (service, trader) = (service.clone(), trader.clone());
            async move { service.trade_and_propose(request, trader, early).await }
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn get_leadership(
        &self,
        request: Request<v1::GetLeadershipRequest>,
    ) -> Reply<v1::Leadership> {
        let request = request.into_inner();
        self.check_if_named(&request.journal)?;
        let leadership = self.shared.leadership();
        self.shared.check_answer(BootTime::now())?;
        Ok(Response::new(self.leadership(&leadership)))
    }

    async fn elect(&self, request: Request<v1::ElectRequest>) -> Reply<v1::Leadership> {
        let request = request.into_inner();
        self.check_named(&request.journal)?;
        let candidate = replica_from_wire(request.candidate)?;
        self.wait_until_healed().await?;
        let after = self
            .writer
            .elect(Epoch(request.expected_epoch), candidate)
            .await?;
        // Where nothing was committed it is a read like any other.
        self.shared.check_answer(BootTime::now())?;
        Ok(Response::new(self.leadership(&after)))
    }

    async fn set_in_sync(&self, request: Request<v1::SetInSyncRequest>) -> Reply<v1::Leadership> {
        let replica = caller_of(&request).and_then(|caller| caller.replica());
        let request = request.into_inner();
        self.check_named(&request.journal)?;
        at_most("in-sync set", request.in_sync.len(), REPLICAS_MAX)?;
        let change = ChangeNumber::new(request.change).map_err(Malformed)?;
        let in_sync: BTreeSet<ReplicaId> = request
            .in_sync
            .into_iter()
            .map(replica_from_wire)
            .collect::<Result<_, _>>()?;
        self.wait_until_healed().await?;
        let after = self
            .writer
            .set_in_sync(sender(request.epoch, replica), change, in_sync)
            .await?;
        Ok(Response::new(self.leadership(&after)))
    }

    async fn raise_protocol(
        &self,
        request: Request<v1::RaiseProtocolRequest>,
    ) -> Reply<v1::Leadership> {
        let request = request.into_inner();
        self.check_named(&request.journal)?;
        let wanted = Protocol::new(request.protocol);
        let wanted = wanted.filter(|wanted| Protocols::OWN.contains(*wanted));
        let wanted = wanted.ok_or(RequestError::NoSuchProtocol)?;
        self.wait_until_healed().await?;
        // Until then a gateway may be on its way back, of which nothing is known.
        let back = (self.since + GATEWAYS_BACK_MAX).since(BootTime::now());
        tokio::time::sleep(back).await;
        self.sessions.gateways.check_releases(wanted)?;
        let before = self.shared.protocol();
        self.writer.raise_protocol(wanted).await?;
        let now = self.shared.protocol();
        if now != before {
            tracing::info!(%before, %now, "the bazaar's protocol was raised");
        }
        Ok(Response::new(self.leadership(&self.shared.leadership())))
    }

    type ReadJournalStream = StreamOf<v1::ReadJournalResponse>;

    async fn read_journal(
        &self,
        request: Request<v1::ReadJournalRequest>,
    ) -> Reply<Self::ReadJournalStream> {
        let request = request.into_inner();
        self.check_named(&request.journal)?;
        let from = row_number(request.from)?;
        self.wait_until_healed().await?;
        let end = self.shared.leadership().end;
        if let Some(order) = request.order {
            let message = self.order(OrderNumber(order), end).await?;
            self.shared.check_answer(BootTime::now())?;
            return Ok(Response::new(Box::pin(tokio_stream::once(Ok(message)))));
        }
        let compared = if request.previous.is_empty() {
            Ok(())
        } else {
            let previous = ChainHash::try_from(request.previous.as_slice()).map_err(Malformed)?;
            self.compare(from, previous, end).await
        };
        // Where the journal ends may be another catalog's to say. What is sent below is committed, whoever says it.
        self.shared.check_answer(BootTime::now())?;
        compared?;
        let end = end.rows;
        let rows_max = if request.rows_max == 0 {
            u64::MAX
        } else {
            request.rows_max
        };
        let until = RowNumber(from.0.saturating_add(rows_max)).min(end);
        let service = self.clone();
        // Each message is made once the one before it was taken: a caller that takes none has
        // nothing held for it.
        let starts = tokio_stream::iter((from.0..until.0).step_by(ROWS_PER_MESSAGE));
        let messages = starts.then(move |start| {
            let service = service.clone();
            async move { Ok(service.message(RowNumber(start), until).await?) }
        });
        Ok(Response::new(Box::pin(messages)))
    }

    async fn report_ledger(
        &self,
        request: Request<v1::ReportLedgerRequest>,
    ) -> Reply<v1::ReportLedgerResponse> {
        check_speaks_for(&request, request.get_ref().replica)?;
        let missing = self.report(request.into_inner()).await?;
        let missing_from = missing.map(|number| number.0);
        Ok(Response::new(v1::ReportLedgerResponse { missing_from }))
    }

    async fn put_back(&self, request: Request<v1::PutBackRequest>) -> Reply<v1::PutBackResponse> {
        check_speaks_for(&request, request.get_ref().replica)?;
        let missing = self.restore(request.into_inner()).await?;
        let missing_from = missing.map(|number| number.0);
        Ok(Response::new(v1::PutBackResponse { missing_from }))
    }

    async fn report_missing(
        &self,
        request: Request<v1::ReportMissingRequest>,
    ) -> Reply<v1::ReportMissingResponse> {
        check_speaks_for(&request, request.get_ref().replica)?;
        let request = request.into_inner();
        self.check_named(&request.journal)?;
        let replica = replica_from_wire(request.replica)?;
        let row = request
            .row
            .ok_or_else(|| Malformed(Invalid::new("row", "is missing")))?;
        let row = Row::try_from(row)?;
        self.wait_until_healed().await?;
        if !self.shared.may_have_more(replica) {
            return Err(RequestError::NotInSync(replica).into());
        }
        let end = self.shared.leadership().end;
        if !end.is_continued_by(&row) {
            return Err(RequestError::NotMissing(row.number).into());
        }
        self.reporter.report(format!(
            "the journal ends before row {}, which the ledger of replica {replica} has",
            row.number
        ));
        Ok(Response::new(v1::ReportMissingResponse {}))
    }

    type TakeManyStream = ReceiverStream<Result<v1::TakeResponse, Status>>;

    async fn take_many(
        &self,
        request: Request<Streaming<v1::TakeRequest>>,
    ) -> Reply<Self::TakeManyStream> {
        let (service, closing) = (self.clone(), self.clone());
        let closed = async move { closing.closed().await };
        let answers = call_streams::serve(request, closed, move |request, early| {
            let service = service.clone();
            async move {
                service.wait_for_caller(&early).await?;
                Ok(service.take(&request)?)
            }
        });
        Ok(Response::new(answers))
    }

    type SessionStream = StreamOf<v1::SessionEvent>;

    async fn session(
        &self,
        request: Request<Streaming<v1::SessionRequest>>,
    ) -> Reply<Self::SessionStream> {
        let (events, stream) = mpsc::channel(EVENTS_MAX);
        let service = self.clone();
        tasks::spawn_for_caller(async move {
            let healed = tokio::select! {
                healed = service.wait_until_healed() => healed.is_ok(),
                () = events.closed() => false,
            };
            if !healed {
                return;
            }
            tokio::select! {
                () = service.sessions.serve(request, events) => {}
                () = service.closed() => {}
            }
        });
        let sessions = Arc::clone(&self.sessions);
        let stream = ReceiverStream::new(stream).map(move |event| to_wire(event, &sessions));
        Ok(Response::new(Box::pin(stream)))
    }

    async fn list_gateways(
        &self,
        request: Request<v1::ListGatewaysRequest>,
    ) -> Reply<v1::ListGatewaysResponse> {
        let request = request.into_inner();
        self.check_if_named(&request.journal)?;
        let gateways = &self.sessions.gateways;
        Ok(Response::new(match request.names_alone {
            true => gateways.named(),
            false => gateways.list(BootTime::now()),
        }))
    }
}

impl Service {
    /// The span of a call, where it is traced.
    fn answering<T>(&self, request: &Request<T>, method: &'static str) -> Option<Span> {
        let parent = self.traces.join_call(request.metadata())?;
        Some(parent.begin_call(Kind::Server, method))
    }

    /// The spans of a call that trades: one for each order that is traced.
    fn trading(&self, request: &v1::TradeRequest) -> Vec<Span> {
        let orders = request.orders.iter().take(ORDERS_MAX);
        let traced = orders.filter_map(|order| self.traces.join(&order.traceparent));
        traced
            .map(|parent| {
                let span = parent.begin_call(Kind::Server, "catalog.v1.Catalog/TradeMany");
                span.with("bazaar.call.orders", request.orders.len())
            })
            .collect()
    }

    fn check_named(&self, journal: &[u8]) -> Result<(), RequestError> {
        Ok(identity::check(journal, self.identity.journal)?)
    }

    fn check_if_named(&self, journal: &[u8]) -> Result<(), RequestError> {
        Ok(identity::check_if_named(journal, self.identity.journal)?)
    }

    fn leadership(&self, leadership: &Leadership) -> v1::Leadership {
        let mut said = v1::Leadership {
            run: self.run.get(),
            protocol: self.shared.protocol().get(),
            commits_fail: self.shared.commits_fail(),
            ..leadership_to_wire(leadership, &self.identity)
        };
        say_start_waits(self.shared.start_waits(BootTime::now()), &mut said);
        said
    }

    /// A replica's report, for this run.
    async fn report(
        &self,
        request: v1::ReportLedgerRequest,
    ) -> Result<Option<RowNumber>, RequestError> {
        self.check_named(&request.journal)?;
        self.check_heals(request.run)?;
        let report = report_from_wire(request)?;
        self.writer.heal(Told::Report(report)).await
    }

    async fn restore(
        &self,
        request: v1::PutBackRequest,
    ) -> Result<Option<RowNumber>, RequestError> {
        self.check_named(&request.journal)?;
        self.check_heals(request.run)?;
        at_most("rows", request.rows.len(), RESTORED_MAX)?;
        let replica = replica_from_wire(request.replica)?;
        let rows = wire::rows(request.rows)?;
        self.writer.heal(Told::PutBack { replica, rows }).await
    }

    /// Whether this run is meant, and wants to know what replicas have.
    fn check_heals(&self, run: u64) -> Result<(), RequestError> {
        match run == self.run.get() && !self.shared.is_healed() {
            true => Ok(()),
            false => Err(RequestError::Healed),
        }
    }

    /// Whether the journal has the caller's row before a number, given where it ends.
    async fn compare(
        &self,
        from: RowNumber,
        previous: ChainHash,
        end: LedgerEnd,
    ) -> Result<(), RequestError> {
        if from > end.rows {
            return Err(RequestError::Beyond {
                from,
                rows: end.rows,
            });
        }
        let found = match from.0.checked_sub(1) {
            None => ChainHash::EMPTY,
            Some(_) if from == end.rows => end.chain,
            Some(before) => {
                let rows = self.read(RowNumber(before), 1).await?;
                rows.first().map_or(ChainHash::EMPTY, |row| row.chain)
            }
        };
        if found == previous {
            Ok(())
        } else {
            Err(RequestError::Differs(from))
        }
    }

    /// Exactly so many rows, all of which are committed.
    async fn read(&self, from: RowNumber, count: usize) -> Result<Vec<Row>, RequestError> {
        let rows = self.journal.rows(from, count).await;
        let rows = rows.map_err(RequestError::unreadable)?;
        if rows.len() == count {
            return Ok(rows);
        }
        let missing = StorageError::Damaged(format!("rows are missing from {from} on"));
        Err(RequestError::unreadable(missing))
    }

    async fn trade(
        &self,
        request: v1::TradeRequest,
        trader: Trader,
        proposed: ProposedReply,
    ) -> Result<v1::TradeResponse, Status> {
        self.check_named(&request.journal)?;
        let mut spans = self.trading(&request);
        let traded = self.trade_under(&spans, request, trader, proposed).await;
        if let Err(status) = &traded {
            spans
                .iter_mut()
                .for_each(|span| span.fail(status.message()));
        }
        traded
    }

    async fn trade_under(
        &self,
        spans: &[Span],
        request: v1::TradeRequest,
        trader: Trader,
        proposed: ProposedReply,
    ) -> Result<v1::TradeResponse, Status> {
        let (epoch, orders) = trade_from_wire(request)?;
        let turn = self.trades.of(&trader.client).acquire_owned().await;
        let _turn = turn.expect("never closed");
        self.wait_until_settled().await?;
        let sender = sender(epoch.0, trader.replica);
        let traced = spans.iter().map(Span::parent).collect();
        let traded = self.writer.trade(sender, orders, proposed, traced);
        let results = traded.await?;
        // What a key was used for may be another catalog's trade that is not shown yet.
        self.shared.check_answer(BootTime::now())?;
        let results = results.iter().map(result_to_wire).collect();
        let proposed = Vec::new();
        Ok(v1::TradeResponse { results, proposed })
    }

    /// Sends the new rows as soon as they are on their way to the disk.
    async fn trade_and_propose(
        &self,
        request: v1::TradeRequest,
        trader: Trader,
        early: Early<v1::TradeResponse>,
    ) -> Result<v1::TradeResponse, Status> {
        self.wait_for_caller(&early).await?;
        let (proposed, rows) = oneshot::channel();
        let traded = self.trade(request, trader, proposed);
        tokio::pin!(traded);
        let rows = tokio::select! {
            biased;
            Ok(rows) = rows => rows,
            traded = &mut traded => return traded,
        };
        early
            .send(v1::TradeResponse {
                results: Vec::new(),
                proposed: rows.iter().map(Into::into).collect(),
            })
            .await;
        traded.await
    }

    fn take(&self, request: &v1::TakeRequest) -> Result<v1::TakeResponse, RequestError> {
        self.check_named(&request.journal)?;
        let answer = self.takes.answer(request)?;
        self.shared.check_answer(BootTime::now())?;
        Ok(answer)
    }

    /// Each stock as it is shown when it is read: later ones may be newer.
    fn page(&self, after: Option<StockName>, limit: usize) -> v1::ListStocksResponse {
        let (mut stocks, mut last) = (Vec::new(), after);
        // One more than is sent says whether there are more.
        while stocks.len() <= limit {
            let wanted = (limit + 1 - stocks.len()).min(LISTED_AT_ONCE);
            let read = self.shared.stocks_after(last.as_ref(), wanted);
            stocks.extend(read.iter().map(stock_to_wire));
            if read.len() < wanted {
                break;
            }
            last = read.last().map(|stock| stock.name.clone());
        }
        let more = stocks.len() > limit;
        stocks.truncate(limit);
        v1::ListStocksResponse { stocks, more }
    }

    /// Waits until no session of the run before can be alive: what it holds may be older
    /// than what is read or traded now. And before that, until the journal has what it lost.
    async fn wait_until_settled(&self) -> Result<(), RequestError> {
        self.wait_until_healed().await?;
        let left = self.shared.serving_from().since(BootTime::now());
        if left.is_zero() {
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep(left) => Ok(()),
            () = self.closed() => Err(RequestError::Stopping),
        }
    }

    /// The same for a caller on a stream, for as long as it is there.
    async fn wait_for_caller<A>(&self, caller: &Early<A>) -> Result<(), RequestError> {
        tokio::select! {
            healed = self.wait_until_healed() => healed,
            () = caller.left() => Err(RequestError::Stopping),
        }
    }

    async fn wait_until_healed(&self) -> Result<(), RequestError> {
        if self.shared.is_healed() {
            return Ok(());
        }
        tokio::select! {
            () = self.shared.healed() => Ok(()),
            () = self.closed() => Err(RequestError::Stopping),
        }
    }

    async fn closed(&self) {
        let _ = self.closing.clone().wait_for(|&closing| closing).await; // or gone: as good
    }

    /// As many rows from `from` to before `until` as one message has, all of which are committed.
    async fn message(
        &self,
        from: RowNumber,
        until: RowNumber,
    ) -> Result<v1::ReadJournalResponse, RequestError> {
        if *self.closing.borrow() {
            return Err(RequestError::Stopping);
        }
        let count = (until.0 - from.0).min(ROWS_PER_MESSAGE as u64) as usize;
        let rows = self.read(from, count).await?;
        let rows = rows.iter().map(v1::JournalRow::from).collect();
        Ok(v1::ReadJournalResponse { rows })
    }

    /// The row of an order, in a journal that ends there; none where it has no such order.
    async fn order(
        &self,
        order: OrderNumber,
        end: LedgerEnd,
    ) -> Result<v1::ReadJournalResponse, RequestError> {
        let found = self.journal.order(order, end).await;
        let row = found.map_err(RequestError::unreadable)?;
        let rows = row.iter().map(v1::JournalRow::from).collect();
        Ok(v1::ReadJournalResponse { rows })
    }
}

/// Who trades over one stream.
#[derive(Debug, Clone)]
struct Trader {
    client: Client,
    /// Which replica it has proven to be, where that is asked for.
    replica: Option<ReplicaId>,
}

fn sender(epoch: u64, replica: Option<ReplicaId>) -> Sender {
    Sender {
        epoch: Epoch(epoch),
        replica,
    }
}

/// A replica speaks for itself alone.
fn check_speaks_for<T>(request: &Request<T>, replica: u32) -> Result<(), RequestError> {
    let replica = replica_from_wire(replica)?;
    match caller_of(request) {
        Some(caller) if caller.replica() != Some(replica) => {
            Err(RequestError::OtherReplica { caller, replica })
        }
        _ => Ok(()),
    }
}

fn at_most(what: &'static str, count: usize, most: usize) -> Result<(), Malformed> {
    if count <= most {
        Ok(())
    } else {
        let problem = format!("has {count} entries; {most} are the most");
        Err(Malformed(Invalid::new(what, problem)))
    }
}

/// Reads a replica's report off a message.
///
/// # Errors
/// Where something of it cannot be.
pub fn report_from_wire(request: v1::ReportLedgerRequest) -> Result<LedgerReport, Malformed> {
    at_most("beside", request.beside.len(), BESIDE_MAX)?;
    at_most("peers", request.peers.len(), REPLICAS_MAX)?;
    let term = match request.epoch {
        0 => Term::default(),
        epoch => {
            let (epoch, leader) = wire::leadership::term(epoch, request.leader)?;
            Term {
                epoch,
                leader: Some(leader),
            }
        }
    };
    let peers = request.peers.into_iter().map(replica_from_wire);
    for epoch in [request.epoch, request.last_epoch] {
        if Epoch(epoch) > EPOCH_MAX {
            let problem =
                format!("{epoch} is above {EPOCH_MAX}, and no catalog can have come to it");
            return Err(Malformed(Invalid::new("epoch", problem)));
        }
    }
    Ok(LedgerReport {
        replica: replica_from_wire(request.replica)?,
        end: wire::leadership::end(request.rows, request.stock_changes, &request.chain_hash)?,
        last_epoch: Epoch(request.last_epoch),
        beside: wire::rows(request.beside)?,
        is_empty: request.empty,
        term,
        peers: peers.collect::<Result<_, _>>()?,
        // No catalog ever lent for longer.
        lease_horizon: Duration::from_millis(request.lease_horizon_ms).min(lease_max(LEASE_MAX)),
    })
}

fn replica_from_wire(id: u32) -> Result<ReplicaId, Malformed> {
    ReplicaId::new(id).ok_or_else(|| Malformed(Invalid::new("replica id", "is 0")))
}

/// Reads a batch of orders, and the epoch that they are for, off a message.
///
/// # Errors
/// Where there are more than [`ORDERS_MAX`], or one cannot be.
pub fn trade_from_wire(request: v1::TradeRequest) -> Result<(Epoch, Vec<Entry>), Malformed> {
    at_most("orders", request.orders.len(), ORDERS_MAX)?;
    let orders = request
        .orders
        .into_iter()
        .map(Entry::try_from)
        .collect::<Result<_, _>>()?;
    Ok((Epoch(request.epoch), orders))
}

/// Whose turn it is to have a list made: each takes the service's only thread for as long as hundreds of
/// other calls. So every client has one made at a time, and between any two lists everybody else
/// is served and the network looked after.
#[derive(Debug)]
pub struct Lists {
    of_client: PerClient,
    turn: Semaphore,
}

impl Default for Lists {
    fn default() -> Self {
        Self {
            of_client: PerClient::new(1),
            turn: Semaphore::new(1),
        }
    }
}

impl Lists {
    /// Makes a list once it is that client's turn.
    async fn make<T>(&self, client: Client, list: impl FnOnce() -> T) -> T {
        let of_client = self.of_client.of(&client);
        let _of_client = of_client.acquire().await.expect("never closed");
        let _turn = self.turn.acquire().await.expect("never closed");
        // The runtime looks after the network before it goes on with who has yielded.
        yield_now().await;
        list()
    }
}

/// After which stock a page begins, and how many there may be in it.
fn page_from_wire(
    request: &v1::ListStocksRequest,
) -> Result<(Option<StockName>, usize), Malformed> {
    let after = Some(request.after.as_str()).filter(|after| !after.is_empty());
    let after = after.map(StockName::new).transpose()?;
    match request.limit as usize {
        0 => Ok((after, LISTED_MAX)),
        limit @ 1..=LISTED_MAX => Ok((after, limit)),
        limit => {
            let problem = format!("is {limit}; {LISTED_MAX} is the most");
            Err(Malformed(Invalid::new("limit", problem)))
        }
    }
}

fn stock_to_wire(stock: &Stock) -> v1::Stock {
    v1::Stock {
        name: stock.name.as_str().into(),
        price_minor: stock.price.minor(),
        quantity: stock.quantity,
        version: stock.version.0,
    }
}

fn result_to_wire(result: &TradeResult) -> v1::TradeResult {
    use v1::trade_result::Result;
    let result = match result {
        TradeResult::Row(row) => Result::Row(row.into()),
        TradeResult::Refused(refusal) => Result::Refusal(v1::Refusal::from(*refusal).into()),
    };
    v1::TradeResult {
        result: Some(result),
    }
}

fn leadership_to_wire(leadership: &Leadership, identity: &Identity) -> v1::Leadership {
    let Leadership { term, end } = leadership;
    let Identity {
        journal,
        listing,
        lease_horizon,
    } = identity;
    v1::Leadership {
        epoch: term.epoch.0,
        leader: term.leader.map_or(0, ReplicaId::get),
        in_sync: term.in_sync.iter().map(|replica| replica.get()).collect(),
        journal_rows: end.rows.0,
        chain_hash: end.chain.as_bytes().to_vec(),
        journal: journal.as_bytes().to_vec(),
        listing: listing.as_bytes().to_vec(),
        lease_horizon_ms: lease_horizon.as_millis() as u64,
        stock_changes: end.stock_changes,
        ..v1::Leadership::default()
    }
}
