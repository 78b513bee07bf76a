//! The trade protocol. See the crate.

mod bounds;
mod world;
mod network;
mod identity;
mod healing;
mod properties;
mod tests;
