//! Blocks networks, or lets some in and nobody else. Whatever it fails to decide about is refused.
//!
//! ```json
//! {"allow": ["10.0.0.0/8", "2001:db8::/32"], "block": ["10.6.6.0/24"], "client_header": "x-real-ip"}
//! ```
//!
//! `block` counts before `allow`; without `allow` everybody else gets in. An IPv4 client of an IPv6 socket
//! (`::ffff:192.0.2.1`) is its IPv4 address, and only networks of IPv4 have it. Clients are who connects; behind
//! a proxy that is the proxy, so name the header in which it puts the client's address, and lets nobody else
//! put one: who has none there, or more than one, is not let in.

use std::net::{IpAddr, Ipv4Addr};

use frontend_guest::types::{Action, Decision, OnFailure, Request};
use frontend_guest::{Configured, DefaultPolicy, Policy, export, response};
use serde::Deserialize;

/// The configuration as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    /// Absent: all.
    allow: Option<Vec<String>>,
    #[serde(default)]
    block: Vec<String>,
    /// In lower case.
    client_header: Option<String>,
}

struct Networks {
    allow: Option<Vec<Network>>,
    block: Vec<Network>,
    client_header: Option<String>,
}

/// The addresses that have the same first bits.
struct Network {
    address: IpAddr,
    prefix: u32,
}

impl Configured for Networks {
    fn from_config(config: &[u8]) -> Result<Self, String> {
        let written: Written = serde_json::from_slice(config)
            .map_err(|error| format!(r#"write {{"block": ["192.0.2.0/24"]}}: {error}"#))?;
        let networks = |texts: &[String]| {
            let parsed = texts.iter().map(|text| {
                let wrong = || {
                    format!("`{text}` is not a network like 192.0.2.0/24 or 2001:db8::/32, with no bit set after its prefix")
                };
                Network::parse(text).ok_or_else(wrong)
            });
            parsed.collect::<Result<Vec<_>, _>>()
        };
        Ok(Self {
            allow: written.allow.as_deref().map(networks).transpose()?,
            block: networks(&written.block)?,
            client_header: written.client_header,
        })
    }
}

/// An address as a number, its first bit the highest, and how many bits it has.
fn bits(address: IpAddr) -> (u128, u32) {
    match address {
        IpAddr::V4(address) => (u128::from(u32::from(address)) << 96, 32),
        IpAddr::V6(address) => (address.into(), 128),
    }
}

/// The bits after a prefix.
fn rest(bits: u128, prefix: u32) -> u128 {
    bits.checked_shl(prefix).unwrap_or(0)
}

impl Network {
    /// A single address is a network, too.
    fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let mut address: IpAddr = address.parse().ok()?;
        let (mut number, most) = bits(address);
        let mut prefix = match prefix {
            None => most,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().ok()?
            }
            Some(_) => return None,
        };
        let mapped = |address: Ipv4Addr| (IpAddr::V4(address), bits(address.into()).0);
        if let IpAddr::V6(written) = address {
            if let (Some(inner), Some(left)) = (written.to_ipv4_mapped(), prefix.checked_sub(96)) {
                if prefix > most {
                    return None;
                }
                (address, number) = mapped(inner);
                prefix = left;
            }
        }
        let is_exact = prefix <= bits(address).1 && rest(number, prefix) == 0;
        is_exact.then_some(Self { address, prefix })
    }

    fn has(&self, address: IpAddr) -> bool {
        let ((own, own_bits), (other, other_bits)) = (bits(self.address), bits(address));
        let differ = (own ^ other).leading_zeros();
        own_bits == other_bits && differ >= self.prefix
    }
}

impl Networks {
    /// Whether a request is let in. Who cannot be told is not.
    fn lets_in(&self, request: &Request) -> bool {
        let client = match &self.client_header {
            Some(header) => request.header_text(header).map(str::trim),
            None => request.connection.as_ref().map(|it| it.client.as_str()),
        };
        let Some(Ok(client)) = client.map(str::parse::<IpAddr>) else {
            return false;
        };
        let client = client.to_canonical();
        let in_any = |networks: &[Network]| networks.iter().any(|network| network.has(client));
        !in_any(&self.block) && self.allow.as_deref().is_none_or(in_any)
    }
}

