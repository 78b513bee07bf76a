//! The command line: every flag, its environment variable and its default.
//!
//! - here: the commands, and the flags of small ones;
//! - [`services`]: flags of `up` and of each service;
//! - [`policy`] and [`rollout`]: commands about policies, and [`config`]: what these are configured with;
//! - [`backup`]: flags of backups; [`stock`]: of what is traded;
//!   [`protocol`]: of upgrades;
//! - [`admin`]: how the admin API is reached; [`security`]: certificates;
//! - [`file`]: settings of a service in a file; [`log`]: what services log; [`tracing`]: what they trace;
//! - [`values`]: what flags take; [`version`]: what `--version` says.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::client::Origin;

mod admin;
mod backup;
mod config;
mod file;
mod log;
mod policy;
mod protocol;
mod rollout;
mod security;
mod services;
mod stock;
mod tracing;
mod values;
mod version;
#[cfg(test)]
mod deploy;
#[cfg(test)]
mod documents;

pub use admin::{Admin, AdminTokenError, user};
pub use backup::{Backup, Restore, Take};
pub use config::{Config, Secrets};
pub use log::LogFormat;
pub use policy::{Dev, Language, Minimize, Pack, Policy, Record, Test, Trial, World};
pub use protocol::Protocol;
pub use rollout::Rollout;
pub use security::{Cert, Cluster, Openness};
pub use services::{
    CATALOG_PORT, Catalog, Front, Gateway, Lifeline, Order, PORT_BASE, REPLICAS_MAX, Up,
};
pub use stock::{Change, Stock};
pub use tracing::Tracing;
use values::{probability, rate};

/// What a gateway has a process of its own do.
pub const COMPILE_POLICY: &str = "compile-policy";

/// Variables that keep others out, or say where the truth is, with its password. Where one is set and empty, that is a
/// mistake: without it anybody would be let in, or another database would be begun.
const GUARDS: [&str; 17] = [
    "BAZAAR_ADMIN_READ_TOKEN",
    "BAZAAR_ADMIN_READ_TOKEN_FILE",
    "BAZAAR_ADMIN_TOKEN",
    "BAZAAR_ADMIN_TOKEN_FILE",
    "BAZAAR_CA",
    "BAZAAR_CLIENT_CERT",
    "BAZAAR_CLIENT_KEY",
    "BAZAAR_CLUSTER_CA",
    "BAZAAR_CLUSTER_CERT",
    "BAZAAR_CLUSTER_KEY",
    "BAZAAR_KEY",
    "BAZAAR_OTLP_CA",
    "BAZAAR_POLICY_TRUST",
    "BAZAAR_STORE",
    "BAZAAR_TLS_CERT",
    "BAZAAR_TLS_CLIENT_CA",
    "BAZAAR_TLS_KEY",
];

/// Most concurrent clients of `load`.
const CLIENTS_MAX: u64 = 10_000;

/// Most iterations of one client of `load`.
const ITERATIONS_MAX: u64 = 100_000_000;

/// A stock exchange whose front door decides by a WebAssembly component that can be swapped
/// while it serves.
///
/// Without a command it does what `up` does.
#[derive(Debug, Parser)]
#[command(name = "bazaar", version, long_version = version::long(), args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    up: Up,
}

