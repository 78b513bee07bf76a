//! Replicas on loopback around a catalog in memory.

use rpc::connect::Security;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use domain::{IdempotencyKey, Order, Quantity, ReplicaId, Row, Side, StockName};
use order::Config;
use order::inspect::Ledger;
use rpc::listen::Limits;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use tonic::{Code, Status};
use wire::order::v1::orders_client::OrdersClient;
use wire::order::v1::place_many_request::Placement;
use wire::order::v1::place_many_response::answer::Result as Placed;
use wire::order::v1::replication_client::ReplicationClient;
use wire::order::v1::{
    AnnounceRequest, AppendRequest, AppendResponse, GetRequest, PlaceManyRequest, ReplicaStatus,
    Role, StatusRequest,
};

use crate::catalog::{FakeCatalog, JOURNAL};

/// Longest wait for anything that must come about.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The journal that requests name.
pub fn journal() -> Vec<u8> {
    JOURNAL.as_bytes().to_vec()
}

/// A sell order of one share.
pub fn order(key: &str, name: &str) -> Order {
    Order {
        key: IdempotencyKey::new(key).unwrap(),
        name: StockName::new(name).unwrap(),
        side: Side::Sell,
        quantity: Quantity::new(1).unwrap(),
    }
}

/// One replica: its place on disk and on the network stays when it stops.
pub struct Seat {
    pub id: u32,
    address: SocketAddr,
    pub data_dir: TempDir,
    running: Option<Running>,
    pub channel: Channel,
}

struct Running {
    stop: oneshot::Sender<()>,
    run: JoinHandle<Result<(), order::Error>>,
}

/// Ports are taken from here on. All are below what Linux gives to outgoing connections, so that
/// the port of a replica that stopped is still free when it comes back.
const FIRST_PORT: u16 = 12_000;
const PORTS: u16 = 4_000;

/// A loopback address that nobody listens on, and that no other test here is given.
async fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let offset = (std::process::id() % u32::from(PORTS)) as u16;
    loop {
        let port = FIRST_PORT + (offset + NEXT.fetch_add(1, Ordering::Relaxed) % PORTS) % PORTS;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).await.is_ok() {
            return address;
        }
    }
}

pub struct Cluster {
    pub catalog: FakeCatalog,
    /// What replicas that are started let in.
    pub limits: Limits,
    seats: Vec<Seat>,
}

impl Cluster {
    /// So many replicas, all running, without a leader.
    pub async fn start(replicas: u32) -> Self {
        let mut cluster = Self::stopped(replicas).await;
        for id in 1..=replicas {
            cluster.run(id).await;
        }
        cluster
    }

    /// So many replicas, none running.
    pub async fn stopped(replicas: u32) -> Self {
        let catalog = FakeCatalog::start().await;
        let mut seats = Vec::new();
        for id in 1..=replicas {
            let address = free_address().await;
            let channel =
                rpc::connect::lazy(&format!("http://{address}"), &Security::NONE).unwrap();
            seats.push(Seat {
                id,
                address,
                data_dir: tempfile::tempdir().unwrap(),
                running: None,
                channel,
            });
        }
        Self {
            catalog,
            limits: Limits::default(),
            seats,
        }
    }

    pub fn seat(&self, id: u32) -> &Seat {
        &self.seats[id as usize - 1]
    }

    pub async fn run(&mut self, id: u32) {
        self.begin(id, false).await;
        self.seat(id).status().await;
    }

    /// Has its ledger copied anew where it is not to be believed.
    pub async fn rebuild(&mut self, id: u32) {
        self.begin(id, true).await;
        self.seat(id).status().await;
    }

    /// Starts a replica that must end by itself, and says why it did.
    pub async fn refused(&mut self, id: u32) -> String {
        self.begin(id, false).await;
        let Running { run, stop } = self.seats[id as usize - 1].running.take().unwrap();
        let ended = tokio::time::timeout(PATIENCE, run).await;
        drop(stop);
        let ended = ended.expect("it ends by itself").unwrap();
        ended.unwrap_err().to_string()
    }

