//! `bazaar policy new`: a directory with a policy of its own, which builds at once.
//!
//! All that is written travels in this command: the templates, the world, and what policies in Rust
//! build on. Compilers and their packages do not.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use policy_build::RustVersion;

use crate::cli::Language;

/// The world that policies are of, and those before.
pub const WORLD: &str = include_str!("../../wit/policy.wit");
pub const WORLD_1_1: &str = include_str!("../../wit/1.1/policy.wit");
pub const WORLD_1_0: &str = include_str!("../../wit/1.0/policy.wit");

/// The sources that policies in Rust build on, by their names.
const SDK: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/sdk.rs"));

/// Known to build: the versions that this project itself uses.
const LOCK_FILE: &str = include_str!("../../Cargo.lock");

/// The world as C has it: what a policy includes, what is compiled with it, and what says of which world
/// a component is.
const C_HEADER: &str = include_str!(concat!(env!("OUT_DIR"), "/c/front_end.h"));
const C_SOURCE: &str = include_str!(concat!(env!("OUT_DIR"), "/c/front_end.c"));
const C_WORLD: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/c/front_end_component_type.o"));

/// What stands for the policy's name in templates.
const NAME: &str = "POLICY-NAME";

/// A file of a template: its name, what is in it, and whether it can be run.
struct File {
    name: String,
    contents: Vec<u8>,
    is_executable: bool,
}

impl File {
    fn new(name: impl Into<String>, contents: impl Into<Vec<u8>>) -> Self {
        Self {
            name: name.into(),
            contents: contents.into(),
            is_executable: false,
        }
    }

    fn executable(name: &str, contents: &str) -> Self {
        Self {
            is_executable: true,
            ..Self::new(name, contents)
        }
    }
}

/// Why a policy was not made.
#[derive(Debug, thiserror::Error)]
pub enum NewError {
    /// Something is there already.
    #[error("{} is there already; name a directory that is not", .0.display())]
    Exists(PathBuf),
    /// The directory's name cannot be a policy's.
    #[error("`{0}` cannot name a policy: use letters, digits, - and _, beginning with a letter")]
    Name(String),
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// What was to be written.
        path: PathBuf,
        /// Why it was not.
        source: io::Error,
    },
}

/// Makes the directory; returns what to do next.
pub fn create(dir: &Path, language: Language) -> Result<String, NewError> {
    if dir.exists() {
        return Err(NewError::Exists(dir.to_owned()));
    }
    let name = name(dir)?;
    for file in files(name, language) {
        let path = dir.join(&file.name);
        write(&path, &file).map_err(|source| NewError::Write { path, source })?;
    }
    let source = match language {
        Language::Rust => "src/lib.rs",
        Language::Js => "policy.js",
        Language::Python => "policy.py",
        Language::C => "policy.c",
    };
    let dir = dir.display();
    let test = match language {
        Language::Rust => format!("  cargo test --manifest-path {dir}/Cargo.toml\n"),
        Language::Js | Language::Python | Language::C => String::new(),
    };
    Ok(format!(
        "{dir}/{source} is your policy. Next:\n{test}  bazaar policy build {dir}\n"
    ))
}

/// What is in the directory of a policy in this language.
fn files(name: &str, language: Language) -> Vec<File> {
    let mut files = vec![File::new("wit/policy.wit", WORLD)];
    files.extend(match language {
        Language::Rust => rust(name),
        Language::C => vec![
            File::new(
                "policy.c",
                include_str!("template/c/policy.c").replace(NAME, name),
            ),
            File::new("text.h", include_str!("template/c/text.h")),
            File::new("json.h", include_str!("template/c/json.h")),
            File::executable("build", include_str!("template/c/build")),
            File::new("bindings/front_end.h", C_HEADER),
            File::new("bindings/front_end.c", C_SOURCE),
            File::new("bindings/front_end_component_type.o", C_WORLD),
        ],
        Language::Js => vec![
            File::new(
                "policy.js",
                include_str!("../../frontend-guest/examples/javascript/policy.js")
                    .replace("name: \"javascript\"", &format!("name: \"{name}\"")),
            ),
            File::new(
                "package.json",
                include_str!("../../frontend-guest/examples/javascript/package.json"),
            ),
            File::new(
                "package-lock.json",
                include_str!("../../frontend-guest/examples/javascript/package-lock.json"),
            ),
            File::executable(
                "build",
                include_str!("../../frontend-guest/examples/javascript/build"),
            ),
        ],
        Language::Python => vec![
            File::new(
                "policy.py",
                include_str!("../../frontend-guest/examples/python/policy.py")
                    .replace("name=\"python\"", &format!("name=\"{name}\"")),
            ),
            File::new(
                "requirements.txt",
                include_str!("../../frontend-guest/examples/python/requirements.txt"),
            ),
            File::executable(
                "build",
                include_str!("../../frontend-guest/examples/python/build"),
            ),
        ],
    });
    files.push(File::new(".gitignore", "/target\n"));
    files
}

