//! What can go wrong in more than one command.

use std::io;
use std::net::SocketAddr;

use crate::admin::AdminError;
use crate::cli::AdminTokenError;

/// What can go wrong in more than one command.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A flag is not possible together with another, or here.
    #[error("{0}")]
    Usage(String),
    /// The admin token cannot be used.
    #[error(transparent)]
    Token(#[from] AdminTokenError),
    /// Certificates will not do.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// Traces cannot be exported there.
    #[error(transparent)]
    Traces(#[from] traces::TargetError),
    /// Another process listens there.
    #[error("port {} is taken ({address}, {purpose}): another process listens there; choose another with {flag}", address.port())]
    Taken {
        address: SocketAddr,
        /// What would listen there.
        purpose: String,
        /// The flag that moves it.
        flag: &'static str,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address} ({purpose}, {flag}): {source}")]
    Listen {
        address: SocketAddr,
        /// What would listen there.
        purpose: String,
        /// The flag that names it.
        flag: &'static str,
        source: io::Error,
    },
    /// There are no threads to run on.
    #[error("cannot start: {0}")]
    Runtime(io::Error),
    /// Signals cannot be received.
    #[error("cannot receive signals: {0}")]
    Signals(io::Error),
    /// A terminal cannot be drawn on, or gives no keys.
    #[error("this terminal cannot be used: {0}")]
    Terminal(io::Error),
    /// Standard output does not take the result.
    #[error("cannot write the result: {0}")]
    Output(#[from] io::Error),
    /// A gateway's admin API did not do what it was asked.
    #[error(transparent)]
    Admin(#[from] AdminError),
}
