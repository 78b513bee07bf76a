use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use domain::{ChainHash, JournalId, LedgerEnd, ListingDigest, OrderNumber};
use tokio::task::JoinHandle;
use tonic::Code;

use super::*;
use catalog::{FakeCatalog, JOURNAL, LEASE_MS};
use domain::{JournalHead, Term};
use order_core::message::RoleName;

#[path = "../../../tests/replicas/catalog.rs"]
#[allow(dead_code, reason = "what replicas ask for beyond who leads")]
mod catalog;

/// Longest wait for what must happen soon.
const SOON: Duration = Duration::from_secs(10);

const IDENTITY: Identity = Identity {
    journal: JOURNAL,
    listing: ListingDigest::new([0; ListingDigest::BYTES]),
    lease_horizon: Duration::from_millis(LEASE_MS),
};

/// An asker without its driver.
struct Bench {
    asker: Arc<Asker>,
    inputs: mpsc::Receiver<Input>,
    status: watch::Sender<Status>,
}

impl Bench {
    /// Of a replica that knows of epoch 3.
    fn new(url: &str) -> Self {
        let catalog = Catalog::new(url).unwrap().of(JOURNAL);
        let (sender, inputs) = mpsc::channel(16);
        let (status, current) = watch::channel(Status {
            id: ReplicaId::new(1).unwrap(),
            role: RoleName::Follower,
            term: term(3, 2),
            end: Default::default(),
            tail: Default::default(),
            reaches_catalog: true,
        });
        Self {
            asker: Arc::new(Asker::new(IDENTITY, catalog, sender, current)),
            inputs,
            status,
        }
    }

    /// What the core is told next.
    async fn told(&mut self) -> Option<JournalHead> {
        let told = tokio::time::timeout(SOON, self.inputs.recv()).await;
        match told.expect("the core is told").expect("the asker is there") {
            Input::Happened(Event::JournalHead { head, .. }) => head,
            other => panic!("{other:?}"),
        }
    }

    /// Whether the core was told nothing more.
    fn is_told_nothing(&mut self) -> bool {
        self.inputs.try_recv().is_err()
    }

    /// Somebody says that the epoch has begun.
    fn confirm(&self, epoch: u64) -> JoinHandle<Result<(), GrpcStatus>> {
        let asker = Arc::clone(&self.asker);
        tokio::spawn(async move { asker.confirm(Epoch(epoch)).await })
    }
}

fn term(epoch: u64, leader: u32) -> Term {
    Term {
        epoch: Epoch(epoch),
        leader: ReplicaId::new(leader),
    }
}

/// A catalog that has begun an epoch.
async fn catalog_in(epoch: u64, leader: u32) -> FakeCatalog {
    let catalog = FakeCatalog::start().await;
    {
        let mut state = catalog.state();
        (state.epoch, state.leader) = (epoch, leader);
    }
    catalog
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < SOON, "never came: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn an_epoch_that_somebody_claims_is_let_through_once_the_core_was_told_the_catalogs_word() {
    let catalog = catalog_in(5, 3).await;
    let mut bench = Bench::new(&catalog.url());
    // Whether the claim is true is for the core to say: it knows by then.
    for claimed in [4, 5, 1 << 40] {
        bench.asker.confirm(Epoch(claimed)).await.unwrap();
        let told = bench.inputs.try_recv().expect("told before");
        let Input::Happened(Event::JournalHead { head, .. }) = told else {
            panic!("{told:?}")
        };
        assert_eq!(head.unwrap().term, term(5, 3), "claimed: {claimed}");
    }
    assert_eq!(catalog.state().looks, 3);
}

#[tokio::test]
async fn the_catalog_is_told_where_the_ledger_ends_with_what_is_yet_to_be_saved() {
    let catalog = catalog_in(5, 3).await;
    let bench = Bench::new(&catalog.url());
    let end = |rows| LedgerEnd {
        rows: OrderNumber(rows),
        chain: ChainHash::try_from(&[rows as u8; 32][..]).unwrap(),
    };
    bench
        .status
        .send_modify(|status| (status.end, status.tail) = (end(4), end(6)));
    bench.asker.confirm(Epoch(5)).await.unwrap();
    let told = (1, 6, end(6).chain.as_bytes().to_vec());
    assert_eq!(catalog.state().ledger, Some(told));
}

#[tokio::test]
async fn the_catalog_is_not_asked_about_an_epoch_that_is_known() {
    let catalog = catalog_in(5, 3).await;
    let mut bench = Bench::new(&catalog.url());
    for known in [0, 2, 3] {
        bench.asker.confirm(Epoch(known)).await.unwrap();
    }
    bench.status.send_modify(|status| status.term = term(9, 1));
    bench.asker.confirm(Epoch(9)).await.unwrap();
    assert!(bench.is_told_nothing());
    assert_eq!(catalog.state().looks, 0);
    // Nor is anything else that it is asked waited for.
    catalog.hang(true);
    let unknown = bench.confirm(10);
    until("a question", || catalog.state().looks == 1).await;
    bench.asker.confirm(Epoch(9)).await.unwrap();
    assert!(!unknown.is_finished());
    assert!(bench.is_told_nothing());
}

