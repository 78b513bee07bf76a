//! Several catalogs over one database. See the crate.

mod bounds;
mod world;
mod store;
mod catalog;
mod gateway;
mod properties;
mod tests;
