//! Traces: what became of single requests, through all services, for those that are sampled.
//!
//! - [`traceparent`]: W3C's trace context, by which a request says of which trace it is;
//! - [`sampler`]: which requests are traced: decided before anything is built;
//! - [`span`]: a part of a request's way, with its beginning and its end;
//! - [`queue`]: spans that wait to be exported, of which there are so many at most;
//! - [`target`]: where to, by its URL;
//! - `collector`: how a collector is connected to, and what its answers mean;
//! - [`exporter`]: the thread that exports them;
//! - [`otlp`]: how they are written down, by OpenTelemetry's protocol;
//! - here: [`Traces`], by which a service begins them.
//!
//! A trace begins at a gateway. From there on a [`Parent`] goes along with what the request asks of others: as the header
//! `traceparent` of a call, or as a field of an order. Whoever gets none builds nothing.
//!
//! Nothing here holds a request up: spans go to a queue, and where that is full they are dropped, and counted.

#![warn(missing_docs)]
#![cfg_attr(
    not(test),
    warn(clippy::disallowed_methods, clippy::print_stdout, clippy::print_stderr)
)]

pub mod traceparent;
pub mod sampler;
pub mod span;
pub mod queue;
pub mod target;
mod collector;
pub mod exporter;
pub mod otlp;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use domain::time::BootTime;
use http::{HeaderMap, HeaderName};
use metrics::metric::TRACE_SPANS;
use metrics::{Export, Families, Metric};
use tokio::time::timeout;

use exporter::Exporter;
use queue::Queue;
use sampler::{Sampler, Sampling, Why};
pub use span::{Kind, Span, Value};
pub use target::{Target, TargetError};
pub use traceparent::{SpanId, TraceContext, TraceId};

/// The header by which a request says of which trace it is.
pub const TRACEPARENT: HeaderName = HeaderName::from_static(TRACEPARENT_METADATA);

/// The same, as gRPC's metadata has it.
pub const TRACEPARENT_METADATA: &str = "traceparent";

/// How long what waits gets to be exported when a service stops.
const FLUSH_TIME_MAX: Duration = Duration::from_secs(1);

/// Of a gateway, where traces begin.
pub const BEGUN: Metric = Metric::counter(
    "bazaar_traces",
    "requests",
    &[(
        "why",
        "`sampled`: by chance, see `--trace-sample`; `asked`: its client's `traceparent` is sampled; `refused`: that was so, and \
         `--trace-asked-max` of a second had been traced already, so that chance decided",
    )],
    "Requests that were traced, and those that were not although their clients asked for it",
);

/// What a service is told of tracing.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where spans go.
    pub target: Target,
    /// Which requests are traced.
    pub sampling: Sampling,
}

/// Who exports spans.
#[derive(Debug, Clone)]
pub struct Service {
    /// OpenTelemetry's `service.name`.
    pub name: &'static str,
    /// Which of those: `service.instance.id`.
    pub instance: String,
}

/// Where a service begins spans. Clones are of one. The default one traces nothing.
#[derive(Clone, Default)]
pub struct Traces(Option<Arc<Tracing>>);

/// What all spans of a service have in common.
#[derive(Debug)]
pub(crate) struct Tracing {
    sampler: Sampler,
    queue: Queue,
    sampled: AtomicU64,
    asked: AtomicU64,
    refused: AtomicU64,
}

impl Traces {
    /// Begins to export, on a thread of its own.
    ///
    /// # Errors
    /// Where the certificates cannot be used, or there is no thread.
    pub fn start(config: Config, service: Service) -> Result<Self, TargetError> {
        let tracing = Arc::new(Tracing::new(&config.sampling));
        let exporter = Exporter::new(&config.target, service)?;
        let exporting = Arc::clone(&tracing);
        daemon::tasks::thread("traces", move || exporter.run(&exporting.queue))
            .map_err(TargetError::Thread)?;
        Ok(Self(Some(tracing)))
    }

