//! Backends that are away, that refuse, and that come back.

use rpc::connect::Security;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use domain::{ChainHash, IdempotencyKey, JournalId, LedgerEnd, Quantity, ReplicaId, Side};
use rpc::connect;
use rpc::failover::Endpoints;
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
    PutBackRequest, PutBackResponse, RaiseProtocolRequest, ReadJournalRequest, ReadJournalResponse,
    ReportLedgerRequest, ReportLedgerResponse, ReportMissingRequest, ReportMissingResponse,
    SessionEvent, SessionRequest, SetInSyncRequest, TakeRequest, TakeResponse, TradeRequest,
    TradeResponse,
};
use wire::order::v1::orders_client::OrdersClient;
use wire::order::v1::orders_server::{Orders, OrdersServer};
use wire::order::v1::{
    AnnounceRequest, GetResponse, ListRequest, ListResponse, PlaceManyRequest, PlaceManyResponse,
    ReplicaStatus, Role, StatusRequest, place_many_response,
};

use super::*;
use crate::cache::{Cache, CacheBounds};
use crate::journal::OwnJournal;
use crate::upstream::order_stream::OrderStreams;
use crate::upstream::relay::Relay;
use crate::upstream::session::{Served, keep_session};
use frontend_core::election::Unanswered;
use frontend_core::timing::READ_TIME_MAX;
use frontend_policy::DEFAULT_POLICY;
use frontend_policy::decision::{CacheSettings, Eviction, Rate};
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

/// How a fake answers, so often: with an error of a class, whatever its code.
#[derive(Clone, Default)]
struct Fails(Option<(RetryClass, Code)>, Arc<AtomicU64>);

impl Fails {
    fn with(class: RetryClass, code: Code, times: u64) -> Self {
        Self(Some((class, code)), Arc::new(times.into()))
    }

    fn status(&self) -> Result<(), Status> {
        let (left, less) = (&self.1, |left: u64| left.checked_sub(1));
        let is_left = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        match self.0 {
            Some((class, code)) if is_left.is_ok() => Err(class.status(code, "as told")),
            _ => Ok(()),
        }
    }
}

/// Has one stock, and a leader.
#[derive(Clone)]
struct FakeCatalog {
    reads: Arc<AtomicU64>,
    read_takes: Duration,
    read_fails: Fails,
    looks: Arc<AtomicU64>,
    look_fails: Fails,
    leader: Arc<AtomicU32>,
    elections: Arc<AtomicU64>,
    /// Messages of takes, and the takes in them, of which the first are granted.
    take_messages: Arc<AtomicU64>,
    takes: Arc<AtomicU64>,
    sessions: Arc<AtomicU64>,
    session_fails: Fails,
}

/// Takes that a fake catalog grants.
const GRANTED: u64 = 3;

impl Default for FakeCatalog {
    fn default() -> Self {
        Self {
            reads: Arc::default(),
            read_takes: Duration::ZERO,
            read_fails: Fails::default(),
            looks: Arc::default(),
            look_fails: Fails::default(),
            leader: Arc::new(1.into()),
            elections: Arc::default(),
            take_messages: Arc::default(),
            takes: Arc::default(),
            sessions: Arc::default(),
            session_fails: Fails::default(),
        }
    }
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
    type TakeManyStream = Messages<TakeResponse>;

