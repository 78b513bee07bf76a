//! The examples in `deploy/`, read by the tools of those that they are for.

use std::path::Path;
use std::process::Command;

use crate::harness::skip;

/// What `scripts/deploy-check` ends with where it lacks a tool.
const MISSING: i32 = 3;

#[test]
fn the_examples_are_what_systemd_compose_and_kubernetes_take() {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR"));
    let checked = Command::new(checkout.join("scripts/deploy-check"))
        .arg(env!("CARGO_BIN_EXE_bazaar"))
        .output()
        .expect("the script is there");
    let said = String::from_utf8_lossy(&checked.stderr);
    if checked.status.code() == Some(MISSING) {
        skip("deploy/", said);
        return;
    }
    let told = String::from_utf8_lossy(&checked.stdout);
    assert!(checked.status.success(), "{told}{said}");
}
