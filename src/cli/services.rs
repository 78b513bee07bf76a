//! Flags of `bazaar up` and of each service.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::Args;
use clap::builder::BoolishValueParser;
use domain::ReplicaId;
use http::HeaderName;

use super::admin::{AdminReadToken, AdminToken};
use super::log::{Access, Logging};
use super::security::{Cluster, Openness, ServerTls};
use super::tracing::Tracing;
use super::values::{address, replica};
use crate::client::Origin;

/// The port before that of replica 1: replica 3 listens on 56891.
pub const PORT_BASE: u16 = 56888;

/// The catalog's port.
pub const CATALOG_PORT: u16 = 56892;

/// Most order replicas that `up` starts.
pub const REPLICAS_MAX: u32 = 9;

/// Most catalogs that it starts.
pub const CATALOGS_MAX: u32 = 4;

/// Fewest rows that stay in a database.
const ARCHIVE_AFTER_MIN: u64 = 100;

/// Longest time that a gateway can be told to go on serving, in milliseconds.
const DRAIN_DELAY_MS_MAX: u64 = 3_600_000;

/// Longest time that a decision can be given, in milliseconds.
const DECISION_MS_MAX: u64 = 10_000;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

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
    /// Keep the catalog's data in PostgreSQL: see `bazaar catalog --help`. With a password in the URL, better in
    /// the variable than on the command line
    #[arg(long, env = "BAZAAR_STORE", value_name = "URL", hide_env_values = true)]
    pub store: Option<SecretUrl>,
    /// With --store: a server without a synchronous standby will do. Trades are lost with its machine
    #[arg(long, env = "BAZAAR_ALLOW_UNREPLICATED", requires = "store", value_parser = BoolishValueParser::new())]
    pub allow_unreplicated: bool,
    /// With --store: how many catalogs to start, of which one is active
    #[arg(long, env = "BAZAAR_CATALOGS", value_name = "N", requires = "store", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(CATALOGS_MAX)))]
    pub catalogs: u32,
    #[command(flatten)]
    pub front: Front,
    /// Move old rows of the journal and the ledgers into files of their own, `archive` beside each, while it serves, so that about so many stay in the
    /// database: at least 100. Everything is answered as before; releases from before there was this flag cannot read it any more
    #[arg(long, env = "BAZAAR_ARCHIVE_AFTER", value_name = "ROWS",
          value_parser = clap::value_parser!(u64).range(ARCHIVE_AFTER_MIN..))]
    pub archive_after: Option<u64>,
    /// CSV file with the header name,price,quantity that a new journal begins with
    #[arg(long, env = "BAZAAR_STOCKS", value_name = "FILE")]
    pub stocks: Option<PathBuf>,
    /// How long gateways may serve cached stocks without hearing from the catalog, in milliseconds
    #[arg(long, env = "BAZAAR_LEASE_MS", value_name = "MS")]
    pub lease_ms: Option<u64>,
    /// Ports of the catalog and the replicas: replicas 1 to 3 take the three after this one, the
    /// catalog the next, further replicas up to the ninth those behind it, further catalogs those behind them. 0 takes
    /// any that are free
    #[arg(long, env = "BAZAAR_PORT_BASE", value_name = "PORT", default_value_t = PORT_BASE,
          value_parser = clap::value_parser!(u16).range(..=i64::from(u16::MAX) - i64::from(REPLICAS_MAX) - i64::from(CATALOGS_MAX)))]
    pub port_base: u16,
    /// Encrypt everything, and have every service and operator prove who they are, with certificates that are made where
    /// the data is
    #[arg(long, env = "BAZAAR_SECURE", conflicts_with = "tls_cert", value_parser = BoolishValueParser::new())]
    pub secure: bool,
    /// With --secure: a host name or an address under which clients and operators reach the gateway, beside those that it
    /// listens on; once for each
    #[arg(
        long = "host",
        env = "BAZAAR_HOST",
        value_name = "NAME",
        value_delimiter = ',',
        requires = "secure"
    )]
    pub hosts: Vec<String>,
    /// Start a service again that died; without it, catalogs over --store alone, which end where going on would not be safe
    #[arg(long, env = "BAZAAR_RESTART", value_parser = BoolishValueParser::new())]
    pub restart: bool,
    /// Where a replica's ledger is damaged, set it aside and copy it anew from the others
    #[arg(long, env = "BAZAAR_REBUILD", value_parser = BoolishValueParser::new())]
    pub rebuild: bool,
    #[command(flatten)]
    pub logging: Logging,
    #[command(flatten)]
    pub tracing: Tracing,
    #[command(flatten)]
    pub settings_file: SettingsFile,
}

