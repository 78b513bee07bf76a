//! Data directories whose files are not what was written there: said clearly, never served.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rusqlite::Connection;

use crate::harness::{Bazaar, Options, Order, Server, request, wait_until};

const LEDGER: &str = "orders.db";
const CATALOG: &str = "catalog.db";

/// A bazaar with 40 orders in every ledger, and a replica that does not lead, killed.
fn with_killed_follower() -> (Bazaar, u32, PathBuf) {
    let mut bazaar = Bazaar::start_default();
    for number in 0..40 {
        bazaar.trade(&Order::buy(1 + number % 3, "nvidia"));
    }
    bazaar.wait_for_equal_ledgers(&[1, 2, 3]);
    let follower = bazaar.follower();
    bazaar.kill(follower);
    let dir = bazaar.data_dir(follower);
    (bazaar, follower, dir)
}

fn change(file: &Path, sql: &str) {
    let connection = Connection::open(file).unwrap();
    assert!(connection.execute(sql, []).unwrap() > 0);
}

/// Waits until a server has refused to run, and returns what it said.
fn refusal(bazaar: &mut Bazaar, server: Server) -> String {
    let process = bazaar.server(server);
    wait_until("the server to refuse", || !process.is_running());
    assert!(!process.has_succeeded());
    process.log()
}

#[test]
fn a_damaged_ledger_is_refused_and_with_rebuild_copied_anew() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 5] = [
        ("a row changed by hand", |dir| {
            let sql = "UPDATE journal SET quantity = 1000 WHERE number = 7";
            change(&dir.join(LEDGER), sql);
        }),
        ("another file", |dir| {
            fs::write(dir.join(LEDGER), "name,price,quantity\n").unwrap();
        }),
        ("flipped bits", |dir| {
            // Where the rows are: behind the page of the schema.
            change(&dir.join(LEDGER), "UPDATE term SET leader = leader");
            let connection = Connection::open(dir.join(LEDGER)).unwrap();
            connection
                .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
                .unwrap();
            drop(connection);
            let file = File::options()
                .read(true)
                .write(true)
                .open(dir.join(LEDGER))
                .unwrap();
            let mut page = [0; 4096];
            file.read_exact_at(&mut page, 4096).unwrap();
            page.iter_mut().step_by(97).for_each(|byte| *byte ^= 0x10);
            file.write_all_at(&page, 4096).unwrap();
        }),
        ("cut short", |dir| {
            fs::remove_file(dir.join("orders.db-wal")).ok();
            let file = File::options().write(true).open(dir.join(LEDGER)).unwrap();
            file.set_len(5000).unwrap();
        }),
        ("no bytes", |dir| {
            File::create(dir.join(LEDGER)).unwrap();
        }),
    ];
    let (mut bazaar, follower, dir) = with_killed_follower();
    let server = Server::Order(follower);
    for (number, (name, damage)) in (1..).zip(damages) {
        damage(&dir);
        let damaged = fs::read(dir.join(LEDGER)).unwrap();
        bazaar.restart(follower);
        let said = refusal(&mut bazaar, server);
        assert!(said.contains("is damaged"), "{name}: {said}");
        assert!(said.contains("start with --rebuild"), "{name}: {said}");

        bazaar.start_server_with(server, vec!["--rebuild".into()]);
        bazaar.wait_for_equal_ledgers(&[1, 2, 3]);
        let kept = fs::read(dir.join(format!("{LEDGER}.damaged-{number}"))).unwrap();
        assert!(kept == damaged, "{name}: the damaged file was not kept");
        bazaar.server(server).terminate();
    }
}

#[test]
fn a_replica_that_copies_its_ledger_anew_leads_again() {
    let (mut bazaar, follower, dir) = with_killed_follower();
    File::create(dir.join(LEDGER)).unwrap();
    bazaar.start_server_with(Server::Order(follower), vec!["--rebuild".into()]);
    bazaar.wait_for_equal_ledgers(&[1, 2, 3]);
    for id in [1, 2, 3].into_iter().filter(|id| *id != follower) {
        bazaar.kill(id);
    }
    bazaar.trade(&Order::sell(1, "nvidia"));
    bazaar.check_acknowledged();
    assert_eq!(bazaar.leader(), follower);
}

#[test]
fn rows_that_are_changed_under_a_running_replica_are_not_served_and_it_stops() {
    let mut bazaar = Bazaar::start_default();
    for number in 0..40 {
        bazaar.trade(&Order::buy(1 + number % 3, "nvidia"));
    }
    bazaar.wait_for_equal_ledgers(&[1, 2, 3]);
    let leader = bazaar.leader();
    let sql = "UPDATE journal SET quantity = 1000 WHERE number = 7";
    change(&bazaar.data_dir(leader).join(LEDGER), sql);
    bazaar.check_acknowledged();
    let said = refusal(&mut bazaar, Server::Order(leader));
    assert!(said.contains("row 7 does not continue"), "{said}");
    bazaar.trade(&Order::sell(1, "nvidia"));
    bazaar.check_acknowledged();
}

