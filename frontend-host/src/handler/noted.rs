//! What is known of a request beside its head: what it is called, its place in the access log, and its span.

use std::net::IpAddr;

use frontend_policy::decision::Scheme;
use frontend_policy::request_id::{REQUEST_ID, RequestId};
use http::request::Parts;
use http::{Response, response};
use traces::Parent;

use super::Gateway;
use super::traced::TracedRequest;
use crate::access_log::Pending;

/// Taken down before anything takes the head. Dropped without an answer, its client has left.
pub struct Noted {
    pub id: RequestId,
    pending: Option<Pending>,
    traced: Option<Box<TracedRequest>>,
}

impl Noted {
    pub fn of(gateway: &Gateway, head: &Parts, (client, scheme): (IpAddr, Scheme)) -> Self {
        let id = RequestId::of(&head.headers);
        let traced = TracedRequest::begin(&gateway.traces, head, scheme, &id);
        let trace = traced.as_ref().map(|traced| traced.trace());
        let log = gateway.access_log.as_ref();
        Self {
            pending: log.and_then(|log| log.begin(head, client, (&id, trace))),
            traced,
            id,
        }
    }

    /// Under what it is traced, if it is.
    pub(super) fn traced_under(&self) -> Option<&Parent> {
        self.traced.as_ref().map(|traced| traced.parent())
    }

    /// Whether what was decided is noted anywhere.
    pub(super) fn is_described(&self) -> bool {
        self.pending.is_some() || self.traced.is_some()
    }

    /// Has a response say what its request is called.
    pub(super) fn name<B>(&self, response: &mut Response<B>) {
        response.headers_mut().insert(REQUEST_ID, self.id.header());
        if let Some(traced) = &self.traced {
            response.headers_mut().extend([traced.header()]);
        }
    }

    /// There is an answer, with a body of so many bytes.
    pub fn answered(self, answer: &response::Parts, bytes: usize) {
        if let Some(traced) = self.traced {
            traced.answered(answer);
        }
        if let Some(pending) = self.pending {
            pending.answered(answer, bytes);
        }
    }
}
