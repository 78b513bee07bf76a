//! Where files of databases are: on the machine's disks, or on a simulator's.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use daemon::directory;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use rustix::fs::{Access, access};
use rustix::io::Errno;

use crate::error::StorageError;
use crate::gentle;

/// Longest wait for a lock that another connection holds.
pub(crate) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of a log that are rewritten at a time.
const REWRITE_BYTES: usize = 1 << 16;

/// The directory of a database.
#[derive(Debug, Clone)]
pub struct Location {
    dir: PathBuf,
    /// The file system, where it is not the machine's.
    vfs: Option<&'static Vfs>,
    /// Whether whoever opens it makes way for others.
    is_gentle: bool,
}

/// A simulator's file system.
#[derive(Debug)]
pub struct Vfs {
    /// The name that SQLite knows it by.
    pub name: &'static str,
    /// Does there what is done on the machine's disks to a log before it is read: writes the file
    /// anew, as it is seen, and syncs it and its directory. No file is fine.
    pub rewrite: fn(&Path) -> io::Result<()>,
    /// Removes a file. No file is fine.
    pub remove: fn(&Path) -> io::Result<()>,
    /// The names of the files in a directory; none where there is none.
    pub list: fn(&Path) -> io::Result<Vec<String>>,
}

impl Location {
    /// A directory on the machine's disks.
    pub fn on_disk(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            vfs: None,
            is_gentle: false,
        }
    }

    /// The same, where each statement [makes way for others](crate::gentle).
    #[must_use]
    pub fn gently(self) -> Self {
        Self {
            is_gentle: true,
            ..self
        }
    }

    /// A directory of a simulator's.
    pub fn simulated(dir: &Path, vfs: &'static Vfs) -> Self {
        Self {
            dir: dir.to_owned(),
            vfs: Some(vfs),
            is_gentle: false,
        }
    }

    /// The directory itself.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where a file is, in the directory.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Where the write-ahead log of a database is.
    pub(crate) fn log_of(&self, file: &str) -> PathBuf {
        self.dir.join(format!("{file}-wal"))
    }

    /// Writes the write-ahead log anew, as it is seen, and syncs it. SQLite takes what it finds in
    /// it for committed, and does not ask whether it is on the disk.
    pub(crate) fn make_log_durable(&self, file: &str) -> Result<(), StorageError> {
        let path = self.log_of(file);
        let rewritten = match self.vfs {
            None => rewrite(&path),
            Some(vfs) => (vfs.rewrite)(&path),
        };
        rewritten.map_err(|source| StorageError::Directory { path, source })
    }

    /// Whether it is on the machine's disks, where there are directories.
    pub(crate) fn is_on_disk(&self) -> bool {
        self.vfs.is_none()
    }

    /// Removes a file, and then it is not there. What is removed may come back with a loss of power.
    pub(crate) fn remove(&self, path: &Path) -> Result<(), StorageError> {
        let removed = match self.vfs {
            None => fs::remove_file(path),
            Some(vfs) => (vfs.remove)(path),
        };
        match removed {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(StorageError::Directory {
                path: path.to_owned(),
                source: error,
            }),
            _ => Ok(()),
        }
    }

    /// The names of the files in a directory; none where there is none.
    pub(crate) fn list(&self, dir: &Path) -> Result<Vec<String>, StorageError> {
        let listed = match self.vfs {
            None => list(dir),
            Some(vfs) => (vfs.list)(dir),
        };
        listed.map_err(|source| StorageError::Directory {
            path: dir.to_owned(),
            source,
        })
    }

    /// How many bytes more its disk takes.
    pub(crate) fn free_bytes(&self) -> Result<u64, StorageError> {
        if !self.is_on_disk() {
            return Ok(u64::MAX);
        }
        let found = rustix::fs::statvfs(&self.dir);
        let found = found.map_err(|error| StorageError::Directory {
            path: self.dir.clone(),
            source: error.into(),
        })?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }

    /// Opens another database that is there for reading; `None` where it is not.
    pub(crate) fn open_beside(&self, path: &Path) -> Result<Option<Connection>, StorageError> {
        let is_missing = || {
            let found = fs::metadata(path);
            found.is_err_and(|error| error.kind() == ErrorKind::NotFound)
        };
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        match self.connect(path, flags) {
            // Looked at afterwards: it may be removed at any moment.
            Err(StorageError::Sqlite(error))
                if error.sqlite_error_code() == Some(ErrorCode::CannotOpen)
                    && (!self.is_on_disk() || is_missing()) =>
            {
                Ok(None)
            }
            opened => opened.map(Some),
        }
    }

    /// Opens a database in the directory.
    pub(crate) fn connect(
        &self,
        path: &Path,
        flags: OpenFlags,
    ) -> Result<Connection, StorageError> {
        let mut connection = match self.vfs {
            None => {
                check_rights(path, flags)?;
                Connection::open_with_flags(path, flags)?
            }
            Some(vfs) => Connection::open_with_flags_and_vfs(path, flags, vfs.name)?,
        };
        connection.busy_timeout(BUSY_TIMEOUT)?;
        if self.is_gentle {
            gentle::make_way(&mut connection)?;
        }
        Ok(connection)
    }
}

/// Whether this process may use a database as it wants to. SQLite does not say which file it may not open, and opens one that it
/// may not write to for reading. It is not opened for that: to close it again would take this process's locks off it.
fn check_rights(path: &Path, flags: OpenFlags) -> Result<(), StorageError> {
    let wanted = match flags.contains(OpenFlags::SQLITE_OPEN_READ_WRITE) {
        true => Access::READ_OK | Access::WRITE_OK,
        false => Access::READ_OK,
    };
    match access(path, wanted) {
        Err(Errno::ACCESS) => Err(StorageError::Directory {
            path: path.to_owned(),
            source: Errno::ACCESS.into(),
        }),
        _ => Ok(()),
    }
}

fn list(dir: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let name = |entry: io::Result<fs::DirEntry>| {
        entry.map(|entry| entry.file_name().to_string_lossy().into_owned())
    };
    entries.map(name).collect()
}

/// Writes a file anew, as it is seen, and syncs it and its directory. Syncing it alone would not
/// do: after a sync that failed, what it should have written counts as clean (Rebello et al., "Can
/// Applications Recover from fsync Failures?", ATC 2020). No file is fine.
fn rewrite(path: &Path) -> io::Result<()> {
    let file = match File::options().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut chunk = vec![0; REWRITE_BYTES];
    let mut offset = 0;
    loop {
        let read = file.read_at(&mut chunk, offset)?;
        if read == 0 {
            break;
        }
        file.write_all_at(&chunk[..read], offset)?;
        offset += read as u64;
    }
    file.sync_all()?;
    directory::sync(directory::of(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_written_anew_is_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        rewrite(&path).unwrap();
        assert!(!path.exists());
        for bytes in [0, 1, REWRITE_BYTES, 3 * REWRITE_BYTES + 7] {
            let written: Vec<u8> = (0..bytes).map(|place| (place % 251) as u8).collect();
            fs::write(&path, &written).unwrap();
            rewrite(&path).unwrap();
            assert!(fs::read(&path).unwrap() == written, "{bytes} bytes");
        }
    }
}
