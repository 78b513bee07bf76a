//! What ends a process that serves: a signal, or the end of its standard input.

use std::io::{self, Read};

use daemon::tasks;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use crate::error::Error;

/// Ctrl-C and SIGTERM.
#[derive(Debug)]
pub struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignals {
    /// From now on these signals no longer kill the process.
    pub fn catch() -> Result<Self, Error> {
        let catch = |kind| signal(kind).map_err(Error::Signals);
        Ok(Self {
            interrupt: catch(SignalKind::interrupt())?,
            terminate: catch(SignalKind::terminate())?,
        })
    }

    /// Waits for the next of them.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Waits until standard input ends: the other end of a pipe is closed by the kernel when the
/// process that holds it is gone, however it went.
///
/// A thread of its own reads, as a read cannot be cancelled and must not keep the process.
pub async fn end_of_stdin() {
    let (ended, wait) = oneshot::channel();
    let reading = tasks::thread("end of stdin", move || {
        let mut discarded = [0; 64];
        let mut stdin = io::stdin().lock();
        while matches!(stdin.read(&mut discarded), Ok(1..)) {}
        ended.send(()).ok();
    });
    if let Err(error) = reading {
        tracing::error!(%error, "cannot watch standard input");
    }
    wait.await.ok();
}
