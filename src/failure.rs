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
use crate::up::{JournalError, UpError};

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
        ExitCode::from(match self.is_wrong_usage() {
            true => WRONG_USAGE,
            false => FAILED,
        })
    }

    fn is_wrong_usage(&self) -> bool {
        match self {
            Self::Shared(error) => shared(error),
            Self::Cert(CertError::Host(_)) => true,
            Self::Policy(PolicyError::Admin(error))
            | Self::Stock(StockError::Admin(error))
            | Self::Load(LoadError::Admin(error)) => admin(error),
            Self::Up(UpError::Shared(error)) => shared(error),
            // What it was given came from here.
            Self::Up(UpError::DiedEarly { status, .. }) => {
                status.code() == Some(WRONG_USAGE.into())
            }
            Self::Up(UpError::Gateway(error)) | Self::Gateway(error) => gateway(error),
            Self::Up(UpError::Journal(JournalError::NotBegun(error)))
            | Self::Backup(BackupError::Catalog(error))
            | Self::Catalog(error) => catalog(error),
            Self::Backup(BackupError::Shared(error)) => shared(error),
            Self::Order(error) => matches!(error, order::Error::Config(_)),
            _ => false,
        }
    }
}

fn shared(error: &Error) -> bool {
    match error {
        Error::Usage(_) | Error::Token(AdminTokenError::Invalid(_)) => true,
        Error::Admin(error) => admin(error),
        _ => false,
    }
}

fn admin(error: &AdminError) -> bool {
    matches!(error, AdminError::Token(AdminTokenError::Invalid(_)))
}

fn catalog(error: &catalog::Error) -> bool {
    use catalog::PostgresError::{RootCertificates, Url};
    matches!(
        error,
        catalog::Error::Config(_) | catalog::Error::Postgres(Url(_) | RootCertificates { .. })
    )
}

fn gateway(error: &frontend_host::Error) -> bool {
    use frontend_host::Error;
    matches!(
        error,
        Error::Url { .. }
            | Error::NoReplica
            | Error::SameReplica(_)
            | Error::SameCatalog(_)
            | Error::Token(TokenFileError::Invalid { .. } | TokenFileError::Same)
            | Error::OnlyReaders
            | Error::OpenAdmin(_)
    )
}
