//! Backends that are away, that refuse, and that come back.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use domain::{ChainHash, IdempotencyKey, JournalId, Quantity, ReplicaId, Side};
use rpc::connect;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Streaming};
use wire::catalog::v1::catalog_server::{Catalog, CatalogServer};
use wire::catalog::v1::{
    ElectRequest, GetLeadershipRequest, GetStockResponse, Leadership, ListStocksResponse,
    ReadJournalRequest, ReadJournalResponse, ReportMissingRequest, ReportMissingResponse,
    SessionEvent, SessionRequest, SetInSyncRequest, TradeRequest, TradeResponse,
};
use wire::order::v1::orders_client::OrdersClient;
use wire::order::v1::orders_server::{Orders, OrdersServer};
use wire::order::v1::{
    AnnounceRequest, GetResponse, PlaceManyRequest, PlaceManyResponse, PlaceRequest, PlaceResponse,
    ReplicaStatus, Role, StatusRequest, place_many_response,
};

use super::*;
use crate::journal::OwnJournal;
use crate::upstream::order_stream::OrderStreams;
use frontend_policy::DEFAULT_POLICY;
use frontend_policy::{Engine, Probation, Versions};

/// Long enough for anything, on any machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// How many wait at once.
const WAITERS: u64 = 100;

/// More attempts than one of those who wait would make at once.
const ATTEMPTS: u64 = 20;

/// At most so many attempts in a time: pauses grow to 50 ms, less up to half of it, or to 20.
fn attempts_max(elapsed: Duration) -> u128 {
    10 + elapsed.as_millis() / 20
}

/// Takes connections for a server that is not there, and breaks them.
struct Away {
    url: String,
    attempts: Arc<AtomicU64>,
    listening: tokio::task::JoinHandle<TcpListener>,
    back: Arc<AtomicBool>,
}

impl Away {
    async fn listen() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (attempts, back) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let (counted, until) = (Arc::clone(&attempts), Arc::clone(&back));
        let listening = tokio::spawn(async move {
            loop {
                let (mut connection, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, Ordering::Relaxed);
                // With something unread it is reset.
                let _ = connection.read_u8().await;
                if until.load(Ordering::Relaxed) {
                    return listener;
                }
            }
        });
        Self {
            url,
            attempts,
            listening,
            back,
        }
    }

    /// Waits until so many connections were tried, and checks that those who wait did not try one
    /// by one.
    async fn check(&self) {
        let (start, before) = (Instant::now(), self.attempts.load(Ordering::Relaxed));
        let attempts = loop {
            let attempts = self.attempts.load(Ordering::Relaxed) - before;
            if attempts >= ATTEMPTS {
                break attempts;
            }
            sleep(Duration::from_millis(1)).await;
        };
        let elapsed = start.elapsed();
        assert!(
            u128::from(attempts) <= attempts_max(elapsed),
            "{attempts} attempts in {elapsed:?}"
        );
    }

    /// The listener, for a server.
    async fn come_back(self) -> TcpIncoming {
        self.back.store(true, Ordering::Relaxed);
        TcpIncoming::from(self.listening.await.unwrap())
    }
}

/// Has one stock, and a leader.
#[derive(Clone, Default)]
struct FakeCatalog {
    reads: Arc<AtomicU64>,
    /// Says that it cannot read its disk.
    is_damaged: bool,
}

impl FakeCatalog {
    async fn serve(self, incoming: TcpIncoming) {
        let server = Server::builder().add_service(CatalogServer::new(self));
        server.serve_with_incoming(incoming).await.unwrap();
    }
}

type Reply<T> = Result<Response<T>, Status>;
type Messages<T> = ReceiverStream<Result<T, Status>>;

fn not_here<T>() -> Reply<T> {
    Err(Status::unimplemented("not asked for here"))
}

#[tonic::async_trait]
impl Catalog for FakeCatalog {
    type TradeManyStream = Messages<TradeResponse>;
    type ReadJournalStream = Messages<ReadJournalResponse>;
    type SessionStream = Messages<SessionEvent>;

