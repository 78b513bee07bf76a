//! What HTTP asks of a request whatever it is about (RFC 9110, 9112, 9113), and what protects
//! clients whatever the policy is.

use bytes::Bytes;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, COOKIE, HOST, ORIGIN,
    TRANSFER_ENCODING,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version};
use http_body_util::Full;

use super::host::{is_host, is_same, is_same_origin};
use super::response::error;
use crate::config::{HEAD_BYTES_MAX, HEADERS_MAX};

/// What a foreign page must say that it sends: no page can without asking first.
const JSON: &str = "application/json";

/// The head of a request that was let in.
pub struct Admitted<'a> {
    /// With `host` and `cookie` as HTTP/1 has them.
    pub(super) head: &'a mut Parts,
}

/// Why no policy sees a request. Displays as the message that the client gets.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each has its message")]
pub enum Refusal {
    #[error("the target has more than {HEAD_BYTES_MAX} bytes")]
    TargetTooLong,
    #[error("the request's head has more than {HEAD_BYTES_MAX} bytes or {HEADERS_MAX} headers")]
    HeadTooLarge,
    #[error("the target is neither a path nor a URL")]
    InvalidTarget,
    #[error("the request has no `Host`")]
    NoHost,
    #[error("the request has more than one `Host`")]
    ManyHosts,
    #[error("the request's `Host` is not a host with or without a port")]
    InvalidHost,
    #[error("the request's `Host` is not its `:authority`")]
    OtherHost,
    #[error("there are no tunnels here")]
    Tunnel,
    #[error("the only transfer coding understood is `chunked`, once")]
    TransferCoding,
    #[error("content codings are not understood: send the body as it is")]
    ContentCoding,
    #[error("what a page of another origin sends must be `{JSON}`")]
    ForeignPage,
    #[error("header `{0}` is not text")]
    UnreadableHeader(HeaderName),
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::InvalidTarget
            | Self::NoHost
            | Self::ManyHosts
            | Self::InvalidHost
            | Self::OtherHost
            | Self::UnreadableHeader(_) => StatusCode::BAD_REQUEST,
            Self::Tunnel | Self::TransferCoding => StatusCode::NOT_IMPLEMENTED,
            Self::ContentCoding | Self::ForeignPage => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        }
    }

    /// The answer that tells the client.
    pub fn response(&self) -> Response<Full<Bytes>> {
        let mut response = error(self.status(), &self.to_string());
        let header = match self {
            // RFC 9110, section 15.5.16.
            Self::ContentCoding => Some((ACCEPT_ENCODING, "identity")),
            Self::ForeignPage => Some((ACCEPT, JSON)),
            // Where its body ends, others may see otherwise.
            Self::TransferCoding => Some((CONNECTION, "close")),
            _ => None,
        };
        if let Some((name, value)) = header {
            response
                .headers_mut()
                .insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

/// Lets a request in by its head, as far as HTTP goes.
pub(super) fn admit(head: &mut Parts, has_body: bool) -> Result<Admitted<'_>, Refusal> {
    check_size(head)?;
    if head.version >= Version::HTTP_2 {
        join_cookies(&mut head.headers);
    }
    settle_host(head)?;
    if head.method == Method::CONNECT {
        return Err(Refusal::Tunnel);
    }
    if has_body {
        check_transfer_coding(&head.headers)?;
    }
    if head.method == Method::POST && is_foreign(&head.headers) && !is_json(&head.headers) {
        return Err(Refusal::ForeignPage);
    }
    Ok(Admitted { head })
}

/// No header that a policy is to see may be anything but text.
pub(super) fn check_readable<'a>(
    headers: &HeaderMap,
    mut wanted: impl Iterator<Item = &'a HeaderName>,
) -> Result<(), Refusal> {
    let is_unreadable = |value: &HeaderValue| value.to_str().is_err();
    let unreadable = wanted.find(|name| headers.get_all(*name).iter().any(is_unreadable));
    match unreadable {
        Some(name) => Err(Refusal::UnreadableHeader(name.clone())),
        None => Ok(()),
    }
}

