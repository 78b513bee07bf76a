//! Embeds the policy that caches nothing, which `bazaar load --sweep` compares with, what
//! policies in Rust and C build on, for `bazaar policy new`, and for `bazaar --version` which wasmtime this is.

use std::env;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use wit_bindgen_core::Files;
use wit_bindgen_core::wit_parser::Resolve;

/// The sources of the crate that policies build on.
const SDK: &str = "frontend-guest/src";

/// The world that they are of.
const WIT: &str = "wit/policy.wit";
const WORLD: &str = "front-end";

fn main() -> ExitCode {
    let dir = |variable| PathBuf::from(env::var_os(variable).expect("cargo sets it"));
    let (project, out_dir) = (dir("CARGO_MANIFEST_DIR"), dir("OUT_DIR"));
    let sdk = list_sdk(&project.join(SDK), &out_dir.join("sdk.rs"));
    let bindings = write_c_bindings(&project.join(WIT), &out_dir.join("c"));
    for (what, written) in [(SDK, sdk), (WIT, bindings)] {
        println!("cargo::rerun-if-changed={}", project.join(what).display());
        if let Err(error) = written {
            eprintln!("{what}: {error}");
            return ExitCode::FAILURE;
        }
    }
    let lock = project.join("Cargo.lock");
    println!("cargo::rerun-if-changed={}", lock.display());
    let wasmtime = fs::read_to_string(lock).ok();
    let wasmtime = wasmtime
        .as_deref()
        .and_then(|lock| locked(lock, "wasmtime"));
    println!(
        "cargo::rustc-env=BAZAAR_WASMTIME={}",
        wasmtime.unwrap_or("?")
    );
    policy_build::embed("no-cache")
}

/// Which version of a package a `Cargo.lock` says.
fn locked<'a>(lock: &'a str, package: &str) -> Option<&'a str> {
    let (_, after) = lock.split_once(&format!("name = \"{package}\"\nversion = \""))?;
    Some(after.split_once('"')?.0)
}

/// Writes what policies in C include.
fn write_c_bindings(wit: &Path, dir: &Path) -> Result<(), Box<dyn Error>> {
    let mut resolve = Resolve::default();
    let package = resolve.push_str(wit, &fs::read_to_string(wit)?)?;
    let world = resolve.select_world(&[package], Some(WORLD))?;
    let mut files = Files::default();
    let mut generator = wit_bindgen_c::Opts::default().build();
    generator.generate(&mut resolve, world, &mut files)?;
    fs::create_dir_all(dir)?;
    for (name, contents) in files.iter() {
        fs::write(dir.join(name), contents)?;
    }
    Ok(())
}

/// Writes a list of the SDK's files with their contents, to be included.
fn list_sdk(sdk: &Path, list: &Path) -> Result<(), Box<dyn Error>> {
    let mut files = Vec::new();
    collect(sdk, &mut files)?;
    files.sort();
    let mut text = "&[\n".to_owned();
    for file in files {
        let name = file.strip_prefix(sdk)?;
        writeln!(text, "    ({name:?}, include_str!({file:?})),")?;
    }
    text += "]\n";
    Ok(fs::write(list, text)?)
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
