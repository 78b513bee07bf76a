//! What is known of a request beside its head: what it is called, and its place in the access log.

use std::net::IpAddr;

use frontend_policy::request_id::{REQUEST_ID, RequestId};
use http::request::Parts;
use http::{Response, response};

use crate::access_log::{AccessLog, Pending};

/// Taken down before anything takes the head. Dropped without an answer, its client has left.
pub struct Noted {
    pub id: RequestId,
    pending: Option<Pending>,
}

impl Noted {
    pub fn of(head: &Parts, client: IpAddr, log: Option<&AccessLog>) -> Self {
        let id = RequestId::of(&head.headers);
        Self {
            pending: log.and_then(|log| log.begin(head, client, &id)),
            id,
        }
    }

    /// Whether a hit, too, is to say what its request is called.
    pub(super) fn is_wanted(&self) -> bool {
        self.id.was_sent() || self.is_logged()
    }

    pub(super) fn is_logged(&self) -> bool {
        self.pending.is_some()
    }

    /// Has a response say what its request is called.
    pub(super) fn name<B>(&self, response: &mut Response<B>) {
        response.headers_mut().insert(REQUEST_ID, self.id.header());
    }

    /// There is an answer, with a body of so many bytes.
    pub fn answered(self, answer: &response::Parts, bytes: usize) {
        if let Some(pending) = self.pending {
            pending.answered(answer, bytes);
        }
    }
}
