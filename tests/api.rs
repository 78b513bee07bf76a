//! Whether `/openapi.json` is true: a property-based client reads it, makes requests of its own that are as it says and others
//! that are not, and compares the answers with it.

use std::process::{Command, Stdio};

use crate::harness::{Bazaar, Order, skip};

/// How the script says that the client is not to be had (`EX_UNAVAILABLE`).
const UNAVAILABLE: i32 = 69;

/// What it is not to hold against the API.
const CONFIG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/api/schemathesis.toml");

/// Requests of each kind for each operation: some seconds in all.
const EXAMPLES_MAX: &str = "40";

#[test]
fn the_description_of_the_api_is_true() {
    let fetch = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/api/fetch");
    let fetched = Command::new(fetch).stdin(Stdio::null()).output().unwrap();
    let log = String::from_utf8_lossy(&fetched.stderr);
    if fetched.status.code() == Some(UNAVAILABLE) {
        skip("schemathesis is not to be had", log);
        return;
    }
    assert!(fetched.status.success(), "{}: {log}", fetched.status);
    let schemathesis = String::from_utf8(fetched.stdout).unwrap();

    let bazaar = Bazaar::start_default();
    for number in 0..3 {
        assert_eq!(bazaar.trade(&Order::sell(7, "meta")), number);
    }
    let description = format!("http://{}/openapi.json", bazaar.address());
    let dir = tempfile::tempdir().unwrap();
    // By its interpreter: the path in its first line is of where the checkout was when it was fetched.
    let schemathesis = schemathesis.trim();
    let python = schemathesis.replace("/bin/schemathesis", "/bin/python");
    let run = Command::new(python)
        .args([schemathesis, "--config-file", CONFIG, "--no-color"])
        .args(["run", &description, "--checks", "all"])
        // It would wait for the end, which does not come.
        .args(["--exclude-path", "/events"])
        .args(["--max-examples", EXAMPLES_MAX, "--seed", "1"])
        .current_dir(&dir)
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&run.stdout);
    let erred = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{}\n{said}\n{erred}", run.status);
    bazaar.check_acknowledged();
}
