//! Two catalogs over one database: the active one is killed, paused, stopped and cut off from its callers under load.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;
use test_postgres::{Cluster, Options as Servers};

use crate::harness::{
    Bazaar, Conduct, Options, Order, Server, Spread, Trades, all_links, number, wait_until,
};
use crate::on_postgres::{judge, start, trade_while};

const BOTH: [Server; 2] = [Server::Catalog, Server::OtherCatalog];

pub fn replicated() -> Option<Cluster> {
    Cluster::start(&Servers {
        standby: true,
        ..Servers::default()
    })
}

/// Which of them is active, and which stands by, once it is so.
pub fn roles(bazaar: &Bazaar) -> (Server, Server) {
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

/// It reaches its database, so its beats go on; only the one that stands by hears from gateways and replicas.
#[test]
fn a_catalog_that_its_callers_do_not_reach_hands_over_to_one_that_they_do() {
    let Some(cluster) = replicated() else { return };
    let mut bazaar = Bazaar::start(Options {
        store: Some(cluster.database("bazaar")),
        lease_ms: 300,
        catalogs: 2,
        proxied: true,
        ..Options::default()
    });
    // Only the way to this one leads through proxies.
    let (cut, other) = (Server::Catalog, Server::OtherCatalog);
    if roles(&bazaar).0 == other {
        assert!(bazaar.server(other).terminate().success());
        wait_until("the one behind proxies to be active", || {
            is_active(&bazaar, cut)
        });
        bazaar.start_server(other);
    }
    assert_eq!(roles(&bazaar), (cut, other));
    bazaar.trade(&Order::sell(1, "meta"));
    let to_it = |bazaar: &Bazaar, conduct: Conduct| {
        for link in all_links(1, &[1, 2, 3]) {
            if link.to == cut {
                bazaar.link(link).set(conduct);
                bazaar.link(link).reset();
            }
        }
    };
    let silent = Conduct {
        holds_there: true,
        holds_back: true,
        ..Conduct::default()
    };
    to_it(&bazaar, silent);
    wait_until("the other one to be active", || is_active(&bazaar, other));
    bazaar.trade(&Order::sell(1, "meta"));
    wait_until("the one that is cut off to end", || {
        !bazaar.server(cut).is_running()
    });
    let log = bazaar.server(cut).log();
    assert!(log.contains("it has handed over"), "{log}");
    // Nobody asks it, so it takes nothing back; and nobody asks it more than the other once they reach it again.
    bazaar.start_server(cut);
    bazaar.trade(&Order::sell(1, "meta"));
    to_it(&bazaar, Conduct::default());
    assert_eq!(roles(&bazaar), (other, cut));
    bazaar.trade(&Order::sell(1, "meta"));
    bazaar.check_acknowledged();
    bazaar.stop();
}

pub fn is_active(bazaar: &Bazaar, catalog: Server) -> bool {
    let index = BOTH.iter().position(|one| *one == catalog);
    let status = bazaar.status();
    status["catalogs"][index.expect("it is one of them")]["role"] == "active"
}

/// What a catalog costs clients that dies, stands still or hands over, `BAZAAR_FAILOVER_RUNS` times. The bounds, in
/// milliseconds, are far beyond what it takes, unless `make failover` says them: `BAZAAR_FAILOVER_DEAD_MS` of the longest
/// trade where it fails, the median, and twice that of the worst; `BAZAAR_FAILOVER_STOPPED_MS` of the longest trade where it
/// is told to stop; `BAZAAR_FAILOVER_ACTIVE_MS` from then until the other one is active, the median.
#[test]
fn what_a_catalog_that_dies_costs_is_within_bounds() {
    let runs = number("BAZAAR_FAILOVER_RUNS", 1);
    let bound = |variable: &str| number(variable, 8_000) as f64;
    let dead = bound("BAZAAR_FAILOVER_DEAD_MS");
    let stopped = bound("BAZAAR_FAILOVER_STOPPED_MS");
    let Some(cluster) = replicated() else { return };
    let mut bazaar = start(&cluster.database("bazaar"), 2);
    for fault in [Signal::KILL, Signal::STOP, Signal::TERM] {
        let (mut longest, mut active_after) = (Vec::new(), Vec::new());
        for _ in 0..runs {
            let (trade, active) = cost_of(&mut bazaar, fault);
            longest.push(trade);
            active_after.push(active);
        }
        let (longest, active_after) = (Spread::of(longest), Spread::of(active_after));
        println!(
            "{fault:?}, {runs} runs: the longest trade took {longest} ms, the other one was active after {active_after} ms"
        );
        if fault == Signal::TERM {
            let active_bound = bound("BAZAAR_FAILOVER_ACTIVE_MS");
            assert!(longest.most <= stopped, "{longest} ms");
            assert!(active_after.median <= active_bound, "{active_after} ms");
        } else {
            assert!(longest.median <= dead, "{longest} ms");
            assert!(longest.most <= 2.0 * dead, "{longest} ms");
        }
    }
    bazaar.stop();
}

/// Sends the active catalog a signal while four clients trade, of whom none fails. Returns how long the longest trade took,
/// and how long after the signal the other one was active, as a gateway tells; in milliseconds.
fn cost_of(bazaar: &mut Bazaar, fault: Signal) -> (f64, f64) {
    let (active, standby) = roles(bazaar);
    let mut active_after = 0.0;
    let address = bazaar.address();
    let trades = Trades::of(&[address], 4, || {
        // Traffic as usual, until the standby has seen the database for a lease.
        thread::sleep(Duration::from_millis(1500));
        let since = Instant::now();
        bazaar.server(active).signal(fault);
        wait_until("the standby to be active", || is_active(bazaar, standby));
        active_after = ms(since.elapsed());
        thread::sleep(Duration::from_millis(700)); // and as usual again
    });
    let summary = trades.summary();
    println!("{fault:?}: active after {active_after:.0} ms; {summary}");
    assert!(trades.failed.is_empty(), "{fault:?}: {:?}", trades.failed);
    if fault == Signal::STOP {
        bazaar.server(active).resume();
    }
    wait_until("the catalog of before to end", || {
        !bazaar.server(active).is_running()
    });
    if fault == Signal::TERM {
        assert!(bazaar.server(active).has_succeeded());
    }
    bazaar.start_server(active);
    let longest = trades.times.last().expect("some were made");
    (ms(*longest), active_after)
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}
