//! What clients are promised over HTTP.

use std::sync::Barrier;
use std::thread;

use serde_json::{Value, json};

use crate::harness::{Bazaar, Options, Order, Response, send_raw};

#[test]
fn a_lookup_gives_name_price_and_quantity() {
    let bazaar = Bazaar::start_default();
    let answer = bazaar.get("/stocks/nvidia");
    assert_eq!(
        answer.body.trim(),
        r#"{"data":{"name":"nvidia","price":240.63,"quantity":1000}}"#
    );
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert!(
        bazaar
            .get("/stocks/gamestop")
            .body
            .contains(r#""price":20.0,"#)
    );
    let head = bazaar.send("HEAD", "/stocks/nvidia", &[], b"");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
}

#[test]
fn the_list_has_every_stock_in_name_order() {
    let bazaar = Bazaar::start_default();
    let stocks = bazaar.get("/stocks").data();
    let names: Vec<&str> = stocks
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|stock| stock["name"].as_str())
        .collect();
    assert!(names.len() >= 10 && names.is_sorted(), "{names:?}");
    for name in [
        "nvidia", "meta", "gamestop", "amazon", "tesla", "amc", "intel", "nike",
    ] {
        assert!(names.contains(&name), "{name} is not in {names:?}");
    }
}

#[test]
fn a_lookup_of_an_unknown_stock_is_not_found() {
    let bazaar = Bazaar::start_default();
    for target in [
        "/stocks/enron",
        "/stocks/",
        "/stocks/%F0%9F%A6%80",
        "/stocks/%ff",
        "/stocks/Nvidia",
    ] {
        assert_eq!(
            bazaar.get(target).error(),
            (404, "stock not found".to_owned()),
            "{target}"
        );
    }
}

#[test]
fn a_sale_raises_the_quantity_by_what_was_sold() {
    let bazaar = Bazaar::start_default();
    let before = bazaar.quantity("meta");
    assert_eq!(bazaar.trade(&Order::sell(10, "meta")), 0);
    assert_eq!(bazaar.quantity("meta"), before + 10);
    bazaar.check_acknowledged();
}

#[test]
fn a_purchase_lowers_the_quantity_by_what_was_bought() {
    let bazaar = Bazaar::start_default();
    let before = bazaar.quantity("tesla");
    assert_eq!(bazaar.trade(&Order::buy(7, "tesla")), 0);
    assert_eq!(bazaar.quantity("tesla"), before - 7);
    assert_eq!(bazaar.trade(&Order::buy(before - 7, "tesla")), 1);
    assert_eq!(bazaar.quantity("tesla"), 0, "all of them can be bought");
    bazaar.check_acknowledged();
}

/// Each order is refused in these words, and none changes a quantity or uses up a number.
fn check_refused(orders: &[Order], code: u16, message: &str) {
    let bazaar = Bazaar::start_default();
    for order in orders {
        let refused = (code, message.to_owned());
        assert_eq!(bazaar.order(order).error(), refused, "{order:?}");
    }
    assert_eq!(bazaar.quantity("nvidia"), 1000);
    assert_eq!(bazaar.trade(&Order::buy(1, "nvidia")), 0);
    bazaar.check_acknowledged();
}

#[test]
fn a_purchase_of_more_than_there_is_is_refused() {
    let orders = [Order::buy(1001, "nvidia"), Order::buy(i64::MAX, "nvidia")];
    check_refused(&orders, 404, "not enough stocks available to buy");
}

#[test]
fn a_quantity_of_zero_or_less_is_refused_for_buy_and_for_sell() {
    let orders = [-1, 0, i64::MIN].map(|quantity| {
        [
            Order::buy(quantity, "nvidia"),
            Order::sell(quantity, "nvidia"),
        ]
    });
    check_refused(orders.as_flattened(), 404, "invalid number of stocks");
}

#[test]
fn a_type_other_than_buy_and_sell_is_refused() {
    let orders = ["borrow", "BUY", ""].map(|side| Order {
        name: "nvidia",
        side,
        quantity: 1,
    });
    check_refused(&orders, 400, "invalid request type");
}

#[test]
fn a_trade_of_an_unknown_stock_is_refused() {
    let orders = [
        Order::buy(1, "enron"),
        Order::sell(1, "enron"),
        Order::sell(1, ""),
    ];
    check_refused(&orders, 404, "stock not found");
}

#[test]
fn a_repeated_lookup_is_a_cache_hit_until_a_trade_and_never_stale() {
    let bazaar = Bazaar::start_default();
    for round in 0..5 {
        let first = bazaar.get("/stocks/nike");
        assert!(
            cache_status(&first).starts_with("bazaar; fwd="),
            "round {round}: {first:?}"
        );
        assert_eq!(first.data()["quantity"], 1000 + round);
        let second = bazaar.get("/stocks/nike");
        assert!(
            cache_status(&second).starts_with("bazaar; hit"),
            "round {round}: {second:?}"
        );
        assert_eq!(second.body, first.body);
        bazaar.trade(&Order::sell(1, "nike"));
    }
    let other = bazaar.get("/stocks/intel");
    bazaar.trade(&Order::sell(1, "nike"));
    let again = bazaar.get("/stocks/intel");
    assert!(
        cache_status(&again).starts_with("bazaar; hit"),
        "a trade of one stock leaves others cached: {other:?}, {again:?}"
    );
}

