//! What became of a commit, whatever happens to the server and to the way there.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use storage::StorageError;
use test_postgres::proxy::{Proxy, Replies};

use catalog::store::Store;
use catalog::store::postgres::OpenOptions;
use catalog_core::PriorOutcome;

use super::{PostgresPlace, impatient, key, lone, open, options, replicated};
use crate::suite::{buy, commit, elect_and_buy, staged};

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
