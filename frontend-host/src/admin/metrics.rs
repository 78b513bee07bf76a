//! Numbers for Prometheus.
//!
//! What is counted stays where it is counted, in atomics of one instruction each. It is read when somebody
//! asks, and `prometheus-client` writes it down.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, prometheus_text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::Admin;
use crate::access_log::AccessLog;
use crate::server::clients::Held;
use frontend_policy::{COST_BOUNDS_US, Cost};

/// All that `GET /metrics` says.
pub(super) fn registry(admin: Arc<Admin>) -> Registry {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Numbers(admin)));
    registry
}

/// Prometheus' text format, version 0.0.4.
pub(super) async fn metrics(registry: Arc<Registry>) -> Response {
    let mut text = String::new();
    prometheus_text::encode(&mut text, &registry).expect("a string takes all that is written");
    ([(CONTENT_TYPE, prometheus_text::CONTENT_TYPE)], text).into_response()
}

/// Reads the gateway's counters.
struct Numbers(Arc<Admin>);

impl fmt::Debug for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Numbers")
    }
}

impl Collector for Numbers {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut families = Families(encoder);
        self.cache(&mut families)?;
        self.clients(&mut families)?;
        self.policy(&mut families)?;
        self.observed(&mut families)?;
        self.costs(&mut families)?;
        self.service(&mut families)
    }
}

impl Numbers {
    fn cache(&self, families: &mut Families<'_>) -> fmt::Result {
        let cache = &self.0.gateway.cache;
        let lookups = [
            ("stock", &cache.stock_counts),
            ("order", &cache.order_counts),
        ];
        let lookups = lookups.iter().flat_map(|(kind, counts)| {
            let results = [
                ("hit", &counts.hits),
                ("miss", &counts.misses),
                ("stale", &counts.stale),
                ("bypass", &counts.bypasses),
            ];
            results.map(|(result, counter)| ([("kind", *kind), ("result", result)], load(counter)))
        });
        families.counter(
            "bazaar_cache_lookups",
            "Lookups in the cache, by what they came to.",
            lookups,
        )?;
        let (stocks, orders) = cache.entries();
        families.gauge(
            "bazaar_cache_entries",
            "Entries in the cache.",
            [([("kind", "stock")], stocks), ([("kind", "order")], orders)],
        )
    }

    fn clients(&self, families: &mut Families<'_>) -> fmt::Result {
        let clients = self.0.clients.figures();
        families.gauge(
            "bazaar_connections",
            "Connections of clients.",
            alone(clients.connections as u64),
        )?;
        families.counter(
            "bazaar_connections_refused",
            "Connections that were closed at once, since their client had too many.",
            alone(clients.connections_refused),
        )?;
        let of_each = |value: fn(&Held) -> u64| {
            let budgets = [("received", &clients.received), ("unsent", &clients.unsent)];
            budgets.map(|(what, held)| ([("what", what)], value(held)))
        };
        families.gauge(
            "bazaar_held_bytes",
            "Bytes held for clients: of requests, and of answers that they have not taken yet.",
            of_each(|held| held.bytes as u64),
        )?;
        families.gauge(
            "bazaar_held_bytes_max",
            "Bytes that may be held for clients.",
            of_each(|held| held.bytes_max as u64),
        )?;
        families.counter(
            "bazaar_held_bytes_refusals",
            "Requests that got 503 since too many bytes were held, for all or for their client.",
            of_each(|held| held.refusals),
        )
    }