    async fn get_stock(&self, request: Request<GetStockRequest>) -> Reply<GetStockResponse> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        if self.is_damaged {
            return Err(Status::data_loss("a row is damaged"));
        }
        Ok(Response::new(GetStockResponse {
            stock: Some(catalog::Stock {
                name: request.into_inner().name,
                price_minor: 100,
                quantity: 7,
                version: 1,
            }),
            cacheable: false,
        }))
    }

    async fn get_leadership(&self, _: Request<GetLeadershipRequest>) -> Reply<Leadership> {
        Ok(Response::new(Leadership {
            epoch: 1,
            leader: 1,
            chain_hash: ChainHash::EMPTY.as_bytes().to_vec(),
            journal: JOURNAL.as_bytes().to_vec(),
            ..Leadership::default()
        }))
    }

    async fn list_stocks(&self, _: Request<ListStocksRequest>) -> Reply<ListStocksResponse> {
        not_here()
    }

    async fn trade(&self, _: Request<TradeRequest>) -> Reply<TradeResponse> {
        not_here()
    }

    async fn trade_many(
        &self,
        _: Request<Streaming<TradeRequest>>,
    ) -> Reply<Self::TradeManyStream> {
        not_here()
    }

    async fn elect(&self, _: Request<ElectRequest>) -> Reply<Leadership> {
        not_here()
    }

    async fn set_in_sync(&self, _: Request<SetInSyncRequest>) -> Reply<Leadership> {
        not_here()
    }

    async fn read_journal(&self, _: Request<ReadJournalRequest>) -> Reply<Self::ReadJournalStream> {
        not_here()
    }

    async fn report_missing(
        &self,
        _: Request<ReportMissingRequest>,
    ) -> Reply<ReportMissingResponse> {
        not_here()
    }

    async fn session(&self, _: Request<Streaming<SessionRequest>>) -> Reply<Self::SessionStream> {
        not_here()
    }
}

/// Leads epoch 1.
#[derive(Clone, Default)]
struct FakeLeader {
    reaches_catalog: Arc<AtomicBool>,
    probes: Arc<AtomicU64>,
    placed: Arc<AtomicU64>,
    /// Says of every order that it is none.
    refuses: bool,
}

impl FakeLeader {
    async fn serve(self, incoming: TcpIncoming) {
        let server = Server::builder().add_service(OrdersServer::new(self));
        server.serve_with_incoming(incoming).await.unwrap();
    }
}

#[tonic::async_trait]
impl Orders for FakeLeader {
    type PlaceManyStream = Messages<PlaceManyResponse>;

