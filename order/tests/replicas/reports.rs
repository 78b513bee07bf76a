//! What a catalog that has started is told by replicas, before it serves.

use domain::ChainHash;
use tonic::Code;
use wire::order::v1::Role;
use wire::order::v1::place_many_response::answer::Result as Placed;

use crate::catalog::{LEASE_MS, RUN};
use crate::support::{Cluster, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_let_go_report_and_put_back_what_the_catalog_lost() {
    let cluster = Cluster::start(2).await;
    let epoch = cluster.lead(2).await;
    cluster.all_in_sync().await;
    for key in ["a", "b", "c", "d", "e", "f"] {
        cluster.seat(2).place(key, "meta").await.unwrap();
    }
    cluster.all_equal().await;
    let rows = cluster.seat(2).ledger();
    {
        let mut state = cluster.catalog.state();
        state.rows.truncate(1);
        state.heals = true;
    }
    until("all rows are back", async || {
        cluster.catalog.state().rows.len() == rows.len()
    })
    .await;
    assert_eq!(cluster.catalog.state().rows, rows);
    assert!(cluster.catalog.state().put_back.len() >= rows.len() - 1);
    until("both have reported", async || {
        let reported = |replica| {
            let state = cluster.catalog.state();
            state.reports.iter().any(|report| report.replica == replica)
        };
        reported(1) && reported(2)
    })
    .await;
    for report in &cluster.catalog.state().reports {
        assert_eq!((report.run, report.rows), (RUN, rows.len() as u64));
        assert_eq!(report.chain_hash, rows[5].chain.as_bytes());
        assert_eq!((report.epoch, report.leader), (epoch, 2));
        assert_eq!(report.peers, [3 - report.replica]);
        assert_eq!(report.lease_horizon_ms, LEASE_MS);
        assert!(!report.empty && report.beside.is_empty());
    }
    // Nobody leads, nor takes what a leader of before sends, until the next epoch has begun.
    assert_eq!(cluster.seat(2).status().await.role(), Role::Follower);
    let refused = cluster.seat(1).append(epoch, 2, &[]).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    cluster.catalog.state().heals = false;
    cluster.lead(1).await;
    let placed = cluster.seat(1).place("g", "meta").await.unwrap();
    assert_eq!(placed, Placed::Number(6));
    cluster.all_in_sync().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_starts_reports_before_it_joins() {
    let mut cluster = Cluster::stopped(2).await;
    cluster.run(1).await;
    cluster.lead(1).await;
    for key in ["a", "b"] {
        cluster.seat(1).place(key, "meta").await.unwrap();
    }
    cluster.stop(1).await;
    cluster.catalog.state().heals = true;
    for (id, empty) in [(1, false), (2, true)] {
        cluster.begin(id, false).await;
        until("it has reported", async || {
            let state = cluster.catalog.state();
            let mut reports = state.reports.iter();
            reports.any(|report| (report.replica, report.empty) == (id, empty))
        })
        .await;
    }
    let fresh = cluster.catalog.state();
    let fresh = fresh.reports.iter().find(|report| report.empty).unwrap();
    let nothing = ChainHash::EMPTY.as_bytes();
    assert_eq!((fresh.rows, &fresh.chain_hash[..]), (0, &nothing[..]));
}
