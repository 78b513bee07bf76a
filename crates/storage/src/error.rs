//! What can go wrong with a database, and which of it ends the process.

use std::path::PathBuf;

use daemon::ownership::remedy;
use domain::Invalid;
use rusqlite::ErrorCode;

/// Why a database did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The directory cannot be made, or a file in it cannot be opened or written.
    #[error("cannot use {}: {source}{}", path.display(), remedy(path, source))]
    Directory {
        /// The directory or file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Another process has the directory, or it cannot be made.
    #[error(transparent)]
    NotTaken(#[from] daemon::data_dir::Error),
    /// The file belongs to something else.
    #[error("{} is not a database of kind `{expected}`; name another --data-dir", path.display())]
    Foreign {
        /// The database's file.
        path: PathBuf,
        /// What it should have been.
        expected: &'static str,
    },
    /// A later release has made or changed its tables.
    #[error(
        "{} has tables of version {found}, of a later release; this one knows {known}: \
         go on with the later one, or start with a backup of before",
        path.display()
    )]
    Newer {
        /// The database's file.
        path: PathBuf,
        /// Of its tables.
        found: u64,
        /// The newest that this release knows.
        known: u64,
    },
    /// The database holds what was never written to it.
    #[error("the database is damaged: {0}")]
    Damaged(String),
    /// A commit met a failed write or sync. What of it the disk holds is not known: see
    /// [`fail_stop`].
    #[error("the disk failed a commit: {0}")]
    DiskFailed(#[source] rusqlite::Error),
    /// Rows or a term that do not continue what the database holds; nothing was changed.
    #[error("{0}")]
    Discontinuous(String),
    /// The operating system gave no random number.
    #[error("no random number: {0}")]
    Random(#[source] std::io::Error),
    /// A commit's outcome is not known: its server did not say. See [`fail_stop`].
    #[error("nobody can tell whether a commit took effect: {0}")]
    Ambiguous(String),
    /// Another process writes to the database now, and this one never will again. See [`fail_stop`].
    #[error("another process has taken the database over: {0}")]
    Fenced(String),
    /// A database's server did not do what it was asked; nothing was changed.
    #[error("database: {0}")]
    Server(String),
    /// What reads is stopping.
    #[error("stopping")]
    Stopping,
    /// SQLite refused a statement, and neither damage nor a full disk was the reason.
    #[error("database: {0}")]
    Sqlite(#[source] rusqlite::Error),
}

impl StorageError {
    /// Whether the database holds what was never written to it.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged(_))
    }

    /// Whether nobody knows what is durable, or another process decides it, so that this one is to
    /// end ([`fail_stop`]).
    pub fn ends_process(&self) -> bool {
        matches!(
            self,
            Self::DiskFailed(_) | Self::Ambiguous(_) | Self::Fenced(_)
        )
    }
}

/// What SQLite cannot make sense of, or what is not of the type that was written, is damage.
impl From<rusqlite::Error> for StorageError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::Error as Is;
        let malformed = matches!(
            error.sqlite_error_code(),
            // `Unknown` is SQLite's general error: the statements are always the same, so what they
            // fail at is the file (an "unsupported file format", say).
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::Unknown)
        );
        match error {
            Is::FromSqlConversionFailure(..)
            | Is::IntegralValueOutOfRange(..)
            | Is::InvalidColumnType(..)
            | Is::Utf8Error(..)
            | Is::QueryReturnedNoRows => Self::Damaged(error.to_string()),
            _ if malformed => Self::Damaged(error.to_string()),
            _ => Self::Sqlite(error),
        }
    }
}

impl From<Invalid> for StorageError {
    fn from(invalid: Invalid) -> Self {
        Self::Damaged(invalid.to_string())
    }
}

/// Commits a transaction.
///
/// # Errors
/// [`StorageError::DiskFailed`], after which the process is to end ([`fail_stop`]). A full disk,
/// which changes nothing and may pass.
pub fn commit(transaction: rusqlite::Transaction<'_>) -> Result<(), StorageError> {
    transaction
        .commit()
        .map_err(|error| match error.sqlite_error_code() {
            Some(ErrorCode::SystemIoFailure | ErrorCode::DatabaseCorrupt) => {
                StorageError::DiskFailed(error)
            }
            _ => error.into(),
        })
}

/// Ends the process, to be called with an error that [ends it](StorageError::ends_process).
///
/// After a failed write or fsync nobody knows what the disk holds, and trying again may report
/// success for data that is lost (Rebello et al., "Can Applications Recover from fsync
/// Failures?", ATC 2020). What the disk really holds is found at the next start. So it is where a
/// server did not say what became of a commit: until then no answer can rest on it.
pub fn fail_stop(error: &StorageError) -> ! {
    if let StorageError::DiskFailed(_) = error {
        tracing::error!(%error, "aborting");
        daemon::abort()
    }
    tracing::error!(%error, "ending this process: its next start finds what is committed");
    daemon::fail()
}
