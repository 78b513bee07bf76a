//! A data directory with one owner, opened so that a commit is durable.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use crate::error::StorageError;

/// What kind of database a file is, so that a wrong directory is noticed before it is used.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// For messages: "catalog".
    pub name: &'static str,
    /// File name in the data directory.
    pub file: &'static str,
    /// SQLite's application id.
    pub application_id: i32,
    /// Statements that make the tables where they are missing.
    pub schema: &'static str,
}

/// Longest wait for a lock that another connection holds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// A data directory that this process, and no other, writes to. Dropping it lets go.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Takes the directory, making it where it is missing.
    pub fn take(path: &Path) -> Result<Self, StorageError> {
        let failed = |source| StorageError::Directory {
            path: path.to_owned(),
            source,
        };
        fs::create_dir_all(path).map_err(failed)?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join("lock"))
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                path: path.to_owned(),
                _lock: lock,
            }),
            Err(TryLockError::WouldBlock) => Err(StorageError::InUse {
                path: path.to_owned(),
            }),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    /// Opens the directory's database for writing, with a write-ahead log that is synced at
    /// every commit.
    pub fn open(&self, kind: Kind) -> Result<Connection, StorageError> {
        let path = self.path.join(kind.file);
        let connection = Connection::open(&path)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        check_kind(&connection, &path, kind)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "application_id", kind.application_id)?;
        connection.execute_batch(kind.schema)?;
        Ok(connection)
    }
}

/// Opens a database for reading, whether or not a process is writing to it.
pub fn open_read_only(data_dir: &Path, kind: Kind) -> Result<Connection, StorageError> {
    let path = data_dir.join(kind.file);
    if !path.is_file() {
        return Err(StorageError::Foreign {
            path,
            expected: kind.name,
        });
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(&path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    check_kind(&connection, &path, kind)?;
    Ok(connection)
}

/// Refuses a file that already holds tables of something else.
fn check_kind(connection: &Connection, path: &Path, kind: Kind) -> Result<(), StorageError> {
    let foreign = || StorageError::Foreign {
        path: path.to_owned(),
        expected: kind.name,
    };
    let id: i32 = connection
        .pragma_query_value(None, "application_id", |row| row.get(0))
        .map_err(|_| foreign())?;
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if id == kind.application_id || tables == 0 {
        Ok(())
    } else {
        Err(foreign())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: Kind = Kind {
        name: "test",
        file: "test.db",
        application_id: 7,
        schema: "CREATE TABLE IF NOT EXISTS t (x INTEGER) STRICT",
    };

    #[test]
    fn a_data_directory_has_one_owner() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDir::take(dir.path()).unwrap();
        assert!(matches!(
            DataDir::take(dir.path()),
            Err(StorageError::InUse { .. })
        ));
        drop(first);
        DataDir::take(dir.path()).unwrap();
    }

    #[test]
    fn another_kind_of_database_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = DataDir::take(dir.path()).unwrap();
        drop(data_dir.open(KIND).unwrap());
        drop(data_dir.open(KIND).unwrap());
        let other = Kind {
            name: "other",
            application_id: 8,
            ..KIND
        };
        assert!(matches!(
            data_dir.open(other),
            Err(StorageError::Foreign { .. })
        ));
        fs::write(dir.path().join("test.db"), [b'x'; 4096]).unwrap();
        assert!(matches!(
            data_dir.open(KIND),
            Err(StorageError::Foreign { .. })
        ));
    }
}