/// What the gateway's own command and `up` have in common.
#[derive(Debug, Args)]
pub struct Front {
    /// Where clients connect
    #[arg(long, env = "BAZAAR_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:8080", value_parser = address)]
    pub listen: SocketAddr,
    /// Where the admin API listens; beyond loopback only where operators are known: by --admin-token, --admin-token-file or
    /// certificates
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
    #[command(flatten)]
    pub admin_read_token: AdminReadToken,
    #[command(flatten)]
    pub tls: ServerTls,
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
    /// Stocks that the gateway's cache keeps at most, however many its policy asks for; with 0 it keeps none, and every
    /// look-up goes to the catalog [default: as many as the policy asks for]
    #[arg(long, env = "BAZAAR_CACHE_STOCKS_MAX", value_name = "N")]
    pub cache_stocks_max: Option<u32>,
    /// The same of orders, which replicas are asked for
    #[arg(long, env = "BAZAAR_CACHE_ORDERS_MAX", value_name = "N")]
    pub cache_orders_max: Option<u32>,
    #[command(flatten)]
    pub rules: PolicyRules,
    #[command(flatten)]
    pub access: Access,
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
    /// The request header that tells clients apart, for canaries and for whom a policy fails; the address where it is absent
    #[arg(long, env = "BAZAAR_CLIENT_HEADER", value_name = "NAME")]
    pub client_header: Option<HeaderName>,
}

/// A file of settings. What is in it has been added to the command line before that is read: see
/// [`file`](super::file).
#[derive(Debug, Args)]
pub struct SettingsFile {
    /// Settings by the names of flags, in TOML: at the top for every service, in [catalog], [order], [gateway] and [up] for that
    /// one. Flags and environment variables count more
    #[arg(long = "config", env = "BAZAAR_CONFIG", value_name = "FILE")]
    _config: Option<PathBuf>,
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
    /// URL of the catalog; once for each where there are several, of which one is active
    #[arg(
        long = "catalog",
        env = "BAZAAR_CATALOG",
        value_name = "URL",
        value_delimiter = ',',
        required = true
    )]
    pub catalogs: Vec<Origin>,
    /// An order replica; once for each of them
    #[arg(long = "order", env = "BAZAAR_ORDER", value_name = "ID=URL", value_delimiter = ',', required = true, value_parser = replica)]
    pub orders: Vec<(ReplicaId, Origin)>,
    #[command(flatten)]
    pub cluster: Cluster,
    #[command(flatten)]
    pub front: Front,
    /// Where it keeps which policy is active; without one a restart begins with --policy again
    #[arg(long, env = "BAZAAR_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Take the place of the gateway that runs on the same --data-dir, if one does: its listening sockets once a trade could
    /// be served, so that no client is refused. It answers what is under way, and ends
    #[arg(long, env = "BAZAAR_TAKE_OVER", requires = "data_dir", value_parser = BoolishValueParser::new())]
    pub take_over: bool,
    #[command(flatten)]
    pub logging: Logging,
    #[command(flatten)]
    pub tracing: Tracing,
    #[command(flatten)]
    pub settings_file: SettingsFile,
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
    /// Where it keeps its data, in SQLite's files
    #[arg(
        long,
        env = "BAZAAR_DATA_DIR",
        value_name = "DIR",
        required_unless_present = "store"
    )]
    pub data_dir: Option<PathBuf>,
    /// Keeps its data in PostgreSQL instead: postgres://user:password@host:port/database?sslmode=verify-full&sslrootcert=FILE.
    /// With a password in it, better in the variable than on the command line
    #[arg(long, env = "BAZAAR_STORE", value_name = "URL", conflicts_with_all = ["data_dir", "rebuild_from"], hide_env_values = true)]
    pub store: Option<SecretUrl>,
    /// With --store: where gateways and replicas reach this catalog, for others to tell them [default: its --listen]
    #[arg(long, env = "BAZAAR_ADVERTISE", value_name = "URL", requires = "store")]
    pub advertise: Option<Origin>,
    /// With --store: a server without a synchronous standby will do. Trades are lost with its machine
    #[arg(long, env = "BAZAAR_ALLOW_UNREPLICATED", requires = "store", conflicts_with = "data_dir", value_parser = BoolishValueParser::new())]
    pub allow_unreplicated: bool,
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
    /// Move old rows of the journal into files of their own, `archive` beside it, while it serves, so that about so many stay in the
    /// database: at least 100. Everything is answered as before; releases from before there was this flag cannot read it any more
    #[arg(long, env = "BAZAAR_ARCHIVE_AFTER", value_name = "ROWS", conflicts_with = "store",
          value_parser = clap::value_parser!(u64).range(ARCHIVE_AFTER_MIN..))]
    pub archive_after: Option<u64>,
    /// The catalog's disk is lost: rebuild its database from these replicas' data directories (stop
    /// all replicas, name all that are left, and the --stocks that the journal began with)
    #[arg(
        long,
        env = "BAZAAR_REBUILD_FROM",
        value_name = "DIR",
        value_delimiter = ','
    )]
    pub rebuild_from: Vec<PathBuf>,
    /// The database lost orders, or may have, and waits for replicas that may have them: go on without what only these have,
    /// which is then lost
    #[arg(
        long,
        env = "BAZAAR_ACCEPT_LOSS_OF",
        value_name = "ID",
        value_delimiter = ',',
        conflicts_with = "rebuild_from"
    )]
    pub accept_loss_of: Vec<ReplicaId>,
    #[command(flatten)]
    pub cluster: Cluster,
    #[command(flatten)]
    pub openness: Openness,
    /// Where /healthz, /readyz (`active` or `standby`) and /metrics are asked; nowhere unless it is given. Beyond this machine over TLS, and
    /// /metrics by certificates of the cluster's alone
    #[arg(long, env = "BAZAAR_METRICS", value_name = "ADDRESS", value_parser = address)]
    pub metrics: Option<SocketAddr>,
    #[command(flatten)]
    pub logging: Logging,
    #[command(flatten)]
    pub tracing: Tracing,
    #[command(flatten)]
    pub settings_file: SettingsFile,
    #[command(flatten)]
    pub lifeline: Lifeline,
}

