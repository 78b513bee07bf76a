//! A disk in memory for SQLite, which knows what was synced, and fails on demand.
//!
//! - [`disk`]: the disk and its faults;
//! - [`file`]: one file: what processes see of it, and what a loss of power leaves;
//! - [`locks`]: who may read and write a file;
//! - `vfs`: the same for SQLite, as a table of C functions.
//!
//! All that a disk does by chance comes from its seed. Disks belong to the thread that made
//! them, and so does every connection to a database on one.
//!
//! `sqlite-plugin` would be the library for this; it takes libclang to build.

pub mod disk;
pub mod file;
pub mod locks;
mod vfs;

#[cfg(test)]
mod tests;

pub use disk::{Counts, Death, Disk, Faults, list, remove, rewrite};
pub use vfs::NAME;
