//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::application::Application;
use crate::generator::mix::Mix;
use crate::generator::publish::Publishes;
use crate::generator::put::Puts;
use crate::growth::Subject;
use crate::responder::Responder;
use crate::scenario::{Kind, Peer};
use crate::trial::{Sizes, Topic};

/// Where runs are added to, and looked up.
const HISTORY: &str = "target/report/history.jsonl";

/// Bazaar beside the servers that people run today, on one machine, in one run.
#[derive(Debug, Parser)]
#[command(name = "bench")]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

/// What it can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Drive every contender in turn, and say how Bazaar compares
    Compare(Compare),
    /// Measure how Bazaar grows: connections, gateways, cache hits, stocks, and the ledger
    Grow(Grow),
    /// Print the tables of a report that was written
    Table {
        /// Its bench.json
        file: PathBuf,
    },
    /// Say what moved between two runs of a history beyond noise
    Moved(Moved),
    /// Put orders into etcd over gRPC, and print figures; `compare` runs it
    #[command(hide = true)]
    Put(Puts),
    /// Publish orders to NATS, and print figures; `compare` runs it
    #[command(hide = true)]
    Publish(Publishes),
    /// Look up and trade in one stream, and print figures; `compare` runs it
    #[command(hide = true)]
    Mix(Mix),
    /// Serve stocks and orders out of PostgreSQL; `compare` runs it
    #[command(hide = true)]
    Application(Application),
    /// Answer every request alike; `compare` runs it
    #[command(hide = true)]
    Responder(Responder),
}

/// What all measurements have in common.
#[derive(Debug, Args)]
pub struct Common {
    /// The `bazaar` to measure: a release build
    #[arg(long, value_name = "FILE", default_value = "target/release/bazaar")]
    pub bazaar: PathBuf,
    /// Where data goes while it is measured; removed afterwards
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    pub work_dir: PathBuf,
    /// Threads of each server that has such a setting [default: one for each processor]
    #[arg(long, value_name = "N")]
    pub workers: Option<usize>,
    /// The processor that generators are kept on, so that all servers compete with them alike
    /// [default: the last one]
    #[arg(long, value_name = "N")]
    pub generator_cpu: Option<usize>,
    /// Where to write the report
    #[arg(long, value_name = "DIR")]
    pub report: Option<PathBuf>,
}

/// Flags of `bench compare`.
#[derive(Debug, Args)]
pub struct Compare {
    #[command(flatten)]
    pub common: Common,
    /// Only this: lookups or trades, which are measured where nothing is said; or mixed, memory, start, moments, variants, https or costs
    #[arg(long, value_parser = parse_only)]
    pub only: Option<Only>,
    #[command(flatten)]
    pub sizes: Sizes,
    /// Only beside these peers, rather than all [default: all]
    #[arg(long, value_name = "PEER", value_delimiter = ',', conflicts_with_all = ["before", "traced"])]
    pub peers: Vec<Peer>,
    /// Where the run is added as a line, for `bench moved`
    #[arg(long, value_name = "FILE", default_value = HISTORY)]
    pub history: PathBuf,
    /// How often all contenders are started, each time with new data: 6 at least say within what a difference of few percent lies
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub sittings: u32,
    /// How often each contender takes its turn in a sitting
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// How long a turn lasts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub seconds: u64,
    /// The `bazaar` with the default policy compiled into the gateway
    #[arg(
        long,
        value_name = "FILE",
        default_value = "target/release/bazaar-native"
    )]
    pub native: PathBuf,
    /// In the place of all others, another build of `bazaar`, to see what a change costs
    #[arg(long, value_name = "FILE")]
    pub before: Option<PathBuf>,
    /// In the place of all others, the same build tracing this share of the requests, to see what that costs
    #[arg(long, value_name = "P", conflicts_with = "before")]
    pub traced: Option<f64>,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Only {
    /// How fast requests of one kind are.
    Kind(Kind),
    /// Other quantities.
    Topic(Topic),
}

impl Only {
    pub fn kind(self) -> Option<Kind> {
        match self {
            Self::Kind(kind) => Some(kind),
            Self::Topic(_) => None,
        }
    }

    pub fn topic(self) -> Option<Topic> {
        match self {
            Self::Kind(_) => None,
            Self::Topic(topic) => Some(topic),
        }
    }
}

