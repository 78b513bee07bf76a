//! Counters and histograms that cost a service next to nothing, and how they are exported to Prometheus.
//!
//! What is counted stays where it is counted, in atomics of one instruction each, and is read when somebody asks.
//!
//! - [`metric`]: what a family of samples is, as `docs/METRICS.md` has it;
//! - [`scale`]: what histograms tell apart;
//! - [`instruments`]: what is counted with;
//! - [`form`]: in which of Prometheus' forms it is answered;
//! - [`families`]: writes down what was counted, in one of them or as values;
//! - [`process`]: the figures that every process has.

pub mod metric;
pub mod scale;
pub mod instruments;
pub mod form;
pub mod families;
pub mod process;

pub use families::{Export, Families, Family, Number, Sample, collected, exposition};
pub use form::Form;
pub use instruments::{Buckets, Count, Counter, PerThread};
pub use metric::{Kind, Metric};
pub use scale::{ROWS, SECONDS, SHORT_SECONDS, Scale};