#[test]
fn a_trade_through_one_gateway_is_in_the_next_lookup_through_another() {
    let bazaar = Bazaar::start_default();
    let other = bazaar.second_gateway();
    for round in 1..=20 {
        other.get("/stocks/nike");
        let cached = other.get("/stocks/nike");
        assert!(
            cache_status(&cached).starts_with("bazaar; hit"),
            "round {round}: {cached:?}"
        );
        bazaar.trade(&Order::sell(1, "nike"));
        assert_eq!(other.get("/stocks/nike").data()["quantity"], 1000 + round);
        assert_eq!(bazaar.quantity("nike"), 1000 + round);
        bazaar.trade(&Order::sell(1, "meta"));
        bazaar.trade(&Order::buy(1, "meta"));
    }
    bazaar.check_acknowledged();
}

fn cache_status(answer: &Response) -> &str {
    answer.header("cache-status").unwrap_or_default()
}

#[test]
fn an_order_is_found_by_its_number() {
    let bazaar = Bazaar::start_default();
    for order in [
        Order::sell(10, "tesla"),
        Order::buy(3, "amc"),
        Order::buy(1, "tesla"),
    ] {
        bazaar.trade(&order);
    }
    let answer = bazaar.get("/orders/0");
    assert_eq!(
        answer.data(),
        json!({"number": 0, "name": "tesla", "type": "sell", "quantity": 10})
    );
    assert!(
        bazaar
            .get("/orders/0")
            .header("cache-status")
            .unwrap_or_default()
            .starts_with("bazaar; hit")
    );
    bazaar.check_acknowledged();
}

#[test]
fn an_order_number_that_was_never_given_is_not_found() {
    let bazaar = Bazaar::start_default();
    bazaar.trade(&Order::buy(1, "nvidia"));
    for target in [
        "/orders/1",
        "/orders/99999999",
        "/orders/18446744073709551615",
        "/orders/18446744073709551616",
        "/orders/-1",
    ] {
        assert_eq!(
            bazaar.get(target).error(),
            (404, "transaction not found".to_owned()),
            "{target}"
        );
    }
    bazaar.trade(&Order::buy(1, "nvidia"));
    assert_eq!(
        bazaar.get("/orders/1").data()["name"],
        "nvidia",
        "that it was not there is not remembered"
    );
}

#[test]
fn concurrent_buyers_buy_no_more_than_there_is() {
    const STOCK: usize = 100;
    const BUYERS: usize = 200;
    let bazaar = Bazaar::start(Options {
        stocks: Some("name,price,quantity\nscarce,1.0,100\n"),
        ..Options::default()
    });
    let start = Barrier::new(BUYERS);
    let buy = || {
        start.wait();
        bazaar.order(&Order::buy(1, "scarce"))
    };
    let answers = thread::scope(|scope| {
        let buyers: Vec<_> = (0..BUYERS).map(|_| scope.spawn(buy)).collect();
        buyers
            .into_iter()
            .map(|buyer| buyer.join().unwrap())
            .collect::<Vec<_>>()
    });
    let (bought, refused): (Vec<_>, Vec<_>) =
        answers.into_iter().partition(|answer| answer.status == 200);
    assert_eq!((bought.len(), refused.len()), (STOCK, BUYERS - STOCK));
    for answer in refused {
        assert_eq!(
            answer.error(),
            (404, "not enough stocks available to buy".to_owned())
        );
    }
    assert_eq!(bazaar.quantity("scarce"), 0);
    bazaar.check_acknowledged();
    bazaar.wait_for_equal_ledgers(&[1, 2, 3]);
}

#[test]
fn one_idempotency_key_from_many_requests_at_once_makes_one_trade() {
    const REQUESTS: usize = 20;
    let bazaar = Bazaar::start_default();
    let order = Order::buy(5, "meta");
    let start = Barrier::new(REQUESTS);
    let place = || {
        start.wait();
        bazaar.order_under(Some("the same key"), &order).data()["transaction_number"].clone()
    };
    let numbers = thread::scope(|scope| {
        let clients: Vec<_> = (0..REQUESTS).map(|_| scope.spawn(place)).collect();
        clients
            .into_iter()
            .map(|client| client.join().unwrap())
            .collect::<Vec<Value>>()
    });
    assert!(numbers.iter().all(|number| *number == 0), "{numbers:?}");
    assert_eq!(bazaar.quantity("meta"), 995);
    bazaar.check_acknowledged();
}

