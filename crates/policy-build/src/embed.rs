//! A component for a crate to embed.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::Builder;
use crate::builder::PROJECT_DIR;

/// All that a policy among the examples is made of, from the project's directory.
const SOURCES: [&str; 4] = ["wit", "frontend-guest", "Cargo.toml", "Cargo.lock"];

/// What a build script's `main` does to embed an example policy: builds it into
/// `OUT_DIR/EXAMPLE.wasm`, again whenever one of its sources changes.
///
/// # Panics
/// Where it is not called by a build script.
pub fn embed(example: &str) -> ExitCode {
    for source in SOURCES {
        let source = Path::new(PROJECT_DIR).join(source);
        println!("cargo::rerun-if-changed={}", source.display());
    }
    let built = Builder::in_project("frontend-guest")
        .example(example)
        .build();
    let component = match built {
        Ok(component) => component,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    match fs::copy(&component, out_dir.join(example).with_extension("wasm")) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot copy {}: {error}", component.display());
            ExitCode::FAILURE
        }
    }
}
