//! How far a gateway's stop has come, for what answers meanwhile.

use std::sync::atomic::{AtomicU8, Ordering};

/// Set where the gateway is run; it only goes forward.
#[derive(Debug, Default)]
pub struct Stage(AtomicU8);

/// It is told to stop, and serves all the same.
const DRAINING: u8 = 1;

/// It takes no more connections, and each answer is its connection's last.
const CLOSING: u8 = 2;

impl Stage {
    /// Told to stop. The gateway says that it is not ready, so that load balancers choose another,
    /// and serves clients as before.
    pub fn drain(&self) {
        self.0.fetch_max(DRAINING, Ordering::Relaxed);
    }

    /// No more connections are taken, and those that are open end with their next answer.
    pub fn close(&self) {
        self.0.fetch_max(CLOSING, Ordering::Relaxed);
    }

    /// Whether the gateway has been told to stop.
    pub fn is_stopping(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= DRAINING
    }

    /// Whether answers are to end their connections.
    pub fn is_closing(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= CLOSING
    }
}
