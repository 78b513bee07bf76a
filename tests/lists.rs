//! Lists of more stocks than anybody could answer with at once.

use std::fmt::Write as _;
use std::path::PathBuf;

use serde_json::Value;

use crate::harness::{Bazaar, Options, Order, guest};

/// Lists that clients ask for: more than the failures after which a version is rolled back.
const ASKED: usize = 12;

/// Stocks `stock 000000` and so on.
fn csv(stocks: usize) -> &'static str {
    let mut csv = "name,price,quantity\n".to_owned();
    for number in 0..stocks {
        writeln!(csv, "{},1.25,1000", name(number)).unwrap();
    }
    csv.leak()
}

fn name(number: usize) -> String {
    format!("stock {number:06}")
}

/// A policy that was built for `bazaar:policy@1.0.0`: the default one of that time.
fn of_world_1_0() -> PathBuf {
    kept("default-1.0.wasm")
}

fn kept(policy: &str) -> PathBuf {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/policies");
    PathBuf::from(dir).join(policy)
}

/// Nothing failed, and so nothing was rolled back.
fn check_in_service(bazaar: &Bazaar, policy: &str) {
    let versions = bazaar.admin("GET", "/policy", b"").json();
    let active = &versions["active"];
    assert_eq!(active["name"], policy, "{versions:#}");
    for failures in ["traps", "overruns", "invalid", "errors"] {
        assert_eq!(active[failures], 0, "{versions:#}");
    }
}

#[test]
fn of_150_000_stocks_each_is_listed() {
    check_paged(150_000);
}

#[test]
fn of_250_000_stocks_each_is_listed() {
    check_paged(250_000);
}

fn check_paged(stocks: usize) {
    let bazaar = Bazaar::start(Options {
        stocks: Some(csv(stocks)),
        ..Options::default()
    });
    // There is a version to be rolled back to.
    let marked = std::fs::read(guest("marked")).unwrap();
    assert_eq!(bazaar.admin("PUT", "/policy", &marked).status, 200);
    for _ in 0..ASKED {
        let page = bazaar.get("/stocks").json();
        assert_eq!(page["data"].as_array().unwrap().len(), 1_000);
        assert_eq!(page["next"], "/stocks?limit=1000&after=stock%20000999");
    }

    bazaar.trade(&Order::buy(7, "stock 000003"));
    let (mut listed, mut next) = (0, Some("/stocks?limit=10000".to_owned()));
    while let Some(target) = next {
        let page = bazaar.get(&target).json();
        for stock in page["data"].as_array().expect("a list") {
            assert_eq!(stock["name"], name(listed));
            let bought = if listed == 3 { 7 } else { 0 };
            assert_eq!(stock["quantity"], 1000 - bought);
            listed += 1;
        }
        next = page["next"].as_str().map(str::to_owned);
    }
    assert_eq!(listed, stocks);
    check_in_service(&bazaar, "marked");
    bazaar.check_acknowledged();
}

#[test]
fn a_page_is_what_was_asked_for_or_it_is_said_what_cannot_be() {
    let bazaar = Bazaar::start_default();
    let names = |page: &Value| -> Vec<String> {
        let stocks = page["data"].as_array().expect("a list");
        let name = |stock: &Value| stock["name"].as_str().expect("a name").to_owned();
        stocks.iter().map(name).collect()
    };
    let all = bazaar.get("/stocks").json();
    let (every, next) = (names(&all), all.get("next"));
    assert_eq!((every.is_sorted(), next), (true, None));

    let page = bazaar.get("/stocks?limit=3&after=b").json();
    let beyond: Vec<_> = every.iter().filter(|name| name.as_str() > "b").collect();
    assert_eq!(
        names(&page),
        beyond.iter().take(3).copied().cloned().collect::<Vec<_>>()
    );
    let next = page["next"].as_str().expect("there are more");
    assert_eq!(names(&bazaar.get(next).json())[0], *beyond[3]);
    let none = bazaar.get("/stocks?after=zzz").json();
    assert_eq!((names(&none), none.get("next")), (Vec::new(), None));

    let limit = "the query's `limit` must be an integer from 1 to 10000";
    for target in [
        "/stocks?limit=0",
        "/stocks?limit=10001",
        "/stocks?limit=many",
    ] {
        assert_eq!(
            bazaar.get(target).error(),
            (400, limit.to_owned()),
            "{target}"
        );
    }
    let (status, message) = bazaar.get("/stocks?after=%ff").error();
    assert!(status == 400 && message.contains("`after`"), "{message}");
    check_in_service(&bazaar, "default");
}

#[test]
fn a_policy_of_world_1_0_serves_as_before() {
    check_serves_as_before("default-1.0.wasm");
}

#[test]
fn a_policy_of_world_1_1_serves_as_before() {
    check_serves_as_before("default-1.1.wasm");
}

fn check_serves_as_before(policy: &str) {
    let bazaar = Bazaar::start(Options {
        policy: Some(kept(policy)),
        ..Options::default()
    });
    let stocks = bazaar.get("/stocks").data();
    assert!(stocks.as_array().expect("a list").len() >= 10);
    assert_eq!(bazaar.get("/stocks/nvidia").data()["quantity"], 1000);
    let number = bazaar.trade(&Order::buy(10, "nvidia"));
    assert_eq!(bazaar.quantity("nvidia"), 990);
    let order = bazaar.get(&format!("/orders/{number}")).data();
    assert_eq!(order["quantity"], 10);
    assert_eq!(bazaar.get("/stocks/enron").error().0, 404);
    // It knows of no such list.
    assert_eq!(bazaar.get("/orders").error().0, 405);
    check_in_service(&bazaar, "default");
    bazaar.check_acknowledged();
}

#[test]
fn a_policy_of_world_1_0_lists_10_000_stocks_and_is_not_to_blame_for_more() {
    for (stocks, status) in [(10_000, 200), (10_001, 501)] {
        let bazaar = Bazaar::start(Options {
            stocks: Some(csv(stocks)),
            // There is a version to be rolled back to.
            policy: Some(guest("marked")),
            ..Options::default()
        });
        let old = std::fs::read(of_world_1_0()).unwrap();
        assert_eq!(bazaar.admin("PUT", "/policy", &old).status, 200);
        for _ in 0..ASKED {
            let answer = bazaar.get("/stocks");
            assert_eq!(answer.status, status, "{answer:.300?}");
            if status == 200 {
                assert_eq!(answer.data().as_array().unwrap().len(), stocks);
            } else {
                let (_, message) = answer.error();
                assert!(message.contains("bazaar:policy@1.1"), "{message}");
            }
        }
        assert_eq!(bazaar.get("/stocks/stock%20000007").status, 200);
        check_in_service(&bazaar, "default");
    }
}
