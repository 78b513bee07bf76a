//! Who may use the admin API.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, HOST, HeaderName, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, Version};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use frontend_policy::Reason;
use tls::{PROVEN_FOR, Principal, Role, Shown};
use tokio::time::sleep;

use super::Admin;
use super::connections::Peer;
use super::page;
use super::refusal::Refusal;
use super::token::{CurrentToken, Token, TokenFileError};
use crate::config::Tokens;

/// What probes ask, which have no token: anybody may.
const OPEN_PATHS: [&str; 2] = ["/healthz", "/readyz"];

/// Whether anybody may ask for it: the console's page holds nothing.
fn is_open(path: &str) -> bool {
    OPEN_PATHS.contains(&path) || page::FILES.iter().any(|asset| asset.path == path)
}

/// The scheme that a token is sent under (RFC 6750). Schemes have no case (RFC 9110, section 11.1).
const SCHEME: &str = "bearer";

/// Whether a browser sends the request for a page of another site (W3C Fetch Metadata). Unlike
/// `Origin` it comes with each request, a picture's too.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What a caller may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Right {
    /// Look at everything.
    Read,
    /// And change it.
    Change,
}

/// By what operators are known.
#[derive(Debug, Clone, Default)]
pub struct KnownBy {
    pub tokens: Tokens,
    /// A certificate of the cluster's that says that somebody is one.
    pub certificates: bool,
    /// Whoever has no certificate at all is none.
    pub all_are_certified: bool,
}

/// Who may do what.
#[derive(Debug)]
pub struct Operators {
    tokens: Vec<(CurrentToken, Right)>,
    certificates: bool,
    all_are_certified: bool,
}

impl Operators {
    /// As they are known.
    ///
    /// # Errors
    /// Where a file of a token cannot be used.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn new(known_by: KnownBy) -> Result<Self, TokenFileError> {
        let KnownBy {
            tokens: Tokens { change, read },
            certificates,
            all_are_certified,
        } = known_by;
        let given = [(change, Right::Change), (read, Right::Read)];
        let given = given
            .into_iter()
            .filter_map(|(source, right)| Some((source?, right)));
        let tokens = given.map(|(source, right)| Ok((CurrentToken::of(source)?, right)));
        let tokens = tokens.collect::<Result<Vec<_>, TokenFileError>>()?;
        if let [(change, _), (read, _)] = &tokens[..]
            && change.is_same(read)
        {
            return Err(TokenFileError::Same);
        }
        Ok(Self {
            tokens,
            certificates,
            all_are_certified,
        })
    }

    /// Whether nothing tells them from others: then whoever reaches the listener is one.
    pub fn are_unknown(&self) -> bool {
        self.tokens.is_empty() && !self.certificates
    }

    /// What may be done by whoever has shown a certificate and a token, and which of them says so.
    fn recognize(&self, shown: &Shown, given: Option<&str>) -> Result<(String, Right), Refusal> {
        let operates = |principal: &Principal| match principal.role() {
            Role::Operator => Some(Right::Change),
            Role::Viewer => Some(Right::Read),
            Role::Gateway | Role::Catalog | Role::Order => None,
        };
        let principal = shown.principal.as_ref();
        let of_certificate = principal.and_then(|principal| {
            let right = operates(principal)?;
            Some((format!("certificate {principal}"), right))
        });
        if self.all_are_certified && !shown.is_certified && of_certificate.is_none() {
            return Err(Refusal::NoCertificate);
        }
        if self.are_unknown() {
            return Ok(("nothing".to_owned(), Right::Change));
        }
        let of_token = given.and_then(|given| {
            // Where one is the other by now, the lesser right.
            let known = self.tokens.iter().filter(|(token, _)| token.matches(given));
            known.min_by_key(|(_, right)| *right).map(|(_, right)| {
                let token = match right {
                    Right::Read => "token for reading",
                    Right::Change => "token",
                };
                (token.to_owned(), *right)
            })
        });
        // The one that may do more.
        let known = of_certificate.into_iter().chain(of_token);
        let known = known.max_by_key(|(_, right)| *right);
        known.ok_or(Refusal::NoToken {
            or_certificate: self.certificates,
        })
    }
}

/// Whether the caller may change things: goes with each of its requests.
#[derive(Debug, Clone, Copy)]
pub(super) struct MayChange(pub(super) bool);

/// Who has sent a request.
#[derive(Debug, Clone)]
struct Caller {
    may_change: MayChange,
    /// What of it says that it may: for the log of changes.
    known_by: String,
    address: IpAddr,
    credential: Credential,
}

/// What a caller has shown. Goes with each of its requests, since an answer may go out for long after it.
#[derive(Debug, Clone)]
pub(super) struct Credential {
    peer: Peer,
    token: Option<Token>,
    /// What it was good for.
    right: Right,
}

