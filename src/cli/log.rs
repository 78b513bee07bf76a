//! What services log, and how.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use frontend_host::access_log;

use super::values::probability;

/// How a service writes its log.
#[derive(Debug, Clone, Copy, Args)]
pub struct Logging {
    /// How the log is written, on standard error: as lines for people, or with a JSON object on each
    #[arg(
        long,
        env = "BAZAAR_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "text"
    )]
    pub log_format: LogFormat,
}

/// See [`Logging`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

impl LogFormat {
    /// As it is typed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// What a gateway logs of requests.
#[derive(Debug, Clone, Args)]
pub struct Access {
    /// Log each request of a client: as a line of text in the combined format, with more behind it, or of JSON
    #[arg(
        long,
        env = "BAZAAR_ACCESS_LOG",
        value_name = "FORMAT",
        default_value = "off"
    )]
    pub access_log: AccessLog,
    /// Where to. It is opened anew once it was renamed or removed [default: standard error]
    #[arg(long, env = "BAZAAR_ACCESS_LOG_FILE", value_name = "FILE")]
    pub access_log_file: Option<PathBuf>,
    /// Which share of the requests is logged, 0 to 1
    #[arg(long, env = "BAZAAR_ACCESS_LOG_SAMPLE", value_name = "P", default_value_t = 1.0, value_parser = probability)]
    pub access_log_sample: f64,
}

/// See [`Access`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AccessLog {
    Off,
    Text,
    Json,
}

impl AccessLog {
    /// As it is typed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

impl Access {
    /// What a gateway is told.
    pub fn config(self) -> Option<access_log::Config> {
        let format = match self.access_log {
            AccessLog::Off => return None,
            AccessLog::Text => access_log::Format::Text,
            AccessLog::Json => access_log::Format::Json,
        };
        Some(access_log::Config {
            format,
            file: self.access_log_file,
            sample: self.access_log_sample,
        })
    }
}
