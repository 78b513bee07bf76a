//! A gateway's part that sees to it that somebody leads: the shipped elections and probes with the
//! default policy's wish.

use std::collections::BTreeMap;

use domain::time::BootTime;
use domain::{ReplicaId, RetryClass, Term};
use frontend_core::election::{
    Contact, CurrentLeader, Detector, ElectionCycle, ElectionTask, LeadershipAnswer, ProbeFailure,
    Probed, Status, View, Watch,
};
use frontend_core::timing::{ANNOUNCE_TIME_MAX, CATALOG_TIME_MAX, PROBE_TIME_MAX};
use frontend_guest::election::keep_working_leader;
use frontend_guest::types as guest;

use crate::catalog::JOURNAL;
use crate::messages::{Failure, Node, Purpose, Request, Response, Run, Said, Told};
use crate::plan::{Plan, Without};
use crate::replica::{FAR_BEHIND_ROWS, ids};
use crate::timeline::{Time, Timeline};

/// Watches the replicas and elects.
pub struct Elector {
    run: Run,
    cycle: ElectionCycle,
    without: Option<Without>,
    replicas: Vec<Watched>,
    contact: Contact,
    /// Who leads, as it was published last, and how often something changed.
    current: CurrentLeader,
    changes: u64,
    /// When the question to the catalog, or the probe or announcement to a replica, was sent.
    asked_catalog: BootTime,
    asked: BTreeMap<Purpose, BootTime>,
    /// When the catalog was last asked, where it answered.
    catalog_answered: Option<BootTime>,
    announcing: usize,
}

struct Watched {
    detector: Detector,
    probed: Probed,
    /// When the detector is to be asked again.
    wake: BootTime,
}

impl Elector {
    pub fn new(line: &Timeline, plan: &Plan, run: Run) -> Self {
        let now = line.clock(run.node);
        let replica = |id| Watched {
            detector: Detector::new(now),
            probed: Probed::unknown(id),
            wake: now,
        };
        Self {
            run,
            cycle: ElectionCycle::new(now),
            without: plan.without,
            replicas: ids().map(replica).collect(),
            contact: Contact::new(now),
            current: CurrentLeader::default(),
            changes: 0,
            asked_catalog: now,
            asked: BTreeMap::new(),
            catalog_answered: None,
            announcing: 0,
        }
    }

    pub fn current(&self) -> CurrentLeader {
        self.current
    }

    /// What probes say.
    pub fn probed(&self) -> Vec<Probed> {
        let probed = self.replicas.iter().map(|watched| &watched.probed);
        probed.cloned().collect()
    }

    /// When the catalog was last asked who leads, where it answered that.
    pub fn catalog_answered(&self) -> Option<BootTime> {
        self.catalog_answered
    }

    /// A call failed as it does when a replica is gone or does not lead: look at once.
    pub fn suspect(&mut self) {
        for watched in &mut self.replicas {
            watched.detector.hurry();
            watched.wake = BootTime::default();
        }
        self.cycle.hurry();
    }

    /// A call to the catalog failed as it does when it is gone: ask at once.
    pub fn suspect_catalog(&mut self) {
        self.cycle.hurry();
    }

    pub fn wake(&self, line: &Timeline) -> Option<Time> {
        let wakes = self.replicas.iter().map(|watched| Some(watched.wake));
        let wake = wakes.chain([self.cycle.wake()]).flatten().min();
        wake.map(|at| line.when(self.run.node, at))
    }

    pub fn woken(&mut self, line: &mut Timeline) {
        for id in ids() {
            self.watch(line, id);
        }
        let task = self.cycle.next(line.clock(self.run.node));
        self.carry_out(line, task);
    }

