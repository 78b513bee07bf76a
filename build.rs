//! Embeds the policy that caches nothing, which `bazaar load --sweep` compares with.

use std::process::ExitCode;

fn main() -> ExitCode {
    policy_build::embed("no-cache")
}
