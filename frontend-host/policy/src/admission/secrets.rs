//! Secrets that a configuration refers to: `${file:NAME}` and `${env:NAME}` stand for what is in
//! a file or a variable. `$${` stands for `${`.
//!
//! Who may push a policy can have it show all that it is given. So only what the gateway's operator has set
//! aside for policies can be referred to: files in one directory, and variables whose names begin
//! with `BAZAAR_SECRET_`.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::guest::config::Config;
use crate::limits::CONFIG_BYTES_MAX;

/// What the names of variables begin with that may be referred to.
const VARIABLE_PREFIX: &str = "BAZAAR_SECRET_";

/// Where secrets are found.
#[derive(Debug, Clone, Default)]
pub struct Secrets {
    dir: Option<PathBuf>,
}

/// Why a reference cannot be resolved. Names the secret, and does not show it.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// It is neither `${file:…}` nor `${env:…}`.
    #[error(
        "`${{{0}}}` is no reference: write ${{file:NAME}}, ${{env:NAME}}, or $${{ for the text itself"
    )]
    Reference(String),
    /// It is not set aside for policies.
    #[error("the variable {0} is not for policies: its name must begin with {VARIABLE_PREFIX}")]
    Variable(String),
    /// There is none of that name.
    #[error("the variable {0} is not set in the gateway's environment")]
    NotSet(String),
    /// The gateway has no directory of secrets.
    #[error("there are no secrets in files: start the gateway with --policy-secrets DIR")]
    NoDirectory,
    /// It is elsewhere.
    #[error("{0} is not in the directory that --policy-secrets names")]
    Outside(String),
    /// The file cannot be read.
    #[error("the secret {name} cannot be read: {source}")]
    File {
        /// As it is referred to.
        name: String,
        source: io::Error,
    },
    /// It is not one line of text.
    #[error("the secret {0} is not one line of text")]
    NotText(String),
    /// It is empty, and would let everybody in.
    #[error("the secret {0} is empty")]
    Empty(String),
    /// All together is too much.
    #[error("with its secrets it has more than {CONFIG_BYTES_MAX} bytes")]
    TooLarge,
}

impl Secrets {
    /// Files in that directory, and variables; variables alone without one.
    pub fn in_directory(dir: Option<PathBuf>) -> Self {
        Self { dir }
    }

    /// A configuration with what it refers to in the places of the references. A secret is written as it
    /// stands between quotation marks in JSON and TOML.
    ///
    /// # Errors
    /// Where a reference has no meaning, or may not be made.
    pub(crate) fn resolve(&self, config: &[u8]) -> Result<Config, SecretError> {
        let Ok(text) = str::from_utf8(config) else {
            return Ok(Config::plain(config));
        };
        let (mut resolved, mut secrets) = (String::new(), Vec::new());
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            let (before, reference) = rest.split_at(at);
            if let Some(before) = before.strip_suffix('$') {
                resolved.push_str(before);
                resolved.push_str("${");
                rest = &reference[2..];
                continue;
            }
            let (name, after) = reference[2..]
                .split_once('}')
                .ok_or_else(|| SecretError::Reference(beginning(&reference[2..])))?;
            let secret = self.read(name)?;
            let quoted = serde_json::to_string(&secret).expect("a string is JSON");
            let quoted = &quoted[1..quoted.len() - 1];
            resolved.push_str(before);
            resolved.push_str(quoted);
            if quoted != secret {
                secrets.push(quoted.to_owned());
            }
            secrets.push(secret);
            rest = after;
            if resolved.len() > CONFIG_BYTES_MAX {
                return Err(SecretError::TooLarge);
            }
        }
        resolved.push_str(rest);
        if resolved.len() > CONFIG_BYTES_MAX.max(config.len()) {
            return Err(SecretError::TooLarge);
        }
        Ok(Config::resolved(config, resolved.into_bytes(), secrets))
    }

    fn read(&self, reference: &str) -> Result<String, SecretError> {
        let (name, secret) = match reference.split_once(':') {
            Some(("env", name)) => (name, variable(name)?),
            Some(("file", name)) => (name, self.file(name)?),
            _ => return Err(SecretError::Reference(beginning(reference))),
        };
        let secret = secret.trim_end_matches(['\r', '\n']);
        if secret.is_empty() {
            return Err(SecretError::Empty(name.to_owned()));
        }
        if secret.chars().any(char::is_control) {
            return Err(SecretError::NotText(name.to_owned()));
        }
        Ok(secret.to_owned())
    }

    fn file(&self, name: &str) -> Result<String, SecretError> {
        let dir = self.dir.as_ref().ok_or(SecretError::NoDirectory)?;
        let failed = |source| SecretError::File {
            name: name.to_owned(),
            source,
        };
        let path = dir.join(name);
        // Links may go from one place in it to another.
        let place = fs::canonicalize(&path).map_err(failed)?;
        if !place.starts_with(fs::canonicalize(dir).map_err(failed)?) {
            return Err(SecretError::Outside(name.to_owned()));
        }
        read_bounded(&place).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => SecretError::NotText(name.to_owned()),
            _ => failed(error),
        })
    }
}

