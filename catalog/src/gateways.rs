//! The gateways that have a session, and what they say of themselves while somebody looks.
//!
//! Nobody whom trades wait for asks here, but each renewal of a lease does: under the lock no report is copied.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use domain::time::BootTime;
use domain::{Protocol, SessionId};
use rpc::release::Release;
use tls::Principal;
use wire::catalog::v1::ListGatewaysResponse;
use wire::catalog::v1::list_gateways_response::Gateway;

use crate::error::RequestError;

/// For how long after a look gateways say how they are.
const WANTED_FOR: Duration = Duration::from_secs(5);

/// How old the latest report of one that still says how it is may be: one comes each second.
const REPORT_AGE_MAX: Duration = Duration::from_secs(5);

/// Longest report that is kept. A session has one.
const REPORT_BYTES_MAX: usize = 64 << 10;

/// Most gateways in an answer with reports.
const LISTED_MAX: usize = 64;

/// Most bytes of reports in one answer: 32 KiB for each, where all of them are listed.
const LISTED_BYTES_MAX: usize = 2 << 20;

/// What is known of gateways besides their leases.
#[derive(Debug, Default)]
pub struct Gateways(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    known: BTreeMap<SessionId, Known>,
    /// Until when reports are wanted.
    wanted_until: BootTime,
}

/// What is known of one.
#[derive(Debug)]
pub struct Known {
    /// As the gateway calls itself, escaped.
    name: String,
    release: Release,
    /// Who it has proven to be.
    proven: Option<Principal>,
    /// When it came.
    since: BootTime,
    /// Its stream has ended: what is left is the end of its lease.
    is_leaving: bool,
    /// With when it came.
    report: Option<(Bytes, BootTime)>,
}

impl Known {
    /// One that has come, and has not said how it is.
    pub fn new(name: String, release: Release, proven: Option<Principal>, since: BootTime) -> Self {
        Self {
            name,
            release,
            proven,
            since,
            is_leaving: false,
            report: None,
        }
    }

    /// Where it goes among its like where there are more than places: the least first.
    fn standing(&self, now: BootTime) -> (bool, bool, BootTime) {
        let report = self.report.as_ref();
        let reports = report.is_some_and(|(_, at)| now.since(*at) <= REPORT_AGE_MAX);
        (self.is_leaving, !reports, self.since)
    }

    fn to_wire(&self, session: SessionId) -> Gateway {
        Gateway {
            session: session.get(),
            name: self.name.clone(),
            release: self.release.tokens(),
            report: Bytes::new(),
            age_ms: 0,
        }
    }
}

impl Gateways {
    /// A gateway has a session.
    pub fn opened(&self, session: SessionId, gateway: Known) {
        self.state().known.insert(session, gateway);
    }

