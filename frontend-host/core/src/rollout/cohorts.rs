//! Clients of a canary, beside as many of the active version at the same time.
//!
//! Which clients are served by which version is chance, but what a client asks for is not: one client may
//! send ten thousand requests of a kind that fails. So it is clients that are compared, each once: what
//! became of the first requests that it sent. Nobody can make more of it by sending more.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use domain::time::BootTime;

/// Requests of a client that are looked at, and for how long after the first.
const REQUESTS_MAX: u8 = 16;
const LOOKED_AT_FOR: Duration = Duration::from_secs(10);

/// Clients of each cohort that are looked at. There is no need for more.
pub const CLIENTS_MAX: usize = 1 << 16;

/// Which version serves a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cohort {
    /// The version on trial.
    Canary,
    /// The active version.
    Baseline,
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Served {
    /// A version failed to decide about it, or answered with an error of its own.
    pub failed: bool,
    /// The answer says that the client is at fault: 400 to 499.
    pub refused: bool,
    /// How long the answer took, in microseconds.
    pub took_us: u64,
}

/// What is seen of both cohorts.
#[derive(Debug, Default)]
pub struct Cohorts {
    canary: Clients,
    baseline: Clients,
}

/// What is seen of the clients of a cohort.
#[derive(Debug, Default)]
struct Clients {
    looked_at: HashMap<u64, LookedAt>,
    known: HashSet<u64>,
    /// Of those who are done with, those for whom something failed, and those to whom something was
    /// refused.
    failed: u64,
    refused: u64,
    /// How long the last request took that was looked at, of each who is done with.
    took_us: Vec<u64>,
}

#[derive(Debug)]
struct LookedAt {
    since: BootTime,
    requests: u8,
    last: Served,
}

/// What became of a cohort's clients that are done with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    pub clients: u64,
    /// For how many something failed.
    pub failed: u64,
    /// To how many something was refused.
    pub refused: u64,
    /// How long each one's last answer took, in microseconds.
    pub took_us: Vec<u64>,
}

impl Cohorts {
    /// A request was answered.
    pub fn observe(&mut self, cohort: Cohort, client: u64, served: Served, now: BootTime) {
        match cohort {
            Cohort::Canary => self.canary.observe(client, served, now),
            Cohort::Baseline => self.baseline.observe(client, served, now),
        }
    }

    /// What became of the clients of both that are done with: of the canary's, and of the baseline's. Those
    /// that were looked at for long enough are from now on.
    pub fn settle(&mut self, now: BootTime) -> [Outcome; 2] {
        [&mut self.canary, &mut self.baseline].map(|clients| {
            clients.settle(now);
            Outcome {
                clients: clients.took_us.len() as u64,
                failed: clients.failed,
                refused: clients.refused,
                took_us: clients.took_us.clone(),
            }
        })
    }
}

impl Clients {
    fn observe(&mut self, client: u64, served: Served, now: BootTime) {
        let has_room = self.known.len() < CLIENTS_MAX;
        if has_room && self.known.insert(client) {
            let first = LookedAt {
                since: now,
                requests: 0,
                last: Served {
                    failed: false,
                    refused: false,
                    ..served
                },
            };
            self.looked_at.insert(client, first);
        }
        let Some(looked_at) = self.looked_at.get_mut(&client) else {
            return;
        };
        looked_at.requests += 1;
        looked_at.last = Served {
            failed: looked_at.last.failed || served.failed,
            refused: looked_at.last.refused || served.refused,
            took_us: served.took_us,
        };
        if looked_at.requests >= REQUESTS_MAX
            && let Some(done) = self.looked_at.remove(&client)
        {
            self.is_done(done.last);
        }
    }

    fn settle(&mut self, now: BootTime) {
        let is_over = |_: &u64, client: &mut LookedAt| now.since(client.since) >= LOOKED_AT_FOR;
        let over: Vec<_> = self.looked_at.extract_if(is_over).collect();
        for (_, client) in over {
            self.is_done(client.last);
        }
    }

    fn is_done(&mut self, last: Served) {
        self.failed += u64::from(last.failed);
        self.refused += u64::from(last.refused);
        self.took_us.push(last.took_us);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(failed: bool) -> Served {
        Served {
            failed,
            refused: false,
            took_us: 100,
        }
    }

    fn clients(outcomes: &[Outcome; 2]) -> [u64; 2] {
        outcomes.each_ref().map(|outcome| outcome.clients)
    }

    #[test]
    fn a_client_counts_once_whatever_it_sends() {
        let mut cohorts = Cohorts::default();
        let now = BootTime::from_millis(0);
        for _ in 0..10_000 {
            cohorts.observe(Cohort::Canary, 7, served(true), now);
        }
        for client in 0..3 {
            cohorts.observe(Cohort::Canary, 100 + client, served(false), now);
            cohorts.observe(Cohort::Baseline, 200 + client, served(client == 0), now);
        }
        assert_eq!(
            clients(&cohorts.settle(now)),
            [1, 0],
            "their time is not over"
        );
        let outcomes = cohorts.settle(now + LOOKED_AT_FOR);
        assert_eq!(clients(&outcomes), [4, 3]);
        assert_eq!([outcomes[0].failed, outcomes[1].failed], [1, 1]);
        // They are known, and not looked at again.
        cohorts.observe(Cohort::Baseline, 200, served(true), now + LOOKED_AT_FOR);
        let outcomes = cohorts.settle(now + LOOKED_AT_FOR * 3);
        assert_eq!(clients(&outcomes), [4, 3]);
    }

    #[test]
    fn there_is_room_for_so_many_clients() {
        let mut cohorts = Cohorts::default();
        let now = BootTime::from_millis(0);
        for client in 0..2 * CLIENTS_MAX as u64 {
            for cohort in [Cohort::Canary, Cohort::Baseline] {
                cohorts.observe(cohort, client, served(false), now);
            }
        }
        let outcomes = cohorts.settle(now + LOOKED_AT_FOR);
        assert_eq!(clients(&outcomes), [CLIENTS_MAX as u64; 2]);
    }
}
