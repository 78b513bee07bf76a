use tonic::Code;
use wire::order::v1::Role;
use wire::order::v1::place_many_response::answer::Result as Placed;

use crate::support::{Cluster, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_active_leader_takes_orders() {
    let cluster = Cluster::start(2).await;
    assert_eq!(
        cluster.seat(1).place("a", "meta").await.unwrap_err().code(),
        Code::Unavailable
    );
    cluster.lead(2).await;
    assert_eq!(
        cluster.seat(1).place("a", "meta").await.unwrap_err().code(),
        Code::Unavailable
    );
    assert_eq!(
        cluster.seat(2).place("a", "meta").await.unwrap(),
        Placed::Number(0)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_leader_goes_on_where_the_old_one_was() {
    let mut cluster = Cluster::start(3).await;
    let first = cluster.lead(3).await;
    cluster.seat(3).place("a", "meta").await.unwrap();
    cluster.stop(3).await;
    cluster.lead(2).await;
    assert_eq!(
        cluster.seat(2).place("a", "meta").await.unwrap(),
        Placed::Number(0)
    );
    assert_eq!(
        cluster.seat(2).place("b", "meta").await.unwrap(),
        Placed::Number(1)
    );
    assert_eq!(
        cluster.seat(2).announce(first, 3).await.unwrap_err().code(),
        Code::FailedPrecondition
    );
    cluster.run(3).await;
    cluster.all_in_sync().await;
    cluster.seat(2).place("c", "meta").await.unwrap();
    cluster.all_equal().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_leader_first_fetches_what_was_committed_without_it() {
    let cluster = Cluster::start(2).await;
    cluster.lead(2).await;
    cluster.seat(2).place("a", "meta").await.unwrap();
    cluster.catalog.commit_behind_the_back(3);
    cluster.lead(1).await;
    assert_eq!(
        cluster.seat(1).place("b", "meta").await.unwrap(),
        Placed::Number(4)
    );
    cluster.all_equal().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stale_leader_is_fenced() {
    let cluster = Cluster::start(2).await;
    cluster.lead(2).await;
    cluster.seat(2).place("a", "meta").await.unwrap();
    // Replica 2 is not told.
    let epoch = cluster.catalog.elect(1);
    assert_eq!(
        cluster.seat(2).place("b", "meta").await.unwrap_err().code(),
        Code::Unavailable
    );
    assert_eq!(cluster.catalog.state().rows.len(), 1);
    until("it has stepped down", || async {
        cluster.seat(2).status().await.role() == Role::Follower
    })
    .await;
    cluster.seat(1).announce(epoch, 1).await.unwrap();
    assert_eq!(cluster.seat(1).place_until_answered("b").await, 1);
    let stale = cluster.seat(1).append(epoch - 1, 2, &[]).await.unwrap_err();
    assert_eq!(stale.code(), Code::FailedPrecondition);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_leader_refuses_to_lead_the_same_epoch_again() {
    let mut cluster = Cluster::start(2).await;
    let epoch = cluster.lead(2).await;
    cluster.seat(2).place("a", "meta").await.unwrap();
    cluster.stop(2).await;
    cluster.run(2).await;
    assert_eq!(cluster.seat(2).status().await.epoch, epoch);
    assert_eq!(
        cluster.seat(2).announce(epoch, 2).await.unwrap_err().code(),
        Code::FailedPrecondition
    );
    assert_eq!(
        cluster.seat(2).place("b", "meta").await.unwrap_err().code(),
        Code::Unavailable
    );
    cluster.lead(2).await;
    assert_eq!(
        cluster.seat(2).place("b", "meta").await.unwrap(),
        Placed::Number(1)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_replica_of_three_is_enough() {
    let mut cluster = Cluster::stopped(3).await;
    cluster.run(1).await;
    cluster.lead(1).await;
    for number in 0..3 {
        assert_eq!(
            cluster
                .seat(1)
                .place(&format!("key-{number}"), "meta")
                .await
                .unwrap(),
            Placed::Number(number)
        );
    }
    assert_eq!(cluster.seat(1).get(2).await.unwrap().number.0, 2);
    cluster.run(2).await;
    cluster.run(3).await;
    cluster.all_in_sync().await;
    cluster.all_equal().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_goes_round_under_load() {
    let cluster = Cluster::start(3).await;
    let mut placed = 0;
    for round in 0..6 {
        let leader = 1 + round % 3;
        cluster.elect(leader).await;
        for _ in 0..5 {
            assert_eq!(
                cluster
                    .seat(leader)
                    .place_until_answered(&format!("key-{placed}"))
                    .await,
                placed
            );
            placed += 1;
        }
    }
    cluster.all_in_sync().await;
    cluster.all_equal().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_directory_serves_one_replica() {
    let cluster = Cluster::start(1).await;
    let id = domain::ReplicaId::new(7).unwrap();
    let data_dir = cluster.seat(1).data_dir.path().to_owned();
    let config = order::Config {
        id,
        catalogs: vec![cluster.catalog.url()],
        peers: Vec::new(),
        data_dir,
        rebuild: false,
        archive_after: None,
        cluster: None,
        monitor: Default::default(),
        traces: Default::default(),
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let refused = order::run(config, listener, std::future::pending()).await;
    assert!(
        matches!(refused, Err(order::Error::Storage(_))),
        "{refused:?}"
    );
}