impl Policy for Networks {
    fn name(&self) -> &'static str {
        "networks"
    }

    fn on_failure(&self) -> OnFailure {
        OnFailure::Refuse
    }

    fn wants_connection(&self) -> bool {
        true
    }

    fn orders_are_public(&self) -> bool {
        false
    }

    fn wanted_headers(&self) -> Vec<String> {
        self.client_header.iter().cloned().collect()
    }

    fn on_request(&self, request: &Request) -> Decision {
        if self.lets_in(request) {
            DefaultPolicy.on_request(request)
        } else {
            Action::Respond(response::error(403, "not from where you are")).into()
        }
    }
}

export!(configured Networks);

#[cfg(test)]
mod tests {
    use super::*;
    use frontend_guest::types::{Connection, HttpVersion, Method, Scheme};

    fn request(client: &str, header: Option<&str>) -> Request {
        let connection = Connection {
            client: client.to_owned(),
            scheme: Scheme::Http,
            authority: "bazaar".to_owned(),
            http_version: HttpVersion::Http11,
        };
        let header = header.map(|value| ("x-real-ip".to_owned(), value.as_bytes().to_vec()));
        Request {
            method: Method::Get,
            target: "/stocks".to_owned(),
            headers: header.into_iter().collect(),
            connection: Some(connection),
            body: None,
            now_ms: 0,
        }
    }

    fn lets_in(config: &str, client: &str) -> bool {
        let policy = Networks::from_config(config.as_bytes()).unwrap();
        policy.lets_in(&request(client, None))
    }

    #[test]
    fn networks_are_by_their_prefix() {
        for (network, inside, outside) in [
            ("192.0.2.0/24", "192.0.2.255", "192.0.3.0"),
            ("192.0.2.128/25", "192.0.2.128", "192.0.2.127"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.8"),
            ("0.0.0.0/0", "255.1.2.3", "::1"),
            ("192.0.2.0/24", "::ffff:192.0.2.1", "::192.0.2.1"),
            ("::ffff:192.0.2.0/120", "192.0.2.1", "192.0.3.1"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("2001:db8::7/128", "2001:db8::7", "2001:db8::6"),
            ("::/0", "2001:db8::1", "192.0.2.1"),
        ] {
            let block = format!(r#"{{"block": ["{network}"]}}"#);
            assert!(!lets_in(&block, inside), "{network} has {inside}");
            assert!(lets_in(&block, outside), "{network} has {outside}");
            let allow = format!(r#"{{"allow": ["{network}"]}}"#);
            assert!(
                lets_in(&allow, inside) && !lets_in(&allow, outside),
                "{network}"
            );
        }
        let both = r#"{"allow": ["10.0.0.0/8"], "block": ["10.6.6.0/24"]}"#;
        assert!(lets_in(both, "10.6.5.1") && !lets_in(both, "10.6.6.1"));
        assert!(!lets_in(r#"{"allow": []}"#, "10.0.0.1"));
    }

    #[test]
    fn what_is_not_a_network_is_refused() {
        for network in [
            "",
            "192.0.2.1/24",
            "192.0.2.0/33",
            "192.0.2.0/",
            "192.0.2.0/+8",
            "192.0.2/24",
            "2001:db8::1/32",
            "2001:db8::/129",
            "::ffff:192.0.2.0/129",
            "example.com",
            "192.0.02.0/24",
        ] {
            let config = format!(r#"{{"block": ["{network}"]}}"#);
            assert!(
                Networks::from_config(config.as_bytes()).is_err(),
                "{network}"
            );
        }
    }

    #[test]
    fn who_cannot_be_told_is_not_let_in() {
        let config = br#"{"block": ["192.0.2.0/24"], "client_header": "x-real-ip"}"#;
        let policy = Networks::from_config(config).unwrap();
        let lets_in = |header: Option<&str>| policy.lets_in(&request("127.0.0.1", header));
        assert!(lets_in(Some("198.51.100.1")));
        for header in [
            None,
            Some("192.0.2.1"),
            Some("unknown"),
            Some("1.2.3.4, 5.6.7.8"),
            Some(""),
        ] {
            assert!(!lets_in(header), "{header:?}");
        }
        let mut twice = request("127.0.0.1", Some("198.51.100.1"));
        twice.headers.push(twice.headers[0].clone());
        assert!(!policy.lets_in(&twice));
        let unknown = Request {
            connection: None,
            ..request("", None)
        };
        assert!(!Networks::from_config(b"{}").unwrap().lets_in(&unknown));
    }
}