impl Cli {
    /// Reads the command line and the environment. A variable that is empty counts as one that is
    /// not there, unless it is one of [`GUARDS`].
    ///
    /// # Errors
    /// Where they will not do, or help was all that was asked for.
    pub fn try_read() -> Result<Self, clap::Error> {
        let line: Vec<_> = std::env::args_os().collect();
        let mut command = without_empty_variables(Self::command());
        if names_command(&command, &line) {
            // Variables of `up`, which is what happens where none is named, are for nobody then.
            command = command.mut_args(|arg| arg.env(None::<&'static str>));
        }
        command.build();
        let line = file::with_file(&command, line);
        let line = line.map_err(|error| command.error(ErrorKind::InvalidValue, error))?;
        let matches = command.try_get_matches_from(line)?;
        Self::from_arg_matches(&matches).map_err(|error| error.format(&mut Self::command()))
    }

    /// The command that was asked for; `up` where none was named.
    pub fn into_command(self) -> Command {
        self.command.unwrap_or(Command::Up(self.up))
    }
}

/// What `bazaar` can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a catalog, order replicas and a gateway, and keep them until Ctrl-C
    Up(Up),
    /// Run a gateway: HTTP for clients, decided by the policy
    Gateway(Gateway),
    /// Run the catalog: stocks, and the journal of every trade
    Catalog(Catalog),
    /// Run an order replica
    Order(Order),
    /// Trade as many clients at once, check every order, and measure
    Load(Load),
    /// Build, check, activate and list policies
    #[command(subcommand)]
    Policy(Policy),
    /// Show the state of a running bazaar
    Status(Status),
    /// Show what all of a running bazaar does, as it changes: what the console shows, in a terminal
    Top(Top),
    /// List the stocks, and change them while they are traded
    #[command(subcommand)]
    Stock(Stock),
    /// Show which version of the services' protocol is spoken, and raise it after an upgrade
    #[command(subcommand)]
    Protocol(Protocol),
    /// Write what a catalog has into a file, and make a catalog of it again
    #[command(subcommand)]
    Backup(Backup),
    /// Make an authority, and certificates for services and operators
    #[command(subcommand)]
    Cert(Cert),
    /// Read the ledgers in the data directories of replicas
    #[command(subcommand)]
    Ledger(Ledger),
    /// Print what a shell needs to complete commands and flags
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Write manual pages into a directory
    Man {
        /// Where
        dir: PathBuf,
    },
    /// Compile a component from standard input: what a gateway has done in a process of its own
    #[command(name = COMPILE_POLICY, hide = true)]
    CompilePolicy {
        /// How long the component is
        bytes: usize,
        /// How much of a processor it has: idle or share
        pace: frontend_policy::Pace,
    },
}

/// Flags of `bazaar load`.
#[derive(Debug, Args)]
pub struct Load {
    /// URL of the gateway
    #[arg(
        long,
        env = "BAZAAR_URL",
        value_name = "URL",
        default_value = "http://127.0.0.1:8080"
    )]
    pub url: Origin,
    /// How many clients at once, each with a connection of its own
    #[arg(long, env = "BAZAAR_CLIENTS", value_name = "N", default_value_t = 5,
          value_parser = clap::value_parser!(u64).range(1..=CLIENTS_MAX))]
    pub clients: u64,
    /// How often each client looks up a stock
    #[arg(long, env = "BAZAAR_ITERATIONS", value_name = "N", default_value_t = 100,
          value_parser = clap::value_parser!(u64).range(1..=ITERATIONS_MAX))]
    pub iterations: u64,
    /// How probably a client orders the stock that it has looked up, 0 to 1
    #[arg(long, env = "BAZAAR_TRADE_PROBABILITY", value_name = "P", default_value_t = 0.2, value_parser = probability)]
    pub trade_probability: f64,
    /// How many of all clients' iterations begin in a second, at most; as many as go where it is not given
    #[arg(long, env = "BAZAAR_RATE", value_name = "N", value_parser = rate)]
    pub rate: Option<f64>,
    /// Makes the choices of stocks and orders those of another run; random where it is not given
    #[arg(long, env = "BAZAAR_SEED", value_name = "N")]
    pub seed: Option<u64>,
    /// Also write the figures to a file, as JSON
    #[arg(long, env = "BAZAAR_JSON", value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Also write them into a directory, as an HTML page with plots and as CSV
    #[arg(long, env = "BAZAAR_REPORT", value_name = "DIR")]
    pub report: Option<PathBuf>,
    /// Do it for trade probabilities from 0 to 0.8, with the gateway's policy and with one that
    /// caches nothing; the admin API then gives the gateway its own policy again
    #[arg(long, env = "BAZAAR_SWEEP", value_parser = BoolishValueParser::new(), conflicts_with = "trade_probability")]
    pub sweep: bool,
    #[command(flatten)]
    pub admin: Admin,
}

/// Flags of `bazaar status`.
#[derive(Debug, Args)]
pub struct Status {
    #[command(flatten)]
    pub admin: Admin,
    /// Print what the gateway answered, as JSON
    #[arg(long, env = "BAZAAR_STATUS_JSON", value_parser = BoolishValueParser::new())]
    pub json: bool,
}