impl Credential {
    /// Waits until it is good for less: its token was replaced, its certificate has expired, or is believed no more. Looks
    /// as often as at other connections.
    pub(super) async fn ends(self, admin: &Admin) {
        let Self { peer, token, right } = self;
        let token = token.as_ref().map(Token::as_str);
        let is_good = || {
            let now = admin.recognize(&peer, token);
            now.is_ok_and(|(_, now)| now >= right)
        };
        loop {
            sleep(PROVEN_FOR).await;
            if !is_good() {
                break;
            }
        }
        // Others may need its place.
        peer.trusted.set(false);
        tracing::info!(client = %peer.address, "an operator is told no more: what they showed is good for less by now");
    }
}

impl Admin {
    /// What may be done by now by who is at the other end of a connection and has shown that token, and what says so.
    fn recognize(&self, peer: &Peer, token: Option<&str>) -> Result<(String, Right), Refusal> {
        let shown = self.tls.as_ref().map(|tls| tls.judge(&peer.chain));
        let shown = shown.unwrap_or_default();
        self.operators.recognize(&shown, token)
    }
}

/// Lets only those in who may: with a token or a certificate where these are known, else from this machine alone,
/// but in no case a web page that a browser shows.
pub(super) async fn authorize(
    State(admin): State<Arc<Admin>>,
    mut request: Request,
    next: Next,
) -> Response {
    if !is_open(request.uri().path()) {
        let caller = match admit(&admin, &request) {
            Ok(caller) => caller,
            Err(refusal) => {
                // Who was let in before may be believed no more, and makes room for others.
                if !matches!(refusal, Refusal::MayOnlyRead)
                    && let Some(peer) = request.extensions().get::<Peer>()
                {
                    peer.trusted.set(false);
                }
                return refusal.into_response();
            }
        };
        if let Some(peer) = request.extensions().get::<Peer>() {
            peer.trusted.set(true);
        }
        request.extensions_mut().insert(caller.may_change);
        request.extensions_mut().insert(caller.credential.clone());
        let reason = reason(request.headers(), caller);
        request.extensions_mut().insert(reason);
    }
    next.run(request).await
}

fn admit(admin: &Admin, request: &Request) -> Result<Caller, Refusal> {
    let headers = request.headers();
    let named = host(request);
    if is_foreign_page(headers, named.flatten(), admin.tls.is_some()) {
        return Err(Refusal::ForeignPage);
    }
    let host = named.ok_or(Refusal::NoHost)?;
    if admin.is_local && !host.is_none_or(names_this_machine) {
        return Err(Refusal::OtherHost);
    }
    // Each connection that is served has one.
    let peer = request.extensions().get::<Peer>();
    let peer = peer.ok_or(Refusal::NoHost)?;
    let token = bearer(headers);
    let (known_by, right) = admin.recognize(peer, token)?;
    match right == Right::Change || is_look(request.method()) {
        true => Ok(Caller {
            may_change: MayChange(right == Right::Change),
            known_by,
            address: peer.address,
            credential: Credential {
                peer: peer.clone(),
                token: token.and_then(|token| token.parse().ok()),
                right,
            },
        }),
        false => Err(Refusal::MayOnlyRead),
    }
}

/// Whether nothing is changed by it. Recordings, which clients' requests are in, are asked for by another method.
fn is_look(method: &Method) -> bool {
    [Method::GET, Method::HEAD].contains(method)
}

/// Whether a browser says that a page of another site is behind the request. One that was typed in,
/// or that no browser sends, is nobody's. The console's own is of this host (RFC 6454), whose name is looked at as well.
fn is_foreign_page(headers: &HeaderMap, host: Option<&str>, is_over_tls: bool) -> bool {
    let scheme = if is_over_tls { "https" } else { "http" };
    let own = host.map(|host| format!("{scheme}://{host}"));
    let is_own_origin = |origin: &HeaderValue| own.as_deref().is_some_and(|own| origin == own);
    let is_own = |site: &HeaderValue| site == "none" || site == "same-origin";
    !headers.get_all(ORIGIN).iter().all(is_own_origin)
        || !headers.get_all(SEC_FETCH_SITE).iter().all(is_own)
}

/// What the request calls this server; none at all from clients of before HTTP/1.1. `None` where
/// that cannot be told.
fn host(request: &Request) -> Option<Option<&str>> {
    let target = request.uri().authority();
    let mut hosts = request.headers().get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => Some(host.to_str().ok()?),
        (None, _) if request.version() < Version::HTTP_11 => None,
        // Over HTTP/2 the target has one (RFC 9113, section 8.3.1).
        (None, _) if request.version() >= Version::HTTP_2 && target.is_some() => None,
        _ => return None,
    };
    // A target with a host of its own counts more (RFC 9112, section 3.2.2).
    Some(target.map(Authority::as_str).or(host))
}

/// Whether a `Host` header names a loopback address. A name that was made to resolve to one
/// (DNS rebinding) does not.
fn names_this_machine(host: &str) -> bool {
    let name = host
        .rsplit_once(':')
        .filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
    let name = name.map_or(host, |(name, _)| name);
    let address = name
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse::<IpAddr>();
    name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

/// The one token that a request shows.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut given = headers.get_all(AUTHORIZATION).iter();
    let (Some(given), None) = (given.next(), given.next()) else {
        return None;
    };
    let (scheme, given) = given.to_str().ok()?.split_once(' ')?;
    let is_bearer = scheme.eq_ignore_ascii_case(SCHEME);
    is_bearer.then(|| given.trim_start_matches(' '))
}

