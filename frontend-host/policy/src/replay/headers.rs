//! Which headers go into a recording.
//!
//! None that the policy did not ask to see. Of those it asked for, the ones that carry credentials
//! only where they are named. The values that are left out are left out of the decisions, too, where a
//! policy has put them there.

use std::collections::BTreeSet;
use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::decision::Manifest;
use crate::evaluate::input::RequestInput;
use crate::evaluate::sent::{path_and_query, values_of};

/// Words by which headers, and what is in a query, are taken for credentials.
const CREDENTIAL_WORDS: [&str; 16] = [
    "apikey",
    "auth",
    "authentication",
    "authorization",
    "cookie",
    "credential",
    "credentials",
    "csrf",
    "jwt",
    "key",
    "passwd",
    "password",
    "secret",
    "session",
    "signature",
    "token",
];

/// Headers with such a word that are none.
const NO_CREDENTIALS: [HeaderName; 1] = [HeaderName::from_static("idempotency-key")];

/// Which headers a recording has, of those that the policy asks to see.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderChoice {
    /// All but credentials where nothing is named.
    named: Option<Vec<HeaderName>>,
}

impl HeaderChoice {
    /// These, and no others.
    pub fn named(names: Vec<HeaderName>) -> Self {
        Self { named: Some(names) }
    }

    /// A header that is named in vain: the policy does not see it, and it is none of a response that
    /// would be left out.
    pub(super) fn not_asked_for(&self, manifest: &Manifest) -> Option<&HeaderName> {
        let mut named = self.named.iter().flatten();
        named.find(|name| !manifest.headers.contains(name) && **name != http::header::SET_COOKIE)
    }

    /// What a recording has of a request's headers.
    pub(super) fn of_request<'a>(
        &self,
        headers: &'a HeaderMap,
        manifest: &Manifest,
    ) -> Vec<(&'a HeaderName, &'a HeaderValue)> {
        let recorded = headers
            .iter()
            .filter(|(name, _)| manifest.headers.contains(name) && self.covers(name));
        recorded.collect()
    }

    /// What the policy saw and a recording has not: of credentials each value, of other headers the whole.
    pub(super) fn left_out(&self, headers: &HeaderMap, manifest: &Manifest) -> BTreeSet<Vec<u8>> {
        let is_left_out = |name: &HeaderName| manifest.headers.contains(name) && !self.covers(name);
        let left_out = headers.iter().filter(|(name, _)| is_left_out(name));
        let values = left_out.flat_map(|(name, value)| match is_credential(name.as_str()) {
            true => values_of(value.as_bytes()),
            false => BTreeSet::from([value.as_bytes().to_vec()]),
        });
        values.collect()
    }

    /// Whether a recording has the value of this header in a response.
    pub(super) fn covers_in_reply(&self, name: &str) -> bool {
        let is_named = |names: &Vec<HeaderName>| names.iter().any(|it| it == name);
        !is_credential(name) || self.named.as_ref().is_some_and(is_named)
    }

    fn covers(&self, name: &HeaderName) -> bool {
        match &self.named {
            None => !is_credential(name.as_str()),
            Some(names) => names.contains(name),
        }
    }
}

/// Names with commas between them.
impl fmt::Display for HeaderChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self
            .named
            .iter()
            .flatten()
            .map(HeaderName::as_str)
            .collect();
        f.write_str(&names.join(","))
    }
}

/// The values of what carries credentials, whoever asked for it: of headers, and of a query what has such a name.
pub(super) fn credentials(request: &RequestInput) -> BTreeSet<Vec<u8>> {
    let headers = request.headers.iter();
    let headers = headers.filter(|(name, _)| is_credential(name.as_str()));
    let in_headers = headers.map(|(_, value)| value.as_bytes());
    let query = path_and_query(&request.target).1.unwrap_or_default();
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let pairs = pairs.filter(|(name, _)| is_credential(&name.to_ascii_lowercase()));
    let in_query = pairs.map(|(_, value)| value.as_bytes());
    in_headers.chain(in_query).flat_map(values_of).collect()
}

