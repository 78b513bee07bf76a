//! What `Cache-Status` (RFC 9211) and `Age` (RFC 9111) say of a response.

use std::fmt;
use std::sync::LazyLock;

use http::header::AGE;
use http::{HeaderMap, HeaderName, HeaderValue};

pub(super) const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// Hits with this many seconds to live, or of this age, and fewer have their values made
/// beforehand. More than any but a few responses are kept for.
const PREPARED_SECONDS_MAX: u64 = 3600;

/// What is before the seconds of a hit.
const HIT: &str = "bazaar; hit; ttl=";

/// Where the answer to a read came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CacheStatus {
    Hit {
        /// Whole seconds that it may still be served; negative where it may not, and is because
        /// no backend answers (RFC 9211, section 2.4).
        ttl: i64,
        /// Whole seconds since a backend was asked.
        age: u64,
    },
    Forwarded {
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
            Self::Hit { ttl, .. } => write!(f, "{HIT}{ttl}"),
            Self::Forwarded { why, stored: false } => write!(f, "bazaar; fwd={why}"),
            Self::Forwarded { why, stored: true } => write!(f, "bazaar; fwd={why}; stored"),
        }
    }
}

impl CacheStatus {
    /// Puts it into a response.
    pub(super) fn mark(self, headers: &mut HeaderMap) {
        let value = match self {
            Self::Hit { ttl, .. } => u64::try_from(ttl).ok().and_then(prepared),
            Self::Forwarded { .. } => None,
        };
        let value = match value {
            Some(text) => HeaderValue::from_static(text),
            None => HeaderValue::try_from(self.to_string()).expect("printable ASCII"),
        };
        headers.insert(CACHE_STATUS, value);
        if let Self::Hit { age, .. } = self {
            let value = match prepared(age) {
                Some(text) => HeaderValue::from_static(&text[HIT.len()..]),
                None => age.into(),
            };
            headers.insert(AGE, value);
        }
    }
}

/// What a hit of so many seconds says.
fn prepared(seconds: u64) -> Option<&'static str> {
    /// All such texts, one after the other, and where each ends. One text that is never freed, so
    /// that a value made of it needs neither memory nor a count of its users.
    static PREPARED: LazyLock<(String, Vec<usize>)> = LazyLock::new(|| {
        let mut text = String::new();
        let ends = (0..=PREPARED_SECONDS_MAX).map(|seconds| {
            text += &format!("{HIT}{seconds}");
            text.len()
        });
        let ends = ends.collect();
        (text, ends)
    });
    if seconds > PREPARED_SECONDS_MAX {
        return None;
    }
    let (text, ends) = &*PREPARED;
    let seconds = seconds as usize;
    let begin = seconds.checked_sub(1).map_or(0, |before| ends[before]);
    Some(&text[begin..ends[seconds]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_reads_as_rfc_9211_writes_it() {
        let hit = |ttl| CacheStatus::Hit { ttl, age: 0 };
        let forwarded = |why, stored| CacheStatus::Forwarded { why, stored };
        let cases = [
            (hit(0), "bazaar; hit; ttl=0"),
            (hit(57), "bazaar; hit; ttl=57"),
            (hit(3600), "bazaar; hit; ttl=3600"),
            (hit(3601), "bazaar; hit; ttl=3601"),
            (hit(-2), "bazaar; hit; ttl=-2"),
            (forwarded(Forward::Miss, true), "bazaar; fwd=miss; stored"),
            (forwarded(Forward::Stale, false), "bazaar; fwd=stale"),
            (forwarded(Forward::Bypass, false), "bazaar; fwd=bypass"),
        ];
        for (status, text) in cases {
            let mut headers = HeaderMap::new();
            status.mark(&mut headers);
            assert_eq!(headers[CACHE_STATUS], text);
            let is_hit = matches!(status, CacheStatus::Hit { .. });
            assert_eq!(headers.contains_key(AGE), is_hit, "{text}");
        }
    }

    #[test]
    fn a_hit_says_how_old_it_is() {
        for age in [0, 9, 10, 605, 3600, 3601, 100_000] {
            let mut headers = HeaderMap::new();
            CacheStatus::Hit { ttl: 7, age }.mark(&mut headers);
            assert_eq!(headers[AGE], age.to_string());
            assert_eq!(headers[CACHE_STATUS], "bazaar; hit; ttl=7");
        }
    }
}
