//! Who writes: a term is taken, let go of, and over.

use std::time::Instant;

use domain::time::BootTime;
use domain::{Protocol, RowNumber};
use rpc::clients::Client;
use rustix::process::Signal;
use storage::StorageError;
use tokio::sync::watch;

use catalog::callers::Callers;
use catalog::store::postgres::{OpenOptions, PostgresStore};
use catalog::store::{Journal, Loaded, Store};

use super::{LEASE, PATIENCE, PostgresPlace, impatient, key, lone, open, options};
use crate::suite::{Place, buy, commit, elect_and_buy, replica, staged};

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
