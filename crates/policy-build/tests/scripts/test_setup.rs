//! `scripts/test-setup`, with all that tests need, with some of it, and where nothing can be installed.

use crate::machine::Machine;

/// What tests need is here, and root runs the script. `apt-get` installs Node alone.
const COMMANDS: [(&str, &str); 25] = [
    ("id", "echo 0"),
    ("node", ""),
    ("npm", ""),
    ("python3", ""),
    ("clang", ""),
    ("wasm-ld", ""),
    ("mount", ""),
    ("umount", ""),
    ("ip", ""),
    ("unshare", ""),
    ("nft", ""),
    ("curl", ""),
    ("pgrep", ""),
    ("pg_createcluster", ""),
    ("openssl", ""),
    ("patroni", ""),
    ("etcd", ""),
    ("setpriv", ""),
    ("systemd-analyze", ""),
    ("docker-compose", ""),
    ("chromium", ""),
    ("fc-list", "echo a font"),
    ("promtool", ""),
    ("amtool", ""),
    (
        "apt-get",
        r#"if [ "$1" = install ]; then cp "$HERE/bin/mount" "$HERE/bin/node"; fi"#,
    ),
];

fn debian() -> Machine {
    Machine::new("test-setup", &COMMANDS)
}

/// What is said of a need that stays unmet.
const NO_NODE: &str = "missing is Node 18 or newer with npm, for policies in JavaScript: its tests will be skipped; \
                       Debian: apt-get install nodejs npm";

#[test]
fn where_all_is_here_nothing_is_installed() {
    let machine = debian();
    assert_eq!(machine.run().as_deref(), Ok(""));
    assert_eq!(machine.calls(&["apt-get"]), [""; 0]);
}

#[test]
fn what_is_missing_is_installed() {
    let machine = debian();
    machine.without_command("node");
    let said = machine.run().expect("it never fails");
    assert_eq!(said, "test-setup: installing nodejs npm\n");
    assert_eq!(
        machine.calls(&["apt-get"]),
        ["apt-get update", "apt-get install"]
    );
    assert_eq!(machine.run().as_deref(), Ok(""));
}

#[test]
fn what_is_too_old_counts_as_missing() {
    let machine = debian();
    machine.command("python3", "exit 1");
    let said = machine.run().expect("it never fails");
    assert!(
        said.contains("installing python3 python3-venv libpython3-dev\n"),
        "{said}"
    );
    assert!(
        said.contains("missing is Python 3.10 or newer with venv"),
        "{said}"
    );
}

#[test]
fn what_cannot_be_installed_is_said_and_the_tests_go_on() {
    let machine = debian();
    machine.command("npm", "exit 1");
    machine.command("apt-get", "exit 100");
    let said = machine.run().expect("it never fails");
    assert!(
        said.contains("apt-get could not install nodejs npm"),
        "{said}"
    );
    assert!(said.contains(NO_NODE), "{said}");
}

#[test]
fn only_root_on_debian_installs() {
    let machine = debian();
    machine.without_command("node");
    machine.command("id", "echo 1000");
    let said = format!("test-setup: {NO_NODE}\n");
    assert_eq!(machine.run(), Ok(said.clone()));
    assert_eq!(machine.calls(&["apt-get"]), [""; 0]);

    machine.command("id", "echo 0");
    machine.without_command("apt-get");
    assert_eq!(machine.run(), Ok(said));
}
