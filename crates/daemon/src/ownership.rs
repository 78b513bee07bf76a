//! Whose files are. What root makes in the directory of a service's user, as a backup that is restored there, is to be that
//! user's: the service could not read it.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Uid, chownat, fstat, openat};
use rustix::io::Errno;
use rustix::process::geteuid;

use crate::directory;

/// To read a directory.
const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

/// Whose is to be what is made at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ownership {
    user: u32,
    group: u32,
    /// The first directory of the path that was missing.
    missing: Option<PathBuf>,
}

impl Ownership {
    /// Of what is about to be made there: its directory's, or where that is missing, that of the nearest one above it.
    ///
    /// # Errors
    /// Where that cannot be looked at.
    pub fn of(path: &Path) -> io::Result<Self> {
        let (mut there, mut missing) = (path, None);
        loop {
            match fs::metadata(there) {
                Err(error)
                    if error.kind() == ErrorKind::NotFound && there != directory::of(there) =>
                {
                    missing = Some(there.to_owned());
                    there = directory::of(there);
                }
                found => {
                    let found = found?;
                    return Ok(Self {
                        user: found.uid(),
                        group: found.gid(),
                        missing,
                    });
                }
            }
        }
    }

    /// Gives what this process has made at a path, and the directories above it that were missing, to that user, where this
    /// process is root's. Links stay as they are, and files with another name: those it has not made.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn give(&self, path: &Path) -> io::Result<()> {
        match geteuid().is_root() && self.user != 0 {
            true => self.give_tree(self.missing.as_deref().unwrap_or(path)),
            false => Ok(()),
        }
    }

    fn give_tree(&self, path: &Path) -> io::Result<()> {
        // The directory itself may be behind a link that root has made. What is in it is the user's to change meanwhile: so what
        // is looked at is held, and goes by no path.
        let Some(name) = path.file_name() else {
            return Ok(());
        };
        let above = match openat(CWD, directory::of(path), DIRECTORY, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(()),
            above => above?,
        };
        self.give_entry(&above, name)
    }

    fn give_entry(&self, dir: &OwnedFd, name: &OsStr) -> io::Result<()> {
        let held = match openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(()),
            held => held?,
        };
        let found = fstat(&held)?;
        let kind = FileType::from_raw_mode(found.st_mode);
        if kind.is_dir() {
            let inside = openat(&held, ".", DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
            for entry in Dir::read_from(&inside)? {
                let entry = entry?;
                let name = OsStr::from_bytes(entry.file_name().to_bytes());
                if name != "." && name != ".." {
                    self.give_entry(&inside, name)?;
                }
            }
        }
        let is_own = found.st_uid == 0 && (kind.is_dir() || kind.is_file() && found.st_nlink == 1);
        if is_own {
            let (user, group) = (Uid::from_raw(self.user), Gid::from_raw(self.group));
            chownat(&held, "", Some(user), Some(group), AtFlags::EMPTY_PATH)?;
        }
        Ok(())
    }

    /// What there is to do about what root has made, and has given to nobody, in words.
    pub fn advice(&self, path: &Path) -> Option<String> {
        (geteuid().is_root() && self.user == 0).then(|| {
            format!(
                "It is root's: where another user runs the service by hand, `chown -R USER {}` first",
                path.display()
            )
        })
    }
}

/// What to do where this process may not use a file, to follow on the system's words; nothing where something else is wrong.
pub fn remedy(path: &Path, error: &io::Error) -> String {
    if error.kind() != ErrorKind::PermissionDenied {
        return String::new();
    }
    let own = geteuid().as_raw();
    let mut above = path.ancestors();
    let found = above.find_map(|path| Some((path, fs::symlink_metadata(path).ok()?)));
    match found {
        Some((path, found)) if found.uid() != own => {
            let dir = match found.is_dir() {
                true => path,
                false => directory::of(path),
            };
            format!(
                ": it is user {}'s, and this process runs as user {own}. Run it as that one, or `chown -R {own} {}`",
                found.uid(),
                dir.display()
            )
        }
        _ => format!(": see to the rights of user {own}, as whom this process runs"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::lchown;

    use super::*;

    /// Nobody in particular.
    const USER: u32 = 20_001;

    fn user_of(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().uid()
    }

    #[test]
    fn what_is_made_is_as_whose_the_directory_above_is_that_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let own = user_of(dir.path());
        let missing = dir.path().join("a/b");
        let ownership = Ownership::of(&missing).unwrap();
        assert_eq!(
            (ownership.user, ownership.missing),
            (own, Some(dir.path().join("a")))
        );
        assert_eq!(Ownership::of(dir.path()).unwrap().missing, None);
    }

    /// Another user can do nothing of this, and root's tests are enough.
    #[test]
    fn root_gives_what_it_has_made_to_the_user_whose_directory_it_is_and_nothing_else() {
        if !geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (home, elsewhere) = (dir.path().join("home"), dir.path().join("elsewhere"));
        fs::create_dir(&home).unwrap();
        fs::write(&elsewhere, "root's").unwrap();
        lchown(&home, Some(USER), Some(USER)).unwrap();
        let new = home.join("data/catalog");
        let ownership = Ownership::of(&new).unwrap();
        directory::make_private(&new).unwrap();
        let made = new.join("catalog.db");
        File::create(&made).unwrap();
        fs::hard_link(&elsewhere, new.join("planted")).unwrap();
        std::os::unix::fs::symlink(&elsewhere, new.join("link")).unwrap();
        ownership.give(&new).unwrap();
        for path in [&home.join("data"), &new, &made] {
            assert_eq!(user_of(path), USER, "{}", path.display());
        }
        assert_eq!((user_of(&elsewhere), user_of(&new.join("link"))), (0, 0));
        assert_eq!(ownership.advice(&new), None);
        // What root's directory has stays root's, and root is told.
        let ownership = Ownership::of(&dir.path().join("other")).unwrap();
        assert!(
            ownership
                .advice(dir.path())
                .unwrap()
                .contains("chown -R USER")
        );
    }

    #[test]
    fn who_may_not_use_a_file_is_told_what_to_type() {
        let denied = io::Error::from(ErrorKind::PermissionDenied);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalog.db");
        fs::write(&path, "").unwrap();
        assert!(remedy(&path, &denied).contains("see to the rights of user"));
        assert_eq!(remedy(&path, &io::Error::from(ErrorKind::NotFound)), "");
        if geteuid().is_root() {
            lchown(&path, Some(USER), None).unwrap();
            let told = remedy(&path, &denied);
            let typed = format!("`chown -R 0 {}`", dir.path().display());
            assert!(
                told.contains("it is user 20001's") && told.contains(&typed),
                "{told}"
            );
        }
    }
}