    async fn get_stock(&self, request: Request<GetStockRequest>) -> Reply<GetStockResponse> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        sleep(self.read_takes).await;
        self.read_fails.status()?;
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
        self.looks.fetch_add(1, Ordering::Relaxed);
        self.look_fails.status()?;
        let leader = self.leader.load(Ordering::Relaxed);
        Ok(Response::new(Leadership {
            epoch: leader.into(),
            leader,
            chain_hash: ChainHash::EMPTY.as_bytes().to_vec(),
            journal: JOURNAL.as_bytes().to_vec(),
            healed: true,
            ..Leadership::default()
        }))
    }

    async fn list_stocks(&self, _: Request<ListStocksRequest>) -> Reply<ListStocksResponse> {
        not_here()
    }

    async fn trade_many(
        &self,
        _: Request<Streaming<TradeRequest>>,
    ) -> Reply<Self::TradeManyStream> {
        not_here()
    }

    async fn take_many(
        &self,
        request: Request<Streaming<TakeRequest>>,
    ) -> Reply<Self::TakeManyStream> {
        let (answers, stream) = mpsc::channel(1);
        let (mut requests, catalog) = (request.into_inner(), self.clone());
        tokio::spawn(async move {
            while let Ok(Some(message)) = requests.message().await {
                assert_eq!(message.journal, JOURNAL.as_bytes());
                catalog.take_messages.fetch_add(1, Ordering::Relaxed);
                let answer = |take: catalog::take_request::Take| {
                    let is_granted = catalog.takes.fetch_add(1, Ordering::Relaxed) < GRANTED;
                    let hour = Duration::from_secs(3600);
                    wire::takes::answer(take.tag, is_granted.then_some(()).ok_or(hour))
                };
                // In another order than they came.
                let answered = message.takes.into_iter().map(answer).rev().collect();
                let message = TakeResponse { answers: answered };
                answers.send(Ok(message)).await.unwrap();
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn elect(&self, _: Request<ElectRequest>) -> Reply<Leadership> {
        self.elections.fetch_add(1, Ordering::Relaxed);
        not_here()
    }

    async fn raise_protocol(&self, _: Request<RaiseProtocolRequest>) -> Reply<Leadership> {
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

    async fn report_ledger(&self, _: Request<ReportLedgerRequest>) -> Reply<ReportLedgerResponse> {
        not_here()
    }

    async fn put_back(&self, _: Request<PutBackRequest>) -> Reply<PutBackResponse> {
        not_here()
    }

    async fn list_gateways(
        &self,
        _: Request<catalog::ListGatewaysRequest>,
    ) -> Reply<catalog::ListGatewaysResponse> {
        not_here()
    }

    async fn session(&self, _: Request<Streaming<SessionRequest>>) -> Reply<Self::SessionStream> {
        self.sessions.fetch_add(1, Ordering::Relaxed);
        self.session_fails.status()?;
        not_here()
    }
}

/// Replica 1, which leads epoch 1, or 2, which leads epoch 2.
#[derive(Clone)]
struct FakeLeader {
    id: u32,
    reaches_catalog: Arc<AtomicBool>,
    probes: Arc<AtomicU64>,
    placed: Arc<AtomicU64>,
    /// Says of every order that it is none.
    refuses: bool,
    /// Its stream of orders does, whenever there is an order.
    place_fails: Fails,
    gets: Arc<AtomicU64>,
    get_fails: Fails,
    /// Was told of no epoch yet.
    is_uninformed: bool,
    announced: Arc<AtomicU64>,
    announce_fails: Fails,
}

impl Default for FakeLeader {
    fn default() -> Self {
        Self {
            id: 1,
            reaches_catalog: Arc::default(),
            probes: Arc::default(),
            placed: Arc::default(),
            refuses: false,
            place_fails: Fails::default(),
            gets: Arc::default(),
            get_fails: Fails::default(),
            is_uninformed: false,
            announced: Arc::default(),
            announce_fails: Fails::default(),
        }
    }
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
                if let Err(status) = leader.place_fails.status() {
                    leader.placed.fetch_add(1, Ordering::Relaxed);
                    answers.send(Err(status)).await.unwrap();
                    return;
                }
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
        let (role, leads) = match self.is_uninformed {
            true => (Role::Follower, 0),
            false => (Role::Leader, self.id),
        };
        Ok(Response::new(ReplicaStatus {
            id: self.id,
            role: role.into(),
            epoch: leads.into(),
            leader: leads,
            chain_hash: ChainHash::EMPTY.as_bytes().to_vec(),
            reaches_catalog: self.reaches_catalog.load(Ordering::Relaxed),
            journal: JOURNAL.as_bytes().to_vec(),
            ..ReplicaStatus::default()
        }))
    }

    async fn list(&self, _: Request<ListRequest>) -> Reply<ListResponse> {
        Err(Status::unimplemented("not asked for here"))
    }

    async fn get(&self, request: Request<GetRequest>) -> Reply<GetResponse> {
        self.gets.fetch_add(1, Ordering::Relaxed);
        self.get_fails.status()?;
        let number = request.into_inner().number;
        let end = LedgerEnd {
            rows: RowNumber(number),
            ..LedgerEnd::default()
        };
        let price = Price::from_minor(100).unwrap();
        let row = Row::following(&end, domain::Epoch(1), order(number), price);
        Ok(Response::new(GetResponse {
            row: Some((&row).into()),
        }))
    }

    async fn announce(&self, _: Request<AnnounceRequest>) -> Reply<ReplicaStatus> {
        self.announced.fetch_add(1, Ordering::Relaxed);
        self.announce_fails.status()?;
        not_here()
    }
}

/// A catalog and one replica, which are watched until the set is dropped.
fn backend(catalog: &str, replica: &str) -> (Arc<Backend>, JoinSet<()>) {
    backend_of(catalog, &[replica])
}

/// The same with several replicas, whose ids are from 1 on.
fn backend_of(catalog: &str, replicas: &[&str]) -> (Arc<Backend>, JoinSet<()>) {
    let engine = Engine::new(Duration::from_millis(200)).unwrap();
    let versions = Versions::new(engine, DEFAULT_POLICY, Probation::default(), None).unwrap();
    let journal = Arc::new(OwnJournal::open(None).unwrap());
    let takes = Takes::new(
        Endpoints::one(catalog, &Security::NONE).unwrap(),
        Arc::clone(&journal),
    );
    let connected = || CatalogClient::new(connect::lazy(catalog, &Security::NONE).unwrap());
    let (catalog, spare_catalog) = (connected(), connected());
    let replica = |(id, url): (u32, &&str)| Replica {
        id: ReplicaId::new(id).unwrap(),
        url: (*url).to_owned(),
        orders: OrdersClient::new(connect::lazy(url, &Security::NONE).unwrap()),
        spare: OrdersClient::new(connect::lazy(url, &Security::NONE).unwrap()),
        order_streams: OrderStreams::new(
            Endpoints::one(url, &Security::NONE).unwrap(),
            Arc::clone(&journal),
        ),
    };
    let replicas = (1..).zip(replicas).map(replica).collect();
    let replicas = Replicas::new(replicas, catalog.clone(), journal, Arc::new(versions));
    let replicas = Arc::new(replicas);
    let mut watching = JoinSet::new();
    watching.spawn(Arc::clone(&replicas).watch());
    let backend = Backend {
        catalog,
        spare_catalog,
        replicas,
        takes,
        end_turn: Default::default(),
    };
    (Arc::new(backend), watching)
}

/// What all of them keep.
const JOURNAL: JournalId = JournalId::new([1; JournalId::BYTES]);

const NOBODY: &str = "http://127.0.0.1:1";

async fn read_meta(backend: Arc<Backend>) -> Result<StockAnswer, Unavailability> {
    let name = StockName::new("meta").unwrap();
    let deadline = Instant::now() + PATIENCE;
    backend.read_stock(&name, None, deadline.into()).await
}

fn order(number: u64) -> domain::Order {
    domain::Order {
        key: IdempotencyKey::new(&format!("key-{number}")).unwrap(),
        name: StockName::new("meta").unwrap(),
        side: Side::Sell,
        quantity: Quantity::new(1).unwrap(),
    }
}

async fn trade(backend: Arc<Backend>, number: u64) -> Outcome {
    let deadline = Instant::now() + PATIENCE;
    backend.trade(&order(number), deadline.into()).await
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
            backend
                .read_order(OrderNumber(number), deadline.into())
                .await
        });
    }
    away.check().await;
}

