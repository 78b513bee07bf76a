//! A file system of a few megabytes, which can be full.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::skip;

/// Room of the file system, in MiB: more than any test writes.
const SIZE_MIB: u32 = 24;

/// A tmpfs over a directory; unmounted when it is dropped.
#[derive(Debug)]
pub struct SmallDisk {
    dir: PathBuf,
}

impl SmallDisk {
    /// Mounts one, making the directory. Takes the rights of root.
    ///
    /// # Errors
    /// Where this user, or this container, may not.
    pub fn mount(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let options = format!("size={SIZE_MIB}m,mode=0700");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "bazaar-test"])
            .arg(dir)
            .output()?;
        if mounted.status.success() {
            Ok(Self {
                dir: dir.to_owned(),
            })
        } else {
            let said = String::from_utf8_lossy(&mounted.stderr).into_owned();
            Err(io::Error::other(said))
        }
    }

    /// Whether this user may mount one at all. If not, that is what the test skips.
    pub fn is_possible() -> bool {
        let dir = tempfile::tempdir().expect("there is a temporary directory");
        match Self::mount(dir.path()) {
            Ok(_) => true,
            Err(error) => {
                skip("no disk is filled, as none can be mounted", error);
                false
            }
        }
    }

    /// Takes all the room that is left.
    pub fn fill(&self) {
        let mut ballast = File::options()
            .create(true)
            .append(true)
            .open(self.ballast())
            .expect("a file of no bytes has room");
        let mut piece = vec![0; 64 << 10];
        while !piece.is_empty() {
            match ballast.write(&piece) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => {
                    piece.truncate(piece.len() / 2);
                }
                Err(error) => panic!("cannot fill the disk: {error}"),
            }
        }
    }

    pub fn free(&self) {
        fs::remove_file(self.ballast()).ok();
    }

    fn ballast(&self) -> PathBuf {
        self.dir.join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process that was killed may not be gone quite yet.
        let unmounted = Command::new("umount").arg("-l").arg(&self.dir).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            println!("{} stays mounted", self.dir.display());
        }
    }
}
