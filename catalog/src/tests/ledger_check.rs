//! A catalog that starts checks the ledgers of the in-sync set before it serves.

use std::time::Instant;

use domain::{ChainHash, LedgerEnd, OrderNumber, Row};
use tokio::task::JoinHandle;
use wire::catalog::v1;

use super::harness::{
    Client, LONG_LEASE, Leader, Running, SHORT_LEASE, SOON, disk, leadership, read_stock,
};
use crate::store::memory::Disk;

/// Rows of a journal that has some, and where they end.
fn ends(rows: &[v1::JournalRow]) -> Vec<LedgerEnd> {
    let rows = rows.iter().map(|row| Row::try_from(row.clone()).unwrap());
    let ends = rows.map(|row| LedgerEnd::of(&row));
    std::iter::once(LedgerEnd::default()).chain(ends).collect()
}

/// A disk with a journal of two rows, which replicas 2 and 3 have to hold.
async fn with_journal() -> (Disk, Vec<v1::JournalRow>) {
    let disk = disk();
    let running = Running::start_on(&disk, LONG_LEASE).await;
    let leader = running.elect_leader().await;
    leader.set_in_sync(1, &[2, 3]).await.unwrap();
    let mut rows = Vec::new();
    for key in ["one", "two"] {
        rows.push(leader.buy(key, "acme").await.unwrap());
    }
    running.stop().await;
    (disk, rows)
}

/// A replica says where its ledger ends. Returns whether all are checked.
async fn say(client: &Client, replica: u32, end: LedgerEnd, journal: &[u8]) -> bool {
    let request = v1::GetLeadershipRequest {
        replica,
        ledger_rows: end.rows.0,
        ledger_chain: end.chain.as_bytes().to_vec(),
        journal: journal.to_vec(),
    };
    let answer = client.clone().get_leadership(request).await;
    answer.unwrap().into_inner().ledgers_checked
}

/// What waits for the replicas: a read, a trade, a change of the in-sync set.
struct Waiting {
    reads: JoinHandle<(u64, bool)>,
    buys: JoinHandle<Result<v1::JournalRow, tonic::Status>>,
    changes: JoinHandle<Result<Vec<u32>, tonic::Status>>,
}

impl Waiting {
    fn start(running: &Running, leader: &Leader) -> Self {
        let (mut client, changer) = (running.client(), leader.clone());
        Self {
            reads: tokio::spawn(async move { read_stock(&mut client, "acme", 0).await }),
            buys: leader.start_buy("three", "acme"),
            changes: tokio::spawn(async move { changer.set_in_sync(1, &[3]).await }),
        }
    }

    fn is_any_over(&self) -> bool {
        self.reads.is_finished() || self.buys.is_finished() || self.changes.is_finished()
    }

    async fn end(self) {
        self.reads.await.unwrap();
        self.buys.await.unwrap().unwrap();
        self.changes.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn after_a_start_nothing_is_served_before_all_ledgers_in_sync_are_checked() {
    let (disk, rows) = with_journal().await;
    let ends = ends(&rows);
    let (running, _) = Running::start_checking(&disk, LONG_LEASE).await;
    let leader = running.elect_leader().await; // an election waits for nobody
    let waiting = Waiting::start(&running, &leader);
    let (client, journal) = (running.client(), &leader.journal);
    let another = LedgerEnd {
        chain: ChainHash::EMPTY,
        ..ends[1]
    };
    let longer = LedgerEnd {
        rows: OrderNumber(3),
        ..ends[2]
    };
    for (replica, end, journal) in [
        (1, ends[2], &journal[..]), // it was not in sync
        (0, ends[2], journal),      // a gateway
        (2, another, journal),
        (2, longer, journal),
        (2, ends[2], &[]), // the ledger may be of another one
        (3, ends[0], journal),
        (3, ends[2], journal),
    ] {
        assert!(!say(&client, replica, end, journal).await, "{replica}");
        assert!(!waiting.is_any_over(), "{replica}");
    }
    assert!(say(&client, 2, ends[1], journal).await);
    let served = tokio::time::timeout(SOON, waiting.end()).await;
    served.expect("nobody is waited for any more");
    assert!(leadership(&mut running.client()).await.ledgers_checked);
    running.stop().await;
}

#[tokio::test]
async fn a_replica_that_is_away_is_waited_for_no_longer_than_it_may_take() {
    let (disk, rows) = with_journal().await;
    let started = Instant::now();
    let (running, _) = Running::start_checking(&disk, SHORT_LEASE).await;
    let leader = running.elect_leader().await;
    say(
        &running.client(),
        3,
        *ends(&rows).last().unwrap(),
        &leader.journal,
    )
    .await;
    Waiting::start(&running, &leader).end().await;
    assert!(started.elapsed() >= SHORT_LEASE);
    assert!(leadership(&mut running.client()).await.ledgers_checked);
    running.stop().await;
}

#[tokio::test]
async fn a_catalog_that_was_restored_from_an_older_copy_serves_nothing_until_a_ledger_stops_it() {
    let (disk, mut rows) = with_journal().await;
    let backup = disk.copy();
    let running = Running::start_on(&disk, LONG_LEASE).await;
    let leader = running.elect_leader().await;
    for replica in [2, 3] {
        let end = *ends(&rows).last().unwrap();
        say(&running.client(), replica, end, &leader.journal).await;
    }
    rows.push(leader.buy("acknowledged", "acme").await.unwrap());
    running.stop().await;

    let (running, mut receiver) = Running::start_checking(&backup, LONG_LEASE).await;
    let leader = running.elect_leader().await;
    let waiting = Waiting::start(&running, &leader);
    let (mut client, ends) = (running.client(), ends(&rows));
    // One that lagged says nothing against it.
    assert!(!say(&client, 3, ends[1], &leader.journal).await);
    assert!(!say(&client, 2, ends[3], &leader.journal).await);
    let report = v1::ReportMissingRequest {
        replica: 2,
        row: rows.pop(),
        journal: leader.journal.clone(),
    };
    client.report_missing(report).await.unwrap();
    let found = receiver.next().await;
    assert!(found.contains("replica 2"), "{found}");
    assert!(!waiting.is_any_over());
    running.stop().await;
}

#[tokio::test]
async fn who_was_in_sync_at_the_start_is_believed_about_lost_rows_after_leaving_the_set() {
    let (disk, mut rows) = with_journal().await;
    let (running, mut receiver) = Running::start_checking(&disk, SHORT_LEASE).await;
    let leader = running.elect_leader().await;
    let changed = leader.set_in_sync(1, &[3]).await.unwrap(); // no ledger is checked
    assert_eq!(changed, [3]);
    let last = Row::try_from(rows.pop().unwrap()).unwrap();
    let next = Row::following(
        &last.chain,
        last.number.next(),
        last.epoch,
        last.order.clone(),
        last.price,
    );
    let mut client = running.client();
    let mut report = async |replica| {
        let report = v1::ReportMissingRequest {
            replica,
            row: Some((&next).into()),
            journal: leader.journal.clone(),
        };
        client.report_missing(report).await.map(drop)
    };
    report(1).await.unwrap_err();
    report(2).await.unwrap();
    let found = receiver.next().await;
    assert!(found.contains("replica 2"), "{found}");
    running.stop().await;
}