async fn take(backend: &Backend, key: &[u8], wait_max: Duration) -> Outcome {
    let rate = Rate::new(1, Duration::from_secs(3600), GRANTED as u32).unwrap();
    let name = "lookups".to_owned();
    let deadline = Instant::now() + wait_max;
    let bucket = Bucket { name, rate };
    backend.take(&bucket, key, 1, deadline.into()).await
}

#[tokio::test]
async fn takes_that_queue_go_in_one_message_and_a_denial_spares_the_next_calls() {
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}", incoming.local_addr().unwrap());
    let fake = FakeCatalog::default();
    let (messages, takes) = (Arc::clone(&fake.take_messages), Arc::clone(&fake.takes));
    let _serving = daemon::tasks::spawn("a catalog", fake.serve(incoming));
    let (backend, _watching) = backend(&url, NOBODY);
    let mut taking = JoinSet::new();
    for _ in 0..WAITERS {
        let backend = Arc::clone(&backend);
        taking.spawn(async move { take(&backend, b"one", PATIENCE).await });
    }
    let outcomes = taking.join_all().await;
    let granted = outcomes.iter().filter(|it| **it == Outcome::Granted);
    assert_eq!(granted.count() as u64, GRANTED);
    let denied = Outcome::Denied(3_600_000);
    let denied = outcomes.iter().filter(|it| **it == denied);
    assert_eq!(denied.count() as u64, WAITERS - GRANTED);
    let sent = || [&messages, &takes].map(|sent| sent.load(Ordering::Relaxed));
    assert_eq!(sent(), [1, WAITERS]);

    for _ in 0..WAITERS {
        let outcome = take(&backend, b"one", PATIENCE).await;
        let Outcome::Denied(wait_ms) = outcome else {
            panic!("{outcome:?}");
        };
        assert!((3_500_000..=3_600_000).contains(&wait_ms), "{wait_ms}");
    }
    assert_eq!(sent(), [1, WAITERS]);
    take(&backend, b"another", PATIENCE).await;
    assert_eq!(sent(), [2, WAITERS + 1]);
}

