//! A gateway's part that sees to it that somebody leads: the shipped rules of elections with the
//! default policy's wish.

use std::time::Duration;

use catalog::core::Leadership;
use frontend_guest::election::keep_working_leader;
use frontend_guest::types::{Replica as ReplicaView, View};
use order::core::Status;
use order::core::message::RoleName;
use protocol::{Epoch, ReplicaId};

use crate::messages::{Failure, Node, Purpose, Request, Response, Run, Told};
use crate::replica::ids;
use crate::timeline::{Time, Timeline};

// As long as the shipped gateway waits.
const PROBE_INTERVAL: Duration = Duration::from_millis(50);
const PROBE_TIME_MAX: Duration = Duration::from_millis(180);
const ELECTION_INTERVAL: Duration = Duration::from_millis(200);
const STEP_PAUSE: Duration = Duration::from_millis(5);
const CATALOG_TIME_MAX: Duration = Duration::from_secs(1);
const ANNOUNCE_TIME_MAX: Duration = Duration::from_millis(500);

struct Probed {
    id: ReplicaId,
    status: Option<Status>,
    /// When to probe it again; `Time::MAX` while a probe is under way.
    probe_at: Time,
}

/// Watches the replicas and elects.
pub struct Elector {
    run: Run,
    probed: Vec<Probed>,
    epoch: Epoch,
    leader: Option<ReplicaId>,
    /// The epoch in which its leader refused to lead.
    refused: Option<Epoch>,
    /// When to ask the catalog again; `Time::MAX` while a step is under way.
    ask_at: Time,
    announcing: usize,
    changed: bool,
}

enum Step {
    Elect(ReplicaId),
    Announce(Vec<ReplicaId>),
    Nothing,
}

impl Elector {
    pub fn new(run: Run, now: Time) -> Self {
        let probed = |id| Probed {
            id,
            status: None,
            probe_at: now,
        };
        Self {
            run,
            probed: ids().map(probed).collect(),
            epoch: Epoch(0),
            leader: None,
            refused: None,
            ask_at: now + ELECTION_INTERVAL,
            announcing: 0,
            changed: false,
        }
    }

    pub fn leader(&self) -> Option<ReplicaId> {
        self.leader
    }

    /// The replicas in the order in which they are asked for an order.
    pub fn readers(&self) -> Vec<ReplicaId> {
        let mut ranked: Vec<_> = self
            .probed
            .iter()
            .map(|probed| {
                let healthy = probed.status.is_some();
                let rank = if healthy && Some(probed.id) == self.leader {
                    0
                } else {
                    2 - u8::from(healthy)
                };
                (rank, probed.id)
            })
            .collect();
        ranked.sort();
        ranked.into_iter().map(|(_, id)| id).collect()
    }

    /// A call failed as it does when a replica is gone or does not lead: look at once.
    pub fn suspect(&mut self, line: &Timeline) {
        for probed in &mut self.probed {
            if probed.probe_at != Time::MAX {
                probed.probe_at = probed.probe_at.min(line.now() + STEP_PAUSE);
            }
        }
        self.change(line);
    }

    fn change(&mut self, line: &Timeline) {
        if self.ask_at == Time::MAX {
            self.changed = true;
        } else {
            self.ask_at = self.ask_at.min(line.now() + STEP_PAUSE);
        }
    }

    pub fn wake(&self) -> Time {
        let probes = self.probed.iter().map(|probed| probed.probe_at);
        probes.chain([self.ask_at]).min().expect("at least one")
    }

    pub fn woken(&mut self, line: &mut Timeline) {
        let (now, run) = (line.now(), self.run);
        for probed in &mut self.probed {
            if probed.probe_at <= now {
                probed.probe_at = Time::MAX;
                let (to, purpose) = (Node::Replica(probed.id), Purpose::Probe(probed.id));
                line.call(run, to, Request::Status, PROBE_TIME_MAX, purpose);
            }
        }
        if self.ask_at <= now {
            self.ask_at = Time::MAX;
            let (request, purpose) = (Request::GetLeadership, Purpose::Leadership);
            line.call(run, Node::Catalog, request, CATALOG_TIME_MAX, purpose);
        }
    }