#[test]
fn an_idempotency_key_gets_its_first_answer_and_no_other_order() {
    let bazaar = Bazaar::start_default();
    let order = Order::buy(5, "meta");
    let first = bazaar.order_under(Some("key"), &order).data();
    assert_eq!(bazaar.order_under(Some("key"), &order).data(), first);
    for other in [
        Order::buy(6, "meta"),
        Order::sell(5, "meta"),
        Order::buy(5, "nike"),
    ] {
        assert_eq!(
            bazaar.order_under(Some("key"), &other).error().0,
            409,
            "{other:?}"
        );
    }
    let too_many = Order::buy(996, "meta");
    assert_eq!(bazaar.order_under(Some("refused"), &too_many).status, 404);
    bazaar.order_under(None, &Order::sell(1, "meta")).data();
    assert_eq!(
        bazaar.order_under(Some("refused"), &too_many).status,
        404,
        "the first answer, although there are enough by now"
    );
    assert_eq!(bazaar.order_under(Some("refused"), &order).error().0, 409);
    assert_eq!(bazaar.quantity("meta"), 996);
    bazaar.check_acknowledged();
}

#[test]
fn bodies_that_are_no_orders_are_refused_saying_why() {
    let bazaar = Bazaar::start_default();
    let deep = "[".repeat(10_000);
    for (body, word) in [
        ("", "JSON"),
        ("nonsense", "JSON"),
        ("{", "JSON"),
        ("\u{0}", "JSON"),
        (&deep, ""),
        ("[]", "JSON"),
        (r#""text""#, "JSON"),
        ("{}", "name"),
        (r#"{"name":"nvidia","type":"buy"}"#, "quantity"),
        (r#"{"name":"nvidia","quantity":1}"#, "type"),
        (r#"{"type":"buy","quantity":1}"#, "name"),
        (r#"{"name":7,"type":"buy","quantity":1}"#, "name"),
        (r#"{"name":"nvidia","type":null,"quantity":1}"#, "type"),
        (
            r#"{"name":"nvidia","type":"buy","quantity":"1"}"#,
            "quantity",
        ),
        (
            r#"{"name":"nvidia","type":"buy","quantity":1.5}"#,
            "quantity",
        ),
        (
            r#"{"name":"nvidia","type":"buy","quantity":9223372036854775808}"#,
            "quantity",
        ),
        (r#"{"name":"nvidia","type":"buy","quantity":1e999}"#, ""),
    ] {
        let answer = bazaar.send("POST", "/orders", &[], body.as_bytes());
        let (code, message) = answer.error();
        assert!(
            code == 400 && message.contains(word),
            "{body:.60}: {message}"
        );
    }
    let not_text = bazaar.send("POST", "/orders", &[], b"\xff\xfe\x00{");
    assert_eq!(not_text.error().0, 400);
    let huge = bazaar.send("POST", "/orders", &[], &vec![b' '; 4 << 20]);
    assert_eq!(huge.error().0, 413);
    assert_eq!(
        bazaar.trade(&Order::buy(1, "nvidia")),
        0,
        "none of it became an order"
    );
}

#[test]
fn paths_and_methods_that_are_none_are_refused() {
    let bazaar = Bazaar::start_default();
    for (method, target, code, allowed) in [
        ("DELETE", "/", 405, Some("GET")),
        ("GET", "/nowhere", 404, None),
        ("GET", "/stocks/a/b", 404, None),
        ("GET", "/../../etc/passwd", 404, None),
        ("GET", "/%00%ff", 404, None),
        ("DELETE", "/stocks/nvidia", 405, Some("GET")),
        ("PUT", "/orders/0", 405, Some("GET")),
        ("DELETE", "/orders", 405, Some("POST")),
        ("PATCH", "/stocks", 405, Some("GET")),
    ] {
        let answer = bazaar.send(method, target, &[], b"");
        assert_eq!(answer.error().0, code, "{method} {target}");
        let allow = answer.header("allow");
        assert!(
            allowed.is_none_or(|method| allow.is_some_and(|allow| allow.contains(method))),
            "{method} {target}: {allow:?}"
        );
    }
}

#[test]
fn bytes_that_are_no_http_do_no_harm() {
    let bazaar = Bazaar::start_default();
    let long_target = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "x".repeat(1 << 20));
    for bytes in [
        &b"\r\n\r\n"[..],
        b"nonsense\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x00\x01\x02\x03\xff\xff\r\n\r\n",
        b"GET /stocks/nvidia HTTP/1.1\r\nhost: x\r\nbroken header\r\n\r\n",
        b"POST /orders HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        long_target.as_bytes(),
    ] {
        // An error, or the end of the connection: either will do.
        if let Ok(answer) = send_raw(bazaar.address(), bytes) {
            assert!((400..500).contains(&answer.status), "{answer:?}");
        }
    }
    assert_eq!(bazaar.quantity("nvidia"), 1000);
}