    /// Its stream has ended, and its lease is not over.
    pub fn leaving(&self, session: SessionId) {
        if let Some(known) = self.state().known.get_mut(&session) {
            known.is_leaving = true;
        }
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
            known.report = Some((report.into(), now));
        }
    }

    /// Whether reports are wanted.
    pub fn are_wanted(&self, now: BootTime) -> bool {
        now < self.state().wanted_until
    }

    /// Those that have a place, for somebody who looks, and how many have none: from now on reports are wanted for a while. Those
    /// of before are not shown, where nobody has looked for longer.
    pub fn list(&self, now: BootTime) -> ListGatewaysResponse {
        let mut state = self.state();
        let was_wanted = now < state.wanted_until;
        state.wanted_until = now + WANTED_FOR;
        if !was_wanted {
            let known = state.known.values_mut();
            known.for_each(|known| known.report = None);
        }
        let ranked = ranked(&state.known, now);
        let mut room = LISTED_BYTES_MAX;
        let listed = ranked.iter().take(LISTED_MAX).map(|(session, known)| {
            let report = known.report.as_ref();
            let report = report.filter(|(report, _)| report.len() <= room);
            let gateway = known.to_wire(*session);
            let Some((report, at)) = report else {
                return gateway;
            };
            room -= report.len();
            Gateway {
                report: report.clone(),
                age_ms: now.since(*at).as_millis() as u64,
                ..gateway
            }
        });
        ListGatewaysResponse {
            gateways: listed.collect(),
            left_out: ranked.len().saturating_sub(LISTED_MAX) as u32,
        }
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

    /// Which they are, all of them, in the order of their names.
    pub fn named(&self) -> ListGatewaysResponse {
        let state = self.state();
        let named = state.known.iter();
        let named = named.map(|(session, known)| known.to_wire(*session));
        let mut named: Vec<_> = named.collect();
        named.sort_by(|one, other| (&one.name, one.session).cmp(&(&other.name, other.session)));
        ListGatewaysResponse {
            gateways: named,
            left_out: 0,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// In the order in which there are places for them. Of those that have proven who they are, each has one before any has a second:
/// whoever opens many sessions takes no other's place.
fn ranked(known: &BTreeMap<SessionId, Known>, now: BootTime) -> Vec<(SessionId, &Known)> {
    let mut ranked: Vec<_> = known.iter().collect();
    ranked.sort_by_key(|(_, known)| known.standing(now));
    let mut have: HashMap<&Principal, usize> = HashMap::new();
    let ranked = ranked.into_iter().map(|(session, known)| {
        let before = known.proven.as_ref().map_or(0, |proven| {
            let have = have.entry(proven).or_default();
            *have += 1;
            *have - 1
        });
        (before, *session, known)
    });
    let mut ranked: Vec<_> = ranked.collect();
    ranked.sort_by_key(|(before, ..)| *before); // stable: the rest of the order stays
    let ranked = ranked.into_iter();
    ranked.map(|(_, session, known)| (session, known)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    use tls::Role;

    const AT: fn(u64) -> BootTime = BootTime::from_millis;

    fn session(number: u64) -> SessionId {
        SessionId::new(number).unwrap()
    }

    /// A gateway that has proven to be that one, where it has.
    fn open(gateways: &Gateways, number: u64, proven: Option<&str>, since: u64) {
        let proven = proven.map(|name| Principal::new(Role::Gateway, name).unwrap());
        let known = Known::new(format!("g{number}"), Release::own(), proven, AT(since));
        gateways.opened(session(number), known);
    }

    fn reports(gateways: &Gateways, now: BootTime) -> Vec<Bytes> {
        let list = gateways.list(now).gateways.into_iter();
        list.map(|gateway| gateway.report).collect()
    }

    /// The sessions that have a place, and how many have none.
    fn listed(gateways: &Gateways, now: u64) -> (Vec<u64>, u32) {
        let list = gateways.list(AT(now));
        let listed = list.gateways.iter().map(|gateway| gateway.session);
        (listed.collect(), list.left_out)
    }

    #[test]
    fn reports_are_wanted_and_kept_only_while_somebody_looks() {
        let gateways = Gateways::default();
        open(&gateways, 1, None, 0);
        assert!(!gateways.are_wanted(AT(10)));
        gateways.reported(session(1), b"unasked".to_vec(), AT(10));
        assert_eq!(reports(&gateways, AT(20)), [""]);
        assert!(gateways.are_wanted(AT(5_019)));
        gateways.reported(session(1), b"asked".to_vec(), AT(1_000));
        let shown = gateways.list(AT(1_500)).gateways;
        assert_eq!(
            (&shown[0].report[..], shown[0].age_ms),
            (&b"asked"[..], 500)
        );
        // Nobody looked for longer than that: what was said then is not how it is now.
        assert!(!gateways.are_wanted(AT(6_500)));
        assert_eq!(reports(&gateways, AT(7_000)), [""]);
        gateways.ended(session(1));
        assert_eq!(gateways.list(AT(7_001)), ListGatewaysResponse::default());
    }

    #[test]
    fn no_report_is_longer_than_it_may_be_nor_are_all_together() {
        let gateways = Gateways::default();
        gateways.list(AT(0));
        let count = LISTED_BYTES_MAX / REPORT_BYTES_MAX + 2;
        for number in 1..=count as u64 {
            open(&gateways, number, None, number);
            gateways.reported(session(number), vec![b' '; REPORT_BYTES_MAX], AT(1));
        }
        let shown = reports(&gateways, AT(2));
        assert_eq!(shown.len(), count);
        assert_eq!(shown.concat().len(), LISTED_BYTES_MAX);
        gateways.reported(session(1), vec![b' '; REPORT_BYTES_MAX + 1], AT(3));
        assert_eq!(reports(&gateways, AT(4))[0].len(), REPORT_BYTES_MAX);
    }

    #[test]
    fn a_report_is_handed_on_and_not_copied() {
        let gateways = Gateways::default();
        gateways.list(AT(0));
        open(&gateways, 1, None, 0);
        let report = vec![b' '; REPORT_BYTES_MAX];
        let at = report.as_ptr();
        gateways.reported(session(1), report, AT(1));
        for shown in [1, 2].map(|now| reports(&gateways, AT(now))) {
            assert_eq!(shown[0].as_ptr(), at);
        }
    }

    #[test]
    fn who_has_proven_who_it_is_takes_no_place_of_others_however_many_sessions_it_opens() {
        let gateways = Gateways::default();
        gateways.list(AT(0));
        // It was first, and says how it is in all of them.
        for number in 1..=200 {
            open(&gateways, number, Some("hostile"), number);
            gateways.reported(session(number), b"{}".to_vec(), AT(300));
        }
        open(&gateways, 1_000, Some("a"), 400);
        open(&gateways, 1_001, Some("b"), 401);
        open(&gateways, 1_002, Some("b"), 402);
        let (places, left_out) = listed(&gateways, 500);
        assert_eq!(places[..5], [1, 1_000, 1_001, 2, 1_002]);
        assert_eq!((places.len(), left_out), (LISTED_MAX, 203 - 64));
        let named = gateways.named();
        assert_eq!((named.gateways.len(), named.left_out), (203, 0));
    }

    #[test]
    fn who_has_been_there_longest_and_still_says_how_it_is_keeps_its_place() {
        let gateways = Gateways::default();
        gateways.list(AT(0));
        let report = |number| gateways.reported(session(number), b"{}".to_vec(), AT(4_000));
        open(&gateways, 9_000, None, 1);
        open(&gateways, 9_001, None, 2);
        open(&gateways, 9_002, None, 3);
        report(9_000);
        // One comes every moment, says something, and most go again.
        for number in 1..=300 {
            open(&gateways, number, None, 10 + number);
            report(number);
            if number % 2 == 0 {
                gateways.leaving(session(number));
            }
        }
        report(9_001);
        let (places, left_out) = listed(&gateways, 4_500);
        assert_eq!(places[..3], [9_000, 9_001, 1]);
        assert!(
            places[2..].iter().all(|number| number % 2 == 1),
            "{places:?}"
        );
        assert_eq!((places.len(), left_out), (LISTED_MAX, 303 - 64));
        // It says nothing more: those that do go first.
        report(1);
        gateways.reported(session(9_001), b"{}".to_vec(), AT(8_000));
        assert_eq!(listed(&gateways, 9_100).0[..2], [9_001, 9_000]);
    }
}
