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
    /// The client got an error of the server's, or would have but for the version behind.
    pub failed: bool,
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
    /// Of those who are done with, those for whom something failed.
    failed: u64,
    /// How long the last request took that was looked at, of each who is done with.
    took_us: Vec<u64>,
}

#[derive(Debug)]
struct LookedAt {
    since: BootTime,
    requests: u8,
    last: Served,
}

/// For how many of a cohort's clients something failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Failures {
    pub clients: u64,
    pub failed: u64,
}

impl Cohorts {
    /// A request was answered.
    pub fn observe(&mut self, cohort: Cohort, client: u64, served: Served, now: BootTime) {
        match cohort {
            Cohort::Canary => self.canary.observe(client, served, now),
            Cohort::Baseline => self.baseline.observe(client, served, now),
        }
    }

    /// Is done with clients that were looked at for long enough.
    pub fn settle(&mut self, now: BootTime) {
        self.canary.settle(now);
        self.baseline.settle(now);
    }

    /// Clients that are done with in both cohorts: of the smaller one.
    pub fn clients(&self) -> u64 {
        let [canary, baseline] = self.failures();
        canary.clients.min(baseline.clients)
    }

    /// For how many something failed: of the canary's, and of the baseline's.
    pub fn failures(&self) -> [Failures; 2] {
        [&self.canary, &self.baseline].map(|clients| Failures {
            clients: clients.took_us.len() as u64,
            failed: clients.failed,
        })
    }

    /// How long answers took, in microseconds, in order: the canary's and the baseline's.
    pub fn sorted_times(&self) -> [Vec<u64>; 2] {
        [&self.canary, &self.baseline].map(|clients| {
            let mut times = clients.took_us.clone();
            times.sort_unstable();
            times
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
        self.took_us.push(last.took_us);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(failed: bool) -> Served {
        Served {
            failed,
            took_us: 100,
        }
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
        assert_eq!(cohorts.clients(), 0, "their time is not over");
        cohorts.settle(now + LOOKED_AT_FOR);
        assert_eq!(cohorts.clients(), 3);
        let failed = |clients, failed| Failures { clients, failed };
        assert_eq!(cohorts.failures(), [failed(4, 1), failed(3, 1)]);
        // They are known, and not looked at again.
        cohorts.observe(Cohort::Baseline, 200, served(true), now + LOOKED_AT_FOR);
        cohorts.settle(now + LOOKED_AT_FOR * 3);
        assert_eq!(cohorts.clients(), 3);
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
        cohorts.settle(now + LOOKED_AT_FOR);
        assert_eq!(cohorts.clients(), CLIENTS_MAX as u64);
    }
}
