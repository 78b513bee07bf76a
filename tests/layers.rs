//! What a layer must not know, it cannot import; and no module needs one that needs it.

mod rings;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// Where Cargo and the sources are.
const PROJECT: &str = env!("CARGO_MANIFEST_DIR");

/// The crates that one reaches, itself included, as `cargo tree` says; tests' own are left out.
fn reached_by(package: &str) -> BTreeSet<String> {
    let tree = Command::new(env!("CARGO"))
        .current_dir(PROJECT)
        .args(["tree", "--offline", "--edges", "normal", "--prefix", "none"])
        .args(["--format", "{p}", "--package", package])
        .output()
        .expect("cargo runs");
    let said = String::from_utf8_lossy(&tree.stderr).into_owned();
    assert!(tree.status.success(), "{said}");
    String::from_utf8_lossy(&tree.stdout)
        .lines()
        .filter_map(|line| line.split(' ').next())
        .map(str::to_owned)
        .collect()
}

/// No runtime, no wire, no database, no sandbox.
const OUTSIDE: [&str; 8] = [
    "hyper", "prost", "rusqlite", "socket2", "tokio", "tonic", "tracing", "wasmtime",
];

/// Those of Bazaar's crates that others depend on, and those that are for tests.
const OWN: [&str; 12] = [
    "bazaar",
    "catalog",
    "daemon",
    "frontend-host",
    "frontend-policy",
    "order",
    "policy-build",
    "rpc",
    "storage",
    "wire",
    "catalog-core",
    "order-core",
];

#[test]
fn cores_know_the_domain_alone() {
    for core in ["catalog-core", "order-core", "frontend-core"] {
        let reached = reached_by(core);
        assert!(reached.contains("domain"), "{reached:?}");
        let strangers = OUTSIDE.iter().chain(&OWN).filter(|name| **name != core);
        for stranger in strangers {
            assert!(!reached.contains(*stranger), "{core} reaches {stranger}");
        }
    }
}

#[test]
fn the_policy_runtime_knows_no_service() {
    let reached = reached_by("frontend-policy");
    for stranger in [
        "catalog",
        "frontend-host",
        "order",
        "rpc",
        "storage",
        "tonic",
        "wire",
    ] {
        assert!(!reached.contains(stranger), "it reaches {stranger}");
    }
}

#[test]
fn no_module_needs_one_that_needs_it() {
    let rings = rings::of_project(Path::new(PROJECT));
    assert!(rings.is_empty(), "{}", rings.join("\n"));
}

/// What the sandbox must not know, such as why a component is rejected, no file of it may import.
#[test]
fn no_layer_of_the_policy_runtime_needs_one_that_needs_it() {
    let rings = rings::of_layers(&Path::new(PROJECT).join("frontend-host/policy/src"));
    assert!(rings.is_empty(), "{}", rings.join("\n"));
}
