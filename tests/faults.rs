//! What clients are promised, while processes are killed and come back.
//!
//! "Killed" is SIGKILL. No client request fails: the harness panics at the first that does.

use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{Bazaar, Options, Order, Process, wait_until};

/// Sells one share each of so many stocks.
fn sell_some(bazaar: &Bazaar, trades: usize) {
    for name in ["meta", "nvidia", "tesla", "nike", "amc"]
        .into_iter()
        .cycle()
        .take(trades)
    {
        bazaar.trade(&Order::sell(1, name));
    }
}

#[test]
fn two_trades_reach_all_three_ledgers() {
    let bazaar = Bazaar::start_default();
    bazaar.trade(&Order::sell(69, "meta"));
    bazaar.trade(&Order::buy(2, "nvidia"));
    bazaar.wait_for_equal_ledgers(&[1, 2, 3]);
    let expected = r#"{"0":{"name":"meta","type":"sell","quantity":69},"1":{"name":"nvidia","type":"buy","quantity":2}}"#;
    let expected: serde_json::Value = serde_json::from_str(expected).unwrap();
    assert_eq!(bazaar.ledger(1), expected);
    bazaar.check_acknowledged();
}

#[test]
fn with_the_largest_id_dead_on_arrival_trades_reach_the_other_two() {
    let bazaar = Bazaar::start(Options {
        absent: vec![3],
        ..Options::default()
    });
    sell_some(&bazaar, 3);
    bazaar.check_acknowledged();
    bazaar.wait_for_equal_ledgers(&[1, 2]);
}

#[test]
fn with_the_two_largest_ids_dead_on_arrival_replica_1_serves_alone() {
    let bazaar = Bazaar::start(Options {
        absent: vec![2, 3],
        ..Options::default()
    });
    sell_some(&bazaar, 3);
    assert_eq!(bazaar.leader(), 1);
    assert_eq!(bazaar.quantity("meta"), 1001);
    bazaar.check_acknowledged();
    assert_eq!(bazaar.ledger(1).as_object().unwrap().len(), 3);
}

#[test]
fn a_leader_killed_between_trades_is_replaced() {
    let mut bazaar = Bazaar::start_default();
    sell_some(&bazaar, 3);
    let leader = bazaar.leader();
    bazaar.kill(leader);
    sell_some(&bazaar, 3);
    bazaar.check_acknowledged();
    let new_leader = bazaar.leader();
    assert_ne!(new_leader, leader);
    let others: Vec<u32> = [1, 2, 3].into_iter().filter(|id| *id != leader).collect();
    bazaar.wait_for_equal_ledgers(&others);
}

#[test]
fn a_follower_killed_between_trades_is_not_missed() {
    let mut bazaar = Bazaar::start_default();
    sell_some(&bazaar, 3);
    let (leader, follower) = (bazaar.leader(), bazaar.follower());
    bazaar.kill(follower);
    sell_some(&bazaar, 3);
    bazaar.check_acknowledged();
    assert_eq!(bazaar.leader(), leader);
    let others: Vec<u32> = [1, 2, 3].into_iter().filter(|id| *id != follower).collect();
    bazaar.wait_for_equal_ledgers(&others);
}

#[test]
fn a_leader_killed_and_rejoined_has_every_trade_before_during_and_after() {
    let mut bazaar = Bazaar::start_default();
    let leader = bazaar.leader();
    killed_and_rejoined(&mut bazaar, leader);
}

#[test]
fn a_follower_killed_and_rejoined_has_every_trade_before_during_and_after() {
    let mut bazaar = Bazaar::start_default();
    let follower = bazaar.follower();
    killed_and_rejoined(&mut bazaar, follower);
}

fn killed_and_rejoined(bazaar: &mut Bazaar, id: u32) {
    sell_some(bazaar, 3);
    bazaar.kill(id);
    sell_some(bazaar, 3);
    bazaar.restart(id);
    sell_some(bazaar, 3);
    bazaar.check_acknowledged();
    bazaar.wait_for_equal_ledgers(&[1, 2, 3]);
}

#[test]
fn a_replica_that_rejoins_catches_up_though_nobody_trades() {
    let mut bazaar = Bazaar::start(Options {
        absent: vec![1],
        ..Options::default()
    });
    sell_some(&bazaar, 5);
    bazaar.restart(1);
    bazaar.wait_for_equal_ledgers(&[1, 2, 3]);
}

#[test]
fn any_one_replica_is_enough() {
    let mut bazaar = Bazaar::start_default();
    for survivor in [1, 2, 3] {
        let others = [1, 2, 3].into_iter().filter(|id| *id != survivor);
        sell_some(&bazaar, 2);
        for id in others.clone() {
            bazaar.kill(id);
        }
        sell_some(&bazaar, 2);
        bazaar.check_acknowledged();
        for id in others {
            bazaar.restart(id);
        }
        bazaar.wait_for_equal_ledgers(&[1, 2, 3]);
    }
}

