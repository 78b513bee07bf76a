//! The lease protocol. See the crate.

mod bounds;
mod world;
mod properties;
mod tests;
