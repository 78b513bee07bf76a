//! The command line: every flag, its environment variable and its default.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::LazyLock;

use clap::builder::BoolishValueParser;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use domain::ReplicaId;
use frontend_host::admin::{Token, TokenError};
use frontend_policy::replay::Mask;
use http::HeaderName;

use crate::client::Origin;

mod rollout;

pub use rollout::Rollout;

/// The port before that of replica 1: replica 3 listens on 56891.
pub const PORT_BASE: u16 = 56888;

/// The catalog's port.
pub const CATALOG_PORT: u16 = 56892;

/// Most order replicas that `up` starts.
pub const REPLICAS_MAX: u32 = 9;

/// What a gateway has a process of its own do.
pub const COMPILE_POLICY: &str = "compile-policy";

/// Longest time that a gateway can be told to go on serving, in milliseconds.
const DRAIN_DELAY_MS_MAX: u64 = 3_600_000;

/// Variables that keep others out. Where one is set and empty, that is a mistake: without it anybody
/// would be let in.
const GUARDS: [&str; 4] = [
    "BAZAAR_ADMIN_TOKEN",
    "BAZAAR_ADMIN_TOKEN_FILE",
    "BAZAAR_KEY",
    "BAZAAR_POLICY_TRUST",
];

/// Longest time that a decision can be given, in milliseconds.
const DECISION_MS_MAX: u64 = 10_000;

/// Most concurrent clients of `load`.
const CLIENTS_MAX: u64 = 10_000;

/// Most iterations of one client of `load`.
const ITERATIONS_MAX: u64 = 100_000_000;

/// A stock exchange whose front door decides by a WebAssembly component that can be swapped
/// while it serves.
///
/// Without a command it does what `up` does.
#[derive(Debug, Parser)]
#[command(name = "bazaar", version, args_conflicts_with_subcommands = true)]
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
        let matches = without_empty_variables(Self::command()).try_get_matches()?;
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
    /// Read the ledgers in the data directories of replicas
    #[command(subcommand)]
    Ledger(Ledger),
    /// Compile a component from standard input: what a gateway has done in a process of its own
    #[command(name = COMPILE_POLICY, hide = true)]
    CompilePolicy {
        /// How long the component is
        bytes: usize,
    },
}

/// Flags of `bazaar up`.
#[derive(Debug, Args)]
pub struct Up {
    /// Where the services keep their data, in a directory each
    #[arg(
        long,
        env = "BAZAAR_DATA_DIR",
        value_name = "DIR",
        default_value = "data"
    )]
    pub data_dir: PathBuf,
    /// How many order replicas to start
    #[arg(long, env = "BAZAAR_REPLICAS", value_name = "N", default_value_t = 3,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(REPLICAS_MAX)))]
    pub replicas: u32,
    #[command(flatten)]
    pub front: Front,
    /// CSV file with the header name,price,quantity that a new journal begins with
    #[arg(long, env = "BAZAAR_STOCKS", value_name = "FILE")]
    pub stocks: Option<PathBuf>,
    /// How long gateways may serve cached stocks without hearing from the catalog, in milliseconds
    #[arg(long, env = "BAZAAR_LEASE_MS", value_name = "MS")]
    pub lease_ms: Option<u64>,
    /// Ports of the catalog and the replicas: replicas 1 to 3 take the three after this one, the
    /// catalog the next, further replicas those behind it. 0 takes any that are free
    #[arg(long, env = "BAZAAR_PORT_BASE", value_name = "PORT", default_value_t = PORT_BASE,
          value_parser = clap::value_parser!(u16).range(..=i64::from(u16::MAX) - i64::from(REPLICAS_MAX) - 1))]
    pub port_base: u16,
    /// Start a service again that died
    #[arg(long, env = "BAZAAR_RESTART", value_parser = BoolishValueParser::new())]
    pub restart: bool,
    /// Where a replica's ledger is damaged, set it aside and copy it anew from the others
    #[arg(long, env = "BAZAAR_REBUILD", value_parser = BoolishValueParser::new())]
    pub rebuild: bool,
}

