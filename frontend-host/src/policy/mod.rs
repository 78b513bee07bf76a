//! The policy: a WebAssembly component that decides, and the sandbox that it decides in.
//!
//! - [`decision`]: what a policy is told and what it may decide;
//! - [`limits`]: what it may use;
//! - `bindings`: the component's interface and its conversion to those types;
//! - `wasi`: what it finds of WASI, which is next to nothing;
//! - [`compiled`]: machine code that is kept for the next start;
//! - [`sandbox`], `instances`: compiled versions, and their instances on each thread;
//! - [`check`]: what a component must be able to decide before it may serve;
//! - [`trust`]: whose components are taken;
//! - [`versions`]: which version decides, and the swap;
//! - [`decider`]: one request's decisions, and who makes them again where a version fails;
//! - [`question`], [`differences`]: a decision made again, and where it comes out differently;
//! - [`shadow`], [`recording`]: made again by a candidate beside the active version, or offline;
//! - [`history`]: what survives a restart.

pub mod decision;
pub mod limits;
mod bindings;
mod wasi;
pub mod compiled;
pub mod sandbox;
mod instances;
pub mod check;
pub mod trust;
pub mod versions;
pub mod decider;
pub mod question;
pub mod differences;
pub mod shadow;
pub mod recording;
pub mod history;

pub use check::check;
pub use compiled::Compiled;
pub use decider::{Decider, RequestParts, Undecided};
pub use history::History;
pub use sandbox::{Refused, Sandbox, Version};
pub use trust::Trust;
pub use versions::{Probation, Published, Reason, Share, SwapError, Trial, Upload, Versions};
