use std::sync::atomic::{AtomicUsize, Ordering};

use domain::{IdempotencyKey, Quantity, Side, StockName};
use rpc::connect::Security;
use rpc::failover::Endpoints;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Request, Response, Streaming};
use wire::order::v1::orders_server::{Orders, OrdersServer};
use wire::order::v1::place_many_response::Answer;
use wire::order::v1::{
    AnnounceRequest, GetRequest, GetResponse, ListRequest, ListResponse, PlaceManyResponse,
    ReplicaStatus, StatusRequest,
};

use super::*;
use crate::upstream::relay::Relay;

/// Ends the stream that brings an order for it.
const BREAKS: &str = "breaks";

/// An order for it is answered once this has passed.
const SLOW: (&str, Duration) = ("slow", Duration::from_millis(2_500));

/// Answers every order with its quantity, the last of a message first.
#[derive(Clone, Default)]
struct Replica {
    streams: Arc<AtomicUsize>,
    messages: Arc<AtomicUsize>,
}

impl Replica {
    /// Serves until the set is dropped.
    async fn serve(&self) -> (OrderStreams, JoinSet<()>) {
        let (url, serving) = self.listen().await;
        (at(&url), serving)
    }

    async fn listen(&self) -> (String, JoinSet<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = url_of(&listener);
        let server = Server::builder().add_service(OrdersServer::new(self.clone()));
        let mut serving = JoinSet::new();
        serving.spawn(async {
            let incoming = TcpIncoming::from(listener);
            server.serve_with_incoming(incoming).await.unwrap();
        });
        (url, serving)
    }
}

fn url_of(listener: &TcpListener) -> String {
    format!("http://{}", listener.local_addr().unwrap())
}

/// What places orders there.
fn at(url: &str) -> OrderStreams {
    let journal = Arc::new(OwnJournal::open(None).unwrap());
    OrderStreams::new(Endpoints::one(url, &Security::NONE).unwrap(), journal)
}

/// Whether there is an order for it in a message.
fn of(name: &str, message: &PlaceManyRequest) -> bool {
    let mut orders = message.placements.iter().flat_map(|it| &it.order);
    orders.any(|order| order.name == name)
}

fn answers(PlaceManyRequest { placements, .. }: PlaceManyRequest) -> Option<PlaceManyResponse> {
    let answer = |Placement { tag, order }| {
        let order = order.filter(|order| order.name != BREAKS)?;
        let result = Some(answer::Result::Number(order.quantity));
        Some(Answer { tag, result })
    };
    let answers = placements.into_iter().rev().map(answer);
    let answers = answers.collect::<Option<_>>()?;
    Some(PlaceManyResponse { answers })
}

#[tonic::async_trait]
impl Orders for Replica {
    type PlaceManyStream = ReceiverStream<Result<PlaceManyResponse, Status>>;