/// Flags of `bazaar top`.
#[derive(Debug, Args)]
pub struct Top {
    #[command(flatten)]
    pub admin: Admin,
    /// Print one look as plain text, requests and trades since start, and end
    #[arg(long, env = "BAZAAR_TOP_ONCE", value_parser = BoolishValueParser::new())]
    pub once: bool,
    /// How many columns that text has [default: COLUMNS, or 80]
    #[arg(long, env = "BAZAAR_TOP_WIDTH", value_name = "N", requires = "once",
          value_parser = clap::value_parser!(u16).range(20..=1000))]
    pub width: Option<u16>,
    /// How many seconds that look takes; alarms about requests and trades need 6 [default: 2]
    #[arg(long, env = "BAZAAR_TOP_SECONDS", value_name = "N", requires = "once",
          value_parser = clap::value_parser!(u64).range(1..=60))]
    pub seconds: Option<u64>,
}

/// The commands of `bazaar ledger`.
#[derive(Debug, Subcommand)]
pub enum Ledger {
    /// Print a replica's orders as JSON in number order
    Show {
        /// The replica's data directory
        dir: PathBuf,
        /// Print who changed which stock, and why, instead; when is in the log of the gateway that was asked: `a stock was
        /// changed`, with the same row
        #[arg(long, env = "BAZAAR_CHANGES", value_parser = BoolishValueParser::new())]
        changes: bool,
    },
    /// Compare ledgers; exit with 1 where they differ
    Diff {
        /// The replicas' data directories
        #[arg(required = true, num_args = 2..)]
        dirs: Vec<PathBuf>,
    },
}

/// Whether a command is named. What it is given comes after it.
fn names_command(command: &clap::Command, line: &[OsString]) -> bool {
    let first = line.get(1).and_then(|first| first.to_str());
    first.is_some_and(|first| command.find_subcommand(first).is_some())
}

