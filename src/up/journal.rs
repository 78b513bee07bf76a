//! Whether there is a journal to go on with, one to begin, or one that is lost.
//!
//! A journal is begun once, where the whole data directory is new. Begun another time, in place of
//! one whose disk is lost, it would give the same numbers to other orders, beside ledgers that tell
//! of the first.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use catalog::StoreUrl;
use catalog::config::NESTED_LEASE_MAX;

use super::plan::{CATALOG, GATEWAY, ORDER_PREFIX};
use crate::cli::Up;
use crate::service::catalog_config;

/// A replica's database, in its directory.
const LEDGER: &str = order::store::KIND.file;

/// What every process leaves in its directory, whatever became of it.
const LOCK: &str = "lock";

/// Why there is no journal to start with.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The catalog's disk is lost.
    #[error(
        "there is no journal in {}, but ledgers of one beside it: either its disk is lost, or \
         --data-dir is not the one that it was\n\
         To rebuild it from the ledgers, with the --stocks that it began with:\n  {}\n\
         Once that serves, stop it and start `bazaar up` again",
        catalog.display(), command(catalog, ledgers, stocks.as_deref())
    )]
    Lost {
        /// Where it should be.
        catalog: PathBuf,
        /// The directories of the replicas that have a ledger.
        ledgers: Vec<PathBuf>,
        /// The stocks that were named now.
        stocks: Option<PathBuf>,
    },
    /// Something is lost, and nothing left to rebuild it from.
    #[error(
        "there is no journal in {}, and no ledger to rebuild it from, but {} is left of a bazaar: \
         name another --data-dir, make it of a backup with `bazaar backup restore`, or begin another journal here with\n  bazaar catalog --data-dir={} --new",
        catalog.display(), left.display(), quoted(catalog)
    )]
    Remains {
        /// Where it should be.
        catalog: PathBuf,
        /// A file that a new data directory does not have.
        left: PathBuf,
    },
    /// The data directory cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// Which part of it.
        path: PathBuf,
        source: io::Error,
    },
    #[error("catalog: {0}")]
    NotBegun(#[from] catalog::Error),
}

/// Begins the journal of a data directory that is new. What the catalog has to say of one that is
/// there, it says itself.
///
/// # Errors
/// Where the journal is lost, or cannot be begun.
pub fn prepare(args: &Up) -> Result<(), JournalError> {
    let dir = args.data_dir.join(CATALOG);
    if args.store.is_some() || !matches!(catalog::holds_journal(&dir), Ok(false)) {
        return Ok(());
    }
    let left = left_in(&args.data_dir)?;
    let Some(first) = left.first() else {
        let config = catalog_config(dir, true, args.stocks.clone(), args.lease_ms);
        return Ok(catalog::begin(&config)?);
    };
    let is_ledger = |file: &&PathBuf| file.file_name().is_some_and(|name| name == LEDGER);
    let parent = |file: &PathBuf| file.parent().map(Path::to_owned);
    let mut ledgers: Vec<PathBuf> = left.iter().filter(is_ledger).filter_map(parent).collect();
    ledgers.sort();
    Err(match ledgers.is_empty() {
        true => JournalError::Remains {
            catalog: dir,
            left: first.clone(),
        },
        false => JournalError::Lost {
            catalog: dir,
            ledgers,
            stocks: args.stocks.clone(),
        },
    })
}

/// The same in a database that several catalogs share, before any of them is started.
///
/// # Errors
/// Where the database cannot be used, or the data directory cannot be read.
pub async fn prepare_store(args: &Up) -> Result<(), JournalError> {
    let Some(store) = &args.store else {
        return Ok(());
    };
    let store = StoreUrl::parse(&store.0).map_err(catalog::Error::from)?;
    if !left_in(&args.data_dir)?.is_empty() {
        return Ok(()); // it had a journal
    }
    let config = catalog::PostgresConfig {
        store,
        allow_unreplicated: args.allow_unreplicated,
        reached_at: String::new(),
        new: true,
        stocks: args.stocks.clone(),
        lease: NESTED_LEASE_MAX,
        accept_loss_of: BTreeSet::new(),
        monitor: Default::default(),
        traces: Default::default(),
    };
    Ok(catalog::begin_on_postgres(config).await?)
}

/// The services' files in a data directory that has no journal. Of the catalog's, those of a
/// database that was about to be made are none.
fn left_in(data_dir: &Path) -> Result<Vec<PathBuf>, JournalError> {
    let mut left = Vec::new();
    for entry in entries(data_dir)? {
        let name = entry.to_string_lossy().into_owned();
        let path = data_dir.join(entry);
        if name == CATALOG {
            let database = catalog::store::sqlite::FILE;
            let about_to_be =
                ["", "-wal", "-shm"].map(|suffix| path.join(format!("{database}{suffix}")));
            let is_there = path.join(database).exists();
            let files = files(&path)?.into_iter();
            left.extend(files.filter(|file| !(is_there && about_to_be.contains(file))));
        } else if name == GATEWAY || name.starts_with(ORDER_PREFIX) {
            left.extend(files(&path)?);
        }
    }
    Ok(left)
}

