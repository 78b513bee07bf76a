//! A gateway's part that sees to it that somebody leads: the shipped rules of elections with the
//! default policy's wish.

use domain::time::BootTime;
use domain::{ChainHash, Epoch, OrderNumber, ReplicaId};
use frontend_core::backoff::{Backoff, CATALOG_PAUSE_MAX};
use frontend_core::election::{
    CurrentLeader, Elector as Rules, Leadership, Probed, Role, Status, Step, Unanswered, View,
    reading_order,
};
use frontend_core::timing::{
    ANNOUNCE_TIME_MAX, CATALOG_TIME_MAX, ELECTION_INTERVAL, PROBE_INTERVAL, PROBE_TIME_MAX,
    STEP_PAUSE,
};
use frontend_guest::election::keep_working_leader;
use frontend_guest::types as guest;
use order_core::message::RoleName;

use crate::catalog::JOURNAL;
use crate::messages::{Failure, Node, Purpose, Request, Response, Run, Said, Told};
use crate::plan::{Plan, Without};
use crate::replica::{FAR_BEHIND_ROWS, ids};
use crate::timeline::{Time, Timeline};

/// Watches the replicas and elects.
pub struct Elector {
    run: Run,
    rules: Rules,
    without: Option<Without>,
    probed: Vec<Probed>,
    /// When to probe each again; `Time::MAX` while a probe is under way.
    probe_at: Vec<Time>,
    led: CurrentLeader,
    /// When to ask the catalog again; `Time::MAX` while a step is under way.
    ask_at: Time,
    /// Where the catalog does not answer.
    catalog_pause: Backoff,
    announcing: usize,
    changed: bool,
}

impl Elector {
    pub fn new(line: &Timeline, plan: &Plan, run: Run) -> Self {
        let probed: Vec<Probed> = ids().map(Probed::unknown).collect();
        Self {
            run,
            rules: Rules::new(line.clock(run.node)),
            without: plan.without,
            probe_at: vec![line.now(); probed.len()],
            probed,
            led: CurrentLeader::default(),
            ask_at: line.now(),
            catalog_pause: Backoff::new(STEP_PAUSE, CATALOG_PAUSE_MAX),
            announcing: 0,
            changed: false,
        }
    }

    pub fn leader(&self) -> Option<ReplicaId> {
        self.led.leadership.leader
    }

    /// The replicas in the order in which they are asked for an order.
    pub fn readers(&self) -> Vec<ReplicaId> {
        reading_order(self.led.leadership, &self.probed)
    }