    pub async fn begin(&mut self, id: u32, rebuild: bool) {
        let peers = self.seats.iter().filter(|seat| seat.id != id);
        let peers = peers
            .map(|seat| {
                (
                    ReplicaId::new(seat.id).unwrap(),
                    format!("http://{}", seat.address),
                )
            })
            .collect();
        let catalog = self.catalog.url();
        let seat = &mut self.seats[id as usize - 1];
        let config = Config {
            id: ReplicaId::new(id).unwrap(),
            catalogs: vec![catalog],
            peers,
            data_dir: seat.data_dir.path().to_owned(),
            rebuild,
            archive_after: None,
            cluster: None,
            monitor: Default::default(),
            traces: Default::default(),
        };
        let listener = TcpListener::bind(seat.address).await.unwrap();
        let (stop, stopped) = oneshot::channel();
        let shutdown = async {
            let _ = stopped.await;
        };
        let run = tokio::spawn(order::run(config, (listener, self.limits), shutdown));
        seat.running = Some(Running { stop, run });
    }

    pub async fn stop(&mut self, id: u32) {
        let Running { stop, run } = self.seats[id as usize - 1].running.take().unwrap();
        drop(stop);
        tokio::time::timeout(PATIENCE, run)
            .await
            .expect("a replica stops in time")
            .unwrap()
            .unwrap();
    }

    /// Stops a replica and listens in its place without ever answering.
    pub async fn replace_by_silence(&mut self, id: u32) -> TcpListener {
        self.stop(id).await;
        TcpListener::bind(self.seat(id).address).await.unwrap()
    }

    /// A connection of its own to a replica.
    pub fn another_channel(&self, id: u32) -> Channel {
        rpc::connect::lazy(
            &format!("http://{}", self.seat(id).address),
            &Security::NONE,
        )
        .unwrap()
    }

    /// Elects and announces to all that run.
    pub async fn elect(&self, leader: u32) -> u64 {
        let epoch = self.catalog.elect(leader);
        for seat in self.seats.iter().filter(|seat| seat.running.is_some()) {
            seat.announce(epoch, leader).await.unwrap();
        }
        epoch
    }

    /// Elects and waits until the leader takes orders and all that run are in sync.
    pub async fn lead(&self, leader: u32) -> u64 {
        let epoch = self.elect(leader).await;
        let seat = self.seat(leader);
        until("the leader is active", || async {
            seat.status().await.role() == Role::Leader
        })
        .await;
        self.all_in_sync().await;
        epoch
    }

    pub async fn all_in_sync(&self) {
        let running: Vec<u32> = self
            .seats
            .iter()
            .filter(|seat| seat.running.is_some())
            .map(|seat| seat.id)
            .collect();
        until("all are in sync", || async {
            self.catalog.state().in_sync == running
        })
        .await;
    }

    /// Checks that those whom the catalog believes in sync hold so many orders.
    pub fn in_sync_hold(&self, orders: u64) {
        let in_sync = self.catalog.state().in_sync.clone();
        for id in in_sync {
            assert!(
                self.seat(id).ledger().len() as u64 >= orders,
                "replica {id}"
            );
        }
    }

    /// Waits until all that run hold the whole journal, and checks it row by row.
    pub async fn all_equal(&self) {
        let journal = self.catalog.state().rows.clone();
        for seat in self.seats.iter().filter(|seat| seat.running.is_some()) {
            let complete = || async { seat.status().await.rows == journal.len() as u64 };
            until("a replica is complete", complete).await;
            assert_eq!(seat.ledger(), journal, "replica {}", seat.id);
        }
    }
}

impl Seat {
    fn orders(&self) -> OrdersClient<Channel> {
        OrdersClient::new(self.channel.clone())
    }

