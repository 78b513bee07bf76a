//! Orders that are placed over a stream.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use domain::{
    ChainHash, Epoch, IdempotencyKey, LedgerEnd, Note, Price, Quantity, Row, RowNumber,
    StockChange, StockChangeKind, StockName,
};
use order::order_stream::MESSAGE_ORDERS_MAX;
use order_core::followers::APPEND_ROWS_MAX;
use order_core::message::Unavailable;
use rpc::listen::MESSAGE_BYTES_MAX;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};
use wire::catalog::v1::{JournalRow, Refusal};
use wire::order::v1::orders_client::OrdersClient;
use wire::order::v1::place_many_request::Placement;
use wire::order::v1::place_many_response::answer::Result as Answered;
use wire::order::v1::replication_client::ReplicationClient;
use wire::order::v1::{AppendRequest, ListRequest, PlaceManyRequest};

use crate::catalog::UNKNOWN_STOCK;
use crate::support::{self, Cluster, ENDED, PATIENCE, Seat, journal, order, until};

/// A stream of orders to a replica.
struct Stream {
    orders: mpsc::Sender<PlaceManyRequest>,
    answers: Streaming<wire::order::v1::PlaceManyResponse>,
}

impl Stream {
    async fn open(seat: &Seat) -> Self {
        Self::over(seat.channel.clone()).await
    }

    async fn over(channel: Channel) -> Self {
        let (orders, messages) = mpsc::channel(16);
        let mut client = OrdersClient::new(channel);
        let answers = client.place_many(ReceiverStream::new(messages)).await;
        Self {
            orders,
            answers: answers.unwrap().into_inner(),
        }
    }

    /// Sends orders for stocks in one message; their keys are their tags.
    async fn send(&self, orders: impl IntoIterator<Item = (u64, &str)>) {
        let placement = |(tag, name): (u64, &str)| Placement {
            tag,
            order: Some((&order(&format!("key-{tag}"), name)).into()),
        };
        let placements = orders.into_iter().map(placement).collect();
        let message = PlaceManyRequest {
            placements,
            journal: journal(),
        };
        self.orders.send(message).await.unwrap();
    }

