//! Why a command failed, and what the process exits with.

use std::process::ExitCode;

use frontend_host::admin::TokenFileError;

use crate::admin::AdminError;
use crate::backup::BackupError;
use crate::cert::CertError;
use crate::cli::AdminTokenError;
use crate::error::Error;
use crate::ledger::LedgerError;
use crate::load::LoadError;
use crate::policy::PolicyError;
use crate::stock::StockError;
use crate::up::UpError;

/// The exit code of a command that failed.
const FAILED: u8 = 1;

/// The exit code of wrong usage; clap's own, too.
pub const WRONG_USAGE: u8 = 2;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Shared(#[from] Error),
    /// A lost catalog was not rebuilt.
    #[error("catalog: {0}")]
    Rebuild(#[from] crate::rebuild::Error),
    #[error("catalog: {0}")]
    Catalog(#[from] catalog::Error),
    #[error("order replica: {0}")]
    Order(#[from] order::Error),
    #[error("gateway: {0}")]
    Gateway(#[from] frontend_host::Error),
    #[error(transparent)]
    Up(#[from] UpError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Policy(#[from] PolicyError),
    #[error(transparent)]
    Stock(#[from] StockError),
    #[error(transparent)]
    Backup(#[from] BackupError),
    #[error(transparent)]
    Cert(#[from] CertError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Compile(#[from] frontend_policy::CompileError),
}

impl Failure {
    /// What the process exits with.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Shared(Error::Usage(_))
            | Self::Cert(CertError::Host(_))
            | Self::Shared(Error::Token(AdminTokenError::Invalid(_)))
            | Self::Shared(Error::Admin(AdminError::Token(AdminTokenError::Invalid(_))))
            | Self::Policy(PolicyError::Admin(AdminError::Token(AdminTokenError::Invalid(_))))
            | Self::Stock(StockError::Admin(AdminError::Token(AdminTokenError::Invalid(_))))
            | Self::Up(UpError::Shared(Error::Token(AdminTokenError::Invalid(_))))
            | Self::Catalog(
                catalog::Error::Config(_)
                | catalog::Error::Postgres(
                    catalog::PostgresError::Url(_)
                    | catalog::PostgresError::RootCertificates { .. },
                ),
            )
            | Self::Order(order::Error::Config(_))
            | Self::Gateway(
                frontend_host::Error::Url { .. }
                | frontend_host::Error::NoReplica
                | frontend_host::Error::SameReplica(_)
                | frontend_host::Error::Token(TokenFileError::Invalid { .. } | TokenFileError::Same)
                | frontend_host::Error::OnlyReaders
                | frontend_host::Error::OpenAdmin(_),
            ) => WRONG_USAGE,
            _ => FAILED,
        })
    }
}
