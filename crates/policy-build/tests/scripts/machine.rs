//! A machine whose commands are stand-ins that note how they are called.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// What is no stand-in.
const TOOLS: [&str; 15] = [
    "basename", "bash", "cat", "chmod", "cp", "dirname", "env", "ln", "mkdir", "readlink", "rm",
    "sed", "sh", "sort", "timeout",
];

/// Where one of the project's scripts is run.
pub struct Machine {
    dir: TempDir,
    script: &'static str,
    environment: BTreeMap<&'static str, String>,
}

impl Machine {
    /// For the script of that name. Each stand-in is a name and a shell script, which knows the
    /// machine's directory as `$HERE`.
    pub fn new(script: &'static str, commands: &[(&str, &str)]) -> Self {
        let machine = Self {
            dir: tempfile::tempdir().expect("there is a temporary directory"),
            script,
            environment: BTreeMap::new(),
        };
        fs::create_dir(machine.path("bin")).expect("a directory is made");
        let places = env::var_os("PATH").expect("there is a PATH");
        for tool in TOOLS {
            let mut found = env::split_paths(&places).map(|place| place.join(tool));
            let found = found.find(|file| file.is_file());
            let found = found.unwrap_or_else(|| panic!("{tool} is on the PATH"));
            symlink(found, machine.path("bin").join(tool)).expect("a link is made");
        }
        for (name, body) in commands {
            machine.command(name, body);
        }
        machine
    }

    /// A variable of the environment. There are no others.
    pub fn set(&mut self, name: &'static str, value: impl Into<String>) {
        self.environment.insert(name, value.into());
    }

    /// A stand-in, perhaps in the place of another.
    pub fn command(&self, name: &str, body: &str) {
        let here = self.dir.path().display();
        let text = format!(
            "#!/bin/sh\nset -e\nHERE='{here}'\necho \"{name} $*\" >> \"$HERE/calls\"\n{body}\n"
        );
        // By another process: what this one writes, a child of another test may hold open a moment
        // longer, and then it does not run.
        let mut writer = Command::new("sh")
            .args(["-c", "cat > \"$0\" && chmod 755 \"$0\""])
            .arg(self.path("bin").join(name))
            .stdin(Stdio::piped())
            .spawn()
            .expect("there is a shell");
        let mut stdin = writer.stdin.take().expect("it is piped");
        stdin.write_all(text.as_bytes()).expect("it is read");
        drop(stdin);
        assert!(writer.wait().expect("it ends").success());
    }

    pub fn without_command(&self, name: &str) {
        fs::remove_file(self.path("bin").join(name)).expect("it was there");
    }

    /// Runs a stand-in.
    pub fn call(&self, name: &str, argument: &str) {
        let mut command = Command::new(self.path("bin").join(name));
        command.arg(argument).env("PATH", self.path("bin"));
        assert!(command.status().expect("it starts").success());
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("it is written");
    }

    /// Runs the script. What it says, as an error where it failed.
    pub fn run(&self) -> Result<String, String> {
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts");
        let output = Command::new(scripts.join(self.script))
            .env_clear()
            .env("PATH", self.path("bin"))
            .envs(&self.environment)
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

    /// How these commands were called: the first two words of each call.
    pub fn calls(&self, commands: &[&str]) -> Vec<String> {
        let calls = fs::read_to_string(self.path("calls")).unwrap_or_default();
        let calls = calls
            .lines()
            .map(|call| call.split(' ').collect::<Vec<_>>());
        let calls = calls.filter(|words| commands.contains(&words[0]));
        calls.map(|words| words[..2].join(" ")).collect()
    }
}