/// A body may be compressed, or otherwise not what it stands for, where the policy wants to see
/// how: it can deal with it.
pub(super) fn check_content_coding<'a>(
    headers: &HeaderMap,
    mut wanted: impl Iterator<Item = &'a HeaderName>,
) -> Result<(), Refusal> {
    let is_identity = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
    let mut codings = headers.get_all(CONTENT_ENCODING).iter();
    let is_plain = codings.all(|value| value.is_empty() || is_identity(value));
    if is_plain || wanted.any(|name| name == CONTENT_ENCODING) {
        Ok(())
    } else {
        Err(Refusal::ContentCoding)
    }
}

/// hyper's own bounds are of a connection's buffer, which can hold more, and for HTTP/2 wider, so
/// that whoever is past these is told so.
fn check_size(head: &Parts) -> Result<(), Refusal> {
    let target = head.uri.path_and_query();
    let target = target.map_or(0, |target| target.as_str().len());
    if target > HEAD_BYTES_MAX {
        return Err(Refusal::TargetTooLong);
    }
    let header = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len();
    let headers: usize = head.headers.iter().map(header).sum();
    if target + headers > HEAD_BYTES_MAX || head.headers.len() > HEADERS_MAX {
        return Err(Refusal::HeadTooLarge);
    }
    Ok(())
}

/// HTTP/2 may send cookies in crumbs (RFC 9113, section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let crumbs = headers.get_all(COOKIE);
    if crumbs.iter().nth(1).is_some() {
        let crumbs: Vec<_> = crumbs.iter().map(HeaderValue::as_bytes).collect();
        let joined = HeaderValue::from_bytes(&crumbs.join(&b"; "[..]));
        headers.insert(COOKIE, joined.expect("made of header values"));
    }
}

/// Sees to it that there is one host, and that `Host` is it: a target's own counts before that
/// (RFC 9112, section 3.2; RFC 9113, section 8.3.1).
fn settle_host(head: &mut Parts) -> Result<(), Refusal> {
    let mut hosts = head.headers.get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(Refusal::ManyHosts);
    }
    if host.is_some_and(|host| !is_host(host.as_bytes())) {
        return Err(Refusal::InvalidHost);
    }
    let Some(authority) = head.uri.authority() else {
        // Only HTTP/1.0 knows no hosts.
        let is_needed = head.version > Version::HTTP_10;
        return match host {
            None if is_needed => Err(Refusal::NoHost),
            _ => Ok(()),
        };
    };
    if head.uri.scheme().is_none() && head.method != Method::CONNECT {
        return Err(Refusal::InvalidTarget);
    }
    let authority = authority.as_str();
    if !is_host(authority.as_bytes()) {
        return Err(Refusal::InvalidHost);
    }
    match host {
        None if head.version == Version::HTTP_11 => return Err(Refusal::NoHost),
        Some(host) if head.version >= Version::HTTP_2 => {
            let scheme = head.uri.scheme_str().unwrap_or_default();
            if !is_same(scheme, host.as_bytes(), authority.as_bytes()) {
                return Err(Refusal::OtherHost);
            }
        }
        _ => {}
    }
    let authority = HeaderValue::from_str(authority).expect("a host is printable ASCII");
    head.headers.insert(HOST, authority);
    Ok(())
}

/// hyper takes any coding under `chunked` for content (RFC 9112, section 6.1).
fn check_transfer_coding(headers: &HeaderMap) -> Result<(), Refusal> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let is_plain = match codings.next() {
        None => true,
        Some(coding) => {
            coding.as_bytes().eq_ignore_ascii_case(b"chunked") && codings.next().is_none()
        }
    };
    is_plain.then_some(()).ok_or(Refusal::TransferCoding)
}

/// Whether a browser sends it for a page of another origin.
fn is_foreign(headers: &HeaderMap) -> bool {
    let mut origins = headers.get_all(ORIGIN).iter();
    let Some(origin) = origins.next() else {
        return false;
    };
    let host = headers.get(HOST).map_or(&b""[..], HeaderValue::as_bytes);
    origins.next().is_some() || !is_same_origin(origin.as_bytes(), host)
}

fn is_json(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let essence = types.next().and_then(|value| {
        let mut parts = value.to_str().ok()?.split(';');
        parts.next().map(str::trim)
    });
    types.next().is_none() && essence.is_some_and(|essence| essence.eq_ignore_ascii_case(JSON))
}
