//! Logs: to standard error, each line behind the name of the service that wrote it.

use std::fmt;
use std::io::{self, IsTerminal};

use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{Format, Full, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// What is logged where neither variable says it.
const DEFAULT_FILTER: &str = "info";

/// Variables that say what is logged, such as `debug` or `warn,order=debug`; the first that
/// is set counts.
const FILTER_VARIABLES: [&str; 2] = ["BAZAAR_LOG", "RUST_LOG"];

/// Starts logging under a service's name. `up` and its services share one standard error.
pub fn start(service: &str) {
    let filter = FILTER_VARIABLES
        .into_iter()
        .find_map(|variable| EnvFilter::try_from_env(variable).ok());
    let format = Named {
        service: service.to_owned(),
        format: Format::default(),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter.unwrap_or_else(|| EnvFilter::new(DEFAULT_FILTER)))
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .event_format(format)
        .init();
}

struct Named {
    service: String,
    format: Format<Full>,
}

impl<S, N> FormatEvent<S, N> for Named
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        write!(writer, "{:<8} ", self.service)?;
        self.format.format_event(context, writer, event)
    }
}
