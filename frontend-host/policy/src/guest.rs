//! The sandbox: compiles a component, and runs instances of it within bounds. It knows of no
//! admission and no rollout; what a component must be able to do is not its business.
//!
//! - `bindings`: the component's interface, and its conversion from and to `decision`;
//! - `wasi`: what a component finds of WASI, which is next to nothing;
//! - `deadline`, `thread`: how long a call may take, and what the kernel knows of its thread;
//! - `digest`: what names a component, and a version;
//! - `config`: what a policy is configured with;
//! - `code_cache`, `compiler`, `engine`: machine code that is kept for the next start, and compiling, in a process of its own;
//! - `written`: what a guest wrote, without secrets;
//! - `failure`: why a call did not end well;
//! - `budget`, `instance`: a running copy of a component, and what it may take;
//! - `observed`: what a policy counts and says of its own accord;
//! - `costs`: what decisions cost, by route;
//! - `version`: a component in use, and what it has done so far;
//! - `instance_pool`: the instances of each thread.

pub(crate) mod bindings;
pub(crate) mod wasi;
pub(crate) mod deadline;
pub(crate) mod thread;
pub(crate) mod digest;
pub(crate) mod config;
pub(crate) mod code_cache;
pub(crate) mod compiler;
pub(crate) mod engine;
pub(crate) mod written;
pub(crate) mod failure;
mod budget;
pub(crate) mod instance;
pub(crate) mod observed;
pub(crate) mod costs;
pub(crate) mod version;
pub(crate) mod instance_pool;
