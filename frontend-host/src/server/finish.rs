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

/// A connection's side. It is waited for as long as this lives.
#[derive(Debug)]
pub(super) struct Watcher {
    told: watch::Receiver<()>,
}

impl Watcher {
    /// Whether the connection is to finish. Costs little enough to be asked at every poll.
    pub(super) fn is_told(&self) -> bool {
        self.told.has_changed().unwrap_or(true)
    }

    /// Waits until it is.
    pub(super) fn wait_until_told(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut told = self.told.clone();
        async move {
            let _ = told.changed().await;
        }
    }
}