fn is_credential(name: &str) -> bool {
    let mut words = name.split(['-', '_']);
    !NO_CREDENTIALS.iter().any(|it| it == name)
        && words.any(|word| CREDENTIAL_WORDS.contains(&word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::{CacheSettings, Eviction, OnFailure, ReplyHeaders};

    fn manifest(headers: &[&'static str]) -> Manifest {
        Manifest {
            name: "test".to_owned(),
            version: "1".to_owned(),
            headers: headers
                .iter()
                .map(|it| HeaderName::from_static(it))
                .collect(),
            connection: false,
            cache: CacheSettings {
                stocks_max: 1,
                orders_max: 1,
                eviction: Eviction::Lru,
            },
            on_failure: OnFailure::LastGood,
            buckets: Vec::new(),
            counters: Vec::new(),
            reply_headers: ReplyHeaders::default(),
        }
    }

    fn sent() -> HeaderMap {
        let headers = [
            ("accept", "text/html"),
            ("authorization", "Bearer s3cret"),
            ("cookie", "id=12345"),
            ("idempotency-key", "17"),
            ("x-api-key", "abcdef"),
            ("user-agent", "curl"),
        ];
        let headers = headers.map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        });
        headers.into_iter().collect()
    }

    fn recorded(choice: &HeaderChoice, asked: &[&'static str]) -> Vec<String> {
        let (sent, manifest) = (sent(), manifest(asked));
        let recorded = choice.of_request(&sent, &manifest);
        recorded
            .into_iter()
            .map(|(name, _)| name.to_string())
            .collect()
    }

    #[test]
    fn what_the_policy_did_not_ask_for_is_never_recorded() {
        let all = HeaderChoice::default();
        assert_eq!(recorded(&all, &[]), [""; 0]);
        assert_eq!(recorded(&all, &["accept", "x-other"]), ["accept"]);
        let named = HeaderChoice::named(vec![
            HeaderName::from_static("user-agent"),
            HeaderName::from_static("accept"),
        ]);
        assert_eq!(recorded(&named, &["accept"]), ["accept"]);
        let in_vain = named.not_asked_for(&manifest(&["accept"]));
        assert_eq!(in_vain.map(HeaderName::as_str), Some("user-agent"));
        assert_eq!(all.not_asked_for(&manifest(&[])), None);
    }

    #[test]
    fn credentials_are_recorded_only_where_they_are_named() {
        let asked = [
            "accept",
            "authorization",
            "cookie",
            "idempotency-key",
            "x-api-key",
        ];
        let all = HeaderChoice::default();
        assert_eq!(recorded(&all, &asked), ["accept", "idempotency-key"]);
        let (sent, manifest) = (sent(), manifest(&asked));
        let left_out = |choice: &HeaderChoice| {
            let left_out = choice.left_out(&sent, &manifest).into_iter();
            left_out
                .map(|value| String::from_utf8(value).unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            left_out(&all),
            ["12345", "Bearer s3cret", "abcdef", "id=12345", "s3cret"]
        );
        let named = HeaderChoice::named(vec![HeaderName::from_static("x-api-key")]);
        assert_eq!(recorded(&named, &asked), ["x-api-key"]);
        // What carries no credentials is looked for as a whole.
        let left_out = left_out(&named);
        assert!(left_out.iter().any(|it| it == "text/html"), "{left_out:?}");
        assert!(left_out.iter().all(|it| it != "abcdef"), "{left_out:?}");
        assert!(!all.covers_in_reply("set-cookie") && all.covers_in_reply("etag"));
        let cookies = HeaderChoice::named(vec![http::header::SET_COOKIE]);
        assert!(cookies.covers_in_reply("set-cookie"));
        assert_eq!(cookies.not_asked_for(&manifest), None);
    }
}
