//! How a component comes in, and the form of errors that others have made.

use std::time::Duration;

use axum::BoxError;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{FromRequest, Request};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::response::Response;
use http_body::Body as _;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::refusal::{Refusal, of_others};
use crate::config::{UPLOAD_TIME_MAX, UPLOADS_MAX};
use frontend_policy::limits::COMPONENT_BYTES_MAX;

/// Longest text of an error that was not made here, in bytes.
const TEXT_BYTES_MAX: usize = 4 << 10;

/// For each body that is held. More wait: over HTTP/2 a connection can have many.
static PLACES: Semaphore = Semaphore::const_new(UPLOADS_MAX);

/// Gives errors that others have made, as the router does of a query that it cannot read, the form
/// of all.
pub(super) async fn in_json(response: Response) -> Response {
    let status = response.status();
    let is_error = status.is_client_error() || status.is_server_error();
    let content_type = response.headers().get(CONTENT_TYPE);
    if !is_error || content_type.is_some_and(|it| it == "application/json") {
        return response;
    }
    let (mut head, body) = response.into_parts();
    let text = to_bytes(body, TEXT_BYTES_MAX).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let message = match text.trim() {
        "" => status.canonical_reason().unwrap_or("failed"),
        text => text,
    };
    let (made, body) = of_others(status, message).into_parts();
    head.headers.remove(CONTENT_LENGTH);
    head.headers.extend(made.headers);
    Response::from_parts(head, body)
}

/// A request's body, of bounded length and sent in bounded time.
pub(super) struct Upload(pub Bytes);

impl<S: Sync> FromRequest<S> for Upload {
    type Rejection = Refusal;

    async fn from_request(request: Request<Body>, _: &S) -> Result<Self, Refusal> {
        let read = read(request.into_body(), COMPONENT_BYTES_MAX, UPLOAD_TIME_MAX);
        read.await.map(Self)
    }
}

async fn read(body: Body, bytes_max: usize, time_max: Duration) -> Result<Bytes, Refusal> {
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(Refusal::BodyTooLarge);
    }
    let reading = async {
        let place = PLACES.acquire().await.expect("never closed");
        let read = Limited::new(body, bytes_max).collect().await?;
        let bytes = read.to_bytes();
        Ok::<_, BoxError>(Bytes::from_owner(Held {
            bytes,
            _place: place,
        }))
    };
    match timeout(time_max, reading).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(problem)) if problem.is::<LengthLimitError>() => Err(Refusal::BodyTooLarge),
        Ok(Err(_)) => Err(Refusal::BodyIncomplete),
        Err(_) => Err(Refusal::BodyTooLate),
    }
}

/// A body, and its place.
struct Held {
    bytes: Bytes,
    _place: SemaphorePermit<'static>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;
    use axum::response::IntoResponse as _;
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn a_body_is_read_within_its_length_and_its_time() {
        let long = Duration::from_secs(60);
        let status =
            |read: Result<Bytes, Refusal>| read.map_err(|refusal| refusal.into_response().status());
        let within = read(Body::from("1234"), 4, long).await;
        assert_eq!(status(within), Ok(Bytes::from("1234")));
        let beyond = read(Body::from("12345"), 4, long).await;
        assert_eq!(status(beyond), Err(StatusCode::PAYLOAD_TOO_LARGE));
        let parts = ["123", "45"].map(|part| Ok::<_, std::io::Error>(Bytes::from(part)));
        let unannounced = Body::from_stream(tokio_stream::iter(parts));
        let beyond = read(unannounced, 4, long).await;
        assert_eq!(status(beyond), Err(StatusCode::PAYLOAD_TOO_LARGE));
        let endless = Body::from_stream(tokio_stream::pending::<Result<Bytes, std::io::Error>>());
        let late = read(endless, 4, Duration::from_millis(1)).await;
        assert_eq!(status(late), Err(StatusCode::REQUEST_TIMEOUT));
        let broken = Body::from_stream(tokio_stream::once(Err::<Bytes, _>(std::io::Error::other(
            "broken",
        ))));
        let broken = read(broken, 4, long).await;
        assert_eq!(status(broken), Err(StatusCode::BAD_REQUEST));
    }

    #[tokio::test]
    async fn errors_that_others_have_made_take_the_form_of_all() {
        for (text, message) in [("no such query\n", "no such query"), ("", "Not Found")] {
            let mut response = (StatusCode::NOT_FOUND, text).into_response();
            response
                .headers_mut()
                .insert("allow", "GET".parse().unwrap());
            let response = in_json(response).await;
            assert_eq!(response.status(), StatusCode::NOT_FOUND);
            assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
            assert_eq!(response.headers()["allow"], "GET");
            let body = to_bytes(response.into_body(), TEXT_BYTES_MAX)
                .await
                .unwrap();
            let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(
                body,
                json!({ "error": { "code": 404, "message": message } })
            );
        }
        let sound = in_json("ok".into_response()).await;
        assert_eq!(sound.headers()[CONTENT_TYPE], "text/plain; charset=utf-8");
    }
}
