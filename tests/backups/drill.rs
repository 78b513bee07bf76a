//! The drill: while clients trade at two gateways and a backup is there, the disks of the catalog, of a gateway and of two
//! replicas are lost at once. What the clients were told is judged as in [`torture`](crate::torture).

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use super::{LEASE, backup, text};
use crate::harness::{Bazaar, Options, Raise, Server, example, run_ok, wait_until};
use crate::torture::audit::{FinalState, audit};
use crate::torture::client::{self, Door, Scene};
use crate::torture::history::{Clock, History};
use crate::torture::look_when_settled;

const CLIENTS: usize = 4;
const REPLICAS: [u32; 3] = [1, 2, 3];

/// More shares than are bought: what was refused since the backup is remembered by nobody.
const STOCKS: &str = "name,price,quantity\nmeta,194.02,1000000\nnvidia,240.63,1000000\n";
const NAMES: [&str; 2] = ["meta", "nvidia"];
const SHARES: i64 = 1_000_000;

/// Waits for so many more orders.
fn trade(scene: &Scene, orders: u64) -> u64 {
    let numbers = || scene.numbers.load(Ordering::Relaxed);
    let wanted = numbers() + orders;
    wait_until("clients to trade", || numbers() >= wanted);
    numbers()
}

/// A follower that had all that was acknowledged when the catalog died.
fn survivor(bazaar: &Bazaar, leader: u32) -> u32 {
    let database = bazaar.catalog_dir().join("catalog.db");
    let database = rusqlite::Connection::open(database).unwrap();
    let in_sync = "SELECT replica FROM in_sync WHERE replica <> ?";
    let found = database.query_row(in_sync, [leader], |row| row.get(0));
    found.expect("a follower was in sync")
}

/// From then on nothing of four services is there but the backup.
fn lose_disks_and_restore(bazaar: &mut Bazaar, file: &Path) -> (u64, Vec<u32>) {
    let leader = bazaar.leader();
    bazaar.kill_catalog();
    let left = survivor(bazaar, leader);
    bazaar.server(Server::Gateway(0)).kill();
    let lost: Vec<u32> = REPLICAS.into_iter().filter(|id| *id != left).collect();
    for id in &lost {
        bazaar.kill(*id);
        fs::remove_dir_all(bazaar.data_dir(*id)).unwrap();
    }
    for dir in [bazaar.catalog_dir(), bazaar.gateway_dir()] {
        fs::remove_dir_all(dir).unwrap();
    }
    let here = text(bazaar.dir()).to_owned();
    let restore = ["backup", "restore", text(file), "--data-dir", &here, LEASE];
    let said = run_ok(restore);
    assert!(said.contains("without --new"), "{said}");
    let orders = said.split(" orders").next().unwrap();
    let orders = orders.rsplit(' ').next().unwrap().parse().unwrap();
    (orders, lost)
}

#[test]
fn after_most_disks_are_lost_the_replica_that_is_left_gives_back_what_came_after_the_backup() {
    let (_dir, file) = backup();
    let mut bazaar = Bazaar::start(Options {
        gateways: 2,
        stocks: Some(STOCKS),
        ..Options::default()
    });
    let policy = fs::read(example("no-cache")).unwrap();
    assert_eq!(bazaar.admin("PUT", "/policy", &policy).status, 200);
    let active = |bazaar: &Bazaar| bazaar.status()["policy"]["active"]["digest"].clone();
    let (journal, digest) = (bazaar.status()["journal"].clone(), active(&bazaar));
    let doors = (0..2).map(|gateway| Door {
        address: bazaar.gateway_address(gateway),
        stale_max: Duration::ZERO,
    });
    let scene = Scene {
        gateways: doors.collect(),
        stocks: &NAMES,
        clock: Clock::start(),
        finish: AtomicBool::new(false),
        numbers: AtomicU64::new(0),
        seed: 15,
    };
    let mut history = thread::scope(|scope| {
        let scene = &scene;
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| scope.spawn(move || client::act(scene, client)))
            .collect();
        let finish = Raise(&scene.finish);
        let before = trade(scene, 30);
        run_ok([
            "backup",
            "take",
            text(&file),
            "--data-dir",
            text(bazaar.dir()),
        ]);
        let after = trade(scene, 30);
        let (in_backup, lost) = lose_disks_and_restore(&mut bazaar, &file);
        assert!(in_backup >= before && in_backup < after, "{in_backup}");
        for server in lost.iter().map(|id| Server::Order(*id)) {
            bazaar.start_server(server);
        }
        // Nobody but those who know that their disks are gone can say so.
        let gone = lost.iter().map(|id| format!("--accept-loss-of={id}"));
        bazaar.start_server_with(Server::Catalog, gone.collect());
        bazaar.start_server(Server::Gateway(0));
        bazaar.wait_until_ready();
        trade(scene, 30);
        drop(finish);
        let mut history = History::default();
        for client in clients {
            history.append(client.join().expect("clients do not panic"));
        }
        history
    });
    let (last, rows) = look_when_settled(&bazaar, &scene);
    println!(
        "most disks lost: {} operations, {} trades, {} unanswered",
        history.operations(),
        rows.len(),
        history.unanswered
    );
    let state = FinalState {
        initial: NAMES.map(|name| (name.to_owned(), SHARES)).into(),
        quantities: client::quantities(&last),
        rows,
    };
    history.append(last);
    assert_eq!(audit(&history, &state), Vec::<String>::new());
    assert_eq!(bazaar.status()["journal"], journal);
    assert_eq!(active(&bazaar), digest, "the gateway's policy came back");
    bazaar.wait_for_equal_ledgers(&REPLICAS);
    assert_eq!(bazaar.panics(), Vec::<String>::new());
}
