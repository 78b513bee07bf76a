//! What policies are configured with.

use std::path::PathBuf;

use clap::Args;

/// What a component is configured with.
#[derive(Debug, Default, Args)]
pub struct Config {
    /// What to configure it with
    #[arg(long = "config", env = "BAZAAR_POLICY_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// What a configuration can refer to.
#[derive(Debug, Default, Args)]
pub struct Secrets {
    /// A directory of secrets that the configuration can refer to: ${file:NAME}
    #[arg(long, env = "BAZAAR_POLICY_SECRETS", value_name = "DIR")]
    pub policy_secrets: Option<PathBuf>,
}
