//! Lists of orders: none that was acknowledged is missing, whichever replica lists.

use std::collections::BTreeMap;
use std::fs;
use std::thread;

use domain::{Epoch, Protocol};
use order::protocol_note::{self, ProtocolNote};
use serde_json::{Value, json};

use crate::harness::{Bazaar, Options, Order, Server, run_ok, wait_until};

/// The orders of a page, and where the next one is.
fn page(bazaar: &Bazaar, target: &str) -> (Vec<Value>, Option<String>) {
    let answer = bazaar.get(target);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let page = answer.json();
    let orders = page["data"].as_array().expect("a list").clone();
    let next = page
        .get("next")
        .map(|next| next.as_str().unwrap().to_owned());
    (orders, next)
}

/// All orders from a page on.
fn pages(bazaar: &Bazaar, target: &str) -> Vec<Value> {
    let (mut orders, mut next) = page(bazaar, target);
    while let Some(target) = next {
        let (more, after) = page(bazaar, &target);
        orders.extend(more);
        next = after;
    }
    orders
}

fn numbers(orders: &[Value]) -> Vec<u64> {
    let number = |order: &Value| order["number"].as_u64().expect("a number");
    orders.iter().map(number).collect()
}

#[test]
fn orders_are_listed_page_by_page_and_by_stock() {
    let bazaar = Bazaar::start_default();
    assert_eq!(page(&bazaar, "/orders"), (Vec::new(), None));
    let mut placed = BTreeMap::new();
    for quantity in 1..=7 {
        let (order, name) = match quantity % 2 {
            0 => (Order::sell(quantity, "meta"), "meta"),
            _ => (Order::buy(quantity, "nvidia"), "nvidia"),
        };
        let side = if quantity % 2 == 0 { "sell" } else { "buy" };
        let number = bazaar.trade(&order);
        let listed = json!({ "number": number, "name": name, "type": side, "quantity": quantity });
        placed.insert(number, listed);
        if quantity == 3 {
            // A row of the journal, and no order.
            let admin = format!("--admin=http://{}", bazaar.admin_address());
            run_ok([
                "stock",
                "price",
                "meta",
                "200",
                "--operator=alice",
                "--reason=the test",
                &admin,
            ]);
        }
    }
    let all: Vec<_> = placed.into_values().collect();
    assert_eq!(page(&bazaar, "/orders"), (all.clone(), None));
    assert_eq!(bazaar.get("/orders/4").data(), all[4], "as it is by itself");
    for limit in 1..=8 {
        let target = format!("/orders?limit={limit}");
        let (first, next) = page(&bazaar, &target);
        assert_eq!(first, all[..limit.min(7)], "{limit}");
        assert_eq!(next.is_some(), limit < 7, "{limit}");
        assert_eq!(pages(&bazaar, &target), all, "{limit}");
    }
    let (meta, next) = page(&bazaar, "/orders?stock=meta&limit=2");
    assert_eq!(numbers(&meta), [1, 3]);
    let next = next.expect("there is another one of meta");
    let (meta, next) = page(&bazaar, &next);
    assert_eq!((numbers(&meta), next), (vec![5], None));
    // What follows these is of another stock.
    let (meta, next) = page(&bazaar, "/orders?stock=meta&limit=2&after=1");
    assert_eq!((numbers(&meta), next), (vec![3, 5], None));
    for target in [
        "/orders?stock=enron",
        "/orders?after=6",
        "/orders?after=18446744073709551615",
    ] {
        assert_eq!(page(&bazaar, target), (Vec::new(), None), "{target}");
    }
    let head = bazaar.send("HEAD", "/orders", &[], b"");
    assert_eq!((head.status, head.body.len()), (200, 0));
}

#[test]
fn a_page_that_cannot_be_is_refused_and_it_is_said_why() {
    let bazaar = Bazaar::start_default();
    for (target, what) in [
        ("/orders?limit=0", "`limit`"),
        ("/orders?limit=10001", "`limit`"),
        ("/orders?after=-1", "`after`"),
        ("/orders?after=nike", "`after`"),
        ("/orders?stock=", "`stock`"),
        ("/orders?stock=%ff", "`stock`"),
        (
            "/orders?limit=1&limit=1",
            "`limit` was given more than once",
        ),
    ] {
        let (status, message) = bazaar.get(target).error();
        assert!(
            status == 400 && message.contains(what),
            "{target}: {message}"
        );
    }
}

