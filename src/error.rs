//! Why a command failed, and the exit code that says so.

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;

use crate::admin::AdminError;
use crate::cli::AdminTokenError;
use crate::ledger::LedgerError;
use crate::load::LoadError;
use crate::policy::PolicyError;
use crate::up::UpError;

/// The exit code of a command that failed.
const FAILED: u8 = 1;

/// The exit code of wrong usage; clap's own, too.
pub const WRONG_USAGE: u8 = 2;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A flag is not possible together with another, or here.
    #[error("{0}")]
    Usage(String),
    /// The admin token cannot be used.
    #[error(transparent)]
    Token(#[from] AdminTokenError),
    /// Another process listens there.
    #[error("port {} is taken ({address}, {purpose}): another process listens there; choose another with {flag}", address.port())]
    Taken {
        /// Where.
        address: SocketAddr,
        /// What would listen there.
        purpose: String,
        /// The flag that moves it.
        flag: &'static str,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address} ({purpose}, {flag}): {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What would listen there.
        purpose: String,
        /// The flag that names it.
        flag: &'static str,
        /// Why.
        source: io::Error,
    },
    /// There are no threads to run on.
    #[error("cannot start: {0}")]
    Runtime(io::Error),
    /// Signals cannot be received.
    #[error("cannot receive signals: {0}")]
    Signals(io::Error),
    /// Standard output does not take the result.
    #[error("cannot write the result: {0}")]
    Output(#[from] io::Error),
    /// A lost catalog was not made anew.
    #[error("catalog: {0}")]
    Rebuild(#[from] crate::rebuild::Error),
    /// `bazaar catalog` failed.
    #[error("catalog: {0}")]
    Catalog(#[from] catalog::Error),
    /// `bazaar order` failed.
    #[error("order replica: {0}")]
    Order(#[from] order::Error),
    /// `bazaar gateway` failed.
    #[error("gateway: {0}")]
    Gateway(#[from] frontend_host::Error),
    /// A gateway's admin API did not do what it was asked.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// `bazaar up` failed.
    #[error(transparent)]
    Up(#[from] UpError),
    /// `bazaar load` failed.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// `bazaar policy` failed.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// `bazaar ledger` failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl Error {
    /// What the process exits with.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Usage(_)
            | Self::Token(AdminTokenError::Invalid(_))
            | Self::Admin(AdminError::Token(AdminTokenError::Invalid(_)))
            | Self::Catalog(catalog::Error::Config(_))
            | Self::Order(order::Error::Config(_))
            | Self::Gateway(
                frontend_host::Error::Url { .. }
                | frontend_host::Error::NoReplica
                | frontend_host::Error::SameReplica(_)
                | frontend_host::Error::OpenAdmin(_),
            ) => WRONG_USAGE,
            _ => FAILED,
        })
    }
}
