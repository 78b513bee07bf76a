//! What ends a process: a signal, or the end of its standard input; and what ends it for certain.

use std::io::{self, Read};
use std::thread;
use std::time::Duration;

use daemon::tasks;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use crate::error::Error;

/// Longest time between a service's being told to stop and its end: more than any of them needs.
/// What still runs then, as the compilation of a policy may, is cut off.
pub const STOP_TIME_MAX: Duration = Duration::from_secs(9);

/// Ctrl-C, SIGTERM and SIGHUP.
#[derive(Debug)]
pub struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    on_hangup: OnHangup,
}

/// What it means that the terminal is gone.
#[derive(Debug, Clone, Copy)]
enum OnHangup {
    Stop,
    /// Nothing, and says so.
    GoOn(fn(&str)),
}

impl StopSignals {
    /// For a command that somebody waits for: from now on none of these signals kills the process,
    /// and each of them asks it to stop.
    pub fn catch() -> Result<Self, Error> {
        Self::caught(OnHangup::Stop)
    }

    /// For a service: SIGHUP stops nothing. There is nothing to read anew either; `say` tells.
    pub fn catch_for_service(say: fn(&str)) -> Result<Self, Error> {
        Self::caught(OnHangup::GoOn(say))
    }

    fn caught(on_hangup: OnHangup) -> Result<Self, Error> {
        let catch = |kind| signal(kind).map_err(Error::Signals);
        Ok(Self {
            interrupt: catch(SignalKind::interrupt())?,
            terminate: catch(SignalKind::terminate())?,
            hangup: catch(SignalKind::hangup())?,
            on_hangup,
        })
    }

    /// Waits for the next that asks to stop.
    pub async fn next(&mut self) {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => return,
                _ = self.terminate.recv() => return,
                _ = self.hangup.recv() => match self.on_hangup {
                    OnHangup::Stop => return,
                    OnHangup::GoOn(say) => say("SIGHUP is ignored: there is no configuration to reload"),
                },
            }
        }
    }
}

/// Ends the process, whatever it is doing, unless it has ended by itself after this time.
///
/// # Errors
/// Where there is no thread to wait on.
pub fn end_after(time: Duration) -> io::Result<()> {
    let wait = move || {
        thread::sleep(time);
        tracing::error!(?time, "not stopped in time: ending all the same");
        daemon::fail()
    };
    tasks::thread("stop", wait).map(drop)
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