/// What the gateway's own command and `up` have in common.
#[derive(Debug, Args)]
pub struct Front {
    /// Where clients connect
    #[arg(long, env = "BAZAAR_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:8080", value_parser = address)]
    pub listen: SocketAddr,
    /// Where the admin API listens; beyond loopback only with --admin-token or --admin-token-file
    #[arg(long, env = "BAZAAR_ADMIN", value_name = "ADDRESS", default_value = "127.0.0.1:8081", value_parser = address)]
    pub admin: SocketAddr,
    /// The policy to start with, instead of the built-in one
    #[arg(long, env = "BAZAAR_POLICY", value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// A file of public keys: take only policies that one of them has signed
    #[arg(long, env = "BAZAAR_POLICY_TRUST", value_name = "KEYFILE")]
    pub policy_trust: Option<PathBuf>,
    /// What to configure the policy with that it starts with
    #[arg(long, env = "BAZAAR_POLICY_CONFIG", value_name = "FILE")]
    pub policy_config: Option<PathBuf>,
    /// A directory of secrets that configurations can refer to: ${file:NAME}
    #[arg(long, env = "BAZAAR_POLICY_SECRETS", value_name = "DIR")]
    pub policy_secrets: Option<PathBuf>,
    #[command(flatten)]
    pub admin_token: AdminToken,
    /// How long to go on serving after a signal to stop, in milliseconds: load balancers that ask
    /// /readyz send clients elsewhere meanwhile
    #[arg(long, env = "BAZAAR_DRAIN_DELAY_MS", value_name = "MS", default_value_t = 0,
          value_parser = clap::value_parser!(u64).range(..=DRAIN_DELAY_MS_MAX))]
    pub drain_delay_ms: u64,
    /// Threads that serve clients. Where other work shares the processors, fewer than those serve more
    /// [default: one for each processor; `up`, whose services and clients share the machine, has one
    /// for every other]
    #[arg(long, env = "BAZAAR_WORKERS", value_name = "N")]
    pub workers: Option<usize>,
    /// Connections that one client may have, by its address, or its /64 of IPv6; more are closed
    /// at once. Behind a proxy or a load balancer, whose address all clients have, as many as it
    /// opens [default: 1024; as many as there can be from this machine]
    #[arg(long, env = "BAZAAR_CONNECTIONS_PER_CLIENT_MAX", value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub connections_per_client_max: Option<u32>,
    #[command(flatten)]
    pub rules: PolicyRules,
}

/// What the admin API asks for.
#[derive(Debug, Clone, Args)]
pub struct AdminToken {
    /// What the admin API asks for as a bearer token
    #[arg(
        long = "admin-token",
        env = "BAZAAR_ADMIN_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true,
        conflicts_with = "admin_token_file"
    )]
    admin_token: Option<Unchecked>,
    /// A file with that token
    #[arg(long, env = "BAZAAR_ADMIN_TOKEN_FILE", value_name = "FILE")]
    admin_token_file: Option<PathBuf>,
}

/// A secret as it was given, which no message shows.
#[derive(Clone)]
struct Unchecked(String);

impl From<String> for Unchecked {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Unchecked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Unchecked")
    }
}

/// Why an admin token cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AdminTokenError {
    /// What is given cannot be a token.
    #[error(transparent)]
    Invalid(#[from] TokenError),
    /// The file cannot be read.
    #[error("cannot read the admin token in {}: {source}", file.display())]
    Unreadable { file: PathBuf, source: io::Error },
}

impl AdminToken {
    /// The token, where one is given in either way.
    ///
    /// # Errors
    /// Where what is given is not a valid token, or the file cannot be read.
    pub fn read(&self) -> Result<Option<Token>, AdminTokenError> {
        let text = match (&self.admin_token, &self.admin_token_file) {
            (Some(Unchecked(text)), _) => text.clone(),
            (None, Some(file)) => {
                std::fs::read_to_string(file).map_err(|source| AdminTokenError::Unreadable {
                    file: file.clone(),
                    source,
                })?
            }
            (None, None) => return Ok(None),
        };
        Ok(Some(text.parse()?))
    }
}