    fn policy(&self, families: &mut Families<'_>) -> fmt::Result {
        let published = self.0.gateway.policy.published();
        let candidate = published
            .candidate
            .as_ref()
            .map(|candidate| &candidate.version);
        // The same component can be in several places, with counts of its own in each.
        let mut decisions: BTreeMap<(String, &str), u64> = BTreeMap::new();
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
                ("impure", &counts.impure),
            ];
            for (result, counter) in results {
                let labels = (version.digest.to_string(), result);
                *decisions.entry(labels).or_default() += load(counter);
            }
        }
        let decisions = decisions
            .iter()
            .map(|((policy, result), count)| ([("policy", &**policy), ("result", result)], *count));
        families.counter(
            "bazaar_policy_decisions",
            "Decisions asked of a version of the policy.",
            decisions,
        )
    }

    /// What policies count of their own accord: a family for each name, whichever version it is of.
    fn observed(&self, families: &mut Families<'_>) -> fmt::Result {
        let published = self.0.gateway.policy.published();
        let candidate = published
            .candidate
            .as_ref()
            .map(|candidate| &candidate.version);
        let mut all: BTreeMap<&str, (&str, BTreeMap<Labels<'_>, u64>)> = BTreeMap::new();
        for version in std::iter::once(&published.active)
            .chain(&published.previous)
            .chain(candidate)
        {
            let mut counted = version.observed.snapshot();
            for counter in &version.manifest.counters {
                let (_, samples) = all
                    .entry(&counter.name)
                    .or_insert((&counter.help, BTreeMap::new()));
                for (values, count) in counted.remove(&counter.name).unwrap_or_default() {
                    let own = counter.labels.iter().map(String::as_str).zip(values);
                    let policy = ("policy", version.digest.to_string());
                    *samples
                        .entry(std::iter::once(policy).chain(own).collect())
                        .or_default() += count;
                }
            }
        }
        for (name, (help, samples)) in all {
            let samples = samples.iter().map(|(labels, count)| (&labels[..], *count));
            families.counter_of(&format!("bazaar_policy_custom_{name}"), help, samples)?;
        }
        Ok(())
    }

    /// What decisions of the active version and of the candidate cost.
    fn costs(&self, families: &mut Families<'_>) -> fmt::Result {
        let published = self.0.gateway.policy.published();
        let candidate = published.candidate.as_ref().map(|it| &it.version);
        let candidate = candidate.filter(|it| it.digest != published.active.digest);
        let versions = std::iter::once(&published.active).chain(candidate);
        let costs: Vec<_> = versions
            .map(|version| (version.digest.to_string(), version.costs.snapshot()))
            .collect();
        let samples = costs.iter().flat_map(|(policy, routes)| {
            let labels = move |route| [("policy", policy.as_str()), ("route", route)];
            routes
                .iter()
                .map(move |(route, cost)| (labels(route.as_str()), cost))
        });
        families.histogram(
            "bazaar_policy_decision_seconds",
            "Processor time of decisions, of one in 64.",
            samples,
        )
    }

    fn service(&self, families: &mut Families<'_>) -> fmt::Result {
        let current = *self.0.gateway.backend.replicas.leader().borrow();
        families.gauge(
            "bazaar_leader_epoch",
            "Epoch of the leader, as the catalog has it.",
            alone(current.term.epoch.0),
        )?;
        families.gauge(
            "bazaar_ready",
            "1 while a trade could be served.",
            alone(u64::from(self.0.unready().is_none())),
        )?;
        families.counter(
            "bazaar_log_records_dropped",
            "Records of the log that standard error did not take.",
            alone(daemon::log::dropped()),
        )?;
        let access_log = self.0.gateway.access_log.as_ref();
        families.counter(
            "bazaar_access_log_dropped",
            "Requests that are not in the access log for lack of room, or as it could not be written.",
            alone(access_log.map_or(0, AccessLog::dropped)),
        )
    }
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// Names and values of a sample's labels.
type Labels<'a> = Vec<(&'a str, String)>;

/// The one sample of a family without labels.
fn alone(value: u64) -> [([(&'static str, &'static str); 0], u64); 1] {
    [([], value)]
}

/// Families of samples, each of which has so many labels.
struct Families<'a>(DescriptorEncoder<'a>);

impl Families<'_> {
    /// Its samples get the suffix `_total`.
    fn counter<'l, const LABELS: usize>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = ([(&'l str, &'l str); LABELS], u64)>,
    ) -> fmt::Result {
        let counter = MetricType::Counter;
        let mut family = self.0.encode_descriptor(name, help, None, counter)?;
        samples.into_iter().try_for_each(|(labels, value)| {
            let mut sample = family.encode_family(&labels)?;
            sample.encode_counter::<[(&str, &str); 0], _, u64>(&value, None)
        })
    }

    /// A counter whose samples may differ in their labels.
    fn counter_of<'l>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (&'l [(&'l str, String)], u64)>,
    ) -> fmt::Result {
        let counter = MetricType::Counter;
        let mut family = self.0.encode_descriptor(name, help, None, counter)?;
        samples.into_iter().try_for_each(|(labels, value)| {
            let mut sample = family.encode_family(&labels)?;
            sample.encode_counter::<[(&str, &str); 0], _, u64>(&value, None)
        })
    }

    fn histogram<'l, const LABELS: usize>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = ([(&'l str, &'l str); LABELS], &'l Cost)>,
    ) -> fmt::Result {
        let histogram = MetricType::Histogram;
        let mut family = self.0.encode_descriptor(name, help, None, histogram)?;
        samples.into_iter().try_for_each(|(labels, cost)| {
            let bounds = COST_BOUNDS_US.map(|us| f64::from(us) / 1e6);
            let bounds = bounds.into_iter().chain([f64::MAX]);
            let buckets: Vec<_> = bounds.zip(cost.buckets).collect();
            let count = cost.buckets.iter().sum();
            let sum = cost.sum.as_secs_f64();
            let mut sample = family.encode_family(&labels)?;
            sample.encode_histogram::<[(&str, &str); 0]>(sum, count, &buckets, None)
        })
    }

    fn gauge<'l, const LABELS: usize>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = ([(&'l str, &'l str); LABELS], u64)>,
    ) -> fmt::Result {
        let gauge = MetricType::Gauge;
        let mut family = self.0.encode_descriptor(name, help, None, gauge)?;
        samples.into_iter().try_for_each(|(labels, value)| {
            let mut sample = family.encode_family(&labels)?;
            sample.encode_gauge(&value)
        })
    }
}
