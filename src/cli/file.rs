//! Settings of a service in a file: `--config bazaar.toml`.
//!
//! They have the names of flags. Those at the top are for every service that has such a flag; those in a table of a
//! service's name are for that one, and count more. A flag counts more than its environment variable, and that more than the
//! file: what the file adds goes to the command line as if it had been typed.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::{env, fs, io};

use clap::builder::ValueRange;
use toml::{Table, Value};

/// The flag that names the file, and its variable.
const FLAG: &str = "--config";
const VARIABLE: &str = "BAZAAR_CONFIG";

/// The commands that take it.
const COMMANDS: [&str; 4] = ["up", "gateway", "catalog", "order"];

/// Why a file's settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("cannot read {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{}: {source}", path.display())]
    Malformed {
        path: PathBuf,
        source: toml::de::Error,
    },
    /// Nobody has such a flag.
    #[error("{}: `{name}` is not a flag of {of}", path.display())]
    Unknown {
        path: PathBuf,
        name: String,
        of: String,
    },
    /// A flag does not take that.
    #[error("{}: `{name}` is to be {expected}", path.display())]
    Value {
        path: PathBuf,
        name: String,
        expected: &'static str,
    },
}

/// The command line with what its file adds, where it names one.
///
/// # Errors
/// Where the file cannot be read, or says what no flag takes.
pub fn with_file(cli: &clap::Command, mut line: Vec<OsString>) -> Result<Vec<OsString>, FileError> {
    let named = line.get(1).and_then(|word| word.to_str());
    let command = match named {
        Some(word) if COMMANDS.contains(&word) => word.to_owned(),
        Some(word) if !word.starts_with('-') => return Ok(line),
        _ => "up".to_owned(),
    };
    let Some(path) = path(&line) else {
        return Ok(line);
    };
    let text = fs::read_to_string(&path).map_err(|source| FileError::Unreadable {
        path: path.clone(),
        source,
    })?;
    let settings: Table = text.parse().map_err(|source| FileError::Malformed {
        path: path.clone(),
        source,
    })?;
    for (name, value) in settings_of(cli, &command, settings, &path)? {
        let flag = find(cli, &command, &name).expect("it was looked for");
        if !is_given(flag, &line) {
            let values = arguments(flag, &name, &value).map_err(|expected| FileError::Value {
                path: path.clone(),
                name: name.clone(),
                expected,
            })?;
            line.extend(values);
        }
    }
    Ok(line)
}

/// Which file is named, by the flag or else by the variable.
fn path(line: &[OsString]) -> Option<PathBuf> {
    let mut words = line.iter().skip(1);
    while let Some(word) = words.next() {
        if word == FLAG {
            return words.next().map(PathBuf::from);
        }
        let inline = word.to_str().and_then(|word| word.strip_prefix(FLAG));
        if let Some(path) = inline.and_then(|rest| rest.strip_prefix('=')) {
            return Some(path.into());
        }
    }
    let path = env::var_os(VARIABLE).filter(|path| !path.is_empty());
    path.map(PathBuf::from)
}

/// What is said for a command, in the order of the names. All that is said is some service's flag.
fn settings_of(
    cli: &clap::Command,
    command: &str,
    settings: Table,
    path: &std::path::Path,
) -> Result<Table, FileError> {
    let unknown = |name: &str, of: &str| FileError::Unknown {
        path: path.to_owned(),
        name: name.to_owned(),
        of: of.to_owned(),
    };
    let mut of_command = Table::new();
    let (tables, top): (Table, Table) = settings
        .into_iter()
        .partition(|(_, value)| value.is_table());
    for (name, value) in top {
        if !COMMANDS
            .iter()
            .any(|command| find(cli, command, &name).is_some())
        {
            return Err(unknown(&name, "any service"));
        }
        if find(cli, command, &name).is_some() {
            of_command.insert(name, value);
        }
    }
    for (service, table) in tables {
        if !COMMANDS.contains(&service.as_str()) {
            return Err(unknown(&service, "any service, nor the name of one"));
        }
        let Value::Table(table) = table else {
            continue; // they were told apart
        };
        for (name, value) in table {
            if find(cli, &service, &name).is_none() {
                return Err(unknown(&name, &format!("`bazaar {service}`")));
            }
            if service == command {
                of_command.insert(name, value);
            }
        }
    }
    Ok(of_command)
}

