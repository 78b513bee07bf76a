//! A catalog in memory that can be told to misbehave. It has no stocks: every order is
//! committed, but for [`UNKNOWN_STOCK`].

use std::collections::BTreeMap;
use std::future::pending;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use domain::{
    ChainHash, Entry, Epoch, IdempotencyKey, JournalId, LedgerEnd, OrderNumber, Price, Quantity,
    Row, StockName,
};
use rpc::call_streams;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};
use wire::catalog::v1::catalog_server::{Catalog, CatalogServer};
use wire::catalog::v1::*;
use wire::identity;

/// Trades of this stock are refused.
pub const UNKNOWN_STOCK: &str = "unknown";

/// The journal that it keeps, unless it is told to keep another one.
pub const JOURNAL: JournalId = JournalId::new([7; JournalId::BYTES]);

#[derive(Debug, Default)]
pub struct State {
    /// [`JOURNAL`] where it is `None`.
    pub journal: Option<JournalId>,
    /// Rows that replicas said the journal lost.
    pub reported_missing: Vec<Row>,
    /// It went on without them, so that none follows its last.
    pub takes_no_report: bool,
    pub epoch: u64,
    pub leader: u32,
    pub in_sync: Vec<u32>,
    /// The last change of `in_sync` in this epoch.
    pub change: u64,
    pub rows: Vec<Row>,
    /// Calls get no answer.
    pub hangs: bool,
    /// Nor do those who ask for many rows.
    pub withholds_rows: bool,
    /// Trades are committed, and the answer is lost.
    pub loses_trade_answers: bool,
    /// The answer to the n-th trade from now is held back by so many milliseconds.
    pub trade_delays_ms: BTreeMap<usize, u64>,
    pub trade_calls: usize,
    pub refuses_in_sync_changes: bool,
    pub in_sync_changes_refused: usize,
    /// Changes of the in-sync set look lost, and arrive with [`State::make_delayed_changes`].
    pub delays_in_sync_changes: bool,
    pub in_sync_changes_delayed: Vec<SetInSyncRequest>,
    /// Says who leads to those, too, who name another journal.
    pub overlooks_names: bool,
    /// It has not checked the ledgers since its start.
    pub restarted: bool,
    /// How often it was asked who leads.
    pub looks: usize,
    /// It has started, and waits for reports before it does anything else.
    pub heals: bool,
    /// What it was told by then.
    pub reports: Vec<ReportLedgerRequest>,
    /// Rows that it was shown then, a few of each call's.
    pub put_back: Vec<Row>,
    /// As the catalog counts a lease.
    pub lease_ms: u64,
}

/// Its run, where it heals.
pub const RUN: u64 = 7;

/// How long it counts a lease, unless it is told to count longer.
pub const LEASE_MS: u64 = 1100;

impl State {
    fn check(&self, epoch: u64) -> Result<(), Status> {
        if epoch == self.epoch {
            Ok(())
        } else {
            Err(Status::failed_precondition("not the current epoch"))
        }
    }

    fn set_in_sync(&mut self, request: SetInSyncRequest) -> Result<Leadership, Status> {
        self.check(request.epoch)?;
        if request.change <= self.change {
            self.in_sync_changes_refused += 1;
            return Err(Status::aborted("a later change was made before"));
        }
        self.change = request.change;
        self.in_sync = request.in_sync;
        Ok(self.leadership())
    }

    /// What became of the changes that were delayed, now that they arrive.
    pub fn make_delayed_changes(&mut self) -> Vec<Result<Leadership, Status>> {
        let delayed = std::mem::take(&mut self.in_sync_changes_delayed);
        delayed
            .into_iter()
            .map(|request| self.set_in_sync(request))
            .collect()
    }

