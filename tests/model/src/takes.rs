//! Limits that hold over several gateways. See the crate.

mod bounds;
mod world;
mod properties;
mod tests;