/// A flag of a command, by its name; not the one that names the file.
fn find<'a>(cli: &'a clap::Command, command: &str, name: &str) -> Option<&'a clap::Arg> {
    let command = cli.find_subcommand(command)?;
    let mut flags = command.get_arguments();
    flags.find(|flag| flag.get_long() == Some(name) && name != "config" && !flag.is_hide_set())
}

/// Whether a flag is on the command line, or its variable is set.
fn is_given(flag: &clap::Arg, line: &[OsString]) -> bool {
    let name = format!("--{}", flag.get_long().unwrap_or_default());
    let is_flag = |word: &OsStr| {
        let rest = word.to_str().and_then(|word| word.strip_prefix(&name));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
    };
    let variable = flag.get_env().and_then(env::var_os);
    line.iter().skip(1).any(|word| is_flag(word)) || variable.is_some_and(|value| !value.is_empty())
}

/// A setting as it would be typed. What it should be, where it is not.
fn arguments(flag: &clap::Arg, name: &str, value: &Value) -> Result<Vec<OsString>, &'static str> {
    let takes_value = flag
        .get_num_args()
        .is_none_or(|values: ValueRange| values.takes_values());
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        _ => None,
    };
    let typed = |value: String| OsString::from(format!("--{name}={value}"));
    match value {
        Value::Boolean(true) if !takes_value => Ok(vec![format!("--{name}").into()]),
        Value::Boolean(false) if !takes_value => Ok(Vec::new()),
        _ if !takes_value => Err("true or false"),
        Value::Array(values) => {
            let all: Option<Vec<_>> = values.iter().map(text).collect();
            let all = all.ok_or("a list of texts or numbers")?;
            Ok(all.into_iter().map(typed).collect())
        }
        value => Ok(vec![typed(text(value).ok_or("a text or a number")?)]),
    }
}

#[cfg(test)]
mod tests {
    use clap::builder::Resettable;
    use clap::parser::ValueSource;
    use clap::{ArgAction, CommandFactory as _, Id, Parser as _};

    use super::super::{Cli, Command};
    use super::*;

    fn read(line: &str, file: &str) -> Result<Vec<String>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bazaar.toml");
        fs::write(&path, file).unwrap();
        let words = line.replace("FILE", path.to_str().unwrap());
        let line = words.split(' ').map(OsString::from).collect();
        let mut cli = Cli::command();
        cli.build();
        let line = with_file(&cli, line).map_err(|error| error.to_string())?;
        Ok(line
            .into_iter()
            .map(|word| word.into_string().unwrap())
            .collect())
    }

    const FILE: &str = r#"
data-dir = "/var/lib/bazaar"
cluster-ca = "/etc/bazaar/ca.crt"
cluster-cert = "/etc/bazaar/own.crt"
cluster-key = "/etc/bazaar/own.key"

[order]
id = 3
catalog = ["https://a:1", "https://b:2"]
data-dir = "/var/lib/bazaar/order"

