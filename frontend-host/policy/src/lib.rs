//! The policy: a WebAssembly component that decides, and the sandbox that it decides in.
//!
//! - [`decision`]: what a policy is told and what it may decide;
//! - [`limits`]: what it may use;
//! - `bindings`: the component's interface and its conversion to those types;
//! - `wasi`: what it finds of WASI, which is next to nothing;
//! - `deadline`, `thread`: how long it may take, and what the kernel knows of the thread it takes it on;
//! - [`digest`]: what names a component;
//! - [`compiled`]: machine code that is kept for the next start;
//! - [`sandbox`], `instances`: compiled versions, and their instances on each thread;
//! - `evaluate`: one decision by one instance;
//! - `world`, [`check`]: what a component must fit, and be able to decide, before it may serve;
//! - [`refused`]: why it may not, in words;
//! - [`trust`]: whose components are taken;
//! - [`change`], [`swap_error`]: what changes the policy, and why it did not;
//! - [`publication`], `registry`: what decides at a moment, the swap, and the end of a probation;
//! - [`versions`]: what operators do with the versions;
//! - [`decider`]: one request's decisions, and who makes them again where a version fails;
//! - [`question`], [`differences`]: a decision made again, and where it comes out differently;
//! - [`shadow`], [`recording`]: made again by a candidate beside the active version, or offline;
//! - [`history`]: what survives a restart.

#![cfg_attr(
    not(test),
    warn(clippy::disallowed_methods, clippy::print_stdout, clippy::print_stderr)
)]

pub mod decision;
pub mod limits;
mod bindings;
mod wasi;
mod deadline;
mod thread;
pub mod digest;
pub mod compiled;
pub mod sandbox;
mod instances;
mod evaluate;
mod world;
pub mod check;
pub mod refused;
pub mod trust;
pub mod change;
pub mod swap_error;
pub mod publication;
mod registry;
pub mod versions;
pub mod decider;
pub mod question;
pub mod differences;
pub mod shadow;
pub mod recording;
pub mod history;

pub use change::{Reason, Upload};
pub use check::check;
pub use compiled::Compiled;
pub use decider::{Decider, Undecided};
pub use evaluate::RequestParts;
pub use history::History;
pub use publication::{Published, Share, Trial};
pub use refused::{Problem, Refused};
pub use registry::Probation;
pub use sandbox::{Sandbox, Version};
pub use swap_error::SwapError;
pub use trust::Trust;
pub use versions::Versions;

/// The default policy, built from `frontend-guest`.
pub const DEFAULT_POLICY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/default.wasm"));
