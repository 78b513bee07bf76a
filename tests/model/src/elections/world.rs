//! The catalog, replicas as probes see them, and gateways that elect.

use std::time::Duration;

use catalog_core::CatalogState;
use domain::time::BootTime;
use domain::{ChainHash, Epoch, ReplicaId, RetryClass, RowNumber, Term};
use frontend_core::election::{
    Contact, CurrentLeader, Detector, ElectionCycle, ElectionTask, LeadershipAnswer, ProbeFailure,
    Probed, Role, Status, View, Watch, Way,
};
use frontend_core::timing::{ELECTION_INTERVAL, PROBE_INTERVAL, PROBE_TIME_MAX};
use frontend_guest::{DefaultPolicy, Policy, types};

/// Milliseconds that a step of the simulated clock takes.
pub const STEP: u64 = 5;

/// Milliseconds that a leader takes to lead once it lacks nothing.
const ACTIVATION: u64 = 20;

/// Orders that a replica fetches in a step.
const FETCHED: u64 = 350 * STEP;

pub struct World {
    pub now: u64,
    pub catalog: CatalogState,
    pub replicas: Vec<Replica>,
    pub gateways: Vec<Gateway>,
    /// Orders in the catalog's journal.
    journal: u64,
    /// Who holds all of them, as the last leader said.
    in_sync: Vec<ReplicaId>,
    random: fastrand::Rng,
}

/// Whether a replica does anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    Up,
    /// It does not answer, and goes on where it was.
    Suspended,
    /// Its machine refuses connections.
    Killed,
}

pub struct Replica {
    id: ReplicaId,
    pub health: Health,
    epoch: Epoch,
    leader: Option<ReplicaId>,
    role: Role,
    activates_at: u64,
    /// How many it holds.
    orders: u64,
}

/// A gateway, with the replicas that it does not reach.
pub struct Gateway {
    cycle: ElectionCycle,
    observed: Vec<Observed>,
    contact: Contact,
    /// Who leads, as it knew last, and how often something changed.
    current: CurrentLeader,
    changes: u64,
    pub cut_off: Vec<usize>,
    /// How a cut shows.
    pub cut: ProbeFailure,
}

/// A replica, as a gateway observes it.
struct Observed {
    detector: Detector,
    probed: Probed,
    /// Probes that nobody answers, and when they were sent.
    unanswered: Vec<(Way, BootTime)>,
}

impl Gateway {
    fn probed(&self) -> Vec<Probed> {
        let probed = self.observed.iter().map(|observed| &observed.probed);
        probed.cloned().collect()
    }

    /// A replica said something when it was asked, or its machine did.
    fn note(&mut self, place: usize, note: impl FnOnce(&mut Probed) -> bool) {
        if note(&mut self.observed[place].probed) {
            self.changes += 1;
            self.cycle.hurry();
        }
    }

    /// A probe is over.
    fn over(
        &mut self,
        place: usize,
        way: Way,
        answer: Result<Status, ProbeFailure>,
        now: BootTime,
    ) {
        let changes = self.changes;
        let detector = &mut self.observed[place].detector;
        if let (asked, Some(said)) = detector.over(way, answer, now, changes) {
            self.contact.heard(now);
            self.note(place, |probed| probed.note(said, asked, None, now));
        }
    }
}

impl Replica {
    fn new(id: ReplicaId) -> Self {
        Self {
            id,
            health: Health::Up,
            epoch: Epoch(0),
            leader: None,
            role: Role::Follower,
            activates_at: 0,
            orders: 0,
        }
    }

    fn status(&self) -> Status {
        Status {
            role: self.role,
            epoch: self.epoch,
            leader: self.leader,
            rows: RowNumber(self.orders),
            stock_changes: 0,
            chain: ChainHash::EMPTY,
            reaches_catalog: true,
        }
    }

    /// Fetches what it lacks, then leads where it is to.
    fn step(&mut self, now: u64, journal: u64) {
        if self.health != Health::Up {
            return;
        }
        self.orders = journal.min(self.orders + FETCHED);
        if self.role == Role::Activating && self.orders == journal && now >= self.activates_at {
            self.role = Role::Leader;
        }
    }

    /// Says whether it takes the announcement. Who led an epoch and restarted leads it no more.
    fn announce(&mut self, term: Term, now: u64) -> bool {
        let leads = term.leader == Some(self.id);
        if term.epoch < self.epoch
            || leads && term.epoch == self.epoch && self.role == Role::Follower
        {
            return false;
        }
        if term.epoch > self.epoch {
            self.epoch = term.epoch;
            self.leader = term.leader;
            self.role = if leads {
                Role::Activating
            } else {
                Role::Follower
            };
            self.activates_at = now + ACTIVATION;
        }
        true
    }
}

