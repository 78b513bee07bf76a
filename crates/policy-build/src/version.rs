//! Versions of Rust.

use std::fmt::{self, Display, Formatter};

/// The manifest that states the oldest Rust that compiles policies, for `scripts/wasm-target` too.
const GUEST_MANIFEST: &str = include_str!("../../../frontend-guest/Cargo.toml");

/// A version of the Rust compiler, such as 1.85.0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RustVersion([u32; 3]);

impl RustVersion {
    /// The oldest that compiles policies.
    ///
    /// # Panics
    /// Never: `frontend-guest` states it.
    pub fn oldest_for_policies() -> Self {
        let stated = GUEST_MANIFEST
            .lines()
            .find_map(|line| line.strip_prefix("rust-version = \"")?.strip_suffix('"'));
        stated
            .and_then(Self::parse)
            .expect("frontend-guest states its rust-version")
    }

    /// What `rustc --version` printed.
    pub(crate) fn of_compiler(printed: &str) -> Option<Self> {
        Self::parse(printed.strip_prefix("rustc ")?.split_whitespace().next()?)
    }

    /// Of `1.85`, `1.85.0` or `1.97.0-nightly`.
    fn parse(text: &str) -> Option<Self> {
        let release = text.split('-').next()?;
        let mut numbers = [0; 3];
        let mut parts = release.split('.');
        for (number, part) in numbers.iter_mut().zip(&mut parts) {
            *number = part.parse().ok()?;
        }
        parts.next().is_none().then_some(Self(numbers))
    }
}

impl Display for RustVersion {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.0;
        write!(f, "{major}.{minor}.{patch}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compilers_say_their_version() {
        for (printed, expected) in [
            (
                "rustc 1.85.0 (4d91de4e4 2025-02-17) (built from a source tarball)\n",
                Some([1, 85, 0]),
            ),
            (
                "rustc 1.97.0-nightly (a1b2c3d4e 2026-05-01)",
                Some([1, 97, 0]),
            ),
            ("rustc 1.96", Some([1, 96, 0])),
            ("rustc", None),
            ("rustc one", None),
            ("rustc 1.2.3.4", None),
            ("cargo 1.85.0", None),
            ("", None),
        ] {
            let version = RustVersion::of_compiler(printed);
            assert_eq!(version, expected.map(RustVersion), "{printed}");
        }
    }

    #[test]
    fn all_that_is_built_for_wasm_states_the_same_oldest_rust() {
        let stated = |manifest: &str| {
            let line = manifest
                .lines()
                .find(|line| line.starts_with("rust-version"));
            line.map(str::to_owned)
        };
        assert!(stated(GUEST_MANIFEST).is_some());
        for manifest in [
            include_str!("../../../tests/guests/Cargo.toml"),
            include_str!("../../../tests/bench/hello/Cargo.toml"),
        ] {
            assert_eq!(stated(manifest), stated(GUEST_MANIFEST), "{manifest}");
        }
    }

    #[test]
    fn versions_are_ordered_as_numbers() {
        assert!(RustVersion([1, 100, 0]) > RustVersion([1, 85, 1]));
        assert!(RustVersion([1, 85, 0]) >= RustVersion::parse("1.85").unwrap());
    }
}
