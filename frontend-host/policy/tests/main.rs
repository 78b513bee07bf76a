//! Real components in the policy runtime.
//!
//! - [`sandbox`]: what a policy can do to the gateway, which is nothing;
//! - [`stages`]: a policy's way into service.
//!
//! One test binary: it links once, and builds each component once.

mod sandbox;
mod stages;
