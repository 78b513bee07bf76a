//! What names a component, and a version.

use std::fmt;

use domain::Hex;
use sha2::{Digest as _, Sha256};

/// SHA-256 of a component, or of what a version consists of.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Hashes the bytes of a component.
    pub fn of(component: &[u8]) -> Self {
        Self(Sha256::digest(component).into())
    }

    /// What names a component with a configuration: without one, the same as the component alone.
    pub fn of_version(component: Self, config: &[u8]) -> Self {
        if config.is_empty() {
            return component;
        }
        let mut hasher = Sha256::new();
        hasher.update(component.0);
        hasher.update(config);
        Self(hasher.finalize().into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hex(&self.0).fmt(f)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}