/// How policies are kept in check.
#[derive(Debug, Clone, Args)]
pub struct PolicyRules {
    /// How long one decision of the policy may take, in milliseconds
    #[arg(long, env = "BAZAAR_DECISION_MS_MAX", value_name = "MS", default_value_t = 50,
          value_parser = clap::value_parser!(u64).range(1..=DECISION_MS_MAX))]
    pub decision_ms_max: u64,
    /// How long a new policy is on probation, in seconds
    #[arg(
        long,
        env = "BAZAAR_PROBATION_SECONDS",
        value_name = "S",
        default_value_t = 60
    )]
    pub probation_seconds: u64,
    /// How many failures a policy may have on probation before it is rolled back
    #[arg(
        long,
        env = "BAZAAR_PROBATION_FAILURES_MAX",
        value_name = "N",
        default_value_t = 10
    )]
    pub probation_failures_max: u64,
    /// The request header that tells clients apart for canaries; the address where it is absent
    #[arg(long, env = "BAZAAR_CLIENT_HEADER", value_name = "NAME")]
    pub client_header: Option<HeaderName>,
}

/// What every service has in common.
#[derive(Debug, Args)]
pub struct Lifeline {
    /// Stop when standard input ends, as it does when the process that holds it dies
    #[arg(long, hide = true)]
    pub stop_at_eof: bool,
}

/// Flags of `bazaar gateway`.
#[derive(Debug, Args)]
pub struct Gateway {
    /// URL of the catalog
    #[arg(long, env = "BAZAAR_CATALOG", value_name = "URL")]
    pub catalog: Origin,
    /// An order replica; once for each of them
    #[arg(long = "order", env = "BAZAAR_ORDER", value_name = "ID=URL", value_delimiter = ',', required = true, value_parser = replica)]
    pub orders: Vec<(ReplicaId, Origin)>,
    #[command(flatten)]
    pub front: Front,
    /// Where it keeps which policy is active; without one a restart begins with --policy again
    #[arg(long, env = "BAZAAR_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    #[command(flatten)]
    pub lifeline: Lifeline,
}

/// Flags of `bazaar catalog`.
#[derive(Debug, Args)]
pub struct Catalog {
    /// Where gateways and replicas connect
    #[arg(long, env = "BAZAAR_CATALOG_LISTEN", value_name = "ADDRESS",
          default_value_t = SocketAddr::new(LOOPBACK, CATALOG_PORT), value_parser = address)]
    pub listen: SocketAddr,
    /// Where it keeps its data
    #[arg(long, env = "BAZAAR_DATA_DIR", value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Begin a journal where there is none. For the first start only: were the disk ever lost, it
    /// would begin another one
    #[arg(long, env = "BAZAAR_NEW", value_parser = BoolishValueParser::new(), conflicts_with = "rebuild_from")]
    pub new: bool,
    /// CSV file with the header name,price,quantity that a new journal begins with
    #[arg(long, env = "BAZAAR_STOCKS", value_name = "FILE")]
    pub stocks: Option<PathBuf>,
    /// How long gateways may serve cached stocks without hearing from the catalog, in milliseconds
    #[arg(long, env = "BAZAAR_LEASE_MS", value_name = "MS")]
    pub lease_ms: Option<u64>,
    /// The catalog's disk is lost: rebuild its database from these replicas' data directories (stop
    /// all replicas, name all that are left, and the --stocks that the journal began with)
    #[arg(
        long,
        env = "BAZAAR_REBUILD_FROM",
        value_name = "DIR",
        value_delimiter = ','
    )]
    pub rebuild_from: Vec<PathBuf>,
    #[command(flatten)]
    pub lifeline: Lifeline,
}

/// Flags of `bazaar order`.
#[derive(Debug, Args)]
pub struct Order {
    /// The replica's number, 1 or higher
    #[arg(long, env = "BAZAAR_ID", value_name = "N")]
    pub id: ReplicaId,
    /// Where gateways and other replicas connect [default: 127.0.0.1, port 56888 + N]
    #[arg(long, env = "BAZAAR_ORDER_LISTEN", value_name = "ADDRESS", value_parser = address)]
    pub listen: Option<SocketAddr>,
    /// URL of the catalog
    #[arg(long, env = "BAZAAR_CATALOG", value_name = "URL")]
    pub catalog: Origin,
    /// Another order replica; once for each of them
    #[arg(long = "peer", env = "BAZAAR_PEER", value_name = "ID=URL", value_delimiter = ',', value_parser = replica)]
    pub peers: Vec<(ReplicaId, Origin)>,
    /// Where it keeps its data
    #[arg(long, env = "BAZAAR_DATA_DIR", value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Where the ledger is damaged, set it aside and copy it anew from the peers and the catalog
    #[arg(long, env = "BAZAAR_REBUILD", value_parser = BoolishValueParser::new())]
    pub rebuild: bool,
    #[command(flatten)]
    pub lifeline: Lifeline,
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

/// How the admin API is reached.
#[derive(Debug, Clone, Args)]
pub struct Admin {
    /// URL of the gateway's admin API
    #[arg(
        long = "admin",
        env = "BAZAAR_ADMIN",
        value_name = "URL",
        default_value = "http://127.0.0.1:8081"
    )]
    pub origin: Origin,
    #[command(flatten)]
    pub token: AdminToken,
    /// Who you are, for the log of changes [default: your user name]
    #[arg(long, env = "BAZAAR_OPERATOR", value_name = "NAME", default_value = user_name())]
    pub operator: Option<String>,
    /// Why you do it, for the log of changes
    #[arg(long, env = "BAZAAR_REASON", value_name = "TEXT")]
    pub reason: Option<String>,
}

