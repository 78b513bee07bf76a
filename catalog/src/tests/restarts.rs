use std::collections::BTreeSet;
use std::path::Path;
use std::time::Instant;

use domain::{LedgerEnd, Order, Quantity, Row, RowNumber};
use tonic::Code;
use wire::catalog::v1::session_event::Event;
use wire::catalog::v1::{self, Side};

use super::harness::{
    LONG_LEASE, Leader, Running, SHORT_LEASE, SOON, Session, disk, journal, order, read_stock, row,
    until,
};
use crate::config::lease_max;
use crate::store::Store;
use crate::{Config, Error};

fn config(data_dir: &Path) -> Config {
    Config {
        data_dir: data_dir.to_owned(),
        new: true,
        stocks: None,
        lease: LONG_LEASE,
        accept_loss_of: BTreeSet::new(),
        archive_after: None,
        monitor: Default::default(),
        traces: Default::default(),
    }
}

#[tokio::test]
async fn a_restart_keeps_everything_and_keys_still_trade_once() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(config(dir.path())).await;
    let leader = running.elect_leader().await;
    let buy = || order("key", "nvidia", Side::Buy, 10);
    let bought = row(leader.trade(vec![buy()]).await.unwrap().remove(0));
    assert_eq!((bought.number, bought.price_minor), (0, 24063));
    let mut client = running.client();
    let before = client
        .get_leadership(v1::GetLeadershipRequest::default())
        .await
        .unwrap()
        .into_inner();
    running.stop().await;

    let csv = dir.path().join("stocks.csv");
    std::fs::write(&csv, "name,price,quantity\nacme,1,1\n").unwrap();
    let ignored = Config {
        new: false,
        stocks: Some(csv),
        ..config(dir.path())
    };
    let running = Running::start(ignored).await;
    let mut client = running.client();
    assert_eq!(read_stock(&mut client, "nvidia", 0).await.0, 990); // it serves
    let after = client
        .get_leadership(v1::GetLeadershipRequest::default())
        .await
        .unwrap()
        .into_inner();
    let mut expected = before;
    expected.epoch += 1; // what was proposed in the one before is void
    expected.run = after.run;
    assert_eq!(after, expected);
    let leader = Leader {
        client: client.clone(),
        epoch: after.epoch,
        journal: after.journal,
    };
    assert_eq!(
        row(leader.trade(vec![buy()]).await.unwrap().remove(0)),
        bought
    );
    assert_eq!(read_stock(&mut client, "nvidia", 0).await.0, 990);
    assert_eq!(journal(&mut client, 0, 0).await, [bought]);
    running.stop().await;
}

#[tokio::test]
async fn a_catalog_that_lost_rows_stops_once_a_ledger_shows_one() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(config(dir.path())).await;
    let leader = running.elect_leader().await;
    leader.set_in_sync(1, &[2, 3]).await.unwrap();
    let bought = leader.buy("first", "nvidia").await.unwrap();
    let first = Row::try_from(bought.clone()).unwrap();
    let follows = |number: u64, quantity| {
        let end = LedgerEnd {
            rows: RowNumber(number),
            ..LedgerEnd::of(&first)
        };
        let order = Order {
            quantity: Quantity::new(quantity).unwrap(),
            ..first.order().unwrap().clone()
        };
        Row::following(&end, first.epoch, order, first.price)
    };
    let mut client = running.client();
    let mut report = async |replica, row: v1::JournalRow| {
        let request = v1::ReportMissingRequest {
            replica,
            row: Some(row),
            journal: leader.journal.clone(),
        };
        client.report_missing(request).await.map(drop)
    };
    let mut forged = v1::JournalRow::from(&follows(1, 1));
    forged.quantity = 7;
    for proves_nothing in [bought, (&follows(2, 1)).into(), forged] {
        let refused = report(2, proves_nothing).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    }
    leader.buy("second", "nvidia").await.unwrap();
    let late = report(2, (&follows(1, 7)).into()).await;
    assert_eq!(late.unwrap_err().code(), Code::InvalidArgument);
    let mut client = running.client();
    let second = journal(&mut client, 1, 1).await.remove(0);
    let second = Row::try_from(second).unwrap();
    let lost = Row::following(
        &LedgerEnd::of(&second),
        second.epoch,
        first.entry.clone(),
        first.price,
    );
    let out_of_sync = report(1, (&lost).into()).await.unwrap_err();
    assert_eq!(out_of_sync.code(), Code::FailedPrecondition);
    report(2, (&lost).into()).await.unwrap();
    let stopped = running.failed().await.to_string();
    assert!(stopped.contains("replica 2"), "{stopped}");
    assert!(stopped.contains("--rebuild-from"), "{stopped}");
}

#[tokio::test]
async fn after_a_crash_with_sessions_out_stocks_wait_one_lease() {
    let disk = disk();
    let crashed = Running::start_on(&disk, SHORT_LEASE).await;
    let _session = Session::open(&crashed.client()).await;
    assert_eq!(
        disk.sessions_out(),
        Some(lease_max(SHORT_LEASE)),
        "noted before the first is opened"
    );
    // The old one is left running: all that counts is what its disk says.
    let started = Instant::now();
    let running = Running::start_on(&disk, SHORT_LEASE).await;
    let leader = running.elect_leader().await; // an election does not wait
    let buy = tokio::spawn(async move {
        leader.buy("key", "acme").await.unwrap();
        started.elapsed()
    });
    let mut client = running.client();
    let list = tokio::spawn(async move {
        let all = v1::ListStocksRequest::default();
        client.list_stocks(all).await.unwrap();
        started.elapsed()
    });
    read_stock(&mut running.client(), "acme", 0).await;
    let waits = [started.elapsed(), buy.await.unwrap(), list.await.unwrap()];
    assert!(
        waits.iter().all(|&wait| wait >= lease_max(SHORT_LEASE)),
        "read, buy, list: {waits:?}"
    );
    running.stop().await;
    assert_eq!(
        disk.sessions_out(),
        None,
        "the sessions of the run before are over"
    );
}

