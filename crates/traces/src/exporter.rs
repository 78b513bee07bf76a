//! Exports spans, on a thread of its own: it is not a request's time that writing them down takes.
//!
//! One export is under way at a time. Where the collector does not take it, it is tried again, later and later; meanwhile what
//! ends waits in the queue, and is dropped where that is full.

use std::pin::Pin;
use std::time::Duration;

use tokio::time::sleep;

use crate::Service;
use crate::collector::{Collector, Failed};
use crate::otlp::Origin;
use crate::otlp::proto::collector::trace::v1::ExportTraceServiceResponse;
use crate::queue::Queue;
use crate::span::bounded;
use crate::target::{Target, TargetError};

/// How long after a first span has ended what there is by then is exported.
const GATHER_TIME: Duration = Duration::from_secs(1);

/// How long after an export has failed there is another try, at first and at most, where the collector does not ask for more.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(500);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(30);

/// How often one export is tried: there may be something in it that the collector cannot take.
const ATTEMPTS_MAX: u32 = 10;

/// Exports the spans of a queue.
pub(crate) struct Exporter {
    collector: Collector,
    origin: Origin,
    /// Whether the last export was taken.
    is_failing: bool,
}

impl Exporter {
    pub(crate) fn new(target: &Target, service: Service) -> Result<Self, TargetError> {
        Ok(Self {
            collector: Collector::new(target)?,
            origin: Origin::of(service),
            is_failing: false,
        })
    }

    /// Exports until the service stops.
    pub(crate) fn run(mut self, queue: &Queue) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        match runtime {
            Ok(runtime) => runtime.block_on(self.export_all(queue)),
            Err(error) => tracing::warn!(%error, "traces are not exported: restart this service"),
        }
        queue.note_closed();
    }

    async fn export_all(&mut self, queue: &Queue) {
        let mut closing = std::pin::pin!(queue.closing());
        while !queue.is_closing() {
            tokio::select! {
                () = queue.filled() => {}
                () = &mut closing => break,
            }
            if !queue.is_enough() {
                tokio::select! {
                    () = sleep(GATHER_TIME) => {}
                    () = queue.filled() => {}
                    () = &mut closing => break,
                }
            }
            while !queue.is_closing() && !queue.is_empty() {
                self.export(queue, closing.as_mut()).await;
            }
        }
        // What there is by now is tried once.
        while !queue.is_empty() {
            self.export(queue, closing.as_mut()).await;
        }
    }

    /// Exports what waits, as much of it as one export takes, until the collector has taken it.
    async fn export(&mut self, queue: &Queue, mut closing: Pin<&mut impl Future<Output = ()>>) {
        let spans = queue.take();
        let count = spans.len();
        let request = self.origin.export(spans);
        let mut pause = RETRY_PAUSE_MIN;
        for _ in 0..ATTEMPTS_MAX {
            let failed = match self.collector.export(request.clone()).await {
                Ok(answer) => return self.taken(queue, count, answer),
                Err(failed) => failed,
            };
            self.failed(&failed.to_string());
            let after = match failed {
                Failed::Refused(_) => return queue.note_refused(count),
                Failed::Later { after, .. } => after,
                Failed::Unanswered => Duration::ZERO,
            };
            if queue.is_closing() {
                break;
            }
            let own = pause.mul_f64(0.5 + fastrand::f64() / 2.0);
            tokio::select! {
                () = sleep(own.max(after)) => {}
                () = &mut closing => {}
            }
            pause = (2 * pause).min(RETRY_PAUSE_MAX);
        }
        queue.note_dropped(count);
    }

    /// The collector has taken them, unless it says that it does not want some.
    fn taken(&mut self, queue: &Queue, count: usize, answer: ExportTraceServiceResponse) {
        let partial = answer.partial_success.unwrap_or_default();
        let refused = usize::try_from(partial.rejected_spans)
            .unwrap_or(0)
            .min(count);
        queue.note_exported(count - refused);
        queue.note_refused(refused);
        if refused > 0 {
            self.failed(&bounded(partial.error_message));
        } else if std::mem::take(&mut self.is_failing) {
            tracing::info!(collector = %self.collector.target(), "traces are exported again");
        }
    }

    /// Says so once, until an export is taken again.
    fn failed(&mut self, why: &str) {
        if !std::mem::replace(&mut self.is_failing, true) {
            tracing::warn!(
                collector = %self.collector.target(),
                why,
                "traces are not exported: see to the collector, or to --otlp. Nothing else is held up"
            );
        }
    }
}
