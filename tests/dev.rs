//! A policy that is edited while a gateway runs: `bazaar policy dev`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::Value;

use crate::harness::{Bazaar, Process, guest, run_ok, wait_until};

/// The standard library for policies is there already.
const KEPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/guest");

/// Starts `bazaar policy dev` on a directory.
fn dev(bazaar: &Bazaar, dir: &Path, flags: &[&str]) -> Process {
    let admin = format!("--admin=http://{}", bazaar.admin_address());
    let dir = dir.to_str().unwrap();
    let arguments = ["policy", "dev", dir, &admin].into_iter();
    Process::start("dev", bazaar.dir(), arguments.chain(flags.iter().copied()))
}

fn candidate(bazaar: &Bazaar) -> Value {
    bazaar.admin("GET", "/policy", b"").json()["candidate"].take()
}

#[test]
fn what_is_saved_shadows_and_what_does_not_build_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let policy = dir.path().join("my-policy");
    run_ok(["policy", "new", policy.to_str().unwrap()]);
    let source = policy.join("src/lib.rs");
    let original = fs::read_to_string(&source).unwrap();
    // What takes its time on a machine that never built such a crate, without a limit to it.
    run_ok([
        "policy",
        "build",
        policy.to_str().unwrap(),
        "--target-dir",
        KEPT,
    ]);
    let bazaar = Bazaar::start_default();
    let mut dev = dev(&bazaar, &policy, &["--target-dir", KEPT]);

    wait_until("a candidate", || candidate(&bazaar)["name"] == "my-policy");
    let first = candidate(&bazaar)["digest"].take();
    wait_until("a difference to be shown", || {
        bazaar.quantity("nvidia");
        dev.out().contains("caching of GET /stocks/nvidia")
    });

    let broken = original.replace("Freshness::AtMost(500)", "Freshness::AtLeast(500)");
    fs::write(&source, &broken).unwrap();
    wait_until("the compiler's words", || dev.log().contains("AtLeast"));
    wait_until("the outcome", || {
        dev.out().contains("the candidate stays as it was")
    });
    assert_eq!(candidate(&bazaar)["digest"], first);

    let edited = original.replace("AtMost(500)", "AtMost(250)");
    fs::write(&source, edited).unwrap();
    wait_until("another candidate", || {
        let now = candidate(&bazaar)["digest"].take();
        now.is_string() && now != first
    });
    wait_until("its difference to be shown", || {
        bazaar.quantity("nvidia");
        dev.out().contains("250")
    });

    assert!(dev.terminate().success());
    assert!(
        dev.out().contains("the candidate is dropped"),
        "{}",
        dev.out()
    );
    assert!(candidate(&bazaar).is_null());
    assert_eq!(
        bazaar.admin("GET", "/policy", b"").json()["active"]["name"],
        "default"
    );
}

/// As a policy in another language has: a source, and a script that makes a component of it.
#[test]
fn a_directory_may_build_its_policy_by_a_script_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("policy.txt");
    let script = "#!/bin/sh\nset -e\ncp \"$(cat \"$(dirname \"$0\")/policy.txt\")\" \"$(dirname \"$0\")/policy.wasm\"\necho \"$(dirname \"$0\")/policy.wasm\"\n";
    let choose = |path: &Path| fs::write(&source, path.to_str().unwrap()).unwrap();
    choose(&guest("marked"));
    fs::write(dir.path().join("build"), script).unwrap();
    fs::set_permissions(dir.path().join("build"), fs::Permissions::from_mode(0o755)).unwrap();

    let bazaar = Bazaar::start_default();
    let mut dev = dev(&bazaar, dir.path(), &["--active"]);
    let active = || bazaar.admin("GET", "/policy", b"").json()["active"]["name"].take();
    wait_until("the first version to be active", || active() == "marked");

    choose(&guest("forbidden-import"));
    wait_until("a refusal that says why", || {
        dev.out().contains("acme:telemetry/sink")
    });
    assert_eq!(active(), "marked");
    choose(&guest("edition-red"));
    wait_until("the next version to be active", || active() == "red");
    assert!(dev.terminate().success());
    assert_eq!(active(), "red", "what is active stays");
}
