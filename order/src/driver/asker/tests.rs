use std::time::Duration;
use std::time::Instant;

use domain::{ChainHash, JournalId, LedgerEnd, ListingDigest, RowNumber};
use tokio::task::JoinHandle;
use tonic::Code;

use super::*;
use catalog::{FakeCatalog, JOURNAL, LEASE_MS, RUN};
use domain::Role;
use domain::{JournalHead, Term};
use order_core::Event;
use order_core::timing::{HEAD_INTERVAL, REFUSED_RETRY};
use rpc::retry::{RetryClass, RetryStatus as _};

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
    watch: Option<Watch>,
    inputs: mpsc::Receiver<Input>,
    status: watch::Sender<Status>,
}

impl Bench {
    /// Of a replica that knows of epoch 3. It asks nothing yet.
    fn new(url: &str) -> Self {
        let catalog = Catalog::new(&[url.to_owned()], None).unwrap().of(JOURNAL);
        let (sender, inputs) = mpsc::channel(64);
        let (status, current) = watch::channel(Status {
            id: ReplicaId::new(1).unwrap(),
            role: Role::Follower,
            term: term(3, 2),
            end: Default::default(),
            reaches_catalog: true,
            takes_rows: true,
        });
        let (asker, watch) = Asker::new(IDENTITY, catalog, sender, current);
        Self {
            asker,
            watch: Some(watch),
            inputs,
            status,
        }
    }

    /// Begins to ask.
    fn watch(&mut self) -> JoinHandle<()> {
        tokio::spawn(self.watch.take().unwrap().run())
    }

    /// What the core is told next of the catalog's head.
    async fn told(&mut self) -> Option<JournalHead> {
        match self.input().await {
            Input::Happened(Event::JournalHead { head, .. }) => head,
            other => panic!("{other:?}"),
        }
    }

    async fn input(&mut self) -> Input {
        let told = tokio::time::timeout(SOON, self.inputs.recv()).await;
        told.expect("the core is told").expect("the asker is there")
    }

    /// What the core was told by now.
    fn told_by_now(&mut self) -> Vec<Option<JournalHead>> {
        let inputs = std::iter::from_fn(|| self.inputs.try_recv().ok());
        let heads = inputs.map(|input| match input {
            Input::Happened(Event::JournalHead { head, .. }) => head,
            other => panic!("{other:?}"),
        });
        heads.collect()
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
    bench.watch();
    bench.told().await;
    // Whether the claim is true is for the core to say: it knows by then.
    for claimed in [4, 5, 1 << 40] {
        let looks = catalog.state().looks;
        bench.told_by_now();
        bench.asker.confirm(Epoch(claimed)).await.unwrap();
        let told = bench.told_by_now();
        let last = told.last().expect("told before").as_ref().unwrap();
        assert_eq!(last.term, term(5, 3), "claimed: {claimed}");
        assert!(catalog.state().looks > looks);
    }
}

#[tokio::test]
async fn the_core_is_told_where_the_ledger_ended_or_that_the_catalog_has_started() {
    let catalog = catalog_in(5, 3).await;
    let mut bench = Bench::new(&catalog.url());
    let end = LedgerEnd {
        rows: RowNumber(4),
        stock_changes: 0,
        chain: ChainHash::try_from(&[4; 32][..]).unwrap(),
    };
    bench.status.send_modify(|status| status.end = end);
    bench.watch();
    let Input::Happened(Event::JournalHead { held, .. }) = bench.input().await else {
        panic!("the core is told of the catalog's head")
    };
    assert_eq!(held, end);
    catalog.state().heals = true;
    let refused = bench.asker.confirm(Epoch(6)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    let Input::Happened(Event::CatalogHeals(run)) = bench.input().await else {
        panic!("the core is told that the catalog has started")
    };
    assert_eq!(run.get(), RUN);
}

#[tokio::test]
async fn nobody_waits_for_the_catalog_because_of_an_epoch_that_is_known() {
    let catalog = catalog_in(5, 3).await;
    let mut bench = Bench::new(&catalog.url());
    catalog.hang(true);
    bench.watch();
    until("a question", || catalog.state().looks == 1).await;
    for known in [0, 2, 3] {
        bench.asker.confirm(Epoch(known)).await.unwrap();
    }
    bench.status.send_modify(|status| status.term = term(9, 1));
    bench.asker.confirm(Epoch(9)).await.unwrap();
    assert!(bench.told_by_now().is_empty());
    assert_eq!(catalog.state().looks, 1);
}

#[tokio::test]
async fn a_catalog_that_is_away_confirms_nothing() {
    let gone = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let mut bench = Bench::new(&gone);
    bench.watch();
    let refused = bench.asker.confirm(Epoch(4)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    assert_eq!(RetryClass::of(&refused), RetryClass::Later);
    assert_eq!(bench.told().await, None);
}

#[tokio::test]
async fn an_answer_that_comes_late_is_none_and_the_next_one_is_believed() {
    let catalog = catalog_in(5, 3).await;
    catalog.hang(true);
    let mut bench = Bench::new(&catalog.url());
    bench.watch();
    let started = Instant::now();
    let refused = bench.asker.confirm(Epoch(5)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    assert!(started.elapsed() >= HEAD_TIMEOUT);
    assert!(bench.told_by_now().iter().all(Option::is_none));
    catalog.hang(false);
    bench.asker.confirm(Epoch(5)).await.unwrap();
    let told = bench.told_by_now();
    assert_eq!(told.last().unwrap().as_ref().unwrap().term, term(5, 3));
}

#[tokio::test]
async fn another_journals_catalog_confirms_nothing() {
    let catalog = catalog_in(5, 3).await;
    catalog.state().journal = Some(JournalId::new([8; JournalId::BYTES]));
    let mut bench = Bench::new(&catalog.url());
    bench.watch();
    for overlooks_names in [false, true] {
        catalog.state().overlooks_names = overlooks_names;
        let refused = bench.asker.confirm(Epoch(5)).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable, "{refused}");
        let told = bench.told_by_now();
        assert!(!told.is_empty() && told.iter().all(Option::is_none));
    }
    // It may be another one by then, and is not asked as often as one that is away.
    let (looks, started) = (catalog.state().looks, Instant::now());
    bench.told().await;
    assert!(started.elapsed() > REFUSED_RETRY / 2);
    assert_eq!(catalog.state().looks, looks + 1);
}

#[tokio::test]
async fn a_longer_lease_is_kept_before_the_core_hears_of_the_epoch() {
    let catalog = catalog_in(5, 3).await;
    catalog.state().lease_ms = 3 * LEASE_MS;
    let mut bench = Bench::new(&catalog.url());
    bench.watch();
    let Input::Keep(identity) = bench.input().await else {
        panic!("the lease is kept")
    };
    assert_eq!(identity.journal, JOURNAL);
    let kept = Duration::from_millis(3 * LEASE_MS);
    assert_eq!(identity.lease_horizon, kept);
    assert!(bench.told().await.is_some());
}

#[tokio::test]
async fn the_catalog_is_asked_at_once_where_somebody_hurries_it_and_until_the_core_is_gone() {
    let catalog = catalog_in(5, 3).await;
    let mut bench = Bench::new(&catalog.url());
    let watching = bench.watch();
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
    bench.watch();
    assert_eq!(bench.told().await, None);
    catalog.hang(false);
    while bench.told().await.is_none() {}
}
