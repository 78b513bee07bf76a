//! The source of a policy, and how it becomes a component: by cargo where it is a crate, by its own
//! script where it is in another language.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use policy_build::{BuildError, Builder};

/// An executable of this name in a directory without a `Cargo.toml` builds the policy and prints
/// where the component is.
const SCRIPT: &str = "build";

/// A directory with a policy.
#[derive(Debug, Clone)]
pub struct Source {
    pub dir: PathBuf,
    /// This example of the crate instead of its library.
    pub example: Option<String>,
    /// Where cargo keeps what it built.
    pub target_dir: Option<PathBuf>,
}

/// Why there is no component.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Cargo did not make it.
    #[error(transparent)]
    Cargo(#[from] BuildError),
    /// The script cannot be run.
    #[error("cannot run {}: {source}", path.display())]
    Run {
        path: PathBuf,
        source: std::io::Error,
    },
    /// The script failed; it has said why.
    #[error("{} failed: {status}", path.display())]
    Script { path: PathBuf, status: ExitStatus },
    /// The script does not say where the component is.
    #[error("{} printed no path of a component", path.display())]
    NoPath { path: PathBuf },
}

impl Source {
    /// Builds the component and says where it is. What compilers have to say goes to stderr as they
    /// say it.
    pub fn build(&self) -> Result<PathBuf, SourceError> {
        let script = self.dir.join(SCRIPT);
        if is_executable(&script) && !self.dir.join("Cargo.toml").exists() {
            return run_script(&script);
        }
        let mut builder = Builder::new(&self.dir).show_progress();
        if let Some(target_dir) = &self.target_dir {
            builder = builder.target_dir(target_dir);
        }
        if let Some(example) = &self.example {
            builder = builder.example(example);
        }
        Ok(builder.build()?)
    }

    /// Whether a file in the directory may belong to the source, by its path from there: what tools
    /// make and what is hidden does not.
    pub fn may_include(path: &Path) -> bool {
        let is_made = |name: &OsStr| {
            let name = name.to_string_lossy();
            name.starts_with('.') || MADE.contains(&name.as_ref()) || name.ends_with(".wasm")
        };
        !path.iter().any(is_made)
    }
}

/// What builds leave behind, and nobody edits.
const MADE: [&str; 4] = ["target", "node_modules", "__pycache__", "Cargo.lock"];

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0)
}

fn run_script(script: &Path) -> Result<PathBuf, SourceError> {
    let path = || script.to_owned();
    let absolute = script.canonicalize();
    let output = absolute.and_then(|script| {
        let mut command = Command::new(script);
        command
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
    });
    let output = output.map_err(|source| SourceError::Run {
        path: path(),
        source,
    })?;
    if !output.status.success() {
        return Err(SourceError::Script {
            path: path(),
            status: output.status,
        });
    }
    let printed = String::from_utf8_lossy(&output.stdout);
    match printed.lines().last() {
        Some(component) => Ok(component.trim().into()),
        None => Err(SourceError::NoPath { path: path() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tools_make_is_no_source() {
        for (path, expected) in [
            ("src/lib.rs", true),
            ("policy.js", true),
            ("Cargo.toml", true),
            ("Cargo.lock", false),
            ("target/guest/x.d", false),
            (".git/index", false),
            ("src/.lib.rs.swp", false),
            ("__pycache__/policy.pyc", false),
            ("policy.wasm", false),
        ] {
            assert_eq!(Source::may_include(Path::new(path)), expected, "{path}");
        }
    }

    #[test]
    fn a_script_says_where_the_component_is() {
        let dir = tempfile::tempdir().unwrap();
        let source = Source {
            dir: dir.path().to_owned(),
            example: None,
            target_dir: None,
        };
        let script = dir.path().join(SCRIPT);
        let write = |text: &str| {
            fs::write(&script, text).unwrap();
            fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
            source.build()
        };
        let built = write("#!/bin/sh\necho building\necho /tmp/policy.wasm\n");
        assert_eq!(built.unwrap(), Path::new("/tmp/policy.wasm"));
        assert!(matches!(
            write("#!/bin/sh\n"),
            Err(SourceError::NoPath { .. })
        ));
        assert!(matches!(
            write("#!/bin/sh\nexit 3\n"),
            Err(SourceError::Script { .. })
        ));
    }
}