impl World {
    pub fn new(replicas: u32, gateways: usize, seed: u64) -> Self {
        let ids: Vec<_> = (1..=replicas).filter_map(ReplicaId::new).collect();
        let mut random = fastrand::Rng::with_seed(seed);
        let gateways = (0..gateways).map(|_| {
            let observed = ids.iter().map(|&id| Observed {
                detector: Detector::new(soon(&mut random, PROBE_INTERVAL)),
                probed: Probed::unknown(id),
                unanswered: Vec::new(),
            });
            let observed = observed.collect();
            Gateway {
                cycle: ElectionCycle::new(soon(&mut random, ELECTION_INTERVAL)),
                observed,
                contact: Contact::new(time(0)),
                current: CurrentLeader::default(),
                changes: 0,
                cut_off: Vec::new(),
                cut: ProbeFailure::Silent,
            }
        });
        let gateways = gateways.collect();
        Self {
            now: 0,
            catalog: CatalogState::default(),
            replicas: ids.into_iter().map(Replica::new).collect(),
            gateways,
            journal: 0,
            in_sync: Vec::new(),
            random,
        }
    }

    /// Who leads, according to the catalog.
    pub fn term(&self) -> Term {
        let term = self.catalog.leadership().term;
        Term {
            epoch: term.epoch,
            leader: term.leader,
        }
    }

    /// The place of the replica that takes trades, if one does.
    pub fn led_by(&self) -> Option<usize> {
        let Term { epoch, leader } = self.term();
        self.replicas.iter().position(|replica| {
            Some(replica.id) == leader
                && replica.epoch == epoch
                && replica.role == Role::Leader
                && replica.health == Health::Up
        })
    }

    pub fn kill(&mut self, place: usize) {
        self.replicas[place].health = Health::Killed;
    }

    /// So many orders are placed with the leader, which only replicas hear of that are up.
    pub fn trade(&mut self, orders: u64) {
        self.journal += orders;
        for replica in &mut self.replicas {
            if replica.health == Health::Up {
                replica.orders += orders;
            }
        }
    }

    /// Starts a killed replica again, which leads nothing; a suspended one goes on.
    pub fn bring_back(&mut self, place: usize) {
        let replica = &mut self.replicas[place];
        if replica.health == Health::Killed {
            replica.role = Role::Follower;
        }
        replica.health = Health::Up;
    }

    pub fn run(&mut self, millis: u64) {
        for _ in 0..millis / STEP {
            self.now += STEP;
            for replica in &mut self.replicas {
                replica.step(self.now, self.journal);
            }
            self.note_in_sync();
            let mut gateways: Vec<usize> = (0..self.gateways.len()).collect();
            self.random.shuffle(&mut gateways);
            for gateway in gateways {
                self.probe(gateway);
                self.elect(gateway);
            }
        }
    }

    /// Who leads tells the catalog.
    fn note_in_sync(&mut self) {
        if self.led_by().is_some() {
            let holds_all =
                |replica: &&Replica| replica.health == Health::Up && replica.orders == self.journal;
            let in_sync = self.replicas.iter().filter(holds_all);
            self.in_sync = in_sync.map(|replica| replica.id).collect();
        }
    }

    fn probe(&mut self, at: usize) {
        let now = time(self.now);
        for place in 0..self.replicas.len() {
            let answer = self.answer(at, place);
            let gateway = &mut self.gateways[at];
            let late = |(_, sent): &mut (Way, BootTime)| now.since(*sent) >= PROBE_TIME_MAX;
            let given_up: Vec<_> = gateway.observed[place]
                .unanswered
                .extract_if(.., late)
                .collect();
            for (way, _) in given_up {
                gateway.over(place, way, Err(ProbeFailure::Silent), now);
            }
            loop {
                let observed = &mut gateway.observed[place];
                match observed
                    .detector
                    .next(now, &observed.probed, &gateway.contact)
                {
                    Watch::Wait(_) => break,
                    Watch::Probe(way) if answer == Err(ProbeFailure::Silent) => {
                        observed.unanswered.push((way, now));
                    }
                    Watch::Probe(way) => gateway.over(place, way, answer, now),
                    Watch::Note(why) => {
                        gateway.note(place, |probed| probed.note(Err(why), now, None, now));
                    }
                }
            }
        }
    }

