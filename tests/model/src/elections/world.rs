//! The catalog, replicas as probes see them, and gateways that elect.

use catalog_core::CatalogState;
use domain::time::BootTime;
use domain::{ChainHash, Epoch, OrderNumber, ReplicaId};
use frontend_core::election::{
    CurrentLeader, Elector, Leadership, Probed, Role, Status, Step, Unanswered, View,
};
use frontend_guest::{DefaultPolicy, Policy, types};

/// Milliseconds between two probes of a replica, and between two snapshots without a change.
const PROBE_INTERVAL: u64 = 50;
const SNAPSHOT_INTERVAL: u64 = 200;

/// Milliseconds that a probe waits for an answer.
const PROBE_TIME_MAX: u64 = 180;

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
    elector: Elector,
    probed: Vec<Probed>,
    probes_at: Vec<u64>,
    snapshot_at: u64,
    pub cut_off: Vec<usize>,
    /// How a cut shows.
    pub cut: Unanswered,
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
            orders: OrderNumber(self.orders),
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
    fn announce(&mut self, leadership: Leadership, now: u64) -> bool {
        let leads = leadership.leader == Some(self.id);
        if leadership.epoch < self.epoch
            || leads && leadership.epoch == self.epoch && self.role == Role::Follower
        {
            return false;
        }
        if leadership.epoch > self.epoch {
            self.epoch = leadership.epoch;
            self.leader = leadership.leader;
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
        let gateways = (0..gateways).map(|_| Gateway {
            elector: Elector::new(BootTime::from_millis(0)),
            probed: ids.iter().copied().map(Probed::unknown).collect(),
            probes_at: ids.iter().map(|_| random.u64(0..PROBE_INTERVAL)).collect(),
            snapshot_at: random.u64(0..SNAPSHOT_INTERVAL),
            cut_off: Vec::new(),
            cut: Unanswered::Silent,
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
    pub fn leadership(&self) -> Leadership {
        let term = self.catalog.leadership().term;
        Leadership {
            epoch: term.epoch,
            leader: term.leader,
        }
    }

    /// The place of the replica that takes trades, if one does.
    pub fn led_by(&self) -> Option<usize> {
        let Leadership { epoch, leader } = self.leadership();
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
                if self.now >= self.gateways[gateway].snapshot_at {
                    self.gateways[gateway].snapshot_at = self.now + SNAPSHOT_INTERVAL;
                    self.step_elector(gateway);
                }
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
        for place in 0..self.replicas.len() {
            if self.now < self.gateways[at].probes_at[place] {
                continue;
            }
            let status = self.answer(at, place);
            let gateway = &mut self.gateways[at];
            // A probe that nobody answers was sent a while ago.
            let waited = if status == Err(Unanswered::Silent) {
                PROBE_TIME_MAX
            } else {
                0
            };
            let probed = &mut gateway.probed[place];
            probed.asked = probed.asked.max(time(self.now.saturating_sub(waited)));
            gateway.probes_at[place] = self.now + waited.max(PROBE_INTERVAL);
            if probed.status != status {
                probed.status = status;
                gateway.snapshot_at = self.now;
            }
        }
    }

    fn answer(&self, at: usize, place: usize) -> Result<Status, Unanswered> {
        let (gateway, replica) = (&self.gateways[at], &self.replicas[place]);
        if gateway.cut_off.contains(&place) {
            return Err(gateway.cut);
        }
        match replica.health {
            Health::Up => Ok(replica.status()),
            Health::Suspended => Err(Unanswered::Silent),
            Health::Killed => Err(Unanswered::Gone),
        }
    }

    fn step_elector(&mut self, at: usize) {
        let (now, leadership) = (time(self.now), self.leadership());
        let jitter = self.random.f64();
        let in_sync = self.in_sync.clone();
        let gateway = &mut self.gateways[at];
        let probed = gateway.probed.clone();
        let Some(snapshot) = gateway.elector.look(leadership, in_sync, probed, now) else {
            return;
        };
        let wanted = wanted(&snapshot.view());
        match gateway.elector.step(&snapshot, wanted, now, jitter) {
            Step::Nothing => {}
            Step::Announce(uninformed) => self.announce(at, leadership, &uninformed),
            Step::Elect(candidate) => {
                let answers = |probed: &Probed| probed.id == candidate && probed.status.is_ok();
                assert!(
                    gateway.probed.iter().any(answers),
                    "it elects replica {candidate}, which does not answer it"
                );
                let mut staged = self.catalog.stage();
                staged.elect(leadership.epoch, candidate);
                let batch = staged.into_batch();
                self.catalog.apply(batch);
                let elected = self.leadership();
                self.gateways[at].elector.elected(candidate, elected, now);
                let everyone: Vec<_> = self.replicas.iter().map(|replica| replica.id).collect();
                self.announce(at, elected, &everyone);
            }
        }
    }

    fn announce(&mut self, at: usize, leadership: Leadership, replicas: &[ReplicaId]) {
        for place in 0..self.replicas.len() {
            let id = self.replicas[place].id;
            if !replicas.contains(&id) || self.answer(at, place).is_err() {
                continue;
            }
            let taken = self.replicas[place].announce(leadership, self.now);
            if !taken && leadership.leader == Some(id) {
                self.gateways[at].elector.refused(leadership.epoch);
                self.gateways[at].snapshot_at = self.now + STEP;
            }
        }
    }

    /// Whether all gateways agree on who leads.
    pub fn is_agreed(&self) -> bool {
        let leadership = self.leadership();
        let mut gateways = self.gateways.iter();
        gateways.all(|gateway| CurrentLeader::by(leadership, &gateway.probed).active)
    }
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
