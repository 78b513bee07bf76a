//! From what was decided or cached to a response of HTTP.

use std::mem;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE,
    ETAG, EXPIRES,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use http_body::Body as _;
use http_body_util::Full;
use sha2::{Digest as _, Sha256};

use super::cache_status::CacheStatus;
use super::preconditions::Preconditions;
use super::refusal::{NO_STORE, Refusal};
use frontend_policy::decision::Reply;

/// Caches may keep it, and ask whether it has changed before each use.
const NO_CACHE: HeaderValue = HeaderValue::from_static("no-cache");

/// Bytes of a digest that make an entity tag.
const TAG_BYTES: usize = 16;

/// Says to clients and to caches in front what the policy has left unsaid: a read is asked for
/// again before each use, by its tag, and nothing else is for keeping. Who says nothing at all
/// lets caches guess (RFC 9111, section 4.2.2).
pub(super) fn complete(reply: &mut Reply, is_read: bool) {
    let is_read = is_read && reply.status == StatusCode::OK;
    let headers = &mut reply.headers;
    if !headers.contains_key(CACHE_CONTROL) && !headers.contains_key(EXPIRES) {
        headers.insert(CACHE_CONTROL, if is_read { NO_CACHE } else { NO_STORE });
    }
    if is_read && !headers.contains_key(ETAG) && !is_forbidden_to_keep(headers) {
        headers.insert(ETAG, entity_tag(headers.get(CONTENT_TYPE), &reply.body));
    }
}

fn is_forbidden_to_keep(headers: &HeaderMap) -> bool {
    let mut directives = headers.get_all(CACHE_CONTROL).iter().flat_map(|value| {
        let directives = value.to_str().unwrap_or_default().split(',');
        directives.map(str::trim)
    });
    directives.any(|directive| directive.eq_ignore_ascii_case("no-store"))
}

/// A strong validator (RFC 9110, section 8.8.1): the same of the same content, whichever gateway
/// and policy made it.
fn entity_tag(content_type: Option<&HeaderValue>, body: &[u8]) -> HeaderValue {
    let mut content = Sha256::new();
    content.update(content_type.map_or(&b""[..], HeaderValue::as_bytes));
    content.update([0]);
    content.update(body);
    let tag = URL_SAFE_NO_PAD.encode(&content.finalize()[..TAG_BYTES]);
    HeaderValue::try_from(format!("\"{tag}\"")).expect("printable ASCII")
}

/// A response made for this request.
pub(super) fn rendered(
    reply: Reply,
    status: Option<CacheStatus>,
    request: &Parts,
) -> Response<Full<Bytes>> {
    let preconditions = Preconditions::of(request, &reply);
    let mut response = Response::new(Full::new(reply.body));
    *response.status_mut() = reply.status;
    *response.headers_mut() = reply.headers;
    if let Some(status) = status {
        status.mark(response.headers_mut());
    }
    subject_to(preconditions, response)
}

/// A response that was cached. The response's headers take over the memory of the request's, unless
/// these are needed still: a hit allocates nothing for them.
pub(super) fn cached(
    reply: &Reply,
    status: CacheStatus,
    request: &mut Parts,
    needs_request: bool,
) -> Response<Full<Bytes>> {
    let preconditions = Preconditions::of(request, reply);
    let mut headers = if needs_request {
        HeaderMap::new()
    } else {
        mem::take(&mut request.headers)
    };
    headers.clear();
    for (name, value) in &reply.headers {
        headers.append(name, value.clone());
    }
    status.mark(&mut headers);
    let mut response = Response::new(Full::new(reply.body.clone()));
    *response.status_mut() = reply.status;
    *response.headers_mut() = headers;
    subject_to(preconditions, response)
}

/// What a 304 is not to repeat (RFC 9110, section 15.4.5): the client has the content.
const OF_CONTENT: [HeaderName; 4] = [
    CONTENT_ENCODING,
    CONTENT_LANGUAGE,
    CONTENT_RANGE,
    CONTENT_TYPE,
];

fn subject_to(
    preconditions: Preconditions,
    mut response: Response<Full<Bytes>>,
) -> Response<Full<Bytes>> {
    match preconditions {
        Preconditions::Met => response,
        Preconditions::NotModified => {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            *response.body_mut() = Full::default();
            for name in OF_CONTENT {
                response.headers_mut().remove(name);
            }
            response
        }
        Preconditions::Failed => Refusal::PreconditionFailed.response(),
    }
}

