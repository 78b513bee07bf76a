//! What `scripts/wasm-target` does on machines of every kind: with an old index of packages, an old
//! compiler, no network, nothing at all.

use std::env;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// Too old for policies; enough for them, though not for the hosts; enough for all.
const OLD: &str = "1.63.0";
const ENOUGH: &str = "1.85.0";
const NEW: &str = "1.96.0";

/// What is no stand-in.
const TOOLS: [&str; 15] = [
    "basename", "bash", "cat", "chmod", "cp", "dirname", "env", "ln", "mkdir", "readlink", "rm",
    "sed", "sh", "sort", "timeout",
];

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

/// A Debian whose commands are stand-ins that note how they are called. It is run by root, and its
/// rustup is told to fetch nothing.
struct Machine {
    dir: TempDir,
    rustup_fetches: bool,
}

impl Machine {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("there is a temporary directory");
        let machine = Self {
            dir,
            rustup_fetches: false,
        };
        for made in ["bin", "root"] {
            fs::create_dir(machine.path(made)).expect("a directory is made");
        }
        let places = env::var_os("PATH").expect("there is a PATH");
        for tool in TOOLS {
            let mut found = env::split_paths(&places).map(|place| place.join(tool));
            let found = found.find(|file| file.is_file());
            let found = found.unwrap_or_else(|| panic!("{tool} is on the PATH"));
            symlink(found, machine.path("bin").join(tool)).expect("a link is made");
        }
        for (name, body) in COMMANDS {
            machine.command(name, body);
        }
        machine
    }

    /// Debian's packages of that version are installed.
    fn with_installed(self, version: &str) -> Self {
        let unpacked = Command::new(self.path("bin/unpack"))
            .arg(version)
            .env("PATH", self.path("bin"))
            .status();
        assert!(unpacked.expect("it starts").success());
        self
    }

    /// The version that the index of packages knows.
    fn with_index(self, version: &str) -> Self {
        fs::write(self.path("index"), format!("{version}+dfsg3-1~deb12u3")).expect("it is written");
        self
    }

    /// The version that an update of the index makes it know. Without it, an update fails.
    fn with_archive(self, version: &str) -> Self {
        fs::write(self.path("archive"), format!("{version}+dfsg1-1~deb12u2"))
            .expect("it is written");
        self
    }

    fn command(&self, name: &str, body: &str) {
        let file = self.path("bin").join(name);
        let here = self.dir.path().display();
        let text = format!(
            "#!/bin/sh\nset -e\nHERE='{here}'\necho \"{name} $*\" >> \"$HERE/calls\"\n{body}\n"
        );
        fs::write(&file, text).expect("a script is written");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("it is ours");
    }

    fn without_command(&self, name: &str) {
        fs::remove_file(self.path("bin").join(name)).expect("it was there");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs the script. What it says, as an error where it failed.
    fn run(&self) -> Result<String, String> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/wasm-target");
        let output = Command::new(script)
            .env_clear()
            .env("PATH", self.path("bin"))
            .env("WASM_TARGET_ROOT", self.path("root"))
            .env(
                "RUSTUP_AUTO_INSTALL",
                if self.rustup_fetches { "1" } else { "0" },
            )
            .output()
            .expect("the script starts");
        let said = String::from_utf8(output.stderr).expect("it speaks UTF-8");
        println!("{said}");
        if output.status.success() {
            Ok(said)
        } else {
            Err(said)
        }
    }

    /// The first two words of each call of these commands.
    fn calls(&self, commands: &[&str]) -> Vec<String> {
        let calls = fs::read_to_string(self.path("calls")).unwrap_or_default();
        let calls = calls
            .lines()
            .map(|call| call.split(' ').collect::<Vec<_>>());
        let calls = calls.filter(|words| commands.contains(&words[0]));
        calls.map(|words| words[..2].join(" ")).collect()
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
        let machine = Machine::new().with_installed(version);
        assert_eq!(machine.run().as_deref(), Ok(""));
        assert_eq!(machine.calls(&["apt-get", "rustup"]), [""; 0]);
    }
}

#[test]
fn rustup_is_asked_first_where_it_may_fetch() {
    let mut machine = Machine::new();
    machine.rustup_fetches = true;
    machine.run().expect("rustup gets it");
    assert_eq!(machine.calls(&["apt-get", "rustup"]), ["rustup target"]);
    assert_eq!(machine.run().as_deref(), Ok(""));
}

#[test]
fn debian_serves_where_rustup_gets_nothing() {
    let mut machine = Machine::new().with_index(OLD).with_archive(NEW);
    machine.rustup_fetches = true;
    machine.command("rustup", "exit 1");
    machine.check_installs(NEW);
}

#[test]
fn an_old_index_is_updated_before_anything_is_installed() {
    for old in [OLD, ENOUGH] {
        Machine::new()
            .with_index(old)
            .with_archive(NEW)
            .check_installs(NEW);
    }
    Machine::new().with_archive(ENOUGH).check_installs(ENOUGH);
}

#[test]
fn a_compiler_too_old_is_upgraded() {
    let machine = Machine::new().with_installed(OLD).with_index(OLD);
    machine.with_archive(NEW).check_installs(NEW);
}

#[test]
fn sources_of_another_version_than_the_compilers_are_replaced() {
    let machine = Machine::new().with_installed(NEW).with_installed(ENOUGH);
    let sources = machine.path("root/usr/lib/rustlib/src/rust");
    fs::remove_file(&sources).expect("it was there");
    symlink("../../../src/rustc-1.96.0", &sources).expect("a link is made");
    machine.with_archive(NEW).check_installs(NEW);
}

#[test]
fn where_debians_compiler_is_the_only_one_it_must_do_for_the_hosts_too() {
    for installed in [true, false] {
        let mut machine = Machine::new().with_archive(NEW);
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
    Machine::new().with_index(ENOUGH).check_installs(ENOUGH);
}

#[test]
fn without_a_network_an_old_index_is_refused() {
    let machine = Machine::new().with_index(OLD);
    machine.check_refuses(&["apt-get update failed", "no rustc-web newer than 1.63.0"]);
    let machine = Machine::new().with_installed(OLD);
    machine.check_refuses(&[
        "usr/bin/rustc is 1.63.0",
        "apt-get update failed",
        "no rustc-web:",
    ]);
}

#[test]
fn archives_that_have_old_packages_only_are_refused_before_installing() {
    let machine = Machine::new().with_index(OLD).with_archive(OLD);
    machine.check_refuses(&["no rustc-web newer than 1.63.0", "bookworm-security"]);
}

#[test]
fn what_apt_cannot_install_is_said() {
    let machine = Machine::new().with_archive(NEW);
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
    let machine = Machine::new().with_archive(NEW);
    machine.command("id", "echo 1000");
    machine.check_refuses(&["only root can install packages"]);
    machine.command("sudo", r#"exec "$@""#);
    machine.check_installs(NEW);
    assert_eq!(machine.calls(&["sudo"]), ["sudo apt-get", "sudo env"]);
}

#[test]
fn a_machine_that_is_no_debian_is_told_what_it_needs() {
    let machine = Machine::new();
    machine.without_command("apt-get");
    machine.check_refuses(&["no Debian"]);
}
