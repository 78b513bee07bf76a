//! Two catalogs over one database: the active one is killed, paused and stopped under load.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use test_postgres::{Cluster, Options as Servers};

use crate::harness::{Bazaar, Server, Trades, number, wait_until};
use crate::on_postgres::{judge, start, trade_while};

const BOTH: [Server; 2] = [Server::Catalog, Server::OtherCatalog];

fn replicated() -> Option<Cluster> {
    Cluster::start(&Servers {
        standby: true,
        ..Servers::default()
    })
}

/// Which of them is active, and which stands by, once it is so.
fn roles(bazaar: &Bazaar) -> (Server, Server) {
    let mut roles = None;
    wait_until("one catalog to be active, and one to stand by", || {
        let status = bazaar.status();
        let role = |index: usize| status["catalogs"][index]["role"].clone();
        roles = match (role(0), role(1)) {
            (one, other) if one == json!("active") && other == json!("standby") => {
                Some((BOTH[0], BOTH[1]))
            }
            (one, other) if one == json!("standby") && other == json!("active") => {
                Some((BOTH[1], BOTH[0]))
            }
            _ => None,
        };
        roles.is_some()
    });
    roles.expect("it was waited for")
}

fn more_orders(made: &AtomicU64) {
    let before = made.load(Ordering::SeqCst);
    wait_until("more orders", || made.load(Ordering::SeqCst) > before + 20);
}

#[test]
fn whichever_catalog_dies_the_other_serves_and_nothing_is_lost_or_made_twice() {
    let Some(cluster) = replicated() else { return };
    let mut bazaar = start(&cluster.database("bazaar"), 2);
    let orders = trade_while(&mut bazaar, |bazaar, made| {
        for _ in 0..2 {
            more_orders(made);
            let (active, standby) = roles(bazaar);
            bazaar.server(active).kill();
            wait_until("the standby to be active", || is_active(bazaar, standby));
            more_orders(made);
            bazaar.start_server(active);
        }
        // One that is paused comes back to find that its term is over.
        let (active, standby) = roles(bazaar);
        bazaar.server(active).suspend();
        wait_until("the standby to be active", || is_active(bazaar, standby));
        more_orders(made);
        bazaar.server(active).resume();
        wait_until("the catalog of before to end", || {
            !bazaar.server(active).is_running()
        });
        more_orders(made);
        bazaar.start_server(active);
        // Told to stop, it hands over.
        let (active, standby) = roles(bazaar);
        assert!(bazaar.server(active).terminate().success());
        let log = bazaar.server(Server::Gateway(0)).log();
        assert!(log.contains("its session is released"), "{log}");
        wait_until("the standby to be active", || is_active(bazaar, standby));
        more_orders(made);
        bazaar.start_server(active);
        roles(bazaar);
    });
    judge(&bazaar, &orders);
    bazaar.stop();
}

fn is_active(bazaar: &Bazaar, catalog: Server) -> bool {
    let index = BOTH.iter().position(|one| *one == catalog);
    let status = bazaar.status();
    status["catalogs"][index.expect("it is one of them")]["role"] == "active"
}

/// What a failing catalog costs clients, for people to read: BAZAAR_FAILOVER_RUNS times.
#[test]
fn what_a_catalog_that_dies_costs_is_measured() {
    let runs = number("BAZAAR_FAILOVER_RUNS", 1);
    let Some(cluster) = replicated() else { return };
    let mut bazaar = start(&cluster.database("bazaar"), 2);
    type Fault = fn(&mut Bazaar, Server);
    let faults: [(&str, Fault); 3] = [
        ("SIGKILL", |bazaar, active| bazaar.server(active).kill()),
        ("SIGSTOP", |bazaar, active| bazaar.server(active).suspend()),
        ("SIGTERM", |bazaar, active| {
            assert!(bazaar.server(active).terminate().success());
        }),
    ];
    for (name, fault) in faults {
        let (mut longest, mut failed) = (Vec::new(), 0);
        for _ in 0..runs {
            let (active, standby) = roles(&bazaar);
            let address = bazaar.address();
            let trades = Trades::of(&[address], 4, || {
                // Traffic as usual, until the standby has seen the database for a lease.
                thread::sleep(Duration::from_millis(1500));
                fault(&mut bazaar, active);
                let since = Instant::now();
                wait_until("the standby to be active", || is_active(&bazaar, standby));
                println!("{name}: active after {} ms", since.elapsed().as_millis());
                thread::sleep(Duration::from_millis(700)); // and as usual again
            });
            println!("{name}: {}", trades.summary());
            longest.push(*trades.times.last().expect("some were made"));
            failed += trades.failed.len();
            if bazaar.server(active).is_running() {
                bazaar.server(active).resume();
            }
            wait_until("the catalog of before to end", || {
                !bazaar.server(active).is_running()
            });
            bazaar.start_server(active);
        }
        longest.sort();
        println!(
            "{name}, {runs} runs: the longest trade took {} ms (median), {} ms (worst); {failed} failed",
            longest[longest.len() / 2].as_millis(),
            longest[longest.len() - 1].as_millis(),
        );
        assert_eq!(failed, 0, "{name}");
    }
    bazaar.stop();
}
