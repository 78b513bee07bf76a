//! Integration tests: real processes of the `bazaar` command, on free ports.
//!
//! - [`harness`]: a bazaar of processes to start, break and ask;
//! - [`trading`]: what clients are promised over HTTP;
//! - [`faults`]: the same while processes are killed and come back;
//! - [`policy`]: swaps under load, and components that misbehave;
//! - [`command`]: `up`, `load`, `status` and `ledger`, as a user runs them.
//!
//! One test binary, so that its tests share one bound on how many bazaars run at once.

mod harness;
mod trading;
mod faults;
mod policy;
mod command;