    fn answer(&self, at: usize, place: usize) -> Result<Status, ProbeFailure> {
        let (gateway, replica) = (&self.gateways[at], &self.replicas[place]);
        if gateway.cut_off.contains(&place) {
            return Err(gateway.cut);
        }
        match replica.health {
            Health::Up => Ok(replica.status()),
            Health::Suspended => Err(ProbeFailure::Silent),
            Health::Killed => Err(ProbeFailure::Refused),
        }
    }

    fn elect(&mut self, at: usize) {
        let now = time(self.now);
        let mut task = self.gateways[at].cycle.next(now);
        while let Some(current) = task {
            task = self.carry_out(at, current, now);
            let gateway = &mut self.gateways[at];
            if gateway.cycle.current().is_news_after(&gateway.current) {
                gateway.current = gateway.cycle.current();
                gateway.changes += 1;
            }
        }
    }

    fn carry_out(&mut self, at: usize, task: ElectionTask, now: BootTime) -> Option<ElectionTask> {
        let probed = self.gateways[at].probed();
        match task {
            ElectionTask::AskCatalog => {
                self.gateways[at].contact.heard(now);
                let answer = LeadershipAnswer {
                    term: self.term(),
                    in_sync: self.in_sync.clone(),
                };
                let random = self.random.f64();
                let cycle = &mut self.gateways[at].cycle;
                cycle.catalog_said(Ok(answer), probed, now, random)
            }
            ElectionTask::AskPolicy(view) => {
                let jitter = self.random.f64();
                let cycle = &mut self.gateways[at].cycle;
                cycle.policy_wants(wanted(&view), now, jitter)
            }
            ElectionTask::Elect {
                expected,
                candidate,
            } => {
                let answers = |probed: &Probed| probed.id == candidate && probed.status.is_ok();
                assert!(
                    probed.iter().any(answers),
                    "it elects replica {candidate}, which does not answer it"
                );
                let mut staged = self.catalog.stage();
                staged.elect(expected, candidate);
                let batch = staged.into_batch();
                self.catalog.apply(batch);
                let elected = self.term();
                let cycle = &mut self.gateways[at].cycle;
                cycle.elected(Some(elected), &probed, now)
            }
            ElectionTask::Announce {
                epoch,
                leader,
                replicas,
            } => {
                let term = Term {
                    epoch,
                    leader: Some(leader),
                };
                self.announce(at, term, &replicas, now);
                let probed = self.gateways[at].probed();
                self.gateways[at].cycle.announced(&probed, now);
                None
            }
        }
    }

    fn announce(&mut self, at: usize, term: Term, replicas: &[ReplicaId], now: BootTime) {
        for place in 0..self.replicas.len() {
            let id = self.replicas[place].id;
            if !replicas.contains(&id) || self.answer(at, place).is_err() {
                continue;
            }
            let taken = self.replicas[place].announce(term, self.now);
            let status = self.replicas[place].status();
            let gateway = &mut self.gateways[at];
            if taken {
                gateway.contact.heard(now);
                gateway.note(place, |probed| probed.note(Ok(status), now, None, now));
            } else {
                gateway.cycle.announcement_failed(id, RetryClass::Never);
            }
        }
    }

    /// Whether all gateways agree on who leads.
    pub fn is_agreed(&self) -> bool {
        let term = self.term();
        let mut gateways = self.gateways.iter();
        gateways.all(|gateway| CurrentLeader::by(term, &gateway.probed()).active)
    }
}

/// Some time within the first of so long.
fn soon(random: &mut fastrand::Rng, within: Duration) -> BootTime {
    time(random.u64(0..within.as_millis() as u64))
}

fn time(millis: u64) -> BootTime {
    BootTime::from_millis(millis)
}

/// Whom the default policy wants.
fn wanted(view: &View) -> Option<ReplicaId> {
    let replica = |replica: &frontend_core::election::ReplicaView| types::Replica {
        id: replica.id.get(),
        healthy: replica.healthy,
        reaches_catalog: replica.reaches_catalog,
        orders: replica.orders.0,
        round_trip_us: 0,
        in_sync: replica.in_sync,
    };
    let view = types::View {
        replicas: view.replicas.iter().map(replica).collect(),
        leader: view.leader.map(ReplicaId::get),
        epoch: view.epoch.0,
    };
    DefaultPolicy.elect(&view).and_then(ReplicaId::new)
}
