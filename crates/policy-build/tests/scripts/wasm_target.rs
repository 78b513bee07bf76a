//! `scripts/wasm-target`, with an old index of packages, an old compiler, no network, nothing at all.

use std::fs;
use std::os::unix::fs::symlink;

use crate::machine::Machine;

/// Too old for policies; enough for them, though not for the hosts; enough for all.
const OLD: &str = "1.63.0";
const ENOUGH: &str = "1.85.0";
const NEW: &str = "1.96.0";

/// The stand-ins. `$HERE` is the machine's directory.
const COMMANDS: [(&str, &str); 9] = [
    ("id", "echo 0"),
    ("cargo", "echo cargo 1.95.0"),
    // A compiler for hosts alone.
    (
        "rustc",
        r#"case "$*" in
            *"--target "*) echo "$HERE/rustup/wasm" ;;
            *) echo "$HERE/rustup/host" ;;
        esac"#,
    ),
    ("rustup", r#"mkdir -p "$HERE/rustup/wasm""#),
    ("wasm-component-ld", ""),
    ("wasm-ld", ""),
    (
        "apt-cache",
        r#"printf 'rustc-web:\n  Installed: (none)\n  Candidate: %s\n' "$(cat "$HERE/index")""#,
    ),
    (
        "apt-get",
        r#"case $1 in
            update) cp "$HERE/archive" "$HERE/index" ;;
            *) unpack "$(sed 's/+.*//' "$HERE/index")" ;;
        esac"#,
    ),
    // Debian's packages of a version.
    (
        "unpack",
        r#"cd "$HERE/root"
        mkdir -p usr/bin usr/lib/rustlib/src usr/lib/wasm32-wasi "usr/src/rustc-$1/library/std"
        : > usr/lib/wasm32-wasi/libc.a
        : > "usr/src/rustc-$1/library/std/Cargo.toml"
        rm -f usr/lib/rustlib/src/rust
        ln -s "../../../src/rustc-$1" usr/lib/rustlib/src/rust
        printf '#!/bin/sh\necho "rustc %s (4d91de4e4 2025-02-17)"\n' "$1" > usr/bin/rustc
        printf '#!/bin/sh\n' > usr/bin/cargo
        chmod 755 usr/bin/rustc usr/bin/cargo"#,
    ),
];

/// It is run by root, and its rustup is told to fetch nothing.
fn debian() -> Machine {
    let mut machine = Machine::new("wasm-target", &COMMANDS);
    fs::create_dir(machine.path("root")).expect("a directory is made");
    let root = machine.path("root").display().to_string();
    machine.set("WASM_TARGET_ROOT", root);
    machine.set("RUSTUP_AUTO_INSTALL", "0");
    machine
}

impl Machine {
    /// Debian's packages of that version are installed.
    fn with_installed(self, version: &str) -> Self {
        self.call("unpack", version);
        self
    }

    /// The version that the index of packages knows.
    fn with_index(self, version: &str) -> Self {
        self.write("index", &format!("{version}+dfsg3-1~deb12u3"));
        self
    }

    /// The version that an update of the index makes it know. Without it, an update fails.
    fn with_archive(self, version: &str) -> Self {
        self.write("archive", &format!("{version}+dfsg1-1~deb12u2"));
        self
    }

    fn check_installs(&self, version: &str) {
        self.run().expect("it gets what is needed");
        assert_eq!(
            self.calls(&["apt-get"]),
            ["apt-get update", "apt-get install"]
        );
        let rustc = fs::read_to_string(self.path("root/usr/bin/rustc")).expect("it is installed");
        assert!(rustc.contains(version), "{rustc}");
        // And then nothing is left to do.
        assert_eq!(self.run().as_deref(), Ok(""));
        assert_eq!(self.calls(&["apt-get"]).len(), 2);
    }

    /// It fails with these words, and installs nothing.
    fn check_refuses(&self, words: &[&str]) {
        let said = self
            .run()
            .expect_err("there is no way to get what is needed");
        for word in words.iter().chain(&["1.85 or newer", "rustup target add"]) {
            assert!(said.contains(word), "{word}: {said}");
        }
        assert!(
            !self
                .calls(&["apt-get"])
                .contains(&"apt-get install".to_owned())
        );
    }
}

