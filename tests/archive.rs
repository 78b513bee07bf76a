//! Old rows that have left the databases: everything is answered as before, whatever dies and is lost.

use std::fs;
use std::path::{Path, PathBuf};

use domain::LedgerEnd;
use order::inspect::Ledger;
use rusqlite::{Connection, OpenFlags};

use crate::harness::{Bazaar, Options, Order, Server, run, run_ok, wait_until};

/// How many rows stay; 64 are archived together.
const ARCHIVE_AFTER: u64 = 100;

/// How many orders there are in all, so that files are merged.
const ORDERS: u64 = 800;

const REPLICAS: [u32; 3] = [1, 2, 3];

fn order(number: u64) -> Order {
    Order::sell(1 + (number % 5) as i64, "meta")
}

fn key(number: u64) -> String {
    format!("key-{number}")
}

/// Places orders under keys of their own until there are so many.
fn trade_to(bazaar: &Bazaar, orders: u64) {
    for number in bazaar.acknowledged()..orders {
        let placed = bazaar.order_under(Some(&key(number)), &order(number));
        assert_eq!(placed.data()["transaction_number"], number);
    }
}

fn databases(bazaar: &Bazaar) -> Vec<PathBuf> {
    let orders = REPLICAS.map(|id| bazaar.data_dir(id).join("orders.db"));
    let catalog = bazaar.catalog_dir().join("catalog.db");
    [catalog].into_iter().chain(orders).collect()
}

/// The first row that a database still has itself.
fn first_row(database: &Path) -> u64 {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let connection = Connection::open_with_flags(database, flags).unwrap();
    let sql = "SELECT ifnull(min(number), 0) FROM journal";
    connection.query_row(sql, [], |row| row.get(0)).unwrap()
}

/// Goes on trading until each database has let go of so many rows.
fn wait_until_archived(bazaar: &Bazaar, rows: u64) {
    for database in databases(bazaar) {
        wait_until(
            &format!("{} to have let go of {rows} rows", database.display()),
            || {
                trade_to(bazaar, bazaar.acknowledged() + 1);
                first_row(&database) >= rows
            },
        );
    }
}

/// Orders by their number, by their key, and by what replicas hold.
fn check(bazaar: &Bazaar) {
    bazaar.check_acknowledged();
    for number in (0..bazaar.acknowledged()).step_by(23) {
        let again = bazaar.order_under(Some(&key(number)), &order(number));
        assert_eq!(again.data()["transaction_number"], number);
        let other = bazaar.order_under(Some(&key(number)), &order(number + 1));
        assert_eq!(other.status, 409, "{other:?}");
    }
    bazaar.wait_for_equal_ledgers(&REPLICAS);
}

fn start() -> Bazaar {
    Bazaar::start(Options {
        archive_after: Some(ARCHIVE_AFTER),
        ..Options::default()
    })
}

#[test]
fn archived_orders_are_answered_like_others_through_kills_and_after_a_replica_lost_all() {
    let mut bazaar = start();
    trade_to(&bazaar, 250);
    // In the midst of it, at various moments.
    for stop in 0..8 {
        for server in [Server::Catalog, Server::Order(1 + stop % 3)] {
            bazaar.server(server).kill();
            bazaar.start_server(server);
        }
        bazaar.wait_until_ready();
        trade_to(&bazaar, bazaar.acknowledged() + 40);
    }
    trade_to(&bazaar, ORDERS);
    wait_until_archived(&bazaar, 512);
    check(&bazaar);
    // All of it is copied from the others, where most is in files; and moved into files again.
    bazaar.kill(2);
    fs::remove_dir_all(bazaar.data_dir(2)).unwrap();
    bazaar.restart(2);
    check(&bazaar);
    wait_until_archived(&bazaar, 512);
    let shown = bazaar.ledger(2);
    let shown = shown.as_object().unwrap().len() as u64;
    assert!(shown >= ORDERS, "{shown}");
    // A damaged ledger is set aside with its files.
    bazaar.kill(3);
    let archive = bazaar.data_dir(3).join("archive");
    let file = fs::read_dir(&archive).unwrap().next().unwrap().unwrap();
    let name = file.path().with_extension("db");
    fs::remove_file(&name).unwrap();
    bazaar.start_server_with(Server::Order(3), vec!["--rebuild".to_owned()]);
    check(&bazaar);
    assert!(bazaar.data_dir(3).join("archive.damaged-1").exists());
    assert_eq!(bazaar.panics(), Vec::<String>::new());
}

/// The first of a directory's files whose name ends so.
fn first_with(dir: &Path, end: &str) -> PathBuf {
    let entries = fs::read_dir(dir).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = paths
        .filter(|path| path.to_str().unwrap().ends_with(end))
        .collect();
    paths.sort();
    paths.swap_remove(0)
}

