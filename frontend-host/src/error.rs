//! Why a gateway does not start, or stops.

use std::path::PathBuf;

use crate::journal::JournalError;
use frontend_policy::SwapError;
use frontend_policy::admission::{KeyError, Untrusted};
use frontend_policy::rollout::VersionLogError;

/// Why a gateway does not start, or stops.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A URL is not one.
    #[error("`{url}` cannot be connected to: {source}")]
    Url {
        /// As it was given.
        url: String,
        /// What is wrong with it.
        source: rpc::connect::UrlError,
    },
    /// A file of a token cannot be used.
    #[error("cannot tell operators from others: {0}")]
    Token(#[from] crate::admin::TokenFileError),
    /// There is a token for reading alone.
    #[error(
        "--admin-read-token says who may read, and nothing says who may change anything: set --admin-token or --admin-token-file as well, or have operators show certificates (--tls-cert and --cluster-ca)"
    )]
    OnlyReaders,
    /// The certificate for clients will not do.
    #[error("cannot serve over TLS: {0}")]
    Tls(#[from] tls::Error),
    /// No order replica is configured.
    #[error("there is no order replica; name at least one with --order ID=URL")]
    NoReplica,
    /// Two replicas have the same id.
    #[error("two order replicas have the id {0}")]
    SameReplica(domain::ReplicaId),
    /// A catalog is named twice.
    #[error("two catalogs have the URL {0}: name each once with --catalog")]
    SameCatalog(String),
    /// The admin listener can be reached from other machines, and no token is asked for.
    #[error(
        "the admin address {0} is not a loopback address; set --admin-token or --admin-token-file, have operators show certificates (--tls-cert and --cluster-ca), or listen on 127.0.0.1"
    )]
    OpenAdmin(std::net::SocketAddr),
    /// The sandbox cannot run here.
    #[error("the policy sandbox does not run on this machine: {0:#}")]
    Sandbox(wasmtime::Error),
    /// The policy's file cannot be read.
    #[error("cannot read the policy {}: {source}", path.display())]
    PolicyFile {
        path: PathBuf,
        source: std::io::Error,
    },
    /// The access log cannot be opened.
    #[error("cannot log requests to {}: {source}; name another --access-log-file", path.display())]
    AccessLog {
        path: PathBuf,
        source: std::io::Error,
    },
    /// Another process has the data directory, or it cannot be made.
    #[error(transparent)]
    DataDir(#[from] daemon::data_dir::Error),
    /// What was saved of the policy cannot be read or written.
    #[error("cannot save the policy: {0}")]
    VersionLog(#[from] VersionLogError),
    /// The gateway whose place this one was to take goes on.
    #[error(transparent)]
    Handover(#[from] crate::handover::HandoverError),
    /// The journal that this gateway belongs to is not known.
    #[error("cannot tell which bazaar this gateway belongs to: {0}")]
    Journal(#[from] JournalError),
    /// The file of trusted keys cannot be used.
    #[error("cannot use the trusted keys in {}: {source}", path.display())]
    Keys { path: PathBuf, source: KeyError },
    /// The first policy is not trusted.
    #[error("the policy {} is refused: {source}", path.display())]
    Untrusted { path: PathBuf, source: Untrusted },
    /// The first policy does not serve.
    #[error("no policy to start with: {0}")]
    Policy(#[from] SwapError),
    /// Sockets or threads could not be had.
    #[error("cannot serve: {0}")]
    Io(#[from] std::io::Error),
}
