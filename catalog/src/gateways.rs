//! The gateways that have a session, and what they say of themselves while somebody looks.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use domain::time::BootTime;
use domain::{Protocol, SessionId};
use rpc::release::Release;
use wire::catalog::v1::leadership::Gateway as Named;
use wire::catalog::v1::list_gateways_response::Gateway;

use crate::error::RequestError;

/// For how long after a look gateways say how they are.
const WANTED_FOR: Duration = Duration::from_secs(5);

/// Longest report that is kept. A session has one.
const REPORT_BYTES_MAX: usize = 64 << 10;

/// Most bytes of reports in one answer: a message's may be 4 MiB.
const LISTED_BYTES_MAX: usize = 3 << 20;

/// What is known of gateways besides their leases.
#[derive(Debug, Default)]
pub struct Gateways(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    known: BTreeMap<SessionId, Known>,
    /// Until when reports are wanted.
    wanted_until: BootTime,
}

#[derive(Debug)]
struct Known {
    /// As the gateway calls itself, escaped.
    name: String,
    release: Release,
    /// With when it came.
    report: Option<(Vec<u8>, BootTime)>,
}

impl Gateways {
    /// A gateway has a session.
    pub fn opened(&self, session: SessionId, name: String, release: Release) {
        let known = Known {
            name,
            release,
            report: None,
        };
        self.state().known.insert(session, known);
    }

    /// Its session is over.
    pub fn ended(&self, session: SessionId) {
        self.state().known.remove(&session);
    }

    /// It says how it is.
    pub fn reported(&self, session: SessionId, report: Vec<u8>, now: BootTime) {
        let mut state = self.state();
        let is_taken = report.len() <= REPORT_BYTES_MAX && now < state.wanted_until;
        if let Some(known) = state.known.get_mut(&session)
            && is_taken
        {
            known.report = Some((report, now));
        }
    }

    /// Whether reports are wanted.
    pub fn are_wanted(&self, now: BootTime) -> bool {
        now < self.state().wanted_until
    }

    /// All of them, for somebody who looks: from now on reports are wanted for a while. Those of before are not shown,
    /// where nobody has looked for longer.
    pub fn list(&self, now: BootTime) -> Vec<Gateway> {
        let mut state = self.state();
        let was_wanted = now < state.wanted_until;
        state.wanted_until = now + WANTED_FOR;
        let mut room = LISTED_BYTES_MAX;
        let list = state.known.iter_mut().map(|(session, known)| {
            if !was_wanted {
                known.report = None;
            }
            let report = known.report.as_ref();
            let report = report.filter(|(report, _)| report.len() <= room);
            room -= report.map_or(0, |(report, _)| report.len());
            Gateway {
                session: session.get(),
                name: known.name.clone(),
                release: known.release.number().unwrap_or_default().to_owned(),
                report: report.map_or_else(Vec::new, |(report, _)| report.clone()),
                age_ms: report.map_or(0, |(_, at)| now.since(*at).as_millis() as u64),
            }
        });
        list.collect()
    }

    /// Whether they can be of a bazaar at that version of the protocol.
    ///
    /// # Errors
    /// [`RequestError::GatewayOfBefore`] with the first that cannot.
    pub fn check_releases(&self, wanted: Protocol) -> Result<(), RequestError> {
        let state = self.state();
        let mut known = state.known.values();
        let of_before = known.find(|known| !known.release.speaks().contains(wanted));
        match of_before {
            None => Ok(()),
            Some(known) => Err(RequestError::GatewayOfBefore {
                gateway: known.name.clone(),
                wanted,
                release: known.release.clone(),
            }),
        }
    }

    /// Which they are, in the order of their names.
    pub fn named(&self) -> Vec<Named> {
        let state = self.state();
        let named = state.known.iter().map(|(session, known)| Named {
            session: session.get(),
            name: known.name.clone(),
            release: known.release.tokens(),
        });
        let mut named: Vec<_> = named.collect();
        named.sort_by(|one, other| (&one.name, one.session).cmp(&(&other.name, other.session)));
        named
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: fn(u64) -> BootTime = BootTime::from_millis;

    fn session(number: u64) -> SessionId {
        SessionId::new(number).unwrap()
    }

    fn reports(gateways: &Gateways, now: BootTime) -> Vec<Vec<u8>> {
        let list = gateways.list(now).into_iter();
        list.map(|gateway| gateway.report).collect()
    }

    #[test]
    fn reports_are_wanted_and_kept_only_while_somebody_looks() {
        let gateways = Gateways::default();
        gateways.opened(session(1), "a".into(), Release::own());
        assert!(!gateways.are_wanted(AT(10)));
        gateways.reported(session(1), b"unasked".to_vec(), AT(10));
        assert_eq!(reports(&gateways, AT(20)), [b""]);
        assert!(gateways.are_wanted(AT(5_019)));
        gateways.reported(session(1), b"asked".to_vec(), AT(1_000));
        let shown = gateways.list(AT(1_500));
        assert_eq!(
            (&shown[0].report[..], shown[0].age_ms),
            (&b"asked"[..], 500)
        );
        // Nobody looked for longer than that: what was said then is not how it is now.
        assert!(!gateways.are_wanted(AT(6_500)));
        assert_eq!(reports(&gateways, AT(7_000)), [b""]);
        gateways.ended(session(1));
        assert!(gateways.list(AT(7_001)).is_empty());
    }

    #[test]
    fn no_report_is_longer_than_it_may_be_nor_are_all_together() {
        let gateways = Gateways::default();
        gateways.list(AT(0));
        let count = LISTED_BYTES_MAX / REPORT_BYTES_MAX + 2;
        for number in 1..=count as u64 {
            gateways.opened(session(number), "a".into(), Release::own());
            gateways.reported(session(number), vec![b' '; REPORT_BYTES_MAX], AT(1));
        }
        let shown = reports(&gateways, AT(2));
        assert_eq!(shown.len(), count);
        assert_eq!(shown.concat().len(), LISTED_BYTES_MAX);
        gateways.reported(session(1), vec![b' '; REPORT_BYTES_MAX + 1], AT(3));
        assert_eq!(reports(&gateways, AT(4))[0].len(), REPORT_BYTES_MAX);
    }
}
