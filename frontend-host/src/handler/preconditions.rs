//! Whether a client or a cache already has what it asks for (RFC 9110, section 13).

use http::header::{ETAG, GetAll, IF_MATCH, IF_NONE_MATCH};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode};

use frontend_policy::decision::Reply;

/// What the preconditions of a request come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Preconditions {
    /// It is answered as if there were none.
    Met,
    /// It has what it would get.
    NotModified,
    /// It wanted something else.
    Failed,
}

/// How two tags are compared (section 8.8.3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Strong,
    Weak,
}

impl Preconditions {
    /// Those of a request, given what it would be answered. Only reads have any, and only what is
    /// there is compared.
    pub(super) fn of(head: &Parts, reply: &Reply) -> Self {
        let reads = matches!(head.method, Method::GET | Method::HEAD);
        if !reads || reply.status != StatusCode::OK {
            return Self::Met;
        }
        let names = |name, comparison| {
            let listed = head.headers.get_all(name);
            let is_given = listed.iter().next().is_some();
            is_given.then(|| names_any(listed, reply.headers.get(ETAG), comparison))
        };
        if names(IF_MATCH, Comparison::Strong) == Some(false) {
            Self::Failed
        } else if names(IF_NONE_MATCH, Comparison::Weak) == Some(true) {
            Self::NotModified
        } else {
            Self::Met
        }
    }
}

/// Whether a list of tags, or `*`, names what is there.
fn names_any(
    listed: GetAll<'_, HeaderValue>,
    etag: Option<&HeaderValue>,
    comparison: Comparison,
) -> bool {
    let etag = etag.and_then(|etag| Some(Tag::split(etag.as_bytes())?.0));
    listed.iter().any(|list| {
        let mut rest = list.as_bytes();
        if rest.trim_ascii() == b"*" {
            return true;
        }
        let Some(etag) = etag else { return false };
        while let Some((tag, after)) = Tag::split(rest) {
            if tag.is(etag, comparison) {
                return true;
            }
            rest = after;
        }
        false
    })
}

/// An entity tag (section 8.8.3).
#[derive(Debug, Clone, Copy)]
struct Tag<'a> {
    is_weak: bool,
    opaque: &'a [u8],
}

impl<'a> Tag<'a> {
    /// The next tag of a list, and what is after it.
    fn split(list: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let begin = list.iter().position(|byte| !b", \t".contains(byte))?;
        let text = &list[begin..];
        let weak = text.strip_prefix(b"W/");
        let quoted = weak.unwrap_or(text).strip_prefix(b"\"")?;
        let end = quoted.iter().position(|byte| *byte == b'"')?;
        let tag = Self {
            is_weak: weak.is_some(),
            opaque: &quoted[..end],
        };
        Some((tag, &quoted[end + 1..]))
    }

    fn is(self, other: Self, comparison: Comparison) -> bool {
        let is_comparable = comparison == Comparison::Weak || !(self.is_weak || other.is_weak);
        is_comparable && self.opaque == other.opaque
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderMap;

    use super::*;

    fn evaluate(
        headers: &[(&'static str, &'static str)],
        etag: Option<&'static str>,
    ) -> Preconditions {
        let mut request = http::Request::builder().uri("/");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut reply = Reply {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            keep: None,
        };
        if let Some(etag) = etag {
            reply.headers.insert(ETAG, HeaderValue::from_static(etag));
        }
        Preconditions::of(&request.body(()).unwrap().into_parts().0, &reply)
    }

    #[test]
    fn tags_are_compared_as_rfc_9110_has_it() {
        use Preconditions::{Failed, Met, NotModified};
        let (none_match, matches) = ("if-none-match", "if-match");
        for (name, value, expected) in [
            (none_match, "\"a\"", NotModified),
            (none_match, "W/\"a\"", NotModified),
            (none_match, "\"b\", \"a\"", NotModified),
            (none_match, "\"b\",W/\"a\" , \"c\"", NotModified),
            (none_match, ", ,\"a\"", NotModified),
            (none_match, "*", NotModified),
            (none_match, "\"b\"", Met),
            (none_match, "\"b,\\\"a\"", Met),
            (none_match, "a", Met),
            (none_match, "", Met),
            (none_match, "\"a", Met),
            (none_match, "w/\"a\"", Met),
            (matches, "\"a\"", Met),
            (matches, "*", Met),
            (matches, "\"b\", \"a\"", Met),
            (matches, "W/\"a\"", Failed),
            (matches, "\"b\"", Failed),
        ] {
            assert_eq!(
                evaluate(&[(name, value)], Some("\"a\"")),
                expected,
                "{name}: {value}"
            );
        }
        for (name, value, expected) in [
            (none_match, "W/\"a\"", NotModified),
            (none_match, "\"a\"", NotModified),
            (matches, "W/\"a\"", Failed),
            (matches, "\"a\"", Failed),
        ] {
            assert_eq!(
                evaluate(&[(name, value)], Some("W/\"a\"")),
                expected,
                "{name}: {value}"
            );
        }
        assert_eq!(evaluate(&[(none_match, "\"a\"")], None), Met);
        assert_eq!(evaluate(&[(none_match, "*")], None), NotModified);
        assert_eq!(evaluate(&[(matches, "\"a\"")], None), Failed);
    }

    #[test]
    fn several_lines_are_one_list_and_what_must_match_counts_first() {
        use Preconditions::{Failed, NotModified};
        let lines = [("if-none-match", "\"b\""), ("if-none-match", "\"a\"")];
        assert_eq!(evaluate(&lines, Some("\"a\"")), NotModified);
        let both = [("if-none-match", "\"a\""), ("if-match", "\"b\"")];
        assert_eq!(evaluate(&both, Some("\"a\"")), Failed);
    }
}
