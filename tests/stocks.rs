//! Stocks that are listed, priced, restocked and delisted while they are traded.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use domain::{Entry, LedgerEnd, Row, StockChangeKind};
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::harness::{
    Bazaar, Options, Order, Raise, Response, Server, request, run, run_ok, wait_until,
};

const WHO: &str = "--operator=alice";

/// Runs a command of `bazaar stock`.
fn stock(bazaar: &Bazaar, arguments: &[&str]) -> String {
    let admin = format!("--admin=http://{}", bazaar.admin_address());
    let given = ["stock"].iter().chain(arguments);
    run_ok(given.copied().chain([WHO, "--reason=the test", &admin]))
}

/// The same, which fails: with which code, and what it says.
fn refused(bazaar: &Bazaar, arguments: &[&str]) -> (i32, String) {
    let admin = format!("--admin=http://{}", bazaar.admin_address());
    let given = ["stock"].iter().chain(arguments).copied();
    let output = run(given.chain([&*admin]));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code().expect("it was not killed"), said)
}

fn ask(bazaar: &Bazaar, method: &str, target: &str, key: &str, body: Value) -> Response {
    let headers = [("idempotency-key", key), ("x-operator", "bob")];
    let body = body.to_string();
    request(
        bazaar.admin_address(),
        method,
        target,
        &headers,
        body.as_bytes(),
    )
}

fn price(bazaar: &Bazaar, name: &str) -> Value {
    bazaar.get(&format!("/stocks/{name}")).data()["price"].clone()
}

/// A ledger's changes of stocks.
fn changes(bazaar: &Bazaar, id: u32) -> Value {
    let dir = bazaar.data_dir(id);
    let shown = run_ok(["ledger", "show", dir.to_str().unwrap(), "--changes"]);
    serde_json::from_str(&shown).unwrap()
}

/// Rows continue each other, each has the price that its stock was listed at then, and clients' numbers have no gap.
fn check(rows: &[Row]) {
    let mut end = LedgerEnd::default();
    let (mut prices, mut gone) = (BTreeMap::new(), BTreeSet::new());
    for row in rows {
        assert!(end.is_continued_by(row), "{row:?}");
        end = LedgerEnd::of(row);
        let name = row.entry.name();
        match &row.entry {
            Entry::Order(_) => {
                assert!(!gone.contains(name), "{row:?}");
                let listed = *prices.entry(name.clone()).or_insert(row.price);
                assert_eq!(row.price, listed, "{row:?}");
            }
            Entry::StockChange(change) if change.kind == StockChangeKind::Delist => {
                prices.remove(name);
                assert!(gone.insert(name.clone()), "{row:?}");
            }
            Entry::StockChange(_) => {
                gone.remove(name);
                prices.insert(name.clone(), row.price);
            }
        }
    }
    let numbers = rows.iter().filter_map(Row::order_number);
    let numbers: Vec<u64> = numbers.map(|number| number.0).collect();
    assert!(numbers.iter().copied().eq(0..end.orders().0), "{numbers:?}");
}