fn parse_only(name: &str) -> Result<Only, String> {
    let kind = Kind::from_str(name, false).map(Only::Kind);
    let found = kind.or_else(|_| Topic::from_str(name, false).map(Only::Topic));
    found.map_err(|_| {
        let kinds = Kind::value_variants().iter();
        let topics = Topic::value_variants().iter();
        let kinds = kinds.filter_map(ValueEnum::to_possible_value);
        let all = kinds.chain(topics.filter_map(ValueEnum::to_possible_value));
        let names: Vec<String> = all.map(|value| value.get_name().to_owned()).collect();
        format!("there are {}", names.join(", "))
    })
}

/// Flags of `bench moved`.
#[derive(Debug, Args)]
pub struct Moved {
    /// The run before: `@2` is the last but one, `@1` the last; or a commit, which means all of its runs that were of a tree
    /// without changes
    #[arg(default_value = "@2")]
    pub a: String,
    /// The run after
    #[arg(default_value = "@1")]
    pub b: String,
    /// Where the runs are
    #[arg(long, value_name = "FILE", default_value = HISTORY)]
    pub history: PathBuf,
}

/// Flags of `bench grow`.
#[derive(Debug, Args)]
pub struct Grow {
    #[command(flatten)]
    pub common: Common,
    /// Only this
    #[arg(long)]
    pub only: Option<Subject>,
    /// How long each step is measured
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub seconds: u64,
    /// The last step of connections is at most this
    #[arg(long, default_value_t = 1024)]
    pub connections_max: u32,
    /// The last step of stocks is at most this
    #[arg(long, default_value_t = 1_000_000)]
    pub stocks_max: u64,
    /// The last step of gateways is at most this
    #[arg(long, default_value_t = 8)]
    pub gateways_max: usize,
    /// How long the ledger is; each ten million take some 12 GB of disk
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(100..=100_000_000))]
    pub orders: u64,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_flags_are_consistent_and_help_tells_them() {
        Cli::command().debug_assert();
        let help = Cli::try_parse_from(["bench", "compare", "--help"]).unwrap_err();
        assert!(help.to_string().contains("--generator-cpu"));
        assert!(Cli::try_parse_from(["bench", "compare", "--rounds=0"]).is_err());
        assert!(Cli::try_parse_from(["bench", "compare", "--sittings=0"]).is_err());
        assert!(Cli::try_parse_from(["bench", "compare", "--only=lookups"]).is_ok());
        let topic = ["bench", "compare", "--only=moments", "--rows=1000,5000"];
        assert!(Cli::try_parse_from(topic).is_ok());
        let unknown = Cli::try_parse_from(["bench", "compare", "--only=luck"]).unwrap_err();
        assert!(unknown.to_string().contains("lookups, trades"), "{unknown}");
        assert!(unknown.to_string().contains("mixed, memory"), "{unknown}");
        assert!(Cli::try_parse_from(["bench", "compare", "--before=bazaar"]).is_ok());
        assert!(Cli::try_parse_from(["bench", "compare", "--traced=0.01"]).is_ok());
        assert!(Cli::try_parse_from(["bench", "compare", "--peers=envoy,nats"]).is_ok());
        assert!(Cli::try_parse_from(["bench", "compare", "--peers=apache"]).is_err());
        let both = ["bench", "compare", "--peers=envoy", "--before=bazaar"];
        assert!(Cli::try_parse_from(both).is_err());
    }

    #[test]
    fn without_names_the_last_two_runs_are_compared() {
        let parse = |arguments: &[&str]| {
            let line = ["bench", "moved"].iter().chain(arguments);
            match Cli::try_parse_from(line).unwrap().command {
                Command::Moved(Moved { a, b, history }) => (a, b, history),
                other => panic!("{other:?}"),
            }
        };
        let owned =
            |a: &str, b: &str, history: &str| (a.to_owned(), b.to_owned(), PathBuf::from(history));
        assert_eq!(parse(&[]), owned("@2", "@1", HISTORY));
        let named = parse(&["9e50729", "@3", "--history=kept.jsonl"]);
        assert_eq!(named, owned("9e50729", "@3", "kept.jsonl"));
    }
}
