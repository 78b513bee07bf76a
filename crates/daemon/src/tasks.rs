//! Tasks and threads, by how long they live.
//!
//! A panic in one of a long life ends the process, with exit code 1: what it did for the others is
//! not done any more, and nobody would notice. The supervisor of the process starts it again,
//! and Bazaar is built to lose a process at any time.

use std::future::{Future, poll_fn};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::thread;

use tokio::task::JoinHandle;

/// A task of a long life; dropping this ends it.
#[derive(Debug)]
#[must_use = "a task ends when this is dropped"]
pub struct Task<T>(JoinHandle<T>);

/// Starts a task of a long life. `name` is for the log.
pub fn spawn<T: Send + 'static>(
    name: impl Into<String>,
    task: impl Future<Output = T> + Send + 'static,
) -> Task<T> {
    let name = name.into();
    #[expect(clippy::disallowed_methods, reason = "a panic is seen to")]
    Task(tokio::spawn(async move {
        let mut task = pin!(task);
        poll_fn(|context| unless_panicked(&name, || task.as_mut().poll(context))).await
    }))
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Completes with what the task does. Never where its runtime ends before it.
impl<T> Future for Task<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        match ready!(Pin::new(&mut self.0).poll(context)) {
            Ok(output) => Poll::Ready(output),
            // Cancelled: a panic has ended the process.
            Err(_) => Poll::Pending,
        }
    }
}

/// Starts a task for one caller. A panic in it is in the log, and ends what that caller waits
/// for: to be used where the caller notices that, and nobody else depends on the task.
pub fn spawn_for_caller<T: Send + 'static>(
    task: impl Future<Output = T> + Send + 'static,
) -> JoinHandle<T> {
    #[expect(clippy::disallowed_methods, reason = "the caller sees its end")]
    tokio::spawn(task)
}

/// Starts a thread of a long life.
///
/// # Errors
/// Where the system has no thread to spare.
pub fn thread(
    name: impl Into<String>,
    work: impl FnOnce() + Send + 'static,
) -> io::Result<thread::JoinHandle<()>> {
    let name = name.into();
    let thread = thread::Builder::new().name(name.clone());
    #[expect(clippy::disallowed_methods, reason = "a panic is seen to")]
    thread.spawn(move || unless_panicked(&name, work))
}

/// Does what may panic, which ends the process.
fn unless_panicked<T>(name: &str, work: impl FnOnce() -> T) -> T {
    // Nothing sees afterwards what the panic left half done.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        tracing::error!(
            task = name,
            "a task that must not end has panicked: ending the process"
        );
        crate::fail()
    })
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Says in the environment of a process started by a test which of these is to panic.
    const PANICS: &str = "PANICS";

    fn panics() {
        panic!("as it was told");
    }

    #[tokio::test]
    async fn a_panic_in_what_has_a_long_life_ends_the_process_and_one_for_a_caller_does_not() {
        match std::env::var(PANICS).as_deref() {
            Ok("task") => spawn("a task", async { panics() }).await,
            Ok("thread") => {
                thread("a thread", panics).unwrap().join().unwrap();
            }
            Ok("caller") => {
                let panicked = spawn_for_caller(async { panics() }).await.unwrap_err();
                assert!(panicked.is_panic());
            }
            _ => {
                for (panics, exits_with) in [("task", 1), ("thread", 1), ("caller", 0)] {
                    let mut process = Command::new(std::env::current_exe().unwrap());
                    let test = "tasks::tests::a_panic_in_what_has_a_long_life_ends_the_process_and_one_for_a_caller_does_not";
                    process.args(["--exact", test]).env(PANICS, panics);
                    let output = process.output().unwrap();
                    assert_eq!(
                        output.status.code(),
                        Some(exits_with),
                        "{panics}: {output:?}"
                    );
                }
            }
        }
    }

    #[tokio::test]
    async fn a_task_ends_when_its_handle_is_dropped() {
        let (held, ended) = tokio::sync::oneshot::channel::<()>();
        let task = spawn("a task", async move {
            let _held = held;
            std::future::pending::<()>().await;
        });
        drop(task);
        assert!(ended.await.is_err());
    }
}