/// A replica that lags is asked like any other, and so is one that does not lead.
#[test]
fn what_was_acknowledged_is_in_every_list_that_is_asked_for_after_that() {
    let bazaar = Bazaar::start(Options {
        gateways: 2,
        ..Options::default()
    });
    thread::scope(|scope| {
        for client in 0..4 {
            let bazaar = &bazaar;
            scope.spawn(move || {
                for _ in 0..50 {
                    let number = bazaar.trade(&Order::sell(1, "intel"));
                    let target = match number.checked_sub(1) {
                        Some(before) => format!("/orders?limit=3&after={before}"),
                        None => "/orders?limit=3".to_owned(),
                    };
                    let gateway = bazaar.gateway_address(client % 2);
                    let listed = crate::harness::request(gateway, "GET", &target, &[], b"");
                    let listed = listed.json();
                    assert_eq!(listed["data"][0]["number"], number, "{listed}");
                }
            });
        }
    });
    let all = pages(&bazaar, "/orders?limit=37");
    assert!(numbers(&all).into_iter().eq(0..200), "{all:?}");
}

#[test]
fn without_the_catalog_only_pages_that_do_not_reach_the_end_are_given() {
    let mut bazaar = Bazaar::start_default();
    for _ in 0..5 {
        bazaar.trade(&Order::buy(1, "nike"));
    }
    let (all, _) = page(&bazaar, "/orders");
    bazaar.kill_catalog();
    let (full, next) = page(&bazaar, "/orders?limit=3");
    assert_eq!(full, all[..3]);
    assert_eq!(next.as_deref(), Some("/orders?limit=3&after=2"));
    let (status, message) = bazaar.get("/orders").error();
    assert_eq!(status, 503, "{message}");
    bazaar.restart_catalog();
    wait_until("orders are listed again", || {
        bazaar.get("/orders").status == 200
    });
    assert_eq!(page(&bazaar, "/orders"), (all, None));
}

#[test]
fn replicas_that_are_gone_are_not_missed() {
    let mut bazaar = Bazaar::start_default();
    for _ in 0..5 {
        bazaar.trade(&Order::buy(1, "nike"));
    }
    let (all, _) = page(&bazaar, "/orders");
    let leader = bazaar.leader();
    for id in (1..=3).filter(|id| *id != leader) {
        bazaar.kill(id);
    }
    assert_eq!(page(&bazaar, "/orders"), (all, None));
}

/// Waits until all replicas have noted that the bazaar is at the newest version, in the epoch in which orders are placed now.
fn wait_until_noted(bazaar: &Bazaar) {
    bazaar.trade(&Order::sell(1, "meta"));
    wait_until("the version of the protocol to be noted", || {
        let epoch = bazaar.status()["epoch"].as_u64().unwrap();
        let wanted = (Epoch(epoch), Protocol::NEWEST);
        (1..=3).all(|id| {
            let note = ProtocolNote::read(&bazaar.data_dir(id));
            note.is_some_and(|note| (note.epoch, note.protocol) == wanted)
        })
    });
}

#[test]
fn a_catalog_that_is_rebuilt_is_at_the_version_of_the_protocol_that_the_bazaar_was_at() {
    let mut bazaar = Bazaar::start_default();
    // The second time from what was noted since.
    for _ in 0..2 {
        wait_until_noted(&bazaar);
        bazaar.lose_and_rebuild_catalog(&[1, 2, 3]);
        bazaar.wait_until_ready();
        assert_eq!(bazaar.status()["protocol"], Protocol::NEWEST.get());
        wait_until("the list", || bazaar.get("/orders").status == 200);
    }
    let log = bazaar.server(Server::Catalog).log();
    assert!(!log.contains("protocol raise"), "{log}");
    bazaar.check_acknowledged();
}

/// A catalog that is rebuilt is at the oldest version where one of its replicas has not noted which it was: that may be of a
/// release that speaks no other.
#[test]
fn who_asks_for_a_list_before_the_protocol_is_raised_is_told_what_it_waits_for() {
    let mut bazaar = Bazaar::start_default();
    wait_until_noted(&bazaar);
    bazaar.kill(2);
    fs::remove_file(bazaar.data_dir(2).join(protocol_note::FILE)).unwrap();
    bazaar.lose_and_rebuild_catalog(&[1, 2, 3]);
    bazaar.wait_until_ready();
    let log = bazaar.server(Server::Catalog).log();
    assert!(log.contains("type `bazaar protocol raise`"), "{log}");
    for target in ["/orders", "/events"] {
        wait_until("the gateway to know the version", || {
            let (code, message) = bazaar.get(target).error();
            code == 503 && message.contains("bazaar protocol raise")
        });
    }
    let admin = format!("http://{}", bazaar.admin_address());
    run_ok(["protocol", "raise", "--admin", &admin]);
    wait_until("the list", || bazaar.get("/orders").status == 200);
}
