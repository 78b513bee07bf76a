//! Counters and histograms that cost a service next to nothing, and how they are exported to Prometheus.
//!
//! What is counted stays where it is counted, in atomics of one instruction each, and is read when somebody asks.
//!
//! - [`metric`]: what a family of samples is, as `docs/METRICS.md` has it;
//! - [`instruments`]: what is counted with;
//! - [`families`]: writes down what was counted, in Prometheus' text format or as values;
//! - [`process`]: the figures that every process has.

pub mod metric;
pub mod instruments;
pub mod families;
pub mod process;

pub use families::{Export, Families, Family, Number, Sample, collected, exposition};
pub use instruments::{Buckets, Count, PerThread, ROWS, SECONDS, Scale};
pub use metric::{Kind, Metric};
