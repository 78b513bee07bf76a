//! Many orders in one request: each is answered, and placed once, as if it had come alone.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::{Value, json};

use crate::examples::push;
use crate::harness::{Bazaar, Http2, Response, example, request, wait_until};

/// Most orders of a batch.
const ORDERS_MAX: usize = 1024;

const NAMES: [&str; 4] = ["meta", "nvidia", "tesla", "nike"];

/// Sends a batch: what each of its orders came to.
fn place(to: SocketAddr, headers: &[(&str, &str)], orders: &Value) -> Vec<Value> {
    let body = orders.to_string();
    let answer = request(to, "POST", "/orders", headers, body.as_bytes());
    results(&answer)
}

fn results(answer: &Response) -> Vec<Value> {
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    match answer.json() {
        Value::Array(results) => results,
        other => panic!("{other}"),
    }
}

/// The number that an order of a batch got.
fn number(result: &Value) -> u64 {
    let number = result["data"]["transaction_number"].as_u64();
    let is_placed = result["status"] == 200;
    number
        .filter(|_| is_placed)
        .unwrap_or_else(|| panic!("not placed: {result}"))
}

fn statuses(results: &[Value]) -> Vec<u64> {
    let statuses = results.iter().map(|result| result["status"].as_u64());
    statuses.map(|status| status.expect("it has one")).collect()
}

#[test]
fn each_order_of_a_batch_is_answered_as_if_it_had_come_alone() {
    let bazaar = Bazaar::start_default();
    let bad = [
        json!({ "name": "enron", "type": "buy", "quantity": 1 }),
        json!({ "name": "nike", "type": "buy", "quantity": 1001 }),
        json!({ "name": "nike", "type": "hold", "quantity": 1 }),
        json!({ "name": "nike", "type": "buy" }),
        json!({}),
        json!(7),
        json!([]),
        Value::Null,
    ];
    let mut orders = vec![json!({ "name": "meta", "type": "sell", "quantity": 10 })];
    orders.extend(bad.iter().cloned());
    orders.push(json!({ "name": "nike", "type": "buy", "quantity": 1, "key": 7 }));
    orders.push(json!({ "name": "nike", "type": "buy", "quantity": 1, "key": "" }));
    orders.push(json!({ "name": "meta", "type": "buy", "quantity": 3, "of": ["ours"] }));
    let results = place(bazaar.address(), &[], &json!(orders));
    assert_eq!(results.len(), orders.len());

    for (order, result) in bad.iter().zip(&results[1..]) {
        let alone = bazaar.send("POST", "/orders", &[], order.to_string().as_bytes());
        assert!(alone.status >= 400, "{order}: {alone:?}");
        assert_eq!(result["status"], alone.status, "{order}: {result}");
        assert_eq!(result["error"], alone.json()["error"], "{order}");
    }
    let [.., no_text, empty, last] = &results[..] else {
        panic!("{results:?}");
    };
    for (result, word) in [(no_text, "`key`"), (empty, "Idempotency-Key")] {
        let message = result["error"]["message"].as_str().unwrap_or_default();
        assert_eq!(result["status"], 400, "{result}");
        assert!(message.contains(word), "{result}");
    }
    let mut numbers = [number(&results[0]), number(last)];
    numbers.sort_unstable();
    assert_eq!(numbers, [0, 1], "of the others none became an order");
    assert_eq!(bazaar.quantity("meta"), 1007);
    assert_eq!(bazaar.quantity("nike"), 1000);
}

#[test]
fn a_batch_has_bounds_and_no_key_of_its_own() {
    let bazaar = Bazaar::start_default();
    let order = |at: usize| json!({ "name": NAMES[at % 4], "type": "sell", "quantity": 1 });
    let orders: Vec<Value> = (0..ORDERS_MAX).map(order).collect();
    let results = place(bazaar.address(), &[], &json!(orders));
    let mut numbers: Vec<u64> = results.iter().map(number).collect();
    for at in [0, 1, 511, ORDERS_MAX - 1] {
        let mut expected = order(at);
        expected["number"] = json!(numbers[at]);
        let found = bazaar.get(&format!("/orders/{}", numbers[at])).data();
        assert_eq!(found, expected, "results are in the order of orders");
    }
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(0..ORDERS_MAX as u64));

    let refused = |headers: &[(&str, &str)], orders: &Value| {
        let body = orders.to_string();
        let answer = bazaar.send("POST", "/orders", headers, body.as_bytes());
        answer.error()
    };
    let too_many: Vec<Value> = (0..=ORDERS_MAX).map(order).collect();
    let too_many = json!(too_many);
    let (status, message) = refused(&[], &too_many);
    assert!(status == 413 && message.contains("1024"), "{message}");
    let (status, message) = refused(&[("idempotency-key", "k")], &json!([order(0)]));
    assert!(status == 400 && message.contains("`key`"), "{message}");
    let long = json!([{ "name": "x".repeat(64 << 10) }]);
    assert_eq!(refused(&[], &long).0, 413);
    assert_eq!(refused(&[], &json!([])).0, 400);
    let foreign = [
        ("origin", "https://evil.example"),
        ("content-type", "text/plain"),
    ];
    assert_eq!(refused(&foreign, &json!([order(0)])).0, 415);
    let sold = ORDERS_MAX as i64 / 4;
    assert_eq!(bazaar.quantity("meta"), 1000 + sold, "no other was sold");
}

