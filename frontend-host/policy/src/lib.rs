//! The policy: a WebAssembly component that decides, from its upload to its last decision.
//!
//! A module knows those before it, and none after it:
//!
//! - [`decision`]: what a policy is told and what it may decide;
//! - [`limits`]: what it may use;
//! - [`answered`]: requests that were answered, by what was done for them;
//! - [`measured`]: what its way into service takes;
//! - [`request_id`]: what a request is called in its reply, in logs and in recordings;
//! - `guest`: the sandbox that it runs in;
//! - `evaluate`: one decision by one instance, and how it is made again;
//! - [`admission`]: a component's way into service: verify → compile → link → self-test;
//! - [`replay`]: decisions made again, and where they come out differently;
//! - [`rollout`]: versions in service, and how one takes another's place;
//! - `decider`: one request's decisions, and who makes them again where a version fails.

#![cfg_attr(
    not(test),
    warn(clippy::disallowed_methods, clippy::print_stdout, clippy::print_stderr)
)]

pub mod decision;
pub mod limits;
pub mod answered;
pub mod measured;
pub mod request_id;
mod guest;
mod evaluate;
pub mod admission;
pub mod replay;
pub mod rollout;
mod decider;

pub use admission::{Admission, Admitted, Problem, Rejection, Secrets, Trust, Upload};
pub use decider::{Decider, Undecided};
pub use evaluate::{Connection, RequestParts};
pub use guest::bindings::WORLDS;
pub use guest::code_cache::CodeCache;
pub use guest::compiler::{CompileError, Compiler, Pace, compile_as_child};
pub use guest::costs::COSTS;
pub use guest::digest::Digest;
pub use guest::engine::Engine;
pub use guest::instance::Ambient;
pub use guest::version::{SharedVersion, Version};
pub use measured::{METRICS, Measured};
pub use request_id::RequestId;
pub use rollout::{
    Arrival, Probation, Published, Reason, Share, SwapError, Trial, VersionLog, Versions,
};

/// The default policy, built from `frontend-guest`.
pub const DEFAULT_POLICY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/default.wasm"));
