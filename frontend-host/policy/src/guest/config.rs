//! What a policy is configured with.

use std::fmt;
use std::sync::Arc;

use crate::guest::written::without;

/// A configuration as each instance is given it, with the secrets that it named in their places.
#[derive(Clone, Default)]
pub struct Config {
    /// As operators wrote it: it names its secrets.
    raw: Arc<[u8]>,
    bytes: Arc<[u8]>,
    secrets: Arc<[String]>,
}

impl Config {
    /// Without secrets.
    pub(crate) fn plain(config: &[u8]) -> Self {
        Self {
            raw: config.into(),
            bytes: config.into(),
            secrets: Arc::default(),
        }
    }

    /// What was made of a raw one by putting secrets in.
    pub(crate) fn resolved(raw: &[u8], bytes: Vec<u8>, mut secrets: Vec<String>) -> Self {
        // What others are part of goes first, when they are looked for.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        Self {
            raw: raw.into(),
            bytes: bytes.into(),
            secrets: secrets.into(),
        }
    }

    /// As operators wrote it: it names its secrets.
    pub(crate) fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// As the policy gets it.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether the policy gets the same: secrets may have changed in their places.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.raw == other.raw && self.bytes == other.bytes
    }

    /// The secrets in it, and what others are part of before those.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = &str> {
        self.secrets.iter().map(String::as_str)
    }

    /// A text of the policy's, without the secrets that it may have of its configuration.
    pub(crate) fn scrub(&self, text: &str) -> String {
        without(text, self.secrets())
    }
}

/// Says nothing of what is in it.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Config({} bytes)", self.bytes.len())
    }
}
