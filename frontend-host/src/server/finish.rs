//! How connections are told to finish, and waited for.

use tokio::sync::watch;

/// Connections that are to finish together.
#[derive(Debug)]
pub(super) struct Finish {
    told: watch::Sender<()>,
}

impl Finish {
    /// Of no connection yet.
    pub(super) fn new() -> Self {
        Self {
            told: watch::Sender::new(()),
        }
    }

    /// For one connection, which is waited for as long as this lives.
    pub(super) fn watcher(&self) -> Watcher {
        Watcher {
            told: self.told.subscribe(),
        }
    }

    /// Tells all, and waits until they have ended.
    pub(super) async fn shutdown(self) {
        let _ = self.told.send(());
        self.told.closed().await;
    }
}

/// A connection's side.
#[derive(Debug)]
pub(super) struct Watcher {
    told: watch::Receiver<()>,
}

impl Watcher {
    /// Waits until the connection is to finish. The rest of it is waited for while the caller
    /// keeps what this returns.
    pub(super) async fn told(mut self) -> Self {
        let _ = self.told.changed().await;
        self
    }
}
