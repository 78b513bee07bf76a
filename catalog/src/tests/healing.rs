//! A catalog that starts hears what replicas have, and puts back what its database lost, before it serves.

use std::time::{Duration, Instant};

use domain::{Epoch, LedgerEnd, Row};
use tokio::task::JoinHandle;
use tonic::{Code, Status};
use wire::catalog::v1;

use super::harness::{
    Client, LONG_LEASE, Leader, Running, SHORT_LEASE, SOON, disk, journal, leadership, order,
    read_stock,
};
use crate::store::memory::Disk;

/// A disk with a journal of two rows, which replica 3 led.
async fn with_journal() -> (Disk, Vec<Row>) {
    let disk = disk();
    let running = Running::start_on(&disk, LONG_LEASE).await;
    let leader = running.elect_leader().await;
    leader.set_in_sync(1, &[3]).await.unwrap();
    let mut rows = Vec::new();
    for key in ["one", "two"] {
        rows.push(Row::try_from(leader.buy(key, "acme").await.unwrap()).unwrap());
    }
    running.stop().await;
    (disk, rows)
}

/// What a replica with these rows reports to this run of the catalog.
async fn report(client: &Client, replica: u32, rows: &[Row]) -> v1::ReportLedgerRequest {
    let said = leadership(&mut client.clone()).await;
    let end = rows.last().map(LedgerEnd::of).unwrap_or_default();
    v1::ReportLedgerRequest {
        replica,
        run: said.run,
        rows: end.rows.0,
        stock_changes: end.stock_changes,
        chain_hash: end.chain.as_bytes().to_vec(),
        beside: Vec::new(),
        epoch: rows.last().map_or(0, |row| row.epoch.0),
        leader: 3,
        peers: [2, 3].into_iter().filter(|&peer| peer != replica).collect(),
        lease_horizon_ms: 1,
        empty: false,
        last_epoch: rows.last().map_or(0, |row| row.epoch.0),
        journal: said.journal,
    }
}

/// Reports; returns from where on more is wanted.
async fn say(client: &Client, replica: u32, rows: &[Row]) -> Result<Option<u64>, Status> {
    let report = report(client, replica, rows).await;
    let answer = client.clone().report_ledger(report).await?;
    Ok(answer.into_inner().missing_from)
}

async fn put_back(client: &Client, replica: u32, rows: &[Row]) -> Result<Option<u64>, Status> {
    let said = leadership(&mut client.clone()).await;
    let request = v1::PutBackRequest {
        replica,
        run: said.run,
        rows: rows.iter().map(Into::into).collect(),
        journal: said.journal,
    };
    let answer = client.clone().put_back(request).await?;
    Ok(answer.into_inner().missing_from)
}

/// What waits until the catalog serves: a read, an election and a trade.
struct Waiting {
    reads: JoinHandle<(u64, bool)>,
    leads: JoinHandle<Leader>,
}

impl Waiting {
    fn start(running: &Running) -> Self {
        let (mut client, elector) = (running.client(), running.elector());
        Self {
            reads: tokio::spawn(async move { read_stock(&mut client, "acme", 0).await }),
            leads: tokio::spawn(async move { elector.elect_leader().await }),
        }
    }

    async fn is_none_over(&self) -> bool {
        tokio::time::sleep(Duration::from_millis(50)).await; // as long as a catalog takes that does not wait
        !self.reads.is_finished() && !self.leads.is_finished()
    }

    async fn end(self) -> (u64, Leader) {
        let both = async { (self.reads.await.unwrap().0, self.leads.await.unwrap()) };
        tokio::time::timeout(SOON, both).await.expect("it serves")
    }
}

