//! Numbers for Prometheus.
//!
//! What is counted stays where it is counted, in atomics of one instruction each. It is read when somebody
//! asks, and [`metrics`] writes it down.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, CONTENT_TYPE, VARY};
use axum::response::{IntoResponse as _, Response};
use domain::time::BootTime;
use metrics::metric::{
    CONNECTIONS, CONNECTIONS_MAX, CONNECTIONS_REFUSED, HELD_BYTES, HELD_BYTES_MAX,
    HELD_BYTES_REFUSALS, LOG_RECORDS_DROPPED, READY,
};
use metrics::{Export as _, Families, Family, Form, Metric, collected, exposition, process};

use super::Admin;
use crate::access_log::AccessLog;
use crate::measured;
use crate::measured::{ACCESS_LOG_DROPPED, EVENT_STREAMS, EVENT_STREAMS_REFUSED};
use crate::server::clients::Held;
use frontend_policy::answered::Answer;
use frontend_policy::{COSTS, SharedVersion};

const DIGEST: (&str, &str) = ("policy", "digest of the version");

const REQUESTS: Metric = Metric::counter(
    "bazaar_requests",
    "requests",
    &[
        DIGEST,
        (
            "route",
            "what was done last: `stock`, `stocks`, `order`, `orders`, `events`, `trade`, `other`; `policy`: it answered by itself; `refused`: it was not asked",
        ),
        (
            "cache",
            "`hit`, `miss`, `stale`, `bypass`; `none`: nothing was looked up",
        ),
        ("status", "class of the status: `2xx` to `5xx`"),
    ],
    "Requests that were answered, by the version of the policy that decided; of the active version, the one before, the candidate, \
     and the last 16 that left, for 5 minutes: of all versions `bazaar_request_duration_seconds` counts them",
);
const LOOKUPS: Metric = Metric::counter(
    "bazaar_cache_lookups",
    "lookups",
    &[
        ("kind", "`stock`, `order`"),
        ("result", "`hit`, `miss`, `stale`, `bypass`"),
    ],
    "Lookups in the cache, by what they came to, as `Cache-Status` says it",
);
const ENTRIES: Metric = Metric::gauge(
    "bazaar_cache_entries",
    "entries",
    &[("kind", "`stock`, `order`")],
    "Entries in the cache",
);
const EVICTED: Metric = Metric::counter(
    "bazaar_cache_evicted",
    "entries",
    &[("kind", "`stock`, `order`")],
    "Entries that had to make room for others, or for which there was none",
);
const INVALIDATED: Metric = Metric::counter(
    "bazaar_cache_invalidated",
    "entries",
    &[],
    "Stocks that the catalog had the cache let go of, since they had been traded or changed",
);
const DECISIONS: Metric = Metric::counter(
    "bazaar_policy_decisions",
    "decisions",
    &[
        DIGEST,
        (
            "result",
            "`decided`, `trapped`, `overran`, `invalid`; `error`: an answer of 500 and above that no backend is to blame for; `impure`: \
             one that came out differently when it was made again in a fresh instance",
        ),
    ],
    "Decisions asked of a version of the policy",
);
const DECISION_SECONDS: Metric = Metric::histogram(
    "bazaar_policy_decision_seconds",
    "seconds",
    &[
        DIGEST,
        (
            "route",
            "method (`other` where it is no known one), first part of the path, `/*` for each further one, and the outcome that is decided about; 32 routes on which something was served, and `others`",
        ),
    ],
    "Processor time of decisions, of one in 64, of the active version and the candidate",
);
const CLOSED: Metric = Metric::gauge(
    "bazaar_policy_closed",
    "0 or 1",
    &[],
    "1 while the policy that was active last cannot be started and none may stand in for it: nobody is served",
);
const LEADER_EPOCH: Metric = Metric::gauge(
    "bazaar_leader_epoch",
    "epochs",
    &[],
    "Epoch of the leader, as the catalog has it. Rising without a pause: gateways depose each other's choice, or a leader that is alive \
     but slow",
);
const LEASE_VALID: Metric = Metric::gauge(
    "bazaar_lease_valid",
    "0 or 1",
    &[],
    "1 while the gateway has a lease, by which what is cached is served",
);