#[test]
fn where_all_is_well_nothing_is_asked_for() {
    for version in [ENOUGH, NEW] {
        let machine = debian().with_installed(version);
        assert_eq!(machine.run().as_deref(), Ok(""));
        assert_eq!(machine.calls(&["apt-get", "rustup"]), [""; 0]);
    }
}

#[test]
fn rustup_is_asked_first_where_it_may_fetch() {
    let mut machine = debian();
    machine.set("RUSTUP_AUTO_INSTALL", "1");
    machine.run().expect("rustup gets it");
    assert_eq!(machine.calls(&["apt-get", "rustup"]), ["rustup target"]);
    assert_eq!(machine.run().as_deref(), Ok(""));
}

#[test]
fn debian_serves_where_rustup_gets_nothing() {
    let mut machine = debian().with_index(OLD).with_archive(NEW);
    machine.set("RUSTUP_AUTO_INSTALL", "1");
    machine.command("rustup", "exit 1");
    machine.check_installs(NEW);
}

#[test]
fn an_old_index_is_updated_before_anything_is_installed() {
    for old in [OLD, ENOUGH] {
        debian()
            .with_index(old)
            .with_archive(NEW)
            .check_installs(NEW);
    }
    debian().with_archive(ENOUGH).check_installs(ENOUGH);
}

#[test]
fn a_compiler_too_old_is_upgraded() {
    let machine = debian().with_installed(OLD).with_index(OLD);
    machine.with_archive(NEW).check_installs(NEW);
}

#[test]
fn sources_of_another_version_than_the_compilers_are_replaced() {
    let machine = debian().with_installed(NEW).with_installed(ENOUGH);
    let sources = machine.path("root/usr/lib/rustlib/src/rust");
    fs::remove_file(&sources).expect("it was there");
    symlink("../../../src/rustc-1.96.0", &sources).expect("a link is made");
    machine.with_archive(NEW).check_installs(NEW);
}

#[test]
fn where_debians_compiler_is_the_only_one_it_must_do_for_the_hosts_too() {
    for installed in [true, false] {
        let mut machine = debian().with_archive(NEW);
        if installed {
            machine = machine.with_installed(ENOUGH);
        }
        machine.without_command("rustc");
        symlink(
            machine.path("root/usr/bin/rustc"),
            machine.path("bin/rustc"),
        )
        .expect("a link");
        machine.check_installs(NEW);
    }
}

#[test]
fn without_a_network_an_index_that_knows_enough_will_do() {
    debian().with_index(ENOUGH).check_installs(ENOUGH);
}

#[test]
fn without_a_network_an_old_index_is_refused() {
    let machine = debian().with_index(OLD);
    machine.check_refuses(&["apt-get update failed", "no rustc-web newer than 1.63.0"]);
    let machine = debian().with_installed(OLD);
    machine.check_refuses(&[
        "usr/bin/rustc is 1.63.0",
        "apt-get update failed",
        "no rustc-web:",
    ]);
}

#[test]
fn archives_that_have_old_packages_only_are_refused_before_installing() {
    let machine = debian().with_index(OLD).with_archive(OLD);
    machine.check_refuses(&["no rustc-web newer than 1.63.0", "bookworm-security"]);
}

#[test]
fn what_apt_cannot_install_is_said() {
    let machine = debian().with_archive(NEW);
    machine.command("unpack", "exit 100");
    let said = machine.run().expect_err("nothing is unpacked");
    assert!(
        said.contains("apt-get could not install rustc-web"),
        "{said}"
    );
    machine.command("unpack", "exit 0");
    let said = machine.run().expect_err("nothing is unpacked");
    assert!(said.contains("but /usr/bin/cargo is missing"), "{said}");
}

#[test]
fn only_root_installs_and_others_ask_sudo() {
    let machine = debian().with_archive(NEW);
    machine.command("id", "echo 1000");
    machine.check_refuses(&["only root can install packages"]);
    machine.command("sudo", r#"exec "$@""#);
    machine.check_installs(NEW);
    assert_eq!(machine.calls(&["sudo"]), ["sudo apt-get", "sudo env"]);
}

#[test]
fn a_machine_that_is_no_debian_is_told_what_it_needs() {
    let machine = debian();
    machine.without_command("apt-get");
    machine.check_refuses(&["no Debian"]);
}
