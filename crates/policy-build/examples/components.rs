//! Builds all components that tests want, before the first of them does: `.ci/run` begins with none.

use std::process::ExitCode;

use policy_build::Builder;

/// The crates whose examples are components.
const CRATES: [&str; 2] = ["frontend-guest", "tests/guests"];

fn main() -> ExitCode {
    for dir in CRATES {
        if let Err(error) = Builder::in_project(dir).show_progress().build_examples() {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
