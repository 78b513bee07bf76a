//! How a catalog is set up.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use domain::ReplicaId;
use monitor::Monitor;
use traces::Traces;

use crate::store::postgres::StoreUrl;
use catalog_core::leases::SESSIONS_MAX;

/// Most sessions of one client at a time, until their leases are over: a gateway has one.
pub const SESSIONS_PER_CLIENT_MAX: usize = SESSIONS_MAX / 4;

/// Most sessions of one certificate's name at a time, from all networks: nobody who has the key has those of all others.
pub const SESSIONS_PER_PRINCIPAL_MAX: usize = SESSIONS_MAX / 2;

/// How long a gateway may serve what it holds after it last asked, unless configured.
pub const LEASE_DEFAULT: Duration = Duration::from_secs(1);

/// The shortest and the longest lease.
pub const LEASE_MIN: Duration = Duration::from_millis(50);
/// See [`LEASE_MIN`].
pub const LEASE_MAX: Duration = Duration::from_secs(60);

/// How much longer the catalog counts a lease than its holder: 1 part in this many.
/// Far above the drift of any clock that works.
const MARGIN_DIVISOR: u32 = 10;

/// How a catalog is set up.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where its database is, or will be.
    pub data_dir: PathBuf,
    /// Whether to begin a journal where there is none. Otherwise a missing journal is an error: the disk may
    /// have been lost, and another journal would be taken for the one that was on it.
    pub new: bool,
    /// CSV file with the stocks of a new database; without one the built-in stocks.
    pub stocks: Option<PathBuf>,
    /// How long a gateway may serve what it holds after it last asked. Also how long a trade
    /// may have to wait for a gateway that is gone, and a start for those of the run before.
    pub lease: Duration,
    /// Replicas that a start which finds that rows are missing, or may be, does not wait for: what only they have is lost.
    pub accept_loss_of: BTreeSet<ReplicaId>,
    /// Its database was [rebuilt](crate::rebuild()) from ledgers a moment ago. A replica that does not report is no reason to
    /// take it for an older copy then.
    pub is_rebuilt: bool,
    /// How many rows of the journal stay in the database; those before them move into files of their own. All of them
    /// stay without it.
    pub archive_after: Option<u64>,
    /// Told what this catalog is at the moment.
    pub monitor: Monitor,
    /// Where orders that are traced are.
    pub traces: Traces,
}

impl Config {
    pub fn validate(&self) -> Result<(), ConfigError> {
        check_lease(self.lease)
    }
}

/// How a catalog is set up whose database is PostgreSQL's. See [`Config`].
#[derive(Debug, Clone)]
pub struct PostgresConfig {
    pub store: StoreUrl,
    /// A server without a synchronous standby will do: trades are lost with its machine.
    pub allow_unreplicated: bool,
    /// Where this catalog is reached: others are told who writes.
    pub reached_at: String,
    pub new: bool,
    pub stocks: Option<PathBuf>,
    pub lease: Duration,
    pub accept_loss_of: BTreeSet<ReplicaId>,
    pub monitor: Monitor,
    pub traces: Traces,
}

/// Of a catalog that others can take over from. It serves for nine tenths of its own lease after a beat, and may
/// be a third of it past one: what is left then has to be enough for a gateway's.
pub const NESTED_LEASE_MAX: Duration = Duration::from_millis(500);

impl PostgresConfig {
    pub fn validate(&self) -> Result<(), ConfigError> {
        check_lease(self.lease)?;
        match self.lease <= NESTED_LEASE_MAX {
            true => Ok(()),
            false => Err(ConfigError::NestedLease(self.lease)),
        }
    }
}

fn check_lease(lease: Duration) -> Result<(), ConfigError> {
    match (LEASE_MIN..=LEASE_MAX).contains(&lease) {
        true => Ok(()),
        false => Err(ConfigError::Lease(lease)),
    }
}

/// How much longer than its holder the catalog counts a lease.
pub fn lease_margin(lease: Duration) -> Duration {
    lease / MARGIN_DIVISOR
}

/// For how long the catalog counts a lease.
pub fn lease_max(lease: Duration) -> Duration {
    lease + lease_margin(lease)
}

/// A configuration that cannot be.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("a lease of {0:?} is not from {LEASE_MIN:?} to {LEASE_MAX:?}")]
    Lease(Duration),
    #[error(
        "a lease of {0:?} is longer than {NESTED_LEASE_MAX:?}: with --store, another catalog may be active by its end"
    )]
    NestedLease(Duration),
}