#[tokio::test]
async fn a_take_is_unavailable_where_the_catalog_is_away_until_its_deadline() {
    let away = Away::listen().await;
    let (backend, _watching) = backend(&away.url, NOBODY);
    let outcome = take(&backend, b"one", Duration::from_millis(300)).await;
    assert_eq!(outcome, Outcome::Unavailable(Unavailability::NoCatalog));
}

/// Without another connection it would take 4 s, until the first is found out by the probes of HTTP/2.
#[tokio::test]
async fn where_a_connection_to_the_catalog_is_dead_reads_and_takes_get_through_on_another() {
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}", incoming.local_addr().unwrap());
    let _serving = daemon::tasks::spawn("a catalog", FakeCatalog::default().serve(incoming));
    let relay = Relay::to(&url).await;
    let (backend, _watching) = backend(&relay.url, NOBODY);
    assert!(read_meta(Arc::clone(&backend)).await.is_ok());
    assert_eq!(take(&backend, b"one", PATIENCE).await, Outcome::Granted);

    relay.kill_connections();
    let name = StockName::new("meta").unwrap();
    let deadline = Instant::now() + READ_TIME_MAX;
    let (read, taken) = tokio::join!(
        backend.read_stock(&name, None, deadline.into()),
        take(&backend, b"one", READ_TIME_MAX)
    );
    assert!(matches!(read, Ok(StockAnswer::Found { .. })));
    assert_eq!(taken, Outcome::Granted);
}

#[tokio::test]
async fn a_catalog_that_says_who_leads_is_asked_once_however_long_a_read_takes() {
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}", incoming.local_addr().unwrap());
    let fake = FakeCatalog {
        read_takes: ATTEMPT_TIME_MAX * 2,
        ..FakeCatalog::default()
    };
    let reads = Arc::clone(&fake.reads);
    let _serving = daemon::tasks::spawn("a catalog", fake.serve(incoming));
    let (backend, _watching) = backend(&url, NOBODY);
    assert!(read_meta(backend).await.is_ok());
    assert_eq!(reads.load(Ordering::Relaxed), 1);
}

/// What a catalog reads that fails so, and how often it is asked.
async fn read_at(fails: Fails) -> (Result<StockAnswer, Unavailability>, u64) {
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}", incoming.local_addr().unwrap());
    let fake = FakeCatalog {
        read_fails: fails,
        ..FakeCatalog::default()
    };
    let reads = Arc::clone(&fake.reads);
    let _serving = daemon::tasks::spawn("a catalog", fake.serve(incoming));
    let (backend, _watching) = backend(&url, NOBODY);
    let read = read_meta(backend).await;
    (read, reads.load(Ordering::Relaxed))
}

#[tokio::test]
async fn a_catalog_is_asked_again_where_it_says_so_whatever_the_code() {
    for (class, code) in [
        (RetryClass::Never, Code::InvalidArgument),
        (RetryClass::Never, Code::Aborted),
        (RetryClass::Elsewhere, Code::DataLoss),
    ] {
        let (read, reads) = read_at(Fails::with(class, code, u64::MAX)).await;
        assert!(read.is_err(), "{class:?} {code}");
        assert_eq!(reads, 1, "{class:?} {code}");
    }
    for code in [Code::Unavailable, Code::ResourceExhausted] {
        let (read, reads) = read_at(Fails::with(RetryClass::Later, code, 2)).await;
        assert!(read.is_ok(), "{code}");
        assert_eq!(reads, 3, "{code}");
    }
}