/// For `HEAD`: the response without its body, with the length that the body would have.
pub fn without_body(method: &Method, mut response: Response<Full<Bytes>>) -> Response<Full<Bytes>> {
    if method == Method::HEAD {
        let length = response.body().size_hint().exact().unwrap_or(0);
        // None where no response has content (RFC 9110, section 8.6).
        let none = [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED];
        if !none.contains(&response.status()) {
            response.headers_mut().insert(CONTENT_LENGTH, length.into());
        }
        *response.body_mut() = Full::default();
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(headers: &[(&'static str, &'static str)]) -> Reply {
        let mut reply = Reply {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: Bytes::from_static(b"body"),
            keep: None,
        };
        for (name, value) in headers {
            let value = HeaderValue::from_static(value);
            reply.headers.append(*name, value);
        }
        reply
    }

    fn request(headers: &[(&'static str, &'static str)]) -> Parts {
        let mut request = http::Request::builder().uri("/stocks/nvidia");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    const HIT: CacheStatus = CacheStatus::Hit { ttl: 1, age: 0 };

    #[test]
    fn nothing_of_the_request_is_in_a_cached_response() {
        let mut request = request(&[("authorization", "secret"), ("x-policy", "of the client")]);
        let reply = reply(&[("x-policy", "one"), ("x-policy", "two")]);
        let response = cached(&reply, HIT, &mut request, false);
        let values = response.headers().get_all("x-policy");
        assert!(values.iter().eq(["one", "two"]));
        assert_eq!(response.headers()["cache-status"], "bazaar; hit; ttl=1");
        assert_eq!(response.headers()["age"], "0");
        assert_eq!(response.headers().len(), 4);
    }

    /// The `Cache-Control` of a response, and whether it has a tag.
    fn completed(
        status: u16,
        is_read: bool,
        own: &[(&'static str, &'static str)],
    ) -> (String, bool) {
        let mut reply = reply(own);
        reply.status = StatusCode::from_u16(status).unwrap();
        complete(&mut reply, is_read);
        let headers = reply.headers;
        let control = headers.get_all(CACHE_CONTROL).iter();
        let control: Vec<_> = control.map(|value| value.to_str().unwrap()).collect();
        (control.join("; "), headers.contains_key(ETAG))
    }

    #[test]
    fn what_a_policy_leaves_unsaid_is_never_for_caches_to_guess() {
        for (status, is_read, control, tagged) in [
            (200, true, "no-cache", true),
            (200, false, "no-store", false),
            (404, true, "no-store", false),
            (301, true, "no-store", false),
            (503, false, "no-store", false),
        ] {
            let said = (control.to_owned(), tagged);
            assert_eq!(completed(status, is_read, &[]), said, "{status} {is_read}");
        }
    }

    #[test]
    fn what_a_policy_says_counts() {
        let says = |headers, control: &str, tagged| {
            assert_eq!(completed(200, true, headers), (control.to_owned(), tagged));
        };
        says(&[("cache-control", "max-age=1")], "max-age=1", true);
        says(
            &[("cache-control", "private, No-Store")],
            "private, No-Store",
            false,
        );
        says(&[("expires", "0")], "", true);
        let own = reply(&[("etag", "W/\"own\"")]);
        let mut completed = own.clone();
        complete(&mut completed, true);
        assert_eq!(completed.headers[ETAG], own.headers[ETAG]);
    }

    #[test]
    fn a_tag_is_of_the_content() {
        let json = HeaderValue::from_static("application/json");
        let tag = entity_tag(Some(&json), b"{}");
        assert_eq!(tag, entity_tag(Some(&json), b"{}"));
        assert_ne!(tag, entity_tag(Some(&json), b"[]"));
        assert_ne!(tag, entity_tag(None, b"{}"));
        let text = tag.to_str().unwrap();
        assert!(
            text.starts_with('"') && text.ends_with('"') && text.len() == 24,
            "{text}"
        );
    }

    #[test]
    fn who_has_it_already_gets_it_not_again() {
        let mut reply = reply(&[("content-type", "text/plain"), ("x-policy", "one")]);
        complete(&mut reply, true);
        let tag = reply.headers[ETAG].clone();
        let mut asked = request(&[]);
        asked.headers.insert("if-none-match", tag.clone());
        let response = without_body(&Method::HEAD, cached(&reply, HIT, &mut asked, false));
        assert_eq!(response.status(), 304);
        assert_eq!(response.body().size_hint().exact(), Some(0));
        let headers = response.headers();
        assert_eq!(headers[ETAG], tag);
        assert_eq!(headers[CACHE_CONTROL], "no-cache");
        assert_eq!(headers["x-policy"], "one");
        assert!(!headers.contains_key(CONTENT_TYPE) && !headers.contains_key(CONTENT_LENGTH));

        let failed = rendered(reply, None, &request(&[("if-match", "\"other\"")]));
        assert_eq!(failed.status(), 412);
        assert_eq!(failed.headers()[CONTENT_TYPE], "application/json");
    }
}
