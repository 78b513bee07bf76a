//! What every process that serves has in common.
//!
//! - [`log`]: a log that neither stops nor stalls its writers;
//! - [`tasks`]: tasks and threads of a long life, whose panic ends the process;
//! - [`data_dir`]: a data directory that no other process writes to;
//! - [`directory`]: directories that outlive a loss of power;
//! - [`ownership`]: whose files are;
//! - [`atomic_file`]: files that are whole or not there;
//! - [`watched`]: what is made of files, and made anew when they change;
//! - [`notify`]: what a supervisor is told;
//! - [`work`]: what a thread is at.
//!
//! Clippy keeps other ways out of the crates that serve: see `clippy.toml`.

#![warn(missing_docs)]
#![cfg_attr(
    not(test),
    warn(clippy::disallowed_methods, clippy::print_stdout, clippy::print_stderr)
)]

pub mod log;
pub mod tasks;
pub mod data_dir;
pub mod directory;
pub mod ownership;
pub mod atomic_file;
pub mod watched;
pub mod notify;
pub mod work;

/// The exit code of a process that failed.
const FAILED: i32 = 1;

/// Ends a process in which an invariant does not hold. The log says why, before.
pub fn fail() -> ! {
    log::flush();
    #[expect(clippy::disallowed_methods, reason = "the log is written")]
    std::process::exit(FAILED)
}

/// Aborts a process that must not do another thing. The log says why, before.
pub fn abort() -> ! {
    log::flush();
    #[expect(clippy::disallowed_methods, reason = "the log is written")]
    std::process::abort()
}
