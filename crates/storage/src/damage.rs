//! Damage that is found while a database is in use: it is reported here,
//! by readers and writers, and the service stops.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender};
use std::time::Duration;

use daemon::tasks;
use tokio::sync::mpsc;

use crate::error::StorageError;
use crate::files::OpenFiles;

/// How often it is looked whether a database's files are still there.
const WATCH_INTERVAL: Duration = Duration::from_millis(400);

/// Where damage is reported.
#[derive(Debug, Clone)]
pub struct DamageReporter(mpsc::Sender<String>);

/// Where it is heard of.
#[derive(Debug)]
pub struct DamageReceiver(mpsc::Receiver<String>);

/// Both ends.
pub fn channel() -> (DamageReporter, DamageReceiver) {
    let (sender, receiver) = mpsc::channel(1);
    (DamageReporter(sender), DamageReceiver(receiver))
}

impl DamageReceiver {
    /// What was found; waits until something is.
    pub async fn next(&mut self) -> String {
        match self.0.recv().await {
            Some(found) => found,
            None => std::future::pending().await,
        }
    }
}

impl DamageReporter {
    /// Passes a result on, and reports damage.
    pub fn pass<T>(&self, result: Result<T, StorageError>) -> Result<T, StorageError> {
        if let Err(error) = &result
            && error.is_damage()
        {
            self.report(error.to_string());
        }
        result
    }

    /// Says what was found.
    pub fn report(&self, what: String) {
        // The first one is enough, and where nobody listens the service stops already.
        let _ = self.0.try_send(what);
    }

    /// Reads in a thread of its own what was not read when the database was opened. `read` is
    /// given what says whether to go on.
    pub fn check(
        self,
        read: impl FnOnce(&dyn Fn() -> bool) -> Result<(), StorageError> + Send + 'static,
    ) -> Check {
        let keep_going = Arc::new(AtomicBool::new(true));
        let check = Check {
            keep_going: Arc::clone(&keep_going),
        };
        let spawned = tasks::thread("check", move || {
            let checked = self.pass(read(&|| keep_going.load(Ordering::Relaxed)));
            match checked {
                Ok(()) => tracing::info!("read the database in full: it is as it was written"),
                Err(error) => tracing::error!(%error, "reading the database in full ended early"),
            }
        });
        if let Err(error) = spawned {
            tracing::warn!(%error, "cannot check the whole database: each part is checked when it is read");
        }
        check
    }

    /// Looks every so often, in a thread of its own, whether the files of a database that is open
    /// are still those that were opened, and reports where they are not.
    pub fn watch(self, files: OpenFiles) -> Watch {
        let (end, ended) = std::sync::mpsc::channel();
        let spawned = tasks::thread("watch", move || {
            while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(WATCH_INTERVAL) {
                if self.pass(files.check()).is_err() {
                    return;
                }
            }
        });
        if let Err(error) = spawned {
            tracing::warn!(%error, "cannot watch whether the database's files are still there");
        }
        Watch { _end: end }
    }
}

/// Files are looked at until this is dropped.
#[derive(Debug)]
pub struct Watch {
    _end: Sender<()>,
}

/// A check under way, which ends when this is dropped.
#[derive(Debug)]
pub struct Check {
    keep_going: Arc<AtomicBool>,
}

impl Drop for Check {
    fn drop(&mut self) {
        self.keep_going.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::database::{DataDir, Kind};

    const KIND: Kind = Kind {
        name: "test",
        file: "test.db",
        application_id: 7,
        schema: &["CREATE TABLE t (x INTEGER) STRICT"],
        added: &[],
        gated: &[],
    };

    /// What is reported once something was done to the files of an open database.
    fn found(change: fn(&Path)) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let data_dir = DataDir::take(&path).unwrap();
        let connection = data_dir.open(KIND).unwrap();
        let files = data_dir.files(KIND);
        connection.execute("INSERT INTO t VALUES (1)", []).unwrap();
        files.check().unwrap();
        let (reporter, mut receiver) = channel();
        let _watch = reporter.watch(files);
        change(&path);
        let waiting = tokio::runtime::Builder::new_current_thread().build();
        waiting.unwrap().block_on(receiver.next())
    }

    #[test]
    fn files_that_are_removed_moved_or_replaced_under_a_database_are_noticed() {
        type Change = fn(&Path);
        let changes: [(&str, Change); 4] = [
            ("test.db ", |dir| {
                fs::remove_file(dir.join("test.db")).unwrap();
            }),
            ("test.db-wal ", |dir| {
                fs::remove_file(dir.join("test.db-wal")).unwrap();
            }),
            ("test.db ", |dir| {
                fs::rename(dir, dir.with_file_name("elsewhere")).unwrap();
            }),
            ("test.db ", |dir| {
                fs::copy(dir.join("test.db"), dir.join("copy")).unwrap();
                fs::rename(dir.join("copy"), dir.join("test.db")).unwrap();
            }),
        ];
        for (file, change) in changes {
            let found = found(change);
            let expected = format!("{file}was removed, moved or replaced");
            assert!(found.contains(&expected), "{found}");
        }
    }
}
