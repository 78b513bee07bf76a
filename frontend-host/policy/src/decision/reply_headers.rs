//! The headers that a policy has added to every reply.

use std::fmt;

use http::header::VARY;
use http::{HeaderMap, HeaderName, HeaderValue};

/// A header for replies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplyHeader {
    pub name: HeaderName,
    pub value: HeaderValue,
    /// Only for requests that have this header once, with this value.
    pub when: Option<(HeaderName, HeaderValue)>,
}

/// Those of a policy, in the order in which they count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReplyHeaders(Vec<ReplyHeader>);

impl ReplyHeaders {
    /// What replies depend on by these headers, they say: the names of [`ReplyHeader::when`] are added to
    /// `vary`, where they are not there already.
    pub fn new(mut headers: Vec<ReplyHeader>) -> Self {
        let mut vary: Vec<ReplyHeader> = Vec::new();
        for (condition, _) in headers.iter().filter_map(|header| header.when.as_ref()) {
            let is_named = |header: &ReplyHeader| {
                let mut names = names(&header.value);
                let is_always = header.name == VARY && header.when.is_none();
                let wanted = condition.as_str().as_bytes();
                is_always && names.any(|name| name.eq_ignore_ascii_case(wanted))
            };
            if !headers.iter().chain(&vary).any(is_named) {
                vary.push(ReplyHeader {
                    name: VARY,
                    value: condition.clone().into(),
                    when: None,
                });
            }
        }
        headers.append(&mut vary);
        Self(headers)
    }

    /// Whether there is nothing to add, which is so of most policies.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether what is added depends on the request.
    pub fn are_conditional(&self) -> bool {
        self.0.iter().any(|header| header.when.is_some())
    }

    /// In the order in which they count.
    pub fn iter(&self) -> impl Iterator<Item = &ReplyHeader> {
        self.0.iter()
    }

    /// Adds what a reply to this request is to have. A header that it has already stays; what `vary`
    /// names is added to what it names already.
    pub fn add_to(&self, reply: &mut HeaderMap, request: &HeaderMap) {
        for header in self.0.iter().filter(|header| header.applies_to(request)) {
            if header.name == VARY {
                add_to_vary(reply, &header.value);
            } else if !reply.contains_key(&header.name) {
                reply.insert(header.name.clone(), header.value.clone());
            }
        }
    }
}

/// `NAME: VALUE`, and its condition.
impl fmt::Display for ReplyHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        write!(f, "{}: {}", self.name, text(&self.value))?;
        match &self.when {
            None => Ok(()),
            Some((name, value)) => write!(f, " when {name}: {}", text(value)),
        }
    }
}

impl ReplyHeader {
    fn applies_to(&self, request: &HeaderMap) -> bool {
        let Some((name, wanted)) = &self.when else {
            return true;
        };
        let mut values = request.get_all(name).iter();
        values.next() == Some(wanted) && values.next().is_none()
    }
}

/// One value that names all: some readers look at the first alone.
fn add_to_vary(reply: &mut HeaderMap, value: &HeaderValue) {
    let Some(first) = reply.get(VARY) else {
        reply.insert(VARY, value.clone());
        return;
    };
    let named: Vec<&[u8]> = reply.get_all(VARY).iter().flat_map(names).collect();
    let is_named = |name: &[u8]| named.iter().any(|other| other.eq_ignore_ascii_case(name));
    let mut joined = first.as_bytes().to_vec();
    for name in names(value).filter(|name| !is_named(name)) {
        joined.extend_from_slice(b", ");
        joined.extend_from_slice(name);
    }
    if joined.len() > first.len() {
        let joined = HeaderValue::from_bytes(&joined).expect("made of header values");
        let others: Vec<_> = reply.get_all(VARY).iter().skip(1).cloned().collect();
        reply.insert(VARY, joined);
        for other in others {
            reply.append(VARY, other);
        }
    }
}

fn names(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    let names = value.as_bytes().split(|byte| *byte == b',');
    names
        .map(<[u8]>::trim_ascii)
        .filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    type Text = (&'static str, &'static str);

    fn map(headers: &[Text]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    fn header((name, value): Text, when: Option<Text>) -> ReplyHeader {
        let pair = |(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        };
        let (name, value) = pair((name, value));
        let when = when.map(pair);
        ReplyHeader { name, value, when }
    }

    /// What a reply of these headers has in the end.
    fn reply(policy: &[ReplyHeader], own: &[Text], request: &[Text]) -> HeaderMap {
        let mut reply = map(own);
        ReplyHeaders::new(policy.to_vec()).add_to(&mut reply, &map(request));
        reply
    }

    #[test]
    fn a_header_of_the_reply_s_own_stays() {
        let policy = [
            header(("x-frame-options", "DENY"), None),
            header(("x-frame-options", "SAMEORIGIN"), None),
            header(("referrer-policy", "no-referrer"), None),
        ];
        let own = [("referrer-policy", "origin")];
        let expected = [("referrer-policy", "origin"), ("x-frame-options", "DENY")];
        assert_eq!(reply(&policy, &own, &[]), map(&expected));
        assert!(ReplyHeaders::default().is_empty());
        assert!(!ReplyHeaders::new(policy.to_vec()).are_conditional());
    }

    #[test]
    fn one_with_a_condition_is_for_requests_with_exactly_that_value() {
        let (shop, other) = ("https://shop.example", "https://other.example");
        let allow = |origin| {
            header(
                ("access-control-allow-origin", origin),
                Some(("origin", origin)),
            )
        };
        let policy = [allow(shop), allow(other)];
        assert!(ReplyHeaders::new(policy.to_vec()).are_conditional());
        let allowed = |request: &[Text]| {
            let reply = reply(&policy, &[], request);
            assert_eq!(reply["vary"], "origin", "{request:?}");
            let mut allowed = reply.get_all("access-control-allow-origin").iter();
            let first = allowed
                .next()
                .map(|origin| origin.to_str().unwrap().to_owned());
            assert!(allowed.next().is_none(), "{request:?}");
            first
        };
        assert_eq!(allowed(&[("origin", shop)]).as_deref(), Some(shop));
        assert_eq!(allowed(&[("origin", other)]).as_deref(), Some(other));
        for request in [
            &[][..],
            &[("origin", "https://evil.example")],
            &[("origin", "https://shop.example.evil.example")],
            &[("origin", "https://shop.example, https://evil.example")],
            &[("origin", "HTTPS://SHOP.EXAMPLE")],
            &[("origin", "null")],
            &[("origin", shop), ("origin", "https://evil.example")],
            &[("referer", shop)],
        ] {
            assert_eq!(allowed(request), None, "{request:?}");
        }
    }

    #[test]
    fn what_replies_vary_by_is_joined() {
        let policy = [
            header(("vary", "Origin, accept"), None),
            header(("x-a", "1"), Some(("origin", "a"))),
        ];
        for (own, expected) in [
            (&[][..], &["Origin, accept"][..]),
            (&["cookie"], &["cookie, Origin, accept"]),
            (&["ORIGIN"], &["ORIGIN, accept"]),
            (&["accept,origin"], &["accept,origin"]),
            (&["a", "origin"], &["a, accept", "origin"]),
        ] {
            let own: Vec<Text> = own.iter().map(|value| ("vary", *value)).collect();
            let reply = reply(&policy, &own, &[]);
            let vary: Vec<_> = reply.get_all(VARY).iter().collect();
            assert_eq!(vary, expected, "{own:?}");
        }
    }
}
