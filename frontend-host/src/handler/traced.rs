//! The span of a request that is traced.

use frontend_policy::answered::Cached;
use frontend_policy::decision::Scheme;
use frontend_policy::request_id::RequestId;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, StatusCode, Version, response};
use traces::{Kind, Parent, Span, TraceId, Traces};

use crate::access_log::Decided;

/// By which a client finds its trace: W3C has a draft of it, whose form is that of `traceparent`.
const TRACERESPONSE: HeaderName = HeaderName::from_static("traceresponse");

/// What is said of a client that left before there was an answer.
const LEFT: &str = "its client left before there was an answer";

/// A request that is traced, until it is answered.
#[derive(Debug)]
pub struct TracedRequest {
    span: Span,
    /// Under which its steps are.
    parent: Parent,
    method: &'static str,
}

impl TracedRequest {
    /// Decides whether a request is traced; where it is not, nothing is built.
    pub(super) fn begin(
        traces: &Traces,
        head: &Parts,
        scheme: Scheme,
        id: &RequestId,
    ) -> Option<Box<Self>> {
        let parent = traces.sample(&head.headers)?;
        Some(Self::of(&parent, head, scheme, id))
    }

    #[cold]
    fn of(parent: &Parent, head: &Parts, scheme: Scheme, id: &RequestId) -> Box<Self> {
        let method = method(&head.method);
        let mut span = parent
            .begin(Kind::Server, method)
            .with("http.request.method", method)
            // Without its query, in which there may be secrets.
            .with("url.path", head.uri.path().to_owned())
            .with(
                "url.scheme",
                match scheme {
                    Scheme::Http => "http",
                    Scheme::Https => "https",
                },
            )
            .with("network.protocol.version", protocol(head.version))
            .with("bazaar.request_id", id.text().to_string());
        span.fail(LEFT);
        let parent = span.parent();
        Box::new(Self {
            span,
            parent,
            method,
        })
    }

    /// Which trace.
    pub(super) fn trace(&self) -> TraceId {
        self.span.context().trace
    }

    /// Under which its steps are.
    pub(super) fn parent(&self) -> &Parent {
        &self.parent
    }

    /// Says in a reply which trace it is.
    pub(super) fn header(&self) -> (HeaderName, HeaderValue) {
        let value = HeaderValue::try_from(self.span.traceparent());
        (TRACERESPONSE, value.expect("it is hexadecimal"))
    }

    /// There is an answer: it ends.
    pub(super) fn answered(mut self, answer: &response::Parts) {
        let span = &mut self.span;
        span.set("http.response.status_code", answer.status.as_u16());
        if let Some(Decided {
            policy,
            route,
            cached,
        }) = answer.extensions.get()
        {
            span.rename(format!("{} {}", self.method, route.name()));
            span.set("bazaar.route", route.name());
            if *cached != Cached::None {
                span.set("bazaar.cache", cached.name());
            }
            span.set("bazaar.policy", policy.to_string());
        }
        if answer.status.is_server_error() {
            span.fail(reason(answer.status));
        } else {
            span.succeed();
        }
    }
}

fn reason(status: StatusCode) -> &'static str {
    status.canonical_reason().unwrap_or("it failed")
}

/// Of a few, as OpenTelemetry has it: clients can make up any.
fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::CONNECT => "CONNECT",
        Method::OPTIONS => "OPTIONS",
        Method::TRACE => "TRACE",
        Method::PATCH => "PATCH",
        _ => "_OTHER",
    }
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        _ => "1.1",
    }
}
