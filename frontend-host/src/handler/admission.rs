//! What HTTP asks of a request whatever it is about (RFC 9110, 9112, 9113), and what protects
//! clients whatever the policy is.

use http::header::{CONTENT_ENCODING, CONTENT_TYPE, COOKIE, HOST, ORIGIN, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};

use super::host::{is_host, is_same, is_same_origin};
use super::refusal::{JSON, Refusal};
use crate::config::{HEAD_BYTES_MAX, HEADERS_MAX};

/// The head of a request that was let in.
pub struct Admitted<'a> {
    /// With `host` and `cookie` as HTTP/1 has them.
    pub(super) head: &'a mut Parts,
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
