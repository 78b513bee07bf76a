//! Embeds the policy that caches nothing, which `bazaar load --sweep` compares with, and what
//! policies in Rust build on, for `bazaar policy new`.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The sources of the crate that policies build on.
const SDK: &str = "frontend-guest/src";

fn main() -> ExitCode {
    let written = write_list();
    if let Err(error) = written {
        eprintln!("cannot list {SDK}: {error}");
        return ExitCode::FAILURE;
    }
    policy_build::embed("no-cache")
}

/// Writes a list of the SDK's files with their contents, to be included.
fn write_list() -> std::io::Result<()> {
    let project = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    println!("cargo::rerun-if-changed={}", project.join(SDK).display());
    let mut files = Vec::new();
    collect(&project.join(SDK), &mut files)?;
    files.sort();
    let mut list = "&[\n".to_owned();
    for file in files {
        let name = file
            .strip_prefix(project.join(SDK))
            .expect("it is in there");
        writeln!(list, "    ({name:?}, include_str!({file:?})),").expect("a text grows");
    }
    list += "]\n";
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    fs::write(out_dir.join("sdk.rs"), list)
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}
