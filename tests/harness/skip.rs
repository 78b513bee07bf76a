//! Tests that this machine cannot run: said where people see it, and no way to pass in CI.

use std::env;
use std::fmt::Display;
use std::fs::File;
use std::io::{self, Write};
use std::thread;

/// Set to anything: nothing may be skipped.
const CI: &str = "CI";

/// The file that skipped tests are added to, one a line: `make test` ends with what it says.
const SKIPPED_FILE: &str = "BAZAAR_SKIPPED_TESTS";

/// Says that this thread's test, or this part of it, cannot be run here, and why.
///
/// # Panics
/// Where `CI` is set.
pub fn skip(what: &str, why: impl Display) {
    let why = why.to_string();
    let test = thread::current();
    let test = test.name().unwrap_or("a test");
    let line = format!("SKIPPED {test}: {what}: {}\n", why.trim());
    let is_ci = env::var_os(CI).is_some_and(|value| !value.is_empty());
    assert!(!is_ci, "nothing may be skipped where {CI} is set: {line}");
    // What is printed cargo keeps to itself where the test then passes; not what is written here.
    io::stderr().write_all(line.as_bytes()).ok();
    if let Some(file) = env::var_os(SKIPPED_FILE) {
        let appended = File::options().create(true).append(true).open(file);
        appended
            .and_then(|mut file| file.write_all(line.as_bytes()))
            .expect("a skipped test is noted");
    }
}