#[tokio::test]
async fn a_catalog_that_will_not_say_who_leads_is_asked_at_leisure() {
    const LOOKS: u64 = 5;
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}", incoming.local_addr().unwrap());
    let fake = FakeCatalog {
        look_fails: Fails::with(RetryClass::Elsewhere, Code::PermissionDenied, u64::MAX),
        ..FakeCatalog::default()
    };
    let looks = Arc::clone(&fake.looks);
    let _serving = daemon::tasks::spawn("a catalog", fake.serve(incoming));
    let (_backend, _watching) = backend(&url, NOBODY);
    while looks.load(Ordering::Relaxed) < 1 {
        sleep(Duration::from_millis(1)).await;
    }
    let start = Instant::now();
    while looks.load(Ordering::Relaxed) < LOOKS {
        sleep(Duration::from_millis(1)).await;
    }
    // What is asked before its pauses are over comes at least so much later.
    let elapsed = start.elapsed();
    assert!(elapsed > Duration::from_millis(500), "{elapsed:?}");
}

/// How long it takes a gateway to ask for four sessions of a catalog that opens none.
async fn asking_for_sessions(fails: Fails) -> Duration {
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}", incoming.local_addr().unwrap());
    let fake = FakeCatalog {
        session_fails: fails,
        ..FakeCatalog::default()
    };
    let sessions = Arc::clone(&fake.sessions);
    let _serving = daemon::tasks::spawn("a catalog", fake.serve(incoming));
    let asked = async |count| {
        while sessions.load(Ordering::Relaxed) < count {
            sleep(Duration::from_millis(1)).await;
        }
        Instant::now()
    };
    let settings = CacheSettings {
        stocks_max: 1,
        orders_max: 1,
        eviction: Eviction::Lru,
    };
    let session = keep_session(
        CatalogClient::new(connect::lazy(&url, &Security::NONE).unwrap()),
        "a gateway".to_owned(),
        Served {
            cache: Arc::new(Cache::new(settings, CacheBounds::default())),
            measured: Arc::default(),
            reporting: Arc::default(),
        },
        Arc::new(OwnJournal::open(None).unwrap()),
        std::future::pending(),
    );
    let asking = async {
        let first = asked(1).await;
        asked(4).await - first
    };
    tokio::select! {
        () = session => unreachable!("nobody stops it"),
        elapsed = asking => elapsed,
    }
}

