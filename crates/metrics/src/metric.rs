//! What a family of samples is: its name, its labels, and what it means.

/// What the names of families begin with that any release may change.
pub const DEBUGGING: &str = "bazaar_debug_";

/// A family of samples that a service exports.
#[derive(Debug, PartialEq, Eq)]
pub struct Metric {
    /// With its unit at the end, but for the `_total` of a counter. What does not begin with [`DEBUGGING`] keeps its name,
    /// its labels and its meaning.
    pub name: &'static str,
    pub kind: Kind,
    /// What one of it is.
    pub unit: &'static str,
    /// Names of labels, each with what its values are.
    pub labels: &'static [(&'static str, &'static str)],
    /// What it means, without the last full stop.
    pub help: &'static str,
}

/// How a family's samples change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// They only rise, from 0 at the process' start.
    Counter,
    Gauge,
    /// How many were up to each of some bounds.
    Histogram,
}

impl Kind {
    /// As Prometheus calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

impl Metric {
    /// A counter. See the fields for what the parts are.
    pub const fn counter(
        name: &'static str,
        unit: &'static str,
        labels: &'static [(&'static str, &'static str)],
        help: &'static str,
    ) -> Self {
        Self::new(Kind::Counter, name, unit, labels, help)
    }

    /// A gauge.
    pub const fn gauge(
        name: &'static str,
        unit: &'static str,
        labels: &'static [(&'static str, &'static str)],
        help: &'static str,
    ) -> Self {
        Self::new(Kind::Gauge, name, unit, labels, help)
    }

    /// A histogram.
    pub const fn histogram(
        name: &'static str,
        unit: &'static str,
        labels: &'static [(&'static str, &'static str)],
        help: &'static str,
    ) -> Self {
        Self::new(Kind::Histogram, name, unit, labels, help)
    }

    const fn new(
        kind: Kind,
        name: &'static str,
        unit: &'static str,
        labels: &'static [(&'static str, &'static str)],
        help: &'static str,
    ) -> Self {
        Self {
            name,
            kind,
            unit,
            labels,
            help,
        }
    }

    /// The name by which it is asked for.
    pub fn exported_name(&self) -> String {
        match self.kind {
            Kind::Counter => format!("{}_total", self.name),
            Kind::Gauge | Kind::Histogram => self.name.to_owned(),
        }
    }

    /// Whether releases keep it as it is.
    pub fn is_stable(&self) -> bool {
        !self.name.starts_with(DEBUGGING)
    }

    /// Its row in `docs/METRICS.md`.
    pub fn row(&self) -> String {
        let labels: Vec<_> = self
            .labels
            .iter()
            .map(|(name, values)| format!("`{name}`: {values}"))
            .collect();
        let stability = match self.is_stable() {
            true => "stable",
            false => "debugging",
        };
        format!(
            "| `{}` | {} | {} | {} | {} | {stability} |",
            self.exported_name(),
            self.kind.name(),
            labels.join("; "),
            self.unit,
            self.help
        )
    }
}

/// Whether a service does its part.
pub const READY: Metric = Metric::gauge(
    "bazaar_ready",
    "0 or 1",
    &[],
    "1 while `/readyz` is 200: where the service does its part; of a gateway, where a trade could be served",
);

/// Which release a process is of: nothing else says whether an upgrade has come to it.
pub const BUILD_INFO: Metric = Metric::gauge(
    "bazaar_build_info",
    "1",
    &[("version", "the release, as `bazaar --version` says it")],
    "Always 1: its label says which release the service is of",
);

/// Of whichever service.
pub const LOG_RECORDS_DROPPED: Metric = Metric::counter(
    "bazaar_log_records_dropped",
    "records",
    &[],
    "Records of the log that standard error did not take",
);

/// Of whichever service, see the crate `traces`.
pub const TRACE_SPANS: Metric = Metric::counter(
    "bazaar_trace_spans",
    "spans",
    &[(
        "result",
        "`exported`; `dropped`: too many waited for the collector, or the service stopped; `refused`: the collector does not want \
         them",
    )],
    "What became of the spans of traces. None without `--otlp`",
);

/// Until when a service's certificates are valid.
pub const CERTIFICATE_EXPIRY: Metric = Metric::gauge(
    "bazaar_certificate_expiry_timestamp_seconds",
    "seconds since 1970",
    &[(
        "certificate",
        "`service`: by which services know this one; `authority`: the first of those that vouch for services to expire; `clients`: \
         what a gateway's clients and operators are shown",
    )],
    "When a certificate that is in force expires. No samples without certificates",
);

/// Of catalogs and replicas, see their listeners.
pub const CONNECTIONS: Metric = Metric::gauge(
    "bazaar_connections",
    "connections",
    &[],
    "Connections of clients, which of a catalog or a replica are services",
);
pub const CONNECTIONS_MAX: Metric = Metric::gauge(
    "bazaar_connections_max",
    "connections",
    &[],
    "Connections that there may be at a time",
);
pub const CONNECTIONS_REFUSED: Metric = Metric::counter(
    "bazaar_connections_refused",
    "connections",
    &[],
    "Connections that were closed at once, since their client had too many",
);

const WHAT: &[(&str, &str)] = &[(
    "what",
    "`received` of requests, `unsent` of answers that are not taken",
)];

pub const HELD_BYTES: Metric = Metric::gauge(
    "bazaar_held_bytes",
    "bytes",
    WHAT,
    "Bytes held for clients: of requests, and of answers that they have not taken yet",
);
pub const HELD_BYTES_MAX: Metric = Metric::gauge(
    "bazaar_held_bytes_max",
    "bytes",
    WHAT,
    "Bytes that may be held for clients",
);
pub const HELD_BYTES_REFUSALS: Metric = Metric::counter(
    "bazaar_held_bytes_refusals",
    "requests",
    WHAT,
    "Requests that were refused (503, `RESOURCE_EXHAUSTED`) since too many bytes were held, for all or for their client",
);

/// A trade's way through all services: each measures its own stages.
pub const TRADE_STAGE: Metric = Metric::histogram(
    "bazaar_trade_stage_seconds",
    "seconds",
    &[(
        "stage",
        "of a gateway `place`; of the leader `lead`, `commit`, `append`; of the catalog `queue`, `store`, `show`",
    )],
    "How long the stages of trades take, each measured by the service whose it is. Of each trade: `place`: from the policy's \
     decision to the answer, over all attempts; `lead`: from the order's arrival at the leader to its answer, once every in-sync \
     replica has its row. Of each call: `commit`: from the leader to the catalog and back, for all orders that went with it; \
     `append`: from the leader to a follower's disk and back. `queue`: how long a call waits for the catalog's writer. Of each \
     group of calls: `store`: how long the database takes to make it durable. Of each call: `show`: how long its answer, which \
     is durable, waits for caches to let go of what they hold, by their word or the end of their leases",
);

/// What every service exports.
pub const COMMON: &[&Metric] = &[
    &READY,
    &BUILD_INFO,
    &LOG_RECORDS_DROPPED,
    &TRACE_SPANS,
    &CONNECTIONS,
    &CONNECTIONS_MAX,
    &CONNECTIONS_REFUSED,
    &HELD_BYTES,
    &HELD_BYTES_MAX,
    &HELD_BYTES_REFUSALS,
    &CERTIFICATE_EXPIRY,
    &TRADE_STAGE,
];
