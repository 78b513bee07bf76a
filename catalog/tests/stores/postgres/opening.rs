//! Which servers and databases a catalog opens, and what it says of the others.

use std::time::Duration;

use test_postgres::{Cluster, Options};

use catalog::store::Store;
use catalog::store::postgres::{OpenOptions, PostgresError};

use super::{PostgresPlace, lone, open, options, refused, replicated};

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
