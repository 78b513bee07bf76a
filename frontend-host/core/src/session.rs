//! One gateway's session with the catalog: when it is opened, renewed, given up and opened anew.
//!
//! The caller asks for the next [step](SessionKeeper::next) whenever it is [time](SessionKeeper::wake)
//! and after all that it tells, and believes the cache under [`lease`](SessionKeeper::lease).

use std::time::Duration;

use domain::time::BootTime;
use domain::{RetryClass, SessionId};

use crate::ablation::Rules;
use crate::backoff::Backoff;
use crate::lease::{Lease, Session};
use crate::timing::{OPEN_TIME_MAX, REOPEN_PAUSE_MAX, REOPEN_PAUSE_MIN};

/// Keeps one session open, and opens another where it is lost.
#[derive(Debug)]
pub struct SessionKeeper {
    link: Link,
    pause: Backoff,
    rules: Rules,
}

#[derive(Debug)]
enum Link {
    Lost {
        open_at: BootTime,
    },
    Opening {
        sent: BootTime,
    },
    Open {
        session: Session,
        renew_at: BootTime,
    },
}

/// What is to be done for the session now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionStep {
    /// Connect and send an Open.
    Open,
    /// Drop the connection: it is not open in time.
    GiveUp,
    /// Send a renewal with this nonce.
    Renew(u64),
}

impl SessionKeeper {
    /// To be opened now.
    pub fn new(now: BootTime) -> Self {
        Self {
            link: Link::Lost { open_at: now },
            pause: Backoff::new(REOPEN_PAUSE_MIN, REOPEN_PAUSE_MAX),
            rules: Rules::default(),
        }
    }

    #[cfg(feature = "ablation")]
    pub fn under(self, rules: Rules) -> Self {
        Self { rules, ..self }
    }

    /// What may be believed now.
    pub fn lease(&self) -> Lease {
        match &self.link {
            Link::Open { session, .. } => session.lease(),
            Link::Lost { .. } | Link::Opening { .. } => Lease::default(),
        }
    }

    /// When there is something to do.
    pub fn wake(&self) -> BootTime {
        match self.link {
            Link::Lost { open_at } => open_at,
            Link::Opening { sent } => sent + OPEN_TIME_MAX,
            Link::Open { renew_at, .. } => renew_at,
        }
    }

    /// What is to be done now. For `random`, from 0 to 1, see [`Backoff::pause`].
    pub fn next(&mut self, now: BootTime, random: f64) -> Option<SessionStep> {
        if now < self.wake() {
            return None;
        }
        Some(match &mut self.link {
            Link::Lost { .. } => {
                self.link = Link::Opening { sent: now };
                SessionStep::Open
            }
            Link::Opening { .. } => {
                self.lost(RetryClass::Later, now, random);
                SessionStep::GiveUp
            }
            Link::Open { session, renew_at } => {
                *renew_at = now + session.renewal_interval();
                SessionStep::Renew(session.renew(now))
            }
        })
    }

    /// The catalog answered the Open. Its lease counts from when the Open was sent.
    pub fn opened(&mut self, session: SessionId, length: Duration, now: BootTime) {
        let Link::Opening { sent } = self.link else {
            return; // it was given up
        };
        let session = Session::opened(session, length, sent).with_rules(self.rules);
        self.pause.reset();
        self.link = Link::Open {
            renew_at: now + session.renewal_interval(),
            session,
        };
    }

    /// The catalog answered the renewal with that nonce.
    pub fn renewed(&mut self, nonce: u64) {
        if let Link::Open { session, .. } = &mut self.link {
            session.renewed(nonce);
        }
    }