#[tokio::test]
async fn nothing_is_served_before_all_who_are_named_have_reported() {
    let (disk, rows) = with_journal().await;
    let (running, _) = Running::start_checking(&disk, LONG_LEASE).await;
    let (client, waiting) = (running.client(), Waiting::start(&running));
    let checked = async || leadership(&mut running.client()).await.healed;
    assert!(waiting.is_none_over().await && !checked().await);
    // Whoever waits with it is told for whom, and how long at most.
    let said = leadership(&mut running.client()).await;
    assert_eq!(said.unheard, [3]);
    let at_most = Duration::from_millis(said.unheard_ms.unwrap());
    assert!(!at_most.is_zero() && at_most <= LONG_LEASE, "{at_most:?}");
    assert_eq!(say(&client, 3, &rows).await.unwrap(), None);
    assert!(waiting.is_none_over().await, "replica 3 names replica 2");
    assert_eq!(leadership(&mut running.client()).await.unheard, [2]);
    // A ledger that is no copy says nothing of its replica.
    let strange = Row::following(
        &LedgerEnd::of(&rows[0]),
        Epoch(1),
        rows[0].entry.clone(),
        rows[0].price,
    );
    let strange = [rows[0].clone(), strange];
    assert_eq!(say(&client, 2, &strange).await.unwrap(), None);
    assert!(waiting.is_none_over().await && !checked().await);
    assert_eq!(say(&client, 2, &rows[..1]).await.unwrap(), None);
    let (quantity, leader) = waiting.end().await;
    assert!(checked().await);
    let said = leadership(&mut running.client()).await;
    assert!(said.unheard.is_empty() && said.unheard_ms.is_none());
    assert_eq!(quantity, 98);
    assert_eq!(
        leader.epoch, 3,
        "one each for its own start and the election"
    );
    leader.buy("three", "acme").await.unwrap();
    let late = say(&client, 2, &rows).await.unwrap_err();
    assert_eq!(late.code(), Code::FailedPrecondition, "{late}");
    running.stop().await;
}

#[tokio::test]
async fn where_nothing_is_missing_nobody_is_waited_for_longer_than_it_may_take() {
    let (disk, rows) = with_journal().await;
    let started = Instant::now();
    let (running, _) = Running::start_checking(&disk, SHORT_LEASE).await;
    say(&running.client(), 2, &rows[..1]).await.unwrap();
    Waiting::start(&running).end().await;
    assert!(started.elapsed() >= SHORT_LEASE);
    running.stop().await;
}

/// Whatever was gone for longer than leases last, and however short the wait is where nothing says that.
#[tokio::test]
async fn a_database_that_came_back_is_not_served_before_all_have_reported() {
    let (disk, rows) = with_journal().await;
    let running = Running::start_suspecting(&disk).await;
    let (client, waiting) = (running.client(), Waiting::start(&running));
    tokio::time::sleep(SHORT_LEASE).await;
    assert!(waiting.is_none_over().await);
    let said = leadership(&mut running.client()).await;
    assert_eq!((&*said.unheard, said.unheard_ms), (&[3][..], None));
    assert_eq!(say(&client, 3, &rows).await.unwrap(), None);
    assert!(waiting.is_none_over().await, "replica 3 names replica 2");
    assert_eq!(say(&client, 2, &rows[..1]).await.unwrap(), None);
    assert_eq!(waiting.end().await.0, 98);
    running.stop().await;
}

#[tokio::test]
async fn a_database_that_is_an_older_copy_gets_its_rows_back_before_anybody_is_served() {
    let (disk, mut rows) = with_journal().await;
    let backup = disk.copy();
    let running = Running::start_on(&disk, LONG_LEASE).await;
    let leader = running.elect_leader().await;
    for key in ["three", "four", "five"] {
        rows.push(Row::try_from(leader.buy(key, "acme").await.unwrap()).unwrap());
    }
    running.stop().await;

    let (running, _) = Running::start_checking(&backup, SHORT_LEASE).await;
    let (client, waiting) = (running.client(), Waiting::start(&running));
    // It shows that it has more, so replica 3 may have more still.
    assert_eq!(say(&client, 2, &rows[..4]).await.unwrap(), Some(2));
    assert_eq!(put_back(&client, 2, &rows[2..4]).await.unwrap(), None);
    tokio::time::sleep(SHORT_LEASE).await;
    assert!(waiting.is_none_over().await);
    let said = leadership(&mut running.client()).await;
    assert_eq!(said.journal_rows, 2);
    assert_eq!((&*said.unheard, said.unheard_ms), (&[3][..], None));
    assert_eq!(say(&client, 3, &rows).await.unwrap(), Some(2));
    for proves_nothing in [&rows[3..], &rows[..1]] {
        assert_eq!(put_back(&client, 3, proves_nothing).await.unwrap(), Some(2));
    }
    assert_eq!(put_back(&client, 3, &rows[2..4]).await.unwrap(), Some(4));
    assert_eq!(put_back(&client, 3, &rows[4..]).await.unwrap(), None);
    let (quantity, leader) = waiting.end().await;
    assert_eq!(quantity, 95);
    assert!(leader.epoch > rows[4].epoch.0, "{}", leader.epoch);
    let kept = journal(&mut running.client(), 0, 0).await.into_iter();
    let kept: Vec<Row> = kept.map(|row| Row::try_from(row).unwrap()).collect();
    assert_eq!(kept, rows);
    // What was acknowledged is found by its key, and made once.
    let again = leader.buy("five", "acme").await.unwrap();
    assert_eq!(again.number, 4);
    assert_eq!(leader.buy("six", "acme").await.unwrap().number, 5);
    running.stop().await;

    let running = Running::start_on(&backup, LONG_LEASE).await;
    assert_eq!(read_stock(&mut running.client(), "acme", 0).await.0, 94);
    running.stop().await;
}

