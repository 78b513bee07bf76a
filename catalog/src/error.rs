//! What can go wrong, and which gRPC status says so.

use std::path::PathBuf;
use std::sync::Arc;

use daemon::ownership::remedy;
use domain::{Epoch, OrderNumber, Price, Protocol, Protocols, ReplicaId, RowNumber, StockName};
use rpc::release::Release;
use rpc::retry::{RetryClass, RetryStatus as _};
use storage::StorageError;
use tls::Principal;
use tonic::{Code, Status};
use wire::Malformed;
use wire::identity::{NotOurs, OTHER_JOURNAL};

use crate::config::ConfigError;
use crate::config::{SESSIONS_PER_CLIENT_MAX, SESSIONS_PER_PRINCIPAL_MAX};
use crate::damage::Damaged;
use crate::stocks::StocksError;
use crate::store::postgres::PostgresError;
use catalog_core::self_healing::CannotPutBack;
use catalog_core::{InSyncRefused, NotLeader, NotOpened, SessionExpired, StaleEpoch};

/// There is no journal, and the command does not say to begin one.
#[derive(Debug, thiserror::Error)]
#[error(
    "there is no journal in {}\n\
     To begin one, with its first stocks, start with --new. Where there was one and its disk is lost, \
     rebuild it from the replicas' ledgers: start with --rebuild-from for the data directory of \
     every replica that is left, and the --stocks that it began with; where none is left, make it of \
     a backup with `bazaar backup restore`",
    .0.display()
)]
pub struct NoJournal(pub PathBuf);

/// Why the catalog did not start, or stopped before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Stocks(#[from] StocksError),
    #[error(transparent)]
    NoJournal(#[from] NoJournal),
    /// A server's database cannot be used.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// What is in the database is not what was written there.
    #[error(transparent)]
    Damaged(#[from] Damaged),
    /// A later release's, or one of so long ago that this one does not speak its protocol any more.
    #[error(
        "the bazaar is at version {0} of the protocol, and this release speaks {own}: start one that speaks both, or that release",
        own = Protocols::OWN
    )]
    OtherProtocol(Protocol),
    #[error("cannot serve: {0}")]
    Serve(#[from] tonic::transport::Error),
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
    /// A bug: nothing takes requests any more. The log says more.
    #[error("the catalog stopped because of an internal error")]
    Ended,
    /// An invariant does not hold; the log says which.
    #[error("the writer ended before it was told to")]
    Writer,
    /// It has handed over.
    #[error(
        "more callers reach a catalog that stands by than this one: it has handed over, and its next start stands by"
    )]
    TurnedAway,
}

/// Why a lost database was not rebuilt.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    #[error("{} is there: remove it first if it is really lost", .0.display())]
    Exists(PathBuf),
    #[error("cannot write {}: {source}{}", path.display(), remedy(path, source))]
    Write {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(transparent)]
    Stocks(#[from] StocksError),
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The ledger is damaged.
    #[error("the ledger is damaged: row {0} does not follow the one before it")]
    Broken(RowNumber),
    /// The stocks are not those that the journal began with: a ledger keeps a digest of those.
    #[error("these are not the stocks that the journal began with: name the first --stocks file")]
    OtherListing,
    /// The stocks are not those that the journal began with.
    #[error(
        "row {number} is for `{name}`, which is not among the stocks: name the first --stocks file"
    )]
    UnknownStock { number: RowNumber, name: StockName },
    /// The stocks are not those that the journal began with.
    #[error(
        "row {number} was made at {traded} for a share of `{name}`, which is listed at {listed}: \
         name the first --stocks file"
    )]
    OtherPrice {
        number: RowNumber,
        name: StockName,
        /// The price in its row.
        traded: Price,
        /// The price among the stocks.
        listed: Price,
    },
    /// The stocks are not those that the journal began with.
    #[error(
        "row {number} could not have been made with these stocks: name the first --stocks file"
    )]
    Impossible { number: RowNumber },
    /// A backup ends before that.
    #[error("it has no order {last}: there are {orders}, and the first is 0")]
    NoSuchOrder {
        /// The one that was asked for.
        last: OrderNumber,
        /// How many there are.
        orders: OrderNumber,
    },
    /// A ledger has seen an epoch that no catalog can have come to.
    #[error(
        "a ledger says that epoch {0} has begun, which is the highest that there can be: it is damaged, leave it out"
    )]
    NoEpochLeft(Epoch),
}