    /// Whether a request is traced, by its headers; where it is, under what.
    pub fn sample(&self, headers: &HeaderMap) -> Option<Parent> {
        let tracing = self.0.as_ref()?;
        let sent = sent(headers);
        let asks = sent.is_some_and(|sent| sent.is_sampled);
        let (why, is_refused) = tracing
            .sampler
            .decide(asks, fastrand::u64(..), BootTime::now);
        if is_refused {
            tracing.refused.fetch_add(1, Ordering::Relaxed);
        }
        match why? {
            Why::Chance => &tracing.sampled,
            Why::Asked => &tracing.asked,
        }
        .fetch_add(1, Ordering::Relaxed);
        Some(Parent {
            tracing: Arc::clone(tracing),
            trace: sent.map_or_else(TraceId::random, |sent| sent.trace),
            span: sent.map(|sent| sent.span),
            is_remote: sent.is_some(),
        })
    }

    /// Under what a call is traced, by the `traceparent` that another service gave it; empty where it is not.
    pub fn join(&self, traceparent: &str) -> Option<Parent> {
        if traceparent.is_empty() {
            return None;
        }
        let tracing = self.0.as_ref()?;
        let sent = TraceContext::parse(traceparent.as_bytes())?;
        sent.is_sampled.then(|| Parent {
            tracing: Arc::clone(tracing),
            trace: sent.trace,
            span: Some(sent.span),
            is_remote: true,
        })
    }

    /// The same by the metadata of a call.
    pub fn join_call(&self, metadata: &tonic::metadata::MetadataMap) -> Option<Parent> {
        self.0.as_ref()?;
        let sent = metadata.get(TRACEPARENT_METADATA)?;
        self.join(sent.to_str().ok()?)
    }

    /// Waits until what waits is exported, for a bounded time. Nothing is exported after that.
    pub async fn flush(&self) {
        if let Some(tracing) = &self.0 {
            let _ = timeout(FLUSH_TIME_MAX, tracing.queue.close()).await;
        }
    }

    /// How many traces were begun, and why.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn export_begun(&self, families: &mut Families<'_>) -> fmt::Result {
        let count = |counter: fn(&Tracing) -> &AtomicU64| {
            let tracing = self.0.as_ref();
            tracing.map_or(0, |tracing| counter(tracing).load(Ordering::Relaxed))
        };
        families.add(
            &BEGUN,
            [
                (["sampled"], count(|tracing| &tracing.sampled)),
                (["asked"], count(|tracing| &tracing.asked)),
                (["refused"], count(|tracing| &tracing.refused)),
            ],
        )
    }
}

impl fmt::Debug for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Traces").field(&self.0.is_some()).finish()
    }
}

impl Export for Traces {
    fn export(&self, families: &mut Families<'_>) -> fmt::Result {
        let counts = self.0.as_ref().map(|tracing| tracing.queue.counts());
        let counts = counts.unwrap_or_default();
        families.add(
            &TRACE_SPANS,
            [
                (["exported"], counts.exported),
                (["dropped"], counts.dropped),
                (["refused"], counts.refused),
            ],
        )
    }
}

impl Tracing {
    fn new(sampling: &Sampling) -> Self {
        Self {
            sampler: Sampler::new(sampling),
            queue: Queue::default(),
            sampled: AtomicU64::new(0),
            asked: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }
}

/// What a request says of its trace. One that says two things says nothing (W3C, section 3.2).
fn sent(headers: &HeaderMap) -> Option<TraceContext> {
    let mut sent = headers.get_all(TRACEPARENT).into_iter();
    let first = sent.next()?;
    match sent.next() {
        None => TraceContext::parse(first.as_bytes()),
        Some(_) => None,
    }
}

/// Under what spans begin: another span, of this service or another one, or a trace.
#[derive(Debug, Clone)]
pub struct Parent {
    tracing: Arc<Tracing>,
    trace: TraceId,
    span: Option<SpanId>,
    is_remote: bool,
}

#[cfg(test)]
mod tests;