#[test]
fn a_stock_is_listed_priced_restocked_and_delisted_between_trades() {
    let bazaar = Bazaar::start_default();
    assert_eq!(bazaar.get("/stocks/acme").status, 404);
    assert_eq!(bazaar.trade(&Order::sell(1, "meta")), 0);
    let added = stock(
        &bazaar,
        &["add", "acme", "--price", "12.5", "--quantity", "10"],
    );
    assert_eq!(added, "acme: add, row 1 of the journal\n");
    let listed = json!({"name": "acme", "price": 12.5, "quantity": 10});
    assert_eq!(bazaar.get("/stocks/acme").data(), listed);
    assert_eq!(
        bazaar.trade(&Order::buy(4, "acme")),
        1,
        "orders alone are counted"
    );
    stock(&bazaar, &["price", "acme", "13"]);
    assert_eq!(price(&bazaar, "acme"), 13.0);
    stock(&bazaar, &["restock", "acme", "100"]);
    assert_eq!(bazaar.quantity("acme"), 106);
    assert_eq!(bazaar.trade(&Order::buy(106, "acme")), 2);
    let shown = stock(&bazaar, &["list"]);
    assert!(
        shown.contains("acme") && shown.contains("nvidia"),
        "{shown}"
    );
    stock(&bazaar, &["delist", "acme"]);
    assert_eq!(bazaar.get("/stocks/acme").status, 404);
    let gone = bazaar.order(&Order::sell(1, "acme"));
    assert_eq!(gone.error(), (404, "stock not found".to_owned()));
    let names = bazaar.get("/stocks").data();
    let names = names.as_array().unwrap().iter().map(|stock| &stock["name"]);
    assert!(
        names.eq(stock_names(&bazaar).iter()),
        "both lists are the same"
    );
    assert!(!stock_names(&bazaar).contains(&json!("acme")));
    // Listed again, it is another stock, and what was traded of the first one is found.
    stock(&bazaar, &["add", "acme", "--price", "1"]);
    let listed = json!({"name": "acme", "price": 1.0, "quantity": 0});
    assert_eq!(bazaar.get("/stocks/acme").data(), listed);
    let traded = json!({"number": 2, "name": "acme", "type": "buy", "quantity": 106});
    assert_eq!(bazaar.get("/orders/2").data(), traded);
    assert_eq!(bazaar.get("/orders/3").status, 404);
    bazaar.check_acknowledged();
    let journal = bazaar.settled_journal();
    check(&journal);
    assert_eq!(journal.len(), 8);
    bazaar.wait_for_equal_ledgers(&[1, 2, 3]);
    let changes = changes(&bazaar, 2);
    let made: Vec<&Value> = changes.as_array().unwrap().iter().collect();
    let made_as = made.iter().map(|change| change["change"].as_str().unwrap());
    assert!(
        made_as.eq(["add", "price", "restock", "delist", "add"]),
        "{changes}"
    );
    let first = json!({
        "row": 1, "after_orders": 1, "name": "acme", "change": "add", "price": "12.5", "quantity": 10,
        "who": "127.0.0.1: alice", "why": "the test",
    });
    assert_eq!(*made[0], first);
}

/// One gateway is told by a trade that the stock is gone, while the other one had it in its cache.
#[test]
fn who_hears_that_a_stock_is_gone_hears_it_after_every_cache() {
    let bazaar = Bazaar::start(Options {
        gateways: 2,
        ..Options::default()
    });
    let other = bazaar.gateway_address(1);
    let buy = json!({"name": "meta", "type": "buy", "quantity": 1}).to_string();
    for round in 0..15 {
        wait_until("it to be kept there", || {
            let kept = request(other, "GET", "/stocks/meta", &[], b"");
            kept.header("cache-status")
                .unwrap_or_default()
                .contains("hit")
        });
        thread::scope(|scope| {
            let gone = scope.spawn(|| {
                let key = format!("gone-{round}");
                ask(&bazaar, "DELETE", "/stocks/meta", &key, Value::Null).status
            });
            // Answered while the delisting may be on its way to the caches.
            loop {
                let traded = request(bazaar.address(), "POST", "/orders", &[], buy.as_bytes());
                if traded.status == 404 {
                    break;
                }
                assert_eq!(traded.status, 200, "{traded:?}");
            }
            let served = request(other, "GET", "/stocks/meta", &[], b"");
            assert_eq!(served.status, 404, "round {round}: {served:?}");
            assert_eq!(gone.join().unwrap(), 200);
        });
        let listed = json!({"name": "meta", "price": 7, "quantity": 1_000_000});
        let listed = ask(&bazaar, "POST", "/stocks", &format!("back-{round}"), listed);
        assert_eq!(listed.status, 200, "{listed:?}");
    }
}

fn stock_names(bazaar: &Bazaar) -> Vec<Value> {
    let listed = bazaar.admin("GET", "/stocks", b"").json();
    assert_eq!(listed["more"], false);
    let listed = listed["data"].as_array().unwrap().iter();
    listed.map(|stock| stock["name"].clone()).collect()
}

