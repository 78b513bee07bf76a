//! The compilers that can build for the target, and the one that is here.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{BuildError, RustVersion, TARGET};

/// Debian's compiler, from the packages `rustc-web` and `cargo-web`.
const DEBIAN_CARGO: &str = "/usr/bin/cargo";
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
/// The sources of the standard library, from the package `rust-web-src`.
const DEBIAN_STD: &str = "/usr/lib/rustlib/src/rust/library/std/Cargo.toml";
/// The C library, from the package `wasi-libc`.
const DEBIAN_LIBC_DIR: &str = "/usr/lib/wasm32-wasi";
/// What links a component: the first calls the second.
const LINKERS: [&str; 2] = ["wasm-component-ld", "wasm-ld"];

/// Variables of an outer cargo that are the user's settings rather than facts of that build.
const CARGO_SETTINGS: [&str; 6] = [
    "CARGO_HOME",
    "CARGO_HTTP_",
    "CARGO_NET_",
    "CARGO_REGISTR",
    "CARGO_SOURCE_",
    "CARGO_TERM_",
];
/// The other variables that an outer cargo sets, or that bend what a compiler makes.
const FOREIGN: [&str; 12] = [
    "CARGO",
    "DEP_",
    "RUSTC",
    "RUSTDOC",
    "RUSTFLAGS",
    "RUST_RECURSION_COUNT",
    "OUT_DIR",
    "LD_LIBRARY_PATH",
    "DYLD_FALLBACK_LIBRARY_PATH",
    "MAKEFLAGS",
    "MFLAGS",
    "NUM_JOBS",
];

/// A way to compile for the target.
#[derive(Debug)]
pub(crate) enum Toolchain {
    /// The usual compiler, which has the target's standard library.
    Installed,
    /// Debian's compiler, which builds the standard library from source.
    Debian {
        /// The directories of the linkers, to put on the PATH.
        linkers: Vec<PathBuf>,
    },
}

impl Toolchain {
    /// Finds a way to compile the crate in `dir`.
    pub(crate) fn detect(dir: &Path) -> Result<Self, BuildError> {
        if target_libdir(dir, &["--target", TARGET]).is_some_and(|libdir| libdir.is_dir()) {
            return Ok(Self::Installed);
        }
        let parts = [DEBIAN_CARGO, DEBIAN_RUSTC, DEBIAN_STD, DEBIAN_LIBC_DIR];
        if parts.iter().all(|part| Path::new(part).exists()) {
            check_version(Path::new(DEBIAN_RUSTC))?;
            return Ok(Self::Debian {
                linkers: find_linkers(dir)?,
            });
        }
        Err(BuildError::NoTarget)
    }

    /// A cargo that builds for the target.
    pub(crate) fn cargo_build(&self, dir: &Path) -> Result<Command, BuildError> {
        let mut cargo = match self {
            Self::Installed => clean("cargo", dir),
            Self::Debian { linkers } => {
                let mut cargo = clean(DEBIAN_CARGO, dir);
                cargo
                    .env("PATH", path_with(linkers))
                    .env("RUSTC", DEBIAN_RUSTC);
                // Lets a stable compiler build the standard library.
                cargo.env("RUSTC_BOOTSTRAP", "1");
                cargo.env(
                    "RUSTFLAGS",
                    format!("-L native={DEBIAN_LIBC_DIR} -C link-self-contained=no"),
                );
                cargo
            }
        };
        cargo.args(["build", "--target", TARGET]);
        if matches!(self, Self::Debian { .. }) {
            cargo.arg("-Zbuild-std=std,panic_abort");
        }
        Ok(cargo)
    }
}

/// A command in `dir` that sees nothing of an outer cargo. The rustup toolchain stays chosen.
pub(crate) fn clean(program: &str, dir: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(dir);
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let setting = CARGO_SETTINGS.iter().any(|prefix| text.starts_with(prefix));
        if !setting && FOREIGN.iter().any(|prefix| text.starts_with(prefix)) {
            command.env_remove(&name);
        }
    }
    command
}

/// That the compiler is new enough for policies: it would say so itself, but minutes later.
fn check_version(rustc: &Path) -> Result<(), BuildError> {
    let output = Command::new(rustc).arg("--version").output();
    let output = output.map_err(|source| BuildError::Run {
        program: rustc.to_owned(),
        source,
    })?;
    let needed = RustVersion::oldest_for_policies();
    match RustVersion::of_compiler(&String::from_utf8_lossy(&output.stdout)) {
        Some(found) if found >= needed => Ok(()),
        found => Err(BuildError::TooOld {
            rustc: rustc.to_owned(),
            found,
            needed,
        }),
    }
}

/// Where the usual compiler has, or would have, a standard library. `None` without a compiler.
fn target_libdir(dir: &Path, target: &[&str]) -> Option<PathBuf> {
    let output = clean("rustc", dir)
        .args(["--print", "target-libdir"])
        .args(target)
        .output()
        .ok()?;
    let path = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| PathBuf::from(path.trim()))
}

/// The directories that have the linkers: those of a rustup toolchain, which ships both, before
/// those on the PATH.
fn find_linkers(dir: &Path) -> Result<Vec<PathBuf>, BuildError> {
    let mut places = Vec::new();
    if let Some(bin) = target_libdir(dir, &[]).and_then(|libdir| Some(libdir.parent()?.join("bin")))
    {
        places.extend([bin.join("gcc-ld"), bin]);
    }
    places.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    let find = |linker: &'static str| {
        let place = places.iter().find(|place| place.join(linker).is_file());
        place.cloned().ok_or(BuildError::NoLinker(linker))
    };
    LINKERS.into_iter().map(find).collect()
}

fn path_with(first: &[PathBuf]) -> OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let places = first.iter().cloned().chain(env::split_paths(&path));
    env::join_paths(places).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn check_printed(printed: &str) -> Result<(), String> {
        let dir = tempfile::tempdir().expect("there is a temporary directory");
        let rustc = dir.path().join("rustc");
        fs::write(&rustc, format!("#!/bin/sh\necho '{printed}'\n")).expect("a script is written");
        fs::set_permissions(&rustc, fs::Permissions::from_mode(0o755)).expect("it is ours");
        check_version(&rustc).map_err(|error| error.to_string())
    }

    #[test]
    fn a_compiler_too_old_for_policies_is_refused_by_its_version() {
        let needed = RustVersion::oldest_for_policies();
        assert_eq!(check_printed(&format!("rustc {needed} (built)")), Ok(()));
        assert_eq!(check_printed("rustc 2.0.0"), Ok(()));
        for (printed, found) in [
            ("rustc 1.84.1 (e71f9a9a9 2025-01-27)", "1.84.1"),
            ("", "no version"),
        ] {
            let refused = check_printed(printed).expect_err(printed);
            for part in ["/rustc", found, &needed.to_string(), "make wasm-target"] {
                assert!(refused.contains(part), "{part}: {refused}");
            }
        }
    }
}