fn without_empty_variables(command: clap::Command) -> clap::Command {
    let is_empty = |name: &OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
    let is_guard = |name: &OsStr| GUARDS.iter().any(|guard| name == *guard);
    command
        .mut_args(|arg| match arg.get_env() {
            Some(name) if is_empty(name) && !is_guard(name) => arg.env(None::<&'static str>),
            _ => arg,
        })
        .mut_subcommands(without_empty_variables)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        Cli::try_parse_from(line.split(' ')).map(Cli::into_command)
    }

    #[test]
    fn the_flags_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn how_far_a_rollout_is_is_asked_without_arguments() {
        let of_rollout = |rest: &str| parse(&format!("bazaar policy rollout{rest}"));
        for rest in ["", " --watch", " --pause", " FILE", " FILE --watch"] {
            assert!(of_rollout(rest).is_ok(), "{rest}");
        }
        for rest in [" FILE --pause", " --plan plan.toml", " --pause --skip"] {
            assert!(of_rollout(rest).is_err(), "{rest}");
        }
    }

    /// Of all commands, with the command's name; those that nobody is shown left out.
    fn flags(command: &clap::Command) -> Vec<(String, clap::Arg)> {
        let own = command.get_arguments().filter(|arg| {
            let is_own = !["help", "version"].contains(&arg.get_id().as_str());
            is_own && arg.get_long().is_some() && !arg.is_hide_set()
        });
        let name = command.get_name().to_owned();
        let own = own.map(move |arg| (name.clone(), arg.clone()));
        own.chain(command.get_subcommands().flat_map(flags))
            .collect()
    }

    #[test]
    fn every_flag_has_a_variable_which_is_for_nothing_else() {
        let mut of_variable = BTreeMap::<String, (String, bool)>::new();
        for (command, flag) in flags(&Cli::command()) {
            let long = flag.get_long().unwrap();
            let variable = flag.get_env();
            let variable = variable.unwrap_or_else(|| panic!("`{command} --{long}` has none"));
            let variable = variable.to_str().unwrap();
            assert!(variable.starts_with("BAZAAR_"), "{variable}");
            // Of a policy's commands `--config` is what a service's `--policy-config` is.
            let meant = long.strip_prefix("policy-").unwrap_or(long);
            let is = (meant.to_owned(), flag.get_action().takes_values());
            let was = of_variable.entry(variable.to_owned()).or_insert(is.clone());
            assert_eq!(*was, is, "{variable} is for two flags, one of `{command}`");
        }
        for guard in GUARDS {
            assert!(of_variable.contains_key(guard), "{guard} is of no flag");
        }
    }

    /// Help says what is in the environment, and is what people send to each other.
    #[test]
    fn no_help_says_what_a_variable_has_that_is_a_secret_or_has_one_in_it() {
        let mut secrets = BTreeMap::from([
            ("BAZAAR_ADMIN_READ_TOKEN", 0),
            ("BAZAAR_ADMIN_TOKEN", 0),
            ("BAZAAR_STORE", 0),
        ]);
        for (command, flag) in flags(&Cli::command()) {
            let variable = flag.get_env().and_then(OsStr::to_str).unwrap_or_default();
            if let Some(count) = secrets.get_mut(variable) {
                *count += 1;
                assert!(flag.is_hide_env_values_set(), "{variable} of `{command}`");
            }
        }
        assert!(secrets.values().all(|count| *count > 0), "{secrets:?}");
    }

    /// Man pages are made where a package is, by whoever makes it.
    #[test]
    fn the_name_of_whoever_makes_the_manual_is_not_in_it() {
        let flags = flags(&Cli::command());
        let mut operators = flags.iter().filter(|(_, flag)| flag.get_id() == "operator");
        let nothing: [&OsStr; 0] = [];
        assert!(operators.clone().count() > 5);
        assert!(operators.all(|(_, flag)| flag.get_default_values() == nothing));
    }

    #[test]
    fn variables_of_up_are_for_nobody_where_a_command_is_named() {
        let command = Cli::command();
        let line = |words: &str| words.split(' ').map(Into::into).collect::<Vec<OsString>>();
        for named in ["bazaar status", "bazaar ledger diff a b", "bazaar up"] {
            assert!(names_command(&command, &line(named)), "{named}");
        }
        for unnamed in ["bazaar", "bazaar --listen localhost:1", "bazaar --help"] {
            assert!(!names_command(&command, &line(unnamed)), "{unnamed}");
        }
    }

    #[test]
    fn up_is_what_happens_without_a_command() {
        let Command::Up(up) = parse("bazaar --replicas 5 --listen localhost:9000").unwrap() else {
            panic!()
        };
        assert_eq!(
            (up.replicas, up.front.listen.port(), up.front.admin.port()),
            (5, 9000, 8081)
        );
        assert!(matches!(parse("bazaar up"), Ok(Command::Up(_))));
    }

    #[test]
    fn a_replica_listens_on_the_port_of_its_number() {
        let Command::Order(order) =
            parse("bazaar order --id 3 --catalog http://c --data-dir d").unwrap()
        else {
            panic!()
        };
        assert_eq!(order.address().unwrap().to_string(), "127.0.0.1:56891");
        let Command::Order(order) =
            parse("bazaar order --id 9999 --catalog http://c --data-dir d").unwrap()
        else {
            panic!()
        };
        assert!(order.address().is_err());
    }

    #[test]
    fn wrong_usage_is_refused() {
        for line in [
            "bazaar up --replicas 0",
            "bazaar up --replicas 10",
            "bazaar up --listen nonsense",
            "bazaar up --port-base 65530",
            "bazaar gateway --catalog http://c",
            "bazaar gateway --catalog http://c --order 0=http://o",
            "bazaar gateway --catalog http://c --order http://o",
            "bazaar gateway --catalog c/path --order 1=http://o",
            "bazaar gateway --catalog http://c --order 1=ftp://o",
            "bazaar order --id 0 --catalog http://c --data-dir d",
            "bazaar load --trade-probability 1.1",
            "bazaar load --trade-probability NaN",
            "bazaar load --clients 0",
            "bazaar load --url ftp://x",
            "bazaar ledger diff one",
            "bazaar top --width 80",
            "bazaar top --once --width 19",
            "bazaar top --once --seconds 0",
            "bazaar policy new d --lang cobol",
            "bazaar policy wit --world 2.0",
            "bazaar policy pack f",
            "bazaar policy keygen f --kind rsa",
            "bazaar policy record -o f --header no:name",
            "bazaar policy test",
            "bazaar policy test r --mask nonsense",
            "bazaar policy test r --baseline f",
            "bazaar stock add acme",
            "bazaar stock add acme --price 0",
            "bazaar stock price acme 1.234",
            "bazaar stock restock acme 0",
            "bazaar stock delist",
            "bazaar nonsense",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