    fn leadership(&self) -> Leadership {
        let end = self.end();
        Leadership {
            epoch: self.epoch,
            leader: self.leader,
            in_sync: self.in_sync.clone(),
            journal_rows: self.rows.len() as u64,
            chain_hash: end.chain.as_bytes().to_vec(),
            stock_changes: end.stock_changes,
            unsettled_ms: 0,
            journal: self.journal().as_bytes().to_vec(),
            listing: vec![0; 32],
            lease_horizon_ms: self.lease_ms.max(LEASE_MS),
            healed: !self.restarted && !self.heals,
            run: if self.heals { RUN } else { 0 },
            ..Leadership::default()
        }
    }

    fn end(&self) -> LedgerEnd {
        self.rows.last().map(LedgerEnd::of).unwrap_or_default()
    }

    /// From where on it lacks rows of a ledger of so many.
    fn missing_from(&self, ledger: u64) -> Option<u64> {
        let rows = self.rows.len() as u64;
        (rows < ledger).then_some(rows)
    }

    fn journal(&self) -> JournalId {
        self.journal.unwrap_or(JOURNAL)
    }

    fn commit(&mut self, order: Order) -> Result<TradeResult, Status> {
        use trade_result::Result as Is;
        let order = Entry::try_from(order)?;
        let result = if order.name().as_str() == UNKNOWN_STOCK {
            Is::Refusal(Refusal::StockNotFound.into())
        } else {
            match self.rows.iter().find(|row| row.entry.key() == order.key()) {
                Some(row) if row.entry == order => Is::Row(row.into()),
                Some(_) => Is::Refusal(Refusal::KeyConflict.into()),
                None => Is::Row((&self.append(order)).into()),
            }
        };
        Ok(TradeResult {
            result: Some(result),
        })
    }

    fn append(&mut self, order: Entry) -> Row {
        let price = Price::from_minor(100).unwrap();
        let row = Row::following(&self.end(), Epoch(self.epoch), order, price);
        self.rows.push(row.clone());
        row
    }
}

/// The catalog's state, and its server.
pub struct FakeCatalog {
    state: Arc<Mutex<State>>,
    address: std::net::SocketAddr,
    server: JoinHandle<()>,
}

impl FakeCatalog {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state: Arc<Mutex<State>> = Arc::default();
        let service = CatalogServer::new(Service {
            state: Arc::clone(&state),
        });
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let server = tokio::spawn(async {
            Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming)
                .await
                .unwrap();
        });
        Self {
            state,
            address,
            server,
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// As the gateway does it: a compare-and-set.
    pub fn elect(&self, candidate: u32) -> u64 {
        let mut state = self.state();
        state.epoch += 1;
        state.leader = candidate;
        state.change = 0;
        state.epoch
    }

    /// Commits orders that no replica hears of.
    pub fn commit_behind_the_back(&self, count: u64) {
        let mut state = self.state();
        if state.epoch == 0 {
            (state.epoch, state.leader) = (1, 9); // who is not there
        }
        for _ in 0..count {
            let key = format!("hidden-{}", state.rows.len());
            let order = domain::Order {
                key: IdempotencyKey::new(&key).unwrap(),
                name: StockName::new("meta").unwrap(),
                side: domain::Side::Sell,
                quantity: Quantity::new(1).unwrap(),
            };
            state.append(order.into());
        }
    }

    /// Whether calls get no answer from now on.
    pub fn hang(&self, hangs: bool) {
        self.state().hangs = hangs;
    }
}

impl Drop for FakeCatalog {
    fn drop(&mut self) {
        self.server.abort();
    }
}

struct Service {
    state: Arc<Mutex<State>>,
}

impl Service {
    /// The state, unless the catalog is to give no answer.
    async fn state(&self) -> MutexGuard<'_, State> {
        while self.state.lock().unwrap().hangs {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.state.lock().unwrap()
    }

