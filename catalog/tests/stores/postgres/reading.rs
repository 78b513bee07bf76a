//! What is read: by indexes, over connections that broke, of the right server, and whole.

use std::time::{Duration, Instant};

use domain::{Epoch, Order, Price, RowNumber, Side, StockName};
use storage::StorageError;

use catalog::backup;
use catalog::stocks::Listing;
use catalog::store::postgres::transfer::Source;
use catalog::store::postgres::{NewJournal, OpenOptions, StoreUrl};
use catalog::store::sqlite::SqliteStore;
use catalog::store::{Journal, Store, random_journal};
use catalog_core::{PriorOutcome, Staged};

use super::{PostgresPlace, impatient, key, lone, open, options, refused, replicated};
use crate::suite::{buy, commit, elect_and_buy, order, replica};

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
