//! With the gateway's cache or without.

use std::fmt;

/// Whether answers may come from the gateway's cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caching {
    /// Under the policy that the gateway had.
    On,
    /// Under the one that caches nothing.
    Off,
}

impl Caching {
    /// In the order in which they are measured.
    pub const ALL: [Self; 2] = [Self::On, Self::Off];
}

impl fmt::Display for Caching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::On => "on",
            Self::Off => "off",
        })
    }
}