    async fn place_many(
        &self,
        request: Request<Streaming<PlaceManyRequest>>,
    ) -> Result<Response<Self::PlaceManyStream>, Status> {
        self.streams.fetch_add(1, Ordering::Relaxed);
        let messages = Arc::clone(&self.messages);
        let mut orders = request.into_inner();
        let (sender, stream) = mpsc::channel(1);
        tokio::spawn(async move {
            while let Ok(Some(message)) = orders.message().await {
                messages.fetch_add(1, Ordering::Relaxed);
                let is_slow = of(SLOW.0, &message);
                let Some(answers) = answers(message) else {
                    return;
                };
                let sender = sender.clone();
                tokio::spawn(async move {
                    if is_slow {
                        tokio::time::sleep(SLOW.1).await;
                    }
                    sender.send(Ok(answers)).await.unwrap();
                });
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn list(&self, _: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        Err(Status::unimplemented("not asked for here"))
    }

    async fn get(&self, _: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        Err(Status::unimplemented("not asked for here"))
    }

    async fn announce(
        &self,
        _: Request<AnnounceRequest>,
    ) -> Result<Response<ReplicaStatus>, Status> {
        Err(Status::unimplemented("not asked for here"))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<ReplicaStatus>, Status> {
        Err(Status::unimplemented("not asked for here"))
    }
}

fn order(name: &str, quantity: u64) -> domain::Order {
    domain::Order {
        key: IdempotencyKey::new(&format!("key-{quantity}")).unwrap(),
        name: StockName::new(name).unwrap(),
        side: Side::Sell,
        quantity: Quantity::new(quantity).unwrap(),
    }
}

async fn place(streams: &OrderStreams, order: &domain::Order) -> Result<answer::Result, Status> {
    streams.place(|| order.into(), Ok).await
}

/// Places orders of 1 to `count` shares at once, and checks that each gets its own answer.
async fn place_at_once(streams: &OrderStreams, count: u64) {
    let mut placed = JoinSet::new();
    for quantity in 1..=count {
        let streams = streams.clone();
        placed.spawn(async move {
            let answer = place(&streams, &order("meta", quantity)).await.unwrap();
            assert_eq!(answer, answer::Result::Number(quantity));
        });
    }
    while let Some(ended) = placed.join_next().await {
        ended.unwrap();
    }
}

#[tokio::test]
async fn orders_that_queue_go_in_one_message_and_each_gets_its_own_answer() {
    let replica = Replica::default();
    let (streams, _serving) = replica.serve().await;
    place_at_once(&streams, 50).await;
    assert_eq!(replica.messages.load(Ordering::Relaxed), 1);
    place_at_once(&streams, MESSAGE_ORDERS_MAX as u64 + 1).await;
    assert_eq!(replica.messages.load(Ordering::Relaxed), 3);
    assert_eq!(replica.streams.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn orders_on_a_stream_that_breaks_fail_and_the_next_has_another() {
    let replica = Replica::default();
    let (streams, _serving) = replica.serve().await;
    place_at_once(&streams, 1).await;
    let (broken, with_it) = (order(BREAKS, 1), order("meta", 2));
    let (broken, with_it) = tokio::join!(place(&streams, &broken), place(&streams, &with_it));
    for failed in [broken, with_it] {
        assert_eq!(failed.unwrap_err().code(), Code::Unavailable);
    }
    // The end may be noticed here a little later.
    while place(&streams, &order("meta", 3)).await.is_err() {}
    place_at_once(&streams, 20).await;
    assert_eq!(replica.streams.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn an_order_to_nobody_fails() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let streams = at(&url_of(&nobody));
    drop(nobody);
    let failed = place(&streams, &order("meta", 1)).await.unwrap_err();
    assert_eq!(failed.code(), Code::Unavailable);
}

/// Without another connection it would take 4 s, until the first is found out by the probes of HTTP/2.
#[tokio::test]
async fn an_order_on_a_connection_that_is_dead_gets_through_on_another() {
    let replica = Replica::default();
    let (url, _serving) = replica.listen().await;
    let relay = Relay::to(&url).await;
    let streams = at(&relay.url);
    place_at_once(&streams, 3).await;
    relay.kill_connections();
    let placed = tokio::time::timeout(TRADE_ATTEMPT_TIME_MAX * 3, place_at_once(&streams, 3));
    placed.await.expect("it is soon placed elsewhere");
    assert_eq!(relay.connections(), 2); // for all
}

#[tokio::test]
async fn a_slow_order_is_placed_once_while_others_are_answered_and_its_first_answer_counts() {
    let replica = Replica::default();
    let (streams, _serving) = replica.serve().await;
    let slow = order(SLOW.0, 7);
    let mut others = 0;
    let placed = {
        let placing = place(&streams, &slow);
        tokio::pin!(placing);
        loop {
            tokio::select! {
                placed = &mut placing => break placed,
                () = tokio::time::sleep(Duration::from_millis(20)) => {}
            }
            place_at_once(&streams, 1).await;
            others += 1;
        }
    };
    assert_eq!(placed.unwrap(), answer::Result::Number(7));
    assert_eq!(replica.messages.load(Ordering::Relaxed), 1 + others);
    assert_eq!(replica.streams.load(Ordering::Relaxed), 1);

    // Nothing else comes back: another stream has it as well, and the first is answered first.
    let began = std::time::Instant::now();
    let placed = place(&streams, &slow).await;
    assert_eq!(placed.unwrap(), answer::Result::Number(7));
    let late = SLOW.1 + TRADE_ATTEMPT_TIME_MAX;
    assert!(began.elapsed() < late, "{:?}", began.elapsed());
    assert_eq!(replica.streams.load(Ordering::Relaxed), 2);
    // The first stream has ended by itself, and the second takes what comes next.
    place_at_once(&streams, 1).await;
    assert_eq!(replica.streams.load(Ordering::Relaxed), 2);
}