fn read_bounded(path: &Path) -> io::Result<String> {
    use io::Read as _;
    let file = fs::File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let mut text = String::new();
    file.take(CONFIG_BYTES_MAX as u64 + 1)
        .read_to_string(&mut text)?;
    Ok(text)
}

fn variable(name: &str) -> Result<String, SecretError> {
    if !name.starts_with(VARIABLE_PREFIX) {
        return Err(SecretError::Variable(beginning(name)));
    }
    match env::var(name) {
        Ok(secret) => Ok(secret),
        Err(env::VarError::NotPresent) => Err(SecretError::NotSet(name.to_owned())),
        Err(env::VarError::NotUnicode(_)) => Err(SecretError::NotText(name.to_owned())),
    }
}

/// What is shown of what is no reference.
fn beginning(text: &str) -> String {
    text.chars().take(40).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(dir: Option<&Path>, config: &str) -> Result<String, String> {
        let secrets = Secrets::in_directory(dir.map(Path::to_owned));
        let config = secrets.resolve(config.as_bytes());
        let config = config.map_err(|error| error.to_string())?;
        Ok(String::from_utf8(config.bytes().to_vec()).unwrap())
    }

    #[test]
    fn files_stand_where_they_are_named_and_nothing_else_does() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, secret: &str| fs::write(dir.path().join(name), secret).unwrap();
        write("key", "hunter2\n");
        write("quoted", "a\"b\\");
        write("lines", "one\ntwo");
        write("empty", "\n");
        write("large", &"x".repeat(CONFIG_BYTES_MAX));
        let resolved = |config: &str| resolved(Some(dir.path()), config);
        assert_eq!(
            resolved(r#"{"a":"${file:key}","b":"${file:quoted}","c":"$${file:key}"}"#).unwrap(),
            r#"{"a":"hunter2","b":"a\"b\\","c":"${file:key}"}"#
        );
        let absolute = dir.path().join("key");
        assert_eq!(
            resolved(&format!("${{file:{}}}", absolute.display())).unwrap(),
            "hunter2"
        );
        for (config, problem) in [
            ("${file:none}", "cannot be read"),
            ("${file:../../etc/passwd}", ""),
            ("${file:/etc/passwd}", "not in the directory"),
            ("${file:}", "it is not a file"),
            ("${file:lines}", "not one line"),
            ("${file:empty}", "is empty"),
            ("${file:large}${file:large}", "more than"),
            ("${env:PATH}", "must begin with BAZAAR_SECRET_"),
            ("${env:BAZAAR_SECRET_THAT_IS_NOT_SET}", "is not set"),
            ("${home}", "is no reference"),
            ("${file:key", "is no reference"),
        ] {
            let refused = resolved(config).unwrap_err();
            assert!(refused.contains(problem), "{config}: {refused}");
        }
        assert!(
            super::tests::resolved(None, "${file:key}")
                .unwrap_err()
                .contains("--policy-secrets")
        );
        assert_eq!(
            resolved("no $ {reference} $$").unwrap(),
            "no $ {reference} $$"
        );
    }

    #[test]
    fn a_secret_is_not_in_what_is_shown() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("key"), "a\"secret").unwrap();
        let secrets = Secrets::in_directory(Some(dir.path().to_owned()));
        let config = secrets.resolve(b"key=${file:key}").unwrap();
        assert_eq!(
            config.scrub(r#"no a"secret and no a\"secret here"#),
            "no … and no … here"
        );
        assert_eq!(format!("{config:?}"), "Config(13 bytes)");
    }
}