#[test]
fn what_is_wrong_is_said_and_a_change_is_made_once() {
    let bazaar = Bazaar::start(Options {
        gateway_flags: vec![
            "--admin-read-token=reader".into(),
            "--admin-token=changer".into(),
        ],
        ..Options::default()
    });
    let with = |token: &str, method: &str, target: &str, body: Value| {
        let authorization = format!("Bearer {token}");
        let headers = [("authorization", &*authorization)];
        request(
            bazaar.admin_address(),
            method,
            target,
            &headers,
            body.to_string().as_bytes(),
        )
    };
    assert_eq!(with("reader", "GET", "/stocks", json!({})).status, 200);
    for (method, target, body) in [
        ("POST", "/stocks", json!({"name": "acme", "price": 1})),
        ("PATCH", "/stocks/meta", json!({"price": 1})),
        ("DELETE", "/stocks/meta", Value::Null),
    ] {
        assert_eq!(
            with("reader", method, target, body.clone()).status,
            403,
            "{method}"
        );
        assert_eq!(with("nobody", method, target, body).status, 401, "{method}");
    }
    for (method, target, body, status, says) in [
        ("POST", "/stocks", json!({"name": "acme"}), 400, "price"),
        (
            "POST",
            "/stocks",
            json!({"name": "acme", "price": 0}),
            400,
            "not above 0",
        ),
        (
            "POST",
            "/stocks",
            json!({"name": "acme", "price": 1.234}),
            400,
            "two decimals",
        ),
        (
            "POST",
            "/stocks",
            json!({"name": "a\tb", "price": 1}),
            400,
            "control",
        ),
        (
            "POST",
            "/stocks",
            json!({"name": "..", "price": 1}),
            400,
            "no name for a new stock",
        ),
        (
            "POST",
            "/stocks",
            json!({"name": "a/b", "price": 1}),
            400,
            "no name for a new stock",
        ),
        (
            "POST",
            "/stocks",
            json!({"name": "acme", "price": 1, "quantity": -1}),
            400,
            "quantity",
        ),
        (
            "POST",
            "/stocks",
            json!({"name": "acme", "price": 1, "colour": 1}),
            400,
            "colour",
        ),
        (
            "POST",
            "/stocks",
            json!({"name": "meta", "price": 1}),
            409,
            "listed already",
        ),
        ("PATCH", "/stocks/meta", json!({}), 400, "one thing"),
        (
            "PATCH",
            "/stocks/meta",
            json!({"price": 1, "restock": 1}),
            400,
            "one thing",
        ),
        (
            "PATCH",
            "/stocks/meta",
            json!({"restock": 0}),
            400,
            "quantity",
        ),
        (
            "PATCH",
            "/stocks/meta",
            json!({"restock": i64::MAX}),
            409,
            "more shares",
        ),
        (
            "PATCH",
            "/stocks/nothing",
            json!({"price": 1}),
            404,
            "not found",
        ),
        ("DELETE", "/stocks/nothing", Value::Null, 404, "not found"),
    ] {
        let answer = with("changer", method, target, body.clone());
        let (code, message) = answer.error();
        assert!(
            code == status && message.contains(says),
            "{method} {body}: {code} {message}"
        );
    }
    assert_eq!(bazaar.quantity("meta"), 1000);
    let once = |quantity: u64, reason: &str| {
        let headers = [
            ("authorization", "Bearer changer"),
            ("idempotency-key", "\"again\""),
            ("x-reason", reason),
        ];
        let body = json!({"restock": quantity}).to_string();
        request(
            bazaar.admin_address(),
            "PATCH",
            "/stocks/meta",
            &headers,
            body.as_bytes(),
        )
    };
    let first = once(5, "für José").json();
    assert_eq!(once(5, "nobody answered").json(), first);
    let other = once(6, "für José");
    assert_eq!(other.error().0, 409, "another change under the same key");
    assert_eq!(bazaar.quantity("meta"), 1005);
    let change = &changes(&bazaar, 1)[0];
    assert_eq!(change["who"], "token at 127.0.0.1: admin API");
    assert_eq!(change["why"], "für José");
}