#[test]
fn a_trade_waits_for_a_catalog_that_is_killed_and_comes_back() {
    let mut bazaar = Bazaar::start(Options {
        lease_ms: 200,
        ..Options::default()
    });
    sell_some(&bazaar, 3);
    bazaar.kill_catalog();
    bazaar.restart_catalog();
    assert_eq!(bazaar.trade(&Order::buy(1, "intel")), 3);
    assert_eq!(bazaar.quantity("intel"), 999);
    bazaar.check_acknowledged();
    bazaar.wait_for_equal_ledgers(&[1, 2, 3]);
}

#[test]
fn a_gateway_that_stands_still_holds_a_trade_up_for_a_lease_and_is_not_stale_when_it_goes_on() {
    const LEASE_MS: u64 = 500;
    // The trade itself, and a busy machine.
    const SLACK: Duration = Duration::from_secs(4);
    let bazaar = Bazaar::start(Options {
        lease_ms: LEASE_MS,
        ..Options::default()
    });
    let other = bazaar.second_gateway();
    assert_eq!(other.get("/stocks/nvidia").data()["quantity"], 1000);
    other.process.suspend();
    let start = Instant::now();
    bazaar.trade(&Order::sell(1, "nvidia"));
    assert!(
        start.elapsed() < Duration::from_millis(LEASE_MS) + SLACK,
        "{:?}",
        start.elapsed()
    );
    assert_eq!(bazaar.quantity("nvidia"), 1001);
    other.process.resume();
    assert_eq!(other.get("/stocks/nvidia").data()["quantity"], 1001);
}

#[test]
fn a_gateway_that_is_killed_takes_no_acknowledged_order_with_it() {
    let bazaar = Bazaar::start(Options {
        lease_ms: 200,
        ..Options::default()
    });
    let mut other = bazaar.second_gateway();
    sell_some(&bazaar, 3);
    assert_eq!(other.get("/stocks/meta").data()["quantity"], 1001);
    other.process.kill();
    sell_some(&bazaar, 3);
    bazaar.check_acknowledged();
    bazaar.wait_for_equal_ledgers(&[1, 2, 3]);
}

#[test]
fn without_a_catalog_orders_that_are_held_are_found_and_others_are_not_said_to_be_missing() {
    let mut bazaar = Bazaar::start_default();
    bazaar.trade(&Order::buy(1, "nvidia"));
    bazaar.kill_catalog();
    assert_eq!(bazaar.get("/orders/0").data()["name"], "nvidia");
    for answer in [bazaar.get("/orders/1"), bazaar.get("/stocks/intel")] {
        assert_eq!(answer.error().0, 503);
        assert!(answer.header("retry-after").is_some(), "{answer:?}");
    }
}

#[test]
fn a_load_of_clients_does_not_notice_a_leader_killed_and_restarted_three_times() {
    let mut bazaar = Bazaar::start_default();
    let dir = tempfile::tempdir().unwrap();
    let url = format!("--url=http://{}", bazaar.address());
    let flags = [
        "load",
        &url,
        "--clients=5",
        "--iterations=1000",
        "--trade-probability=0.5",
    ];
    let mut load = Process::start("load", dir.path(), flags);
    for _ in 0..3 {
        let rows = journal_rows(&bazaar);
        wait_until("some trades", || journal_rows(&bazaar) > rows + 50);
        assert!(
            load.is_running(),
            "it was over too early to notice anything"
        );
        let leader = bazaar.leader();
        bazaar.kill(leader);
        thread::sleep(Duration::from_millis(200));
        bazaar.restart(leader);
    }
    wait_until("the load to end", || !load.is_running());
    assert!(load.has_succeeded(), "{}{}", load.out(), load.log());
    assert!(load.out().contains("order query"), "{}", load.out());
    bazaar.wait_for_equal_ledgers(&[1, 2, 3]);
}

fn journal_rows(bazaar: &Bazaar) -> u64 {
    bazaar.status()["catalog"]["journal_rows"]
        .as_u64()
        .unwrap_or(0)
}

#[test]
fn a_catalog_whose_disk_is_lost_is_made_anew_from_the_ledgers_and_trading_goes_on() {
    let mut bazaar = Bazaar::start_default();
    for trade in 1..=5 {
        bazaar.trade(&Order::buy(trade, "nvidia"));
        bazaar.trade(&Order::sell(trade, "meta"));
    }
    let key = Some("before");
    let before = bazaar.order_under(key, &Order::buy(1, "tesla")).data();
    bazaar.wait_for_equal_ledgers(&[1, 2, 3]);
    let epoch = bazaar.status()["epoch"].as_u64().unwrap();

    bazaar.lose_and_rebuild_catalog(&[1, 2]);
    assert_eq!(bazaar.quantity("nvidia"), 1000 - 15);
    assert_eq!(bazaar.quantity("meta"), 1000 + 15);
    let again = bazaar.order_under(key, &Order::buy(1, "tesla")).data();
    assert_eq!(again, before, "the order was not made a second time");
    bazaar.trade(&Order::sell(7, "nvidia"));
    assert_eq!(bazaar.quantity("nvidia"), 1000 - 8);
    assert!(bazaar.status()["epoch"].as_u64().unwrap() > epoch);
    bazaar.check_acknowledged();
    bazaar.wait_for_equal_ledgers(&[1, 2, 3]);
}
