//! Lets in who sends an API key that it knows, and has refused whatever it fails to decide about: nobody
//! gets in because something went wrong.
//!
//! Its configuration says who has which key. Keep the keys in files or variables that are set aside for
//! policies, and refer to them:
//!
//! ```json
//! {"keys": {"alice": "${file:alice}", "bob": "${env:BAZAAR_SECRET_BOB}"}}
//! ```
//!
//! A client sends its key as `Authorization: Bearer KEY`. Idempotency keys are each client's own.

use std::collections::BTreeMap;

use frontend_guest::types::{Action, Decision, OnFailure, Request, Response};
use frontend_guest::{Configured, Policy, export};
use serde::Deserialize;
use sha2::{Digest, Sha256};

const HEADER: &str = "authorization";
const SCHEME: &str = "Bearer ";

/// Shorter keys can be guessed.
const KEY_BYTES_MIN: usize = 16;

/// The configuration as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    /// Each client's key, by its name.
    keys: BTreeMap<String, String>,
}

/// The clients, by the SHA-256 of their keys: how long it takes to find one says nothing about the keys.
struct ApiKeys(BTreeMap<[u8; 32], String>);

impl Configured for ApiKeys {
    fn from_config(config: &[u8]) -> Result<Self, String> {
        let written: Written = serde_json::from_slice(config)
            .map_err(|error| format!(r#"write {{"keys": {{"NAME": "KEY"}}}}: {error}"#))?;
        let mut clients = BTreeMap::new();
        for (client, key) in written.keys {
            if key.len() < KEY_BYTES_MIN || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(format!(
                    "the key of `{client}` must have {KEY_BYTES_MIN} visible ASCII characters at least"
                ));
            }
            if let Some(other) = clients.insert(digest(&key), client) {
                return Err(format!("`{other}` has the key of another client"));
            }
        }
        match clients.is_empty() {
            true => Err("nobody has a key: nobody could get in".to_owned()),
            false => Ok(Self(clients)),
        }
    }
}

impl ApiKeys {
    /// Who sent a request.
    fn client(&self, request: &Request) -> Option<&str> {
        let key = request.header_text(HEADER)?.strip_prefix(SCHEME)?;
        self.0.get(&digest(key)).map(String::as_str)
    }
}

impl Policy for ApiKeys {
    fn name(&self) -> &'static str {
        "api-keys"
    }

    fn on_failure(&self) -> OnFailure {
        OnFailure::Refuse
    }

    fn orders_are_public(&self) -> bool {
        false
    }

    fn wanted_headers(&self) -> Vec<String> {
        vec![HEADER.to_owned()]
    }

    fn idempotency_scope(&self, request: &Request) -> Option<String> {
        self.client(request).map(str::to_owned)
    }

    fn on_request(&self, request: &Request) -> Decision {
        if self.client(request).is_none() {
            return unauthorized().into();
        }
        // As the default policy goes on: a limit for each client goes into `buckets` and `take`.
        match self.take(request) {
            Some(take) => Action::Take(take).into(),
            None => self.on_granted(request),
        }
    }
}

export!(configured ApiKeys);

fn digest(key: &str) -> [u8; 32] {
    Sha256::digest(key).into()
}

fn unauthorized() -> Action {
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    Action::Respond(Response {
        status: 401,
        headers: vec![
            header("content-type", "application/json"),
            header("www-authenticate", r#"Bearer realm="bazaar""#),
        ],
        body: br#"{"error":{"code":401,"message":"send an API key: Authorization: Bearer KEY"}}"#
            .to_vec(),
        keep_ms: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use frontend_guest::types::{Method, Order, Outcome, Side};

    const ALICE: &str = "0123456789abcdef";

    fn policy() -> ApiKeys {
        let config = format!(r#"{{"keys": {{"alice": "{ALICE}", "bob": "fedcba9876543210"}}}}"#);
        ApiKeys::from_config(config.as_bytes()).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn who_has_a_key_gets_in_by_name() {
        let policy = policy();
        assert_eq!(policy.0.len(), 2);
        assert_eq!(
            policy.0.get(&digest(ALICE)).map(String::as_str),
            Some("alice")
        );
        assert_eq!(policy.0.get(&digest("0123456789abcdee")), None);
        assert_eq!(policy.on_failure(), OnFailure::Refuse);
    }

    #[test]
    fn no_cache_that_several_people_share_keeps_an_order() {
        let request = Request {
            method: Method::Get,
            target: "/orders/1".into(),
            headers: Vec::new(),
            connection: None,
            body: None,
            now_ms: 0,
        };
        let order = Order {
            number: 1,
            name: "meta".into(),
            side: Side::Buy,
            quantity: 1,
        };
        let decision = policy().on_outcome(&request, &[], &Outcome::Order(order));
        let Action::Respond(response) = decision.action else {
            panic!("{decision:?}")
        };
        let control = response.headers.iter().find(|it| it.0 == "cache-control");
        assert!(control.unwrap().1.starts_with("private"), "{response:?}");
    }

    #[test]
    fn a_configuration_that_lets_nobody_or_anybody_in_is_refused() {
        for (config, problem) in [
            ("", "write"),
            ("{}", "missing field `keys`"),
            (r#"{"keys": {}}"#, "nobody has a key"),
            (r#"{"keys": {"alice": ""}}"#, "16 visible"),
            (
                r#"{"keys": {"a": "0123456789abcdef", "b": "0123456789abcdef"}}"#,
                "key of another",
            ),
            (
                r#"{"keys": {"alice": "0123456789abcdef"}, "open": true}"#,
                "unknown field",
            ),
        ] {
            let refused = ApiKeys::from_config(config.as_bytes())
                .map(drop)
                .unwrap_err();
            assert!(refused.contains(problem), "{config}: {refused}");
            assert!(!refused.contains(ALICE), "{refused}");
        }
    }
}
