//! What the gateway itself answers with an error, and how: the one table to HTTP. What a policy decides
//! is none of it.

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::Full;

use domain::Protocol;

use crate::config::{BATCH_ORDERS_MAX, BODY_BYTES_MAX, HEAD_BYTES_MAX, HEADERS_MAX};
use frontend_policy::Undecided;
use frontend_policy::limits::LISTED_MAX;

/// What a foreign page must say that it sends: no page can without asking first.
pub(super) const JSON: &str = "application/json";

/// Caches must not keep it.
pub(super) const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// Why a client gets no answer of a policy's. Displays as the message that the client gets.
///
/// Not [`domain::Refusal`], which is an answer that a policy renders. Operators are refused for
/// other reasons and in another form: see the admin API's.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the target has more than {HEAD_BYTES_MAX} bytes")]
    TargetTooLong,
    #[error("the request's head has more than {HEAD_BYTES_MAX} bytes or {HEADERS_MAX} headers")]
    HeadTooLarge,
    #[error("the request's head is not HTTP/1.1")]
    UnreadableHead(StatusCode),
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
    #[error("body has more than {BODY_BYTES_MAX} bytes")]
    BodyTooLarge,
    #[error("a batch has at most {BATCH_ORDERS_MAX} orders: send the rest in another one")]
    BatchTooLong,
    #[error("a batch has no `Idempotency-Key`: give each of its orders a `key`")]
    KeyOfBatch,
    #[error("the field `key` must be a string that could be an `Idempotency-Key`, and there once")]
    KeyInBatch,
    #[error("the orders before it took all the time that a batch has: it is not placed; try again")]
    BatchTooLate,
    #[error("body took too long to arrive")]
    BodyTooLate,
    #[error("body is not complete")]
    BodyIncomplete,
    #[error("too much is being received; try again")]
    BodiesCrowded,
    #[error("too many requests are under way; try again")]
    RequestsCrowded,
    #[error("earlier answers are still to be read; try again")]
    AnswersCrowded,
    #[error("too many clients follow events; try again")]
    StreamsCrowded,
    #[error("the `Last-Event-ID` is not the number of an order")]
    LastEventId,
    #[error("what `If-Match` asks for is not there")]
    PreconditionFailed,
    /// A policy of world 1.0 would list all stocks at once.
    #[error(
        "there are more than {LISTED_MAX} stocks, and this policy lists all at once; use one of world \
         bazaar:policy@1.1, which lists them page by page"
    )]
    ListTooLong,
    #[error(
        "lists and events of orders are there once the bazaar is at version {pages} of its protocol: an operator raises it \
         when every service is upgraded (bazaar protocol raise)",
        pages = Protocol::ORDER_PAGES
    )]
    NoOrderPages,
    #[error("the policy could not decide")]
    Undecided,
    #[error("the policy that decides who gets in cannot be started; an operator must activate one")]
    Closed,
    #[error("the policy took too long over requests like this one; try again later")]
    BrokenOff,
}

impl Refusal {
    /// HTTP's word for it.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::UnreadableHead(status) => *status,
            Self::InvalidTarget
            | Self::NoHost
            | Self::ManyHosts
            | Self::InvalidHost
            | Self::OtherHost
            | Self::UnreadableHeader(_)
            | Self::LastEventId
            | Self::KeyOfBatch
            | Self::KeyInBatch
            | Self::BodyIncomplete => StatusCode::BAD_REQUEST,
            Self::BodyTooLate => StatusCode::REQUEST_TIMEOUT,
            Self::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
            Self::BodyTooLarge | Self::BatchTooLong => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::ContentCoding | Self::ForeignPage => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Undecided | Self::Closed => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Tunnel | Self::TransferCoding | Self::ListTooLong => StatusCode::NOT_IMPLEMENTED,
            Self::BodiesCrowded
            | Self::RequestsCrowded
            | Self::AnswersCrowded
            | Self::StreamsCrowded
            | Self::NoOrderPages
            | Self::BatchTooLate
            | Self::BrokenOff => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// What goes with it.
    fn header(&self) -> Option<(HeaderName, HeaderValue)> {
        let (name, value) = match self {
            // RFC 9110, section 15.5.16.
            Self::ContentCoding => (ACCEPT_ENCODING, "identity"),
            Self::ForeignPage => (ACCEPT, JSON),
            // Where its body ends, others may see otherwise.
            Self::TransferCoding => (CONNECTION, "close"),
            Self::BodiesCrowded
            | Self::RequestsCrowded
            | Self::AnswersCrowded
            | Self::StreamsCrowded
            | Self::BatchTooLate
            | Self::BrokenOff => (RETRY_AFTER, "1"),
            // Somebody has to type something.
            Self::NoOrderPages => (RETRY_AFTER, "60"),
            _ => return None,
        };
        Some((name, HeaderValue::from_static(value)))
    }

    /// The answer that tells the client.
    pub fn response(&self) -> Response<Full<Bytes>> {
        let mut response = error(self.status(), &self.to_string());
        response.headers_mut().extend(self.header());
        response
    }
}

impl From<Undecided> for Refusal {
    fn from(undecided: Undecided) -> Self {
        match undecided {
            Undecided::Failed => Self::Undecided,
            Undecided::BrokenOff => Self::BrokenOff,
            Undecided::Closed => Self::Closed,
        }
    }
}

/// An error in the form of all.
fn error(status: StatusCode, message: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(error_body(status, message)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
    headers.insert(CACHE_CONTROL, NO_STORE);
    response
}

/// The body that all errors have.
pub fn error_body(status: StatusCode, message: &str) -> Bytes {
    let body = serde_json::json!({ "error": { "code": status.as_u16(), "message": message } });
    body.to_string().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_has_the_form_of_all_errors_and_says_what_would_do() {
        let json = "application/json";
        for (refusal, status, header) in [
            (Refusal::BodyTooLarge, 413, None),
            (Refusal::ForeignPage, 415, Some(("accept", json))),
            (
                Refusal::ContentCoding,
                415,
                Some(("accept-encoding", "identity")),
            ),
            (Refusal::RequestsCrowded, 503, Some(("retry-after", "1"))),
        ] {
            let response = refusal.response();
            assert_eq!(response.status(), status);
            let headers = response.headers();
            assert_eq!(headers[CONTENT_TYPE], json);
            assert_eq!(headers[CACHE_CONTROL], "no-store");
            let own = header.is_none_or(|(name, value)| headers[name] == value);
            assert!(own && headers.len() == 2 + usize::from(header.is_some()));
        }
        let body = error_body(StatusCode::BAD_REQUEST, "too \"large\"");
        assert_eq!(body, r#"{"error":{"code":400,"message":"too \"large\""}}"#);
    }
}