    async fn place_many(
        &self,
        request: Request<Streaming<PlaceManyRequest>>,
    ) -> Reply<Self::PlaceManyStream> {
        let (answers, stream) = mpsc::channel(1);
        let (mut orders, leader) = (request.into_inner(), self.clone());
        tokio::spawn(async move {
            while let Ok(Some(message)) = orders.message().await {
                let answer = |placement: wire::order::v1::place_many_request::Placement| {
                    let number = leader.placed.fetch_add(1, Ordering::Relaxed);
                    let result = match leader.refuses {
                        true => answer::Result::Invalid("no order".to_owned()),
                        false => answer::Result::Number(number),
                    };
                    place_many_response::Answer {
                        tag: placement.tag,
                        result: Some(result),
                    }
                };
                let message = PlaceManyResponse {
                    answers: message.placements.into_iter().map(answer).collect(),
                };
                answers.send(Ok(message)).await.unwrap();
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Reply<ReplicaStatus> {
        self.probes.fetch_add(1, Ordering::Relaxed);
        Ok(Response::new(ReplicaStatus {
            id: 1,
            role: Role::Leader.into(),
            epoch: 1,
            leader: 1,
            chain_hash: ChainHash::EMPTY.as_bytes().to_vec(),
            reaches_catalog: self.reaches_catalog.load(Ordering::Relaxed),
            journal: JOURNAL.as_bytes().to_vec(),
            ..ReplicaStatus::default()
        }))
    }

    async fn place(&self, _: Request<PlaceRequest>) -> Reply<PlaceResponse> {
        not_here()
    }

    async fn get(&self, _: Request<GetRequest>) -> Reply<GetResponse> {
        not_here()
    }

    async fn announce(&self, _: Request<AnnounceRequest>) -> Reply<ReplicaStatus> {
        not_here()
    }
}

/// A catalog and one replica, which are watched until the set is dropped.
fn backend(catalog: &str, replica: &str) -> (Arc<Backend>, JoinSet<()>) {
    let engine = Engine::new(Duration::from_millis(200)).unwrap();
    let versions = Versions::new(engine, DEFAULT_POLICY, Probation::default(), None).unwrap();
    let catalog = CatalogClient::new(connect::lazy(catalog).unwrap());
    let journal = Arc::new(OwnJournal::open(None).unwrap());
    let replica = Replica {
        id: ReplicaId::new(1).unwrap(),
        url: replica.to_owned(),
        orders: OrdersClient::new(connect::lazy(replica).unwrap()),
        order_streams: OrderStreams::new(replica, Arc::clone(&journal)),
    };
    let replicas = Replicas::new(vec![replica], catalog.clone(), journal, Arc::new(versions));
    let replicas = Arc::new(replicas);
    let mut watching = JoinSet::new();
    watching.spawn(Arc::clone(&replicas).watch());
    (Arc::new(Backend { catalog, replicas }), watching)
}

/// What all of them keep.
const JOURNAL: JournalId = JournalId::new([1; JournalId::BYTES]);

/// Where nobody listens.
const NOBODY: &str = "http://127.0.0.1:1";

async fn read_meta(backend: Arc<Backend>) -> Result<StockAnswer, Unavailability> {
    let name = StockName::new("meta").unwrap();
    let deadline = Instant::now() + PATIENCE;
    backend.read_stock(&name, None, deadline).await
}

async fn trade(backend: Arc<Backend>, number: u64) -> Outcome {
    let order = domain::Order {
        key: IdempotencyKey::new(&format!("key-{number}")).unwrap(),
        name: StockName::new("meta").unwrap(),
        side: Side::Sell,
        quantity: Quantity::new(1).unwrap(),
    };
    backend.trade(&order, Instant::now() + PATIENCE).await
}

#[tokio::test]
async fn a_catalog_that_is_away_is_asked_for_all_who_wait_and_each_gets_through_when_it_is_back() {
    let away = Away::listen().await;
    let (backend, _watching) = backend(&away.url, NOBODY);
    let mut reading = JoinSet::new();
    for _ in 0..WAITERS {
        reading.spawn(read_meta(Arc::clone(&backend)));
    }
    away.check().await;

    let fake = FakeCatalog::default();
    let reads = Arc::clone(&fake.reads);
    let _serving = daemon::tasks::spawn("a catalog", fake.serve(away.come_back().await));
    while let Some(read) = reading.join_next().await {
        assert!(matches!(read.unwrap(), Ok(StockAnswer::Found { .. })));
    }
    assert_eq!(reads.load(Ordering::Relaxed), WAITERS);
}

#[tokio::test]
async fn a_replica_that_is_away_is_asked_for_all_who_wait() {
    let away = Away::listen().await;
    let (backend, _watching) = backend(NOBODY, &away.url);
    while backend.replicas.all().1[0].status != Err(Unanswered::Gone) {
        sleep(Duration::from_millis(1)).await;
    }
    let mut reading = JoinSet::new();
    for number in 0..WAITERS {
        let backend = Arc::clone(&backend);
        reading.spawn(async move {
            let deadline = Instant::now() + PATIENCE;
            backend.read_order(OrderNumber(number), deadline).await
        });
    }
    away.check().await;
}

#[tokio::test]
async fn what_no_attempt_can_mend_is_asked_once() {
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}", incoming.local_addr().unwrap());
    let fake = FakeCatalog {
        is_damaged: true,
        ..FakeCatalog::default()
    };
    let reads = Arc::clone(&fake.reads);
    let _serving = daemon::tasks::spawn("a catalog", fake.serve(incoming));
    let (backend, _watching) = backend(&url, NOBODY);
    assert!(read_meta(backend).await.is_err());
    assert_eq!(reads.load(Ordering::Relaxed), 1);
}

/// A bazaar of such a leader.
async fn led(leader: FakeLeader) -> (Arc<Backend>, [daemon::tasks::Task<()>; 2], JoinSet<()>) {
    let bind = || TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let (catalog, orders) = (bind(), bind());
    let url = |incoming: &TcpIncoming| format!("http://{}", incoming.local_addr().unwrap());
    let (backend, watching) = backend(&url(&catalog), &url(&orders));
    let serving = [
        daemon::tasks::spawn("a catalog", FakeCatalog::default().serve(catalog)),
        daemon::tasks::spawn("a leader", leader.serve(orders)),
    ];
    (backend, serving, watching)
}

#[tokio::test]
async fn a_leader_that_refuses_an_order_for_good_is_asked_once_and_not_suspected() {
    let leader = FakeLeader {
        refuses: true,
        reaches_catalog: Arc::new(true.into()),
        ..FakeLeader::default()
    };
    let placed = Arc::clone(&leader.placed);
    let (backend, _serving, _watching) = led(leader).await;
    let outcome = trade(Arc::clone(&backend), 1).await;
    assert!(matches!(outcome, Outcome::Unavailable(_)), "{outcome:?}");
    assert_eq!(placed.load(Ordering::Relaxed), 1);
    assert_eq!(backend.replicas.suspicions(), 0);
}

#[tokio::test]
async fn a_leader_without_a_catalog_is_given_no_orders_and_all_that_wait_when_it_has_one() {
    let leader = FakeLeader::default();
    let (probes, placed) = (Arc::clone(&leader.probes), Arc::clone(&leader.placed));
    let reaches_catalog = Arc::clone(&leader.reaches_catalog);
    let (backend, _serving, _watching) = led(leader).await;
    let probed = async |count| {
        let before = probes.load(Ordering::Relaxed);
        while probes.load(Ordering::Relaxed) < before + count {
            sleep(Duration::from_millis(1)).await;
        }
    };
    probed(2).await;
    let mut trading = JoinSet::new();
    for number in 0..WAITERS {
        trading.spawn(trade(Arc::clone(&backend), number));
    }
    probed(3).await;
    assert_eq!(placed.load(Ordering::Relaxed), 0);
    reaches_catalog.store(true, Ordering::Relaxed);
    while let Some(traded) = trading.join_next().await {
        assert!(matches!(traded.unwrap(), Outcome::Traded(_)));
    }
    assert_eq!(placed.load(Ordering::Relaxed), WAITERS);
}
