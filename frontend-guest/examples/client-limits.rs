//! Lets each client do so much in a time: who has used that up gets 429, with `Retry-After`.
//!
//! ```json
//! {"requests": 50, "period_ms": 1000, "burst": 100, "client_header": "x-client"}
//! ```
//!
//! `requests` come back evenly in `period_ms`, and nobody has more than `burst` at once. Clients are told
//! apart by their addresses, or networks of IPv6; with `client_header` by that header where a request has it.
//! Only a proxy that lets no client choose it may set that header: who chooses a new one for each request
//! is never limited.

use std::net::IpAddr;

use frontend_guest::types::{Bucket, OnFailure, Request, Take};
use frontend_guest::{Configured, Policy, export};
use serde::Deserialize;
use sha2::{Digest, Sha256};

const BUCKET: &str = "requests";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClientLimits {
    requests: u32,
    period_ms: u32,
    burst: u32,
    /// In lower case.
    client_header: Option<String>,
}

impl Configured for ClientLimits {
    fn from_config(config: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(config).map_err(|error| {
            format!(r#"write {{"requests": 50, "period_ms": 1000, "burst": 100}}: {error}"#)
        })
    }
}

impl ClientLimits {
    /// What tells a request's client from others. Of those who cannot be told apart all share one key.
    fn client(&self, request: &Request) -> Vec<u8> {
        if let Some(name) = self.client_header.as_deref() {
            let mut values = request.header_values(name);
            match (values.next(), values.next()) {
                // However long it is, and never an address.
                (Some(value), None) => return Sha256::digest(value).to_vec(),
                // A client sent one of them, and nobody knows which.
                (Some(_), Some(_)) => return Vec::new(),
                (None, _) => {}
            }
        }
        let address = request.connection.as_ref().map(|it| it.client.parse());
        match address {
            Some(Ok(IpAddr::V4(address))) => address.octets().to_vec(),
            // Who has a network has all its addresses.
            Some(Ok(IpAddr::V6(address))) => match address.to_ipv4_mapped() {
                Some(address) => address.octets().to_vec(),
                None => address.octets()[..8].to_vec(),
            },
            _ => Vec::new(),
        }
    }
}

impl Policy for ClientLimits {
    fn name(&self) -> &'static str {
        "client-limits"
    }

    /// What it is there for it does also where it fails.
    fn on_failure(&self) -> OnFailure {
        OnFailure::Refuse
    }

    fn wants_connection(&self) -> bool {
        true
    }

    fn wanted_headers(&self) -> Vec<String> {
        self.client_header.iter().cloned().collect()
    }

    fn buckets(&self) -> Vec<Bucket> {
        vec![Bucket {
            name: BUCKET.to_owned(),
            tokens: self.requests,
            period_ms: self.period_ms,
            burst: self.burst,
        }]
    }

    fn take(&self, request: &Request) -> Option<Take> {
        Some(Take {
            bucket: BUCKET.to_owned(),
            key: self.client(request),
            cost: 1,
        })
    }
}

export!(configured ClientLimits);

#[cfg(test)]
mod tests {
    use super::*;
    use frontend_guest::types::{Action, Connection, HttpVersion, Method, Outcome, Scheme};

    fn policy() -> ClientLimits {
        let config =
            br#"{"requests": 1, "period_ms": 1000, "burst": 2, "client_header": "x-client"}"#;
        ClientLimits::from_config(config).unwrap()
    }

    fn request(client: &str, header: Option<&str>) -> Request {
        let connection = Connection {
            client: client.to_owned(),
            scheme: Scheme::Http,
            authority: "bazaar".to_owned(),
            http_version: HttpVersion::Http11,
        };
        let header = header.map(|value| ("x-client".to_owned(), value.as_bytes().to_vec()));
        Request {
            method: Method::Get,
            target: "/stocks/nvidia".to_owned(),
            headers: header.into_iter().collect(),
            connection: Some(connection),
            body: None,
            now_ms: 0,
        }
    }

    #[test]
    fn clients_are_told_apart_by_header_and_address() {
        let policy = policy();
        let key = |client, header| policy.client(&request(client, header));
        assert_eq!(key("192.0.2.1", None), key("::ffff:192.0.2.1", None));
        assert_ne!(key("192.0.2.1", None), key("192.0.2.2", None));
        assert_eq!(key("2001:db8::1", None), key("2001:db8::2", None));
        assert_ne!(key("2001:db8::1", None), key("2001:db8:0:1::1", None));
        assert_eq!(key("192.0.2.1", Some("a")), key("192.0.2.2", Some("a")));
        assert_ne!(key("192.0.2.1", Some("a")), key("192.0.2.1", Some("b")));
        assert!(key("192.0.2.1", Some(&"a".repeat(8000))).len() <= 256);
        let mut twice = request("192.0.2.1", Some("a"));
        twice.headers.push(("x-client".to_owned(), b"b".to_vec()));
        assert_eq!(
            policy.client(&twice),
            [0; 0],
            "nobody has a fresh bucket by it"
        );
    }

    #[test]
    fn who_has_used_it_up_is_told_when_to_come_back() {
        let (policy, request) = (policy(), request("192.0.2.1", None));
        assert!(matches!(
            policy.on_request(&request).action,
            Action::Take(_)
        ));
        let denied = policy.on_outcome(&request, &[], &Outcome::Denied(1_200));
        let Action::Respond(response) = denied.action else {
            panic!("{denied:?}")
        };
        assert_eq!(response.status, 429);
        let retry = ("retry-after".to_owned(), "2".to_owned());
        assert!(response.headers.contains(&retry));
        let granted = policy.on_outcome(&request, &[], &Outcome::Granted);
        assert!(matches!(granted.action, Action::ReadStock(_)));
    }
}
