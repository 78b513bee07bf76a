//! What every store does, whatever keeps it: one suite, run over SQLite and over PostgreSQL.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use domain::{
    ChangeNumber, Epoch, IdempotencyKey, JournalId, Note, Order, OrderNumber, Price, Protocol,
    Quantity, ReplicaId, RowNumber, Side, StockChange, StockChangeKind, StockName,
};
use storage::StorageError;
use tonic::async_trait;

use catalog::stocks::{self, built_in};
use catalog::store::sqlite::{FILE, SqliteStore};
use catalog::store::{Journal, Loaded, REFUSED_ORDERS_KEPT, Store};
use catalog_core::{Batch, CatalogState, PriorOutcome, Staged, TradeResult};
use domain::Refusal;

use crate::postgres::PostgresPlace;

/// Longest wait for what must be so in a moment.
const SOON: Duration = Duration::from_secs(10);

/// Where a database is, which is opened again and again.
#[async_trait]
pub trait Place: Sync {
    /// Begins a journal in it where there is none. What had it open before is gone.
    async fn open(&self) -> Result<(Box<dyn Store>, Box<dyn Journal>), StorageError>;

    /// Changes it behind the store's back.
    async fn change(&self, sql: &str);

    /// What makes it one that release 0.1.0 has made, and what fails where it is not.
    fn as_of_0_1_0(&self) -> &'static str;
    fn check_0_1_0(&self) -> &'static str;
}

/// A directory.
struct SqlitePlace(tempfile::TempDir);

impl SqlitePlace {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
}

#[async_trait]
impl Place for SqlitePlace {
    async fn open(&self) -> Result<(Box<dyn Store>, Box<dyn Journal>), StorageError> {
        let mut store = reopen(self.0.path()).await?;
        if store.is_new() {
            store.begin(
                JournalId::new([9; JournalId::BYTES]),
                &built_in(),
                Protocol::NEWEST,
            )?;
        }
        let journal = store.journal()?;
        Ok((Box::new(store), Box::new(journal)))
    }

    async fn change(&self, sql: &str) {
        let connection = rusqlite::Connection::open(self.0.path().join(FILE)).unwrap();
        connection.execute_batch(sql).unwrap();
    }

    fn as_of_0_1_0(&self) -> &'static str {
        "DROP TABLE protocol; PRAGMA user_version = 0"
    }

    fn check_0_1_0(&self) -> &'static str {
        "CREATE TABLE protocol (x INTEGER); DROP TABLE protocol"
    }
}

/// A process that a test beside this one starts has its lock for a moment: between its beginning and
/// the program's.
async fn reopen(path: &Path) -> Result<SqliteStore, StorageError> {
    let started = Instant::now();
    loop {
        match SqliteStore::open(path) {
            Err(StorageError::NotTaken(_)) if started.elapsed() < SOON => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            opened => return opened,
        }
    }
}

/// Each of these is a test over SQLite, and all of them are one over PostgreSQL.
macro_rules! over_both {
    ($($name:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test]
            async fn $name() {
                super::$name(&super::SqlitePlace::new()).await;
            })+
        }

        #[tokio::test]
        async fn postgres_does_what_sqlite_does() {
            let Some(cluster) = test_postgres::Cluster::start(&Default::default()) else {
                return;
            };
            $(let place = PostgresPlace::new(&cluster, stringify!($name));
            println!("{}", stringify!($name)); // shown where it fails
            $name(&place).await;)+
        }
    };
}

over_both!(
    what_was_committed_is_there_when_it_is_opened_again,
    terms_and_sets_outlive_a_restart,
    a_database_of_the_release_before_stays_its_own_until_the_protocol_is_raised,
    a_batch_is_committed_whole_or_not_at_all,
    keys_are_found_in_their_order,
    the_last_orders_that_were_refused_are_remembered,
    rows_are_read_from_any_number_on,
    a_row_that_was_changed_is_never_returned,
    a_database_that_was_changed_is_not_opened,
    a_refused_order_that_was_changed_is_not_told_of,
    stocks_are_what_the_changes_of_the_journal_make_them,
    stocks_that_are_not_what_changes_made_them_are_damage,
);

pub fn order(key: &str, stock: &str, quantity: u64) -> Order {
    Order {
        key: IdempotencyKey::new(key).unwrap(),
        name: StockName::new(stock).unwrap(),
        side: Side::Buy,
        quantity: Quantity::new(quantity).unwrap(),
    }
}

