//! A catalog whose store another one can take over answers for as long as nobody can have done that.

use std::time::{Duration, Instant};

use tonic::Code;
use wire::catalog::v1::session_event::Event;
use wire::catalog::v1::{self, Side};

use super::harness::{
    Client, Leader, Running, SOON, Session, disk, leadership, order, read_stock, until,
};
use crate::error::Error;
use crate::store::memory::Disk;

const WRITER_LEASE: Duration = Duration::from_millis(600);

/// Of gateways: over before the writer's own.
const LEASE: Duration = Duration::from_millis(200);

async fn start() -> (Disk, Running, Leader) {
    let disk = disk();
    disk.set_writer_lease(WRITER_LEASE);
    let catalog = Running::start_on(&disk, LEASE).await;
    let mut client = catalog.client();
    until("it answers", async || is_read(&mut client).await).await;
    let leader = catalog.elect_leader().await;
    (disk, catalog, leader)
}

async fn is_read(client: &mut Client) -> bool {
    let request = v1::GetStockRequest {
        name: "acme".into(),
        ..v1::GetStockRequest::default()
    };
    match client.get_stock(request).await {
        Ok(_) => true,
        Err(status) => {
            assert_eq!(status.code(), Code::Unavailable, "{status}");
            false
        }
    }
}

#[tokio::test]
async fn a_catalog_that_does_not_reach_its_store_answers_nothing_until_it_does() {
    let (disk, catalog, leader) = start().await;
    let mut client = catalog.client();
    let traded = leader.buy("a", "acme").await.unwrap();
    disk.set_full(true); // it takes no sign of life
    until("reads are refused", async || !is_read(&mut client).await).await;
    let uncertain = |code| assert_eq!(code, Code::Unavailable);
    let listed = client.list_stocks(v1::ListStocksRequest::default()).await;
    uncertain(listed.unwrap_err().code());
    let led = client.get_leadership(v1::GetLeadershipRequest::default());
    uncertain(led.await.unwrap_err().code());
    // Nor where the journal ends, which another catalog's may not.
    let rows = |of: v1::ReadJournalRequest| {
        let mut client = client.clone();
        async move { client.read_journal(of).await.map(drop) }
    };
    let all = v1::ReadJournalRequest {
        journal: leader.journal.clone(),
        ..v1::ReadJournalRequest::default()
    };
    let one = v1::ReadJournalRequest {
        order: Some(1),
        ..all.clone()
    };
    let beyond = v1::ReadJournalRequest {
        from: 7,
        previous: vec![7; 32],
        ..all.clone()
    };
    for request in [all, one, beyond] {
        uncertain(rows(request).await.unwrap_err().code());
    }
    uncertain(Session::try_open(&client).await.err().unwrap().code());
    // What is known of a key may be what another catalog made of it.
    uncertain(leader.buy("a", "acme").await.unwrap_err().code());
    disk.set_full(false);
    until("reads are answered", async || is_read(&mut client).await).await;
    assert_eq!(leader.buy("a", "acme").await.unwrap(), traded);
    catalog.stop().await;
}

/// Whoever takes over then need not wait for gateways.
#[tokio::test]
async fn a_lease_is_over_before_another_catalog_may_serve() {
    let (disk, catalog, _leader) = start().await;
    let client = catalog.client();
    let mut session = Session::open(&client).await;
    let mut renewed_at = Instant::now();
    session.renewed(1).await;
    disk.set_full(true); // it takes no sign of life
    let mut reader = catalog.client();
    for nonce in 2.. {
        let sent_at = Instant::now();
        if session.try_renew(nonce).await.is_some() {
            renewed_at = sent_at;
        }
        if !is_read(&mut reader).await {
            break;
        }
    }
    let answered = renewed_at.elapsed();
    assert!(answered >= LEASE, "for {answered:?} after the last renewal");
    assert!(Session::try_open(&client).await.is_err());
    catalog.stop().await;
}

#[tokio::test]
async fn a_catalog_that_stops_recalls_what_it_lent_and_waits_for_nobody_who_released() {
    let (disk, catalog, _leader) = start().await;
    // A client that hangs does not keep it from handing over: its connection is open, and answers nothing.
    let hung = catalog.hung_client().await;
    let mut session = Session::open(&catalog.client()).await;
    let stopping = tokio::spawn(catalog.stop());
    match session.event().await {
        Ok(Event::Closing(_)) => {}
        other => panic!("{other:?}"),
    }
    session.release().await;
    let released = Instant::now();
    until("it lets go of the store", async || disk.is_closed()).await;
    let waited = released.elapsed();
    assert!(waited < Duration::from_secs(2), "{waited:?}");
    drop(hung);
    stopping.await.unwrap();
}

#[tokio::test]
async fn a_catalog_that_fewer_callers_reach_than_another_hands_over_and_says_why_it_ends() {
    let (disk, catalog, _leader) = start().await;
    let standby = disk.clone();
    let saying = tokio::spawn(async move {
        while !standby.is_closed() {
            standby.say_standby_callers(3);
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    });
    let said = tokio::time::timeout(6 * SOON, saying).await;
    said.expect("it hands over").unwrap();
    let error = catalog.failed().await;
    assert!(matches!(error, Error::TurnedAway), "{error}");
}

/// The signs of life go on where there is much to do that commits nothing.
#[tokio::test]
async fn requests_that_change_nothing_do_not_keep_it_from_its_signs_of_life() {
    let (disk, catalog, leader) = start().await;
    leader.buy("a", "acme").await.unwrap();
    let mut client = catalog.client();
    let (beats, commits) = (disk.beats(), disk.commits());
    let mut asked = 0;
    while disk.beats() < beats + 6 {
        asked += 1;
        leader
            .trade(vec![order("a", "acme", Side::Buy, 1)])
            .await
            .unwrap();
        assert!(is_read(&mut client).await);
        assert!(asked < 1_000_000, "no sign of life");
    }
    assert_eq!(disk.commits(), commits);
    assert_eq!(read_stock(&mut client, "acme", 0).await.0, 99);
    assert_ne!(leadership(&mut client).await.epoch, 0);
}
