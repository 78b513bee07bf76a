//! What a layer must not know, it cannot import; and no module needs one that needs it.

mod paths;
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
        .args(["tree", "--offline", "--target", "all", "--prefix", "none"])
        .args(["--edges", "normal,build"])
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

/// What a pure core may have of the standard library: nothing that asks the machine for anything. Times are handed
/// to it.
const OF_STD: [&str; 14] = [
    "borrow",
    "cmp",
    "collections",
    "convert",
    "fmt",
    "hash",
    "iter",
    "mem",
    "num",
    "ops",
    "slice",
    "str",
    "sync",
    "time::Duration",
];

#[test]
fn cores_ask_no_clock_disk_or_network() {
    for core in ["catalog/core", "order/core", "frontend-host/core"] {
        let paths = paths::of_crate(&Path::new(PROJECT).join(core).join("src"));
        assert!(paths.len() > 50, "{core} has {paths:?}");
        for (path, file) in paths {
            assert!(
                !path.ends_with("BootTime::now"),
                "{}: {path}",
                file.display()
            );
            let (root, inside) = path.split_once("::").unwrap_or((&path, ""));
            let is_allowed = |allowed: &&str| {
                let rest = inside.strip_prefix(*allowed);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
            };
            assert!(
                !["std", "core", "alloc"].contains(&root) || OF_STD.iter().any(is_allowed),
                "{}: {path}",
                file.display()
            );
        }
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
