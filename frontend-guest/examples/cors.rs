//! Says on every reply, the gateway's own errors included, which pages may read it (CORS) and how browsers
//! are to treat it.
//!
//! ```json
//! {"origins": ["https://shop.example", "http://localhost:3000"]}
//! ```
//!
//! Pages of these origins may read what they ask for, and send orders, without cookies. Others may not:
//! no origin is allowed that is not on the list. `Strict-Transport-Security` is left to whoever ends TLS.

use frontend_guest::types::{Action, Decision, Method, ReplyHeader, Request, Response};
use frontend_guest::{Configured, DefaultPolicy, Policy, export};
use serde::Deserialize;

/// One header is added for each.
const ORIGINS_MAX: usize = 50;

/// A browser that asks before it sends says this.
const ASKS: &str = "access-control-request-method";

/// What every reply says to browsers.
const SECURITY: [(&str, &str); 4] = [
    // Replies are data: nothing of them is a page that loads, runs or is shown in another.
    (
        "content-security-policy",
        "default-src 'none'; frame-ancestors 'none'",
    ),
    ("cross-origin-resource-policy", "same-origin"),
    ("referrer-policy", "no-referrer"),
    ("x-content-type-options", "nosniff"),
];

/// What pages may do, besides what all may.
const ALLOWED: [(&str, &str); 3] = [
    ("access-control-allow-methods", "GET, HEAD, POST"),
    (
        "access-control-allow-headers",
        "authorization, content-type, idempotency-key",
    ),
    ("access-control-max-age", "600"),
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Cors {
    origins: Vec<String>,
}

impl Configured for Cors {
    fn from_config(config: &[u8]) -> Result<Self, String> {
        let cors: Self = serde_json::from_slice(config)
            .map_err(|error| format!(r#"write {{"origins": ["https://HOST"]}}: {error}"#))?;
        if cors.origins.len() > ORIGINS_MAX {
            return Err(format!("more than {ORIGINS_MAX} origins are listed"));
        }
        match cors.origins.iter().find(|origin| !is_origin(origin)) {
            Some(origin) => Err(format!(
                "`{origin}` is not an origin as browsers send it: https://HOST or https://HOST:PORT, in lower case"
            )),
            None => Ok(cors),
        }
    }
}

/// Whether a browser can send it: neither `*`, which allows all, nor `null`, which any page can be.
fn is_origin(text: &str) -> bool {
    let host = ["https://", "http://"]
        .iter()
        .find_map(|scheme| text.strip_prefix(scheme));
    let is_inside =
        |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b':' | b'[' | b']');
    host.is_some_and(|host| !host.is_empty() && host.bytes().all(is_inside))
}

impl Policy for Cors {
    fn name(&self) -> &'static str {
        "cors"
    }

    fn wanted_headers(&self) -> Vec<String> {
        vec![ASKS.to_owned()]
    }

    /// The gateway adds them, so that kept responses and its own errors have them as well.
    fn reply_headers(&self) -> Vec<ReplyHeader> {
        let allow = |origin: &String| {
            ReplyHeader::always("access-control-allow-origin", origin).when("origin", origin)
        };
        let mut headers: Vec<_> = self.origins.iter().map(allow).collect();
        headers.extend(SECURITY.map(|(name, value)| ReplyHeader::always(name, value)));
        let shown = "cache-status, etag, retry-after";
        headers.push(ReplyHeader::always("access-control-expose-headers", shown));
        headers
    }

    fn on_request(&self, request: &Request) -> Decision {
        let asks = request.method == Method::Options && request.header_text(ASKS).is_some();
        if asks {
            allowed()
        } else {
            DefaultPolicy.on_request(request)
        }
    }
}

export!(configured Cors);

/// What a browser asks before it sends. It goes on only if its page's origin is allowed, too.
fn allowed() -> Decision {
    let header = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    Action::Respond(Response {
        status: 204,
        headers: ALLOWED.map(header).to_vec(),
        body: Vec::new(),
        keep_ms: None,
    })
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_browser_sends_is_an_origin() {
        for (origin, is_one) in [
            ("https://shop.example", true),
            ("http://localhost:3000", true),
            ("https://[2001:db8::1]:8443", true),
            ("*", false),
            ("null", false),
            ("https://", false),
            ("https://*.example", false),
            ("https://Shop.example", false),
            ("https://shop.example/", false),
            ("https://shop.example/page", false),
            ("shop.example", false),
            ("", false),
        ] {
            let config = format!(r#"{{"origins": ["{origin}"]}}"#);
            let taken = Cors::from_config(config.as_bytes());
            assert_eq!(taken.is_ok(), is_one, "{origin}");
        }
        assert!(Cors::from_config(b"").is_err());
    }

    #[test]
    fn a_browser_that_asks_is_told_what_it_may_send() {
        let cors = Cors::from_config(br#"{"origins": []}"#).unwrap();
        let mut request = Request {
            method: Method::Options,
            target: "/orders".to_owned(),
            headers: vec![(ASKS.to_owned(), b"POST".to_vec())],
            connection: None,
            body: None,
            now_ms: 0,
        };
        let status = |request: &Request| match cors.on_request(request).action {
            Action::Respond(response) => response.status,
            other => panic!("{other:?}"),
        };
        assert_eq!(status(&request), 204);
        request.headers.clear();
        assert_eq!(status(&request), 405);
    }
}
