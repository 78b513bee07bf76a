//! What goes wrong, and what callers are told.

use std::path::PathBuf;

use storage::StorageError;
use tonic::Status;

use crate::config::ConfigError;
use crate::damage::Damaged;
use order_core::message::{Failure, Refused, Unavailable};

/// Why a replica cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings.
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
    Foreign {
        /// The directory.
        data_dir: PathBuf,
        /// Whose it is.
        failure: Failure,
    },
    /// The listener failed.
    #[error("cannot serve: {0}")]
    Serve(#[source] tonic::transport::Error),
    /// A bug: a part of the replica ended that should not. The log says more.
    #[error("the replica stopped because of an internal error")]
    Ended,
}

/// How callers are told that the core did not do what they asked for.
pub(crate) trait ToStatus {
    fn to_status(self) -> Status;
}

impl ToStatus for Unavailable {
    fn to_status(self) -> Status {
        Status::unavailable(self.to_string())
    }
}

impl ToStatus for Refused {
    fn to_status(self) -> Status {
        let text = self.to_string();
        match self {
            Refused::Stale { .. } | Refused::LeadsNoMore { .. } => {
                Status::failed_precondition(text)
            }
            Refused::Unconfirmed { .. } => Status::aborted(text),
            Refused::OtherLeader { .. } => Status::invalid_argument(text),
            Refused::StoreFailed => Status::resource_exhausted(text),
            Refused::Broken { .. } => Status::data_loss(text),
        }
    }
}

/// For callers that the replica can no longer answer because it stops.
pub(crate) fn stopping() -> Status {
    Status::unavailable("this replica is shutting down")
}
