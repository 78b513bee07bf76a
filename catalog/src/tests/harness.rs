//! A catalog to test, and a gateway's side of a session.

use rpc::access::Access;
use rpc::connect::Security;
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::{Price, ReplicaId, StockName};
use rpc::listen::{self, Incoming, Limits};
use rpc::release::BazaarProtocol;
use storage::damage::DamageReceiver;
use tls::{Cluster, Expected, Role};
use tokio::io::{AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};
use wire::catalog::v1::catalog_client::CatalogClient;
use wire::catalog::v1::catalog_server::CatalogServer;
use wire::catalog::v1::session_event::{Event, Invalidate};
use wire::catalog::v1::session_request::{
    Acknowledge, Open, Release, Renew, Request as SessionRequestKind,
};
use wire::catalog::v1::trade_result::Result as Traded;
use wire::catalog::v1::{self, SessionRequest, Side};

use crate::error::Error;
use crate::server::{Parts, Server};
use crate::service::Service;
use crate::store::Loaded;
use crate::store::memory::Disk;
use catalog_core::{CatalogState, Stock, Term};

/// A lease that is over soon.
pub const SHORT_LEASE: Duration = Duration::from_millis(200);

/// A lease that no test sees the end of.
pub const LONG_LEASE: Duration = Duration::from_secs(60);

/// Longest wait for what must happen soon.
pub const SOON: Duration = Duration::from_secs(10);

pub type Client = CatalogClient<Channel>;

pub struct Running {
    url: String,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<Result<(), Error>>,
}

impl Running {
    /// A catalog with a configuration, on a free port.
    pub async fn start(config: crate::Config) -> Self {
        Self::spawn(|listener, stopped| crate::run(config, listener, stopped)).await
    }

    /// A catalog on a disk in memory.
    pub async fn start_on(disk: &Disk, lease: Duration) -> Self {
        Self::start_within(disk, lease, Limits::default()).await
    }

    /// The same with such limits for its connections.
    pub async fn start_within(disk: &Disk, lease: Duration, limits: Limits) -> Self {
        let parts = parts(disk, lease);
        Self::spawn(move |listener, stopped| serve(parts, (listener, limits), stopped)).await
    }

    /// The same where whoever connects proves who they are.
    pub async fn start_secured(disk: &Disk, lease: Duration, cluster: Cluster) -> Self {
        let parts = parts(disk, lease);
        let serve =
            move |listener: TcpListener, stopped| serve(parts, (listener, Some(cluster)), stopped);
        let running = Self::spawn(serve).await;
        Self {
            url: running.url.replace("http:", "https:"),
            ..running
        }
    }

    /// A service that the test reads into.
    pub async fn serve(service: Service) -> Self {
        let served = listen::server(Access(&[]), BazaarProtocol::default())
            .add_service(CatalogServer::new(service));
        Self::spawn(|listener, stopped| async {
            let incoming = Incoming::from(listener);
            let ended = served.serve_with_incoming_shutdown(incoming, stopped).await;
            ended.map_err(Error::Serve)
        })
        .await
    }

    /// A catalog that waits so long for ledgers, and not for these replicas.
    pub async fn start_accepting(
        disk: &Disk,
        healing_wait_max: Duration,
        accept_loss_of: &[u32],
    ) -> Self {
        let ids = accept_loss_of.iter().copied().filter_map(ReplicaId::new);
        let parts = Parts {
            healing_wait_max,
            accept_loss_of: ids.collect(),
            ..parts(disk, LONG_LEASE)
        };
        let limits = Limits::default();
        Self::spawn(move |listener, stopped| serve(parts, (listener, limits), stopped)).await
    }

    /// A catalog that waits for no ledgers, unless its database may lack what they have, as this one may.
    pub async fn start_suspecting(disk: &Disk) -> Self {
        let parts = parts(disk, SHORT_LEASE);
        let loaded = Loaded {
            may_lack_rows: true,
            ..parts.loaded
        };
        let parts = Parts { loaded, ..parts };
        let limits = Limits::default();
        Self::spawn(move |listener, stopped| serve(parts, (listener, limits), stopped)).await
    }

    /// A catalog that waits so long for ledgers; and what it finds to be damaged.
    pub async fn start_checking(disk: &Disk, healing_wait_max: Duration) -> (Self, DamageReceiver) {
        let (reporter, receiver) = storage::damage::channel();
        let parts = Parts {
            healing_wait_max,
            reporter,
            ..parts(disk, LONG_LEASE)
        };
        let limits = Limits::default();
        let serve = move |listener, stopped| serve(parts, (listener, limits), stopped);
        (Self::spawn(serve).await, receiver)
    }

