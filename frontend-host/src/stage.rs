//! How far a gateway's stop has come, for what answers meanwhile.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

/// Set where the gateway is run; it only goes forward.
#[derive(Debug, Default)]
pub struct Stage {
    stop: AtomicU8,
    is_queue_left: AtomicBool,
}

/// It is told to stop, and serves all the same.
const DRAINING: u8 = 1;

/// It takes no more connections, and each answer is its connection's last.
const CLOSING: u8 = 2;

impl Stage {
    /// Told to stop. The gateway says that it is not ready, so that load balancers choose another,
    /// and serves clients as before.
    pub fn drain(&self) {
        self.stop.fetch_max(DRAINING, Ordering::Relaxed);
    }

    /// No more connections are taken, and those that are open end with their next answer.
    pub fn close(&self) {
        self.stop.fetch_max(CLOSING, Ordering::Relaxed);
    }

    /// Who has connected and is not accepted when the gateway stops is left to another process, which has the socket
    /// or will.
    pub fn leave_queue(&self) {
        self.is_queue_left.store(true, Ordering::Relaxed);
    }

    /// Whether they are left to another process. Otherwise nobody else would answer them.
    pub fn is_queue_left(&self) -> bool {
        self.is_queue_left.load(Ordering::Relaxed)
    }

    /// Whether the gateway has been told to stop.
    pub fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed) >= DRAINING
    }

    /// Whether answers are to end their connections.
    pub fn is_closing(&self) -> bool {
        self.stop.load(Ordering::Relaxed) >= CLOSING
    }
}
