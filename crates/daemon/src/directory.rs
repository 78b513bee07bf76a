//! Directories that outlive a loss of power. A file that is synced is found again only where the
//! directory that names it is synced, too, and the one that names that.

use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

/// What others may do in a directory that is made: as the user's mask says, and nothing.
const OPEN: u32 = 0o777;
const PRIVATE: u32 = 0o700;

/// Makes a directory and those above it that are missing, and syncs each that got an entry.
///
/// # Errors
/// Where the disk refuses, or something else is there.
pub fn make(path: &Path) -> io::Result<()> {
    make_with(path, OPEN, &mut sync)
}

/// The same, of which all that are made are this user's alone, and so is what will be in them. One that is there stays
/// as it is.
///
/// # Errors
/// Where the disk refuses, or something else is there.
pub fn make_private(path: &Path) -> io::Result<()> {
    make_with(path, PRIVATE, &mut sync)
}

/// Syncs a directory: the files that it names are there after a loss of power.
///
/// # Errors
/// Where the disk refuses, or there is no such directory.
pub fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Syncs a directory with all that is in it, or a file.
///
/// # Errors
/// Where the disk refuses, or there is none.
pub fn sync_tree(path: &Path) -> io::Result<()> {
    sync_tree_with(path, &mut sync)
}

/// The directory that names a file: the current one, where the path is a bare name.
pub fn of(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if dir.as_os_str().is_empty() => Path::new("."),
        Some(dir) => dir,
        None => path,
    }
}

fn make_with(
    path: &Path,
    mode: u32,
    sync: &mut impl FnMut(&Path) -> io::Result<()>,
) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let create = || DirBuilder::new().mode(mode).create(path);
    if path.parent().is_none() {
        return create();
    }
    let above = of(path);
    make_with(above, mode, sync)?;
    match create() {
        // Another process made it a moment ago, and may not have synced it yet.
        Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => {}
        made => made?,
    }
    sync(above)
}

fn sync_tree_with(path: &Path, sync: &mut impl FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            sync_tree_with(&entry?.path(), sync)?;
        }
    }
    sync(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn every_directory_that_got_an_entry_is_synced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("one/two/three");
        let mut synced = Vec::new();
        let mut make = |path: &Path| {
            make_with(path, OPEN, &mut |path| {
                synced.push(path.to_owned());
                sync(path)
            })
        };
        make(&path).unwrap();
        make(&path).unwrap();
        assert!(path.is_dir());
        let expected = ["", "one", "one/two"].map(|name| match name {
            "" => dir.path().to_owned(),
            name => dir.path().join(name),
        });
        assert_eq!(synced, expected);
    }

    #[test]
    fn what_is_made_private_is_and_what_was_there_stays_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let open = dir.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o750)).unwrap();
        make_private(&open.join("data/catalog")).unwrap();
        make_private(&open).unwrap();
        assert_eq!(mode(&open.join("data/catalog")), 0o700);
        assert_eq!(mode(&open.join("data")), 0o700);
        assert_eq!(mode(&open), 0o750);
    }

    #[test]
    fn all_that_is_in_a_directory_is_synced_and_then_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("one");
        fs::create_dir(&inner).unwrap();
        fs::write(inner.join("file"), "").unwrap();
        let mut synced = Vec::new();
        sync_tree_with(dir.path(), &mut |path| {
            synced.push(path.to_owned());
            sync(path)
        })
        .unwrap();
        assert_eq!(synced, [inner.join("file"), inner, dir.path().to_owned()]);
        sync_tree(&dir.path().join("none")).unwrap_err();
    }

    #[test]
    fn a_bare_name_is_of_the_current_directory() {
        for (path, expected) in [("file", "."), ("a/file", "a"), ("/file", "/"), ("/", "/")] {
            assert_eq!(of(Path::new(path)), Path::new(expected), "{path}");
        }
    }

    #[test]
    fn what_is_no_directory_is_not_taken_for_one() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        make(&file).unwrap_err();
        make(&file.join("below")).unwrap_err();
    }
}