    async fn spawn<F>(serve: impl FnOnce(TcpListener, Stopped) -> F) -> Self
    where
        F: Future<Output = Result<(), Error>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel();
        let ended = tokio::spawn(serve(listener, Box::pin(async { drop(stopped.await) })));
        Self { url, stop, ended }
    }

    pub fn client(&self) -> Client {
        CatalogClient::new(rpc::connect::lazy(&self.url, &Security::NONE).unwrap())
    }

    /// The same, of a catalog that wants to know who it is: a connection of its own for each.
    pub fn client_of(&self, cluster: &Cluster) -> Client {
        let security = Security::of(Some(cluster), Expected::Role(Role::Catalog));
        CatalogClient::new(rpc::connect::lazy(&self.url, &security).unwrap())
    }

    /// The same from another address of this machine's, as from another network.
    pub async fn client_from(&self, address: Ipv4Addr, cluster: &Cluster) -> Client {
        let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let security = Security::of(Some(cluster), Expected::Role(Role::Catalog));
        let url = format!("https://{}", proxy.local_addr().unwrap());
        let catalog = self.url.trim_start_matches("https://");
        let catalog: SocketAddr = catalog.parse().unwrap();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = proxy.accept().await {
                let socket = TcpSocket::new_v4().unwrap();
                socket.bind(SocketAddr::from((address, 0))).unwrap();
                let mut server = socket.connect(catalog).await.unwrap();
                tokio::spawn(async move {
                    let _ = copy_bidirectional(&mut client, &mut server).await; // either may go
                });
            }
        });
        CatalogClient::new(rpc::connect::lazy(&url, &security).unwrap())
    }

    /// A client that has little room for what it does not take.
    pub fn narrow_client(&self) -> Client {
        let endpoint = Endpoint::from_shared(self.url.clone()).unwrap();
        CatalogClient::new(endpoint.initial_stream_window_size(1 << 16).connect_lazy())
    }

    /// A connection of a client that says hello and no more, as one does that is paused.
    pub async fn hung_client(&self) -> TcpStream {
        const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
        let address = self.url.trim_start_matches("http://");
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream
            .write_all(&[PREFACE, SETTINGS].concat())
            .await
            .unwrap();
        stream.readable().await.unwrap(); // it is served
        stream
    }

    /// A client of a leader elected for the next epoch.
    pub async fn elect_leader(&self) -> Leader {
        self.elector().elect_leader().await
    }

    pub fn elector(&self) -> Elector {
        Elector(self.client())
    }

    /// Waits until it stops by itself; says why it does.
    pub async fn failed(self) -> Error {
        let Self { stop, ended, .. } = self;
        let failed = tokio::time::timeout(SOON, ended).await;
        drop(stop);
        failed.expect("it goes on").unwrap().unwrap_err()
    }

    pub async fn stop(self) {
        self.stop.send(()).unwrap();
        self.ended.await.unwrap().unwrap();
    }
}

/// Who elects.
pub struct Elector(pub Client);

impl Elector {
    /// A client of a leader elected for the next epoch, once the catalog serves.
    pub async fn elect_leader(self) -> Leader {
        let mut client = self.0;
        while !leadership(&mut client).await.healed {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let before = leadership(&mut client).await;
        let elected = client
            .elect(v1::ElectRequest {
                expected_epoch: before.epoch,
                candidate: 3,
                journal: before.journal.clone(),
            })
            .await
            .unwrap();
        Leader {
            client,
            epoch: elected.into_inner().epoch,
            journal: before.journal,
        }
    }
}

/// What a catalog on a disk in memory is made of.
pub fn parts(disk: &Disk, lease: Duration) -> Parts {
    let (store, loaded) = (disk.store(), disk.load());
    Parts {
        traces: Default::default(),
        store: Box::new(store),
        journal: Arc::new(disk.clone()),
        loaded,
        lease,
        left: None,
        handover: None,
        // Where nobody plays the replicas, nobody waits for them.
        healing_wait_max: Duration::ZERO,
        accept_loss_of: BTreeSet::new(),
        is_rebuilt: false,
        reporter: storage::damage::channel().0,
    }
}

async fn serve(parts: Parts, listener: impl Into<Incoming>, stopped: Stopped) -> Result<(), Error> {
    let (_nobody, elsewhere) = watch::channel(None);
    let server = Server {
        parts: async { Ok(parts) },
        elsewhere,
        callers: Default::default(),
        monitor: Default::default(),
        listener,
    };
    server.serve(stopped).await
}

type Stopped = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

#[derive(Clone)]
pub struct Leader {
    pub client: Client,
    pub epoch: u64,
    pub journal: Vec<u8>,
}

impl Leader {
    /// A trade on a stream of its own, and what comes back.
    pub async fn start_trade(
        &self,
        orders: Vec<v1::Order>,
    ) -> Result<Streaming<v1::TradeResponse>, Status> {
        let request = v1::TradeRequest {
            epoch: self.epoch,
            orders,
            journal: self.journal.clone(),
        };
        // It ends, so that its stream does, too, once the answer is there or nobody waits for it.
        let requests = tokio_stream::iter([request]);
        Ok(self.client.clone().trade_many(requests).await?.into_inner())
    }

