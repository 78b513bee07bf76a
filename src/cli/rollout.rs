//! Flags of `bazaar policy rollout`.

use std::path::PathBuf;

use clap::Args;
use clap::builder::BoolishValueParser;

use super::admin::Admin;
use super::config::Config;

/// Flags of `bazaar policy rollout`.
#[derive(Debug, Args)]
pub struct Rollout {
    /// The component to roll out, or an image of it; without one, what is rolled out already
    #[arg(conflicts_with_all = ["pause", "resume", "skip"])]
    pub file: Option<PathBuf>,
    /// Its steps, in TOML [default: shadow 0.1, canary 0.01, 0.05, 0.25]
    #[arg(long, env = "BAZAAR_PLAN", value_name = "FILE", requires = "file")]
    pub plan: Option<PathBuf>,
    /// Take the place of this candidate, whoever put it there: its digest, or the beginning of it
    #[arg(long, env = "BAZAAR_REPLACE", value_name = "DIGEST", requires = "file")]
    pub replace: Option<String>,
    #[command(flatten)]
    pub config: Config,
    /// Show how it goes on until it is over or pauses; exit with 1 where it did not become active
    #[arg(long, env = "BAZAAR_WATCH", value_parser = BoolishValueParser::new())]
    pub watch: bool,
    /// Have it stay at its step
    #[arg(long, env = "BAZAAR_PAUSE", value_parser = BoolishValueParser::new(), conflicts_with_all = ["resume", "skip"])]
    pub pause: bool,
    /// Have it go on with its step, whose time begins anew; what was seen in it counts
    #[arg(long, env = "BAZAAR_RESUME", value_parser = BoolishValueParser::new(), conflicts_with = "skip")]
    pub resume: bool,
    /// Go on with the next step, whatever this one has shown so far, and whatever that one's gate says
    #[arg(long, env = "BAZAAR_SKIP", value_parser = BoolishValueParser::new())]
    pub skip: bool,
    #[command(flatten)]
    pub admin: Admin,
}
