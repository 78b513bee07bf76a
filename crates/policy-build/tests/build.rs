//! Components really build, here, with whatever compiler is at hand.

use std::fs;
use std::path::Path;
use std::thread;

use policy_build::{BuildError, Builder};

/// The first bytes of a component: WebAssembly's magic number, version 13, layer 1.
const COMPONENT_HEADER: [u8; 8] = *b"\0asm\x0d\0\x01\0";

fn check_component(file: &Path) {
    let bytes = fs::read(file).expect("the component is where the builder says");
    assert_eq!(
        bytes[..8],
        COMPONENT_HEADER,
        "{} is not a component",
        file.display()
    );
    println!("{}: {} bytes", file.display(), bytes.len());
}

const POLICIES: [(&str, &str); 5] = [
    ("frontend-guest", "default"),
    ("frontend-guest", "no-cache"),
    ("frontend-guest", "ttl"),
    ("frontend-guest", "always-highest"),
    ("frontend-guest", "default"), // again, at the same time
];

#[test]
fn builders_that_share_a_directory_wait_for_each_other() {
    thread::scope(|scope| {
        for (package, example) in POLICIES {
            scope.spawn(move || check_builds(package, example));
        }
    });
}

/// These two import what the others do not, and what each compiler declares in its own way.
#[test]
fn guests_with_imports_of_their_own_link() {
    check_builds("tests/guests", "chatty");
    check_builds("tests/guests", "forbidden-import");
}

fn check_builds(package: &str, example: &str) {
    let component = Builder::in_project(package).example(example).build();
    check_component(&component.unwrap_or_else(|error| panic!("{error}")));
}

/// A crate of that name outside the project, the library of which is `source`. It has the
/// project's lock file, so that nothing new is fetched, and shares its target directory, so that
/// the standard library is not built again.
fn outside_crate(name: &str, crate_type: &str, source: &str) -> Builder {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let guest = project.join("frontend-guest");
    let manifest = format!(
        "[workspace]\n\
         [package]\nname = {name:?}\nedition = \"2024\"\n\
         [lib]\ncrate-type = [{crate_type:?}]\n\
         [dependencies]\nfrontend-guest = {{ path = {guest:?} }}\n"
    );
    fs::create_dir_all(dir.join("src")).expect("a directory for the source");
    fs::write(dir.join("Cargo.toml"), manifest).expect("a manifest");
    fs::write(dir.join("src/lib.rs"), source).expect("a source");
    fs::copy(project.join("Cargo.lock"), dir.join("Cargo.lock")).expect("a lock file");
    Builder::new(dir).target_dir(project.join("target/guest"))
}

const MINE: &str = "struct Mine;\n\
    impl frontend_guest::Policy for Mine { fn name(&self) -> &'static str { \"mine\" } }\n\
    frontend_guest::export!(Mine);\n";

#[test]
fn a_policy_outside_the_project_builds() {
    let component = outside_crate("outside-policy", "cdylib", MINE).build();
    check_component(&component.unwrap_or_else(|error| panic!("{error}")));
}

#[test]
fn what_is_built_once_is_not_looked_at_again() {
    let builder = outside_crate("outside-once", "cdylib", MINE);
    let component = builder.build_once();
    let component = component.unwrap_or_else(|error| panic!("{error}"));
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("outside-once");
    fs::remove_dir_all(dir).expect("it is ours");
    builder.build().expect_err("there is no crate any more");
    assert_eq!(builder.build_once().ok(), Some(component));
}

#[test]
fn a_policy_that_does_not_compile_is_shown_why() {
    let builder = outside_crate(
        "outside-mistake",
        "cdylib",
        "frontend_guest::export!(Missing);",
    );
    let error = builder.build().expect_err("there is no such policy");
    assert!(matches!(error, BuildError::Failed { .. }), "{error}");
    assert!(
        error.to_string().contains("cannot find value `Missing`"),
        "{error}"
    );
    // Not twice where it was shown as it was said.
    let error = builder.show_progress().build().expect_err("nor now");
    let shown = error.to_string();
    assert!(
        shown.ends_with("does not build; why is said above"),
        "{shown}"
    );
}

#[test]
fn a_crate_that_makes_no_component_is_told_what_it_lacks() {
    let error = outside_crate("outside-rlib", "rlib", "")
        .build()
        .expect_err("a library is not a component");
    assert!(error.to_string().contains("crate-type"), "{error}");
}

#[test]
fn a_directory_without_a_crate_is_named() {
    // Inside the project, whose own manifest is not meant.
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let error = Builder::new(&dir)
        .build()
        .expect_err("there is nothing to build");
    assert!(
        error.to_string().contains(&dir.display().to_string()),
        "{error}"
    );
}