#[test]
fn a_backup_and_a_rebuilt_catalog_have_what_was_archived() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("archived.backup");
    let file = file.to_str().unwrap();
    let mut bazaar = start();
    trade_to(&bazaar, ORDERS / 2);
    wait_until_archived(&bazaar, 64);
    let catalog = bazaar.catalog_dir();
    let catalog = catalog.to_str().unwrap().to_owned();
    // Filters of keys are made anew where they are missing: a backup does not need them.
    let archive = bazaar.catalog_dir().join("archive");
    fs::remove_file(first_with(&archive, ".keys")).unwrap();
    run_ok(["backup", "take", file, "--data-dir", &catalog]);
    run_ok(["backup", "verify", file]);
    trade_to(&bazaar, bazaar.acknowledged() + 5);
    let before = bazaar.acknowledged();
    bazaar.kill_catalog();
    fs::remove_dir_all(&catalog).unwrap();
    let restore = [
        "backup",
        "restore",
        file,
        "--data-dir",
        &catalog,
        "--lease-ms=1000",
    ];
    run_ok(restore);
    bazaar.start_server(Server::Catalog);
    bazaar.wait_until_ready();
    check(&bazaar);
    assert_eq!(bazaar.acknowledged(), before);
    // Only its database is lost: what is left of its archive is set aside.
    bazaar.kill_catalog();
    for name in ["catalog.db", "catalog.db-wal", "catalog.db-shm"] {
        let _ = fs::remove_file(bazaar.catalog_dir().join(name));
    }
    let from = format!("--rebuild-from={}", bazaar.data_dir(1).display());
    bazaar.start_server_with(Server::Catalog, vec![from]);
    bazaar.wait_until_ready();
    check(&bazaar);
    assert!(bazaar.catalog_dir().join("archive.damaged-1").exists());
    let note = fs::read_to_string(bazaar.catalog_dir().join("rebuilt-from.json")).unwrap();
    let ledger = bazaar.data_dir(1).display().to_string();
    assert!(
        note.contains(&ledger) && note.contains("rebuilt_by"),
        "{note}"
    );
    // It is another journal then, with the files of the backup read for it.
    let until = dir.path().join("until");
    let until = until.to_str().unwrap();
    run_ok(["backup", "restore", file, "--data-dir", until, "--until=99"]);
    let ended = run(["backup", "restore", file, "--data-dir", until]);
    assert!(!ended.status.success());
    // What is missing and cannot be made anew is named.
    let copy = dir.path().join("copy");
    let copied = copy.to_str().unwrap();
    run_ok(["backup", "restore", file, "--data-dir", copied]);
    let removed = first_with(&copy.join("archive"), ".db");
    fs::remove_file(&removed).unwrap();
    let other = dir.path().join("other.backup");
    let other = other.to_str().unwrap();
    let ended = run(["backup", "take", other, "--data-dir", copied]);
    let said = String::from_utf8(ended.stderr).unwrap();
    assert!(said.contains(removed.to_str().unwrap()), "{said}");
}

#[test]
fn a_database_that_archives_no_more_keeps_what_it_has_archived() {
    let mut bazaar = start();
    trade_to(&bazaar, ORDERS / 2);
    wait_until_archived(&bazaar, 64);
    let ledger = Ledger::open(&bazaar.data_dir(1)).unwrap();
    let mut end = LedgerEnd::default();
    for row in ledger.rows() {
        let row = row.unwrap();
        assert!(end.is_continued_by(&row));
        end = LedgerEnd::of(&row);
    }
    drop(ledger);
    bazaar.set_archive_after(None);
    for server in [
        Server::Catalog,
        Server::Order(1),
        Server::Order(2),
        Server::Order(3),
    ] {
        bazaar.server(server).kill();
        bazaar.start_server(server);
    }
    bazaar.wait_until_ready();
    trade_to(&bazaar, bazaar.acknowledged() + 300);
    check(&bazaar);
    for database in databases(&bazaar) {
        let first = first_row(&database);
        assert!(bazaar.acknowledged() - first >= 300, "{first}");
    }
}

#[test]
fn a_key_of_an_order_is_remembered_for_ever_and_one_of_a_refused_order_until_the_catalog_is_rebuilt()
 {
    let mut bazaar = Bazaar::start_default();
    let (made, refused) = (Order::sell(10, "meta"), Order::buy(1_005, "meta"));
    let placed = |bazaar: &Bazaar, key: &str, order: &Order| bazaar.order_under(Some(key), order);
    assert_eq!(placed(&bazaar, "refused", &refused).status, 404);
    let first = placed(&bazaar, "made", &made).data();
    // There are enough by now, and still the first answer is the answer.
    let check = |bazaar: &Bazaar| {
        assert_eq!(placed(bazaar, "refused", &refused).status, 404);
        assert_eq!(placed(bazaar, "made", &made).data(), first);
        assert_eq!(placed(bazaar, "made", &refused).status, 409);
    };
    check(&bazaar);
    bazaar.kill_catalog();
    bazaar.restart_catalog();
    bazaar.wait_until_ready();
    check(&bazaar);
    bazaar.lose_and_rebuild_catalog(&[1, 2, 3]);
    bazaar.wait_until_ready();
    assert_eq!(placed(&bazaar, "made", &made).data(), first);
    assert_eq!(placed(&bazaar, "refused", &refused).status, 200);
}
