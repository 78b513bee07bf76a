use tonic::Code;

use crate::support::Cluster;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_replica_gives_every_order() {
    let cluster = Cluster::start(3).await;
    cluster.lead(3).await;
    cluster.seat(3).place("a", "meta").await.unwrap();
    for id in 1..=3 {
        let row = cluster.seat(id).get(0).await.unwrap();
        assert_eq!(row, cluster.catalog.state().rows[0]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_miss_is_looked_up_in_the_journal() {
    let cluster = Cluster::start(1).await;
    cluster.catalog.commit_behind_the_back(3);
    assert_eq!(
        cluster.seat(1).get(2).await.unwrap(),
        cluster.catalog.state().rows[2]
    );
    // What it heard of it fetches.
    cluster.all_equal().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn not_found_is_confirmed_by_the_catalog() {
    let cluster = Cluster::start(1).await;
    cluster.catalog.commit_behind_the_back(1);
    for number in [1, 1 << 40, u64::MAX] {
        assert_eq!(
            cluster.seat(1).get(number).await.unwrap_err().code(),
            Code::NotFound,
            "{number}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_catalog_that_has_not_checked_the_ledgers_denies_nothing() {
    let cluster = Cluster::start(1).await;
    cluster.catalog.commit_behind_the_back(1);
    cluster.catalog.state().restarted = true;
    cluster.seat(1).get(0).await.unwrap();
    let denied = cluster.seat(1).get(1).await.unwrap_err();
    assert_eq!(denied.code(), Code::Unavailable, "{denied}");
    cluster.catalog.state().restarted = false;
    let denied = cluster.seat(1).get(1).await.unwrap_err();
    assert_eq!(denied.code(), Code::NotFound, "{denied}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_catalog_a_hit_is_right_and_a_miss_is_not_denied() {
    let cluster = Cluster::start(1).await;
    cluster.catalog.commit_behind_the_back(1);
    cluster.all_equal().await;
    cluster.catalog.hang(true);
    assert_eq!(
        cluster.seat(1).get(0).await.unwrap(),
        cluster.catalog.state().rows[0]
    );
    assert_eq!(
        cluster.seat(1).get(1).await.unwrap_err().code(),
        Code::Unavailable
    );
    cluster.catalog.hang(false);
    assert_eq!(
        cluster.seat(1).get(1).await.unwrap_err().code(),
        Code::NotFound
    );
}