    async fn traded(&self, request: TradeRequest) -> Result<TradeResponse, Status> {
        let TradeRequest {
            epoch,
            orders,
            journal,
        } = request;
        let (results, lost, delay_ms) = {
            let mut state = self.state().await;
            identity::check(&journal, state.journal())?;
            state.check(epoch)?;
            let results = orders
                .into_iter()
                .map(|order| state.commit(order))
                .collect::<Result<_, _>>()?;
            let call = state.trade_calls;
            state.trade_calls += 1;
            (
                results,
                state.loses_trade_answers,
                state.trade_delays_ms.remove(&call),
            )
        };
        if let Some(delay_ms) = delay_ms {
            tokio::time::sleep(Duration::from_millis(delay_ms)).await;
        }
        if lost {
            Err(Status::unavailable("the answer is lost"))
        } else {
            let proposed = Vec::new();
            Ok(TradeResponse { results, proposed })
        }
    }
}

fn row(result: &TradeResult) -> Option<JournalRow> {
    match &result.result {
        Some(trade_result::Result::Row(row)) => Some(row.clone()),
        _ => None,
    }
}

type Events<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Catalog for Service {
    type ReadJournalStream = Events<ReadJournalResponse>;
    type SessionStream = Events<SessionEvent>;
    type TakeManyStream = Events<TakeResponse>;

    async fn get_stock(
        &self,
        _: Request<GetStockRequest>,
    ) -> Result<Response<GetStockResponse>, Status> {
        Err(Status::unimplemented("no stocks"))
    }

    async fn list_stocks(
        &self,
        _: Request<ListStocksRequest>,
    ) -> Result<Response<ListStocksResponse>, Status> {
        Err(Status::unimplemented("no stocks"))
    }

    async fn session(
        &self,
        _: Request<Streaming<SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        Err(Status::unimplemented("no sessions"))
    }

    async fn list_gateways(
        &self,
        _: Request<ListGatewaysRequest>,
    ) -> Result<Response<ListGatewaysResponse>, Status> {
        Err(Status::unimplemented("no gateways"))
    }

    async fn take_many(
        &self,
        _: Request<Streaming<TakeRequest>>,
    ) -> Result<Response<Self::TakeManyStream>, Status> {
        Err(Status::unimplemented("no tokens"))
    }

    async fn elect(&self, _: Request<ElectRequest>) -> Result<Response<Leadership>, Status> {
        Err(Status::unimplemented("the tests elect"))
    }

    async fn raise_protocol(
        &self,
        _: Request<RaiseProtocolRequest>,
    ) -> Result<Response<Leadership>, Status> {
        Err(Status::unimplemented("it stays what it is"))
    }

    type TradeManyStream = ReceiverStream<Result<TradeResponse, Status>>;

    async fn trade_many(
        &self,
        request: Request<Streaming<TradeRequest>>,
    ) -> Result<Response<Self::TradeManyStream>, Status> {
        let state = Arc::clone(&self.state);
        // The rows come before the answer, as those that are on their way to the disk.
        let answers = call_streams::serve(request, pending(), move |request, early| {
            let service = Service {
                state: Arc::clone(&state),
            };
            async move {
                let answer = service.traded(request).await?;
                let proposed: Vec<_> = answer.results.iter().filter_map(row).collect();
                if !proposed.is_empty() {
                    let results = Vec::new();
                    early.send(TradeResponse { results, proposed }).await;
                }
                Ok(answer)
            }
        });
        Ok(Response::new(answers))
    }

    async fn get_leadership(
        &self,
        request: Request<GetLeadershipRequest>,
    ) -> Result<Response<Leadership>, Status> {
        self.state.lock().unwrap().looks += 1;
        let request = request.into_inner();
        let state = self.state().await;
        if !state.overlooks_names {
            identity::check_if_named(&request.journal, state.journal())?;
        }
        Ok(Response::new(state.leadership()))
    }

    async fn report_ledger(
        &self,
        request: Request<ReportLedgerRequest>,
    ) -> Result<Response<ReportLedgerResponse>, Status> {
        let request = request.into_inner();
        let mut state = self.state().await;
        identity::check(&request.journal, state.journal())?;
        assert_eq!(request.run, RUN);
        let missing_from = state.missing_from(request.rows);
        state.reports.push(request);
        Ok(Response::new(ReportLedgerResponse { missing_from }))
    }

    async fn put_back(
        &self,
        request: Request<PutBackRequest>,
    ) -> Result<Response<PutBackResponse>, Status> {
        let request = request.into_inner();
        let mut state = self.state().await;
        identity::check(&request.journal, state.journal())?;
        let mut rows = wire::rows(request.rows)?;
        if rows[0].number.0 != state.rows.len() as u64 {
            return Err(Status::failed_precondition("another was faster"));
        }
        rows.truncate(2);
        state.put_back.extend(rows.iter().cloned());
        state.rows.extend(rows);
        let end = state.reports.last().map_or(0, |report| report.rows);
        let missing_from = state.missing_from(end);
        Ok(Response::new(PutBackResponse { missing_from }))
    }

    async fn report_missing(
        &self,
        request: Request<ReportMissingRequest>,
    ) -> Result<Response<ReportMissingResponse>, Status> {
        let request = request.into_inner();
        let mut state = self.state().await;
        identity::check(&request.journal, state.journal())?;
        if state.takes_no_report {
            return Err(Status::invalid_argument("it does not follow the last row"));
        }
        let row = Row::try_from(request.row.unwrap())?;
        state.reported_missing.push(row);
        Ok(Response::new(ReportMissingResponse {}))
    }

    async fn set_in_sync(
        &self,
        request: Request<SetInSyncRequest>,
    ) -> Result<Response<Leadership>, Status> {
        let request = request.into_inner();
        let mut state = self.state().await;
        identity::check(&request.journal, state.journal())?;
        state.check(request.epoch)?;
        if state.refuses_in_sync_changes {
            state.in_sync_changes_refused += 1;
            return Err(Status::unavailable("not now"));
        }
        if state.delays_in_sync_changes {
            state.in_sync_changes_delayed.push(request);
            return Err(Status::unavailable("the answer is lost"));
        }
        Ok(Response::new(state.set_in_sync(request)?))
    }

    async fn read_journal(
        &self,
        request: Request<ReadJournalRequest>,
    ) -> Result<Response<Self::ReadJournalStream>, Status> {
        let ReadJournalRequest {
            from,
            rows_max,
            previous,
            order,
            journal,
        } = request.into_inner();
        if rows_max != 1 && self.state().await.withholds_rows {
            pending::<()>().await;
        }
        let state = self.state().await;
        identity::check(&journal, state.journal())?;
        if let Some(order) = order {
            let mut rows = state.rows.iter();
            let row = rows.find(|row| row.order_number() == Some(OrderNumber(order)));
            let rows = row.map(Into::into).into_iter().collect();
            let message = Ok(ReadJournalResponse { rows });
            return Ok(Response::new(Box::pin(tokio_stream::once(message))));
        }
        if !previous.is_empty() {
            let before = match from.checked_sub(1) {
                None => Some(ChainHash::EMPTY),
                Some(before) => state.rows.get(before as usize).map(|row| row.chain),
            };
            match before {
                None => return Err(Status::out_of_range("the journal is shorter")),
                Some(chain) if chain.as_bytes()[..] != previous => {
                    return Err(Status::aborted("another row is there"));
                }
                Some(_) => {}
            }
        }
        let rows_max = if rows_max == 0 {
            usize::MAX
        } else {
            rows_max as usize
        };
        let rows: Vec<JournalRow> = state
            .rows
            .iter()
            .skip(from as usize)
            .take(rows_max)
            .map(Into::into)
            .collect();
        let messages: Vec<_> = rows
            .chunks(1000)
            .map(|rows| {
                Ok(ReadJournalResponse {
                    rows: rows.to_vec(),
                })
            })
            .collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(messages))))
    }
}
