//! `bazaar load`: trades, checks, measures, and sweeps.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;

use crate::harness::{Bazaar, Options, Ports, run, run_ok};

/// Also where a gateway keeps fewer stocks than there are.
#[test]
fn load_trades_checks_and_measures() {
    const STOCKS_MAX: u64 = 3;
    let bazaar = Bazaar::start(Options {
        gateway_flags: vec![format!("--cache-stocks-max={STOCKS_MAX}")],
        ..Options::default()
    });
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("load.json");
    let url = format!("--url=http://{}", bazaar.address());
    let flags = [
        "load",
        &url,
        "--clients=4",
        "--iterations=50",
        "--trade-probability=0.5",
        "--seed=7",
    ];
    let table = run_ok(
        flags
            .map(str::to_owned)
            .into_iter()
            .chain([format!("--json={}", json.display())]),
    );
    for part in ["lookup", "trade", "order query", "p99", "seed 7"] {
        assert!(table.contains(part), "{part} is not in\n{table}");
    }
    let report: Value = serde_json::from_str(&fs::read_to_string(json).unwrap()).unwrap();
    assert_eq!(report["requests"]["lookup"]["count"], 200);
    let trades = report["requests"]["trade"]["count"].as_u64().unwrap();
    assert!((50..150).contains(&trades), "{trades}");
    assert_eq!(
        report["requests"]["order_query"]["count"].as_u64().unwrap()
            + report["refused"].as_u64().unwrap(),
        trades
    );
    assert_eq!(report["mismatches"], Value::Array(Vec::new()));
    assert!(report["requests"]["trade"]["p99_us"].as_u64().unwrap() > 0);

    let cached = || bazaar.status()["cache"]["stocks"].take();
    let before = cached();
    assert_eq!(before["entries_max"], STOCKS_MAX);
    let stocks = bazaar.get("/stocks").data();
    let names = stocks.as_array().unwrap().iter();
    for name in names.map(|stock| stock["name"].as_str().unwrap()) {
        assert_eq!(bazaar.get(&format!("/stocks/{name}")).status, 200);
        let kept = cached();
        assert!(kept["entries"].as_u64().unwrap() <= STOCKS_MAX, "{kept}");
    }
    let evicted = [before, cached()].map(|cached| cached["evicted"].as_u64().unwrap());
    assert!(evicted[0] < evicted[1], "{evicted:?}");
    let metrics = bazaar.admin("GET", "/metrics", b"").body;
    let exported = format!(
        "bazaar_cache_evicted_total{{kind=\"stock\"}} {}",
        evicted[1]
    );
    assert!(metrics.lines().any(|line| line == exported), "{metrics}");
    // Which: all that were looked up are kept, or had to make room.
    let shown = bazaar.admin("GET", "/cache", b"").json()["stocks"].take();
    let kept = shown["kept"].as_array().unwrap();
    assert_eq!(kept.len() as u64, STOCKS_MAX, "{shown}");
    let evicted = shown["evicted"].as_array().unwrap();
    for stock in stocks.as_array().unwrap() {
        let name = &stock["name"];
        let is_known = kept.contains(name) || evicted.iter().any(|it| it["entry"] == *name);
        assert!(is_known, "{name} is not in {shown}");
    }
    let first = bazaar.admin("GET", "/cache?limit=1", b"").json()["stocks"].take();
    let first = (&first["kept"][0], &first["kept"][1], &first["more"]);
    assert_eq!(first, (&kept[0], &Value::Null, &Value::Bool(true)));

    let dirs = [1, 2, 3].map(|id| bazaar.data_dir(id));
    run_ok(["ledger".into(), "diff".into()].into_iter().chain(dirs));
}

/// The rows of a CSV file, by its header.
fn rows(csv: &str) -> Vec<BTreeMap<&str, &str>> {
    let mut lines = csv.lines().map(|line| line.split(','));
    let header: Vec<&str> = lines.next().expect("there is a header").collect();
    let rows = lines.map(|cells| header.iter().copied().zip(cells).collect());
    rows.collect()
}

#[test]
fn load_reports_a_run_as_a_page_and_as_csv() {
    let bazaar = Bazaar::start_default();
    let dir = tempfile::tempdir().unwrap();
    run_ok([
        "load".to_owned(),
        format!("--url=http://{}", bazaar.address()),
        "--clients=2".to_owned(),
        "--iterations=5".to_owned(),
        "--trade-probability=1".to_owned(),
        format!("--report={}", dir.path().display()),
    ]);
    let csv = fs::read_to_string(dir.path().join("load.csv")).unwrap();
    let counts = rows(&csv)
        .into_iter()
        .map(|row| (row["request"].to_owned(), row["count"].to_owned()));
    let expected =
        ["lookup", "trade", "order query"].map(|kind| (kind.to_owned(), "10".to_owned()));
    assert_eq!(counts.collect::<Vec<_>>(), expected);
    let page = fs::read_to_string(dir.path().join("load.html")).unwrap();
    assert!(
        page.contains("<svg") && page.contains("<td>trade</td>"),
        "{page}"
    );
}

