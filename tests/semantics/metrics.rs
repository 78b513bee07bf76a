//! What is counted: as Prometheus reads it, and as `Cache-Status` said it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use crate::harness::{Bazaar, Order, example, guest, wait_until};

/// The numbers of an exposition, by the text of their series.
type Numbers = BTreeMap<String, f64>;

/// Reads the text format 0.0.4 as strictly as Prometheus' own checker (`promtool check metrics`):
/// each family is described once and comes in one piece, and no series comes twice.
fn parse(text: &str) -> Numbers {
    let mut numbers = Numbers::new();
    let mut families = BTreeSet::new();
    let mut family = (String::new(), String::new());
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help
                .split_once(' ')
                .unwrap_or_else(|| panic!("no help: {line}"));
            assert!(!help.trim().is_empty(), "{line}");
            assert!(families.insert(name.to_owned()), "{name} comes twice");
            family = (name.to_owned(), String::new());
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind
                .split_once(' ')
                .unwrap_or_else(|| panic!("no type: {line}"));
            assert_eq!((name, family.1.as_str()), (family.0.as_str(), ""), "{line}");
            assert!(
                ["counter", "gauge", "histogram", "summary"].contains(&kind),
                "{line}"
            );
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            family.1 = kind.to_owned();
        } else {
            let (series, value) = line
                .rsplit_once(' ')
                .unwrap_or_else(|| panic!("no value: {line}"));
            let (name, labels) = series.split_at(series.find('{').unwrap_or(series.len()));
            assert!(
                is_sample(name, &family),
                "{line} is not a sample of {family:?}"
            );
            assert!(labels.is_empty() || labels.ends_with('}'), "{line}");
            let value = value
                .parse()
                .unwrap_or_else(|error| panic!("{error}: {line}"));
            let before = numbers.insert(series.to_owned(), value);
            assert_eq!(before, None, "{series} comes twice");
        }
    }
    numbers
}

fn is_sample(name: &str, (family, kind): &(String, String)) -> bool {
    let suffix = name.strip_prefix(family.as_str());
    match kind.as_str() {
        "counter" | "gauge" => suffix == Some(""),
        "histogram" => ["_bucket", "_sum", "_count"].map(Some).contains(&suffix),
        _ => ["", "_sum", "_count"].map(Some).contains(&suffix),
    }
}

fn metrics(bazaar: &Bazaar) -> Numbers {
    let answer = bazaar.admin("GET", "/metrics", b"");
    assert_eq!(answer.status, 200);
    parse(&answer.body)
}

#[test]
fn no_series_comes_twice_wherever_a_policy_serves() {
    let bazaar = Bazaar::start_default();
    metrics(&bazaar);
    let marked = fs::read(guest("marked")).unwrap();
    let put = |target: &str| {
        let answer = bazaar.admin("PUT", target, &marked);
        assert_eq!(answer.status, 200, "{answer:?}");
        bazaar.get("/stocks/nvidia");
        metrics(&bazaar)
    };
    put("/policy");
    // The one that was pushed before, and the one that serves, once more.
    put("/policy");
    put("/policy/candidate?shadow=1");
    let numbers = put("/policy/candidate?canary=0.5");
    let decided = numbers.iter().filter(|(series, _)| {
        series.starts_with("bazaar_policy_decisions_total") && series.contains("decided")
    });
    assert!(
        decided.map(|(_, value)| value).sum::<f64>() > 0.0,
        "{numbers:?}"
    );
}

