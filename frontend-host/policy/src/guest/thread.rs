//! What the kernel knows of a thread: its processor time and its priority.

use std::time::Duration;

use rustix::process::setpriority_process;
use rustix::time::{ClockId, clock_gettime};
use thread_priority::{
    NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};

/// Niceness of threads that serve nobody. Linux then gives a thread that serves three times as much
/// of a processor. With ten times as much, a busy machine took half a minute to check a policy.
const NICENESS: i32 = 5;

/// How long this thread has been on a processor.
pub(crate) fn processor_time() -> Duration {
    time_by(ClockId::ThreadCPUTime)
}

/// How long all threads of this process have been on processors, together.
pub(crate) fn processor_time_of_all() -> Duration {
    time_by(ClockId::ProcessCPUTime)
}

fn time_by(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(
        time.tv_sec.try_into().unwrap_or(0),
        time.tv_nsec.try_into().unwrap_or(0),
    )
}

/// Lets everybody else go first from now on: it runs where a processor has nothing else to do, and is
/// off it at once when there is. Threads that this one starts are the same.
pub(crate) fn run_when_idle() {
    let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
    let set = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, idle);
    if let Err(error) = set {
        tracing::debug!(?error, "a thread keeps its scheduling policy");
    }
}

/// Lets those that serve go first from now on.
pub(crate) fn yield_to_others() {
    // On Linux niceness is a thread's own, and 0 is the thread that asks.
    if let Err(error) = setpriority_process(None, NICENESS) {
        tracing::debug!(%error, "a thread keeps its priority");
    }
}
