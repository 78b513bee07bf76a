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

/// Where a database's file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    dir: PathBuf,
    /// The file system, where it is not the machine's: the name of a VFS that SQLite knows.
    vfs: Option<&'static str>,
}

impl Location {
    /// A directory on the machine's disks.
    pub fn on_disk(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            vfs: None,
        }
    }

    fn path(&self, kind: Kind) -> PathBuf {
        self.dir.join(kind.file)
    }

    fn connect(&self, kind: Kind, flags: OpenFlags) -> Result<Connection, StorageError> {
        let path = self.path(kind);
        let connection = match self.vfs {
            None => Connection::open_with_flags(path, flags)?,
            Some(vfs) => Connection::open_with_flags_and_vfs(path, flags, vfs)?,
        };
        connection.busy_timeout(BUSY_TIMEOUT)?;
        Ok(connection)
    }
}

/// A data directory that this process, and no other, writes to. Dropping it lets go.
#[derive(Debug)]
pub struct DataDir {
    location: Location,
    _lock: Option<File>,
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
                location: Location::on_disk(path),
                _lock: Some(lock),
            }),
            Err(TryLockError::WouldBlock) => Err(StorageError::InUse {
                path: path.to_owned(),
            }),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    /// A directory on a disk of a simulator's, which has no other process. `vfs` is the name
    /// that SQLite knows the disk by.
    pub fn simulated(path: &Path, vfs: &'static str) -> Self {
        Self {
            location: Location {
                dir: path.to_owned(),
                vfs: Some(vfs),
            },
            _lock: None,
        }
    }

    /// Where it is, for who only reads.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// Opens the directory's database for writing, with a write-ahead log that is synced at
    /// every commit.
    pub fn open(&self, kind: Kind) -> Result<Connection, StorageError> {
        let connection = self.location.connect(kind, OpenFlags::default())?;
        check_kind(&connection, &self.location.path(kind), kind)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "application_id", kind.application_id)?;
        connection.execute_batch(kind.schema)?;
        Ok(connection)
    }
}

/// Opens a database for reading, whether or not a process is writing to it.
pub fn open_read_only(location: &Location, kind: Kind) -> Result<Connection, StorageError> {
    let path = location.path(kind);
    if location.vfs.is_none() && !path.is_file() {
        return Err(StorageError::Foreign {
            path,
            expected: kind.name,
        });
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = location.connect(kind, flags)?;
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