    /// Does what a replica's detector wants done.
    fn watch(&mut self, line: &mut Timeline, id: ReplicaId) {
        let (now, run) = (line.clock(self.run.node), self.run);
        loop {
            let contact = self.contact.clone();
            let watched = self.replica(id);
            match watched.detector.next(now, &watched.probed, &contact) {
                Watch::Probe(way) => {
                    let purpose = Purpose::Probe(id, way);
                    let to = Node::Replica(id);
                    line.call(run, to, Request::Status, PROBE_TIME_MAX, purpose);
                }
                Watch::Note(unanswered) => {
                    self.note(id, |probed| probed.note(Err(unanswered), now, None, now));
                }
                Watch::Wait(until) => {
                    watched.wake = until;
                    return;
                }
            }
        }
    }

    pub fn answered(&mut self, line: &mut Timeline, purpose: Purpose, told: Told) {
        let now = line.clock(self.run.node);
        let task = match purpose {
            Purpose::Probe(id, way) => {
                let changes = self.changes;
                let detector = &mut self.replica(id).detector;
                if let (asked, Some(said)) = detector.over(way, status(told), now, changes) {
                    self.contact.heard(now);
                    let round_trip = Some(now.since(asked));
                    self.note(id, |probed| probed.note(said, asked, round_trip, now));
                }
                self.watch(line, id);
                None
            }
            Purpose::Leadership => {
                let said = said(told);
                if said.is_ok() {
                    self.contact.heard(now);
                }
                self.catalog_answered = said.is_ok().then_some(self.asked_catalog);
                let answer = said.map(|said| LeadershipAnswer {
                    term: term(&said),
                    in_sync: said.leadership.term.in_sync.iter().copied().collect(),
                });
                let random = line.random.f64();
                self.cycle.catalog_said(answer, self.probed(), now, random)
            }
            Purpose::Elect(_) => {
                let elected = said(told).ok().map(|said| term(&said));
                self.cycle.elected(elected, &self.probed(), now)
            }
            Purpose::Announce(_, id) => {
                let asked = self.asked.remove(&purpose).expect("it was asked");
                match told {
                    Ok(told) => {
                        if let Ok(status) = status(Ok(told)) {
                            self.contact.heard(now);
                            self.note(id, |probed| probed.note(Ok(status), asked, None, now));
                        }
                    }
                    Err(failure) => {
                        self.cycle.announcement_failed(id, failure.class());
                    }
                }
                self.announcing -= 1;
                if self.announcing == 0 {
                    self.cycle.announced(&self.probed(), now);
                }
                None
            }
            other => unreachable!("a gateway does not call for {other:?}"),
        };
        self.carry_out(line, task);
    }

    fn replica(&mut self, id: ReplicaId) -> &mut Watched {
        let mut replicas = self.replicas.iter_mut();
        let replica = replicas.find(|watched| watched.probed.id == id);
        replica.expect("it is one of them")
    }

    fn note(&mut self, id: ReplicaId, note: impl FnOnce(&mut Probed) -> bool) {
        if note(&mut self.replica(id).probed) {
            self.changes += 1;
            self.cycle.hurry();
        }
    }

    fn carry_out(&mut self, line: &mut Timeline, mut task: Option<ElectionTask>) {
        let (now, run) = (line.clock(self.run.node), self.run);
        loop {
            self.publish();
            let Some(current) = task.take() else {
                return;
            };
            match current {
                ElectionTask::AskCatalog => {
                    self.asked_catalog = now;
                    let request = Request::GetLeadership;
                    let purpose = Purpose::Leadership;
                    line.call(run, Node::Catalog, request, CATALOG_TIME_MAX, purpose);
                }
                ElectionTask::AskPolicy(view) => {
                    let view = as_guest(view);
                    let wanted = self.wish(&view);
                    task = self.cycle.policy_wants(wanted, now, line.random.f64());
                    if let Some(ElectionTask::Elect { candidate, .. }) = &task {
                        check_elected(&view, *candidate);
                    }
                }
                ElectionTask::Elect {
                    expected,
                    candidate,
                } => {
                    let request = Request::Elect {
                        expected,
                        candidate,
                    };
                    let purpose = Purpose::Elect(candidate);
                    line.call(run, Node::Catalog, request, CATALOG_TIME_MAX, purpose);
                }
                ElectionTask::Announce {
                    epoch,
                    leader,
                    replicas,
                } => {
                    self.announcing = replicas.len();
                    for id in replicas {
                        let (to, request) =
                            (Node::Replica(id), Request::Announce { epoch, leader });
                        let purpose = Purpose::Announce(epoch, id);
                        self.asked.insert(purpose, now);
                        line.call(run, to, request, ANNOUNCE_TIME_MAX, purpose);
                    }
                }
            }
        }
    }

