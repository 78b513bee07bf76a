//! Damage that is found while a database is in use: whoever finds it, reading or writing, says so
//! here, and the service stops.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use daemon::tasks;
use tokio::sync::mpsc;

use crate::error::StorageError;

/// Where damage is reported.
#[derive(Debug, Clone)]
pub struct Finders(mpsc::Sender<String>);

/// Where it is heard of.
#[derive(Debug)]
pub struct Findings(mpsc::Receiver<String>);

/// Both ends.
pub fn channel() -> (Finders, Findings) {
    let (sender, receiver) = mpsc::channel(1);
    (Finders(sender), Findings(receiver))
}

impl Findings {
    /// What was found; waits until something is.
    pub async fn next(&mut self) -> String {
        match self.0.recv().await {
            Some(found) => found,
            None => std::future::pending().await,
        }
    }
}

impl Finders {
    /// Passes a result on, and reports damage.
    pub fn pass<T>(&self, result: Result<T, StorageError>) -> Result<T, StorageError> {
        if let Err(error) = &result
            && error.is_damage()
        {
            // The first one is enough, and where nobody listens the replica stops already.
            let _ = self.0.try_send(error.to_string());
        }
        result
    }

    /// Reads in a thread of its own what was not read when the database was opened. `read` is
    /// given what says whether to go on.
    pub fn check(
        self,
        read: impl FnOnce(&dyn Fn() -> bool) -> Result<(), StorageError> + Send + 'static,
    ) -> Check {
        let go_on = Arc::new(AtomicBool::new(true));
        let check = Check {
            go_on: Arc::clone(&go_on),
        };
        let spawned = tasks::thread("check", move || {
            let checked = self.pass(read(&|| go_on.load(Ordering::Relaxed)));
            match checked {
                Ok(()) => tracing::info!("read the database in full: it is as it was written"),
                Err(error) => tracing::error!(%error, "reading the database in full ended early"),
            }
        });
        if let Err(error) = spawned {
            tracing::warn!(%error, "the database is checked only where it is read");
        }
        check
    }
}

/// A check under way, which ends when this is dropped.
#[derive(Debug)]
pub struct Check {
    go_on: Arc<AtomicBool>,
}

impl Drop for Check {
    fn drop(&mut self) {
        self.go_on.store(false, Ordering::Relaxed);
    }
}
