//! Hosts as HTTP names them (RFC 9110, section 7.2; RFC 3986, section 3.2.2).

use std::net::Ipv6Addr;

/// Whether this is a host with or without a port, and not empty.
pub(super) fn is_host(text: &[u8]) -> bool {
    let (host, port) = split(text);
    let is_port = port.is_none_or(|port| {
        let text = str::from_utf8(port).unwrap_or_default();
        port.iter().all(u8::is_ascii_digit) && (port.is_empty() || text.parse::<u16>().is_ok())
    });
    is_port && (is_name(host) || is_ipv6(host))
}

/// Whether two name the same host and port, of a scheme that has a port by default.
pub(super) fn is_same(scheme: &str, one: &[u8], other: &[u8]) -> bool {
    let default_port = match scheme {
        "https" => &b"443"[..],
        _ => b"80",
    };
    let [(one, one_port), (other, other_port)] = [one, other].map(|text| {
        let (host, port) = split(text);
        let port = port.filter(|port| !port.is_empty());
        (host, port.unwrap_or(default_port))
    });
    one.eq_ignore_ascii_case(other) && one_port == other_port
}

/// Whether an `Origin` (RFC 6454) is that of a host, by whichever scheme: a proxy in front may
/// have ended TLS. `null` is nobody's.
pub(super) fn is_same_origin(origin: &[u8], host: &[u8]) -> bool {
    ["http", "https"].into_iter().any(|scheme| {
        let own = origin.strip_prefix(scheme.as_bytes());
        let own = own.and_then(|own| own.strip_prefix(b"://"));
        own.is_some_and(|own| is_same(scheme, own, host))
    })
}

/// A host, and the port after it. The colons of an address of IPv6 are in brackets.
fn split(text: &[u8]) -> (&[u8], Option<&[u8]>) {
    let in_brackets = text.iter().rposition(|byte| *byte == b']').unwrap_or(0);
    match text[in_brackets..].iter().position(|byte| *byte == b':') {
        Some(colon) => {
            let (host, port) = text.split_at(in_brackets + colon);
            (host, Some(&port[1..]))
        }
        None => (text, None),
    }
}

/// Whether a byte may stand for itself in a name: `unreserved` and `sub-delims`.
const IS_PLAIN: [bool; 256] = {
    let mut is_plain = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        is_plain[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let others = b"-._~!$&'()*+,;=";
    let mut at = 0;
    while at < others.len() {
        is_plain[others[at] as usize] = true;
        at += 1;
    }
    is_plain
};

/// A registered name, or an address of IPv4, which looks like one.
fn is_name(host: &[u8]) -> bool {
    let mut rest = host;
    while let Some((&byte, after)) = rest.split_first() {
        rest = match (byte, after) {
            (b'%', [high, low, after @ ..])
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                after
            }
            _ if IS_PLAIN[byte as usize] => after,
            _ => return false,
        };
    }
    !host.is_empty()
}

fn is_ipv6(host: &[u8]) -> bool {
    let address = host
        .strip_prefix(b"[")
        .and_then(|host| host.strip_suffix(b"]"));
    address
        .and_then(|address| str::from_utf8(address).ok())
        .is_some_and(|address| address.parse::<Ipv6Addr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_told_from_what_is_none() {
        for host in [
            "x",
            "localhost:8080",
            "127.0.0.1",
            "example.com:",
            "EXAMPLE.com:65535",
            "under_score.example",
            "a%20b",
            "[::1]",
            "[2001:db8::7]:443",
        ] {
            assert!(is_host(host.as_bytes()), "{host}");
        }
        for host in [
            "",
            ":80",
            "a b",
            "a/b",
            "user@host",
            "host:port",
            "host:65536",
            "host:+80",
            "host:80:80",
            "http://host",
            "a%2",
            "a%zz",
            "::1",
            "[::1",
            "[::g]",
            "[::1]x",
            "[]",
            "a[::1]",
            "h\u{f6}st",
            "host\t",
        ] {
            assert!(!is_host(host.as_bytes()), "{host}");
        }
    }

    #[test]
    fn an_origin_is_compared_with_a_host_by_name_and_port() {
        for (origin, host, same) in [
            ("http://localhost:8080", "localhost:8080", true),
            ("http://Example.com", "example.COM", true),
            ("http://example.com", "example.com:80", true),
            ("https://example.com", "example.com", true),
            ("https://example.com:443", "example.com", true),
            ("http://[::1]:8080", "[::1]:8080", true),
            ("http://example.com", "example.com:8080", false),
            ("http://localhost:3000", "localhost:8080", false),
            ("https://example.com:80", "example.com", false),
            ("http://evil.example", "example", false),
            ("http://example.com.evil.example", "example.com", false),
            ("http://example.com/", "example.com", false),
            ("file://", "example.com", false),
            ("example.com", "example.com", false),
            ("null", "null", false),
            ("", "", false),
        ] {
            assert_eq!(
                is_same_origin(origin.as_bytes(), host.as_bytes()),
                same,
                "{origin} {host}"
            );
        }
    }
}