    /// Waits until the replica answers.
    pub async fn status(&self) -> ReplicaStatus {
        let since = Instant::now();
        loop {
            match self.orders().status(StatusRequest {}).await {
                Ok(status) => return status.into_inner(),
                Err(error) => assert!(
                    since.elapsed() < PATIENCE,
                    "replica {} does not answer: {error}",
                    self.id
                ),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub async fn announce(&self, epoch: u64, leader: u32) -> Result<ReplicaStatus, Status> {
        Ok(self
            .orders()
            .announce(AnnounceRequest {
                epoch,
                leader,
                journal: journal(),
            })
            .await?
            .into_inner())
    }

    /// Places one order, over a stream of its own.
    pub async fn place(&self, key: &str, name: &str) -> Result<Placed, Status> {
        place(&mut self.orders(), order(key, name), journal()).await
    }

    /// Places as a gateway does: under the same key until there is an answer.
    pub async fn place_until_answered(&self, key: &str) -> u64 {
        let since = Instant::now();
        loop {
            match self.place(key, "meta").await {
                Ok(Placed::Number(number)) => return number,
                Ok(refused) => panic!("{key}: {refused:?}"),
                Err(error) if error.code() == Code::Unavailable => {
                    assert!(since.elapsed() < PATIENCE, "{key}: {error}");
                }
                Err(error) => panic!("{key}: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub async fn get(&self, number: u64) -> Result<Row, Status> {
        let row = self
            .orders()
            .get(GetRequest {
                number,
                journal: journal(),
            })
            .await?
            .into_inner()
            .row
            .unwrap();
        Ok(Row::try_from(row).unwrap())
    }

    pub async fn append(
        &self,
        epoch: u64,
        leader: u32,
        rows: &[Row],
    ) -> Result<AppendResponse, Status> {
        let request = AppendRequest {
            epoch,
            leader,
            rows: rows.iter().map(Into::into).collect(),
            committed: rows.last().map_or(0, |last| last.number.0 + 1),
            traced: Vec::new(),
            journal: journal(),
        };
        append(&mut ReplicationClient::new(self.channel.clone()), request).await
    }

    /// What is on its disk.
    pub fn ledger(&self) -> Vec<Row> {
        Ledger::open(self.data_dir.path())
            .unwrap()
            .held()
            .collect::<Result<_, _>>()
            .unwrap()
    }
}

/// Places one order over a stream of its own, to its answer.
pub async fn place(
    orders: &mut OrdersClient<Channel>,
    order: Order,
    journal: Vec<u8>,
) -> Result<Placed, Status> {
    let placement = Placement {
        tag: 0,
        order: Some((&order).into()),
    };
    let message = PlaceManyRequest {
        placements: vec![placement],
        journal,
    };
    let answers = orders.place_many(tokio_stream::iter([message])).await?;
    let answered = answers.into_inner().message().await?;
    let answered = answered.ok_or_else(|| Status::unavailable(ENDED))?;
    let [answer] = <[_; 1]>::try_from(answered.answers).expect("one answer to one order");
    match answer.result.expect("an answer says something") {
        Placed::Unavailable(why) => Err(Status::unavailable(why)),
        Placed::Invalid(why) => Err(Status::invalid_argument(why)),
        placed => Ok(placed),
    }
}

/// Makes one append over a stream of its own.
pub async fn append(
    replication: &mut ReplicationClient<Channel>,
    request: AppendRequest,
) -> Result<AppendResponse, Status> {
    let answers = replication
        .append_many(tokio_stream::iter([request]))
        .await?;
    let appended = answers.into_inner().message().await?;
    appended.ok_or_else(|| Status::unavailable(ENDED))
}

/// What a stream that the replica has ended is taken for.
pub const ENDED: &str = "the stream ended";

/// Waits for a condition.
pub async fn until<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let since = Instant::now();
    while !condition().await {
        assert!(since.elapsed() < PATIENCE, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
