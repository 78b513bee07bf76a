//! Whom a replica believes: the catalog about epochs, and nobody of another journal.

use std::path::Path;

use domain::Term;
use domain::{Epoch, JournalId, LedgerEnd, ReplicaId};
use order::store::{SqliteStore, Store as _};
use order_core::durable::Save;
use rpc::retry::{RetryClass, RetryStatus as _};
use rusqlite::Connection;
use tonic::Code;
use wire::identity::OTHER_JOURNAL;
use wire::order::v1::orders_client::OrdersClient;
use wire::order::v1::place_many_response::answer::Result as Placed;
use wire::order::v1::replication_client::ReplicationClient;
use wire::order::v1::{AnnounceRequest, AppendRequest, FetchRequest, GetRequest, Role};

use crate::catalog::JOURNAL;
use crate::support::{self, Cluster, until};

const ANOTHER: JournalId = JournalId::new([9; JournalId::BYTES]);

/// Far above any epoch that there was.
const IMPOSSIBLE: u64 = 1 << 40;

/// Changes a stopped replica's database.
fn change(data_dir: &Path, sql: &str) {
    let connection = Connection::open(data_dir.join("orders.db")).unwrap();
    connection.execute_batch(sql).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stray_announcement_stops_nobody() {
    let cluster = Cluster::start(3).await;
    let epoch = cluster.lead(3).await;
    cluster.seat(3).place("a", "meta").await.unwrap();
    for (follower, leader) in [(1, 1), (1, 3), (2, 1)] {
        let seat = cluster.seat(follower);
        let refused = seat.announce(IMPOSSIBLE, leader).await.unwrap_err();
        assert_eq!(refused.code(), Code::Aborted, "{refused}");
        assert_eq!(RetryClass::of(&refused), RetryClass::Never, "{refused}");
        let refused = seat.append(IMPOSSIBLE, 3, &[]).await.unwrap_err();
        assert_eq!(refused.code(), Code::Aborted, "{refused}");
        assert_eq!(seat.status().await.epoch, epoch);
    }
    let placed = cluster.seat(3).place("b", "meta").await.unwrap();
    assert_eq!(placed, Placed::Number(1));
    assert_eq!(cluster.catalog.state().in_sync, [1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_announcement_waits_for_a_catalog_that_can_confirm_it() {
    let cluster = Cluster::start(2).await;
    let epoch = cluster.lead(2).await;
    let next = cluster.catalog.elect(1);
    cluster.catalog.hang(true);
    let refused = cluster.seat(1).announce(next, 1).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    assert_eq!(cluster.seat(1).status().await.epoch, epoch);
    cluster.catalog.hang(false);
    cluster.seat(1).announce(next, 1).await.unwrap();
    assert_eq!(cluster.seat(1).place_until_answered("a").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_names_another_journal_gets_nothing() {
    let cluster = Cluster::start(1).await;
    let epoch = cluster.lead(1).await;
    cluster.seat(1).place("a", "meta").await.unwrap();
    for journal in [ANOTHER.as_bytes().to_vec(), Vec::new()] {
        let channel = cluster.seat(1).channel.clone();
        let mut orders = OrdersClient::new(channel.clone());
        let mut replication = ReplicationClient::new(channel);
        let order = support::order("b", "meta");
        let append = AppendRequest {
            epoch: epoch + 1,
            leader: 2,
            rows: Vec::new(),
            committed: 0,
            traced: Vec::new(),
            journal: journal.clone(),
        };
        let refusals = [
            support::place(&mut orders, order, journal.clone())
                .await
                .map(drop),
            orders
                .get(GetRequest {
                    number: 0,
                    journal: journal.clone(),
                })
                .await
                .map(drop),
            orders
                .announce(AnnounceRequest {
                    epoch: epoch + 1,
                    leader: 1,
                    journal: journal.clone(),
                })
                .await
                .map(drop),
            support::append(&mut replication, append).await.map(drop),
            replication
                .fetch(FetchRequest {
                    from: 0,
                    rows_max: 0,
                    journal: journal.clone(),
                })
                .await
                .map(drop),
        ];
        let (code, class) = if journal.is_empty() {
            (Code::InvalidArgument, RetryClass::Never)
        } else {
            (OTHER_JOURNAL, RetryClass::Elsewhere)
        };
        for refused in refusals {
            let refused = refused.unwrap_err();
            assert_eq!(refused.code(), code, "{refused}");
            assert_eq!(RetryClass::of(&refused), class, "{refused}");
            assert!(refused.metadata().contains_key("retry"), "{refused}");
            let names = |id: JournalId| refused.message().contains(&id.to_string());
            assert!(journal.is_empty() || (names(ANOTHER) && names(JOURNAL)));
        }
    }
    assert_eq!(cluster.seat(1).status().await.role(), Role::Leader);
    assert_eq!(cluster.catalog.state().rows.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_above_the_catalogs_epoch_drops_out_and_is_rebuilt() {
    let mut cluster = Cluster::start(3).await;
    cluster.lead(3).await;
    cluster.seat(3).place("a", "meta").await.unwrap();
    let changed = "UPDATE term SET epoch = epoch + 1048576";
    // Written by whoever knows how to, and by somebody else.
    for written in [true, false] {
        cluster.stop(1).await;
        let data_dir = cluster.seat(1).data_dir.path().to_owned();
        if written {
            let term = Term {
                epoch: Epoch(1_048_576),
                leader: ReplicaId::new(2),
            };
            let mut store = SqliteStore::open(&data_dir).unwrap();
            let save = Save {
                term: Some(term),
                ..Save::default()
            };
            store.save(&save).unwrap();
        } else {
            change(&data_dir, changed);
        }
        let why = cluster.refused(1).await;
        let expected = if written { "epoch 1048576" } else { "the term" };
        assert!(why.contains(expected) && why.contains("--rebuild"), "{why}");
        let key = format!("with {written}");
        cluster.seat(3).place(&key, "meta").await.unwrap();
        cluster.rebuild(1).await;
        cluster.all_in_sync().await;
        cluster.all_equal().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_rebuilt_serves_where_the_journal_has_no_rows() {
    let mut cluster = Cluster::start(2).await;
    cluster.stop(1).await;
    let term = Term {
        epoch: Epoch(1_048_576),
        leader: ReplicaId::new(2),
    };
    let save = Save {
        term: Some(term),
        ..Save::default()
    };
    let mut store = SqliteStore::open(cluster.seat(1).data_dir.path()).unwrap();
    store.save(&save).unwrap();
    drop(store);
    let why = cluster.refused(1).await;
    assert!(why.contains("--rebuild"), "{why}");
    cluster.rebuild(1).await; // there is nothing to copy that it could wait for
    cluster.lead(1).await;
    cluster.seat(1).place("a", "meta").await.unwrap();
    cluster.all_equal().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_journals_ledger_is_refused_by_name() {
    let mut cluster = Cluster::start(2).await;
    cluster.lead(2).await;
    cluster.seat(2).place("a", "meta").await.unwrap();
    cluster.all_equal().await; // it may have it as a proposal until then
    cluster.stop(1).await;
    cluster.catalog.state().journal = Some(ANOTHER);
    for _ in 0..2 {
        let why = cluster.refused(1).await;
        for id in [ANOTHER, JOURNAL] {
            assert!(why.contains(&id.to_string()), "{why}");
        }
    }
    // Whoever runs already gets no order from it, nor gives it any.
    cluster.seat(2).place("b", "meta").await.unwrap_err();
    assert_eq!(cluster.catalog.state().rows.len(), 1);
    cluster.catalog.state().journal = None;
    cluster.run(1).await;
    cluster.lead(1).await;
    assert_eq!(cluster.seat(1).place_until_answered("b").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ledger_of_before_is_taken_where_the_journal_begins_with_it() {
    let mut cluster = Cluster::start(2).await;
    cluster.lead(2).await;
    cluster.seat(2).place("a", "meta").await.unwrap();
    cluster.seat(2).place("b", "meta").await.unwrap();
    cluster.all_equal().await; // it may have them as proposals until then
    cluster.stop(1).await;
    cluster.seat(2).place("c", "meta").await.unwrap();
    let data_dir = cluster.seat(1).data_dir.path().to_owned();
    let forget = "
        ALTER TABLE journal DROP COLUMN stock_change;
        ALTER TABLE journal DROP COLUMN stock_changes;
        ALTER TABLE proposed DROP COLUMN stock_change;
        ALTER TABLE proposed DROP COLUMN stock_changes;
        DROP TABLE identity; DROP TABLE term_checksum";
    change(&data_dir, forget);
    let rows = cluster.catalog.state().rows.clone();
    for shown in [0, 1] {
        // That the journal says nothing is no agreement.
        cluster.catalog.state().rows.truncate(shown);
        let why = cluster.refused(1).await;
        assert!(why.contains(&JOURNAL.to_string()), "{why}");
        assert!(why.contains("no id"), "{why}");
    }
    cluster.catalog.commit_behind_the_back(4);
    let why = cluster.refused(1).await;
    assert!(why.contains("no id"), "another journal: {why}");
    cluster.catalog.state().rows = rows;
    cluster.run(1).await;
    cluster.all_equal().await;
    cluster.stop(1).await;
    let ledger = order::inspect::Ledger::open(&data_dir).unwrap();
    let identity = ledger.identity().unwrap().expect("it knows its journal");
    assert_eq!(identity.journal, JOURNAL);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_that_lost_rows_is_told_and_nothing_is_served_against_it() {
    let mut cluster = Cluster::start(2).await;
    cluster.lead(2).await;
    for key in ["a", "b", "c"] {
        cluster.seat(2).place(key, "meta").await.unwrap();
    }
    cluster.all_equal().await; // they may be proposals until then
    let rows = cluster.catalog.state().rows.clone();
    cluster.stop(1).await;
    cluster.catalog.state().rows.truncate(1);
    until("the leader shows what is missing", || async {
        cluster.catalog.state().reported_missing.first() == Some(&rows[1])
    })
    .await;
    until("it leads no more", || async {
        cluster.seat(2).status().await.role() == Role::Follower
    })
    .await;
    cluster.seat(2).place("d", "meta").await.unwrap_err();
    cluster.catalog.state().reported_missing.clear();
    // So does one that starts now, before it serves.
    cluster.stop(2).await;
    cluster.begin(1, false).await;
    until("a replica shows what is missing", || async {
        cluster.catalog.state().reported_missing.first() == Some(&rows[1])
    })
    .await;
    cluster.catalog.state().rows = rows.clone();
    assert_eq!(cluster.seat(1).get(2).await.unwrap(), rows[2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_that_lost_rows_denies_no_order_that_a_ledger_shows_it_to_lack() {
    let cluster = Cluster::start(1).await;
    cluster.lead(1).await;
    for key in ["a", "b", "c"] {
        cluster.seat(1).place(key, "meta").await.unwrap();
    }
    until("its ledger has them", || async {
        cluster.seat(1).status().await.rows == 3
    })
    .await;
    cluster.catalog.state().rows.truncate(1);
    // Which may be another replica's to show.
    let denied = cluster.seat(1).get(7).await.unwrap_err();
    assert_eq!(denied.code(), Code::Unavailable, "{denied}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ledger_that_a_restored_journal_went_on_without_ends_its_replica_or_is_set_aside() {
    let mut cluster = Cluster::start(2).await;
    cluster.lead(2).await;
    for key in ["a", "b", "c"] {
        cluster.seat(2).place(key, "meta").await.unwrap();
    }
    cluster.all_equal().await; // they may be proposals until then
    cluster.stop(1).await;
    cluster.stop(2).await;
    {
        let mut state = cluster.catalog.state();
        state.rows.truncate(1);
        state.takes_no_report = true;
    }
    let why = cluster.refused(1).await;
    assert!(why.contains("older copy"), "{why}");
    cluster.rebuild(1).await;
    cluster.all_equal().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_an_epoch_after_their_leaders_are_refused() {
    let cluster = Cluster::start(2).await;
    let epoch = cluster.lead(2).await;
    cluster.seat(2).place("a", "meta").await.unwrap();
    let last = cluster.catalog.state().rows[0].clone();
    let order = support::order("forged", "meta");
    let forged =
        domain::Row::following(&LedgerEnd::of(&last), Epoch(IMPOSSIBLE), order, last.price);
    until("the follower has the order", || async {
        cluster.seat(1).status().await.rows == 1
    })
    .await;
    let refused = cluster
        .seat(1)
        .append(epoch, 2, &[forged])
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::DataLoss, "{refused}");
    assert_eq!(
        cluster.seat(2).place("b", "meta").await.unwrap(),
        Placed::Number(1)
    );
    cluster.all_in_sync().await;
}
