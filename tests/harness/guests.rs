//! Components, compiled once.

use std::path::PathBuf;

use policy_build::Builder;

/// One of `tests/guests`: a component that misbehaves, or is marked.
pub fn guest(name: &str) -> PathBuf {
    build(Builder::in_project("tests/guests").example(name))
}

/// One of the variants that come with the default policy.
pub fn example(name: &str) -> PathBuf {
    build(Builder::in_project("frontend-guest").example(name))
}

fn build(builder: Builder) -> PathBuf {
    builder.build().unwrap_or_else(|error| panic!("{error}"))
}