    /// The next so many answers, by tag.
    async fn answers(&mut self, count: usize) -> Result<BTreeMap<u64, Answered>, Status> {
        let mut found = BTreeMap::new();
        while found.len() < count {
            let message = tokio::time::timeout(PATIENCE, self.answers.message()).await;
            let Some(message) = message.expect("an answer in time")? else {
                return Err(Status::unavailable(ENDED));
            };
            for answer in message.answers {
                let before = found.insert(answer.tag, answer.result.unwrap());
                assert_eq!(before, None, "one answer for each order");
            }
        }
        Ok(found)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_order_of_a_message_gets_its_own_answer() {
    let cluster = Cluster::start(2).await;
    cluster.lead(2).await;
    let mut stream = Stream::open(cluster.seat(2)).await;
    stream.send([(7, "meta"), (8, UNKNOWN_STOCK)]).await;
    let no_order = Placement {
        tag: 9,
        order: None,
    };
    let placements = vec![no_order];
    stream
        .orders
        .send(PlaceManyRequest {
            placements,
            journal: journal(),
        })
        .await
        .unwrap();
    let answers = stream.answers(3).await.unwrap();
    assert_eq!(answers[&7], Answered::Number(0));
    assert_eq!(
        answers[&8],
        Answered::Refusal(Refusal::StockNotFound.into())
    );
    assert!(matches!(&answers[&9], Answered::Invalid(why) if why.contains("order")));
    // Under the key of an order that is there: its number.
    stream.send([(7, "meta"), (10, "meta")]).await;
    let answers = stream.answers(2).await.unwrap();
    assert_eq!(
        answers,
        BTreeMap::from([(7, Answered::Number(0)), (10, Answered::Number(1))])
    );
    let mut to_follower = Stream::open(cluster.seat(1)).await;
    to_follower.send([(11, "meta")]).await;
    let answers = to_follower.answers(1).await.unwrap();
    assert!(matches!(answers[&11], Answered::Unavailable(_)));
    cluster.all_equal().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_orders_than_a_stream_may_have_under_way_wait_their_turn() {
    let cluster = Cluster::start(1).await;
    cluster.lead(1).await;
    let mut stream = Stream::open(cluster.seat(1)).await;
    cluster.catalog.hang(true);
    for message in 0..6 {
        let tags = message * 1024..(message + 1) * 1024;
        stream.send(tags.map(|tag| (tag, "meta"))).await;
    }
    cluster.catalog.hang(false);
    let answers = stream.answers(6 * 1024).await.unwrap();
    let mut numbers: Vec<_> = answers
        .values()
        .map(|answer| match answer {
            Answered::Number(number) => *number,
            other => panic!("{other:?}"),
        })
        .collect();
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(0..6 * 1024));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_has_a_bound() {
    let cluster = Cluster::start(1).await;
    cluster.lead(1).await;
    let mut stream = Stream::open(cluster.seat(1)).await;
    stream.send((0..1025).map(|tag| (tag, "meta"))).await;
    let refused = stream.answers(1).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(
        cluster.seat(1).place("a", "meta").await.unwrap(),
        Answered::Number(0)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_stops_answers_what_it_has_and_ends_the_stream() {
    let mut cluster = Cluster::start(1).await;
    cluster.lead(1).await;
    let mut stream = Stream::open(cluster.seat(1)).await;
    cluster.catalog.state().trade_delays_ms.insert(0, 200);
    stream.send([(1, "meta")]).await;
    until("the order is at the catalog", || async {
        cluster.catalog.state().trade_calls == 1
    })
    .await;
    cluster.stop(1).await;
    assert_eq!(stream.answers(1).await.unwrap()[&1], Answered::Number(0));
    let ended = stream.answers(1).await.unwrap_err();
    assert_eq!(ended.message(), ENDED, "it was not cut off");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_without_orders_is_idle_and_one_whose_orders_wait_is_not() {
    let mut cluster = Cluster::stopped(1).await;
    cluster.limits.idle_max = Duration::from_secs(1);
    cluster.run(1).await;
    cluster.lead(1).await;
    let mut stream = Stream::open(cluster.seat(1)).await;
    cluster.catalog.hang(true);
    stream.send([(1, "meta")]).await;
    tokio::time::sleep(2 * cluster.limits.idle_max).await;
    let waited = Instant::now();
    cluster.catalog.hang(false);
    assert_eq!(stream.answers(1).await.unwrap()[&1], Answered::Number(0));
    stream.answers(1).await.expect_err("it is cut off");
    assert!(waited.elapsed() >= cluster.limits.idle_max);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_client_with_very_many_orders_leaves_room_for_those_of_others() {
    /// More than may wait for answers, of all clients together.
    const STREAMS: u64 = 20;
    let cluster = Cluster::start(1).await;
    cluster.lead(1).await;
    cluster.catalog.hang(true);
    let channel = cluster.another_channel(1);
    let mut streams = Vec::new();
    for number in 0..STREAMS {
        let stream = Stream::over(channel.clone()).await;
        let tags = number * 1024..(number + 1) * 1024;
        stream.send(tags.map(|tag| (tag, "meta"))).await;
        streams.push(stream);
    }
    let other = Stream::over(cluster.another_channel(1)).await;
    other.send([(u64::MAX, "meta")]).await;
    streams.push(other);
    // All that would be taken in is by then, on any machine that runs at all.
    tokio::time::sleep(Duration::from_secs(2)).await;
    for stream in &mut streams {
        // The catalog answers nobody: an answer is a refusal.
        let answer = tokio::time::timeout(Duration::from_millis(10), stream.answers(1)).await;
        let answers = answer.map_or_else(|_| BTreeMap::new(), Result::unwrap);
        assert!(!answers.values().any(is_overloaded), "{answers:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lists_of_one_client_wait_for_each_other_and_hold_up_nobody_elses() {
    const LISTS: usize = 60;
    let cluster = Cluster::start(1).await;
    cluster.lead(1).await;
    let mut stream = Stream::open(cluster.seat(1)).await;
    for message in 0..3 {
        let tags = message * 1024..(message + 1) * 1024;
        stream.send(tags.map(|tag| (tag, "meta"))).await;
    }
    stream.answers(3 * 1024).await.unwrap();
    // Each reads all of it, in several turns.
    let list = |channel: Channel| async move {
        let request = ListRequest {
            from: 0,
            limit: 1,
            stock: "nike".to_owned(),
            may_lag: true,
            journal: journal(),
        };
        let listed = OrdersClient::new(channel).list(request).await.unwrap();
        assert!(listed.into_inner().orders.is_empty());
    };
    let (one, other) = (cluster.another_channel(1), cluster.another_channel(1));
    for channel in [&one, &other] {
        list(channel.clone()).await; // it is connected
    }
    let done = Arc::new(AtomicUsize::new(0));
    let lists: Vec<_> = (0..LISTS)
        .map(|_| {
            let (asked, done) = (list(one.clone()), Arc::clone(&done));
            tokio::spawn(async move {
                asked.await;
                done.fetch_add(1, Ordering::Relaxed);
            })
        })
        .collect();
    for _ in 0..3 {
        list(other.clone()).await;
    }
    let before = done.load(Ordering::Relaxed);
    assert!(before < LISTS / 2, "{before} of one client's came first");
    for list in lists {
        list.await.unwrap();
    }
}

fn is_overloaded(answer: &Answered) -> bool {
    matches!(answer, Answered::Unavailable(why) if *why == Unavailable::Overloaded.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_largest_messages_that_there_are_fit_and_larger_ones_are_refused() {
    const LAST: u64 = i64::MAX as u64 - 1;
    let name = "n".repeat(StockName::BYTES_MAX);
    let key = |number: usize| format!("{number:0>width$}", width = IdempotencyKey::BYTES_MAX);
    let (who, why) = (
        "w".repeat(Note::WHO_BYTES_MAX),
        "y".repeat(Note::WHY_BYTES_MAX),
    );
    let price = Price::from_minor((1 << 53) - 1).unwrap();
    // Larger than any order.
    let change = |number| StockChange {
        key: IdempotencyKey::new(&key(number)).unwrap(),
        name: StockName::new(&name).unwrap(),
        kind: StockChangeKind::Add {
            price,
            quantity: Quantity::MAX,
        },
        note: Note::new(&who, &why),
    };
    let row = |number| {
        let end = LedgerEnd {
            rows: RowNumber(LAST),
            stock_changes: LAST,
            chain: ChainHash::EMPTY,
        };
        let row = Row::following(&end, Epoch(LAST), change(number), price);
        JournalRow::from(&row)
    };
    let placement = |number| Placement {
        tag: number as u64,
        order: Some((&change(number)).into()),
    };
    let append = |journal| AppendRequest {
        epoch: 9,
        leader: u32::MAX,
        rows: (0..APPEND_ROWS_MAX).map(row).collect(),
        committed: LAST,
        traced: Vec::new(),
        journal,
    };
    let cluster = Cluster::start(1).await;
    cluster.lead(1).await;
    let mut stream = Stream::open(cluster.seat(1)).await;
    let placements = (0..MESSAGE_ORDERS_MAX).map(placement).collect();
    let message = PlaceManyRequest {
        placements,
        journal: journal(),
    };
    stream.orders.send(message).await.unwrap();
    stream.answers(MESSAGE_ORDERS_MAX).await.unwrap();

    let mut client = ReplicationClient::new(cluster.seat(1).channel.clone());
    let fits = support::append(&mut client, append(journal()))
        .await
        .unwrap_err();
    assert_eq!(fits.code(), Code::Aborted, "there is no such epoch: {fits}");
    let too_large = support::append(&mut client, append(vec![0; MESSAGE_BYTES_MAX])).await;
    let refused = too_large.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
}
