//! Builds a policy into a WebAssembly component: for build scripts, tests and `bazaar policy build`.
//!
//! In reading order:
//!
//! - [`Builder`] (`builder`): what to build; runs a cargo of its own and finds what it made.
//! - [`embed()`] (`embed`): a component for a crate to embed, from its build script.
//! - `toolchain`: the compilers that can build for [`TARGET`], and the one that is here.
//! - [`RustVersion`] (`version`): the oldest compiler that will do.
//! - [`BuildError`] (`error`): why there is no component.
//!
//! That cargo has a target directory of its own, `target/guest`, because an outer cargo holds the
//! lock of `target` while a build script runs. Nothing removes it: where the standard library is
//! built from source, that takes a minute and is done once.

#![warn(missing_docs)]

mod builder;
mod embed;
mod toolchain;
mod version;
mod error;

pub use builder::Builder;
pub use embed::embed;
pub use error::BuildError;
pub use version::RustVersion;

/// What policies are compiled for.
pub const TARGET: &str = "wasm32-wasip2";
