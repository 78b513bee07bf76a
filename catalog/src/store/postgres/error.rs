//! What PostgreSQL can refuse, and which of it leaves the outcome of a commit unknown.

use std::error::Error as _;
use std::iter::successors;
use std::path::PathBuf;

use storage::StorageError;
use tokio_postgres::error::{Severity, SqlState};

/// Why a database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// `--store` is not a URL of PostgreSQL's. Shows no more of it than the name of an option.
    #[error("--store: {0}")]
    Url(String),
    /// The file of `sslrootcert`.
    #[error("--store: cannot take certificates from sslrootcert={}: {problem}", path.display())]
    RootCertificates { path: PathBuf, problem: String },
    /// No connection, or none that one can work with.
    #[error("cannot use {server}: {problem}{}", remedy.map(|remedy| format!("\n{remedy}")).unwrap_or_default())]
    Connect {
        /// Without a password.
        server: String,
        problem: String,
        remedy: Option<&'static str>,
    },
    /// A setting with which acknowledged trades can be lost.
    #[error(
        "the database would lose trades that it acknowledged: {setting} is `{value}` there; {remedy}"
    )]
    NotDurable {
        setting: &'static str,
        value: String,
        remedy: &'static str,
    },
    #[error(
        "the database has no synchronous standby ({0}): trades would be lost with its machine. \
         Give it one (synchronous_standby_names), or accept that with --allow-unreplicated"
    )]
    Unreplicated(String),
    /// A role that may not see whether there is a standby.
    #[error(
        "this role may not see whether the database has a synchronous standby: \
         GRANT pg_monitor TO it"
    )]
    Unseen,
    #[error("PostgreSQL {found} is too old: {needed} is the oldest that will do")]
    Old { found: u32, needed: u32 },
    /// A later release has changed its tables.
    #[error(
        "the database is of a newer release: its tables are of version {found}, this release knows \
         {known}. Start that release, or restore a backup of before"
    )]
    Newer { found: i32, known: i32 },
    /// It has moved, in another way than by a fail-over.
    #[error(
        "the tables are a copy from another database cluster: system identifier {recorded} wrote \
         them, and this is {found}. Where the other is gone for good and nothing can be \
         newer there, accept this one by\n  UPDATE writer SET system_identifier = '{found}', timeline = NULL"
    )]
    OtherCluster { recorded: String, found: String },
    /// A server of before a fail-over, or one restored from before it.
    #[error(
        "the tables were written on timeline {recorded}, and the server is on {found}: name the server that goes on. \
         Where this one was restored on purpose and nothing can be newer elsewhere, accept it by\n  \
         UPDATE writer SET timeline = NULL"
    )]
    Timeline { recorded: i64, found: i64 },
    /// It was replaced, and takes connections all the same.
    #[error(
        "the server is on timeline {found}, and one on {seen} was seen since: it was replaced, and is to be stopped. Where it \
         goes on on purpose, as after a restore, start the catalog again"
    )]
    Replaced { seen: i64, found: i64 },
    /// A reader does not read what its writer has not written.
    #[error(
        "the server is not the one that is written to: it is of {found}, and that one is of {written}"
    )]
    NotWritten { found: String, written: String },
    /// Not every stock that a client can name could be written down.
    #[error(
        "the database's encoding is {0}, and names of stocks are in UTF-8: make another one, with \
         CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
    )]
    Encoding(String),
    /// There is none, and the command does not say to begin one.
    #[error(
        "there is no journal in {0}\n\
         To begin one, with its first stocks, start with --new. Where there was one, this is \
         not the database that it was in, or it was restored without it"
    )]
    NoJournal(String),
    /// A backup is not written over anything.
    #[error("the database has a journal: name one that has none")]
    Occupied,
    #[error("cannot prepare the tables: {0}")]
    Schema(String),
}

/// An error with all of its causes.
pub(super) fn told(error: &tokio_postgres::Error) -> String {
    if let Some(said) = error.as_db_error() {
        let hint = said.hint().map(|hint| format!(" ({hint})"));
        return format!(
            "{} (SQLSTATE {}){}",
            said.message(),
            said.code().code(),
            hint.unwrap_or_default()
        );
    }
    let causes = successors(error.source(), |&cause| cause.source());
    causes.fold(error.to_string(), |told, cause| {
        let said = tls::words_of(cause).unwrap_or_else(|| cause.to_string());
        format!("{told}: {said}")
    })
}

/// Of what changes nothing.
pub(super) fn of_read(error: tokio_postgres::Error) -> StorageError {
    let damage = [SqlState::DATA_CORRUPTED, SqlState::INDEX_CORRUPTED];
    match error.code().is_some_and(|code| damage.contains(code)) {
        true => StorageError::Damaged(told(&error)),
        false => StorageError::Server(told(&error)),
    }
}

/// Of a statement that was to change something, and is a transaction.
///
/// What the server reports as an error while it goes on serving undid the transaction. All else is
/// silence: the connection broke, or the server was told to end it, before it said what became of
/// the commit.
pub(super) fn of_commit(error: tokio_postgres::Error) -> StorageError {
    let Some(said) = error.as_db_error() else {
        return StorageError::Ambiguous(told(&error));
    };
    let is_unknown = said.code() == &SqlState::T_R_STATEMENT_COMPLETION_UNKNOWN;
    match said.parsed_severity() {
        Some(Severity::Error) if !is_unknown => undone(&error),
        _ => StorageError::Ambiguous(told(&error)),
    }
}

/// The statement of a batch divides by zero where it did not change what it was to change.
fn undone(error: &tokio_postgres::Error) -> StorageError {
    if error.code() == Some(&SqlState::DIVISION_BY_ZERO) {
        return StorageError::Damaged(
            "it holds other stocks, rows or terms than the catalog knows of".into(),
        );
    }
    StorageError::Server(told(error))
}