/// Who runs the command, according to the environment.
fn user_name() -> Option<&'static str> {
    static NAME: LazyLock<Option<String>> = LazyLock::new(|| {
        let name = std::env::var("USER").ok();
        name.filter(|name| !name.is_empty())
    });
    NAME.as_deref()
}

/// The commands of `bazaar policy`.
#[derive(Debug, Subcommand)]
pub enum Policy {
    /// Make a directory with a policy of its own, ready to be built
    New {
        /// A directory that is not there yet; its name becomes the policy's
        dir: PathBuf,
        /// The language that it is written in
        #[arg(
            long,
            env = "BAZAAR_LANG",
            value_name = "LANGUAGE",
            value_enum,
            default_value_t
        )]
        lang: Language,
    },
    /// Print the world that policies are of, in WIT
    Wit {
        /// Which version of it
        #[arg(
            long,
            env = "BAZAAR_WORLD",
            value_name = "VERSION",
            value_enum,
            default_value_t
        )]
        world: World,
    },
    /// Build a policy whenever its source is saved, try it out in a running gateway, and show where
    /// it decides differently
    Dev(Dev),
    /// Build the policy in a directory and print the component's path
    Build {
        /// The directory of the policy's Cargo.toml, or of an executable `build` that prints the path
        dir: PathBuf,
        /// Build this example of the crate instead of its library
        #[arg(long, env = "BAZAAR_EXAMPLE", value_name = "NAME")]
        example: Option<String>,
        /// Where to keep what was built for the next time [default: DIR/target/guest]
        #[arg(long, env = "BAZAAR_TARGET_DIR", value_name = "DIR")]
        target_dir: Option<PathBuf>,
    },
    /// Check a component as a gateway would before it activates it
    Check {
        /// The component, or an image of it: a tar or a directory
        file: PathBuf,
        #[command(flatten)]
        config: Config,
        #[command(flatten)]
        secrets: Secrets,
    },
    /// Measure what components cost on this machine: activation, a decision, an instance's memory
    Measure {
        /// The components, or images of them
        #[arg(required = true)]
        files: Vec<PathBuf>,
        #[command(flatten)]
        config: Config,
        #[command(flatten)]
        secrets: Secrets,
    },
    /// Make a key to sign policies with, and print its public half
    Keygen {
        /// Where the secret key goes; it must not be there yet
        file: PathBuf,
        /// Which signatures it makes
        #[arg(
            long,
            env = "BAZAAR_KIND",
            value_name = "KIND",
            value_enum,
            default_value_t
        )]
        kind: KeyKind,
    },
    /// Sign a component: the signature goes beside it, into FILE.sig. An image has it inside, as cosign does
    Sign {
        /// The component, or an image of it in a tar
        file: PathBuf,
        /// The secret key: as `keygen` makes it, or one in PEM (PKCS #8)
        #[arg(long, env = "BAZAAR_KEY", value_name = "FILE")]
        key: PathBuf,
    },
    /// Make an OCI image of a component, in a file: what registries and their tools take
    Pack(Pack),
    /// Activate a component in a running gateway, with FILE.sig where it is there
    Push {
        /// The component, or an image of it: a tar or a directory
        file: PathBuf,
        #[command(flatten)]
        config: Config,
        #[command(flatten)]
        admin: Admin,
    },
    /// Give the active policy of a running gateway another configuration
    Configure {
        /// The configuration; an empty file for none
        config: PathBuf,
        /// Try it out as a shadow on this share of the decisions, instead of making it active
        #[arg(long, env = "BAZAAR_SHADOW", value_name = "SHARE", value_parser = probability, conflicts_with = "canary")]
        shadow: Option<f64>,
        /// Try it out as a canary on this share of the clients, instead of making it active
        #[arg(long, env = "BAZAAR_CANARY", value_name = "SHARE", value_parser = probability)]
        canary: Option<f64>,
        /// Roll it out by this plan, instead of making it active
        #[arg(long, env = "BAZAAR_PLAN", value_name = "FILE", conflicts_with_all = ["shadow", "canary"])]
        plan: Option<PathBuf>,
        /// Take the place of this candidate, whoever put it there: its digest, or the beginning of it
        #[arg(long, env = "BAZAAR_REPLACE", value_name = "DIGEST")]
        replace: Option<String>,
        #[command(flatten)]
        admin: Admin,
    },
    /// Put a share of the live decisions to a component as well, without effect
    Shadow {
        /// The component, or an image of it: a tar or a directory
        file: PathBuf,
        #[command(flatten)]
        trial: Trial,
        #[command(flatten)]
        admin: Admin,
    },
    /// Let a component decide for a share of the clients
    Canary {
        /// The component, or an image of it: a tar or a directory
        file: PathBuf,
        /// Only for such requests: header:NAME=VALUE, cookie:NAME=VALUE, path:/PATH or network:CIDR; once for
        /// each condition, all of which must be met
        #[arg(long, env = "BAZAAR_ONLY", value_name = "CONDITION")]
        only: Vec<String>,
        #[command(flatten)]
        trial: Trial,
        #[command(flatten)]
        admin: Admin,
    },
    /// Have a component take the active one's place step by step, each by evidence
    Rollout(Rollout),
    /// Show where the candidate decided differently, as JSON
    Differences {
        #[command(flatten)]
        admin: Admin,
    },
    /// Record live decisions of a running gateway, with all that they depend on
    Record(Record),
    /// Have a policy make recorded decisions again; exit with 1 where they come out differently
    Replay {
        /// The recording
        file: PathBuf,
        /// The component; the built-in one where it is not given
        #[arg(long, env = "BAZAAR_POLICY", value_name = "FILE")]
        policy: Option<PathBuf>,
        #[command(flatten)]
        config: Config,
        #[command(flatten)]
        secrets: Secrets,
        #[command(flatten)]
        minimize: Minimize,
    },
    /// Have a policy make recorded decisions again, and show each that is not as it was; exit with 1 where
    /// there is one
    Test(Test),
    /// Make the candidate the active policy
    Promote {
        /// Only if this is the candidate: its digest, or the beginning of it
        #[arg(long, env = "BAZAAR_DIGEST", value_name = "DIGEST")]
        digest: Option<String>,
        #[command(flatten)]
        admin: Admin,
    },
    /// Drop the candidate
    Drop {
        /// Only if this is the candidate: its digest, or the beginning of it
        #[arg(long, env = "BAZAAR_DIGEST", value_name = "DIGEST")]
        digest: Option<String>,
        #[command(flatten)]
        admin: Admin,
    },
    /// Make the last good policy before this one the active one again
    Rollback {
        #[command(flatten)]
        admin: Admin,
    },
    /// Make a policy active again that a running gateway keeps: the last 32 that were active
    Activate {
        /// Its digest, or the first 8 characters of it or more
        digest: String,
        #[command(flatten)]
        admin: Admin,
    },
    /// List the policies of a running gateway
    List {
        #[command(flatten)]
        admin: Admin,
    },
    /// Show how the policy of a running gateway was changed: by whom, why, and by what failure
    Log {
        #[command(flatten)]
        admin: Admin,
        /// Print what the gateway answered, as JSON
        #[arg(long, env = "BAZAAR_LOG_JSON", value_parser = BoolishValueParser::new())]
        json: bool,
    },
}

