//! A version that can be activated again, and what is known of it.

use serde::{Deserialize, Serialize};

/// A version that was active and can be activated again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "KeptLine")]
pub struct Kept {
    /// What names it.
    pub digest: String,
    /// Whether it is one to go back to: it passed its probation, or keeps clients out.
    pub good: bool,
    /// Whether it passed its probation.
    pub proven: bool,
    /// Whether it was found to fail. Of what is neither good nor failed nothing is known.
    pub failed: bool,
}

impl Kept {
    /// One of which nothing is known.
    pub(super) fn unknown(digest: &str) -> Self {
        Self {
            digest: digest.to_owned(),
            good: false,
            proven: false,
            failed: false,
        }
    }

    /// Whether it is not known to be good, nor to fail.
    pub(super) fn is_unknown(&self) -> bool {
        !self.good && !self.failed
    }
}

/// A version as states have it: those of before have the digest alone, or whether it was good: it was where it
/// was not found to fail.
#[derive(Deserialize)]
#[serde(untagged)]
enum KeptLine {
    Digest(String),
    Kept {
        digest: String,
        good: bool,
        proven: Option<bool>,
        failed: Option<bool>,
    },
}

impl From<KeptLine> for Kept {
    fn from(line: KeptLine) -> Self {
        let (digest, good, proven, failed) = match line {
            KeptLine::Digest(digest) => (digest, true, None, None),
            KeptLine::Kept {
                digest,
                good,
                proven,
                failed,
            } => (digest, good, proven, failed),
        };
        Self {
            digest,
            good,
            proven: proven.unwrap_or(good),
            failed: failed.unwrap_or(!good),
        }
    }
}