/// Longest text that is taken from a header for the log of changes, in bytes.
const REASON_BYTES_MAX: usize = 200;

/// Who changes the policy, from where, and why, for the log of changes. What the caller says of itself stands beside
/// what is known of it.
fn reason(headers: &HeaderMap, caller: Caller) -> Reason {
    let text = |name: &str, default: &str| {
        let given = headers
            .get(name)
            .and_then(|value| str::from_utf8(value.as_bytes()).ok())
            .unwrap_or(default);
        given.chars().take(REASON_BYTES_MAX).collect()
    };
    Reason {
        who: text("x-operator", "admin API"),
        why: text("x-reason", "not said"),
        known_by: Some(caller.known_by),
        address: Some(caller.address),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;
    use crate::admin::TokenSource;

    #[test]
    fn only_loopback_addresses_name_this_machine() {
        for host in [
            "127.0.0.1",
            "127.0.0.1:8081",
            "localhost:8081",
            "LOCALHOST",
            "[::1]:8081",
            "[::1]",
        ] {
            assert!(names_this_machine(host), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:8081",
            "127.0.0.1.evil.example",
            "10.0.0.1:8081",
            "",
        ] {
            assert!(!names_this_machine(host), "{host}");
        }
    }

    fn request(headers: &[(&str, &str)]) -> Request {
        let mut request = Request::builder().uri("/status");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Body::empty()).unwrap()
    }

    #[test]
    fn a_token_is_shown_by_one_header_of_its_scheme_in_any_case() {
        let token: Token = "secret".parse().unwrap();
        let token = CurrentToken::of(TokenSource::Given(token)).unwrap();
        let shows = |values: &[&str]| {
            let headers: Vec<_> = values
                .iter()
                .map(|value| ("authorization", *value))
                .collect();
            let request = request(&headers);
            bearer(request.headers()).is_some_and(|given| token.matches(given))
        };
        for value in ["Bearer secret", "bearer secret", "BEARER  secret"] {
            assert!(shows(&[value]), "{value}");
        }
        for value in [
            "",
            "secret",
            "Bearer",
            "Bearer ",
            "Basic secret",
            "Bearer secre",
            "Bearersecret",
        ] {
            assert!(!shows(&[value]), "{value}");
        }
        assert!(!shows(&[]));
        assert!(!shows(&["Bearer secret", "Bearer other"]));
    }

    #[test]
    fn what_a_page_of_another_site_has_a_browser_send_is_told_by_its_headers() {
        for (headers, expected) in [
            (&[][..], false),
            (&[("sec-fetch-site", "none")], false),
            (&[("sec-fetch-site", "same-origin")], false),
            (&[("sec-fetch-site", "same-site")], true),
            (&[("sec-fetch-site", "cross-site")], true),
            (&[("origin", "null")], true),
            (&[("origin", "http://evil.example")], true),
            (&[("origin", "https://localhost:1")], true),
            (&[("origin", "http://localhost:2")], true),
            (&[("origin", "http://localhost")], true),
            (&[("origin", "http://localhost:1")], false),
            (
                &[
                    ("origin", "http://localhost:1"),
                    ("sec-fetch-site", "cross-site"),
                ],
                true,
            ),
            (
                &[
                    ("origin", "http://localhost:1"),
                    ("origin", "http://evil.example"),
                ],
                true,
            ),
        ] {
            let request = request(headers);
            let foreign = is_foreign_page(request.headers(), Some("localhost:1"), false);
            assert_eq!(foreign, expected, "{headers:?}");
        }
        let own = request(&[("origin", "http://localhost:1")]);
        assert!(is_foreign_page(own.headers(), None, false));
        assert!(is_foreign_page(own.headers(), Some("localhost:1"), true));
    }

    #[test]
    fn a_request_says_once_whom_it_is_for() {
        let host = |headers: &[(&str, &str)]| {
            let request = request(headers);
            super::host(&request).map(|host| host.map(str::to_owned))
        };
        assert_eq!(host(&[("host", "a:1")]), Some(Some("a:1".to_owned())));
        assert_eq!(host(&[]), None);
        assert_eq!(host(&[("host", "a"), ("host", "a")]), None);
        let mut old = request(&[]);
        *old.version_mut() = Version::HTTP_10;
        assert_eq!(super::host(&old), Some(None));
        let mut second = request(&[]);
        *second.version_mut() = Version::HTTP_2;
        assert_eq!(super::host(&second), None);
        *second.uri_mut() = "https://a:1/status".parse().unwrap();
        assert_eq!(super::host(&second), Some(Some("a:1")));
        let mut absolute = request(&[("host", "localhost")]);
        *absolute.uri_mut() = "http://evil.example/status".parse().unwrap();
        assert_eq!(super::host(&absolute), Some(Some("evil.example")));
    }
}