#[tokio::test]
async fn sessions_of_two_runs_before_are_not_forgotten() {
    let disk = disk();
    let long = lease_max(LONG_LEASE) * 50; // the lease was longer once
    disk.store().set_sessions_out(Some(long)).await.unwrap();
    let running = Running::start_on(&disk, LONG_LEASE).await;
    let session = Session::open(&running.client()).await; // has a shorter one
    assert_eq!(disk.sessions_out(), Some(long));
    session.release().await;
    running.stop().await;
    assert_eq!(
        disk.sessions_out(),
        Some(long),
        "stopped before the first run's were over"
    );
}

#[tokio::test]
async fn a_stop_notes_whether_sessions_are_out() {
    let disk = disk();
    let running = Running::start_on(&disk, LONG_LEASE).await;
    Session::open(&running.client()).await.release().await;
    assert_eq!(disk.sessions_out(), Some(lease_max(LONG_LEASE)));
    running.stop().await;
    assert_eq!(disk.sessions_out(), None, "all were released");

    let running = Running::start_on(&disk, LONG_LEASE).await;
    let started = Instant::now();
    read_stock(&mut running.client(), "acme", 0).await;
    let looked_after = started.elapsed();
    let mut session = Session::open(&running.client()).await;
    running.stop().await;
    assert!(
        looked_after < lease_max(LONG_LEASE),
        "there was nothing to wait for: {looked_after:?}"
    );
    match session.event().await {
        Ok(Event::Closing(_)) => {} // which this gateway does not heed
        other => panic!("{other:?}"),
    }
    session.event().await.expect_err("a stop ends the stream");
    assert_eq!(
        disk.sessions_out(),
        Some(lease_max(LONG_LEASE)),
        "one may be alive"
    );
}

#[tokio::test]
async fn a_stop_finishes_the_trades_that_have_queued() {
    let disk = disk();
    let running = Running::start_on(&disk, LONG_LEASE).await;
    let leader = running.elect_leader().await;
    disk.set_held(true);
    let buy = leader.start_buy("key", "acme");
    until("the commit is under way", async || disk.is_waiting()).await;
    let stopping = tokio::spawn(running.stop());
    disk.set_held(false);
    assert_eq!(buy.await.unwrap().unwrap().number, 0);
    stopping.await.unwrap();
    let refused = leader.buy("later", "acme").await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
}

/// Why a catalog does not start, or stopped.
async fn start(config: Config) -> Error {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let started = crate::run(config, listener, std::future::pending());
    let ended = tokio::time::timeout(SOON, started).await;
    ended.expect("it runs").unwrap_err()
}

#[tokio::test]
async fn a_catalog_whose_disk_is_lost_does_not_begin_another_journal() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("catalog");
    let again = || Config {
        new: false,
        ..config(&data_dir)
    };
    let refused = start(again()).await;
    assert!(matches!(refused, Error::NoJournal(_)), "{refused}");
    assert!(!data_dir.exists(), "it leaves no trace");

    let running = Running::start(config(&data_dir)).await;
    let leader = running.elect_leader().await;
    leader.buy("key", "nvidia").await.unwrap();
    running.stop().await;
    // What is there is gone on with, asked to begin one or not.
    for config in [again(), config(&data_dir)] {
        let running = Running::start(config).await;
        assert_eq!(journal(&mut running.client(), 0, 0).await.len(), 1);
        running.stop().await;
    }

    std::fs::remove_dir_all(&data_dir).unwrap();
    std::fs::create_dir(&data_dir).unwrap();
    let lost = start(again()).await.to_string();
    for told in ["no journal", "--new", "--rebuild-from"] {
        assert!(lost.contains(told), "{lost}");
    }
    drop(crate::store::sqlite::SqliteStore::open(&data_dir).unwrap());
    let tables_only = start(again()).await;
    assert!(matches!(tables_only, Error::NoJournal(_)), "{tables_only}");
}

#[tokio::test]
async fn a_catalog_whose_files_are_replaced_under_it_stops_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(config(dir.path())).await;
    running.elect_leader().await;
    std::fs::remove_file(dir.path().join("catalog.db")).unwrap();
    let stopped = running.failed().await.to_string();
    for told in [
        "catalog.db was removed, moved or replaced",
        "--rebuild-from",
    ] {
        assert!(stopped.contains(told), "{stopped}");
    }
}

#[tokio::test]
async fn what_cannot_start_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let csv = dir.path().join("stocks.csv");
    std::fs::write(&csv, "name,price,quantity\nacme,much,1\n").unwrap();
    let wrong_stocks = start(Config {
        stocks: Some(csv),
        ..config(&dir.path().join("a"))
    })
    .await;
    assert!(
        wrong_stocks
            .to_string()
            .contains("stocks.csv, line 2: price `much`"),
        "{wrong_stocks}"
    );
    let no_lease = start(Config {
        lease: std::time::Duration::ZERO,
        ..config(dir.path())
    })
    .await;
    assert!(matches!(no_lease, Error::Config(_)), "{no_lease}");
    let running = Running::start(config(&dir.path().join("b"))).await;
    running.elect_leader().await;
    let taken = start(config(&dir.path().join("b"))).await;
    assert!(
        taken.to_string().contains("in use by another process"),
        "{taken}"
    );
    running.stop().await;
}