pub fn replica(id: u32) -> ReplicaId {
    ReplicaId::new(id).unwrap()
}

fn change(number: u64) -> ChangeNumber {
    ChangeNumber::new(number).unwrap()
}

/// Makes durable, and then applies, what is staged.
pub async fn commit(
    store: &mut dyn Store,
    state: &mut CatalogState,
    stage: impl FnOnce(&mut Staged<'_>),
) -> Batch {
    let batch = staged(state, stage);
    store.commit(&batch).await.unwrap();
    state.apply(batch.clone());
    batch
}

pub fn staged(state: &CatalogState, stage: impl FnOnce(&mut Staged<'_>)) -> Batch {
    let mut staged = state.stage();
    stage(&mut staged);
    staged.into_batch()
}

/// Elects replica 2, and buys some of two stocks.
pub fn elect_and_buy(staged: &mut Staged<'_>) {
    let epoch = staged.elect(Epoch(0), replica(2)).epoch;
    let both = BTreeSet::from([replica(1), replica(2)]);
    staged.set_in_sync(epoch, change(1), both).unwrap();
    buy(staged, "one", "nvidia", 10);
    buy(staged, "two", "meta", 1);
}

/// In epoch 1.
pub fn buy(staged: &mut Staged<'_>, key: &str, stock: &str, quantity: u64) -> TradeResult {
    let order = order(key, stock, quantity);
    staged.trade(Epoch(1), order, None).unwrap()
}

async fn known(store: &mut dyn Store, key: &str) -> Result<Option<PriorOutcome>, StorageError> {
    let key = IdempotencyKey::new(key).unwrap();
    let mut known = store.find_keys(&[&key]).await?;
    assert_eq!(known.len(), 1);
    Ok(known.remove(0))
}

async fn what_was_committed_is_there_when_it_is_opened_again(place: &dyn Place) {
    let (mut store, _) = place.open().await.unwrap();
    let mut loaded = store.load().await.unwrap();
    assert_eq!(loaded.state.leadership(), Default::default());
    let batch = commit(&mut *store, &mut loaded.state, elect_and_buy).await;
    commit(&mut *store, &mut loaded.state, |staged| {
        buy(staged, "three", "nvidia", 990);
    })
    .await;
    drop(store);

    let (mut store, journal) = place.open().await.unwrap();
    let expected = Loaded {
        protocol: Protocol::NEWEST,
        listing: stocks::digest(&built_in()),
        sessions_out: None,
        ..loaded
    };
    assert_eq!(store.load().await.unwrap(), expected);
    let rows = journal.rows(RowNumber(0), 10).await.unwrap();
    assert_eq!((&rows[..2], rows.len()), (&batch.rows[..], 3));
}

async fn a_database_of_the_release_before_stays_its_own_until_the_protocol_is_raised(
    place: &dyn Place,
) {
    let (store, _) = place.open().await.unwrap();
    drop(store);
    place.change(place.as_of_0_1_0()).await;
    let (mut store, _) = place.open().await.unwrap();
    let mut loaded = store.load().await.unwrap();
    assert_eq!(loaded.protocol, Protocol::FIRST);
    commit(&mut *store, &mut loaded.state, elect_and_buy).await;
    drop(store);
    // Nothing is in it yet with which release 0.1.0 would refuse it.
    place.change(place.check_0_1_0()).await;
    for before in [Protocol::FIRST, Protocol::NEWEST] {
        let (mut store, _) = place.open().await.unwrap();
        assert_eq!(store.load().await.unwrap().protocol, before);
        store.raise_protocol(Protocol::NEWEST).await.unwrap();
        store.raise_protocol(Protocol::FIRST).await.unwrap();
        assert_eq!(store.load().await.unwrap().protocol, Protocol::NEWEST);
    }
}

async fn terms_and_sets_outlive_a_restart(place: &dyn Place) {
    let (mut store, _) = place.open().await.unwrap();
    let mut state = store.load().await.unwrap().state;
    commit(&mut *store, &mut state, elect_and_buy).await;
    let alone = BTreeSet::from([replica(2)]);
    for number in [2, ChangeNumber::MAX] {
        commit(&mut *store, &mut state, |staged| {
            let set = staged.set_in_sync(Epoch(1), change(number), alone.clone());
            set.unwrap();
        })
        .await;
    }
    drop(store);
    let (mut store, _) = place.open().await.unwrap();
    let mut state_then = store.load().await.unwrap().state;
    assert_eq!(state_then, state);
    commit(&mut *store, &mut state_then, |staged| {
        let late = staged.set_in_sync(Epoch(1), change(3), alone.clone());
        late.unwrap_err();
        staged.elect(Epoch(1), replica(1));
    })
    .await;
    drop(store);
    let (mut store, _) = place.open().await.unwrap();
    assert_eq!(store.load().await.unwrap().state, state_then);
}

async fn a_batch_is_committed_whole_or_not_at_all(place: &dyn Place) {
    let (mut store, journal) = place.open().await.unwrap();
    let before = store.load().await.unwrap();
    let mut batch = staged(&before.state, |staged| {
        elect_and_buy(staged);
        buy(staged, "refused", "nvidia", 5000);
    });
    let again = batch.rows[0].clone();
    batch.rows.push(again); // breaks the primary key
    let error = store.commit(&batch).await.unwrap_err();
    assert!(!error.ends_process(), "{error}");
    assert_eq!(store.load().await.unwrap(), before);
    assert_eq!(journal.rows(RowNumber(0), 9).await.unwrap(), []);
    assert_eq!(known(&mut *store, "refused").await.unwrap(), None);
    batch.rows.pop();
    store.commit(&batch).await.unwrap();
    let mut state = before.state;
    state.apply(batch);
    assert_eq!(store.load().await.unwrap().state, state);
}

async fn keys_are_found_in_their_order(place: &dyn Place) {
    let (mut store, _) = place.open().await.unwrap();
    let mut state = store.load().await.unwrap().state;
    let batch = commit(&mut *store, &mut state, |staged| {
        elect_and_buy(staged);
        buy(staged, "few", "nvidia", 5000);
        buy(staged, "none", "nothing", 1);
    })
    .await;
    let keys = ["none", "new", "two", "few", "one", "two"].map(|key| order(key, "a", 1).key);
    let found = store.find_keys(&keys.each_ref()).await.unwrap();
    let row = |at: usize| Some(PriorOutcome::Row(batch.rows[at].clone()));
    let refused = |at: usize| Some(PriorOutcome::Refused(batch.refused[at].clone()));
    assert_eq!(
        found,
        [refused(1), None, row(1), refused(0), row(0), row(1)]
    );
    assert_eq!(batch.refused[1].refusal, Refusal::StockNotFound);
    assert_eq!(store.find_keys(&[]).await.unwrap(), []);
}

async fn the_last_orders_that_were_refused_are_remembered(place: &dyn Place) {
    let (mut store, _) = place.open().await.unwrap();
    let mut state = store.load().await.unwrap().state;
    commit(&mut *store, &mut state, |staged| {
        elect_and_buy(staged);
        buy(staged, "first", "nvidia", 5000);
        buy(staged, "second", "nvidia", 5000);
    })
    .await;
    // As if that many had been refused between them, and after the second.
    let earlier = REFUSED_ORDERS_KEPT;
    place
        .change(&format!(
            "UPDATE refused SET id = id - {earlier} WHERE key = 'first';"
        ))
        .await;
    commit(&mut *store, &mut state, |staged| {
        buy(staged, "third", "nvidia", 5000);
    })
    .await;
    assert_eq!(known(&mut *store, "first").await.unwrap(), None);
    for key in ["second", "third"] {
        assert!(known(&mut *store, key).await.unwrap().is_some(), "{key}");
    }
    drop(store);
    let (mut store, _) = place.open().await.unwrap();
    commit(&mut *store, &mut state, |staged| {
        buy(staged, "fourth", "nvidia", 5000);
    })
    .await;
    for key in ["second", "third", "fourth"] {
        assert!(known(&mut *store, key).await.unwrap().is_some(), "{key}");
    }
}

async fn rows_are_read_from_any_number_on(place: &dyn Place) {
    let (mut store, journal) = place.open().await.unwrap();
    let mut state = store.load().await.unwrap().state;
    let rows = five_rows(&mut *store, &mut state).await.rows;
    for from in 0..7 {
        for rows_max in [0, 1, 2, 100] {
            let read = journal.rows(RowNumber(from), rows_max).await.unwrap();
            let expected = rows.iter().skip(from as usize).take(rows_max);
            assert!(read.iter().eq(expected), "{rows_max} from {from}: {read:?}");
        }
    }
    assert_eq!(
        journal.rows(RowNumber(i64::MAX as u64), 3).await.unwrap(),
        []
    );
}

async fn five_rows(store: &mut dyn Store, state: &mut CatalogState) -> Batch {
    let stage = |staged: &mut Staged<'_>| {
        elect_and_buy(staged);
        for key in ["three", "four", "five"] {
            buy(staged, key, "tesla", 1);
        }
    };
    commit(store, state, stage).await
}

async fn a_row_that_was_changed_is_never_returned(place: &dyn Place) {
    let (mut store, journal) = place.open().await.unwrap();
    let mut state = store.load().await.unwrap().state;
    let rows = five_rows(&mut *store, &mut state).await.rows;
    for (change, repair) in [
        ("quantity = quantity + 1", "quantity = quantity - 1"),
        ("price = price + 1", "price = price - 1"),
        ("side = 'sell'", "side = 'buy'"),
        ("name = 'meta'", "name = 'tesla'"),
        ("epoch = epoch + 1", "epoch = epoch - 1"),
        ("key = 'another'", "key = 'four'"),
        ("number = 77", "number = 3"),
    ] {
        let row = |change: &str| format!("UPDATE journal SET {change} WHERE number IN (3, 77);");
        place.change(&row(change)).await;
        let from_there = journal.rows(RowNumber(3), 1).await;
        // One that has another number is missing.
        assert!(
            from_there.as_ref().is_err_and(StorageError::is_damage),
            "{change}: {from_there:?}"
        );
        let before = journal.rows(RowNumber(0), 3).await.unwrap();
        assert_eq!(before, rows[..3], "{change}");
        for key in ["four", "another"] {
            let found = known(&mut *store, key).await;
            assert!(!matches!(found, Ok(Some(_))), "{change}: {found:?}");
        }
        place.change(&row(repair)).await;
        assert_eq!(journal.rows(RowNumber(0), 9).await.unwrap(), rows);
    }
}

/// What was changed is not opened, and what was repaired is.
async fn check_damage(place: &dyn Place, state: &CatalogState, (change, repair): (&str, &str)) {
    place.change(change).await;
    let opened = match place.open().await {
        Ok((mut store, _)) => store.load().await.map(drop),
        Err(error) => Err(error),
    };
    let error = opened.unwrap_err();
    assert!(error.is_damage(), "{change}: {error}");
    place.change(repair).await;
    let (mut store, _) = place.open().await.unwrap();
    assert_eq!(store.load().await.unwrap().state, *state, "{repair}");
}

async fn a_database_that_was_changed_is_not_opened(place: &dyn Place) {
    let (mut store, _) = place.open().await.unwrap();
    let mut state = store.load().await.unwrap().state;
    five_rows(&mut *store, &mut state).await;
    drop(store);
    for (change, repair) in [
        (
            "UPDATE journal SET quantity = quantity + 1 WHERE number = 2;",
            "UPDATE journal SET quantity = quantity - 1 WHERE number = 2;",
        ),
        (
            "UPDATE journal SET number = 9 WHERE number = 4;",
            "UPDATE journal SET number = 4 WHERE number = 9;",
        ),
        (
            "UPDATE journal SET number = 9 WHERE number = 0;",
            "UPDATE journal SET number = 0 WHERE number = 9;",
        ),
        (
            "UPDATE stock SET quantity = quantity + 1 WHERE name = 'meta';",
            "UPDATE stock SET quantity = quantity - 1 WHERE name = 'meta';",
        ),
        (
            "UPDATE stock SET volume = volume + 1 WHERE name = 'amc';",
            "UPDATE stock SET volume = volume - 1 WHERE name = 'amc';",
        ),
        (
            "UPDATE stock SET version = version + 1 WHERE name = 'amc';",
            "UPDATE stock SET version = version - 1 WHERE name = 'amc';",
        ),
        (
            "UPDATE stock SET price = price + 1 WHERE name = 'amc';",
            "UPDATE stock SET price = price - 1 WHERE name = 'amc';",
        ),
        (
            "UPDATE listing SET quantity = quantity + 1 WHERE name = 'amc';",
            "UPDATE listing SET quantity = quantity - 1 WHERE name = 'amc';",
        ),
        (
            "UPDATE leadership SET epoch = epoch + 1;",
            "UPDATE leadership SET epoch = epoch - 1;",
        ),
        (
            "UPDATE leadership SET leader = 1;",
            "UPDATE leadership SET leader = 2;",
        ),
        (
            "UPDATE leadership SET change = 0;",
            "UPDATE leadership SET change = 1;",
        ),
    ] {
        check_damage(place, &state, (change, repair)).await;
    }
}

async fn a_refused_order_that_was_changed_is_not_told_of(place: &dyn Place) {
    let (mut store, _) = place.open().await.unwrap();
    let mut state = store.load().await.unwrap().state;
    commit(&mut *store, &mut state, |staged| {
        elect_and_buy(staged);
        buy(staged, "few", "nvidia", 5000);
    })
    .await;
    for change in [
        "UPDATE refused SET side = 'sell';",
        "UPDATE refused SET refusal = 'too many', side = 'buy';",
        "UPDATE refused SET refusal = 'not enough', quantity = quantity - 1;",
    ] {
        assert!(known(&mut *store, "few").await.unwrap().is_some());
        place.change(change).await;
        let error = known(&mut *store, "few").await.unwrap_err();
        assert!(error.is_damage(), "{change}: {error}");
        place
            .change("UPDATE refused SET side = 'buy', refusal = 'not enough', quantity = 5000;")
            .await;
    }
}

/// In epoch 1.
fn change_stock(staged: &mut Staged<'_>, key: &str, stock: &str, kind: StockChangeKind) {
    let change = StockChange {
        key: IdempotencyKey::new(key).unwrap(),
        name: StockName::new(stock).unwrap(),
        kind,
        note: Note::new("somebody", "says \"why\""),
    };
    staged.trade(Epoch(1), change, None).unwrap();
}

fn add(minor: u64, quantity: u64) -> StockChangeKind {
    StockChangeKind::Add {
        price: Price::from_minor(minor).unwrap(),
        quantity,
    }
}

fn dearer(minor: u64) -> StockChangeKind {
    StockChangeKind::Price {
        price: Price::from_minor(minor).unwrap(),
    }
}

fn restock(shares: u64) -> StockChangeKind {
    StockChangeKind::Restock {
        quantity: Quantity::new(shares).unwrap(),
    }
}

/// Whatever can be done with stocks, in a few batches.
async fn change_stocks(store: &mut dyn Store, state: &mut CatalogState) -> Vec<Batch> {
    let stages: [fn(&mut Staged<'_>); 4] = [
        |staged| {
            elect_and_buy(staged);
            change_stock(staged, "c1", "acme", add(700, 5));
            buy(staged, "three", "acme", 2);
            change_stock(staged, "c2", "acme", dearer(701));
            buy(staged, "four", "acme", 1);
            change_stock(staged, "exists", "meta", add(1, 1));
        },
        |staged| {
            change_stock(staged, "c3", "acme", restock(40));
            change_stock(staged, "c4", "tesla", StockChangeKind::Delist);
            change_stock(staged, "c5", "meta", dearer(1));
            buy(staged, "five", "tesla", 1);
            buy(staged, "six", "meta", 9);
        },
        |staged| {
            change_stock(staged, "c6", "acme", StockChangeKind::Delist);
            change_stock(staged, "c7", "acme", add(900, 3));
            buy(staged, "seven", "acme", 3);
            change_stock(staged, "c8", "short", add(10, 0));
            change_stock(staged, "c9", "short", StockChangeKind::Delist);
        },
        |staged| {
            change_stock(staged, "c10", "tesla", add(20_000, 7));
            buy(staged, "eight", "tesla", 6);
            change_stock(staged, "c11", "nike", StockChangeKind::Delist);
        },
    ];
    let mut batches = Vec::new();
    for stage in stages {
        batches.push(commit(store, state, stage).await);
    }
    batches
}

async fn stocks_are_what_the_changes_of_the_journal_make_them(place: &dyn Place) {
    let (mut store, _) = place.open().await.unwrap();
    let mut state = store.load().await.unwrap().state;
    let batches = change_stocks(&mut *store, &mut state).await;
    drop(store);
    // Opened, they are compared with the journal.
    let (mut store, journal) = place.open().await.unwrap();
    assert_eq!(store.load().await.unwrap().state, state);
    let rows: Vec<_> = batches
        .iter()
        .flat_map(|batch| batch.rows.clone())
        .collect();
    assert_eq!(journal.rows(RowNumber(0), 100).await.unwrap(), rows);
    let acme = state.stocks().find(|stock| stock.name.as_str() == "acme");
    assert_eq!(
        acme.map(|acme| (acme.price.minor(), acme.quantity)),
        Some((900, 0))
    );
    let orders: Vec<_> = rows.iter().filter(|row| row.order().is_some()).collect();
    assert_eq!((orders.len(), rows.len()), (7, 18));
    let end = state.leadership().end;
    for number in 0..9 {
        let found = journal.order(OrderNumber(number), end).await.unwrap();
        assert_eq!(
            found.as_ref(),
            orders.get(number as usize).copied(),
            "{number}"
        );
    }
    for row in &rows {
        let key = row.entry.key().as_str();
        let found = known(&mut *store, key).await.unwrap();
        assert_eq!(found, Some(PriorOutcome::Row(row.clone())), "{key}");
    }
    let refused = batches.iter().flat_map(|batch| &batch.refused);
    let refused: Vec<_> = refused.collect();
    assert_eq!(refused.len(), 2);
    assert_eq!(refused[0].refusal, Refusal::StockExists);
    for refused in refused {
        let key = refused.entry.key().as_str();
        let found = known(&mut *store, key).await.unwrap();
        assert_eq!(found, Some(PriorOutcome::Refused(refused.clone())), "{key}");
    }
}

async fn stocks_that_are_not_what_changes_made_them_are_damage(place: &dyn Place) {
    let (mut store, _) = place.open().await.unwrap();
    let mut state = store.load().await.unwrap().state;
    change_stocks(&mut *store, &mut state).await;
    drop(store);
    for (change, repair) in [
        (
            "UPDATE stock SET price = 701 WHERE name = 'acme';",
            "UPDATE stock SET price = 900 WHERE name = 'acme';",
        ),
        (
            "UPDATE stock SET quantity = 1 WHERE name = 'acme';",
            "UPDATE stock SET quantity = 0 WHERE name = 'acme';",
        ),
        (
            "UPDATE stock SET version = version + 1 WHERE name = 'tesla';",
            "UPDATE stock SET version = version - 1 WHERE name = 'tesla';",
        ),
        (
            "INSERT INTO stock (name, price, quantity, volume, version) VALUES ('nike', 12143, 1000, 0, 1);",
            "DELETE FROM stock WHERE name = 'nike';",
        ),
        (
            "UPDATE journal SET stock_changes = 0 WHERE number = 3;",
            "UPDATE journal SET stock_changes = 1 WHERE number = 3;",
        ),
        (
            "UPDATE journal SET stock_change = replace(stock_change, '701', '702') WHERE number = 4;",
            "UPDATE journal SET stock_change = replace(stock_change, '702', '701') WHERE number = 4;",
        ),
    ] {
        check_damage(place, &state, (change, repair)).await;
    }
}

/// Batches of each size that are measured.
const MEASURED: usize = 60;

/// Figures for people, `--ignored --nocapture`: what a batch costs by its size, with the look-up of its keys.
#[tokio::test]
#[ignore = "prints figures for people, and promises nothing"]
async fn what_a_batch_costs_by_its_size() {
    measure("SQLite", &SqlitePlace::new()).await;
    for standby in [false, true] {
        let options = test_postgres::Options {
            standby,
            ..Default::default()
        };
        let Some(cluster) = test_postgres::Cluster::start(&options) else {
            return;
        };
        let name = if standby {
            "PostgreSQL with a standby"
        } else {
            "PostgreSQL"
        };
        measure(name, &PostgresPlace::new(&cluster, "costs")).await;
    }
}

async fn measure(name: &str, place: &dyn Place) {
    let (mut store, _) = place.open().await.unwrap();
    let mut state = store.load().await.unwrap().state;
    commit(&mut *store, &mut state, elect_and_buy).await;
    for rows in [1, 64, 256, 1024] {
        let mut times = Vec::new();
        for batch in 0..MEASURED {
            let mut staged = state.stage();
            let keys: Vec<String> = (0..rows)
                .map(|row| format!("{rows}-{batch}-{row}"))
                .collect();
            for (row, key) in keys.iter().enumerate() {
                let side = [Side::Buy, Side::Sell][row % 2];
                let order = Order {
                    side,
                    ..order(key, built_in()[row / 2 % 12].name.as_str(), 1)
                };
                staged.trade(Epoch(1), order, None).unwrap();
            }
            let staged = staged.into_batch();
            let keys: Vec<_> = staged.rows.iter().map(|row| row.entry.key()).collect();
            let started = Instant::now();
            store.find_keys(&keys).await.unwrap();
            store.commit(&staged).await.unwrap();
            times.push(started.elapsed());
            state.apply(staged);
        }
        times.sort();
        println!("{name}: {rows} rows: {:?} median", times[MEASURED / 2]);
    }
}
