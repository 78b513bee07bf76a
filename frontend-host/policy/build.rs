//! Embeds the default policy.

use std::process::ExitCode;

fn main() -> ExitCode {
    policy_build::embed("default")
}
