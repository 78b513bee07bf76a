//! Flags of `bazaar backup`.

use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{Args, Subcommand};
use domain::OrderNumber;

use super::services::SecretUrl;

/// The commands of `bazaar backup`.
#[derive(Debug, Subcommand)]
pub enum Backup {
    /// Write what a catalog has, which may run meanwhile, and the policies of the gateway beside it, or those of a gateway alone,
    /// into a file
    Take(Take),
    /// Read all of a backup, and say what is in it; exit with 1 where any of it is not as it was written
    Verify {
        /// The backup
        file: PathBuf,
    },
    /// Make data directories of a backup, where there are none
    Restore(Restore),
}

/// Flags of `bazaar backup take`.
#[derive(Debug, Args)]
pub struct Take {
    /// Where it is written; nothing may be there
    pub file: PathBuf,
    /// The data directory of `bazaar up`, of a catalog, or of a gateway on a host of its own
    #[arg(
        long,
        env = "BAZAAR_DATA_DIR",
        value_name = "DIR",
        default_value = "data"
    )]
    pub data_dir: PathBuf,
    /// The catalog's database, where its truth is in PostgreSQL: postgres://user@host:port/db. Of the data directory only the
    /// gateway's policies are taken then, where it has any
    #[arg(long, env = "BAZAAR_STORE", value_name = "URL", hide_env_values = true)]
    pub store: Option<SecretUrl>,
}

/// Flags of `bazaar backup restore`.
#[derive(Debug, Args)]
pub struct Restore {
    /// The backup
    pub file: PathBuf,
    /// A directory like the one that it was taken of: for `bazaar up`, for a catalog, or for a gateway
    #[arg(
        long,
        env = "BAZAAR_DATA_DIR",
        value_name = "DIR",
        default_value = "data"
    )]
    pub data_dir: PathBuf,
    /// A database in PostgreSQL that has no journal, for a catalog whose truth is there: postgres://user@host:port/db. Into the
    /// data directory only the gateway's policies are written then, where there are any
    #[arg(long, env = "BAZAAR_STORE", value_name = "URL", hide_env_values = true)]
    pub store: Option<SecretUrl>,
    /// With --store: a server without a synchronous standby will do
    #[arg(long, env = "BAZAAR_ALLOW_UNREPLICATED", requires = "store", value_parser = BoolishValueParser::new())]
    pub allow_unreplicated: bool,
    /// Leave out what came after this order. Another journal begins with it: replicas and gateways of the one before are
    /// refused
    #[arg(long, env = "BAZAAR_UNTIL", value_name = "NUMBER", value_parser = number)]
    pub until: Option<OrderNumber>,
    /// The longest lease, in milliseconds, that a catalog of this journal was ever run with: gateways may still hold
    /// what the lost one lent, and for so long the restored one serves nobody
    #[arg(long, env = "BAZAAR_RESTORE_LEASE_MS", value_name = "MS", default_value_t = 60_000, value_parser = clap::value_parser!(u64).range(50..=60_000))]
    pub lease_ms: u64,
}

fn number(text: &str) -> Result<OrderNumber, String> {
    let number = text.parse().map_err(|_| "not an order's number")?;
    Ok(OrderNumber(number))
}
