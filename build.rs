//! Builds the policy that caches nothing, which `bazaar load --sweep` compares with, as
//! `OUT_DIR/no-cache.wasm`.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

/// All that the component is made of.
const SOURCES: [&str; 4] = ["wit", "frontend-guest", "Cargo.toml", "Cargo.lock"];

fn main() -> ExitCode {
    for source in SOURCES {
        println!("cargo::rerun-if-changed={source}");
    }
    let component = match policy_build::Builder::in_project("frontend-guest")
        .example("no-cache")
        .build()
    {
        Ok(component) => component,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    match fs::copy(&component, out_dir.join("no-cache.wasm")) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot copy {}: {error}", component.display());
            ExitCode::FAILURE
        }
    }
}
