//! The policy: a WebAssembly component that decides, and the sandbox that it decides in.
//!
//! - [`decision`]: what a policy is told and what it may decide;
//! - [`limits`]: what it may use;
//! - `bindings`: the component's interface and its conversion to those types;
//! - `wasi`: what it finds of WASI, which is next to nothing;
//! - `deadline`, `thread`: how long it may take, and what the kernel knows of the thread it takes it on;
//! - [`compiled`]: machine code that is kept for the next start;
//! - `relay`: a component whose functions are found fast;
//! - [`sandbox`], `instances`: compiled versions, and their instances on each thread;
//! - `world`, [`check`]: what a component must fit, and be able to decide, before it may serve;
//! - [`refused`]: why it may not, in words;
//! - [`trust`]: whose components are taken;
//! - [`publication`], `registry`: what decides at a moment, the swap, and the end of a probation;
//! - [`versions`]: what operators do with the versions;
//! - [`decider`]: one request's decisions, and who makes them again where a version fails;
//! - [`question`], [`differences`]: a decision made again, and where it comes out differently;
//! - [`shadow`], [`recording`]: made again by a candidate beside the active version, or offline;
//! - [`history`]: what survives a restart.

pub mod decision;
pub mod limits;
mod bindings;
mod wasi;
mod deadline;
mod thread;
pub mod compiled;
mod relay;
pub mod sandbox;
mod instances;
mod world;
pub mod check;
pub mod refused;
pub mod trust;
pub mod publication;
mod registry;
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
pub use publication::{Published, Share, Trial};
pub use refused::{Problem, Refused};
pub use registry::Probation;
pub use sandbox::{Sandbox, Version};
pub use trust::Trust;
pub use versions::{Reason, SwapError, Upload, Versions};
