//! Files that are whole or not there.
//!
//! Crates that do this (`tempfile`, `atomic-write-file`) give the new file a random name, so that each
//! crash leaves one behind. Here it has the old one's name and `.new`: the next write overwrites what a crash
//! has left. One process at a time writes a file: it is in a [data directory](crate::data_dir), or the
//! user's who names it.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use crate::directory;

/// Writes a file: it takes an old one's place once it is on the disk. Its directory is synced, too,
/// so that it is still there after a loss of power.
///
/// # Errors
/// Where the disk refuses; the old file is then as it was.
pub fn write(path: &Path, contents: &[u8]) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = Path::new(&new);
    let mut file = File::create(new)?;
    file.write_all(contents)?;
    file.sync_all()?;
    replace(new, path)
}

/// Gives a file, which is synced, the place of an old one, and syncs the directory.
///
/// # Errors
/// Where the disk refuses. Where it refuses the sync alone, the new file has the place, until a loss
/// of power at least.
pub fn replace(new: &Path, path: &Path) -> io::Result<()> {
    fs::rename(new, path)?;
    directory::sync(directory::of(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_takes_the_place_of_the_old_one_and_nothing_is_left_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        fs::write(
            dir.path().join("state.json.new"),
            "left by a crash, and longer",
        )
        .unwrap();
        for contents in ["one", "two"] {
            write(&path, contents.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), contents);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn files_that_differ_in_their_ending_do_not_meet() {
        let dir = tempfile::tempdir().unwrap();
        let other = dir.path().join("state.new");
        fs::write(&other, "another file").unwrap();
        write(&dir.path().join("state.json"), b"state").unwrap();
        assert_eq!(fs::read_to_string(&other).unwrap(), "another file");
    }

    #[test]
    fn a_file_that_cannot_take_a_place_leaves_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        fs::create_dir_all(path.join("full")).unwrap();
        write(&path, b"state").unwrap_err();
        assert!(path.join("full").is_dir());
    }
}
