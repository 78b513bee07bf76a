//! What the kernel knows of a thread: its processor time and its priority.

use std::time::Duration;

use rustix::process::setpriority_process;
use rustix::time::{ClockId, clock_gettime};

/// Niceness of threads that serve nobody. Linux then gives a thread that serves three times as much
/// of a processor. With ten times as much, a busy machine took half a minute to check a policy.
const NICENESS: i32 = 5;

/// How long this thread has been on a processor.
pub(crate) fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        time.tv_sec.try_into().unwrap_or(0),
        time.tv_nsec.try_into().unwrap_or(0),
    )
}

/// Lets those that serve go first from now on.
pub(crate) fn yield_to_others() {
    // On Linux niceness is a thread's own, and 0 is the thread that asks.
    if let Err(error) = setpriority_process(None, NICENESS) {
        tracing::debug!(%error, "a thread keeps its priority");
    }
}