    pub fn answered(&mut self, line: &mut Timeline, purpose: Purpose, told: Told) {
        match purpose {
            Purpose::Probe(id) => {
                let status = match told {
                    Ok(Response::Status(status)) => Some(status),
                    _ => None,
                };
                let place = self.note(line, id, status);
                self.probed[place].probe_at = line.now() + STEP_PAUSE + PROBE_INTERVAL;
            }
            Purpose::Leadership => match told {
                Ok(Response::Leadership(leadership)) => self.step(line, &leadership),
                _ => self.over(line),
            },
            Purpose::Elect(_) => match told {
                Ok(Response::Leadership(elected)) => {
                    self.publish(&elected);
                    self.announce(line, ids().collect());
                }
                _ => self.over(line),
            },
            Purpose::Announce(epoch, id) => {
                match told {
                    Ok(Response::Status(status)) => {
                        self.note(line, id, Some(status));
                    }
                    Err(Failure::Fenced | Failure::Refused)
                        if Some(id) == self.leader && epoch == self.epoch =>
                    {
                        self.refused = Some(epoch);
                        self.changed = true;
                    }
                    _ => {}
                }
                self.announcing -= 1;
                if self.announcing == 0 {
                    self.over(line);
                }
            }
            other => unreachable!("a gateway does not call for {other:?}"),
        }
    }

    fn note(&mut self, line: &Timeline, id: ReplicaId, status: Option<Status>) -> usize {
        let place = self.probed.iter().position(|probed| probed.id == id);
        let place = place.expect("it was asked");
        let seen = |status: Option<Status>| status.map(|it| (it.role, it.term, it.reaches_catalog));
        let before = std::mem::replace(&mut self.probed[place].status, status);
        if seen(before) != seen(status) {
            self.change(line);
        }
        place
    }

    /// One step towards a leader that leads.
    fn step(&mut self, line: &mut Timeline, leadership: &Leadership) {
        self.publish(leadership);
        let view = self.view();
        let wanted = keep_working_leader(&view).and_then(ReplicaId::new);
        let leads = self.probed.iter().any(|probed| {
            Some(probed.id) == self.leader
                && probed.status.is_some_and(|status| {
                    status.role == RoleName::Leader && status.term.epoch == self.epoch
                })
        });
        let same = wanted.is_none_or(|wanted| self.leader == Some(wanted));
        let again = same && self.refused == Some(self.epoch) && !leads;
        match (self.next_step(wanted), self.leader) {
            (_, Some(leader)) if again => self.elect(line, leader),
            (Step::Elect(candidate), _) => self.elect(line, candidate),
            (Step::Announce(uninformed), _) => self.announce(line, uninformed),
            (Step::Nothing, _) => self.over(line),
        }
    }

    fn next_step(&self, wanted: Option<ReplicaId>) -> Step {
        if let Some(wanted) = wanted.filter(|&wanted| Some(wanted) != self.leader) {
            return Step::Elect(wanted);
        }
        let uninformed = |probed: &&Probed| {
            probed.status.is_some_and(|status| {
                let current = status.term.epoch == self.epoch;
                let unaware = current && status.term.leader != self.leader;
                let idle =
                    current && Some(probed.id) == self.leader && status.role == RoleName::Follower;
                status.term.epoch < self.epoch || unaware || idle
            })
        };
        let uninformed: Vec<_> = self.probed.iter().filter(uninformed).collect();
        if uninformed.is_empty() || self.leader.is_none() {
            Step::Nothing
        } else {
            Step::Announce(uninformed.into_iter().map(|probed| probed.id).collect())
        }
    }

    fn view(&self) -> View {
        let replica = |probed: &Probed| ReplicaView {
            id: probed.id.get(),
            healthy: probed.status.is_some(),
            reaches_catalog: probed.status.is_some_and(|status| status.reaches_catalog),
            orders: probed.status.map_or(0, |status| status.end.rows.0),
            round_trip_us: 100,
        };
        View {
            replicas: self.probed.iter().map(replica).collect(),
            leader: self.leader.map(ReplicaId::get),
            epoch: self.epoch.0,
        }
    }

    fn elect(&mut self, line: &mut Timeline, candidate: ReplicaId) {
        let request = Request::Elect {
            expected: self.epoch,
            candidate,
        };
        let purpose = Purpose::Elect(candidate);
        line.call(self.run, Node::Catalog, request, CATALOG_TIME_MAX, purpose);
    }

    fn announce(&mut self, line: &mut Timeline, replicas: Vec<ReplicaId>) {
        let Some(leader) = self.leader else {
            return self.over(line);
        };
        let epoch = self.epoch;
        self.announcing = replicas.len();
        for id in replicas {
            let request = Request::Announce { epoch, leader };
            let purpose = Purpose::Announce(epoch, id);
            line.call(
                self.run,
                Node::Replica(id),
                request,
                ANNOUNCE_TIME_MAX,
                purpose,
            );
        }
    }

    fn publish(&mut self, leadership: &Leadership) {
        if leadership.term.epoch >= self.epoch {
            self.epoch = leadership.term.epoch;
            self.leader = leadership.term.leader;
        }
    }

    /// A step is over: the next one follows soon where something changed.
    fn over(&mut self, line: &Timeline) {
        let soon = std::mem::take(&mut self.changed);
        let pause = if soon { STEP_PAUSE } else { ELECTION_INTERVAL };
        self.ask_at = line.now() + pause;
    }
}
