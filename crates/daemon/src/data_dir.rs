//! A data directory has one owner at a time: the catalog, a replica or a gateway that writes to it.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::directory;
use crate::ownership::remedy;

/// The file that is locked. It names the process that has the directory, for people: the lock counts, and not what it
/// holds, which a process that was killed leaves behind.
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
    #[error(
        "the data directory {} is in use by another process{}; stop it and wait for its end, or name another --data-dir",
        path.display(), pid.map_or_else(String::new, |pid| format!(" (pid {pid})"))
    )]
    InUse {
        /// The data directory, as it was given.
        path: PathBuf,
        /// Which one it is, as it said.
        pid: Option<u32>,
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
            // It is written to: what a link leads to is not the directory's.
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(&lock)
            .map_err(|source| Error::Unusable { path: lock, source })?;
        match file.try_lock() {
            Ok(()) => {
                let lock = Self { file };
                lock.name_this_process();
                Ok(lock)
            }
            Err(TryLockError::WouldBlock) => Err(Error::InUse {
                path: path.to_owned(),
                pid: named_process(path),
            }),
            Err(TryLockError::Error(source)) => Err(unusable(source)),
        }
    }

    /// Whoever looks into the file finds this process from now on: to be said by the one that writes to the directory. A disk
    /// that does not take it keeps nobody from that.
    pub fn name_this_process(&self) {
        let text = format!("{}\n", std::process::id());
        // In one write, and what a longer one had before goes after it.
        let written = self.file.write_all_at(text.as_bytes(), 0);
        let _ = written.and_then(|()| self.file.set_len(text.len() as u64));
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

/// Which process has a directory, as it said.
fn named_process(path: &Path) -> Option<u32> {
    let text = fs::read_to_string(path.join(LOCK_FILE)).ok()?;
    text.lines().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_a_directory_is_named_in_its_lock_and_to_who_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let own = std::process::id();
        let text = || fs::read_to_string(dir.path().join(LOCK_FILE)).unwrap();
        // As one that was killed leaves it, with a longer number.
        fs::write(dir.path().join(LOCK_FILE), "98765432109876\n").unwrap();
        let lock = Lock::take(dir.path()).unwrap();
        assert_eq!(text(), format!("{own}\n"));
        let refused = Lock::take(dir.path()).unwrap_err().to_string();
        assert!(refused.contains(&format!("(pid {own})")), "{refused}");
        // Before the place is taken, whoever shares it is not named.
        fs::write(dir.path().join(LOCK_FILE), "7\n").unwrap();
        let shared = Lock::shared(dir.path(), lock.share().unwrap()).unwrap();
        assert_eq!(text(), "7\n");
        shared.name_this_process();
        assert_eq!(text(), format!("{own}\n"));
        // What says nothing keeps nobody from being refused.
        fs::write(dir.path().join(LOCK_FILE), "nonsense").unwrap();
        let refused = Lock::take(dir.path()).unwrap_err().to_string();
        assert!(refused.contains("by another process; stop it"), "{refused}");
    }

    /// Root may start a service where another user can put files.
    #[test]
    fn a_lock_that_leads_elsewhere_is_refused_and_nothing_is_written_there() {
        let dir = tempfile::tempdir().unwrap();
        let elsewhere = dir.path().join("elsewhere");
        fs::write(&elsewhere, "another's").unwrap();
        let data = dir.path().join("data");
        fs::create_dir(&data).unwrap();
        std::os::unix::fs::symlink(&elsewhere, data.join(LOCK_FILE)).unwrap();
        assert!(matches!(Lock::take(&data), Err(Error::Unusable { .. })));
        assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "another's");
    }

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