/// All files in and below a directory, but for locks.
fn files(dir: &Path) -> Result<Vec<PathBuf>, JournalError> {
    let mut found = Vec::new();
    for entry in entries(dir)? {
        let path = dir.join(&entry);
        if path.is_dir() {
            found.extend(files(&path)?);
        } else if entry != LOCK {
            found.push(path);
        }
    }
    Ok(found)
}

/// The names in a directory; empty where there is no directory.
fn entries(dir: &Path) -> Result<Vec<std::ffi::OsString>, JournalError> {
    let read = || -> io::Result<Vec<_>> {
        fs::read_dir(dir)?
            .map(|entry| Ok(entry?.file_name()))
            .collect()
    };
    match read() {
        Err(error) if [ErrorKind::NotFound, ErrorKind::NotADirectory].contains(&error.kind()) => {
            Ok(Vec::new())
        }
        read => read.map_err(|source| JournalError::Unreadable {
            path: dir.to_owned(),
            source,
        }),
    }
}

/// The command line that makes a lost catalog anew.
fn command(catalog: &Path, ledgers: &[PathBuf], stocks: Option<&Path>) -> String {
    let mut line = format!("bazaar catalog --data-dir {}", quoted(catalog));
    for ledger in ledgers {
        line += &format!(" --rebuild-from {}", quoted(ledger));
    }
    if let Some(stocks) = stocks {
        line += &format!(" --stocks {}", quoted(stocks));
    }
    line
}

/// As a shell takes it for one word.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%".contains(c);
    if !text.is_empty() && !text.starts_with('-') && text.chars().all(is_plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn up(data_dir: &Path) -> Up {
        let line = ["bazaar", "up", "--data-dir"].map(std::ffi::OsStr::new);
        let line = line.into_iter().chain([data_dir.as_os_str()]);
        match Cli::try_parse_from(line).unwrap().into_command() {
            Command::Up(up) => up,
            other => panic!("{other:?}"),
        }
    }

    fn put(dir: &Path, file: &str) {
        let path = dir.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "x").unwrap();
    }

    #[test]
    fn a_journal_is_begun_where_everything_is_new_and_only_there() {
        let dir = tempfile::tempdir().unwrap();
        let catalog = dir.path().join("catalog");
        fs::create_dir_all(dir.path().join("gateway/policies")).unwrap();
        for file in ["order-1/lock", "catalog/lock", "notes.txt"] {
            put(dir.path(), file);
        }
        prepare(&up(dir.path())).unwrap();
        assert!(catalog::holds_journal(&catalog).unwrap());
        prepare(&up(dir.path())).unwrap();

        for (left, told) in [
            ("order-2/orders.db", "--rebuild-from"),
            ("order-2/orders.db.damaged-1", "--new"),
            ("gateway/policies/state.json", "--new"),
            ("catalog/catalog.db.damaged-1", "--new"),
            ("catalog/catalog.db-wal", "--new"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            put(dir.path(), left);
            let lost = prepare(&up(dir.path())).unwrap_err().to_string();
            assert!(lost.contains(told), "{left}: {lost}");
            assert!(!dir.path().join("catalog/catalog.db").exists(), "{left}");
        }
    }

    #[test]
    fn a_lost_journal_is_made_anew_by_the_command_line_that_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("it's data");
        for file in ["order-1/orders.db", "order-3/orders.db", "order-2/lock"] {
            put(&data, file);
        }
        let lost = prepare(&up(&data)).unwrap_err().to_string();
        let line = lost.lines().find_map(|line| line.strip_prefix("  bazaar "));
        let told = format!("{:?}", line.unwrap());
        let shell = std::process::Command::new("sh")
            .args(["-c", &format!("printf '%s\\n' {}", line.unwrap())])
            .output();
        let words = String::from_utf8(shell.unwrap().stdout).unwrap();
        let words = ["bazaar"].into_iter().chain(words.lines());
        match Cli::try_parse_from(words).unwrap().into_command() {
            Command::Catalog(line) => {
                assert_eq!(line.data_dir, Some(data.join("catalog")), "{told}");
                let ledgers = ["order-1", "order-3"].map(|name| data.join(name));
                assert_eq!(line.rebuild_from, ledgers, "{told}");
            }
            other => panic!("{other:?}"),
        }
    }
}
