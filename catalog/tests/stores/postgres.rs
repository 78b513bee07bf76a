//! What only PostgreSQL can do to a catalog, over a real one.

use std::time::{Duration, Instant};

use domain::time::BootTime;
use domain::{Epoch, IdempotencyKey, Order, Price, Protocol, RowNumber, Side, StockName};
use rpc::clients::Client;
use rustix::process::Signal;
use storage::StorageError;
use test_postgres::certificates::Certificates;
use test_postgres::proxy::{Proxy, Replies};
use test_postgres::{Cluster, Options, SUPERUSER};
use tokio::sync::watch;
use tonic::async_trait;

use catalog::backup;
use catalog::callers::Callers;
use catalog::stocks::{Listing, built_in};
use catalog::store::postgres::transfer::Source;
use catalog::store::postgres::{
    COMMIT_TIME_MAX, NewJournal, OpenError, OpenOptions, PostgresError, PostgresStore, StoreUrl,
};
use catalog::store::sqlite::SqliteStore;
use catalog::store::{Journal, Loaded, Store, random_journal};
use catalog_core::{PriorOutcome, Rules, Staged};

use crate::suite::{Place, buy, commit, elect_and_buy, order, replica, staged};

/// Far above what a commit takes on a busy machine, and far below what a test may take.
const SHORT: Duration = Duration::from_millis(1500);

/// Longest wait for what a server does soon.
const PATIENCE: Duration = Duration::from_secs(60);

/// For how long a beat stands still here before another writer takes over.
const LEASE: Duration = Duration::from_millis(300);

/// A database of a server's.
pub struct PostgresPlace<'a> {
    cluster: &'a Cluster,
    database: String,
    url: String,
}

impl<'a> PostgresPlace<'a> {
    /// Makes an empty one.
    pub fn new(cluster: &'a Cluster, name: &str) -> Self {
        let database: String = name.chars().take(60).collect();
        Self {
            url: cluster.database(&database),
            cluster,
            database,
        }
    }

    fn sql(&self, sql: &str) -> String {
        self.cluster.sql_in(&self.database, sql)
    }

    /// As a catalog opens it.
    async fn store(&self) -> Result<PostgresStore, OpenError> {
        open(options(&self.url)).await
    }

    /// By way of a proxy.
    async fn store_by(&self, proxy: &Proxy) -> PostgresStore {
        let port = format!(":{}/", self.cluster.port());
        let url = self.url.replace(&port, &format!(":{}/", proxy.port()));
        open(impatient(&url)).await.unwrap()
    }

    /// The writer that was is gone for good: nobody needs to watch its beat.
    fn forget_writer(&self) {
        self.sql("UPDATE writer SET holder = ''");
    }

    /// What a catalog finds that starts now.
    async fn reopened(&self) -> PostgresStore {
        self.forget_writer();
        self.store().await.unwrap()
    }
}

#[async_trait]
impl Place for PostgresPlace<'_> {
    async fn open(&self) -> Result<(Box<dyn Store>, Box<dyn Journal>), StorageError> {
        let has_tables = "SELECT count(*) FROM pg_tables WHERE tablename = 'writer'";
        if self.sql(has_tables) != "0" {
            self.forget_writer();
        }
        match self.store().await {
            Ok(store) => {
                let journal = store.journal();
                Ok((Box::new(store), Box::new(journal)))
            }
            Err(OpenError::Storage(error)) => Err(error),
            Err(OpenError::Refused(refused)) => panic!("{refused}"),
        }
    }

    async fn change(&self, sql: &str) {
        self.sql(sql);
    }

    fn as_of_0_1_0(&self) -> &'static str {
        "ALTER TABLE writer DROP COLUMN protocol, DROP COLUMN spoken, DROP COLUMN spoken_term, DROP COLUMN server_started;
         DROP TABLE limits;
         DROP TABLE standby_callers;
         DELETE FROM migration WHERE number >= 3"
    }

    fn check_0_1_0(&self) -> &'static str {
        "ALTER TABLE writer ADD COLUMN protocol bigint; ALTER TABLE writer DROP COLUMN protocol;
         INSERT INTO migration VALUES (3); DELETE FROM migration WHERE number = 3"
    }
}

fn options(url: &str) -> OpenOptions {
    OpenOptions {
        url: StoreUrl::parse(url).unwrap(),
        allow_unreplicated: true,
        reached_at: "http://127.0.0.1:56892".to_owned(),
        new: Some(NewJournal {
            id: random_journal().unwrap(),
            listings: built_in(),
        }),
        commit_time_max: COMMIT_TIME_MAX,
        writer_lease: LEASE,
        callers: Callers::default(),
        rules: Rules::default(),
    }
}

async fn open(options: OpenOptions) -> Result<PostgresStore, OpenError> {
    PostgresStore::open(options, &watch::Sender::default()).await
}

fn impatient(url: &str) -> OpenOptions {
    OpenOptions {
        commit_time_max: SHORT,
        ..options(url)
    }
}

fn refused(opened: Result<PostgresStore, OpenError>) -> PostgresError {
    match opened {
        Err(OpenError::Refused(refused)) => refused,
        Err(OpenError::Storage(error)) => panic!("{error}"),
        Ok(_) => panic!("it was opened"),
    }
}

/// A server without a standby; `None` where there is no PostgreSQL here.
fn lone() -> Option<Cluster> {
    Cluster::start(&Options::default())
}

fn replicated() -> Option<Cluster> {
    Cluster::start(&Options {
        standby: true,
        ..Options::default()
    })
}

fn key(key: &str) -> IdempotencyKey {
    IdempotencyKey::new(key).unwrap()
}