/// All that a gateway exports of its own, but for `bazaar_policy_custom_NAME_total`.
pub const METRICS: &[&[&Metric]] = &[
    &[
        &REQUESTS,
        &LOOKUPS,
        &ENTRIES,
        &EVICTED,
        &INVALIDATED,
        &DECISIONS,
        &DECISION_SECONDS,
        &CLOSED,
        &LEADER_EPOCH,
        &LEASE_VALID,
        &traces::BEGUN,
    ],
    measured::METRICS,
    frontend_policy::METRICS,
];

/// `GET /metrics`, in the form that is accepted.
pub(super) async fn metrics(State(admin): State<Arc<Admin>>, headers: HeaderMap) -> Response {
    let form = Form::accepted(headers.get_all(ACCEPT));
    let figures = exposition(form, move |families| Numbers(&admin).export(families));
    let headers = [(CONTENT_TYPE, form.content_type()), (VARY, "accept")];
    (headers, figures).into_response()
}

impl Admin {
    /// The same as values.
    pub(super) fn collected(&self) -> Vec<Family> {
        collected(|families| Numbers(self).export(families)).unwrap_or_default()
    }
}

/// Reads the gateway's counters.
struct Numbers<'a>(&'a Admin);

impl Numbers<'_> {
    fn export(&self, families: &mut Families<'_>) -> fmt::Result {
        self.cache(families)?;
        self.clients(families)?;
        self.policy(families)?;
        self.observed(families)?;
        self.costs(families)?;
        self.service(families)?;
        self.0.gateway.measured.export(families)?;
        self.0.gateway.policy.measured().export(families)?;
        process::export(families)
    }

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
            results.map(|(result, counter)| ([*kind, result], counter.total()))
        });
        families.add(&LOOKUPS, lookups)?;
        let (stocks, orders) = cache.entries();
        families.add(&ENTRIES, [(["stock"], stocks), (["order"], orders)])?;
        let evicted = [
            (["stock"], load(&cache.stock_counts.evicted)),
            (["order"], load(&cache.order_counts.evicted)),
        ];
        families.add(&EVICTED, evicted)?;
        families.add_one(&INVALIDATED, load(&cache.stock_counts.invalidated))
    }

    fn clients(&self, families: &mut Families<'_>) -> fmt::Result {
        let clients = self.0.clients.figures();
        families.add_one(&CONNECTIONS, clients.connections as u64)?;
        let max = self.0.clients.bounds().connections_max;
        families.add_one(&CONNECTIONS_MAX, max as u64)?;
        families.add_one(&CONNECTIONS_REFUSED, clients.connections_refused)?;
        let (streams, refused) = self.0.gateway.events.figures();
        families.add_one(&EVENT_STREAMS, streams as u64)?;
        families.add_one(&EVENT_STREAMS_REFUSED, refused)?;
        let of_each = |value: fn(&Held) -> u64| {
            let budgets = [("received", &clients.received), ("unsent", &clients.unsent)];
            budgets.map(|(what, held)| ([what], value(held)))
        };
        families.add(&HELD_BYTES, of_each(|held| held.bytes as u64))?;
        families.add(&HELD_BYTES_MAX, of_each(|held| held.bytes_max as u64))?;
        families.add(&HELD_BYTES_REFUSALS, of_each(|held| held.refusals))
    }

    /// The versions of which something is said. The same component can be in several places, with counts of its own in
    /// each.
    fn versions(&self) -> Vec<SharedVersion> {
        let published = self.0.gateway.policy.published();
        published.versions().cloned().collect()
    }

    fn policy(&self, families: &mut Families<'_>) -> fmt::Result {
        let mut decisions: BTreeMap<(String, &str), u64> = BTreeMap::new();
        for version in self.versions() {
            let digest = version.digest.to_string();
            let counts = &version.counts;
            let results = [
                ("decided", counts.decisions.total()),
                ("trapped", load(&counts.traps)),
                ("overran", load(&counts.overruns)),
                ("invalid", load(&counts.invalid)),
                ("error", load(&counts.errors)),
                ("impure", load(&counts.impure)),
            ];
            for (result, count) in results {
                *decisions.entry((digest.clone(), result)).or_default() += count;
            }
        }
        let decisions = decisions.iter();
        let decisions =
            decisions.map(|((policy, result), count)| ([policy.as_str(), *result], *count));
        families.add(&DECISIONS, decisions)?;
        let requests = self.answered();
        let requests = requests.iter().map(|((policy, place), count)| {
            let [route, cache, status] = Answer::labels(*place);
            ([policy.as_str(), route, cache, status], *count)
        });
        families.add(&REQUESTS, requests)?;
        let closed = self.0.gateway.policy.current().closed.is_some();
        families.add_one(&CLOSED, u64::from(closed))
    }

    /// How many requests came to what, by digest and place: also those of versions that left lately.
    fn answered(&self) -> BTreeMap<(String, usize), u64> {
        let policy = &self.0.gateway.policy;
        let published = policy.published();
        let departed = policy.departed(&published);
        let in_service = published.versions();
        let in_service = in_service.map(|it| (it.digest, Arc::clone(&it.answered)));
        let mut requests: BTreeMap<(String, usize), u64> = BTreeMap::new();
        for (digest, answered) in in_service.chain(departed) {
            let counts = answered.counts().into_iter().enumerate();
            for (place, count) in counts.filter(|(_, count)| *count > 0) {
                *requests.entry((digest.to_string(), place)).or_default() += count;
            }
        }
        requests
    }

    /// What policies count of their own accord: a family for each name, whichever version it is of.
    fn observed(&self, families: &mut Families<'_>) -> fmt::Result {
        let versions = self.versions();
        let mut all: BTreeMap<&str, (&str, BTreeMap<Labels<'_>, u64>)> = BTreeMap::new();
        for version in &versions {
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
            families.add_named(&format!("bazaar_policy_custom_{name}"), help, samples)?;
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
            let routes = routes.iter();
            routes.map(move |(route, cost)| ([policy.as_str(), route.as_str()], cost.clone()))
        });
        families.add_histogram(&DECISION_SECONDS, COSTS, samples)
    }

    fn service(&self, families: &mut Families<'_>) -> fmt::Result {
        let current = *self.0.gateway.backend.replicas.leader().borrow();
        families.add_one(&LEADER_EPOCH, current.term.epoch.0)?;
        families.add_one(&READY, u64::from(self.0.unready().is_none()))?;
        let lease = self.0.gateway.cache.lease().current(BootTime::now());
        families.add_one(&LEASE_VALID, u64::from(lease.is_some()))?;
        let cluster = self.0.cluster.as_ref().map(tls::Cluster::expiries);
        let (service, authority) = cluster.unwrap_or_default();
        families.add_certificates([
            ("service", service),
            ("authority", authority),
            ("clients", self.0.tls.as_ref().and_then(tls::Server::expiry)),
        ])?;
        families.add_one(&LOG_RECORDS_DROPPED, daemon::log::dropped())?;
        self.0.gateway.traces.export(families)?;
        self.0.gateway.traces.export_begun(families)?;
        let access_log = self.0.gateway.access_log.as_ref();
        families.add_one(
            &ACCESS_LOG_DROPPED,
            access_log.map_or(0, AccessLog::dropped),
        )
    }
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// Names and values of a sample's labels.
type Labels<'a> = Vec<(&'a str, String)>;