fn rust(name: &str) -> Vec<File> {
    let fill = |template: &str| {
        let rust_version = RustVersion::oldest_for_policies().to_string();
        let filled = template.replace(NAME, name);
        let filled = filled.replace("SDK-VERSION", env!("CARGO_PKG_VERSION"));
        filled.replace("RUST-VERSION", &rust_version)
    };
    let mut files = vec![
        File::new(
            "Cargo.toml",
            fill(include_str!("template/rust/manifest.toml")),
        ),
        File::new("src/lib.rs", fill(include_str!("template/rust/policy.rs"))),
        File::new("Cargo.lock", LOCK_FILE),
        File::new(
            "sdk/Cargo.toml",
            fill(include_str!("template/rust/sdk.toml")),
        ),
    ];
    let sdk = SDK.iter();
    files.extend(sdk.map(|(name, contents)| File::new(format!("sdk/src/{name}"), *contents)));
    files
}

fn name(dir: &Path) -> Result<&str, NewError> {
    let name = dir
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let allowed = |character: char| character.is_ascii_alphanumeric() || "-_".contains(character);
    if name.starts_with(|first: char| first.is_ascii_alphabetic()) && name.chars().all(allowed) {
        Ok(name)
    } else {
        Err(NewError::Name(name.to_owned()))
    }
}

fn write(path: &Path, file: &File) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    fs::write(path, &file.contents)?;
    if file.is_executable {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LANGUAGES: [Language; 4] = [Language::Rust, Language::Js, Language::Python, Language::C];

    #[test]
    fn a_directory_names_the_policy() {
        assert_eq!(
            name(Path::new("some/where/my-policy_2")).unwrap(),
            "my-policy_2"
        );
        for wrong in ["..", "/", "2fast", "a b", "naïve"] {
            assert!(name(Path::new(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn nothing_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        for language in LANGUAGES {
            let created = create(dir.path(), language);
            assert!(matches!(created, Err(NewError::Exists(_))));
        }
    }

    /// Of what a policy is made, nothing is where this command was built.
    #[test]
    fn a_policy_names_itself_and_nothing_outside_of_its_directory() {
        for language in LANGUAGES {
            let files = files("my-own", language);
            let text = |file: &File| String::from_utf8_lossy(&file.contents).into_owned();
            let names_itself = |file: &File| text(file).contains("\"my-own\"");
            assert!(files.iter().any(names_itself), "{language:?}");
            assert_eq!(files[0].contents, WORLD.as_bytes());
            for file in files.iter().filter(|file| file.name != "Cargo.lock") {
                for outside in [env!("CARGO_MANIFEST_DIR"), NAME, "workspace = true"] {
                    let name = &file.name;
                    assert!(!text(file).contains(outside), "{name}: {outside}");
                }
            }
        }
    }

    /// What the SDK depends on is said twice: for the project, and for those outside of it.
    #[test]
    fn the_sdk_depends_on_what_it_does_in_the_project() {
        let [project, own, written] = [
            include_str!("../../Cargo.toml"),
            include_str!("../../frontend-guest/Cargo.toml"),
            include_str!("template/rust/sdk.toml"),
        ];
        let section = |text: &'static str, name: &str| {
            let mut lines = text.lines().skip_while(|line| *line != name).skip(1);
            let mut section = Vec::new();
            while let Some(line) = lines.next().filter(|line| !line.starts_with('[')) {
                section
                    .extend(Some(line).filter(|line| !line.is_empty() && !line.starts_with('#')));
            }
            section
        };
        let crate_of = |line: &str| -> String {
            line.split([' ', '.', '='])
                .next()
                .unwrap_or_default()
                .to_owned()
        };
        let version = |line: &str| line.split('"').nth(1).unwrap_or_default().to_owned();
        let own = section(own, "[dependencies]");
        let written = section(written, "[dependencies]");
        assert_eq!(own.len(), written.len());
        for (own, written) in own.iter().zip(&written) {
            let name = crate_of(own);
            assert_eq!(name, crate_of(written));
            let project = section(project, "[workspace.dependencies]");
            let project = project.iter().find(|line| crate_of(line) == name);
            assert_eq!(version(project.unwrap()), version(written), "{name}");
        }
    }
}