#[tokio::test]
async fn a_writer_whose_term_is_over_changes_nothing_and_reads_nothing() {
    let Some(cluster) = lone() else { return };
    let place = PostgresPlace::new(&cluster, "bazaar");
    let mut first = place.store().await.unwrap();
    let mut state = first.load().await.unwrap().state;
    commit(&mut first, &mut state, elect_and_buy).await;
    let late = staged(&state, |staged| {
        buy(staged, "late", "nvidia", 1);
        buy(staged, "few", "nvidia", 5000);
        staged.elect(domain::Epoch(1), replica(1));
    });
    // It stands still, which is how it looks where it is paused or cut off.
    let started = Instant::now();
    let mut second = place.store().await.unwrap();
    let waited = started.elapsed();
    assert!(waited >= LEASE, "{waited:?}");
    let found = second.load().await.unwrap();
    assert_eq!(found.state, state);

    let fenced = |result: Result<(), StorageError>| match result {
        Err(error @ StorageError::Fenced(_)) => assert!(error.ends_process()),
        other => panic!("{other:?}"),
    };
    fenced(first.commit(&late).await);
    fenced(first.beat().await);
    let journal = first.journal();
    fenced(journal.rows(RowNumber(0), 9).await.map(drop));
    first.close().await.unwrap(); // lets go of what it does not have
    assert_eq!(second.load().await.unwrap(), found);
    assert_eq!(second.find_keys(&[&key("few")]).await.unwrap(), [None]);
    second.beat().await.unwrap();
    let rows = second.journal().rows(RowNumber(0), 9).await.unwrap();
    assert_eq!(rows.len(), 2);
}

/// Also where there is no row yet whose epoch would tell.
#[tokio::test]
async fn a_writer_whose_term_is_over_loads_nothing_of_an_empty_journal() {
    let Some(cluster) = lone() else { return };
    let place = PostgresPlace::new(&cluster, "bazaar");
    let mut first = place.store().await.unwrap();
    first.load().await.unwrap();
    let mut second = place.store().await.unwrap();
    match first.load().await {
        Err(StorageError::Fenced(_)) => {}
        other => panic!("{other:?}"),
    }
    second.load().await.unwrap();
}

#[tokio::test]
async fn a_second_catalog_stands_by_while_the_first_beats_and_takes_over_once_it_has_let_go() {
    let Some(cluster) = lone() else { return };
    let place = PostgresPlace::new(&cluster, "bazaar");
    // Longer than a take-over takes on a busy machine.
    let lease = 10 * LEASE;
    let options = || OpenOptions {
        writer_lease: lease,
        ..options(&place.url)
    };
    let mut first = open(options()).await.unwrap();
    let active = watch::Sender::new(None);
    let mut told = active.subscribe();
    let mut second = std::pin::pin!(PostgresStore::open(options(), &active));
    let until = Instant::now() + lease + LEASE;
    while Instant::now() < until {
        tokio::select! {
            _ = &mut second => panic!("it takes over from one that beats"),
            () = tokio::time::sleep(LEASE) => first.beat().await.unwrap(),
        }
    }
    let url = told.borrow_and_update().clone();
    assert_eq!(url.as_deref(), Some("http://127.0.0.1:56892"));
    first.close().await.unwrap();
    let released = Instant::now();
    let mut second = second.await.unwrap();
    let waited = released.elapsed();
    assert!(waited < lease, "{waited:?}");
    second.beat().await.unwrap();
    assert!(first.beat().await.unwrap_err().ends_process());
}

#[tokio::test]
async fn a_catalog_that_stands_by_says_how_many_callers_ask_it() {
    let Some(cluster) = lone() else { return };
    let place = PostgresPlace::new(&cluster, "bazaar");
    let callers = Callers::default();
    let options = || OpenOptions {
        writer_lease: 10 * LEASE,
        callers: callers.clone(),
        ..options(&place.url)
    };
    let mut first = open(options()).await.unwrap();
    let active = watch::Sender::default();
    let mut second = std::pin::pin!(PostgresStore::open(options(), &active));
    let started = Instant::now();
    let said = loop {
        for connection in 1..=2 {
            callers.note(Client::Local(connection), BootTime::now());
        }
        tokio::select! {
            _ = &mut second => panic!("it takes over from one that beats"),
            () = tokio::time::sleep(LEASE) => first.beat().await.unwrap(),
        }
        let said = first.standby_callers().await.unwrap();
        let said = said.expect("a new journal has a place for it");
        if said.said >= 2 {
            break said;
        }
        assert!(started.elapsed() < PATIENCE, "{said:?}");
    };
    assert_eq!(said.callers, 2);
}

#[tokio::test]
async fn a_database_whose_tables_are_just_being_made_has_no_journal_yet() {
    let Some(cluster) = lone() else { return };
    let place = PostgresPlace::new(&cluster, "bazaar");
    // As far as another catalog is that starts at the same time.
    place.sql(
        "CREATE TABLE migration (number integer PRIMARY KEY); INSERT INTO migration VALUES (0)",
    );
    PostgresStore::begin(options(&place.url)).await.unwrap();
    assert_eq!(place.sql("SELECT count(*) FROM identity"), "1");
}

#[tokio::test]
async fn catalogs_that_begin_at_once_begin_one_journal() {
    let Some(cluster) = lone() else { return };
    let place = PostgresPlace::new(&cluster, "bazaar");
    let opened = std::cell::Cell::new(0);
    let begin = async || {
        let mut store = place.store().await.unwrap();
        opened.set(opened.get() + 1);
        loop {
            tokio::time::sleep(LEASE / 3).await;
            store.beat().await.unwrap();
        }
    };
    let both = async { tokio::join!(begin(), begin()) };
    let _ = tokio::time::timeout(5 * LEASE, both).await;
    assert_eq!(opened.get(), 1, "the other one stands by");
    assert_eq!(place.sql("SELECT count(*) FROM identity"), "1");
    assert_eq!(place.sql("SELECT count(*) FROM migration"), "7");
    assert_eq!(place.sql("SELECT term FROM writer"), "1");
}

/// What release 0.1.0 says to take a term.
const TAKE_OVER_OF_0_1_0: &str =
    "UPDATE writer SET term = term + 1, beat = beat + 1, holder = 'somebody', url = '',
    system_identifier = system_identifier, timeline = timeline RETURNING term";

