//! What to build; runs a cargo of its own and finds what it made.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

use crate::BuildError;
use crate::toolchain::{self, Toolchain};

/// This project's own crates are built by its lock file.
pub(crate) const PROJECT_DIR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
/// The profile that components are built with.
const PROFILE: &str = "guest";
/// That profile for other crates, as the project's Cargo.toml has it for its own.
const PROFILE_SETTINGS: [&str; 6] = [
    "profile.guest.inherits='release'",
    "profile.guest.opt-level=3",
    "profile.guest.lto='fat'",
    "profile.guest.codegen-units=1",
    "profile.guest.panic='abort'",
    "profile.guest.strip='debuginfo'",
];

/// Where components are that this process has built once.
static BUILT: Mutex<BTreeMap<Builder, PathBuf>> = Mutex::new(BTreeMap::new());

/// Builds one component of a crate.
///
/// ```no_run
/// # fn main() -> Result<(), policy_build::BuildError> {
/// let component = policy_build::Builder::new("frontend-guest").example("ttl").build()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Builder {
    dir: PathBuf,
    example: Option<String>,
    target_dir: Option<PathBuf>,
    shows_progress: bool,
}

impl Builder {
    /// Of the crate in `dir`, its library.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            example: None,
            target_dir: None,
            shows_progress: false,
        }
    }

    /// Of this project's crate in `dir`, a path from the project's root, its library.
    pub fn in_project(dir: impl AsRef<Path>) -> Self {
        Self::new(Path::new(PROJECT_DIR).join(dir))
    }

    /// An example instead of the library.
    pub fn example(mut self, name: impl Into<String>) -> Self {
        self.example = Some(name.into());
        self
    }

    /// Where to build, and keep what was built for the next time: by default `target/guest` in
    /// the crate's workspace.
    pub fn target_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.target_dir = Some(dir.into());
        self
    }

    /// Shows on stderr what the compiler says as it says it, rather than in the error alone.
    pub fn show_progress(mut self) -> Self {
        self.shows_progress = true;
        self
    }

    /// Builds the component where it is not up to date, and says where it is. Several builders may
    /// share a target directory: they wait for each other.
    pub fn build(&self) -> Result<PathBuf, BuildError> {
        let (dir, messages) = match &self.example {
            Some(name) => self.run_cargo(&["--example", name])?,
            None => self.run_cargo(&["--lib"])?,
        };
        built_component(&messages).ok_or(BuildError::NoComponent { dir })
    }

    /// The same, but only the first time in this process: for tests, of which many want one component, and whose
    /// sources stay as they are. To find that it is up to date, two cargos and two compilers are asked each time.
    pub fn build_once(&self) -> Result<PathBuf, BuildError> {
        let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(component) = built.get(self) {
            return Ok(component.clone());
        }
        let component = self.build()?;
        built.insert(self.clone(), component.clone());
        Ok(component)
    }

    /// Builds all examples of the crate, as many at once as there are processors: one alone leaves all but one of them
    /// idle for most of its time.
    pub fn build_examples(&self) -> Result<(), BuildError> {
        self.run_cargo(&["--examples"]).map(drop)
    }

    /// Runs a cargo that builds these of the crate's targets; returns the crate's directory, and what cargo reports.
    fn run_cargo(&self, targets: &[&str]) -> Result<(PathBuf, Vec<u8>), BuildError> {
        let dir = self
            .dir
            .canonicalize()
            .map_err(|error| self.no_crate(error.to_string()))?;
        let root = self.workspace_root(&dir)?;
        let mut cargo = Toolchain::detect(&dir)?.cargo_build(&dir)?;
        cargo.arg("--manifest-path").arg(dir.join("Cargo.toml"));
        cargo
            .arg("--message-format=json-render-diagnostics")
            .args(["--profile", PROFILE])
            .args(targets);
        cargo.arg("--target-dir").arg(
            self.target_dir
                .clone()
                .unwrap_or_else(|| root.join("target/guest")),
        );
        if Path::new(PROJECT_DIR)
            .canonicalize()
            .is_ok_and(|project| project == root)
        {
            cargo.arg("--locked");
        } else {
            cargo.args(
                PROFILE_SETTINGS
                    .iter()
                    .flat_map(|setting| ["--config", setting]),
            );
        }
        if self.shows_progress {
            cargo.stderr(Stdio::inherit());
        }
        let output = run(&mut cargo)?;
        if output.status.success() {
            Ok((dir, output.stdout))
        } else {
            Err(BuildError::Failed {
                dir,
                output: text(&output.stderr),
            })
        }
    }

    fn workspace_root(&self, dir: &Path) -> Result<PathBuf, BuildError> {
        let mut cargo = toolchain::clean("cargo", dir);
        cargo.args([
            "locate-project",
            "--workspace",
            "--message-format",
            "plain",
            "--manifest-path",
        ]);
        let output = run(cargo.arg(dir.join("Cargo.toml")))?;
        let manifest = PathBuf::from(text(&output.stdout).trim());
        match manifest.parent() {
            Some(root) if output.status.success() => Ok(root.to_owned()),
            _ => Err(self.no_crate(text(&output.stderr))),
        }
    }

    fn no_crate(&self, output: String) -> BuildError {
        BuildError::NoCrate {
            dir: self.dir.clone(),
            output,
        }
    }
}

fn run(command: &mut Command) -> Result<Output, BuildError> {
    command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| BuildError::Run {
            program: command.get_program().into(),
            source,
        })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The component among the artifacts that cargo reports, one JSON object a line. The crate that was
/// asked for comes last.
fn built_component(messages: &[u8]) -> Option<PathBuf> {
    let messages = text(messages);
    let mut components = messages.lines().filter_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        let is_component = message["reason"] == "compiler-artifact"
            && holds(&message["target"]["crate_types"], "cdylib");
        let files = message["filenames"].as_array().filter(|_| is_component)?;
        let files = files.iter().filter_map(Value::as_str);
        files.map(PathBuf::from).find(|file| {
            file.extension()
                .is_some_and(|extension| extension == "wasm")
        })
    });
    components.next_back()
}

fn holds(list: &Value, item: &str) -> bool {
    list.as_array()
        .is_some_and(|items| items.iter().any(|each| each == item))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_component_is_found_among_what_cargo_reports() {
        let messages = [
            r#"{"reason":"compiler-artifact","target":{"crate_types":["lib"]},"filenames":["/t/liba.rlib"]}"#,
            r#"{"reason":"compiler-artifact","target":{"crate_types":["cdylib"]},"filenames":["/t/b.d","/t/b.wasm"]}"#,
            r#"{"reason":"build-finished","success":true}"#,
            "not JSON",
        ];
        assert_eq!(
            built_component(messages.join("\n").as_bytes()),
            Some(PathBuf::from("/t/b.wasm"))
        );
        assert_eq!(built_component(messages[0].as_bytes()), None);
    }
}
