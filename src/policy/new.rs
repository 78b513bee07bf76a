//! `bazaar policy new`: a crate with a policy of its own, which builds at once.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use policy_build::RustVersion;

/// The crate that policies build on, in the checkout that this command was built from.
const FRONTEND_GUEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/frontend-guest");

/// Known to build: the versions that this project itself uses.
const LOCK_FILE: &str = include_str!("../../Cargo.lock");

const MANIFEST: &str = include_str!("template/manifest.toml");
const SOURCE: &str = include_str!("template/policy.rs");

/// Why a policy's crate was not made.
#[derive(Debug, thiserror::Error)]
pub enum NewError {
    /// Something is there already.
    #[error("{} is there already; name a directory that is not", .0.display())]
    Exists(PathBuf),
    /// The directory's name cannot be a crate's.
    #[error("`{0}` cannot name a policy: use letters, digits, - and _, beginning with a letter")]
    Name(String),
    /// The checkout is gone.
    #[error(
        "{FRONTEND_GUEST} is not there any more; run this from the checkout that it was built in"
    )]
    NoCheckout,
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// What was to be written.
        path: PathBuf,
        /// Why it was not.
        source: io::Error,
    },
}

/// Makes the crate; returns what to do next.
pub fn create(dir: &Path) -> Result<String, NewError> {
    if dir.exists() {
        return Err(NewError::Exists(dir.to_owned()));
    }
    if !Path::new(FRONTEND_GUEST).is_dir() {
        return Err(NewError::NoCheckout);
    }
    let name = name(dir)?;
    let fill = |template: &str| {
        let rust_version = RustVersion::oldest_for_policies().to_string();
        let filled = template.replace("POLICY-NAME", name);
        let filled = filled.replace("RUST-VERSION", &rust_version);
        filled.replace("FRONTEND-GUEST", FRONTEND_GUEST)
    };
    write(&dir.join("Cargo.toml"), &fill(MANIFEST))?;
    write(&dir.join("src/lib.rs"), &fill(SOURCE))?;
    write(&dir.join("Cargo.lock"), LOCK_FILE)?;
    write(&dir.join(".gitignore"), "/target\n")?;
    let dir = dir.display();
    Ok(format!(
        "{dir}/src/lib.rs is your policy. Next:\n  cargo test --manifest-path {dir}/Cargo.toml\n  bazaar policy build {dir}\n"
    ))
}

fn name(dir: &Path) -> Result<&str, NewError> {
    let name = dir
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let allowed = |character: char| character.is_ascii_alphanumeric() || "-_".contains(character);
    if name.starts_with(|first: char| first.is_ascii_alphabetic()) && name.chars().all(allowed) {
        Ok(name)
    } else {
        Err(NewError::Name(name.to_owned()))
    }
}

fn write(path: &Path, contents: &str) -> Result<(), NewError> {
    let written = path
        .parent()
        .map_or(Ok(()), fs::create_dir_all)
        .and_then(|()| fs::write(path, contents));
    written.map_err(|source| NewError::Write {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_names_the_policy() {
        assert_eq!(
            name(Path::new("some/where/my-policy_2")).unwrap(),
            "my-policy_2"
        );
        for wrong in ["..", "/", "2fast", "a b", "naïve"] {
            assert!(name(Path::new(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn nothing_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(create(dir.path()), Err(NewError::Exists(_))));
    }
}