#[test]
fn a_batch_over_http_2_is_the_same() {
    let bazaar = Bazaar::start_default();
    let order = json!({ "name": "meta", "type": "sell", "quantity": 1 });
    let body = json!(vec![order; 100]).to_string();
    let mut client = Http2::connect(bazaar.address(), None).unwrap();
    let answer = client.exchange("POST", "/orders", &[], body.as_bytes());
    let answer = answer.unwrap().expect("the gateway does not stop");
    let mut numbers: Vec<u64> = results(&answer).iter().map(number).collect();
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(0..100));
}

/// A batch of its own for each round, with a key for each order.
fn keyed(round: usize) -> Value {
    let order = |at: usize| {
        let key = format!("{round}-{at}");
        json!({ "name": NAMES[at % 4], "type": "sell", "quantity": 1, "key": key })
    };
    (0..200).map(order).collect()
}

#[test]
fn orders_of_batches_are_placed_once_though_their_leader_is_killed_and_they_are_sent_again() {
    let mut bazaar = Bazaar::start_default();
    let (address, leader) = (bazaar.address(), bazaar.leader());
    let is_killed = AtomicBool::new(false);
    let rounds = thread::scope(|scope| {
        let clients = [0, 1].map(|client| {
            let is_killed = &is_killed;
            scope.spawn(move || {
                let mut rounds = Vec::new();
                let mut left = 3;
                while left > 0 {
                    if is_killed.load(Ordering::Relaxed) {
                        left -= 1;
                    }
                    let round = 2 * rounds.len() + client;
                    rounds.push((round, place(address, &[], &keyed(round))));
                }
                rounds
            })
        });
        wait_until("orders to be placed", || bazaar.quantity("meta") > 1000);
        bazaar.kill(leader);
        is_killed.store(true, Ordering::Relaxed);
        clients.map(|client| client.join().expect("every batch is answered"))
    });
    assert_ne!(bazaar.leader(), leader);
    let mut numbers = Vec::new();
    for (round, results) in rounds.iter().flatten() {
        numbers.extend(results.iter().map(number));
        let again = place(address, &[], &keyed(*round));
        assert_eq!(&again, results, "the same keys get the same answers");
    }
    numbers.sort_unstable();
    assert!(
        numbers.iter().copied().eq(0..numbers.len() as u64),
        "each is an order of its own, and there are no others"
    );
    bazaar.restart(leader);
    assert_eq!(bazaar.settled_journal().len(), numbers.len());
}

#[test]
fn each_order_of_a_batch_is_decided_about_by_the_policy() {
    let bazaar = Bazaar::start_default();
    let sale = || json!({ "name": "meta", "type": "sell", "quantity": 1 });
    let five = json!([sale(), sale(), sale(), sale(), sale()]);

    // One that looks a price up first.
    push(&bazaar, &example("price-limits"), "");
    let order = |side: &str, limit: &str, price: f64| json!({ "name": "nvidia", "type": side, "quantity": 1, limit: price });
    let orders = json!([
        order("buy", "price_max", 240.62),
        order("buy", "price_max", 240.63),
        order("sell", "price_max", 240.63),
        sale(),
    ]);
    let results = place(bazaar.address(), &[], &orders);
    assert_eq!(statuses(&results), [412, 200, 400, 200]);

    // One that lets so many through, and says when there are more.
    let limits = json!({
        "requests": 1, "period_ms": 3_600_000, "burst": 3, "client_header": "x-client"
    });
    push(&bazaar, &example("client-limits"), &limits.to_string());
    let mut results = place(bazaar.address(), &[("x-client", "a")], &five);
    results.sort_by_key(|result| result["status"].as_u64());
    assert_eq!(statuses(&results), [200, 200, 200, 429, 429]);
    let waits = results.iter().map(|result| result["retry_after"].as_u64());
    let waits: Vec<_> = waits.flatten().collect();
    assert!(
        matches!(waits[..], [one, other] if one > 3_000 && other > 3_000),
        "{results:?}"
    );

    // One that lets nobody in without a key.
    let keys = json!({ "keys": { "alice": "0123456789abcdef" } });
    push(&bazaar, &example("api-keys"), &keys.to_string());
    let results = place(bazaar.address(), &[], &five);
    assert_eq!(statuses(&results), [401; 5]);
    let alice = [("authorization", "Bearer 0123456789abcdef")];
    let results = place(bazaar.address(), &alice, &five);
    assert_eq!(statuses(&results), [200; 5]);
    let answer = bazaar.send("GET", "/stocks/meta", &alice, b"");
    assert_eq!(answer.data()["quantity"], 1000 + 1 + 3 + 5);
}