/// Why a request got no answer of its kind.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    #[error(transparent)]
    Invalid(#[from] domain::Invalid),
    #[error(transparent)]
    NotOurs(#[from] NotOurs),
    /// No stock of that name.
    #[error("stock not found")]
    StockNotFound,
    /// The caller's ledger continues this journal, or is another one's.
    #[error("the journal has {rows} rows: neither row {from} nor the one before it")]
    Beyond {
        /// The first that was asked for.
        from: RowNumber,
        /// How many there are.
        rows: RowNumber,
    },
    /// The caller's ledger is not the journal's beginning.
    #[error("the row before {0} is another one here")]
    Differs(RowNumber),
    /// A replica that need not hold every acknowledged order proves nothing about them, nor does one whose orders are
    /// given up.
    #[error("replica {0} is not in sync")]
    NotInSync(ReplicaId),
    /// The row does not prove that the journal lost any.
    #[error("row {0} does not follow the journal's last one")]
    NotMissing(RowNumber),
    /// What a replica has is wanted no more.
    #[error(
        "the ledgers are checked: what they have is wanted no more, or by another run of the catalog"
    )]
    Healed,
    /// Rows that a replica shows are not what the journal lacks.
    #[error(transparent)]
    CannotPutBack(#[from] CannotPutBack),
    #[error(transparent)]
    Stale(#[from] StaleEpoch),
    #[error(transparent)]
    InSync(#[from] InSyncRefused),
    #[error(transparent)]
    NotLeader(#[from] NotLeader),
    /// It cannot be raised so far.
    #[error("this release speaks versions {} of the protocol", Protocols::OWN)]
    NoSuchProtocol,
    /// A gateway would be refused from then on.
    #[error("gateway {gateway} cannot be of a bazaar at version {wanted}: {release}")]
    GatewayOfBefore {
        gateway: String,
        wanted: Protocol,
        release: Release,
    },
    /// A replica speaks for another one.
    #[error("{caller} speaks for replica {replica}")]
    OtherReplica {
        caller: Principal,
        replica: ReplicaId,
    },
    /// The session is over.
    #[error(transparent)]
    SessionExpired(#[from] SessionExpired),
    /// No session was opened.
    #[error(transparent)]
    NotOpened(#[from] NotOpened),
    /// One client has as many as it may.
    #[error(
        "{SESSIONS_PER_CLIENT_MAX} sessions of this client's are open, as many as one may have: \
         release those that it does not need, or wait until their leases are over"
    )]
    TooManySessions,
    /// Those who have one name in their certificates have as many as they may.
    #[error(
        "{SESSIONS_PER_PRINCIPAL_MAX} sessions of {0} are open, as many as one name may have from all addresses: release \
         those that are not needed, or give each gateway a certificate of its own"
    )]
    TooManySessionsOf(Principal),
    /// Until then a start cannot tell that nothing was taken before.
    #[error("no tokens are taken before the journal's first election")]
    Unelected,
    /// A session did not begin as it must.
    #[error("the first request of a session must be an Open, and no other may be")]
    Unopened,
    /// The database could not do it; nothing was changed.
    #[error("nothing was committed: {0}")]
    NotCommitted(String),
    /// The database could not be read.
    #[error("cannot read the database: {0}")]
    Unreadable(#[source] Arc<StorageError>),
    /// Too many replies wait for caches to let go.
    #[error("too many trades wait for caches; ask again under the same keys")]
    TooManyWaiters,
    /// The operating system gave no random number.
    #[error("no random session id: {0}")]
    Random(#[source] getrandom::Error),
    /// It has not reached its database for so long that another catalog may serve.
    #[error("the catalog does not reach its database: another one may have taken over")]
    Uncertain,
    /// Another one is active.
    #[error("this catalog stands by{}", active.as_ref().map(|url| format!(": the active one is {url}")).unwrap_or_default())]
    Standby {
        /// Where that is reached, as far as this one knows.
        active: Option<String>,
    },
    /// The catalog is stopping.
    #[error("the catalog is stopping")]
    Stopping,
}

impl RequestError {
    /// What one read of the database says to all that wanted it.
    pub fn unreadable(error: impl Into<Arc<StorageError>>) -> Self {
        Self::Unreadable(error.into())
    }

    /// What the caller is told, and whether another attempt may help: the one table.
    fn answer(&self) -> (Code, RetryClass) {
        use RetryClass::{Elsewhere, Later, Never};
        match self {
            Self::Invalid(_) | Self::Unopened | Self::NotMissing(_) => {
                (Code::InvalidArgument, Never)
            }
            Self::NotOurs(NotOurs::Other { .. }) => (OTHER_JOURNAL, Elsewhere),
            Self::NotOurs(NotOurs::Unnamed(_)) => (Code::InvalidArgument, Never),
            Self::NotInSync(_) | Self::Healed | Self::CannotPutBack(_) => {
                (Code::FailedPrecondition, Never)
            }
            Self::NoSuchProtocol => (Code::InvalidArgument, Never),
            Self::GatewayOfBefore { .. } => (Code::FailedPrecondition, Later),
            Self::Beyond { .. } => (Code::OutOfRange, Never),
            Self::Differs(_) => (Code::Aborted, Never),
            Self::InSync(InSyncRefused::WithoutLeader(_)) => (Code::InvalidArgument, Never),
            Self::StockNotFound => (Code::NotFound, Never),
            // Another epoch, or another session, is another request.
            Self::Stale(_) | Self::InSync(InSyncRefused::Stale(_)) | Self::SessionExpired(_) => {
                (Code::FailedPrecondition, Never)
            }
            Self::NotLeader(_) | Self::OtherReplica { .. } => (Code::PermissionDenied, Never),
            Self::InSync(InSyncRefused::Overtaken { .. }) => (Code::Aborted, Never),
            Self::NotOpened(_) | Self::TooManySessions | Self::TooManySessionsOf(_) => {
                (Code::ResourceExhausted, Later)
            }
            Self::NotCommitted(_)
            | Self::TooManyWaiters
            | Self::Unelected
            | Self::Random(_)
            | Self::Uncertain
            | Self::Standby { .. }
            | Self::Stopping => (Code::Unavailable, Later),
            // The ledgers have rows of the journal as well.
            Self::Unreadable(error) if error.is_damage() => (Code::DataLoss, Elsewhere),
            Self::Unreadable(_) => (Code::Unavailable, Later),
        }
    }
}

impl From<Malformed> for RequestError {
    fn from(malformed: Malformed) -> Self {
        Self::Invalid(malformed.0)
    }
}

impl From<RequestError> for Status {
    fn from(error: RequestError) -> Self {
        let (code, class) = error.answer();
        class.status(code, error.to_string())
    }
}