#[test]
fn the_command_says_what_is_wrong() {
    let bazaar = Bazaar::start_default();
    let (code, said) = refused(&bazaar, &["add", "meta", "--price=1"]);
    assert!(
        code == 1 && said.contains("listed already"),
        "{code} {said}"
    );
    let (code, said) = refused(&bazaar, &["delist", "nothing"]);
    assert!(
        code == 1 && said.contains("stock not found"),
        "{code} {said}"
    );
    assert_eq!(refused(&bazaar, &["price", "meta", "0"]).0, 2);
    let listed = stock(&bazaar, &["list", "--json"]);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 12);
}

#[test]
fn no_cache_serves_what_was_before_a_change_that_is_made() {
    let bazaar = Bazaar::start(Options {
        gateways: 2,
        ..Options::default()
    });
    let other = bazaar.gateway_address(1);
    let elsewhere = |name: &str| request(other, "GET", &format!("/stocks/{name}"), &[], b"");
    let keep = || {
        wait_until("it to be kept there", || {
            let status = elsewhere("meta")
                .header("cache-status")
                .unwrap_or_default()
                .to_owned();
            status.contains("hit")
        });
    };
    for cents in 1..30 {
        for _ in 0..2 {
            assert_eq!(elsewhere("meta").status, 200);
        }
        keep();
        let cost = f64::from(cents) / 100.0;
        let key = format!("cost-{cents}");
        let changed = ask(
            &bazaar,
            "PATCH",
            "/stocks/meta",
            &key,
            json!({"price": cost}),
        );
        assert_eq!(changed.status, 200, "{changed:?}");
        assert_eq!(elsewhere("meta").data()["price"], cost);
    }
    for round in 0..10 {
        keep();
        let key = |what: &str| format!("{what}-{round}");
        let gone = ask(&bazaar, "DELETE", "/stocks/meta", &key("gone"), Value::Null);
        assert_eq!(gone.status, 200, "{gone:?}");
        assert_eq!(elsewhere("meta").status, 404);
        let listed = json!({"name": "meta", "price": 7, "quantity": round});
        let listed = ask(&bazaar, "POST", "/stocks", &key("back"), listed);
        assert_eq!(listed.status, 200, "{listed:?}");
        assert_eq!(elsewhere("meta").data()["quantity"], round);
    }
}

#[test]
fn stocks_change_under_load_and_every_trade_is_answered() {
    let mut bazaar = Bazaar::start(Options {
        gateways: 2,
        ..Options::default()
    });
    let (done, traded) = (AtomicBool::new(false), AtomicU64::new(0));
    let numbers = Mutex::new(BTreeSet::new());
    thread::scope(|scope| {
        let raise = Raise(&done);
        for client in 0..4 {
            let (bazaar, done, traded, numbers) = (&bazaar, &done, &traded, &numbers);
            scope.spawn(move || {
                let gateway = bazaar.gateway_address(client % 2);
                let mut turn = 0;
                while !done.load(Ordering::Relaxed) {
                    turn += 1;
                    let name = ["meta", "acme", "nvidia"][turn % 3];
                    let body = json!({"name": name, "type": "sell", "quantity": 1}).to_string();
                    let answer = request(gateway, "POST", "/orders", &[], body.as_bytes());
                    match answer.status {
                        200 => {
                            let number = answer.data()["transaction_number"].as_u64().unwrap();
                            assert!(numbers.lock().unwrap().insert(number), "given twice");
                            traded.fetch_add(1, Ordering::Relaxed);
                        }
                        404 if name == "acme" => {}
                        _ => panic!("{answer:?}"),
                    }
                }
            });
        }
        for round in 0..12 {
            let key = |what: &str| format!("{what}-{round}");
            let before = traded.load(Ordering::Relaxed);
            let listed = json!({"name": "acme", "price": 3, "quantity": 5});
            for (method, target, key, body) in [
                ("POST", "/stocks", key("add"), listed),
                ("PATCH", "/stocks/acme", key("price"), json!({"price": 4})),
                (
                    "PATCH",
                    "/stocks/meta",
                    key("meta"),
                    json!({"price": round + 1}),
                ),
                (
                    "PATCH",
                    "/stocks/acme",
                    key("restock"),
                    json!({"restock": 9}),
                ),
                ("DELETE", "/stocks/acme", key("delist"), Value::Null),
            ] {
                let changed = ask(&bazaar, method, target, &key, body);
                assert_eq!(changed.status, 200, "{method} {target}: {changed:?}");
            }
            wait_until("some more trades", || {
                traded.load(Ordering::Relaxed) >= before + 20
            });
        }
        drop(raise);
    });
    let journal = bazaar.settled_journal();
    check(&journal);
    let changes = journal.iter().filter(|row| row.order().is_none()).count();
    assert_eq!(changes, 60);
    let given = numbers.into_inner().unwrap();
    assert!(
        given.iter().copied().eq(0..given.len() as u64),
        "no gap, none lost"
    );
    assert_eq!(journal.len(), given.len() + changes);
    // A catalog that starts compares its stocks with the journal.
    bazaar.kill_catalog();
    bazaar.restart_catalog();
    bazaar.wait_until_ready();
    assert_eq!(price(&bazaar, "meta"), 12.0);
}

