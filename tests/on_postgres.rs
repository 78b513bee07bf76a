//! A catalog whose truth is in PostgreSQL, with all that is around it, killed and cut off under load.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;
use test_postgres::Cluster;
use test_postgres::proxy::{Proxy, Replies};

use crate::harness::{Bazaar, Options, Order, Raise, Server, run, try_request, wait_until};

/// Longest wait for one order, with the catalog away and back.
const PATIENCE: Duration = Duration::from_secs(60);

/// Orders of all clients.
const ORDERS: u64 = 400;

const CLIENTS: u64 = 4;

pub fn start(url: &str, catalogs: usize) -> Bazaar {
    Bazaar::start(Options {
        store: Some(url.to_owned()),
        lease_ms: 300,
        catalogs,
        ..Options::default()
    })
}

/// Places an order again and again, under one key, until it is made; returns its number.
fn place(address: SocketAddr, key: &str, order: &Order) -> u64 {
    let started = Instant::now();
    let key = format!("\"{key}\"");
    let body = order.json().to_string();
    loop {
        let headers = [("idempotency-key", key.as_str())];
        let answer = try_request(
            address,
            "POST",
            "/orders",
            &headers,
            body.as_bytes(),
            Duration::from_secs(10),
        );
        match answer {
            Ok(answer) if answer.status == 200 => {
                let number = answer.data()["transaction_number"].as_u64();
                return number.expect("it has a number");
            }
            Ok(answer) => assert_eq!(answer.status, 503, "{answer:?}"),
            Err(_) => {}
        }
        assert!(started.elapsed() < PATIENCE, "order {key} is never made");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Which stock the first client alone sells, a share at a time; others read it.
const WATCHED: &str = "gamestop";

/// Has clients trade while `meanwhile` is done to the bazaar, which is told how many orders were made so
/// far. Returns the orders by number. Others read meanwhile: no read is older than what was acknowledged before it began.
pub fn trade_while(
    bazaar: &mut Bazaar,
    meanwhile: impl FnOnce(&mut Bazaar, &AtomicU64),
) -> BTreeMap<u64, (String, Order)> {
    let address = bazaar.address();
    let before = bazaar.quantity(WATCHED);
    let (made, sold, reads) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let raise = Raise(&is_over);
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let (made, sold, is_over) = (&made, &sold, &is_over);
                scope.spawn(move || {
                    let mut numbers = Vec::new();
                    for attempt in 0.. {
                        if attempt >= ORDERS / CLIENTS && is_over.load(Ordering::SeqCst) {
                            break;
                        }
                        let stock = ["meta", "nvidia", "tesla"][attempt as usize % 3];
                        let order = match (client, attempt % 2) {
                            (0, _) => Order::sell(1, WATCHED),
                            (_, 0) => Order::sell(1 + client as i64, stock),
                            _ => Order::buy(1, stock),
                        };
                        let key = format!("{client}-{attempt}");
                        numbers.push((place(address, &key, &order), (key, order)));
                        made.fetch_add(1, Ordering::SeqCst);
                        sold.fetch_add(u64::from(client == 0), Ordering::SeqCst);
                    }
                    numbers
                })
            })
            .collect();
        for _ in 0..2 {
            let (sold, reads, is_over) = (&sold, &reads, &is_over);
            scope.spawn(move || {
                while !is_over.load(Ordering::SeqCst) {
                    thread::sleep(Duration::from_millis(1)); // the traders' turn
                    let acknowledged = sold.load(Ordering::SeqCst) as i64;
                    if let Some(quantity) = read(address, WATCHED) {
                        assert!(
                            quantity >= before + acknowledged,
                            "{quantity} were read after {acknowledged} had been sold on top of {before}"
                        );
                        reads.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
        }
        meanwhile(bazaar, &made);
        drop(raise);
        let mut all = BTreeMap::new();
        for client in clients {
            for (number, order) in client.join().expect("every order is made") {
                let before = all.insert(number, order);
                assert!(before.is_none(), "number {number} was given twice");
            }
        }
        let reads = reads.load(Ordering::SeqCst);
        println!("{} orders, {reads} reads", all.len());
        assert!(reads > 20, "{reads} reads were answered");
        all
    })
}

/// Waits until so many more orders are made.
fn more_orders(made: &AtomicU64, orders: u64) {
    let before = made.load(Ordering::SeqCst);
    wait_until("more orders", || {
        made.load(Ordering::SeqCst) >= before + orders
    });
}

/// How many there are; `None` where nobody knows at the moment.
fn read(address: SocketAddr, stock: &str) -> Option<i64> {
    let target = format!("/stocks/{stock}");
    let answer = try_request(address, "GET", &target, &[], b"", Duration::from_secs(10)).ok()?;
    match answer.status {
        200 => answer.data()["quantity"].as_i64(),
        status => {
            assert_eq!(status, 503, "{answer:?}");
            None
        }
    }
}

/// Numbers have no gap, every key made one row, and all ledgers are the journal.
pub fn judge(bazaar: &Bazaar, orders: &BTreeMap<u64, (String, Order)>) {
    let journal = bazaar.settled_journal();
    assert_eq!(
        journal.len(),
        orders.len(),
        "orders that nobody was told of"
    );
    for (row, (number, (key, order))) in journal.iter().zip(orders) {
        assert_eq!(row.number.0, *number);
        assert!(row.entry.key().as_str().contains(key.as_str()), "{row:?}");
        assert_eq!(row.entry.name().as_str(), order.name);
        let mut expected = order.json();
        expected["number"] = json!(number);
        assert_eq!(bazaar.get(&format!("/orders/{number}")).data(), expected);
    }
    assert_eq!(bazaar.panics(), [""; 0]);
}

#[test]
fn a_catalog_on_postgres_is_killed_under_load_and_nothing_is_lost_or_made_twice() {
    let Some(cluster) = Cluster::replicated() else {
        return;
    };
    let mut bazaar = start(&cluster.database("bazaar"), 1);
    let orders = trade_while(&mut bazaar, |bazaar, made| {
        for _ in 0..3 {
            more_orders(made, 20);
            bazaar.kill_catalog();
            bazaar.restart_catalog();
        }
        more_orders(made, 20);
    });
    judge(&bazaar, &orders);
    // It reads all of it, and compares, at every start.
    assert!(bazaar.server(Server::Catalog).terminate().success());
    bazaar.restart_catalog();
    bazaar.wait_until_ready();
    judge(&bazaar, &orders);
    bazaar.stop();
}

#[test]
fn a_catalog_that_is_cut_off_from_postgres_ends_and_its_next_start_knows_what_was_made() {
    let Some(cluster) = Cluster::replicated() else {
        return;
    };
    let proxy = Proxy::to(cluster.port());
    let direct = format!(":{}/", cluster.port());
    let url = cluster.database("bazaar");
    let url = url.replace(&direct, &format!(":{}/", proxy.port()));
    let mut bazaar = start(&url, 1);
    let orders = trade_while(&mut bazaar, |bazaar, made| {
        for replies in [Replies::Break, Replies::Lose] {
            more_orders(made, 20);
            proxy.set(replies);
            let catalog = bazaar.server(Server::Catalog);
            wait_until("the catalog to end", || !catalog.is_running());
            let log = catalog.log();
            assert!(
                log.contains("nobody can tell whether a commit took effect"),
                "{log}"
            );
            proxy.set(Replies::Pass);
            bazaar.restart_catalog();
        }
        more_orders(made, 20);
    });
    judge(&bazaar, &orders);
    bazaar.stop();
}

/// A server is promoted that lacks the last orders, as where a cluster is not strict about its synchronous standbys.
#[test]
fn what_a_promoted_server_lacks_comes_back_from_the_replicas() {
    let Some(mut cluster) = Cluster::replicated() else {
        return;
    };
    let mut bazaar = start(&cluster.database("bazaar"), 1);
    let orders = trade_while(&mut bazaar, |bazaar, made| {
        more_orders(made, 20);
        cluster.copy_standby();
        more_orders(made, 60);
        bazaar.kill_catalog();
        cluster.promote_copy();
        let logged = bazaar.server(Server::Catalog).log().len();
        bazaar.restart_catalog();
        wait_until("rows to be put back", || {
            let said = &bazaar.server(Server::Catalog).log()[logged..];
            said.contains("put back rows that the database had lost")
        });
        more_orders(made, 20);
    });
    judge(&bazaar, &orders);
    // Nothing is missing any more, nor is that suspected.
    let logged = bazaar.server(Server::Catalog).log().len();
    assert!(bazaar.server(Server::Catalog).terminate().success());
    bazaar.restart_catalog();
    bazaar.wait_until_ready();
    let said = bazaar.server(Server::Catalog).log();
    assert!(!said[logged..].contains("lost"), "{said}");
    judge(&bazaar, &orders);
    assert_eq!(cluster.sql_in("bazaar", "SELECT timeline FROM writer"), "2");
    bazaar.stop();
}

/// What the promoted server lacks one replica alone has, and that one is away: nothing shows that anything is missing.
#[test]
fn a_promoted_server_is_not_believed_before_every_replica_is_heard() {
    let Some(mut cluster) = Cluster::replicated() else {
        return;
    };
    let mut bazaar = start(&cluster.database("bazaar"), 1);
    for _ in 0..3 {
        bazaar.trade(&Order::sell(1, "meta"));
    }
    bazaar.wait_for_equal_ledgers(&[1, 2, 3]);
    cluster.copy_standby();
    let leader = bazaar.leader();
    let others = [1, 2, 3].into_iter().filter(|id| *id != leader);
    let others: Vec<u32> = others.collect();
    for id in &others {
        bazaar.kill(*id);
    }
    assert_eq!(bazaar.trade(&Order::sell(5, "meta")), 3);
    bazaar.kill(leader);
    bazaar.kill_catalog();
    cluster.promote_copy();
    for id in &others {
        bazaar.restart(*id);
    }
    let logged = bazaar.server(Server::Catalog).log().len();
    bazaar.restart_catalog();
    let catalog = bazaar.server(Server::Catalog);
    wait_until("the catalog to say what to do", || {
        let said = &catalog.log()[logged..];
        said.contains("may lack what was acknowledged") && said.contains("--accept-loss-of")
    });
    let whom =
        format!("for the ledger of replica {leader}, since its database may lack what is there");
    let waits = |bazaar: &Bazaar| {
        let said = bazaar.admin("GET", "/readyz", b"");
        said.status == 503 && said.error().1.contains(&whom)
    };
    wait_until("the catalog to wait for it alone", || waits(&bazaar));
    // Longer than a start waits where nothing says that anything may be missing.
    thread::sleep(Duration::from_millis(1_200));
    assert!(waits(&bazaar));
    bazaar.restart(leader);
    bazaar.wait_until_ready();
    let said = bazaar.server(Server::Catalog).log();
    let put_back = "put back rows that the database had lost rows=1";
    assert!(said[logged..].contains(put_back), "{said}");
    bazaar.check_acknowledged();
    assert_eq!(bazaar.quantity("meta"), 1008);
    bazaar.stop();
}

#[test]
fn trades_wait_for_the_standby_and_go_on_when_it_is_back() {
    let Some(cluster) = Cluster::replicated() else {
        return;
    };
    let bazaar = start(&cluster.database("bazaar"), 1);
    bazaar.trade(&Order::sell(1, "meta"));
    cluster.standby().signal_all(Signal::STOP);
    let address = bazaar.address();
    let order = Order::sell(1, "meta");
    thread::scope(|scope| {
        let placed = scope.spawn(|| place(address, "waits", &order));
        thread::sleep(Duration::from_millis(500)); // it is not made meanwhile
        assert!(!placed.is_finished());
        cluster.standby().signal_all(Signal::CONT);
        assert_eq!(placed.join().expect("it is made"), 1);
    });
    assert_eq!(bazaar.quantity("meta"), 1002);
}

#[test]
fn where_a_catalogs_truth_is_has_to_be_said_once() {
    let told = |arguments: &[&str]| {
        let ended = run(["catalog"].iter().chain(arguments));
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(!said.contains("hush"), "{said}");
        (ended.status.code(), said)
    };
    let store = "--store=postgres://me:hushhush@127.0.0.1:1/bazaar";
    for (arguments, code, problem) in [
        (&["--listen=127.0.0.1:0"][..], 2, "--data-dir"),
        (&[store, "--data-dir=/nowhere"], 2, "cannot be used with"),
        (
            &[store, "--rebuild-from=/nowhere"],
            2,
            "cannot be used with",
        ),
        (
            &["--data-dir=/nowhere", "--allow-unreplicated"],
            2,
            "cannot be used with",
        ),
        (
            &[
                "--listen=127.0.0.1:0",
                "--store=postgres://me:hush@db/x?sslmode=hush",
            ],
            2,
            "sslmode is none of",
        ),
        (&["--listen=127.0.0.1:0", "--store=hush"], 2, "postgres://"),
        (&["--listen=127.0.0.1:0", store], 1, "refused"),
    ] {
        let (ended, said) = told(arguments);
        assert!(said.contains(problem), "{arguments:?}: {said}");
        assert_eq!(ended, Some(code), "{arguments:?}: {said}");
    }
}