#[tokio::test]
async fn a_catalog_that_is_away_confirms_nothing() {
    let gone = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let mut bench = Bench::new(&gone);
    let refused = bench.asker.confirm(Epoch(4)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    assert_eq!(bench.told().await, None);
}

#[tokio::test]
async fn an_answer_that_comes_late_is_none_and_the_next_one_is_believed() {
    let catalog = catalog_in(5, 3).await;
    catalog.hang(true);
    let mut bench = Bench::new(&catalog.url());
    let started = Instant::now();
    let refused = bench.asker.confirm(Epoch(5)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    assert!(started.elapsed() >= HEAD_TIMEOUT);
    assert_eq!(bench.told().await, None);
    catalog.hang(false);
    bench.asker.confirm(Epoch(5)).await.unwrap();
    assert_eq!(bench.told().await.unwrap().term, term(5, 3));
    assert!(bench.is_told_nothing(), "the late answer is not told");
}

#[tokio::test]
async fn another_journals_catalog_confirms_nothing() {
    let catalog = catalog_in(5, 3).await;
    catalog.state().journal = Some(JournalId::new([8; JournalId::BYTES]));
    let mut bench = Bench::new(&catalog.url());
    for overlooks_names in [false, true] {
        catalog.state().overlooks_names = overlooks_names;
        let refused = bench.asker.confirm(Epoch(5)).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable, "{refused}");
        assert_eq!(bench.told().await, None);
    }
    assert_eq!(catalog.state().looks, 2);
}

#[tokio::test]
async fn one_answer_does_for_all_who_came_before_it_was_asked_for() {
    let catalog = catalog_in(5, 3).await;
    catalog.hang(true);
    let mut bench = Bench::new(&catalog.url());
    let first = bench.confirm(4);
    until("the first question", || catalog.state().looks == 1).await;
    // These came after it: what the catalog says to it may be from before they were told.
    let others: Vec<_> = (0..20).map(|_| bench.confirm(5)).collect();
    // On this thread each gets as far as it can.
    for _ in 0..2 * others.len() {
        tokio::task::yield_now().await;
    }
    catalog.hang(false);
    for confirmed in others.into_iter().chain([first]) {
        confirmed.await.unwrap().unwrap();
    }
    assert_eq!(catalog.state().looks, 2);
    for _ in 0..2 {
        assert_eq!(bench.told().await.unwrap().term, term(5, 3));
    }
    assert!(bench.is_told_nothing());
}

#[tokio::test]
async fn a_longer_lease_is_kept_before_the_core_hears_of_the_epoch() {
    let catalog = catalog_in(5, 3).await;
    let mut bench = Bench::new(&catalog.url());
    for (lease_ms, kept) in [(LEASE_MS, None), (3 * LEASE_MS, Some(3 * LEASE_MS))] {
        catalog.state().lease_ms = lease_ms;
        // Once: what was heard before need not be written again.
        for kept in [kept, None] {
            bench.asker.confirm(Epoch(5)).await.unwrap();
            if let Some(kept) = kept {
                let told = bench.inputs.try_recv().expect("told");
                let Input::Keep(identity) = told else {
                    panic!("{told:?}")
                };
                assert_eq!(identity.journal, JOURNAL);
                assert_eq!(identity.lease_horizon, Duration::from_millis(kept));
            }
            assert!(bench.told().await.is_some());
        }
    }
}

#[tokio::test]
async fn the_watch_asks_at_once_where_somebody_hurries_it_and_ends_with_the_core() {
    let catalog = catalog_in(5, 3).await;
    let mut bench = Bench::new(&catalog.url());
    let watching = tokio::spawn({
        let asker = Arc::clone(&bench.asker);
        async move { asker.watch().await }
    });
    let started = Instant::now();
    const HURRIED: u32 = 40;
    for _ in 0..HURRIED {
        assert!(bench.told().await.is_some());
        bench.asker.hurry();
    }
    assert!(started.elapsed() < HEAD_INTERVAL * HURRIED / 2);
    drop(bench);
    tokio::time::timeout(SOON, watching)
        .await
        .expect("it ends")
        .unwrap();
}

#[tokio::test]
async fn a_catalog_that_comes_back_is_noticed_without_being_asked_for() {
    let catalog = catalog_in(5, 3).await;
    catalog.hang(true);
    let mut bench = Bench::new(&catalog.url());
    let watching = tokio::spawn({
        let asker = Arc::clone(&bench.asker);
        async move { asker.watch().await }
    });
    assert_eq!(bench.told().await, None);
    catalog.hang(false);
    while bench.told().await.is_none() {}
    watching.abort();
}