#[tokio::test]
async fn who_stood_by_since_before_the_protocol_was_raised_takes_over_only_if_it_speaks_it() {
    let Some(cluster) = lone() else { return };
    let place = PostgresPlace::new(&cluster, "bazaar");
    let mut first = place.store().await.unwrap();
    drop(first);
    place.forget_writer();
    place.change(place.as_of_0_1_0()).await;
    assert_eq!(place.sql(TAKE_OVER_OF_0_1_0), "2");
    place.forget_writer();
    first = place.store().await.unwrap();
    let second = place.store();
    let mut second = std::pin::pin!(second);
    let standing_by = tokio::time::timeout(LEASE / 2, &mut second).await;
    assert!(standing_by.is_err(), "the first one writes");
    assert_eq!(first.standby_callers().await.unwrap(), None);
    first.raise_protocol(Protocol::NEWEST).await.unwrap();
    // It is a beat: the next one knows of it.
    first.beat().await.unwrap();
    assert!(first.standby_callers().await.unwrap().is_some());
    place.sql(&format!(
        "DO $$ BEGIN
             PERFORM 1 FROM writer; {};
             RAISE EXCEPTION 'it was let in';
         EXCEPTION WHEN check_violation THEN NULL; END $$",
        TAKE_OVER_OF_0_1_0.trim_end_matches(" RETURNING term")
    ));
    first.close().await.unwrap();
    drop(first);
    // This one connected before there was such a column.
    let mut second = second.await.unwrap();
    assert_eq!(second.load().await.unwrap().protocol, Protocol::NEWEST);
    second.beat().await.unwrap();
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_ambiguous_and_the_next_start_finds_it() {
    let Some(cluster) = lone() else { return };
    for (name, replies) in [("broken", Replies::Break), ("silent", Replies::Lose)] {
        let place = PostgresPlace::new(&cluster, name);
        let proxy = Proxy::to(cluster.port());
        let mut store = place.store_by(&proxy).await;
        let mut state = store.load().await.unwrap().state;
        commit(&mut store, &mut state, elect_and_buy).await;
        let batch = staged(&state, |staged| {
            buy(staged, "three", "nvidia", 1);
        });
        proxy.set(replies);
        let error = store.commit(&batch).await.unwrap_err();
        assert!(
            matches!(error, StorageError::Ambiguous(_)),
            "{name}: {error}"
        );
        assert!(error.ends_process());
        // Here it was committed, as the next start finds, and the client's next attempt.
        let mut next = place.reopened().await;
        state.apply(batch.clone());
        assert_eq!(next.load().await.unwrap().state, state, "{name}");
        let found = next.find_keys(&[&key("three")]).await.unwrap();
        assert_eq!(found, [Some(PriorOutcome::Row(batch.rows[0].clone()))]);
    }
}

#[tokio::test]
async fn a_commit_whose_connection_is_ended_before_is_ambiguous_and_left_no_trace() {
    let Some(cluster) = lone() else { return };
    let place = PostgresPlace::new(&cluster, "bazaar");
    let mut store = place.store().await.unwrap();
    let state = store.load().await.unwrap().state;
    place.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE application_name = 'bazaar catalog'",
    );
    let batch = staged(&state, elect_and_buy);
    let error = store.commit(&batch).await.unwrap_err();
    assert!(matches!(error, StorageError::Ambiguous(_)), "{error}");
    assert_eq!(place.reopened().await.load().await.unwrap().state, state);
}

/// That it was told to end is no answer either: it may come after the commit as well.
#[test]
fn a_server_that_ends_a_connection_has_not_said_what_became_of_its_commit() {
    let Some(cluster) = lone() else { return };
    let place = PostgresPlace::new(&cluster, "bazaar");
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().unwrap();
    let mut store = runtime.block_on(place.store()).unwrap();
    let state = runtime.block_on(store.load()).unwrap().state;
    let batch = staged(&state, elect_and_buy);
    let waits = "FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    std::thread::scope(|scope| {
        let lock = "SELECT term FROM writer FOR UPDATE; SELECT pg_sleep(3)";
        let locked = scope.spawn(|| place.sql(lock));
        let holds = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
        while cluster.sql(holds) == "0" {
            assert!(!locked.is_finished());
        }
        scope.spawn(|| {
            let end = format!("SELECT count(pg_terminate_backend(pid)) {waits}");
            while cluster.sql(&end) == "0" {}
        });
        let error = runtime.block_on(store.commit(&batch)).unwrap_err();
        assert!(
            matches!(&error, StorageError::Ambiguous(said) if said.contains("57P01")),
            "{error}"
        );
    });
}

/// Its kernel acknowledges what comes, so that no connection breaks.
#[test]
fn a_server_that_stands_still_right_after_a_take_over_is_given_up() {
    let Some(cluster) = lone() else { return };
    let place = PostgresPlace::new(&cluster, "bazaar");
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().unwrap();
    let begun = async { place.store().await.unwrap().close().await };
    runtime.block_on(begun).unwrap();
    std::thread::scope(|scope| {
        // What a catalog reads first once it has a term, and not before.
        let lock =
            "BEGIN; LOCK TABLE identity IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(3); COMMIT";
        let locked = scope.spawn(|| place.sql(lock));
        let holds = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
        while cluster.sql(holds) == "0" {
            assert!(!locked.is_finished());
        }
        scope.spawn(|| {
            let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
            while cluster.sql(waits) == "0" {}
            cluster.primary().signal_all(Signal::STOP);
        });
        let opening = async { tokio::time::timeout(PATIENCE, open(impatient(&place.url))).await };
        let opened = runtime.block_on(opening);
        cluster.primary().signal_all(Signal::CONT);
        let error = opened.expect("it gives up").unwrap_err();
        assert!(
            error.to_string().contains("after this catalog took over"),
            "{error}"
        );
    });
}