    pub async fn trade(&self, orders: Vec<v1::Order>) -> Result<Vec<Traded>, Status> {
        let mut answers = self.start_trade(orders).await?;
        let ended = || Status::unavailable("the stream ended");
        let mut answer = answers.message().await?.ok_or_else(ended)?;
        if !answer.proposed.is_empty() {
            answer = answers.message().await?.ok_or_else(ended)?;
        }
        let results = answer.results.into_iter();
        Ok(results.map(|result| result.result.unwrap()).collect())
    }

    /// The row that buying one share makes.
    pub async fn buy(&self, key: &str, name: &str) -> Result<v1::JournalRow, Status> {
        Ok(row(self
            .trade(vec![order(key, name, Side::Buy, 1)])
            .await?
            .remove(0)))
    }

    /// The in-sync set that the change leaves.
    pub async fn set_in_sync(&self, change: u64, in_sync: &[u32]) -> Result<Vec<u32>, Status> {
        let request = v1::SetInSyncRequest {
            epoch: self.epoch,
            in_sync: in_sync.into(),
            change,
            journal: self.journal.clone(),
        };
        let leadership = self.client.clone().set_in_sync(request).await?;
        Ok(leadership.into_inner().in_sync)
    }

    /// Buying one share, in the background.
    pub fn start_buy(&self, key: &str, name: &str) -> JoinHandle<Result<v1::JournalRow, Status>> {
        self.start(order(key, name, Side::Buy, 1))
    }

    /// An order, in the background.
    pub fn start(&self, order: v1::Order) -> JoinHandle<Result<v1::JournalRow, Status>> {
        let leader = self.clone();
        tokio::spawn(async move { Ok(row(leader.trade(vec![order]).await?.remove(0))) })
    }
}

pub fn order(key: &str, name: &str, side: Side, quantity: u64) -> v1::Order {
    v1::Order {
        idempotency_key: key.into(),
        name: name.into(),
        side: side.into(),
        quantity,
        ..v1::Order::default()
    }
}

pub fn row(result: Traded) -> v1::JournalRow {
    match result {
        Traded::Row(row) => row,
        Traded::Refusal(refusal) => panic!("refused: {refusal}"),
    }
}

/// What a session sees of a stock: its quantity, and whether it may keep it.
pub async fn read_stock(client: &mut Client, name: &str, session: u64) -> (u64, bool) {
    let request = v1::GetStockRequest {
        name: name.into(),
        session,
        journal: Vec::new(),
    };
    let response = client.get_stock(request).await.unwrap().into_inner();
    (response.stock.unwrap().quantity, response.cacheable)
}

/// Who leads, and which journal it is.
pub async fn leadership(client: &mut Client) -> v1::Leadership {
    let request = v1::GetLeadershipRequest::default();
    client.get_leadership(request).await.unwrap().into_inner()
}

pub async fn journal(client: &mut Client, from: u64, rows_max: u64) -> Vec<v1::JournalRow> {
    let request = v1::ReadJournalRequest {
        from,
        rows_max,
        previous: Vec::new(),
        order: None,
        journal: leadership(client).await.journal,
    };
    let mut stream = client.read_journal(request).await.unwrap().into_inner();
    let mut rows = Vec::new();
    while let Some(message) = stream.message().await.unwrap() {
        rows.extend(message.rows);
    }
    rows
}

/// A disk with stocks `acme` and `bolt`, 100 shares each.
pub fn disk() -> Disk {
    disk_of(["acme", "bolt"])
}

/// A disk with 100 shares of each of these.
pub fn disk_of<'a>(names: impl IntoIterator<Item = &'a str>) -> Disk {
    let price = Price::from_minor(100).unwrap();
    let stock = |name: &str| Stock::first(StockName::new(name).unwrap(), price, 100);
    Disk::new(CatalogState::new(
        names.into_iter().map(stock),
        Default::default(),
        Term::default(),
    ))
}