#[test]
fn load_goes_no_faster_than_it_is_told() {
    let bazaar = Bazaar::start_default();
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("load.json");
    let load = |rate: &str| {
        run([
            "load".to_owned(),
            format!("--url=http://{}", bazaar.address()),
            "--clients=2".to_owned(),
            "--iterations=5".to_owned(),
            format!("--rate={rate}"),
            format!("--json={}", json.display()),
        ])
    };
    let told = String::from_utf8(load("20").stdout).unwrap();
    assert!(
        told.contains("iterations a second of 20 asked for"),
        "{told}"
    );
    let figures: Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    assert_eq!(figures["requests"]["lookup"]["count"], 10);
    // The last of ten begins nine twentieths of a second after the first.
    assert!(figures["trading_s"].as_f64() >= Some(0.45), "{figures}");
    for rate in ["0", "-1", "NaN", "inf", "1e9", "fast"] {
        let refused = load(rate);
        assert_eq!(refused.status.code(), Some(2), "{rate}");
    }
}

#[test]
fn load_sweeps_with_the_cache_and_without_and_leaves_the_policy_as_it_was() {
    let bazaar = Bazaar::start_default();
    let dir = tempfile::tempdir().unwrap();
    let policy = || bazaar.admin("GET", "/policy", b"").json()["active"]["digest"].clone();
    let hits = || bazaar.status()["cache"]["stocks"]["hits"].as_u64().unwrap();
    let before = policy();
    let table = run_ok([
        "load".to_owned(),
        "--sweep".to_owned(),
        format!("--url=http://{}", bazaar.address()),
        format!("--admin=http://{}", bazaar.admin_address()),
        "--clients=2".to_owned(),
        "--iterations=20".to_owned(),
        format!("--report={}", dir.path().display()),
    ]);
    assert_eq!(policy(), before, "the policy is not what it was");

    let csv = fs::read_to_string(dir.path().join("sweep.csv")).unwrap();
    let rows = rows(&csv);
    for caching in ["on", "off"] {
        for probability in ["0", "0.2", "0.4", "0.6", "0.8"] {
            let of_run = |row: &&BTreeMap<&str, &str>| {
                (row["cache"], row["trade_probability"]) == (caching, probability)
            };
            let kinds = rows.iter().filter(of_run).map(|row| row["request"]);
            let expected: &[&str] = match probability {
                "0" => &["lookup"],
                _ => &["lookup", "trade", "order query"],
            };
            assert!(
                kinds.eq(expected.iter().copied()),
                "{caching} {probability}:\n{csv}"
            );
        }
    }
    let lookups = rows.iter().filter(|row| row["request"] == "lookup");
    assert!(
        lookups
            .into_iter()
            .all(|row| row["count"] == "40" && row["failed"] == "0"),
        "{csv}"
    );
    // With the cache off nothing of 200 lookups is a hit; with it on most of the first 40 are.
    let found = hits();
    assert!((1..=200).contains(&found), "{found} hits");
    assert!(table.contains("trade probability"), "{table}");
    let page = fs::read_to_string(dir.path().join("sweep.html")).unwrap();
    assert_eq!(page.matches("<svg").count(), 6, "{page}");
    assert!(page.contains("orders kept at most. Cache off"), "{page}");
    // The table is for people to read, and the CSV beside it for programs.
    let heads = page.split("<th>").skip(1);
    let heads: Vec<&str> = heads
        .filter_map(|rest| rest.split("</th>").next())
        .collect();
    assert_eq!(heads.len(), csv.lines().next().unwrap().split(',').count());
    assert_eq!(heads[..3], ["Cache", "Trade probability", "Request"]);
    assert!(heads.iter().all(|head| !head.contains('_')), "{heads:?}");
    let cached = fs::read_to_string(dir.path().join("cache.csv")).unwrap();
    let of_cache = self::rows(&cached);
    let stocks = |caching: &str| {
        let of_half =
            |row: &&BTreeMap<&str, &str>| row["cache"] == caching && row["kind"] == "stock";
        let figure = |row: &BTreeMap<&str, &str>, name| row[name].parse::<u64>().unwrap();
        let all = of_cache.iter().filter(of_half);
        all.map(|row| (figure(row, "entries"), figure(row, "invalidated")))
            .collect::<Vec<_>>()
    };
    // What is traded is let go of.
    assert!(
        stocks("on").iter().any(|(entries, _)| *entries > 0),
        "{cached}"
    );
    assert!(stocks("on").last().unwrap().1 > 0, "{cached}");
    // The other policy's cache begins empty, and stays so.
    assert_eq!(stocks("off").last().unwrap().0, 0, "{cached}");
    assert!(
        page.contains("cache off, p99") && !page.contains("http://127"),
        "{page}"
    );
}

#[test]
fn a_sweep_needs_the_admin_api() {
    let bazaar = Bazaar::start_default();
    let nobody = Ports::claim();
    let failed = run([
        "load".to_owned(),
        "--sweep".to_owned(),
        format!("--url=http://{}", bazaar.address()),
        format!("--admin=http://{}", nobody.address(0)),
    ]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&failed.stderr).contains("--admin"));
}

#[test]
fn load_fails_where_nobody_answers() {
    let nobody = Ports::claim();
    let failed = run([
        "load".to_owned(),
        format!("--url=http://{}", nobody.address(0)),
    ]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&failed.stderr).contains("cannot connect"));
}
