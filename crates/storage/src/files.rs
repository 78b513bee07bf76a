//! Whether a database's files are still those that were opened.
//!
//! SQLite goes on with a file that somebody removed, moved or replaced: all that is committed to it
//! from then on is gone with the process.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::StorageError;

/// The files of a database that is open, and which they were when it was opened.
#[derive(Debug, Clone)]
pub struct OpenFiles(Vec<OpenFile>);

#[derive(Debug, Clone)]
struct OpenFile {
    path: PathBuf,
    id: FileId,
}

/// Device and inode.
type FileId = (u64, u64);

impl OpenFiles {
    /// Of paths whose files were opened a moment ago; a path that has none is passed over.
    pub(crate) fn of(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        let open = |path: PathBuf| {
            let id = id(&path)?;
            Some(OpenFile { path, id })
        };
        Self(paths.into_iter().filter_map(open).collect())
    }

    /// Looks whether the paths still lead there. The files themselves are left alone: closing one
    /// of them would let go of the locks that SQLite has on it.
    ///
    /// # Errors
    /// [`StorageError::Damaged`] names one that does not.
    pub fn check(&self) -> Result<(), StorageError> {
        let changed = self.0.iter().find(|file| id(&file.path) != Some(file.id));
        match changed {
            Some(file) => Err(StorageError::Damaged(format!(
                "{} was removed, moved or replaced while it was in use",
                file.path.display()
            ))),
            None => Ok(()),
        }
    }
}

fn id(path: &Path) -> Option<FileId> {
    let found = fs::metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}