/// The answer to a statement comes before its transaction is over: what fails then undoes it.
#[tokio::test]
async fn a_commit_that_fails_at_its_very_end_changes_nothing_and_the_store_goes_on() {
    let Some(cluster) = lone() else { return };
    let place = PostgresPlace::new(&cluster, "bazaar");
    let mut store = place.store().await.unwrap();
    let mut state = store.load().await.unwrap().state;
    place.sql(
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN IF NEW.key = 'two' THEN RAISE 'at the end'; END IF; RETURN NULL; END $$;
         CREATE CONSTRAINT TRIGGER late AFTER INSERT ON journal
            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION fail()",
    );
    let error = store
        .commit(&staged(&state, elect_and_buy))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, StorageError::Server(said) if said.contains("at the end")),
        "{error}"
    );
    assert!(!error.ends_process());
    assert_eq!(store.load().await.unwrap().state, state);
    place.sql("DROP TRIGGER late ON journal");
    commit(&mut store, &mut state, elect_and_buy).await;
}

#[tokio::test]
async fn a_commit_that_does_not_change_what_it_is_to_change_is_undone() {
    let Some(cluster) = lone() else { return };
    for (name, change) in [
        ("stock", "DELETE FROM stock WHERE name = 'meta'"),
        (
            "version",
            "UPDATE stock SET version = 9 WHERE name = 'meta'",
        ),
        ("leadership", "DELETE FROM leadership"),
    ] {
        let place = PostgresPlace::new(&cluster, name);
        let mut store = place.store().await.unwrap();
        let state = store.load().await.unwrap().state;
        place.sql(change);
        let error = store.commit(&staged(&state, elect_and_buy)).await;
        let error = error.unwrap_err();
        assert!(error.is_damage(), "{name}: {error}");
        assert_eq!(place.sql("SELECT count(*) FROM journal"), "0", "{name}");
    }
}