/// A URL that may have a password in it: read where it is used, so that no message shows it.
#[derive(Clone)]
pub struct SecretUrl(pub String);

impl From<String> for SecretUrl {
    fn from(url: String) -> Self {
        Self(url)
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretUrl")
    }
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
    /// URL of the catalog; once for each where there are several, of which one is active
    #[arg(
        long = "catalog",
        env = "BAZAAR_CATALOG",
        value_name = "URL",
        value_delimiter = ',',
        required = true
    )]
    pub catalogs: Vec<Origin>,
    /// Another order replica; once for each of them
    #[arg(long = "peer", env = "BAZAAR_PEER", value_name = "ID=URL", value_delimiter = ',', value_parser = replica)]
    pub peers: Vec<(ReplicaId, Origin)>,
    /// Where it keeps its data
    #[arg(long, env = "BAZAAR_DATA_DIR", value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Where the ledger is damaged, set it aside and copy it anew from the peers and the catalog
    #[arg(long, env = "BAZAAR_REBUILD", value_parser = BoolishValueParser::new())]
    pub rebuild: bool,
    /// Move old rows of the ledger into files of their own, `archive` beside it, while it serves, so that about so many stay in the
    /// database: at least 100. Everything is answered as before; releases from before there was this flag cannot read it any more
    #[arg(long, env = "BAZAAR_ARCHIVE_AFTER", value_name = "ROWS",
          value_parser = clap::value_parser!(u64).range(ARCHIVE_AFTER_MIN..))]
    pub archive_after: Option<u64>,
    #[command(flatten)]
    pub cluster: Cluster,
    #[command(flatten)]
    pub openness: Openness,
    /// Where /healthz, /readyz (`leader` or `follower`) and /metrics are asked; nowhere unless it is given. Beyond this machine over TLS, and
    /// /metrics by certificates of the cluster's alone
    #[arg(long, env = "BAZAAR_METRICS", value_name = "ADDRESS", value_parser = address)]
    pub metrics: Option<SocketAddr>,
    #[command(flatten)]
    pub logging: Logging,
    #[command(flatten)]
    pub tracing: Tracing,
    #[command(flatten)]
    pub settings_file: SettingsFile,
    #[command(flatten)]
    pub lifeline: Lifeline,
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
