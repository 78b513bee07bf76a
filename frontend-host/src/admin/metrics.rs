//! Numbers for Prometheus.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};

use super::Admin;
use crate::server::clients::Held;

/// Prometheus' text format, version 0.0.4.
pub(super) async fn metrics(State(admin): State<Arc<Admin>>) -> Response {
    let mut text = String::new();
    let mut family = |name: &str, kind: &str, help: &str, samples: &[(String, u64)]| {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in samples {
            let _ = writeln!(text, "{name}{labels} {value}");
        }
    };
    let cache = &admin.gateway.cache;
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let mut lookups = Vec::new();
    for (kind, counts) in [
        ("stock", &cache.stock_counts),
        ("order", &cache.order_counts),
    ] {
        for (result, counter) in [
            ("hit", &counts.hits),
            ("miss", &counts.misses),
            ("stale", &counts.stale),
            ("bypass", &counts.bypasses),
        ] {
            lookups.push((
                format!("{{kind=\"{kind}\",result=\"{result}\"}}"),
                load(counter),
            ));
        }
    }
    family(
        "bazaar_cache_lookups_total",
        "counter",
        "Lookups in the cache, by what they came to.",
        &lookups,
    );
    let (stocks, orders) = cache.entries();
    let entries = [
        ("{kind=\"stock\"}".into(), stocks),
        ("{kind=\"order\"}".into(), orders),
    ];
    family(
        "bazaar_cache_entries",
        "gauge",
        "Entries in the cache.",
        &entries,
    );

    let clients = admin.clients.figures();
    family(
        "bazaar_connections",
        "gauge",
        "Connections of clients.",
        &[(String::new(), clients.connections as u64)],
    );
    family(
        "bazaar_connections_refused_total",
        "counter",
        "Connections that were closed at once, since their client had too many.",
        &[(String::new(), clients.connections_refused)],
    );
    let budgets = [("received", clients.received), ("unsent", clients.unsent)];
    let of_each = |value: fn(&Held) -> u64| {
        budgets.map(|(what, held)| (format!("{{what=\"{what}\"}}"), value(&held)))
    };
    family(
        "bazaar_held_bytes",
        "gauge",
        "Bytes held for clients: of requests, and of answers that they have not taken yet.",
        &of_each(|held| held.bytes as u64),
    );
    family(
        "bazaar_held_bytes_max",
        "gauge",
        "Bytes that may be held for clients.",
        &of_each(|held| held.bytes_max as u64),
    );
    family(
        "bazaar_held_bytes_refusals_total",
        "counter",
        "Requests that got 503 since too many bytes were held, for all or for their client.",
        &of_each(|held| held.refusals),
    );

    let published = admin.gateway.policy.published();
    let candidate = published
        .candidate
        .as_ref()
        .map(|candidate| &candidate.version);
    // The same component can be in several places, with counts of its own in each.
    let mut decisions: BTreeMap<String, u64> = BTreeMap::new();
    for version in std::iter::once(&published.active)
        .chain(&published.previous)
        .chain(candidate)
    {
        let counts = &version.counts;
        let results = [
            ("decided", &counts.decisions),
            ("trapped", &counts.traps),
            ("overran", &counts.overruns),
            ("invalid", &counts.invalid),
            ("error", &counts.errors),
        ];
        for (result, counter) in results {
            let labels = format!("{{policy=\"{}\",result=\"{result}\"}}", version.digest);
            *decisions.entry(labels).or_default() += load(counter);
        }
    }
    let decisions: Vec<_> = decisions.into_iter().collect();
    family(
        "bazaar_policy_decisions_total",
        "counter",
        "Decisions asked of a version of the policy.",
        &decisions,
    );

    let led = *admin.gateway.backend.replicas.leader().borrow();
    let epoch = [(String::new(), led.leadership.epoch.0)];
    family(
        "bazaar_leader_epoch",
        "gauge",
        "Epoch of the leader, as the catalog has it.",
        &epoch,
    );
    let ready = [(String::new(), u64::from(admin.unready().is_none()))];
    family(
        "bazaar_ready",
        "gauge",
        "1 while a trade could be served.",
        &ready,
    );
    let dropped = [(String::new(), daemon::log::dropped())];
    family(
        "bazaar_log_records_dropped_total",
        "counter",
        "Records of the log that standard error did not take.",
        &dropped,
    );
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}