/// Flags of `bazaar policy record`.
#[derive(Debug, Args)]
pub struct Record {
    /// How long to record, in seconds
    #[arg(long, env = "BAZAAR_SECONDS", value_name = "S", default_value_t = 10,
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub seconds: u64,
    /// Where to write the recording
    #[arg(short, long, env = "BAZAAR_OUTPUT", value_name = "FILE")]
    pub output: PathBuf,
    /// A header to record, of those that the policy asks to see; once for each of them. Also
    /// `set-cookie`, of responses [default: all but those that carry credentials]
    #[arg(
        long = "header",
        env = "BAZAAR_RECORD_HEADERS",
        value_name = "NAME",
        value_delimiter = ','
    )]
    pub headers: Vec<HeaderName>,
    #[command(flatten)]
    pub admin: Admin,
}

/// Flags of `bazaar policy test`.
#[derive(Debug, Args)]
pub struct Test {
    /// The recordings
    #[arg(required = true)]
    pub recordings: Vec<PathBuf>,
    /// The component; the built-in one where it is not given
    #[arg(long, env = "BAZAAR_POLICY", value_name = "FILE")]
    pub policy: Option<PathBuf>,
    #[command(flatten)]
    pub config: Config,
    #[command(flatten)]
    pub secrets: Secrets,
    /// Leave a field out, such as `headers.etag` or `body.data.price`, or what an expression matches in it
    #[arg(long = "mask", value_name = "FIELD[=REGEX]")]
    pub masks: Vec<Mask>,
    /// Print the report as JSON
    #[arg(long, env = "BAZAAR_TEST_JSON", value_parser = BoolishValueParser::new())]
    pub json: bool,
    #[command(flatten)]
    pub minimize: Minimize,
}

