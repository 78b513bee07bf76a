//! What a layer must not know, it cannot import; and no module needs one that needs it.

mod rings;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// Where Cargo and the sources are.
const PROJECT: &str = env!("CARGO_MANIFEST_DIR");

/// The crates that one reaches in so many steps, or at all; itself included, as `cargo tree` says. Tests'
/// own are left out.
fn reached_by(package: &str, steps: Option<u8>) -> BTreeSet<String> {
    let depth = steps.map(|steps| format!("--depth={steps}"));
    let tree = Command::new(env!("CARGO"))
        .current_dir(PROJECT)
        .args(["tree", "--offline", "--edges", "normal", "--prefix", "none"])
        .args(["--format", "{p}", "--package", package])
        .args(depth)
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

/// What a core may depend on by itself.
const OF_CORES: [&str; 2] = ["domain", "thiserror"];

/// No runtime, no wire, no database, no sandbox: not by way of another crate either.
const OUTSIDE: [&str; 8] = [
    "hyper", "prost", "rusqlite", "socket2", "tokio", "tonic", "tracing", "wasmtime",
];

#[test]
fn cores_know_the_domain_alone() {
    for core in ["catalog-core", "order-core", "frontend-core"] {
        let own = reached_by(core, Some(1));
        let strangers: Vec<_> = own
            .iter()
            .filter(|name| *name != core && !OF_CORES.contains(&name.as_str()))
            .collect();
        assert!(strangers.is_empty(), "{core} depends on {strangers:?}");
        assert!(own.contains("domain"), "{own:?}");
        let reached = reached_by(core, None);
        for stranger in OUTSIDE {
            assert!(!reached.contains(stranger), "{core} reaches {stranger}");
        }
    }
}

/// What a pure core asks nobody for. Times are handed to it.
const IMPURE: [&str; 8] = [
    "std::env",
    "std::fs",
    "std::net",
    "std::process",
    "std::thread",
    "BootTime::now",
    "Instant",
    "SystemTime",
];

#[test]
fn cores_ask_no_clock_disk_or_network() {
    for core in ["catalog/core", "order/core", "frontend-host/core"] {
        let mut directories = vec![Path::new(PROJECT).join(core).join("src")];
        let mut files = 0;
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    directories.push(path);
                    continue;
                }
                // Tests may ask for whatever they like.
                let source = std::fs::read_to_string(&path).unwrap();
                let source = source.split("#[cfg(test)]\nmod tests {").next().unwrap();
                if path.ends_with("tests.rs")
                    || path.components().any(|part| part.as_os_str() == "tests")
                {
                    continue;
                }
                files += 1;
                for impure in IMPURE {
                    assert!(!source.contains(impure), "{}: {impure}", path.display());
                }
            }
        }
        assert!(files > 5, "{core} has {files} files");
    }
}

#[test]
fn the_policy_runtime_knows_no_service() {
    let reached = reached_by("frontend-policy", None);
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
