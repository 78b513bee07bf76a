//! What services log, and how.

use clap::{Args, ValueEnum};

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
