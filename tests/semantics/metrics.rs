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
                "{line} is no sample of {family:?}"
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
