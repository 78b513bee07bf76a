//! All that is tested over Debian's PostgreSQL, once more over the newest that a registry has.

use std::env;
use std::process::Command;

use test_postgres::newest::Newest;
use test_postgres::{PROGRAMS_DIR, programs, skip};

/// What the tests over PostgreSQL have in their names.
const FILTER: &str = "postgres";

/// Tests of servers that encrypt, which that one was not built for.
const ENCRYPTING: [&str; 2] = [
    "--skip=with_verify_full_only_the_host",
    "--skip=a_server_is_believed_by_the_authorities",
];

#[test]
fn over_the_newest_server_all_of_it_holds() {
    if env::var_os(PROGRAMS_DIR).is_some() {
        return; // this is that run
    }
    // What Debian's package also has is whom a server runs as.
    if programs().is_none() {
        return skip::skip("PostgreSQL", "scripts/test-setup installs it");
    }
    let newest = match Newest::fetch() {
        Ok(newest) => newest,
        Err(why) => return skip::skip("the newest PostgreSQL", why),
    };
    let this = env::current_exe().expect("this runs");
    let output = Command::new(this)
        .arg(FILTER)
        .args(ENCRYPTING)
        .env(PROGRAMS_DIR, newest.programs())
        .output();
    let output = output.expect("it can be run");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    let has_run = said.contains("postgres_does_what_sqlite_does ... ok");
    assert!(has_run, "{said}");
}