#[tokio::test]
async fn a_catalog_that_opens_no_session_for_this_gateway_is_asked_at_leisure() {
    let foreign = Fails::with(RetryClass::Elsewhere, Code::PermissionDenied, u64::MAX);
    let elapsed = asking_for_sessions(foreign).await;
    assert!(elapsed > Duration::from_millis(1_400), "{elapsed:?}");
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
async fn a_leader_that_will_place_no_orders_is_asked_once_and_the_next_one_places_them() {
    let bind = || TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = |incoming: &TcpIncoming| format!("http://{}", incoming.local_addr().unwrap());
    let incoming = [bind(), bind(), bind()];
    let urls = incoming.each_ref().map(url);
    let (backend, _watching) = backend_of(&urls[0], &[&urls[1], &urls[2]]);
    let catalog = FakeCatalog::default();
    let leads = Arc::clone(&catalog.leader);
    let damaged = FakeLeader {
        reaches_catalog: Arc::new(true.into()),
        place_fails: Fails::with(RetryClass::Elsewhere, Code::DataLoss, u64::MAX),
        ..FakeLeader::default()
    };
    let next = FakeLeader {
        id: 2,
        reaches_catalog: Arc::new(true.into()),
        ..FakeLeader::default()
    };
    let placed = [&damaged, &next].map(|leader| Arc::clone(&leader.placed));
    let [at_catalog, at_damaged, at_next] = incoming;
    let _serving = [
        daemon::tasks::spawn("a catalog", catalog.serve(at_catalog)),
        daemon::tasks::spawn("a leader", damaged.serve(at_damaged)),
        daemon::tasks::spawn("the next leader", next.serve(at_next)),
    ];
    let trading = tokio::spawn(trade(Arc::clone(&backend), 1));
    // Whoever waits for another leader has said that something is wrong with this one.
    while backend.replicas.suspicions() == 0 && !trading.is_finished() {
        sleep(Duration::from_millis(1)).await;
    }
    leads.store(2, Ordering::Relaxed);
    let outcome = trading.await.unwrap();
    assert!(matches!(outcome, Outcome::Traded(_)), "{outcome:?}");
    assert_eq!(placed.map(|placed| placed.load(Ordering::Relaxed)), [1, 1]);
}

/// What reading an order comes to where the first replica fails so, and the second, if it is there,
/// gives it; how often the first is asked, and how often there was a suspicion.
async fn read_order_at(fails: Fails, is_there: bool) -> (Outcome, u64, u64) {
    let bind = || TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = |incoming: &TcpIncoming| format!("http://{}", incoming.local_addr().unwrap());
    let (first, second) = (bind(), bind());
    let urls = [url(&first), url(&second)];
    let replicas = match is_there {
        true => vec![&*urls[0], &*urls[1]],
        false => vec![&*urls[0]],
    };
    let (backend, _watching) = backend_of(NOBODY, &replicas);
    let failing = FakeLeader {
        get_fails: fails,
        ..FakeLeader::default()
    };
    let gets = Arc::clone(&failing.gets);
    let sound = FakeLeader {
        id: 2,
        ..FakeLeader::default()
    };
    let _serving = [
        daemon::tasks::spawn("a replica", failing.serve(first)),
        daemon::tasks::spawn("another replica", sound.serve(second)),
    ];
    // So that it is not the one that is asked last.
    while backend.replicas.all().1[0].status.is_err() {
        sleep(Duration::from_millis(1)).await;
    }
    let before = backend.replicas.suspicions();
    let deadline = Instant::now() + PATIENCE;
    let outcome = backend.read_order(OrderNumber(7), deadline.into()).await;
    let suspicions = backend.replicas.suspicions() - before;
    (outcome, gets.load(Ordering::Relaxed), suspicions)
}

#[tokio::test]
async fn an_order_that_nobody_can_give_is_asked_for_once_and_nobody_is_suspected() {
    for (class, code, is_there) in [
        (RetryClass::Never, Code::InvalidArgument, true),
        (RetryClass::Elsewhere, Code::DataLoss, false),
    ] {
        let fails = Fails::with(class, code, u64::MAX);
        let (outcome, gets, suspicions) = read_order_at(fails, is_there).await;
        assert!(matches!(outcome, Outcome::Unavailable(_)), "{outcome:?}");
        assert_eq!((gets, suspicions), (1, 0), "{class:?} {code}");
    }
}

#[tokio::test]
async fn an_order_that_one_replica_cannot_give_comes_from_another_and_from_a_busy_one_later() {
    for (class, code, is_there, expected) in [
        (RetryClass::Elsewhere, Code::DataLoss, true, (1, 0)),
        (RetryClass::Later, Code::ResourceExhausted, false, (3, 2)),
    ] {
        let fails = Fails::with(class, code, 2);
        let (outcome, gets, suspicions) = read_order_at(fails, is_there).await;
        assert!(matches!(outcome, Outcome::Order(_)), "{outcome:?}");
        assert_eq!((gets, suspicions), expected, "{class:?} {code}");
    }
}

/// How often a leader that takes announcements so is announced, and how often another one is
/// elected, until either was so often enough.
async fn announced_to(fails: Fails) -> (u64, u64) {
    const ENOUGH: u64 = 4;
    let bind = || TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = |incoming: &TcpIncoming| format!("http://{}", incoming.local_addr().unwrap());
    let (at_catalog, at_leader) = (bind(), bind());
    let (_backend, _watching) = backend(&url(&at_catalog), &url(&at_leader));
    let catalog = FakeCatalog::default();
    let elections = Arc::clone(&catalog.elections);
    let leader = FakeLeader {
        is_uninformed: true,
        reaches_catalog: Arc::new(true.into()),
        announce_fails: fails,
        ..FakeLeader::default()
    };
    let announced = Arc::clone(&leader.announced);
    let _serving = [
        daemon::tasks::spawn("a catalog", catalog.serve(at_catalog)),
        daemon::tasks::spawn("a leader", leader.serve(at_leader)),
    ];
    let counts = || [&announced, &elections].map(|count| count.load(Ordering::Relaxed));
    while counts().iter().all(|count| *count < ENOUGH) {
        sleep(Duration::from_millis(1)).await;
    }
    let [announced, elections] = counts();
    (announced, elections)
}

#[tokio::test]
async fn a_leader_that_is_busy_is_told_again_and_one_that_will_not_lead_is_replaced() {
    let busy = Fails::with(RetryClass::Later, Code::ResourceExhausted, u64::MAX);
    let (announced, elections) = announced_to(busy).await;
    assert!(announced >= 4 && elections == 0, "{announced} {elections}");
    let unwilling = Fails::with(RetryClass::Elsewhere, Code::ResourceExhausted, u64::MAX);
    let (announced, elections) = announced_to(unwilling).await;
    assert!(elections > 0, "{announced} {elections}");
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
