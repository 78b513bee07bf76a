//! What `Cache-Status` says of a response (RFC 9211).

use std::fmt;
use std::sync::LazyLock;

use http::{HeaderName, HeaderValue};

/// The header.
pub(super) const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// Hits with this many seconds to live, and fewer, have their value made beforehand. More than
/// any but a few responses are kept for.
const PREPARED_TTL_MAX: usize = 3600;

/// Where the answer to a read came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CacheStatus {
    /// From the cache.
    Hit {
        /// Whole seconds that it may still be served; negative once it may not.
        ttl: i64,
    },
    /// From a backend.
    Forwarded {
        /// Why.
        why: Forward,
        /// Whether it is kept.
        stored: bool,
    },
}

/// Why a read went to a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Forward {
    /// The policy wanted it so.
    Bypass,
    /// Nothing was kept.
    Miss,
    /// What was kept was not fresh enough.
    Stale,
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bypass => "bypass",
            Self::Miss => "miss",
            Self::Stale => "stale",
        })
    }
}

impl fmt::Display for CacheStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hit { ttl } => write!(f, "bazaar; hit; ttl={ttl}"),
            Self::Forwarded { why, stored: false } => write!(f, "bazaar; fwd={why}"),
            Self::Forwarded { why, stored: true } => write!(f, "bazaar; fwd={why}; stored"),
        }
    }
}

/// All prepared values, one after the other, and where each ends. One text that is never freed,
/// so that a value made of it needs neither memory nor a count of its users.
static PREPARED: LazyLock<(String, Vec<usize>)> = LazyLock::new(|| {
    let mut text = String::new();
    let ends = (0..=PREPARED_TTL_MAX).map(|ttl| {
        text += &CacheStatus::Hit { ttl: ttl as i64 }.to_string();
        text.len()
    });
    let ends = ends.collect();
    (text, ends)
});

impl From<CacheStatus> for HeaderValue {
    fn from(status: CacheStatus) -> Self {
        match status {
            CacheStatus::Hit { ttl } if (0..=PREPARED_TTL_MAX as i64).contains(&ttl) => {
                let (text, ends) = &*PREPARED;
                let ttl = ttl as usize;
                let begin = ttl.checked_sub(1).map_or(0, |before| ends[before]);
                Self::from_static(&text[begin..ends[ttl]])
            }
            other => Self::try_from(other.to_string()).expect("printable ASCII"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_reads_as_rfc_9211_writes_it() {
        let forwarded = |why, stored| CacheStatus::Forwarded { why, stored };
        let cases = [
            (CacheStatus::Hit { ttl: 0 }, "bazaar; hit; ttl=0"),
            (CacheStatus::Hit { ttl: 57 }, "bazaar; hit; ttl=57"),
            (CacheStatus::Hit { ttl: 3600 }, "bazaar; hit; ttl=3600"),
            (CacheStatus::Hit { ttl: 3601 }, "bazaar; hit; ttl=3601"),
            (CacheStatus::Hit { ttl: -2 }, "bazaar; hit; ttl=-2"),
            (forwarded(Forward::Miss, true), "bazaar; fwd=miss; stored"),
            (forwarded(Forward::Stale, false), "bazaar; fwd=stale"),
            (forwarded(Forward::Bypass, false), "bazaar; fwd=bypass"),
        ];
        for (status, text) in cases {
            assert_eq!(HeaderValue::from(status), text);
        }
    }
}
