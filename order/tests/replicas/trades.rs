use tonic::Code;
use wire::catalog::v1::Refusal;
use wire::order::v1::place_many_response::answer::Result as Placed;

use crate::catalog::UNKNOWN_STOCK;
use crate::support::{Cluster, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledged_order_is_everywhere() {
    let cluster = Cluster::start(3).await;
    cluster.lead(3).await;
    let leader = cluster.seat(3);
    for number in 0..20 {
        assert_eq!(
            leader
                .place(&format!("key-{number}"), "meta")
                .await
                .unwrap(),
            Placed::Number(number)
        );
        cluster.in_sync_hold(number + 1);
    }
    cluster.all_equal().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_key_is_one_order_and_refusals_use_up_nothing() {
    let cluster = Cluster::start(1).await;
    cluster.lead(1).await;
    let leader = cluster.seat(1);
    assert_eq!(leader.place("a", "meta").await.unwrap(), Placed::Number(0));
    assert_eq!(leader.place("a", "meta").await.unwrap(), Placed::Number(0));
    assert_eq!(
        leader.place("a", "nike").await.unwrap(),
        Placed::Refusal(Refusal::KeyConflict.into())
    );
    assert_eq!(
        leader.place("b", UNKNOWN_STOCK).await.unwrap(),
        Placed::Refusal(Refusal::StockNotFound.into())
    );
    assert_eq!(leader.place("b", "meta").await.unwrap(), Placed::Number(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_at_once_get_numbers_without_gaps() {
    let cluster = Cluster::start(3).await;
    cluster.lead(3).await;
    let cluster = std::sync::Arc::new(cluster);
    let clients: Vec<_> = (0..16)
        .map(|client| {
            let cluster = std::sync::Arc::clone(&cluster);
            tokio::spawn(async move {
                let mut numbers = Vec::new();
                for n in 0..25 {
                    numbers.push(
                        cluster
                            .seat(3)
                            .place_until_answered(&format!("key-{client}-{n}"))
                            .await,
                    );
                }
                numbers
            })
        })
        .collect();
    let mut numbers = Vec::new();
    for client in clients {
        numbers.extend(client.await.unwrap());
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (0..400).collect::<Vec<_>>());
    cluster.all_equal().await;
    let calls = cluster.catalog.state().trade_calls;
    assert!(calls < 400, "{calls} batches for 400 orders of 16 clients");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_of_the_catalog_may_come_out_of_order() {
    let cluster = Cluster::start(2).await;
    cluster.lead(2).await;
    cluster.catalog.state().trade_delays_ms.insert(0, 400);
    let leader = cluster.seat(2);
    let (first, second) = tokio::join!(leader.place("a", "meta"), async {
        until("the first is committed", || async {
            cluster.catalog.state().trade_calls == 1
        })
        .await;
        let second = leader.place("b", "meta").await;
        assert_eq!(
            cluster.seat(1).ledger().len(),
            2,
            "the first was read from the journal"
        );
        second
    });
    assert_eq!(
        (first.unwrap(), second.unwrap()),
        (Placed::Number(0), Placed::Number(1))
    );
    cluster.all_equal().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_loses_no_order() {
    let cluster = Cluster::start(2).await;
    cluster.lead(2).await;
    cluster.catalog.state().loses_trade_answers = true;
    for key in ["a", "b"] {
        assert_eq!(
            cluster.seat(2).place(key, "meta").await.unwrap_err().code(),
            Code::Unavailable
        );
    }
    cluster.all_equal().await;
    assert_eq!(
        cluster.seat(2).ledger().len(),
        2,
        "although nobody asked again"
    );
    cluster.catalog.state().loses_trade_answers = false;
    assert_eq!(
        cluster.seat(2).place("b", "meta").await.unwrap(),
        Placed::Number(1)
    );
    assert_eq!(
        cluster.seat(2).place("c", "meta").await.unwrap(),
        Placed::Number(2)
    );
    cluster.all_equal().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_wait_for_a_catalog_that_is_slow() {
    let cluster = Cluster::start(2).await;
    cluster.lead(2).await;
    cluster.catalog.hang(true);
    let placing = async { cluster.seat(2).place("a", "meta").await.unwrap() };
    let healing = async {
        until("it is noticed", || async {
            !cluster.seat(2).status().await.reaches_catalog
        })
        .await;
        cluster.catalog.hang(false);
    };
    let (placed, ()) = tokio::join!(placing, healing);
    assert_eq!(placed, Placed::Number(0));
    until("it is noticed", || async {
        cluster.seat(2).status().await.reaches_catalog
    })
    .await;
}
