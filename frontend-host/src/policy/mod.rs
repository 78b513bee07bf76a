//! The policy: a WebAssembly component that decides, and the sandbox that it decides in.
//!
//! - [`decision`]: what a policy is told and what it may decide;
//! - [`limits`]: what it may use;
//! - `bindings`: the component's interface and its conversion to those types;
//! - `wasi`: what it finds of WASI, which is next to nothing;
//! - [`sandbox`]: compiled versions and their instances;
//! - [`check`]: what a component must be able to decide before it may serve;
//! - [`versions`]: which version decides, and the swap.

pub mod decision;
pub mod limits;
mod bindings;
mod wasi;
pub mod sandbox;
pub mod check;
pub mod versions;

pub use check::check;
pub use sandbox::{Refused, Sandbox, Version};
pub use versions::{Decider, Published, RequestParts, Undecided, Versions};