/// Plans are made once, while tables are empty: from end to end they would be read soonest then.
#[tokio::test]
async fn keys_and_stocks_are_looked_up_by_their_indexes_however_few_there_were_at_first() {
    const TRADES: u32 = 50;
    let Some(cluster) = lone() else { return };
    let place = PostgresPlace::new(&cluster, "bazaar");
    let mut store = place.store().await.unwrap();
    let mut state = store.load().await.unwrap().state;
    commit(&mut store, &mut state, elect_and_buy).await;
    for number in 0..TRADES {
        let name = format!("key-{number}");
        commit(&mut store, &mut state, |staged| {
            buy(staged, &name, "nvidia", 1);
        })
        .await;
        let found = store.find_keys(&[&key(&name)]).await.unwrap();
        assert!(matches!(found[..], [Some(PriorOutcome::Row(_))]));
    }
    drop(store); // its server says what it did when it ends
    let scans = |kind: &str, table: &str| -> u32 {
        let sql = format!("SELECT {kind} FROM pg_stat_user_tables WHERE relname = '{table}'");
        place.sql(&sql).parse().unwrap()
    };
    for table in ["journal", "refused", "stock"] {
        let deadline = Instant::now() + Duration::from_secs(20);
        while scans("idx_scan", table) < TRADES {
            let whole = scans("seq_scan", table);
            assert!(
                Instant::now() < deadline,
                "{table} was read in full {whole} times"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let whole = scans("seq_scan", table);
        assert!(whole < TRADES, "{table} was read in full {whole} times");
    }
}

/// The server then says that it has committed, with a warning: no standby need have it. A role or database can have
/// warnings switched off.
#[tokio::test]
async fn a_wait_for_the_standby_that_was_cancelled_is_no_commit() {
    let Some(cluster) = replicated() else { return };
    let place = PostgresPlace::new(&cluster, "bazaar");
    place.sql("ALTER DATABASE bazaar SET client_min_messages = error");
    let mut store = place.store().await.unwrap();
    let mut state = store.load().await.unwrap().state;
    commit(&mut store, &mut state, elect_and_buy).await;
    cluster.standby().signal_all(Signal::STOP);
    let batch = staged(&state, |staged| {
        buy(staged, "three", "nvidia", 1);
    });
    let cancelling = async {
        loop {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let cancelled = place.sql(
                "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity
                 WHERE wait_event = 'SyncRep' AND application_name = 'bazaar catalog'",
            );
            if cancelled != "0" {
                std::future::pending::<()>().await;
            }
        }
    };
    let committed = tokio::select! {
        committed = store.commit(&batch) => committed,
        () = cancelling => unreachable!("it waits"),
    };
    let error = committed.unwrap_err();
    assert!(
        matches!(&error, StorageError::Ambiguous(said) if said.contains("synchronous replication")),
        "{error}"
    );
    cluster.standby().signal_all(Signal::CONT);
    // The next one's lease is a commit as well, and comes after it on the standby.
    let mut next = place.reopened().await;
    state.apply(batch);
    assert_eq!(next.load().await.unwrap().state, state);
}

/// As Patroni does when the last standby is gone, unless it is told to be strict.
#[tokio::test]
async fn a_server_that_no_longer_waits_for_standbys_ends_the_term() {
    let Some(cluster) = replicated() else { return };
    let place = PostgresPlace::new(&cluster, "bazaar");
    let strict = OpenOptions {
        allow_unreplicated: false,
        ..options(&place.url)
    };
    let mut store = open(strict).await.unwrap();
    let mut state = store.load().await.unwrap().state;
    commit(&mut store, &mut state, elect_and_buy).await;
    cluster.sql("ALTER SYSTEM SET synchronous_standby_names = ''");
    cluster.sql("SELECT pg_reload_conf()");
    let began = Instant::now();
    let error = loop {
        match store.beat().await {
            Ok(()) => assert!(began.elapsed() < Duration::from_secs(20), "it goes on"),
            Err(error) => break error,
        }
    };
    assert!(
        matches!(&error, StorageError::Ambiguous(said) if said.contains("synchronous_standby_names")),
        "{error}"
    );
}

/// As one may be that a proxy puts in the place of the one before.
#[tokio::test]
async fn a_server_that_has_not_all_that_its_writer_committed_lets_nothing_through() {
    let Some(cluster) = lone() else { return };
    let place = PostgresPlace::new(&cluster, "bazaar");
    let mut store = place.store().await.unwrap();
    let mut state = store.load().await.unwrap().state;
    commit(&mut store, &mut state, elect_and_buy).await;
    store.beat().await.unwrap();
    place.sql("UPDATE writer SET beat = beat - 1");
    let rows = place.sql("SELECT count(*) FROM journal");
    let batch = staged(&state, |staged| {
        buy(staged, "three", "nvidia", 1);
    });
    let error = store.commit(&batch).await.unwrap_err();
    assert!(matches!(error, StorageError::Fenced(_)), "{error}");
    assert_eq!(place.sql("SELECT count(*) FROM journal"), rows);
}

#[tokio::test]
async fn a_host_that_takes_a_connection_and_says_nothing_does_not_keep_it_from_the_next() {
    let Some(cluster) = lone() else { return };
    let place = PostgresPlace::new(&cluster, "bazaar");
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_port = silent.local_addr().unwrap().port();
    let port = cluster.port();
    let both = format!(":{silent_port},127.0.0.1:{port}/");
    let url = place.url.replace(&format!(":{port}/"), &both) + "&connect_timeout=1";
    open(options(&url)).await.unwrap();
}

#[tokio::test]
async fn a_database_in_which_all_were_heard_lacks_nothing_until_its_server_is_restarted() {
    let Some(mut cluster) = lone() else { return };
    let url = cluster.database("bazaar");
    let found = async |url: &str| {
        let mut store = open(options(url)).await.unwrap();
        let Loaded {
            may_lack_rows,
            is_unbroken,
            ..
        } = store.load().await.unwrap();
        store.note_healed().await.unwrap();
        store.close().await.unwrap();
        (may_lack_rows, is_unbroken)
    };
    assert_eq!(found(&url).await, (false, false), "it is new");
    assert_eq!(found(&url).await, (false, true));
    assert_eq!(found(&url).await, (false, true));
    cluster.kill_primary();
    cluster.start_primary();
    assert_eq!(found(&url).await, (false, false));
    assert_eq!(found(&url).await, (false, true));
    cluster.sql_in("bazaar", "UPDATE writer SET timeline = NULL");
    assert_eq!(found(&url).await, (true, false), "an operator accepted it");
}

#[tokio::test]
async fn what_a_catalog_leaves_is_for_the_next_term_alone_on_the_server_as_it_was() {
    let Some(mut cluster) = lone() else { return };
    let url = cluster.database("bazaar");
    let next = async |leaves: Option<&str>| {
        let mut store = open(options(&url)).await.unwrap();
        store.note_healed().await.unwrap();
        let left = store.take_left();
        *store.leaves().lock().unwrap() = leaves.map(|leaves| leaves.as_bytes().to_vec());
        store.close().await.unwrap();
        left.map(|left| String::from_utf8(left).unwrap())
    };
    assert_eq!(next(Some("one")).await, None, "it is the first");
    assert_eq!(next(Some("two")).await.as_deref(), Some("one"));
    assert_eq!(next(None).await.as_deref(), Some("two"));
    assert_eq!(next(Some("three")).await, None, "nothing was left to it");

    // One that took it, and ended before it let go, may have granted all of it.
    let taken = open(options(&url)).await.unwrap().take_left();
    assert_eq!(taken.as_deref(), Some(&b"three"[..]));
    cluster.sql_in("bazaar", "UPDATE writer SET holder = ''");
    assert_eq!(next(Some("four")).await, None);

    cluster.kill_primary();
    cluster.start_primary();
    assert_eq!(next(None).await, None, "a take-over may be lost");
}

/// Nobody waits for a lease, and the protocol's later tables are not there.
#[tokio::test]
async fn where_there_is_no_place_for_what_is_left_the_term_is_let_go_of_all_the_same() {
    let Some(cluster) = lone() else { return };
    let place = PostgresPlace::new(&cluster, "bazaar");
    let mut store = place.store().await.unwrap();
    place.sql("DROP TABLE limits");
    *store.leaves().lock().unwrap() = Some(b"left".to_vec());
    store.close().await.unwrap();
    assert_eq!(place.sql("SELECT holder FROM writer"), "");
    assert_eq!(place.store().await.unwrap().take_left(), None);
}

/// The primary that was replaced is named first, takes connections and can write.
#[tokio::test]
async fn a_server_that_was_replaced_is_not_taken_for_the_one_that_replaced_it() {
    let Some(cluster) = replicated() else { return };
    let place = PostgresPlace::new(&cluster, "bazaar");
    let mut state = {
        let mut store = place.store().await.unwrap();
        let mut state = store.load().await.unwrap().state;
        commit(&mut store, &mut state, elect_and_buy).await;
        store.close().await.unwrap();
        state
    };
    let port = cluster.port();
    let promoted = cluster.promote_standby();
    let both = format!(":{port},127.0.0.1:{promoted}/");
    let both = place.url.replace(&format!(":{port}/"), &both);
    let mut store = open(impatient(&both)).await.unwrap();
    let loaded = store.load().await.unwrap();
    assert_eq!(loaded.state, state);
    assert!(loaded.may_lack_rows, "it is on another timeline");
    commit(&mut store, &mut state, |staged| {
        buy(staged, "after", "nvidia", 1);
    })
    .await;
    let rows = |port| cluster.sql_at(port, "bazaar", "SELECT count(*) FROM journal");
    assert_eq!([rows(port), rows(promoted)], ["2", "3"]);
    // So it is for who reads, also for backups.
    let read = store.journal().rows(RowNumber(0), 9).await.unwrap();
    assert_eq!(read.len(), 3);
    let source = Source::open(&StoreUrl::parse(&both).unwrap()).await;
    let source = source.unwrap();
    assert_eq!(source.end(), state.leadership().end);
    // What each refuses is said of each.
    let strict = OpenOptions {
        allow_unreplicated: false,
        ..options(&both)
    };
    let told = refused(open(strict).await).to_string();
    assert!(
        told.contains("none of those in synchronous_standby_names, standby, is connected")
            && told.contains("synchronous_standby_names is empty"),
        "{told}"
    );
}

/// Stocks, rows and orders that were refused are read in steps.
#[tokio::test]
async fn a_backup_is_whole_however_many_steps_it_takes() {
    const MANY: usize = 2 * backup::pace::STEP_ROWS + 88;
    let Some(cluster) = lone() else { return };
    let place = PostgresPlace::new(&cluster, "bazaar");
    let listing = |number: usize| Listing {
        name: StockName::new(&format!("stock-{number}")).unwrap(),
        price: Price::from_minor(100).unwrap(),
        quantity: 1,
    };
    let new = NewJournal {
        id: random_journal().unwrap(),
        listings: (0..MANY).map(listing).collect(),
    };
    let begun = OpenOptions {
        new: Some(new),
        ..options(&place.url)
    };
    let mut store = open(begun).await.unwrap();
    let mut state = store.load().await.unwrap().state;
    commit(&mut store, &mut state, |staged| {
        staged.elect(Epoch(0), replica(2));
        for number in 0..MANY {
            let stock = format!("stock-{number}");
            buy(staged, &format!("bought-{number}"), &stock, 1);
            buy(staged, &format!("refused-{number}"), &stock, 1);
        }
    })
    .await;
    let (dir, url) = (
        tempfile::tempdir().unwrap(),
        StoreUrl::parse(&place.url).unwrap(),
    );
    let copied = backup::server::copy(&url, dir.path(), || ()).await;
    copied.unwrap();
    let checked = backup::check(dir.path()).unwrap();
    assert_eq!(checked.end, state.leadership().end);
    let mut copy = SqliteStore::open(dir.path()).unwrap();
    assert_eq!(copy.listings().unwrap().len(), MANY);
    assert_eq!(copy.refused().unwrap().len(), MANY);
    assert!(copy.load().unwrap().state.stocks().eq(state.stocks()));
    // A step that lacks one is not taken for whole.
    place.sql("DELETE FROM listing WHERE name = 'stock-300'");
    let again = tempfile::tempdir().unwrap();
    let refused = backup::server::copy(&url, again.path(), || ()).await;
    let said = refused.unwrap_err().to_string();
    assert!(said.contains("not as it was written"), "{said}");
}

#[tokio::test]
async fn a_commit_that_no_standby_takes_is_ambiguous_after_a_while() {
    let Some(cluster) = replicated() else { return };
    let place = PostgresPlace::new(&cluster, "bazaar");
    let mut store = open(impatient(&place.url)).await.unwrap();
    let state = store.load().await.unwrap().state;
    cluster.standby().signal_all(Signal::STOP);
    let error = store.commit(&staged(&state, elect_and_buy)).await;
    let error = error.unwrap_err();
    assert!(
        matches!(&error, StorageError::Ambiguous(said) if said.contains("no answer")),
        "{error}"
    );
    // What is asked on the same connection waits behind it, and not for ever.
    let error = store.find_keys(&[&key("one")]).await.unwrap_err();
    assert!(matches!(&error, StorageError::Server(_)), "{error}");
    cluster.standby().signal_all(Signal::CONT);
}

#[tokio::test]
async fn readers_connect_again_where_their_connections_broke() {
    let Some(mut cluster) = lone() else { return };
    let journal = {
        let place = PostgresPlace::new(&cluster, "bazaar");
        let mut store = place.store().await.unwrap();
        let mut state = store.load().await.unwrap().state;
        commit(&mut store, &mut state, elect_and_buy).await;
        store.journal()
    };
    let read = async || journal.rows(RowNumber(0), 9).await.map(|rows| rows.len());
    assert_eq!(read().await.unwrap(), 2);
    cluster.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE application_name = 'bazaar catalog'",
    );
    assert_eq!(read().await.unwrap(), 2);
    cluster.kill_primary();
    let error = read().await.unwrap_err();
    assert!(matches!(error, StorageError::Server(_)), "{error}");
    cluster.start_primary();
    assert_eq!(read().await.unwrap(), 2);
}

#[tokio::test]
async fn a_server_that_would_lose_trades_is_refused() {
    let Some(cluster) = replicated() else { return };
    let place = PostgresPlace::new(&cluster, "bazaar");
    let strict = || OpenOptions {
        allow_unreplicated: false,
        ..options(&place.url)
    };
    let mut store = open(strict()).await.unwrap();
    store.close().await.unwrap();
    let set = |sql: &str| {
        cluster.sql(sql);
        cluster.sql("SELECT pg_reload_conf()");
        std::thread::sleep(Duration::from_millis(300)); // sessions take it at their next statement
    };
    for (change, repair, problem, is_always) in [
        (
            "ALTER SYSTEM SET fsync = off",
            "ALTER SYSTEM SET fsync = on",
            "fsync is `off`",
            true,
        ),
        (
            "ALTER DATABASE bazaar SET synchronous_commit = local",
            "ALTER DATABASE bazaar RESET synchronous_commit",
            "synchronous_commit is `local`",
            true,
        ),
        (
            "ALTER DATABASE bazaar SET default_transaction_read_only = on",
            "ALTER DATABASE bazaar SET default_transaction_read_only = off",
            "does not allow writes",
            true,
        ),
        (
            "ALTER SYSTEM SET synchronous_standby_names = 'elsewhere'",
            "ALTER SYSTEM SET synchronous_standby_names = 'standby'",
            "none of those in synchronous_standby_names, elsewhere, is connected",
            false,
        ),
        (
            "ALTER SYSTEM SET synchronous_standby_names = ''",
            "ALTER SYSTEM SET synchronous_standby_names = 'standby'",
            "synchronous_standby_names is empty",
            false,
        ),
    ] {
        set(change);
        let told = refused(open(strict()).await).to_string();
        assert!(told.contains(problem), "{told}");
        if is_always {
            let told = refused(place.store().await).to_string();
            assert!(told.contains(problem), "{told}");
        }
        set(repair);
    }
    open(strict()).await.unwrap();
}

#[tokio::test]
async fn what_keeps_a_catalog_from_its_database_is_said_with_what_to_do() {
    let Some(cluster) = Cluster::start(&Options {
        passwords: true,
        ..Options::default()
    }) else {
        return;
    };
    cluster.sql("CREATE ROLE trader LOGIN PASSWORD 'hush hush'");
    cluster.sql("CREATE DATABASE bazaar OWNER trader");
    let port = cluster.port();
    let told = async |url: &str, new: bool| {
        let mut options = options(url);
        options.new = options.new.filter(|_| new);
        let told = refused(open(options).await).to_string();
        assert!(!told.contains("hush"), "{told}");
        told
    };
    let right = format!("postgres://trader:hush%20hush@127.0.0.1:{port}/bazaar?sslmode=disable");
    let wrong = right.replace("hush%20hush", "hushhush");
    let none = right.replace("/bazaar", "/bazar");
    let nobody = right.replace(&format!(":{port}"), ":1");
    let encrypted = right.replace("disable", "require");
    for (url, problem, remedy) in [
        (&wrong, "password", "BAZAAR_STORE"),
        (&none, "\"bazar\" does not exist", "CREATE DATABASE"),
        (&nobody, "refused", "postgres://trader@127.0.0.1:1/bazaar"),
        (&encrypted, "TLS", "sslmode=disable"),
    ] {
        let told = told(url, true).await;
        assert!(told.contains(problem) && told.contains(remedy), "{told}");
    }
    let no_journal = told(&right, false).await;
    assert!(no_journal.contains("--new"), "{no_journal}");
    let tables = "SELECT count(*) FROM pg_tables WHERE tableowner = 'trader'";
    assert_eq!(cluster.sql_in("bazaar", tables), "0", "it leaves no trace");

    // A role that is no superuser will do, as far as it may see the standbys.
    let mut strict = options(&right);
    strict.allow_unreplicated = false;
    cluster.sql("ALTER SYSTEM SET synchronous_standby_names = '*'");
    cluster.sql("SELECT pg_reload_conf()");
    let unreplicated = refused(open(strict.clone()).await);
    assert!(
        matches!(unreplicated, PostgresError::Unreplicated(_)),
        "{unreplicated}"
    );
    cluster.sql("ALTER SYSTEM SET synchronous_standby_names = ''");
    cluster.sql("SELECT pg_reload_conf()");
    let mut store = open(options(&right)).await.unwrap();
    store.close().await.unwrap();
    drop(store);

    cluster.sql_in("bazaar", "INSERT INTO migration VALUES (99)");
    let newer = told(&right, true).await;
    assert!(
        newer.contains("newer release") && newer.contains("99"),
        "{newer}"
    );
    cluster.sql_in("bazaar", "DELETE FROM migration WHERE number = 99");
    cluster.sql_in("bazaar", "UPDATE writer SET system_identifier = '17'");
    let moved = told(&right, true).await;
    assert!(
        moved.contains("another database cluster") && moved.contains("17"),
        "{moved}"
    );
}

#[tokio::test]
async fn who_may_not_see_the_standbys_is_told_what_to_grant() {
    let Some(cluster) = replicated() else { return };
    cluster.sql("CREATE ROLE trader LOGIN");
    cluster.sql("CREATE DATABASE bazaar OWNER trader");
    let url = format!(
        "postgres://trader@127.0.0.1:{}/bazaar?sslmode=disable",
        cluster.port()
    );
    let strict = || OpenOptions {
        allow_unreplicated: false,
        ..options(&url)
    };
    let told = refused(open(strict()).await).to_string();
    assert!(told.contains("GRANT pg_monitor"), "{told}");
    cluster.sql("GRANT pg_monitor TO trader");
    open(strict()).await.unwrap();
}

/// A server that encrypts, and has an empty database; with certificates that are its, and others.
struct Encrypting {
    cluster: Cluster,
    own: Certificates,
    /// By another authority.
    others: Certificates,
    _dirs: [tempfile::TempDir; 2],
}

impl Encrypting {
    /// `None` where there is no PostgreSQL.
    fn start() -> Option<Self> {
        if test_postgres::programs().is_none() {
            test_postgres::skip::skip("PostgreSQL", "scripts/test-setup installs it");
            return None;
        }
        let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
        // The server reads its own.
        test_postgres::process::chown(dirs[0].path());
        let [own, others] = dirs.each_ref().map(|dir| Certificates::make(dir.path()));
        let cluster = Cluster::start(&Options {
            settings: vec![
                ("ssl", "on".into()),
                ("ssl_cert_file", own.certificate.display().to_string()),
                ("ssl_key_file", own.key.display().to_string()),
            ],
            ..Options::default()
        });
        let cluster = cluster.expect("there is PostgreSQL");
        cluster.sql("CREATE DATABASE bazaar");
        Some(Self {
            cluster,
            own,
            others,
            _dirs: dirs,
        })
    }
}

#[tokio::test]
async fn with_verify_full_only_the_host_that_was_asked_for_is_believed() {
    let Some(server) = Encrypting::start() else {
        return;
    };
    let Encrypting {
        cluster,
        own,
        others,
        ..
    } = &server;
    let port = cluster.port();
    let open = async |host: &str, mode: &str, roots: Option<&Certificates>| {
        let roots = roots.map(|roots| format!("&sslrootcert={}", roots.authority.display()));
        let roots = roots.unwrap_or_default();
        let url = format!("postgres://{SUPERUSER}@{host}:{port}/bazaar?sslmode={mode}{roots}");
        let mut store = open(options(&url)).await?;
        let is_encrypted = cluster.sql(
            "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
             WHERE application_name = 'bazaar catalog'",
        );
        store.close().await?;
        Ok::<bool, OpenError>(is_encrypted == "t")
    };
    // The certificate is for `localhost` alone.
    for (host, mode, roots, encrypted) in [
        ("localhost", "verify-full", Some(own), true),
        ("127.0.0.1", "verify-ca", Some(own), true),
        ("127.0.0.1", "require", Some(own), true),
        ("127.0.0.1", "require", None, true),
        ("127.0.0.1", "prefer", None, true),
        ("127.0.0.1", "disable", None, false),
    ] {
        let opened = open(host, mode, roots).await;
        let opened = opened.unwrap_or_else(|error| panic!("{mode} {host}: {error}"));
        assert_eq!(opened, encrypted, "{mode}");
    }
    for (host, mode, roots) in [
        ("127.0.0.1", "verify-full", own),
        ("localhost", "verify-full", others),
        ("localhost", "verify-ca", others),
        ("localhost", "require", others),
    ] {
        match open(host, mode, Some(roots)).await {
            Err(OpenError::Refused(PostgresError::Connect { problem, .. })) => {
                let said = "the other end's certificate ";
                assert!(problem.contains(said), "{mode} {host}: {problem}");
            }
            other => panic!("{mode} {host}: {other:?}"),
        }
    }
}

/// A catalog that stands by was started long before it is connected again.
#[tokio::test]
async fn a_server_is_believed_by_the_authorities_that_the_file_names_when_it_is_connected_to() {
    let Some(server) = Encrypting::start() else {
        return;
    };
    let Encrypting {
        cluster,
        own,
        others,
        ..
    } = &server;
    let dir = tempfile::tempdir().unwrap();
    let roots = dir.path().join("roots.pem");
    std::fs::copy(&own.authority, &roots).unwrap();
    let url = format!(
        "postgres://{SUPERUSER}@localhost:{}/bazaar?sslmode=verify-full&sslrootcert={}",
        cluster.port(),
        roots.display()
    );
    let options = options(&url);
    let connect = async || {
        let mut store = open(options.clone()).await?;
        store.close().await?;
        Ok::<_, OpenError>(())
    };
    connect().await.unwrap();
    // A file that is just being written changes nothing.
    std::fs::write(&roots, "").unwrap();
    connect().await.unwrap();
    // The server gets a certificate by another authority.
    std::fs::copy(&others.certificate, &own.certificate).unwrap();
    std::fs::copy(&others.key, &own.key).unwrap();
    cluster.sql("SELECT pg_reload_conf()");
    let began = Instant::now();
    while connect().await.is_ok() {
        assert!(began.elapsed() < PATIENCE, "the server shows what it did");
    }
    std::fs::copy(&others.authority, &roots).unwrap();
    connect().await.unwrap();
}

/// Term *and* beat: a writer that was silent for as long as a lease, and goes on just then, keeps it.
#[test]
fn a_writer_that_goes_on_as_another_takes_over_keeps_its_lease() {
    let Some(cluster) = lone() else { return };
    let place = PostgresPlace::new(&cluster, "bazaar");
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().unwrap();
    drop(runtime.block_on(place.store()).unwrap()); // and does not let go
    let busy = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    std::thread::scope(|scope| {
        // A commit that is under way for longer than the beat is watched.
        let beat = "UPDATE writer SET beat = beat + 1; SELECT pg_sleep(0.6)";
        let commit = scope.spawn(|| {
            place.sql(beat);
            Instant::now()
        });
        while cluster.sql(busy) == "0" {
            assert!(!commit.is_finished());
        }
        runtime.block_on(place.store()).unwrap();
        let taken = Instant::now();
        let waited = taken.duration_since(commit.join().unwrap());
        // psql ends a while after the commit, longer on a busy machine. Without the rule it is taken over at once.
        assert!(waited >= LEASE / 3, "taken over {waited:?} after a beat");
    });
}

/// It may be long, and nobody is served before it is opened.
#[tokio::test]
async fn the_stocks_are_compared_with_a_long_journal_before_it_serves_and_its_rows_beside() {
    let Some(cluster) = lone() else { return };
    let place = PostgresPlace::new(&cluster, "long");
    let mut store = place.store().await.unwrap();
    let mut state = store.load().await.unwrap().state;
    commit(&mut store, &mut state, elect_and_buy).await;
    for batch in 0..5 {
        let many = |staged: &mut Staged<'_>| {
            for row in 0..1000 {
                let order = Order {
                    side: Side::Sell,
                    ..order(&format!("{batch}-{row}"), "nvidia", 1)
                };
                staged.trade(Epoch(1), order, None).unwrap();
            }
        };
        commit(&mut store, &mut state, many).await;
    }
    store.close().await.unwrap();
    let mut reopened = place.reopened().await;
    let unchecked = reopened.unchecked().expect("it is long");
    unchecked.check().await.unwrap();
    reopened.close().await.unwrap();
    // Neither has a chain or a checksum of its own.
    for change in ["quantity = quantity + 1", "version = version + 1"] {
        let undo = change.replace('+', "-");
        place.sql(&format!("UPDATE stock SET {change} WHERE name = 'nvidia'"));
        place.forget_writer();
        let opened = place.store().await;
        let error = opened.err().map(|error| error.to_string());
        assert!(
            error.is_some_and(|error| error.contains("nvidia")),
            "{change}"
        );
        place.sql(&format!("UPDATE stock SET {undo} WHERE name = 'nvidia'"));
    }
    place.sql("UPDATE journal SET price = price + 1 WHERE number = 2000");
    let mut reopened = place.reopened().await;
    let unchecked = reopened.unchecked().expect("it is long");
    assert!(unchecked.check().await.unwrap_err().is_damage());
}
