//! What keeps the disks of a bazaar busy beside trades.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use catalog::DATABASE_FILE;
use rusqlite::Connection;

use super::Moment;
use crate::contender::bazaar::{catalog_dir, replica_dir};
use crate::error::Error;
use crate::growth::REPLICAS;
use crate::process;
use crate::trial::Bench;

/// What replicas call theirs.
const ORDERS_FILE: &str = "orders.db";

/// How long a checkpoint may wait for those who read.
const PATIENCE: Duration = Duration::from_secs(5);

/// `bazaar backup take`.
pub struct Backup {
    bazaar: PathBuf,
    data: PathBuf,
    file: PathBuf,
}

impl Backup {
    /// Of a bazaar that runs in a directory.
    pub fn of(bench: Bench<'_>, dir: &Path) -> Self {
        Self {
            bazaar: bench.plan.bazaar.clone(),
            data: dir.join("data"),
            file: dir.join("backup"),
        }
    }
}

impl Moment for Backup {
    fn happen(&mut self) -> Result<(), Error> {
        let mut line = process::command(&self.bazaar);
        line.args(["backup", "take"])
            .arg(&self.file)
            .arg("--data-dir")
            .arg(&self.data);
        process::run(line).map(drop)
    }

    fn mend(&mut self) -> Result<(), Error> {
        fs::remove_file(&self.file).map_err(Error::file(&self.file))
    }
}

/// All logs are moved into their databases at once, which services do one by one, when a log is long.
pub struct Checkpoint {
    databases: Vec<PathBuf>,
}

impl Checkpoint {
    /// Of a bazaar that runs in a directory.
    pub fn of(dir: &Path) -> Self {
        let replicas = REPLICAS.into_iter();
        let replicas = replicas.map(|id| replica_dir(dir, id).join(ORDERS_FILE));
        let catalog = catalog_dir(dir).join(DATABASE_FILE);
        Self {
            databases: std::iter::once(catalog).chain(replicas).collect(),
        }
    }
}

impl Moment for Checkpoint {
    fn happen(&mut self) -> Result<(), Error> {
        self.databases.iter().try_for_each(|database| {
            checkpoint(database).map_err(|error| Error::Failed {
                program: format!("a checkpoint of {}", database.display()),
                output: error.to_string(),
            })
        })
    }
}

fn checkpoint(database: &Path) -> rusqlite::Result<()> {
    let connection = Connection::open(database)?;
    connection.busy_timeout(PATIENCE)?;
    connection.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_moves_the_log_of_a_database_that_is_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let database = dir.path().join("catalog.db");
        let writer = Connection::open(&database).unwrap();
        let begin = "PRAGMA journal_mode = wal; CREATE TABLE t (x); INSERT INTO t VALUES (1)";
        writer.execute_batch(begin).unwrap();
        let before = fs::metadata(&database).unwrap().len();
        let mut moment = Checkpoint {
            databases: vec![database.clone()],
        };
        moment.happen().unwrap();
        assert!(fs::metadata(&database).unwrap().len() > before);
        writer.execute("INSERT INTO t VALUES (2)", []).unwrap();
    }
}
