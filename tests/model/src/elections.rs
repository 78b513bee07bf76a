//! Elections by several gateways, in random runs. See the crate.

mod world;
mod tests;
