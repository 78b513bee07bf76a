//! A data directory has one owner at a time: the catalog, a replica or a gateway that writes to it.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::directory;
use crate::ownership::remedy;

/// The file that is locked; what it holds does not matter.
const LOCK_FILE: &str = "lock";

/// Why a data directory was not taken.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be made, or the lock in it cannot be opened.
    #[error("cannot use {}: {source}{}", path.display(), remedy(path, source))]
    Unusable {
        /// The data directory, as it was given, or the lock in it.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another process has it.
    #[error("the data directory {} is in use by another process; stop it, or name another --data-dir", path.display())]
    InUse {
        /// The data directory, as it was given.
        path: PathBuf,
    },
}

/// The right to write to a data directory, which no other process has, but for one that it is [shared](Lock::share) with.
/// Dropping it, and the end of the process, give it back.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl Lock {
    /// Takes a directory, making it this user's alone where it is missing.
    ///
    /// # Errors
    /// Where another process has it, or it cannot be used.
    pub fn take(path: &Path) -> Result<Self, Error> {
        let unusable = |source| Error::Unusable {
            path: path.to_owned(),
            source,
        };
        directory::make_private(path).map_err(unusable)?;
        let lock = path.join(LOCK_FILE);
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock)
            .map_err(|source| Error::Unusable { path: lock, source })?;
        match file.try_lock() {
            Ok(()) => Ok(Self { file }),
            Err(TryLockError::WouldBlock) => Err(Error::InUse {
                path: path.to_owned(),
            }),
            Err(TryLockError::Error(source)) => Err(unusable(source)),
        }
    }

    /// The same lock, for another process: the directory is free once neither has it. Which of them writes is for
    /// the two to agree on.
    ///
    /// # Errors
    /// Where there are no file descriptors left.
    pub fn share(&self) -> io::Result<OwnedFd> {
        self.file.try_clone().map(OwnedFd::from)
    }

    /// What another process [shared](Self::share).
    ///
    /// # Errors
    /// Where it is not the lock of this directory.
    pub fn shared(path: &Path, lock: OwnedFd) -> Result<Self, Error> {
        let unusable = |source| Error::Unusable {
            path: path.to_owned(),
            source,
        };
        let file = File::from(lock);
        let own = fs::metadata(path.join(LOCK_FILE)).map_err(unusable)?;
        let shared = file.metadata().map_err(unusable)?;
        if (own.dev(), own.ino()) != (shared.dev(), shared.ino()) {
            return Err(unusable(io::Error::other("the lock is another one's")));
        }
        Ok(Self { file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_directory_has_one_owner() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new");
        let first = Lock::take(&path).unwrap();
        assert!(matches!(Lock::take(&path), Err(Error::InUse { .. })));
        drop(first);
        Lock::take(&path).unwrap();
    }

    #[test]
    fn a_lock_that_is_shared_is_held_until_neither_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let [path, other] = ["one", "other"].map(|name| dir.path().join(name));
        let first = Lock::take(&path).unwrap();
        let _other = Lock::take(&other).unwrap();
        assert!(Lock::shared(&other, first.share().unwrap()).is_err());
        let second = Lock::shared(&path, first.share().unwrap()).unwrap();
        drop(first);
        assert!(matches!(Lock::take(&path), Err(Error::InUse { .. })));
        drop(second);
        Lock::take(&path).unwrap();
    }
}