/// Whether differences are cut down to the request that shows them.
#[derive(Debug, Args)]
pub struct Minimize {
    /// For each kind of difference, look for the smallest request that still shows it
    #[arg(long, env = "BAZAAR_MINIMIZE", value_parser = BoolishValueParser::new())]
    pub minimize: bool,
    /// The component that made the recording, to compare with; the built-in one where it is not given
    #[arg(
        long,
        env = "BAZAAR_BASELINE",
        value_name = "FILE",
        requires = "minimize"
    )]
    pub baseline: Option<PathBuf>,
}

/// A language that policies are written in.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Language {
    #[default]
    Rust,
    #[value(alias = "javascript")]
    Js,
    Python,
    C,
}

/// A version of the world.
#[derive(Debug, Default, Clone, Copy, ValueEnum)]
pub enum World {
    #[default]
    #[value(name = "1.1")]
    V1_1,
    #[value(name = "1.0")]
    V1_0,
}

/// Which signatures a key makes.
#[derive(Debug, Default, Clone, Copy, ValueEnum)]
pub enum KeyKind {
    /// RFC 8032
    #[default]
    Ed25519,
    /// ECDSA with P-256, in PEM: what cosign takes, too
    EcdsaP256,
}

impl From<KeyKind> for frontend_policy::admission::KeyKind {
    fn from(kind: KeyKind) -> Self {
        match kind {
            KeyKind::Ed25519 => Self::Ed25519,
            KeyKind::EcdsaP256 => Self::EcdsaP256,
        }
    }
}

/// Flags of `bazaar policy pack`.
#[derive(Debug, Args)]
pub struct Pack {
    /// The component
    pub file: PathBuf,
    /// Where the image goes: a tar of an OCI image layout
    #[arg(short, long, env = "BAZAAR_OUTPUT", value_name = "FILE")]
    pub output: PathBuf,
    /// The policy's configuration, which goes with it
    #[arg(long, env = "BAZAAR_POLICY_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// A detached signature of the component, which goes with it [default: FILE.sig where it is there]
    #[arg(long, env = "BAZAAR_SIGNATURE", value_name = "FILE")]
    pub signature: Option<PathBuf>,
    /// A secret key to sign the image with, as `cosign sign` does
    #[arg(long, env = "BAZAAR_KEY", value_name = "FILE")]
    pub key: Option<PathBuf>,
}

/// Flags of `bazaar policy dev`.
#[derive(Debug, Args)]
pub struct Dev {
    /// The directory of the policy's Cargo.toml, or of an executable `build` that prints the path
    pub dir: PathBuf,
    /// Build this example of the crate instead of its library
    #[arg(long, env = "BAZAAR_EXAMPLE", value_name = "NAME")]
    pub example: Option<String>,
    /// Where to keep what was built for the next time [default: DIR/target/guest]
    #[arg(long, env = "BAZAAR_TARGET_DIR", value_name = "DIR")]
    pub target_dir: Option<PathBuf>,
    /// Share of the live decisions that are put to it as well: more than 0, at most 1
    #[arg(long, env = "BAZAAR_SHARE", value_name = "SHARE", default_value_t = 1.0, value_parser = probability)]
    pub share: f64,
    /// Make it the active policy at once, instead of a candidate without effect
    #[arg(long, env = "BAZAAR_ACTIVE", value_parser = BoolishValueParser::new(), conflicts_with = "share")]
    pub active: bool,
    #[command(flatten)]
    pub config: Config,
    #[command(flatten)]
    pub admin: Admin,
}