#[tokio::test]
async fn what_an_operator_gives_up_is_not_waited_for() {
    let (disk, mut rows) = with_journal().await;
    let backup = disk.copy();
    let running = Running::start_on(&disk, LONG_LEASE).await;
    let leader = running.elect_leader().await;
    rows.push(Row::try_from(leader.buy("three", "acme").await.unwrap()).unwrap());
    running.stop().await;

    let running = Running::start_accepting(&backup, LONG_LEASE, &[3]).await;
    let (client, waiting) = (running.client(), Waiting::start(&running));
    assert_eq!(say(&client, 2, &rows).await.unwrap(), Some(2));
    assert_eq!(put_back(&client, 2, &rows[2..]).await.unwrap(), None);
    assert_eq!(waiting.end().await.0, 97);
    running.stop().await;
}

#[tokio::test]
async fn who_means_another_run_or_says_what_cannot_be_is_refused() {
    let (disk, rows) = with_journal().await;
    let (running, _) = Running::start_checking(&disk, LONG_LEASE).await;
    let client = running.client();
    let well = report(&client, 2, &rows).await;
    let row = v1::JournalRow::from(&rows[0]);
    for (report, code) in [
        (
            v1::ReportLedgerRequest {
                run: well.run ^ 1,
                ..well.clone()
            },
            Code::FailedPrecondition,
        ),
        (
            v1::ReportLedgerRequest {
                replica: 0,
                ..well.clone()
            },
            Code::InvalidArgument,
        ),
        (
            v1::ReportLedgerRequest {
                chain_hash: vec![1; 31],
                ..well.clone()
            },
            Code::InvalidArgument,
        ),
        (
            v1::ReportLedgerRequest {
                beside: vec![row.clone(); 65],
                ..well.clone()
            },
            Code::InvalidArgument,
        ),
        (
            v1::ReportLedgerRequest {
                peers: (1..=65).collect(),
                ..well.clone()
            },
            Code::InvalidArgument,
        ),
        (
            v1::ReportLedgerRequest {
                journal: vec![7; 16],
                ..well.clone()
            },
            Code::PermissionDenied,
        ),
    ] {
        let refused = client.clone().report_ledger(report).await.unwrap_err();
        assert_eq!(refused.code(), code, "{refused}");
    }
    let too_many = v1::PutBackRequest {
        replica: 2,
        run: well.run,
        rows: vec![row; 1025],
        journal: well.journal,
    };
    let refused = client.clone().put_back(too_many).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    running.stop().await; // also one that waits
}

/// Replicas that come after it serves: see also what a running one makes of that, in `restarts`.
#[tokio::test]
async fn who_was_in_sync_at_the_start_is_believed_about_lost_rows_after_leaving_the_set() {
    let (disk, rows) = with_journal().await;
    let running = Running::start_on(&disk, LONG_LEASE).await;
    let leader = running.elect_leader().await;
    leader.set_in_sync(1, &[2, 3]).await.unwrap();
    running.stop().await;
    let (running, mut receiver) = Running::start_checking(&disk, Duration::ZERO).await;
    let leader = running.elect_leader().await;
    let changed = leader.set_in_sync(1, &[3]).await.unwrap();
    assert_eq!(changed, [3]);
    let last = rows.last().unwrap();
    let order = domain::Entry::try_from(order("lost", "acme", v1::Side::Buy, 1)).unwrap();
    let next = Row::following(&LedgerEnd::of(last), last.epoch, order, last.price);
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
