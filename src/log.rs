//! Logs: to standard error, as text, each line behind the name of the service that wrote it, or as a JSON object on each.

mod json;

use std::env::{self, VarError};
use std::fmt;
use std::io::{self, IsTerminal};
use std::sync::atomic::{AtomicBool, Ordering};

use daemon::log::{self, Records};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{Directive, LevelFilter};
use tracing_subscriber::fmt::format::{Format, Full, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::cli::LogFormat;

/// Whether what this process says is JSON.
static IS_JSON: AtomicBool = AtomicBool::new(false);

/// What is logged where neither variable says it.
const DEFAULT_FILTER: &str = "info";

/// Variables that say what is logged, such as `debug` or `warn,order=debug`; the first that
/// is set counts.
const FILTER_VARIABLES: [&str; 2] = ["BAZAAR_LOG", "RUST_LOG"];

/// Says something to the user. Nobody waits for it to be read.
pub fn say(text: &str) {
    say_at(Level::INFO, text);
}

/// The same, that is as bad as that.
pub fn say_at(level: Level, text: &str) {
    // Whoever reads JSON has the name beside it.
    match IS_JSON.load(Ordering::Relaxed) {
        true => log::message(level, text),
        false => log::message(level, &format!("bazaar: {text}")),
    }
}

/// From now on all that this process says is written like this.
pub fn write_as(service: &str, format: LogFormat) {
    if format == LogFormat::Json {
        IS_JSON.store(true, Ordering::Relaxed);
        let service = service.to_owned();
        log::write_messages_as(Box::new(move |level, text| {
            json::message(&service, level, text)
        }));
    }
}

/// Starts logging under a service's name. `up` and its services share one standard error.
pub fn start(service: &str, format: LogFormat) {
    write_as(service, format);
    let (directives, problems) = directives();
    #[expect(clippy::disallowed_methods, reason = "nothing is written to it")]
    let is_terminal = io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(directives))
        .with_ansi(is_terminal)
        .with_writer(|| Records)
        .log_internal_errors(false)
        .event_format(Named {
            service: service.to_owned(),
            format: match format {
                LogFormat::Text => Some(Format::default()),
                LogFormat::Json => None,
            },
        })
        .init();
    // Not by the filter that they are about.
    for problem in problems {
        match format {
            LogFormat::Text => log::message(Level::WARN, &format!("{service:<8} {problem}")),
            LogFormat::Json => log::message(Level::WARN, &problem),
        }
    }
}

/// The filter's directives, each of them valid, and what is wrong with the others.
fn directives() -> (String, Vec<String>) {
    let set = FILTER_VARIABLES.into_iter().find_map(|variable| {
        let value = match env::var(variable) {
            Ok(value) => value,
            Err(VarError::NotPresent) => return None,
            Err(VarError::NotUnicode(value)) => value.to_string_lossy().into_owned(),
        };
        (!value.trim().is_empty()).then_some((variable, value))
    });
    set.map_or_else(
        || (DEFAULT_FILTER.to_owned(), Vec::new()),
        |(variable, value)| checked(variable, &value),
    )
}

/// What is valid in a filter; the default where nothing is.
fn checked(variable: &str, filter: &str) -> (String, Vec<String>) {
    let mut valid = Vec::new();
    let mut problems = Vec::new();
    for directive in filter.split(',').map(str::trim) {
        match directive.parse::<Directive>() {
            _ if directive.is_empty() => {}
            Ok(_) => {
                if names_no_level(directive) {
                    problems.push(format!("{variable}: `{directive}` is not a level (error, warn, info, debug, trace, off), so it is taken for a module, of which everything is logged"));
                }
                valid.push(directive);
            }
            Err(error) => {
                problems.push(format!("{variable}: `{directive}` is ignored: {error}"));
            }
        }
    }
    if valid.is_empty() {
        problems.push(format!(
            "{variable}: nothing of it is left: `{DEFAULT_FILTER}` applies"
        ));
        valid.push(DEFAULT_FILTER);
    }
    (valid.join(","), problems)
}

/// Whether a directive is a mere word, and no level: mostly a misspelt one.
fn names_no_level(directive: &str) -> bool {
    !directive.contains(['=', '[']) && directive.parse::<LevelFilter>().is_err()
}

struct Named {
    service: String,
    /// None where it is JSON.
    format: Option<Format<Full>>,
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
        let Some(format) = &self.format else {
            return writeln!(writer, "{}", json::event(&self.service, event));
        };
        write!(writer, "{:<8} ", self.service)?;
        format.format_event(context, writer, event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_filter_is_said_and_the_rest_applies() {
        for (filter, applies, wrong) in [
            ("debug", "debug", None),
            ("warn,order=debug", "warn,order=debug", None),
            (
                "info,order[{epoch=3}]=trace",
                "info,order[{epoch=3}]=trace",
                None,
            ),
            (",", DEFAULT_FILTER, Some("nothing of it is left")),
            (
                "nonsense=loud",
                DEFAULT_FILTER,
                Some("`nonsense=loud` is ignored"),
            ),
            ("warn, order=loud", "warn", Some("`order=loud` is ignored")),
            ("inof", "inof", Some("`inof` is not a level")),
        ] {
            let (directives, problems) = checked("RUST_LOG", filter);
            assert_eq!(directives, applies, "{filter}");
            match wrong {
                None => assert!(problems.is_empty(), "{filter}: {problems:?}"),
                Some(wrong) => {
                    assert!(problems[0].contains(wrong), "{filter}: {problems:?}");
                    assert!(problems[0].contains("RUST_LOG"), "{filter}: {problems:?}");
                }
            }
        }
    }
}
