//! A gateway that keeps one stock.

use domain::time::BootTime;
use domain::{SessionId, Version};
use frontend_core::Session;
use std::time::Duration;

/// A gateway: what it believes and keeps, and what it waits for.
#[derive(Debug, Clone, Default, PartialEq, Hash)]
pub struct Gateway {
    pub session: Option<Session>,
    /// What it keeps, and under which session.
    pub entry: Option<(SessionId, Version)>,
    pub asking: Option<Asking>,
}

/// A question to a catalog: for a session, and for the stock under it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Asking {
    pub catalog: usize,
    pub sent: BootTime,
    /// What any client had seen when it was asked.
    pub seen: Version,
    pub answer: Option<Answer>,
}

/// What a catalog answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Answer {
    pub version: Version,
    /// The session under which it may be kept, and how long its lease is.
    pub session: Option<(SessionId, Duration)>,
}

impl Gateway {
    /// Takes an answer, and keeps it if it may.
    pub fn take(&mut self, asking: &Asking, answer: Answer) {
        if let Some((id, length)) = answer.session {
            self.session = Some(Session::opened(id, length, asking.sent));
            self.entry = Some((id, answer.version));
        }
    }

    /// What a client would be served from the cache.
    pub fn hit(&self, now: BootTime) -> Option<Version> {
        let (id, version) = self.entry?;
        let lease = self.session.as_ref()?.lease();
        lease.covers(id, now).then_some(version)
    }

    /// Lets go of what is kept under a session.
    pub fn let_go(&mut self, session: SessionId) {
        self.entry = self.entry.take_if(|(id, _)| *id != session);
    }

    /// Takes no notice any more of what can never be served again.
    pub fn forget(&mut self, now: BootTime) {
        if self.hit(now).is_none() {
            (self.session, self.entry) = (None, None);
        }
    }
}
