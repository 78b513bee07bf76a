//! What this gateway says of itself to the catalog, while somebody looks at all gateways.

use bytes::Bytes;
use tokio::sync::watch;

/// Between who makes reports and the session that they are sent in.
#[derive(Debug, Default)]
pub struct Reporting {
    wanted: watch::Sender<bool>,
    latest: watch::Sender<Bytes>,
}

impl Reporting {
    /// The catalog wants reports from now on, or none; a catalog of before never does.
    pub fn want(&self, is_wanted: bool) {
        self.wanted.send_if_modified(|wanted| {
            let changes = *wanted != is_wanted;
            *wanted = is_wanted;
            changes
        });
    }

    /// Whether they are wanted.
    pub fn is_wanted(&self) -> bool {
        *self.wanted.borrow()
    }

    /// Waits until they are.
    pub async fn wait_until_wanted(&self) {
        let mut wanted = self.wanted.subscribe();
        let _ = wanted.wait_for(|wanted| *wanted).await; // its sender is here
    }

    /// A report, which takes the place of the one before.
    pub fn publish(&self, report: Bytes) {
        self.latest.send_replace(report);
    }

    /// The latest report, now and after every other one.
    pub fn latest(&self) -> watch::Receiver<Bytes> {
        self.latest.subscribe()
    }
}
