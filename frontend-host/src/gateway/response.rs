//! From what was decided or kept to a response of HTTP.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use http_body::Body as _;
use http_body_util::Full;

use super::cache_status::{CACHE_STATUS, CacheStatus};
use crate::policy::decision::Reply;

/// A response made for this request.
pub(super) fn fresh(reply: Reply, status: Option<CacheStatus>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(reply.body));
    *response.status_mut() = reply.status;
    *response.headers_mut() = reply.headers;
    if let Some(status) = status {
        response.headers_mut().insert(CACHE_STATUS, status.into());
    }
    response
}

/// A response that was kept. `headers` are those of the request, whose memory the response's
/// take over: a hit allocates nothing for them.
pub(super) fn kept(
    reply: &Reply,
    status: CacheStatus,
    mut headers: HeaderMap,
) -> Response<Full<Bytes>> {
    headers.clear();
    for (name, value) in &reply.headers {
        headers.append(name, value.clone());
    }
    headers.insert(CACHE_STATUS, status.into());
    let mut response = Response::new(Full::new(reply.body.clone()));
    *response.status_mut() = reply.status;
    *response.headers_mut() = headers;
    response
}

/// An error that the gateway itself answers with, in the form of all others.
pub fn error(status: StatusCode, message: &str) -> Response<Full<Bytes>> {
    let body = serde_json::json!({ "error": { "code": status.as_u16(), "message": message } });
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// For `HEAD`: the response without its body, with the length that the body would have.
pub fn without_body(method: &Method, mut response: Response<Full<Bytes>>) -> Response<Full<Bytes>> {
    if method == Method::HEAD {
        let length = response.body().size_hint().exact().unwrap_or(0);
        response.headers_mut().insert(CONTENT_LENGTH, length.into());
        *response.body_mut() = Full::default();
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_the_form_of_all_others() {
        let response = error(StatusCode::PAYLOAD_TOO_LARGE, "too \"large\"");
        assert_eq!(response.status(), 413);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
    }

    #[test]
    fn nothing_of_the_request_is_in_a_kept_response() {
        let mut headers = HeaderMap::new();
        headers.append("authorization", HeaderValue::from_static("secret"));
        headers.append("x-policy", HeaderValue::from_static("of the client"));
        let mut own = HeaderMap::new();
        own.append("x-policy", HeaderValue::from_static("one"));
        own.append("x-policy", HeaderValue::from_static("two"));
        let reply = Reply {
            status: StatusCode::OK,
            headers: own,
            body: Bytes::from_static(b"body"),
            keep: None,
        };
        let response = kept(&reply, CacheStatus::Hit { ttl: 1 }, headers);
        let values = response.headers().get_all("x-policy");
        assert!(values.iter().eq(["one", "two"]));
        assert_eq!(response.headers()[CACHE_STATUS], "bazaar; hit; ttl=1");
        assert_eq!(response.headers().len(), 3);
    }
}
