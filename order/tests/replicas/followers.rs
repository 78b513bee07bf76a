use tonic::Code;
use wire::order::v1::Role;
use wire::order::v1::place_many_response::answer::Result as Placed;

use crate::support::{Cluster, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_follower_is_removed_and_taken_back() {
    let mut cluster = Cluster::start(3).await;
    cluster.lead(3).await;
    cluster.seat(3).place("a", "meta").await.unwrap();
    cluster.stop(1).await;
    assert_eq!(
        cluster.seat(3).place("b", "meta").await.unwrap(),
        Placed::Number(1)
    );
    let in_sync = cluster.catalog.state().in_sync.clone();
    assert!(
        !in_sync.contains(&1),
        "removed before anything was acknowledged without it: {in_sync:?}"
    );
    cluster.run(1).await;
    cluster.all_in_sync().await;
    assert_eq!(
        cluster.seat(3).place("c", "meta").await.unwrap(),
        Placed::Number(2)
    );
    cluster.in_sync_hold(3);
    cluster.all_equal().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_hangs_is_removed() {
    let mut cluster = Cluster::start(2).await;
    cluster.lead(2).await;
    // Takes connections and answers nothing.
    let _silent = cluster.replace_by_silence(1).await;
    assert_eq!(
        cluster.seat(2).place("a", "meta").await.unwrap(),
        Placed::Number(0)
    );
    assert_eq!(cluster.catalog.state().in_sync, [2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_acknowledged_without_a_follower_until_its_removal_is_confirmed() {
    let mut cluster = Cluster::start(2).await;
    cluster.lead(2).await;
    cluster.catalog.state().refuses_in_sync_changes = true;
    cluster.stop(1).await;
    let placing = async { cluster.seat(2).place("a", "meta").await.unwrap() };
    let healing = async {
        until("the leader holds the order", || async {
            cluster.seat(2).status().await.rows == 1
        })
        .await;
        until("it asks again and again", || async {
            cluster.catalog.state().in_sync_changes_refused >= 3
        })
        .await;
        cluster.catalog.state().refuses_in_sync_changes = false;
    };
    tokio::pin!(placing);
    tokio::select! {
        biased;
        placed = &mut placing => panic!("acknowledged too early: {placed:?}"),
        () = healing => {}
    }
    assert_eq!(placing.await, Placed::Number(0));
    assert_eq!(cluster.catalog.state().in_sync, [2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_the_catalog_gets_late_does_not_bring_a_follower_back() {
    let mut cluster = Cluster::stopped(2).await;
    cluster.run(2).await;
    cluster.lead(2).await;
    cluster.catalog.state().delays_in_sync_changes = true;
    cluster.run(1).await;
    until("the leader asks to add the follower", || async {
        !cluster.catalog.state().in_sync_changes_delayed.is_empty()
    })
    .await;
    cluster.stop(1).await;
    cluster.catalog.state().delays_in_sync_changes = false;
    let seat = cluster.seat(2);
    assert_eq!(seat.place("a", "meta").await.unwrap(), Placed::Number(0));
    assert_eq!(cluster.catalog.state().in_sync, [2]);

    let made = cluster.catalog.state().make_delayed_changes();
    assert!(made.iter().all(Result::is_err), "{made:?}");
    assert_eq!(cluster.catalog.state().in_sync, [2]);
    cluster.in_sync_hold(1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_is_refused_as_overtaken_is_asked_for_again_and_ends_no_leadership() {
    let mut cluster = Cluster::start(2).await;
    let epoch = cluster.lead(2).await;
    cluster.catalog.state().change += 3; // more were made than the leader knows of
    cluster.stop(1).await;
    let seat = cluster.seat(2);
    assert_eq!(seat.place("a", "meta").await.unwrap(), Placed::Number(0));
    assert_eq!(cluster.catalog.state().in_sync, [2]);
    assert_eq!(cluster.catalog.state().in_sync_changes_refused, 3);
    let status = seat.status().await;
    assert_eq!((status.role(), status.epoch), (Role::Leader, epoch));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_rejoins_from_nothing() {
    let mut cluster = Cluster::stopped(3).await;
    cluster.catalog.commit_behind_the_back(10_000);
    cluster.run(1).await;
    cluster.run(2).await;
    cluster.all_equal().await;
    cluster.lead(2).await;
    cluster.seat(2).place("a", "meta").await.unwrap();
    cluster.run(3).await;
    cluster.all_in_sync().await;
    cluster.seat(2).place("b", "meta").await.unwrap();
    cluster.all_equal().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_rejoins_from_its_peers_while_the_catalog_gives_no_rows() {
    let mut cluster = Cluster::stopped(2).await;
    cluster.catalog.commit_behind_the_back(5_000);
    cluster.run(1).await;
    cluster.all_equal().await;
    cluster.catalog.state().withholds_rows = true;
    cluster.run(2).await;
    until("it has the rows", || async {
        cluster.seat(2).status().await.rows == 5_000
    })
    .await;
    assert_eq!(cluster.seat(2).get(4_999).await.unwrap().number.0, 4_999);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_another_history_are_refused_and_not_stored() {
    let mut cluster = Cluster::start(1).await;
    cluster.catalog.elect(9);
    until("it knows who leads", || async {
        cluster.seat(1).status().await.leader == 9
    })
    .await;
    cluster.catalog.hang(true);
    cluster.catalog.commit_behind_the_back(3);
    let rows = cluster.catalog.state().rows.clone();
    let seat = cluster.seat(1);
    seat.append(1, 9, &rows[..1]).await.unwrap();
    let gap = seat.append(1, 9, &rows[2..]).await.unwrap();
    assert_eq!(gap.rows, 1);
    let mut forged = rows[1].clone();
    forged.epoch = domain::Epoch(2);
    assert_eq!(
        seat.append(1, 9, &[forged]).await.unwrap_err().code(),
        Code::DataLoss
    );
    cluster.stop(1).await;
    assert_eq!(cluster.seat(1).ledger(), rows[..1]);
}