#[test]
fn changes_survive_a_catalog_that_is_rebuilt_and_one_that_is_restored() {
    let backups = tempfile::tempdir().unwrap();
    let file = backups.path().join("backup");
    let file = file.to_str().unwrap();
    let mut bazaar = Bazaar::start_default();
    stock(&bazaar, &["add", "acme", "--price=5", "--quantity=50"]);
    bazaar.trade(&Order::buy(1, "acme"));
    stock(&bazaar, &["delist", "tesla"]);
    bazaar.trade(&Order::buy(1, "acme"));
    let catalog = bazaar.catalog_dir();
    let catalog = catalog.to_str().unwrap();
    let taken = run_ok(["backup", "take", file, "--data-dir", catalog]);
    assert!(taken.contains("2 orders"), "{taken}");
    stock(&bazaar, &["price", "acme", "6"]);
    bazaar.trade(&Order::buy(1, "acme"));
    bazaar.wait_for_equal_ledgers(&[1, 2, 3]);
    let before = stock(&bazaar, &["list"]);
    bazaar.lose_and_rebuild_catalog(&[1, 2, 3]);
    bazaar.wait_until_ready();
    assert_eq!(stock(&bazaar, &["list"]), before, "after the rebuild");
    bazaar.check_acknowledged();
    assert_eq!(bazaar.trade(&Order::buy(1, "acme")), 3);
    bazaar.wait_for_equal_ledgers(&[1, 2, 3]);
    let before = stock(&bazaar, &["list"]);
    bazaar.kill_catalog();
    fs::remove_dir_all(catalog).unwrap();
    let until = backups.path().join("until");
    let until = until.to_str().unwrap();
    let said = run_ok([
        "backup",
        "restore",
        file,
        "--data-dir",
        until,
        "--until",
        "0",
    ]);
    assert!(said.contains("1 orders"), "{said}");
    // What was changed behind that order is not, and what was changed before it is.
    let cut = Connection::open(backups.path().join("until/catalog.db")).unwrap();
    let listed = |name: &str| {
        let sql = "SELECT price, quantity FROM stock WHERE name = ?";
        let row = cut.query_row(sql, [name], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
        });
        row.unwrap()
    };
    assert_eq!(listed("acme"), (500, 49));
    assert_eq!(listed("tesla").1, 1000, "it was delisted later");
    run_ok([
        "backup",
        "restore",
        file,
        "--data-dir",
        catalog,
        "--lease-ms=1000",
    ]);
    bazaar.start_server_with(Server::Catalog, Vec::new());
    bazaar.wait_until_ready();
    assert_eq!(
        stock(&bazaar, &["list"]),
        before,
        "replicas gave back the rest"
    );
    bazaar.check_acknowledged();
    check(&bazaar.settled_journal());
}