/// How much of the traffic a candidate is tried on.
#[derive(Debug, Args)]
pub struct Trial {
    /// Share of the decisions, or of the clients: more than 0, at most 1
    #[arg(long, env = "BAZAAR_SHARE", value_name = "SHARE", default_value_t = 0.1, value_parser = probability)]
    pub share: f64,
    /// Take the place of this candidate, whoever put it there: its digest, or the beginning of it
    #[arg(long, env = "BAZAAR_REPLACE", value_name = "DIGEST")]
    pub replace: Option<String>,
    #[command(flatten)]
    pub config: Config,
}

/// What a component is configured with.
#[derive(Debug, Default, Args)]
pub struct Config {
    /// What to configure it with
    #[arg(long = "config", env = "BAZAAR_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// What a configuration can refer to.
#[derive(Debug, Default, Args)]
pub struct Secrets {
    /// A directory of secrets that the configuration can refer to: ${file:NAME}
    #[arg(long, env = "BAZAAR_POLICY_SECRETS", value_name = "DIR")]
    pub policy_secrets: Option<PathBuf>,
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

/// The commands of `bazaar ledger`.
#[derive(Debug, Subcommand)]
pub enum Ledger {
    /// Print a replica's orders as JSON in number order
    Show {
        /// The replica's data directory
        dir: PathBuf,
    },
    /// Compare ledgers; exit with 1 where they differ
    Diff {
        /// The replicas' data directories
        #[arg(required = true, num_args = 2..)]
        dirs: Vec<PathBuf>,
    },
}

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

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

impl Order {
    /// Where it listens; by default on the loopback port of its number.
    pub fn address(&self) -> Result<SocketAddr, String> {
        let by_number = || {
            let port = u32::from(PORT_BASE)
                .checked_add(self.id.get())
                .and_then(|port| u16::try_from(port).ok());
            port.map(|port| SocketAddr::new(LOOPBACK, port))
        };
        let address = self.listen.or_else(by_number);
        address.ok_or_else(|| {
            format!(
                "replica {} is past the last port: name its address with --listen",
                self.id
            )
        })
    }
}

/// A host and a port; also as a URL, so that one variable can say where to listen and where to
/// connect.
fn address(text: &str) -> Result<SocketAddr, String> {
    let text = text.strip_prefix("http://").unwrap_or(text);
    let mut found = text
        .to_socket_addrs()
        .map_err(|error| format!("not an address such as 127.0.0.1:8080: {error}"))?;
    found
        .next()
        .ok_or_else(|| "no address of that name".to_owned())
}

fn replica(text: &str) -> Result<(ReplicaId, Origin), String> {
    let (id, url) = text
        .split_once('=')
        .ok_or("not a replica's number and URL, such as 3=http://127.0.0.1:56891")?;
    let id = id
        .parse()
        .map_err(|error: domain::Invalid| error.to_string())?;
    Ok((id, url.parse()?))
}

fn probability(text: &str) -> Result<f64, String> {
    let probability: f64 = text.parse().map_err(|_| "not a number")?;
    if (0.0..=1.0).contains(&probability) {
        Ok(probability)
    } else {
        Err("not from 0 to 1".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        Cli::try_parse_from(line.split(' ')).map(Cli::into_command)
    }

    #[test]
    fn the_flags_are_consistent() {
        Cli::command().debug_assert();
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
            "bazaar gateway --catalog http://c --order 1=https://o",
            "bazaar order --id 0 --catalog http://c --data-dir d",
            "bazaar load --trade-probability 1.1",
            "bazaar load --trade-probability NaN",
            "bazaar load --clients 0",
            "bazaar load --url ftp://x",
            "bazaar ledger diff one",
            "bazaar policy new d --lang cobol",
            "bazaar policy wit --world 2.0",
            "bazaar policy pack f",
            "bazaar policy keygen f --kind rsa",
            "bazaar policy record -o f --header no:name",
            "bazaar policy test",
            "bazaar policy test r --mask nonsense",
            "bazaar policy test r --baseline f",
            "bazaar nonsense",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