/// A gateway's side of a session that does nothing by itself.
pub struct Session {
    pub id: u64,
    pub lease_ms: u32,
    requests: mpsc::Sender<SessionRequest>,
    events: Streaming<v1::SessionEvent>,
}

impl Session {
    /// A stream without an Open yet.
    pub async fn unopened(client: &Client) -> Self {
        let (requests, stream) = mpsc::channel(256);
        let events = client.clone().session(ReceiverStream::new(stream)).await;
        Self {
            id: 0,
            lease_ms: 0,
            requests,
            events: events.unwrap().into_inner(),
        }
    }

    pub async fn open(client: &Client) -> Self {
        Self::try_open(client).await.unwrap()
    }

    pub async fn try_open(client: &Client) -> Result<Self, Status> {
        let mut session = Self::unopened(client).await;
        session
            .send(SessionRequestKind::Open(Open {
                gateway: "test".into(),
                journal: Vec::new(),
            }))
            .await;
        match session.event().await? {
            Event::Opened(opened) => {
                session.id = opened.session;
                session.lease_ms = opened.lease_ms;
            }
            other => panic!("not opened: {other:?}"),
        }
        Ok(session)
    }

    pub async fn send(&self, request: SessionRequestKind) {
        self.requests
            .send(SessionRequest {
                request: Some(request),
            })
            .await
            .unwrap();
    }

    /// The next event; an error where the stream ends.
    pub async fn event(&mut self) -> Result<Event, Status> {
        let message = tokio::time::timeout(SOON, self.events.message())
            .await
            .expect("no event");
        let ended = || Status::aborted("the stream ended");
        Ok(message?.ok_or_else(ended)?.event.unwrap())
    }

    pub async fn renew(&self, nonce: u64) {
        self.send(SessionRequestKind::Renew(Renew { nonce })).await;
    }

    /// Says how it is, if anybody is there to hear it.
    pub fn report(&self) {
        let report = v1::session_request::Report {
            json: b"{}".to_vec(),
        };
        let request = Some(SessionRequestKind::Report(report));
        let _ = self.requests.try_send(SessionRequest { request });
    }

    /// Renews as often as there is room on the stream; says how often that was.
    pub fn renew_many(&self) -> u64 {
        let request = || Some(SessionRequestKind::Renew(Renew { nonce: 0 }));
        let send = || {
            self.requests
                .try_send(SessionRequest { request: request() })
        };
        let sent = std::iter::repeat_with(send).take_while(Result::is_ok);
        sent.count() as u64
    }

    /// Renews, and waits until that has counted.
    pub async fn renewed(&mut self, nonce: u64) {
        self.renew(nonce).await;
        match self.event().await {
            Ok(Event::Renewed(renewed)) => assert_eq!(renewed.nonce, nonce),
            other => panic!("not renewed: {other:?}"),
        }
    }

    /// Asks for a renewal; there is none for a while where it is withheld.
    pub async fn try_renew(&mut self, nonce: u64) -> Option<()> {
        self.renew(nonce).await;
        let event = tokio::time::timeout(Duration::from_millis(20), self.events.message());
        let event = event.await.ok()?.ok()??.event?;
        matches!(event, Event::Renewed(renewed) if renewed.nonce == nonce).then_some(())
    }

    pub async fn invalidated(&mut self) -> Invalidate {
        match self.event().await {
            Ok(Event::Invalidate(invalidate)) => invalidate,
            other => panic!("not invalidated: {other:?}"),
        }
    }

    pub async fn acknowledge(&self, round: u64) {
        self.send(SessionRequestKind::Acknowledge(Acknowledge { round }))
            .await;
    }

    pub async fn release(mut self) {
        self.send(SessionRequestKind::Release(Release {})).await;
        self.event().await.expect_err("the stream ends");
    }
}

/// Waits until the condition holds.
pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < SOON, "never came: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
