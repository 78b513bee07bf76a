//! How many failures a version may have, and what is held against it.
//!
//! Clients choose what they send, so none of them is to decide which version serves. A failure is
//! held against a version where the version behind it does better with the same input, once for each
//! client and input; and what is held ends its service where more than a few of those whom the gateway
//! served lately were struck.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use domain::time::BootTime;

/// How many failures a version may have, and for how long they are held against it.
#[derive(Debug, Clone, Copy)]
pub struct Probation {
    /// A version that has served for so long without being taken out of service is good. The same is how
    /// long a failure is held against it, then and later.
    pub window: Duration,
    /// Failures that may be held against it at a time. One more ends its service; more than 65,535 do
    /// not.
    pub failures_max: u64,
}

impl Default for Probation {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(60),
            failures_max: 10,
        }
    }
}

/// Failures that are held at a time: the newest.
const HELD_MAX: usize = 1 << 16;

/// One client in so many must have been struck, of those who were served lately.
const CLIENTS_PER_STRUCK: u64 = 5;

/// So many clients must have been struck, or all that there were.
const STRUCK_MIN: u64 = 3;

/// What is held against a version.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    /// Oldest first.
    held: VecDeque<(BootTime, Failed)>,
    known: HashSet<Failed>,
    /// How many are held of each client.
    clients: HashMap<u64, usize>,
}

/// Whom a version failed, and at what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Failed {
    pub(super) client: u64,
    pub(super) input: u64,
}

impl Evidence {
    /// Holds a failure against the version for as long as `window`.
    pub(super) fn hold(&mut self, failed: Failed, now: BootTime, window: Duration) {
        self.forget(now, window);
        if !self.known.insert(failed) {
            return;
        }
        if self.held.len() == HELD_MAX {
            self.forget_oldest();
        }
        self.held.push_back((now, failed));
        *self.clients.entry(failed.client).or_default() += 1;
    }

    /// Forgets what was held for longer than `window`.
    pub(super) fn forget(&mut self, now: BootTime, window: Duration) {
        while let Some((at, _)) = self.held.front()
            && now.since(*at) > window
        {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some((_, failed)) = self.held.pop_front() else {
            return;
        };
        self.known.remove(&failed);
        if let Some(left) = self.clients.get_mut(&failed.client) {
            *left -= 1;
            if *left == 0 {
                self.clients.remove(&failed.client);
            }
        }
    }

    /// How many failures are held.
    pub(super) fn failures(&self) -> u64 {
        self.held.len() as u64
    }

    /// How many clients were struck.
    pub(super) fn clients(&self) -> u64 {
        self.clients.len() as u64
    }

    /// Whether a client is too great a part of those who were served lately to be told from them.
    pub(super) fn is_everybody(served: u64) -> bool {
        served <= CLIENTS_PER_STRUCK
    }

    /// Whether it is enough to end the version's service, which lately served `served` of `all` clients.
    pub(super) fn condemns(&self, failures_max: u64, served: u64, all: u64) -> bool {
        let struck = self.clients();
        let are_several = struck >= STRUCK_MIN.min(all);
        self.failures() > failures_max && are_several && struck * CLIENTS_PER_STRUCK >= served
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(60);

    fn evidence(failed: impl IntoIterator<Item = (u64, u64)>) -> Evidence {
        let mut evidence = Evidence::default();
        let now = BootTime::now();
        for (client, input) in failed {
            evidence.hold(Failed { client, input }, now, WINDOW);
        }
        evidence
    }

    #[test]
    fn a_client_and_input_count_once() {
        assert_eq!(evidence([(1, 1); 100]).failures(), 1);
        let many = evidence((0..100).map(|number| (number % 5, number % 3)));
        assert_eq!((many.failures(), many.clients()), (15, 5));
        assert!(evidence((0..11).map(|input| (1, input))).condemns(10, 1, 1));
        assert!(!evidence((0..10).map(|input| (1, input))).condemns(10, 1, 1));
    }

    /// Who is alone is everybody; a canary that serves one of many is not served by everybody.
    #[test]
    fn one_client_of_few_condemns_no_version_unless_there_is_nobody_else() {
        let of_clients = |struck: u64| evidence((0..100).map(|input| (input % struck, input)));
        for (struck, served, all, condemned) in [
            (1, 1, 1, true),
            (1, 2, 2, false),
            (2, 2, 2, true),
            (1, 5, 5, false),
            (2, 5, 5, false),
            (3, 5, 5, true),
            (1, 1, 100, false),
            (3, 1, 100, true),
        ] {
            assert_eq!(
                of_clients(struck).condemns(10, served, all),
                condemned,
                "{struck} of {served} of {all}"
            );
        }
    }

    #[test]
    fn one_client_of_many_condemns_no_version_whatever_it_sends() {
        let of_clients = |struck: u64| evidence((0..1000).map(|input| (input % struck, input)));
        assert!(!of_clients(1).condemns(10, 6, 6));
        assert!(!of_clients(19).condemns(10, 100, 100));
        assert!(of_clients(20).condemns(10, 100, 100));
    }

    #[test]
    fn what_is_held_is_bounded_and_forgotten_after_a_while() {
        let mut evidence = evidence((0..1 << 17).map(|input| (input, input)));
        assert_eq!(evidence.failures(), 1 << 16);
        assert_eq!(evidence.clients(), 1 << 16);
        evidence.forget(BootTime::now() + WINDOW * 2, WINDOW);
        assert_eq!((evidence.failures(), evidence.clients()), (0, 0));
        assert!(evidence.known.is_empty());
    }
}