    /// A call failed as it does when a replica is gone or does not lead: look at once.
    pub fn suspect(&mut self, line: &Timeline) {
        for probe_at in &mut self.probe_at {
            if *probe_at != Time::MAX {
                *probe_at = line.now() + STEP_PAUSE;
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
        let probes = self.probe_at.iter().copied();
        probes.chain([self.ask_at]).min().expect("at least one")
    }

    pub fn woken(&mut self, line: &mut Timeline) {
        let (now, run) = (line.now(), self.run);
        for (place, probed) in self.probed.iter_mut().enumerate() {
            if self.probe_at[place] <= now {
                self.probe_at[place] = Time::MAX;
                probed.asked = line.clock(run.node);
                let (to, purpose) = (Node::Replica(probed.id), Purpose::Probe(probed.id));
                line.call(run, to, Request::Status, PROBE_TIME_MAX, purpose);
            }
        }
        if self.ask_at <= now {
            self.ask_at = Time::MAX;
            let request = Request::GetLeadership { ledger: None };
            let purpose = Purpose::Leadership;
            line.call(run, Node::Catalog, request, CATALOG_TIME_MAX, purpose);
        }
    }

    pub fn answered(&mut self, line: &mut Timeline, purpose: Purpose, told: Told) {
        match purpose {
            Purpose::Probe(id) => {
                let place = self.place(id);
                self.note(line, place, status(told));
                self.probe_at[place] = line.now() + STEP_PAUSE + PROBE_INTERVAL;
            }
            Purpose::Leadership => match said(told) {
                Some(said) => {
                    self.catalog_pause.reset();
                    let in_sync = said.leadership.term.in_sync.iter().copied().collect();
                    self.step(line, leadership(&said), in_sync);
                }
                None => {
                    let random = line.random.f64();
                    self.ask_at = line.now() + self.catalog_pause.pause(random);
                }
            },
            Purpose::Elect(candidate) => match said(told) {
                Some(said) => {
                    let elected = leadership(&said);
                    let now = line.clock(self.run.node);
                    self.rules.elected(candidate, elected, now);
                    self.publish(elected);
                    self.announce(line, elected, ids().collect());
                }
                None => self.over(line),
            },
            Purpose::Announce(epoch, id) => self.announced(line, epoch, id, told),
            other => unreachable!("a gateway does not call for {other:?}"),
        }
    }

    fn announced(&mut self, line: &mut Timeline, epoch: Epoch, id: ReplicaId, told: Told) {
        match told {
            Ok(told) => self.note(line, self.place(id), status(Ok(told))),
            Err(Failure::Fenced | Failure::Refused)
                if self.led.leadership
                    == (Leadership {
                        epoch,
                        leader: Some(id),
                    }) =>
            {
                self.rules.refused(epoch);
                self.changed = true;
            }
            Err(_) => {}
        }
        self.announcing -= 1;
        if self.announcing == 0 {
            self.publish(self.led.leadership);
            self.over(line);
        }
    }

    fn place(&self, id: ReplicaId) -> usize {
        let place = self.probed.iter().position(|probed| probed.id == id);
        place.expect("it was asked")
    }

    fn note(&mut self, line: &Timeline, place: usize, status: Result<Status, Unanswered>) {
        // More orders are no reason to elect.
        let seen = |status: Result<Status, Unanswered>| {
            status.map(|status| Status {
                orders: OrderNumber(0),
                chain: ChainHash::EMPTY,
                ..status
            })
        };
        let before = std::mem::replace(&mut self.probed[place].status, status);
        if seen(before) != seen(status) {
            self.change(line);
        }
    }

    /// One step towards a leader that leads.
    fn step(&mut self, line: &mut Timeline, leadership: Leadership, in_sync: Vec<ReplicaId>) {
        self.publish(leadership);
        let now: BootTime = line.clock(self.run.node);
        let probed = self.probed.clone();
        let Some(look) = self.rules.look(leadership, in_sync, probed, now) else {
            return self.over(line);
        };
        let view = view(look.view());
        let wanted = self.wish(&view);
        match self.rules.step(&look, wanted, now, line.random.f64()) {
            Step::Nothing => self.over(line),
            Step::Announce(uninformed) => self.announce(line, leadership, uninformed),
            Step::Elect(candidate) => {
                check_elected(&view, candidate);
                let request = Request::Elect {
                    expected: leadership.epoch,
                    candidate,
                };
                let purpose = Purpose::Elect(candidate);
                line.call(self.run, Node::Catalog, request, CATALOG_TIME_MAX, purpose);
            }
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

    fn announce(&mut self, line: &mut Timeline, told: Leadership, replicas: Vec<ReplicaId>) {
        let Some(leader) = told.leader.filter(|_| !replicas.is_empty()) else {
            return self.over(line);
        };
        let epoch = told.epoch;
        self.announcing = replicas.len();
        for id in replicas {
            let (to, request) = (Node::Replica(id), Request::Announce { epoch, leader });
            let purpose = Purpose::Announce(epoch, id);
            line.call(self.run, to, request, ANNOUNCE_TIME_MAX, purpose);
        }
    }

    fn publish(&mut self, leadership: Leadership) {
        let led = CurrentLeader::by(leadership, &self.probed);
        if led.is_news_after(&self.led) {
            self.led = led;
        }
    }

    /// A step is over: the next one follows soon where something changed.
    fn over(&mut self, line: &Timeline) {
        let soon = std::mem::take(&mut self.changed);
        let pause = if soon { STEP_PAUSE } else { ELECTION_INTERVAL };
        self.ask_at = line.now() + pause;
    }
}

/// What the catalog says, where it is ours.
fn said(told: Told) -> Option<Said> {
    match told {
        Ok(Response::Leadership(said)) => Some(said).filter(|it| it.identity.journal == JOURNAL),
        _ => None,
    }
}

fn leadership(said: &Said) -> Leadership {
    let term = &said.leadership.term;
    Leadership {
        epoch: term.epoch,
        leader: term.leader,
    }
}

fn status(told: Told) -> Result<Status, Unanswered> {
    match told {
        Ok(Response::Status(_, journal)) if journal != JOURNAL => Err(Unanswered::Foreign),
        Ok(Response::Status(status, _)) => Ok(Status {
            role: match status.role {
                RoleName::Follower => Role::Follower,
                RoleName::Activating => Role::Activating,
                RoleName::Leader => Role::Leader,
            },
            epoch: status.term.epoch,
            leader: status.term.leader,
            orders: status.end.rows,
            chain: status.end.chain,
            reaches_catalog: status.reaches_catalog,
        }),
        Err(Failure::Unavailable) => Err(Unanswered::Gone),
        _ => Err(Unanswered::Silent),
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
fn view(view: View) -> guest::View {
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