[catalog]
new = true
lease-ms = 500
"#;

    #[test]
    fn a_service_has_what_the_file_says_for_it_and_for_all() {
        let line = read("bazaar order --config FILE", FILE).unwrap();
        let Command::Order(order) = Cli::try_parse_from(line).unwrap().into_command() else {
            panic!("it is an order replica");
        };
        assert_eq!((order.id.get(), order.catalogs.len()), (3, 2));
        assert_eq!(order.data_dir, PathBuf::from("/var/lib/bazaar/order"));
        assert!(order.cluster.files().is_some());
        let line = read("bazaar catalog --config=FILE", FILE).unwrap();
        let Command::Catalog(catalog) = Cli::try_parse_from(line).unwrap().into_command() else {
            panic!("it is a catalog");
        };
        assert_eq!((catalog.new, catalog.lease_ms), (true, Some(500)));
    }

    #[test]
    fn what_is_typed_counts_more_and_rules_of_flags_hold() {
        let line = read("bazaar catalog --config FILE --lease-ms=70", FILE).unwrap();
        assert_eq!(
            line.iter()
                .filter(|word| word.starts_with("--lease-ms"))
                .count(),
            1
        );
        // Of three that belong together one is missing: as on the command line.
        let line = read(
            "bazaar catalog --config FILE",
            "cluster-ca = 'a'\ndata-dir = 'd'",
        )
        .unwrap();
        assert!(Cli::try_parse_from(line).is_err());
    }

    /// A flag by itself, whichever others it goes with.
    fn alone(flag: clap::Arg) -> clap::Arg {
        let none = || Resettable::<Id>::Reset;
        let flag = flag.required(false).required_unless_present(none());
        flag.requires(none()).conflicts_with(none())
    }

    /// Something that a flag takes, by what its help calls that: as a file has it, and as it would be typed.
    fn value(flag: &clap::Arg) -> (String, String) {
        let possible = flag.get_possible_values();
        let names = flag.get_value_names().unwrap_or_default();
        let named = names.first().map_or("", |name| name.as_str());
        let text = match (possible.first(), named) {
            (Some(possible), _) => possible.get_name(),
            (None, "ADDRESS") => "127.0.0.1:1",
            (None, "DIR" | "FILE" | "KEYFILE" | "NAME" | "TOKEN") => "x",
            (None, "ID=URL") => "1=http://h:1",
            (None, "ID" | "MS" | "N" | "PORT" | "S") => "1",
            (None, "P") => "0.5",
            (None, "ROWS") => "100",
            (None, "URL") => "http://h:1",
            (None, other) => panic!("--{:?}: say here what a {other} is", flag.get_long()),
        };
        match text.parse::<f64>() {
            Ok(_) => (text.to_owned(), text.to_owned()),
            Err(_) => (format!("'{text}'"), text.to_owned()),
        }
    }

    #[test]
    fn every_flag_of_a_service_can_be_said_in_a_file() {
        let mut cli = Cli::command().mut_subcommands(|command| command.mut_args(alone));
        cli.build();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bazaar.toml");
        for service in COMMANDS {
            let command = cli.find_subcommand(service).unwrap();
            let flags = command.get_arguments().filter(|flag| {
                let is_own = !["config", "help", "version"].contains(&flag.get_id().as_str());
                is_own && flag.get_id() != "_config" && !flag.is_hide_set()
            });
            let flags: Vec<_> = flags.cloned().collect();
            assert!(flags.len() > 10, "{service}");
            for flag in flags {
                let name = flag.get_long().expect("services take nothing but flags");
                let takes_values = flag.get_action().takes_values();
                let (said, typed) = match (takes_values, flag.get_action()) {
                    (false, _) => ("true".to_owned(), Vec::new()),
                    (true, ArgAction::Append) => {
                        let (said, typed) = value(&flag);
                        (format!("[{said}, {said}]"), vec![typed.clone(), typed])
                    }
                    (true, _) => {
                        let (said, typed) = value(&flag);
                        (said, vec![typed])
                    }
                };
                for file in [
                    format!("{name} = {said}"),
                    format!("[{service}]\n{name} = {said}"),
                ] {
                    fs::write(&path, &file).unwrap();
                    let config = format!("--config={}", path.display());
                    let line = ["bazaar", service, &config].map(OsString::from);
                    let line = with_file(&cli, line.into()).unwrap();
                    let matches = cli.clone().try_get_matches_from(line);
                    let matches = matches.unwrap_or_else(|error| panic!("{file}: {error}"));
                    let matches = matches.subcommand_matches(service).unwrap();
                    let id = flag.get_id().as_str();
                    let source = matches.value_source(id);
                    assert_eq!(source, Some(ValueSource::CommandLine), "{service}: {file}");
                    if takes_values {
                        let given = matches.get_raw(id).unwrap();
                        let given: Vec<_> = given.map(|value| value.to_str().unwrap()).collect();
                        assert_eq!(given, typed, "{service}: {file}");
                    } else {
                        assert!(matches.get_flag(id), "{service}: {file}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_no_flag_takes_is_refused_by_name() {
        for (file, said) in [
            ("dta-dir = 'x'", "`dta-dir` is not a flag of any service"),
            (
                "[order]\nnew = true",
                "`new` is not a flag of `bazaar order`",
            ),
            (
                "[orders]\nid = 1",
                "`orders` is not a flag of any service, nor the name of one",
            ),
            ("[catalog]\nnew = 'yes'", "`new` is to be true or false"),
            (
                "[catalog]\nlease-ms = true",
                "`lease-ms` is to be a text or a number",
            ),
            ("[catalog]\nlease-ms = [[1]]", "a list of texts or numbers"),
            ("lease-ms = ", "TOML parse error"),
        ] {
            let refused = read("bazaar catalog --config FILE", file).unwrap_err();
            assert!(refused.contains(said), "{refused}");
        }
        assert!(
            read("bazaar catalog --config /nowhere", "")
                .unwrap_err()
                .contains("cannot read")
        );
    }

    #[test]
    fn other_commands_have_a_flag_of_that_name_for_other_things() {
        let line = "bazaar policy push p.wasm --config FILE";
        assert_eq!(read(line, FILE).unwrap().len(), 6);
    }
}
