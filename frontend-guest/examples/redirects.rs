//! Sends clients from old paths to new ones, with their query and whatever method they use.
//!
//! ```json
//! {"moved": {"/": "/stocks", "/shares/*": "/stocks/*", "/help": "https://help.example/bazaar"}}
//! ```
//!
//! `*` at the end stands for the rest of a path, in both places. Where a client is sent is never its own
//! choice: the host is the gateway's or the one that is written here.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use frontend_guest::types::{Action, Decision, Request, Response};
use frontend_guest::{Configured, DefaultPolicy, Policy, export};
use serde::Deserialize;

/// For good, with the same method: an order that is sent to an old path is an order at the new one.
const PERMANENT_REDIRECT: u16 = 308;

/// The configuration as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    /// New paths by the old ones.
    moved: BTreeMap<String, String>,
}

struct Redirects(Vec<Redirect>);

struct Redirect {
    from: String,
    to: String,
    /// What comes after `from` goes after `to`.
    is_prefix: bool,
}

impl Configured for Redirects {
    fn from_config(config: &[u8]) -> Result<Self, String> {
        let written: Written = serde_json::from_slice(config)
            .map_err(|error| format!(r#"write {{"moved": {{"/old": "/new"}}}}: {error}"#))?;
        let moved = written
            .moved
            .iter()
            .map(|(from, to)| Redirect::new(from, to));
        let mut moved = moved.collect::<Result<Vec<_>, _>>()?;
        // The one that says most of a path counts.
        moved.sort_by_key(|redirect| (redirect.is_prefix, Reverse(redirect.from.len())));
        Ok(Self(moved))
    }
}

impl Redirect {
    fn new(from: &str, to: &str) -> Result<Self, String> {
        let (old, new) = match (from.strip_suffix('*'), to.strip_suffix('*')) {
            (Some(old), Some(new)) => (old, new),
            (None, None) => (from, to),
            _ => {
                return Err(format!(
                    "`{from}` and `{to}`: either both end with `*` or none does"
                ));
            }
        };
        if !old.starts_with('/') || !is_plain(old) {
            return Err(format!("`{from}` is not a path"));
        }
        let is_prefix = old.len() < from.len();
        let is_safe = match new.strip_prefix("https://") {
            // With no slash before the rest, that would go on with the name of the host.
            Some(host) if is_prefix => host.find('/').is_some_and(|slash| slash > 0),
            Some(host) => !host.is_empty() && !host.starts_with('/'),
            None => is_path_here(new),
        };
        if !is_safe || !is_plain(new) {
            return Err(format!(
                "`{to}` is neither a path nor https:// with a host and a path"
            ));
        }
        if new.starts_with(old) && is_prefix || new == old {
            return Err(format!("`{from}` would send clients in circles"));
        }
        Ok(Self {
            from: old.to_owned(),
            to: new.to_owned(),
            is_prefix,
        })
    }

    /// Where a path has moved.
    fn of(&self, path: &str) -> Option<String> {
        let rest = path.strip_prefix(&self.from)?;
        let is_it = rest.is_empty() || self.is_prefix && is_plain(rest);
        let location = format!("{}{rest}", self.to);
        // `//host` is another host, and so is `/\host` to browsers.
        let stays = self.to.starts_with("https://") || is_path_here(&location);
        (is_it && stays).then_some(location)
    }
}

/// Characters of URLs, none of which a browser reads as another.
fn is_plain(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_graphic() && !b"\\\"<>^`{|}".contains(&byte))
}

/// A path of this host, and not of another.
fn is_path_here(path: &str) -> bool {
    path.starts_with('/') && !path.starts_with("//")
}

impl Policy for Redirects {
    fn name(&self) -> &'static str {
        "redirects"
    }

    fn on_request(&self, request: &Request) -> Decision {
        let moved = self
            .0
            .iter()
            .find_map(|redirect| redirect.of(request.path()));
        match moved {
            Some(location) => to(location, request.query()),
            None => DefaultPolicy.on_request(request),
        }
    }
}

export!(configured Redirects);

fn to(mut location: String, query: &str) -> Decision {
    if !query.is_empty() && is_plain(query) {
        location += if location.contains('?') { "&" } else { "?" };
        location += query;
    }
    Action::Respond(Response {
        status: PERMANENT_REDIRECT,
        headers: vec![("location".to_owned(), location)],
        body: Vec::new(),
        keep_ms: None,
    })
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use frontend_guest::types::Method;

    fn location(config: &str, target: &str) -> Option<String> {
        let policy = Redirects::from_config(config.as_bytes()).unwrap();
        let request = Request {
            method: Method::Get,
            target: target.to_owned(),
            headers: vec![],
            connection: None,
            body: None,
            now_ms: 0,
        };
        match policy.on_request(&request).action {
            Action::Respond(response) if response.status == 308 => {
                Some(response.headers[0].1.clone())
            }
            _ => None,
        }
    }

    #[test]
    fn clients_are_sent_to_the_new_path_with_their_query() {
        let config = r#"{"moved": {"/": "/stocks", "/shares/*": "/stocks/*", "/help": "https://help.example/b?a=1"}}"#;
        for (target, expected) in [
            ("/", Some("/stocks")),
            ("/?limit=2", Some("/stocks?limit=2")),
            ("/shares/nvidia?a=b", Some("/stocks/nvidia?a=b")),
            ("/shares/", Some("/stocks/")),
            ("/help?b=2", Some("https://help.example/b?a=1&b=2")),
            ("/shares", None),
            ("/helper", None),
            ("/stocks/nvidia", None),
        ] {
            assert_eq!(location(config, target).as_deref(), expected, "{target}");
        }
    }

    #[test]
    fn no_client_chooses_the_host() {
        let config = r#"{"moved": {"/old/*": "/*", "/to/*": "https://help.example/*"}}"#;
        for (target, expected) in [
            ("/old/stocks", Some("/stocks")),
            ("/old//evil.example", None),
            ("/old/\\evil.example", None),
            ("/old/%0d%0alocation:evil", Some("/%0d%0alocation:evil")),
            (
                "/to//evil.example",
                Some("https://help.example//evil.example"),
            ),
            (
                "/to/@evil.example",
                Some("https://help.example/@evil.example"),
            ),
            ("//evil.example/old/x", None),
        ] {
            assert_eq!(location(config, target).as_deref(), expected, "{target}");
        }
    }

    #[test]
    fn what_leads_nowhere_or_anywhere_is_refused() {
        for (from, to) in [
            ("/old/*", "https://help.example*"),
            ("/old/*", "https://*"),
            ("/old/*", "https:///*"),
            ("/old", "https://"),
            ("/old", "//evil.example"),
            ("/old", "http://help.example/"),
            ("/old", "javascript:alert(1)"),
            ("/old", "stocks"),
            ("old", "/stocks"),
            ("/old/*", "/stocks"),
            ("/old", "/stocks/*"),
            ("/old", "/old"),
            ("/old/*", "/old/older/*"),
            ("/old", "/a b"),
        ] {
            let refused =
                Redirects::from_config(format!(r#"{{"moved": {{"{from}": "{to}"}}}}"#).as_bytes());
            assert!(refused.is_err(), "{from} to {to}");
        }
    }
}