#[test]
fn a_damaged_catalog_is_refused_and_made_anew_from_the_ledgers() {
    let mut bazaar = Bazaar::start(Options {
        lease_ms: 200,
        ..Options::default()
    });
    bazaar.trade(&Order::buy(10, "nvidia"));
    bazaar.wait_for_equal_ledgers(&[1, 2, 3]);
    bazaar.kill_catalog();
    let file = bazaar.catalog_dir().join(CATALOG);
    for (sql, undo) in [
        (
            "UPDATE leadership SET epoch = epoch + 1048576",
            "UPDATE leadership SET epoch = epoch - 1048576",
        ),
        (
            "DELETE FROM in_sync WHERE replica = 1",
            "INSERT INTO in_sync VALUES (1)",
        ),
        (
            "UPDATE stock SET quantity = 5000 WHERE name = 'nvidia'",
            "UPDATE stock SET quantity = 990 WHERE name = 'nvidia'",
        ),
    ] {
        change(&file, sql);
        let logged = bazaar.server(Server::Catalog).log().len();
        bazaar.restart_catalog();
        let said = refusal(&mut bazaar, Server::Catalog);
        let said = &said[logged..];
        for told in ["is damaged", "--rebuild-from", "copy of a running"] {
            assert!(said.contains(told), "{sql}: {said}");
        }
        change(&file, undo);
    }

    bazaar.lose_and_rebuild_catalog(&[1, 2, 3]);
    assert_eq!(bazaar.quantity("nvidia"), 990);
    bazaar.trade(&Order::buy(1, "nvidia"));
    bazaar.check_acknowledged();
}

#[test]
fn a_catalog_that_was_just_rebuilt_is_not_taken_for_an_older_copy() {
    let mut bazaar = Bazaar::start_default();
    bazaar.trade(&Order::buy(10, "nvidia"));
    bazaar.kill_catalog();
    for id in [1, 2, 3] {
        bazaar.kill(id);
    }
    fs::remove_dir_all(bazaar.catalog_dir()).unwrap();
    let from = [1, 2, 3].map(|id| format!("--rebuild-from={}", bazaar.data_dir(id).display()));
    bazaar.start_server_with(Server::Catalog, from.into());
    let catalog = bazaar.server(Server::Catalog);
    wait_until("it to serve without replicas", || {
        catalog
            .log()
            .contains("serving before these replicas report")
    });
    let log = catalog.log();
    assert!(!log.contains("stop this catalog"), "{log}");
}

#[test]
fn a_catalog_that_is_restored_from_an_older_copy_gets_back_what_that_lacks_before_it_serves() {
    let mut bazaar = Bazaar::start(Options {
        lease_ms: 50,
        ..Options::default()
    });
    bazaar.trade(&Order::buy(10, "nvidia"));
    bazaar.wait_for_equal_ledgers(&[1, 2, 3]);
    bazaar.kill_catalog();
    let dir = bazaar.catalog_dir();
    let copied = |entry: io::Result<fs::DirEntry>| {
        let path = entry.unwrap().path();
        (path.clone(), fs::read(path).unwrap())
    };
    let copy: Vec<_> = fs::read_dir(&dir).unwrap().map(copied).collect();
    bazaar.restart_catalog();
    for _ in 0..3 {
        bazaar.trade(&Order::buy(5, "nvidia"));
    }
    bazaar.wait_for_equal_ledgers(&[1, 2, 3]);
    bazaar.kill_catalog();
    fs::remove_dir_all(&dir).unwrap();
    fs::create_dir(&dir).unwrap();
    for (path, bytes) in copy {
        fs::write(path, bytes).unwrap();
    }

    let logged = bazaar.server(Server::Catalog).log().len();
    // Replica 3 may have more than the others: it is waited for.
    bazaar.server(Server::Order(3)).suspend();
    bazaar.restart_catalog();
    let catalog = bazaar.server(Server::Catalog);
    wait_until("the catalog to say for whom it waits", || {
        let said = &catalog.log()[logged..];
        said.contains("the database lost what was acknowledged")
            && said.contains("--accept-loss-of")
    });
    let gateway = bazaar.address();
    let read = thread::spawn(move || request(gateway, "GET", "/stocks/nvidia", &[], b""));
    // Longer than a start waits where nothing is known to be missing.
    thread::sleep(Duration::from_millis(1_200));
    bazaar.server(Server::Order(3)).resume();
    let read = read.join().unwrap();
    assert!(read.status == 503 || read.body.contains("975"), "{read:?}");

    wait_until("all rows to be back", || {
        let said = &bazaar.server(Server::Catalog).log()[logged..];
        said.contains("put back rows that the database had lost rows=3")
    });
    wait_until("stocks to be read again", || {
        request(bazaar.address(), "GET", "/stocks/nvidia", &[], b"").status == 200
    });
    assert_eq!(bazaar.quantity("nvidia"), 975);
    bazaar.trade(&Order::buy(1, "nvidia"));
    bazaar.check_acknowledged();
    bazaar.wait_for_equal_ledgers(&[1, 2, 3]);
}

#[test]
fn services_whose_files_are_removed_or_replaced_under_them_stop() {
    let mut bazaar = Bazaar::start_default();
    bazaar.trade(&Order::buy(10, "nvidia"));
    bazaar.wait_for_equal_ledgers(&[1, 2, 3]);
    let follower = bazaar.follower();
    let file = bazaar.data_dir(follower).join(LEDGER);
    fs::copy(&file, file.with_extension("copy")).unwrap();
    fs::rename(file.with_extension("copy"), &file).unwrap();
    let said = refusal(&mut bazaar, Server::Order(follower));
    for told in ["orders.db was removed, moved or replaced", "--rebuild"] {
        assert!(said.contains(told), "{said}");
    }
    bazaar.trade(&Order::sell(1, "nvidia"));

    fs::remove_file(bazaar.catalog_dir().join(CATALOG)).unwrap();
    let said = refusal(&mut bazaar, Server::Catalog);
    for told in [
        "catalog.db was removed, moved or replaced",
        "--rebuild-from",
    ] {
        assert!(said.contains(told), "{said}");
    }
    // What is left of it, if anything, is not taken for a journal.
    bazaar.restart_catalog();
    let again = refusal(&mut bazaar, Server::Catalog);
    assert!(again[said.len()..].contains("--rebuild-from"), "{again}");
}