/// What people's dashboards and alerts go by: families, their kind, and the labels of each, as they were in 0.1.0.
const FAMILIES: &str = "\
# TYPE bazaar_cache_lookups_total counter
bazaar_cache_lookups_total{kind=\"stock\",result=\"hit\"}
bazaar_cache_lookups_total{kind=\"stock\",result=\"miss\"}
bazaar_cache_lookups_total{kind=\"stock\",result=\"stale\"}
bazaar_cache_lookups_total{kind=\"stock\",result=\"bypass\"}
bazaar_cache_lookups_total{kind=\"order\",result=\"hit\"}
bazaar_cache_lookups_total{kind=\"order\",result=\"miss\"}
bazaar_cache_lookups_total{kind=\"order\",result=\"stale\"}
bazaar_cache_lookups_total{kind=\"order\",result=\"bypass\"}
# TYPE bazaar_cache_entries gauge
bazaar_cache_entries{kind=\"stock\"}
bazaar_cache_entries{kind=\"order\"}
# TYPE bazaar_connections gauge
bazaar_connections
# TYPE bazaar_connections_refused_total counter
bazaar_connections_refused_total
# TYPE bazaar_event_streams gauge
bazaar_event_streams
# TYPE bazaar_event_streams_refused_total counter
bazaar_event_streams_refused_total
# TYPE bazaar_held_bytes gauge
bazaar_held_bytes{what=\"received\"}
bazaar_held_bytes{what=\"unsent\"}
# TYPE bazaar_held_bytes_max gauge
bazaar_held_bytes_max{what=\"received\"}
bazaar_held_bytes_max{what=\"unsent\"}
# TYPE bazaar_held_bytes_refusals_total counter
bazaar_held_bytes_refusals_total{what=\"received\"}
bazaar_held_bytes_refusals_total{what=\"unsent\"}
# TYPE bazaar_policy_decisions_total counter
bazaar_policy_decisions_total{policy=\"DIGEST\",result=\"decided\"}
bazaar_policy_decisions_total{policy=\"DIGEST\",result=\"error\"}
bazaar_policy_decisions_total{policy=\"DIGEST\",result=\"impure\"}
bazaar_policy_decisions_total{policy=\"DIGEST\",result=\"invalid\"}
bazaar_policy_decisions_total{policy=\"DIGEST\",result=\"overran\"}
bazaar_policy_decisions_total{policy=\"DIGEST\",result=\"trapped\"}
# TYPE bazaar_policy_decision_seconds histogram
# TYPE bazaar_leader_epoch gauge
bazaar_leader_epoch
# TYPE bazaar_ready gauge
bazaar_ready
# TYPE bazaar_log_records_dropped_total counter
bazaar_log_records_dropped_total
# HELP bazaar_access_log_dropped_total Requests that are not in the access log for lack of room, or as it could not be written.
# TYPE bazaar_access_log_dropped_total counter
bazaar_access_log_dropped_total
";

#[test]
fn families_and_labels_are_as_they_have_been() {
    let bazaar = Bazaar::start_default();
    let answer = bazaar.admin("GET", "/metrics", b"");
    let kind = answer.header("content-type").expect("it says what it is");
    assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
    let policies = bazaar.admin("GET", "/policy", b"").json();
    let digest = policies["active"]["digest"].as_str().unwrap();
    let series: BTreeSet<String> = answer
        .body
        .lines()
        .map(|line| {
            let line = line.replace(digest, "DIGEST");
            match line.starts_with('#') {
                true => line,
                false => line.rsplit_once(' ').expect("a value").0.to_owned(),
            }
        })
        .collect();
    let missing: Vec<_> = FAMILIES
        .lines()
        .filter(|line| !series.contains(*line))
        .collect();
    assert!(missing.is_empty(), "{missing:#?}\n{}", answer.body);
}

#[test]
fn lookups_are_counted_as_cache_status_says() {
    let bazaar = Bazaar::start_default();
    bazaar.trade(&Order::sell(1, "meta"));
    let mut said: BTreeMap<String, u64> = BTreeMap::new();
    let mut ask = |target: &str, kind: &str| {
        let answer = bazaar.get(target);
        let status = answer
            .header("cache-status")
            .expect("a read says where it was found");
        let result = match status {
            status if status.starts_with("bazaar; hit") => "hit",
            status => status["bazaar; fwd=".len()..].split(';').next().unwrap(),
        };
        let series = format!("bazaar_cache_lookups_total{{kind=\"{kind}\",result=\"{result}\"}}");
        *said.entry(series).or_default() += 1;
        result.to_owned()
    };
    // `brief` takes stocks of 300 ms, `echoes` has answers kept for as long.
    for policy in [guest("brief"), guest("echoes"), example("no-cache")] {
        let bypasses = policy.ends_with("no_cache.wasm");
        let pushed = bazaar.admin("PUT", "/policy", &fs::read(policy).unwrap());
        assert_eq!(pushed.status, 200, "{pushed:?}");
        for _ in 0..3 {
            ask("/stocks/nvidia", "stock");
            ask("/stocks/enron", "stock");
            ask("/orders/0", "order");
            ask("/orders/99", "order");
        }
        if !bypasses {
            wait_until("a stock to be stale", || {
                ask("/stocks/nvidia", "stock") == "stale"
            });
        }
    }
    let numbers = metrics(&bazaar);
    let counted = numbers
        .iter()
        .filter(|(series, _)| series.starts_with("bazaar_cache_lookups"));
    let counted: BTreeMap<_, _> = counted
        .filter(|(_, count)| **count > 0.0)
        .map(|(series, count)| (series.clone(), *count as u64))
        .collect();
    assert_eq!(counted, said);
}
