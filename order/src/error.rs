//! What goes wrong, and what callers are told.

use std::path::PathBuf;

use protocol::ReplicaId;
use storage::StorageError;
use tonic::Status;

use crate::config::PEERS_MAX;
use crate::core::message::{Failure, Refused, Unavailable};
use crate::damage::Damaged;

/// Why settings are refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not an address.
    #[error("`{url}` is not an http://host:port URL: {source}")]
    Url {
        /// What was given.
        url: String,
        /// Why not.
        source: tonic::transport::Error,
    },
    /// More peers than [`crate::config::PEERS_MAX`].
    #[error("{count} peers are named; at most {PEERS_MAX} are allowed")]
    TooManyPeers {
        /// How many.
        count: usize,
    },
    /// A replica among its own peers.
    #[error("replica {0} is named as its own peer")]
    OwnPeer(ReplicaId),
    /// Two peers with one id.
    #[error("peer {0} is named twice")]
    SamePeer(ReplicaId),
    /// Two peers, or a peer and the catalog, at one address.
    #[error("the address {0} is named twice")]
    SameAddress(String),
}

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

impl From<Unavailable> for Status {
    fn from(unavailable: Unavailable) -> Self {
        Status::unavailable(unavailable.to_string())
    }
}

impl From<Refused> for Status {
    fn from(refused: Refused) -> Self {
        let text = refused.to_string();
        match refused {
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
