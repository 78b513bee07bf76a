//! What services trace, and where to.

use std::path::PathBuf;

use clap::Args;
use domain::rate::BURST_MAX;
use traces::sampler::{ASKED_MAX, Sampling};
use traces::{Config, Target, TargetError};

use super::values::probability;

/// What every service is told of tracing.
#[derive(Debug, Clone, Args)]
pub struct Tracing {
    /// Export traces to a collector of OpenTelemetry's, by OTLP: http://host:4317 over gRPC, http://host:4318/v1/traces over HTTP, or
    /// https://…. Every service is to have it: what one does that has not is in no trace
    #[arg(long, env = "BAZAAR_OTLP", value_name = "URL")]
    pub otlp: Option<Target>,
    /// With --otlp https://…: a file of authorities, one of which vouches for the collector [default: those that this machine
    /// believes]
    #[arg(long, env = "BAZAAR_OTLP_CA", value_name = "FILE", requires = "otlp")]
    pub otlp_ca: Option<PathBuf>,
    /// Which share of the requests is traced, 0 to 1; of none of them anything where it is 0. Gateways decide, and others follow them
    #[arg(long, env = "BAZAAR_TRACE_SAMPLE", value_name = "P", default_value_t = 0.01, value_parser = probability)]
    pub trace_sample: f64,
    /// Requests a second that each gateway traces beyond that, since their `traceparent` says that their client traces them. Anybody
    /// can say so: behind a proxy that decides for all, as many as it traces
    #[arg(long, env = "BAZAAR_TRACE_ASKED_MAX", value_name = "N", default_value_t = ASKED_MAX,
          value_parser = clap::value_parser!(u32).range(..=i64::from(BURST_MAX)))]
    pub trace_asked_max: u32,
}

impl Tracing {
    /// What a service does of it, where anything is exported.
    ///
    /// # Errors
    /// Where the flags contradict each other.
    pub fn config(&self) -> Result<Option<Config>, TargetError> {
        let Some(target) = self.otlp.clone() else {
            return Ok(None);
        };
        Ok(Some(Config {
            target: target.believing(self.otlp_ca.clone())?,
            sampling: Sampling {
                share: self.trace_sample,
                asked_max: self.trace_asked_max,
            },
        }))
    }
}
