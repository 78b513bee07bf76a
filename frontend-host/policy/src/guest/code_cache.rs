//! Compiled code, kept for the next start: a restart and a rollback take milliseconds.
//!
//! Machine code that is loaded is trusted without a check: anyone who can write it runs as the
//! gateway. So code is loaded only from a directory and a file that belong to the gateway's own
//! user and that nobody else may write to, and only where its hash says that it is whole.
//! wasmtime itself refuses code that another version of it, or other settings, have made; the
//! file's name says so beforehand.

use std::collections::hash_map::DefaultHasher;
use std::fs::{self, DirBuilder, File, Metadata};
use std::hash::{Hash as _, Hasher as _};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use daemon::atomic_file;
use sha2::{Digest as _, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::guest::digest::Digest;
use crate::limits;

/// Compiled components in the cache; of more, the oldest are removed.
const ENTRIES_MAX: usize = 16;

/// Largest file that is read, in bytes: code is some times larger than its component.
const BYTES_MAX: u64 = limits::COMPILED_BYTES_MAX;

/// What is compiled of a component; a new one leaves what was kept before alone. 1 was the component
/// with a module added.
const FORM: u8 = 2;

/// Length of the hash that a file begins with.
const HASH_BYTES: usize = 32;

/// Those that others than the owner may write to.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// A directory of compiled components.
#[derive(Debug)]
pub struct CodeCache {
    dir: PathBuf,
}

impl CodeCache {
    /// Uses a directory, making it where it is missing.
    ///
    /// # Errors
    /// Where it cannot be made, or belongs to somebody else, or others may write to it.
    pub fn open(dir: PathBuf) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        if is_ours_alone(&fs::metadata(&dir)?) {
            Ok(Self { dir })
        } else {
            Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!(
                    "{} is another user's, or others may write to it",
                    dir.display()
                ),
            ))
        }
    }

    /// The compiled component, if it is there and can be trusted.
    pub(crate) fn load(&self, engine: &Engine, of: Digest) -> Option<Component> {
        let path = self.path(engine, of);
        let code = match read(&path) {
            Ok(code) => code,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "compiled policy not loaded: compiling again");
                return None;
            }
        };
        match deserialize(engine, &code) {
            Ok(component) => Some(component),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "compiled policy not loaded: compiling again");
                None
            }
        }
    }

    /// Stores a compiled component. What cannot be stored is compiled again next time.
    pub(crate) fn store(&self, engine: &Engine, of: Digest, component: &Component) {
        let path = self.path(engine, of);
        let written = component
            .serialize()
            .map_err(io::Error::other)
            .and_then(|code| write(&path, &code));
        if let Err(error) = written {
            tracing::warn!(path = %path.display(), %error, "compiled policy not cached");
        }
        self.evict_oldest();
    }

    /// Named after the component, and after all that its code depends on.
    fn path(&self, engine: &Engine, of: Digest) -> PathBuf {
        let mut settings = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut settings);
        FORM.hash(&mut settings);
        self.dir
            .join(format!("{of}-{:016x}.cwasm", settings.finish()))
    }

    fn evict_oldest(&self) {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let mut entries: Vec<_> = entries
            .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
            .collect();
        entries.sort();
        let surplus = entries.len().saturating_sub(ENTRIES_MAX);
        for (_, path) in entries.into_iter().take(surplus) {
            // What cannot be removed takes room, and does no other harm.
            let _ = fs::remove_file(path);
        }
    }
}

fn is_ours_alone(metadata: &Metadata) -> bool {
    metadata.uid() == rustix::process::geteuid().as_raw()
        && metadata.mode() & WRITABLE_BY_OTHERS == 0
}

/// Reads code that was written by [`write`] and is whole.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let refused = |problem| io::Error::new(io::ErrorKind::PermissionDenied, problem);
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() || !is_ours_alone(&metadata) {
        return Err(refused("it is another user's, or others may write to it"));
    }
    let mut contents = Vec::new();
    file.take(BYTES_MAX).read_to_end(&mut contents)?;
    match contents.split_at_checked(HASH_BYTES) {
        Some((hash, code)) if Sha256::digest(code).as_slice() == hash => Ok(code.to_vec()),
        _ => Err(refused("it is damaged")),
    }
}

/// Writes code behind its hash: whole or not at all.
fn write(path: &Path, code: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let _ = fs::remove_file(&new); // left over from a write that was cut short
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(&Sha256::digest(code))?;
    file.write_all(code)?;
    file.sync_all()?;
    atomic_file::replace(&new, path)
}

/// Loads what a child of this process has just compiled and written to its pipe.
pub(super) fn of_own_child(engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
    deserialize(engine, code)
}

#[allow(
    unsafe_code,
    reason = "loading machine code cannot be checked by the compiler"
)]
fn deserialize(engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: the bytes must come from `Component::serialize`, or from `Engine::precompile_component`.
    // Either the same program has just made them with the latter, as a child whose output nobody else
    // can write to. Or they were read from a file in a
    // directory that only this user can write to, which is this user's own, and whose hash is that
    // of what `write` got from `Component::serialize`. wasmtime checks version and settings.
    unsafe { Component::deserialize(engine, code) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn written(dir: &Path) -> PathBuf {
        let path = dir.join("code.cwasm");
        write(&path, b"machine code").unwrap();
        path
    }

    #[test]
    fn code_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(&written(dir.path())).unwrap(), b"machine code");
    }

    #[test]
    fn damaged_code_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = written(dir.path());
        let whole = fs::read(&path).unwrap();
        for damaged in [&whole[..whole.len() - 1], &whole[..10], b""] {
            fs::write(&path, damaged).unwrap();
            assert!(read(&path).is_err());
        }
        let mut changed = whole;
        *changed.last_mut().unwrap() ^= 1;
        fs::write(&path, changed).unwrap();
        assert!(read(&path).is_err());
    }

    #[test]
    fn code_that_others_may_write_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = written(dir.path());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        assert_eq!(
            read(&path).unwrap_err().kind(),
            io::ErrorKind::PermissionDenied
        );
    }

    #[test]
    fn a_directory_that_others_may_write_to_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("compiled");
        CodeCache::open(dir.clone()).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(CodeCache::open(dir).is_err());
    }

    #[test]
    fn no_more_than_a_few_entries_stay() {
        let dir = tempfile::tempdir().unwrap();
        let cache = CodeCache::open(dir.path().join("compiled")).unwrap();
        for number in 0..ENTRIES_MAX + 5 {
            write(&cache.dir.join(format!("{number}.cwasm")), b"code").unwrap();
        }
        cache.evict_oldest();
        assert_eq!(fs::read_dir(&cache.dir).unwrap().count(), ENTRIES_MAX);
    }
}
