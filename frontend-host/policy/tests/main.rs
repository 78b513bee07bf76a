//! Real components in the policy runtime.
//!
//! - [`sandbox`]: what a policy can do to the gateway, which is nothing;
//! - [`stages`]: a policy's way into service;
//! - [`machine_code`]: of components, compiled once.
//!
//! One test binary: it links once, and builds and compiles each component once.

mod sandbox;
mod stages;
mod machine_code;