    /// The connection is lost, or was refused. A session that was open is opened anew soon, whatever
    /// ended it. What opens none, whenever it is asked, is asked at leisure: by then it may be another
    /// catalog.
    pub fn lost(&mut self, class: RetryClass, now: BootTime, random: f64) {
        let pause = match (&self.link, class) {
            (Link::Open { .. }, _) | (_, RetryClass::Later) => self.pause.pause(random),
            (_, RetryClass::Elsewhere | RetryClass::Never) => REOPEN_PAUSE_MAX,
        };
        self.link = Link::Lost {
            open_at: now + pause,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: fn(u64) -> BootTime = BootTime::from_millis;
    const LEASE: Duration = Duration::from_secs(1);

    fn id() -> SessionId {
        SessionId::new(7).expect("not 0")
    }

    #[test]
    fn a_session_is_opened_renewed_and_believed_from_when_the_open_was_sent() {
        let mut keeper = SessionKeeper::new(AT(10));
        assert_eq!(keeper.next(AT(10), 0.0), Some(SessionStep::Open));
        assert_eq!(keeper.next(AT(10), 0.0), None);
        keeper.opened(id(), LEASE, AT(500));
        assert!(keeper.lease().covers(id(), AT(990)));
        assert!(!keeper.lease().covers(id(), AT(1_010)));
        assert_eq!(keeper.next(AT(749), 0.0), None);
        assert_eq!(keeper.next(AT(750), 0.0), Some(SessionStep::Renew(1)));
        keeper.renewed(1);
        assert!(keeper.lease().covers(id(), AT(1_500)));
    }

    #[test]
    fn nothing_is_believed_once_the_session_is_lost() {
        let mut keeper = SessionKeeper::new(AT(0));
        keeper.next(AT(0), 0.0);
        keeper.opened(id(), LEASE, AT(0));
        keeper.lost(RetryClass::Later, AT(100), 0.0);
        assert_eq!(keeper.lease(), Lease::default());
        assert_eq!(keeper.next(AT(119), 0.0), None);
        assert_eq!(keeper.next(AT(120), 0.0), Some(SessionStep::Open));
    }

    #[test]
    fn an_open_that_is_not_answered_in_time_is_given_up_and_what_comes_later_of_it_is_not_believed()
    {
        let mut keeper = SessionKeeper::new(AT(0));
        keeper.next(AT(0), 0.0);
        let late = BootTime::default() + OPEN_TIME_MAX;
        assert_eq!(keeper.next(late, 0.0), Some(SessionStep::GiveUp));
        keeper.opened(id(), LEASE, late);
        assert_eq!(keeper.lease(), Lease::default());
    }

    #[test]
    fn pauses_grow_until_a_session_is_open_and_are_long_for_a_catalog_that_will_not() {
        let mut keeper = SessionKeeper::new(AT(0));
        let mut now = AT(0);
        let mut pauses = Vec::new();
        for class in [RetryClass::Later, RetryClass::Later, RetryClass::Elsewhere] {
            assert_eq!(keeper.next(now, 0.0), Some(SessionStep::Open));
            keeper.lost(class, now, 0.0);
            pauses.push(keeper.wake().since(now));
            now = keeper.wake();
        }
        assert_eq!(
            pauses,
            [REOPEN_PAUSE_MIN, REOPEN_PAUSE_MIN * 2, REOPEN_PAUSE_MAX]
        );
        keeper.next(now, 0.0);
        keeper.opened(id(), LEASE, now);
        keeper.lost(RetryClass::Later, now, 0.0);
        assert_eq!(keeper.wake().since(now), REOPEN_PAUSE_MIN);
    }

    #[test]
    fn a_session_that_ran_out_is_opened_anew_soon() {
        for class in [RetryClass::Elsewhere, RetryClass::Never] {
            let mut keeper = SessionKeeper::new(AT(0));
            keeper.next(AT(0), 0.0);
            keeper.opened(id(), LEASE, AT(0));
            keeper.lost(class, AT(100), 0.0);
            assert_eq!(keeper.wake(), AT(100) + REOPEN_PAUSE_MIN, "{class:?}");
        }
    }
}
