//! The lease protocol. See the crate.

mod bounds;
mod world;
mod gateway;
mod properties;
mod tests;