    fn publish(&mut self) {
        let current = self.cycle.current();
        if current.is_news_after(&self.current) {
            self.current = current;
            self.changes += 1;
        }
    }

    /// Whom the policy wants.
    fn wish(&self, view: &guest::View) -> Option<ReplicaId> {
        let wanted = match self.without {
            Some(Without::NearestLeads) => working(view).map(|replica| replica.id).max(),
            _ => keep_working_leader(view),
        };
        wanted.and_then(ReplicaId::new)
    }
}

/// What the catalog says, where it is ours.
fn said(told: Told) -> Result<Said, RetryClass> {
    match told.map_err(Failure::class)? {
        Response::Leadership(said) if said.identity.journal == JOURNAL => {
            // One that heals goes on from another term.
            said.healed.then_some(said).ok_or(RetryClass::Later)
        }
        _ => Err(RetryClass::Elsewhere),
    }
}

fn term(said: &Said) -> Term {
    let term = &said.leadership.term;
    Term {
        epoch: term.epoch,
        leader: term.leader,
    }
}

fn status(told: Told) -> Result<Status, ProbeFailure> {
    match told {
        Ok(Response::Status(_, journal)) if journal != JOURNAL => Err(ProbeFailure::Foreign),
        Ok(Response::Status(status, _)) => Ok(Status {
            role: status.role,
            epoch: status.term.epoch,
            leader: status.term.leader,
            rows: status.end.rows,
            stock_changes: status.end.stock_changes,
            chain: status.end.chain,
            reaches_catalog: status.reaches_catalog,
        }),
        Err(Failure::Unavailable) => Err(ProbeFailure::Broken),
        _ => Err(ProbeFailure::Silent),
    }
}

/// Whoever is elected anew can lead soon: it is in sync, or lacks few rows of those that others have.
fn check_elected(view: &guest::View, candidate: ReplicaId) {
    if view.leader == Some(candidate.get()) {
        return; // it begins another epoch
    }
    let furthest = working(view).map(|replica| replica.orders).max();
    let elected = view.replicas.iter().find(|it| it.id == candidate.get());
    let (Some(furthest), Some(elected)) = (furthest, elected) else {
        return;
    };
    assert!(
        elected.in_sync || elected.orders + FAR_BEHIND_ROWS >= furthest,
        "replica {candidate} is to lead with {} of {furthest} orders",
        elected.orders
    );
}

fn working(view: &guest::View) -> impl Iterator<Item = &guest::Replica> {
    let works = |replica: &&guest::Replica| replica.healthy && replica.reaches_catalog;
    view.replicas.iter().filter(works)
}

/// As the policy sees it.
fn as_guest(view: View) -> guest::View {
    let replicas = view.replicas.into_iter().map(|replica| guest::Replica {
        id: replica.id.get(),
        healthy: replica.healthy,
        reaches_catalog: replica.reaches_catalog,
        orders: replica.orders.0,
        round_trip_us: replica.round_trip.as_micros() as u32,
        in_sync: replica.in_sync,
    });
    guest::View {
        replicas: replicas.collect(),
        leader: view.leader.map(ReplicaId::get),
        epoch: view.epoch.0,
    }
}
