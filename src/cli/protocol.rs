//! Flags of `bazaar protocol`.

use clap::Subcommand;
use clap::builder::BoolishValueParser;

use super::Admin;

/// The commands of `bazaar protocol`.
#[derive(Debug, Subcommand)]
pub enum Protocol {
    /// Show which version the bazaar is at, and which versions each service speaks
    Show {
        /// Print it as JSON
        #[arg(long, env = "BAZAAR_PROTOCOL_JSON", value_parser = BoolishValueParser::new())]
        json: bool,
        #[command(flatten)]
        admin: Admin,
    },
    /// Have the bazaar be at the newest version, once every service is of a release that speaks it: releases of before are
    /// refused from then on
    Raise {
        #[command(flatten)]
        admin: Admin,
    },
}
