//! What goes wrong, and what callers are told.

use std::path::PathBuf;

use domain::ReplicaId;
use rpc::retry::{RetryClass, RetryStatus as _};
use storage::StorageError;
use tls::Principal;
use tonic::{Code, Status};
use wire::Malformed;
use wire::identity::{NotOurs, OTHER_JOURNAL};

use crate::config::ConfigError;
use crate::damage::Damaged;
use order_core::lookup::Absent;
use order_core::message::{Failure, Refused, Unavailable};

/// Why a replica cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data directory or what is in it.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// What is in the data directory is not what was written there.
    #[error(transparent)]
    Damaged(#[from] Damaged),
    /// What is in the data directory is another journal's.
    #[error("{failure}: nothing of {} is served. Name the --data-dir and the --catalog that belong together", data_dir.display())]
    Foreign { data_dir: PathBuf, failure: Failure },
    #[error("cannot serve: {0}")]
    Serve(#[source] tonic::transport::Error),
    /// A bug: a part of the replica ended that should not. The log says more.
    #[error("the replica stopped because of an internal error")]
    Ended,
}

/// Why a request got no answer of its kind.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    /// The core takes no orders.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// The core does not take an announcement, or rows.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// There is no order of that number.
    #[error("no such order")]
    NoSuchOrder,
    /// The message is about another journal.
    #[error(transparent)]
    NotOurs(#[from] NotOurs),
    #[error(transparent)]
    Invalid(#[from] Malformed),
    /// Somebody speaks of an epoch that is not known here.
    #[error("the catalog cannot be asked who leads")]
    Unasked,
    /// The own ledger. The log says more.
    #[error("the replica cannot read its ledger")]
    Unreadable(#[source] StorageError),
    /// It is not here, and may be in the journal.
    #[error("the catalog cannot be asked whether the order exists")]
    Unconfirmed,
    /// It is in the journal, and did not come from there.
    #[error("the catalog did not give the order")]
    NotGiven,
    /// A replica appends as another one.
    #[error("{caller} appends as replica {replica}")]
    OtherReplica {
        caller: Principal,
        replica: ReplicaId,
    },
    /// A bug; the log says more.
    #[error("placing orders failed")]
    Panicked,
    #[error("this replica is shutting down")]
    Stopping,
}

impl RequestError {
    /// What the caller is told, and whether another attempt may help: the one table.
    fn answer(&self) -> (Code, RetryClass) {
        use RetryClass::{Elsewhere, Later, Never};
        match self {
            Self::Unavailable(_)
            | Self::Unasked
            | Self::Unconfirmed
            | Self::NotGiven
            | Self::Stopping => (Code::Unavailable, Later),
            Self::NotOurs(NotOurs::Other { .. }) => (OTHER_JOURNAL, Elsewhere),
            Self::NotOurs(NotOurs::Unnamed(_)) | Self::Invalid(_) => (Code::InvalidArgument, Never),
            Self::Unreadable(error) if error.is_damage() => (Code::DataLoss, Elsewhere),
            Self::Unreadable(_) => (Code::Unavailable, Later),
            Self::OtherReplica { .. } => (Code::PermissionDenied, Never),
            Self::NoSuchOrder => (Code::NotFound, Never),
            Self::Panicked => (Code::Internal, Never),
            // Another epoch is another request.
            Self::Refused(Refused::Stale { .. } | Refused::LetGo { .. }) => {
                (Code::FailedPrecondition, Never)
            }
            Self::Refused(Refused::LeadsNoMore { .. }) => (Code::FailedPrecondition, Elsewhere),
            // By then the catalog has been asked.
            Self::Refused(Refused::Unconfirmed { .. }) => (Code::Aborted, Never),
            Self::Refused(Refused::OtherLeader { .. }) => (Code::InvalidArgument, Never),
            Self::Refused(Refused::StoreFailed) => (Code::ResourceExhausted, Elsewhere),
            Self::Refused(Refused::Broken { .. }) => (Code::DataLoss, Elsewhere),
        }
    }
}

impl From<Absent> for RequestError {
    fn from(absent: Absent) -> Self {
        match absent {
            Absent::DoesNotExist => Self::NoSuchOrder,
            Absent::Unconfirmed => Self::Unconfirmed,
            Absent::NotGiven => Self::NotGiven,
        }
    }
}

impl From<RequestError> for Status {
    fn from(error: RequestError) -> Self {
        let (code, class) = error.answer();
        class.status(code, error.to_string())
    }
}

/// How callers are told that the core did not do what they asked for.
pub(crate) trait ToStatus {
    fn to_status(self) -> Status;
}

impl<E: Into<RequestError>> ToStatus for E {
    fn to_status(self) -> Status {
        self.into().into()
    }
}

/// For callers that the replica can no longer answer because it stops.
pub(crate) fn stopping() -> Status {
    RequestError::Stopping.into()
}
