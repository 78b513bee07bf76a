//! Faults: which, where, and for how long.

use std::time::Duration;

use domain::{Epoch, ReplicaId, RowNumber};
use simulated_disk::file::Loss;
use simulated_disk::{Death, Faults};

use crate::catalog::JOURNAL;
use crate::messages::{Caller, FORGED, Node, Request};
use crate::network::Weather;
use crate::postgres::{Cluster, Fate, Loss as DatabaseLoss, SERVERS};
use crate::replica::{self, ids};
use crate::timeline::Happening;
use crate::world::World;

const MILLISECOND: Duration = Duration::from_millis(1);

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A process is killed.
    Kill,
    /// A process is told to stop, and does so properly.
    Stop,
    /// A machine loses power, and what was not synced.
    PowerLoss,
    /// A process dies in the middle of what it does to its disk.
    DeathAtDisk,
    /// A process stops for longer than a lease, perhaps, and goes on.
    Pause,
    /// Two machines cannot reach each other.
    Cut,
    /// A machine reaches no other.
    Isolation,
    /// A session's stream breaks.
    Reset,
    /// Messages are lost and late.
    Weather,
    /// A disk takes its time.
    SlowDisk,
    /// A disk has no room.
    FullDisk,
    FailedSync,
    FailedWrite,
    /// Somebody says that an epoch has begun which has not.
    Forgery,
    /// A replica's disk is replaced by an empty one.
    LostDisk,
    /// A replica is started on another bazaar's disk, which is replaced once it says so.
    ForeignDisk,
    /// A replica's disk damages a byte.
    DamagedDisk,
    /// One process has another bazaar's at the address of another one.
    Miswiring,
    /// The catalog's disk is lost, and rebuilt from the ledgers.
    LostCatalog,
    /// An older copy takes the place of the catalog's disk.
    Rollback,
    // Of several catalogs over one database:
    /// Its primary is lost, and another one promoted; it may go on for a while.
    FailOver,
    DatabaseRestart,
    /// It comes back without rows that it had acknowledged.
    DatabaseLoss,
    /// Something becomes of a commit that nobody would expect.
    CommitFate,
    /// Standbys take their time.
    SlowStandby,
}

pub const KINDS: [Kind; 20] = [
    Kind::Kill,
    Kind::Stop,
    Kind::PowerLoss,
    Kind::DeathAtDisk,
    Kind::Pause,
    Kind::Cut,
    Kind::Isolation,
    Kind::Reset,
    Kind::Weather,
    Kind::SlowDisk,
    Kind::FullDisk,
    Kind::FailedSync,
    Kind::FailedWrite,
    Kind::Forgery,
    Kind::LostDisk,
    Kind::ForeignDisk,
    Kind::DamagedDisk,
    Kind::Miswiring,
    Kind::LostCatalog,
    Kind::Rollback,
];

/// Those that there are with several catalogs.
pub const KINDS_OF_SEVERAL: [Kind; 20] = [
    Kind::Kill,
    Kind::Stop,
    Kind::PowerLoss,
    Kind::DeathAtDisk,
    Kind::Pause,
    Kind::Cut,
    Kind::Isolation,
    Kind::Reset,
    Kind::Weather,
    Kind::SlowDisk,
    Kind::FullDisk,
    Kind::FailedSync,
    Kind::Forgery,
    Kind::LostDisk,
    Kind::DamagedDisk,
    Kind::FailOver,
    Kind::DatabaseRestart,
    Kind::DatabaseLoss,
    Kind::CommitFate,
    Kind::SlowStandby,
];

impl World {
    /// One fault, and when the next one comes.
    pub fn fault(&mut self) {
        let all = match self.site {
            Some(_) => KINDS_OF_SEVERAL,
            None => KINDS,
        };
        let kinds: Vec<Kind> = all
            .into_iter()
            .filter(|&kind| self.plan.faults.has(kind))
            .collect();
        if let Some(&kind) = self.line.random.choice(&kinds)
            && self.inflict(kind)
        {
            *self.injected.entry(kind).or_default() += 1;
        }
        let pause = self.plan.calm.mul_f64(2.0 * self.line.random.f64());
        self.line.after(pause, Happening::Fault);
    }

    /// Whether it could be.
    fn inflict(&mut self, kind: Kind) -> bool {
        let node = self.some_process();
        let store = self.some_store();
        self.line.note(10, Some(node), || {
            format!("fault {kind:?}: {node:?} or {store:?}")
        });
        match kind {
            Kind::Kill => self.crash(node, Death::Killed),
            Kind::Stop => self.stop(node),
            Kind::PowerLoss => {
                let loss = self.some_loss();
                self.crash(node, Death::PowerLost(loss));
            }
            Kind::DeathAtDisk => {
                let death = if self.line.random.bool() {
                    Death::Killed
                } else {
                    Death::PowerLost(self.some_loss())
                };
                let after = self.line.random.u32(..24);
                self.spoil(store, |faults| faults.dies_after = Some((after, death)));
            }
            Kind::Pause => {
                let pause = self.some_time(3_000);
                let until = self.line.now() + pause;
                let host = self.line.host(node);
                host.paused_until = host.paused_until.max(Some(until));
                if let (Node::Member(index), Some(site)) = (node, &self.site)
                    && let Some(member) = site.members.get(&index)
                {
                    member.pause(until);
                }
                self.hinder(node);
            }
            Kind::Cut => {
                let (node, other) = self.some_link(node);
                let until = self.line.now() + self.some_time(4_000);
                if other != node {
                    self.line.network.cut(node, other, until);
                    self.hinder(node);
                    self.hinder(other);
                }
            }
            Kind::Isolation => {
                let until = self.line.now() + self.some_time(4_000);
                let servers = self
                    .site
                    .iter()
                    .flat_map(|_| (0..SERVERS).map(Node::Database));
                let servers: Vec<Node> = servers.collect();
                for other in self.processes().into_iter().chain(servers) {
                    self.hinder(other);
                    if other != node {
                        self.line.network.cut(node, other, until);
                    }
                }
            }
            Kind::Reset => {
                let streams = self.line.network.open_streams(None);
                if let Some(&stream) = self.line.random.choice(&streams) {
                    let delay = self.some_time(20);
                    self.line.break_stream(stream, delay);
                }
            }
            Kind::Weather => {
                self.line.network.weather = Weather {
                    lost: self.line.random.u32(..60),
                    late_share: self.line.random.u32(..150),
                    late: self.some_time(1_500),
                };
                for catalog in self.catalogs() {
                    self.hinder(catalog);
                }
            }
            Kind::SlowDisk => {
                let until = self.line.now() + self.some_time(3_000);
                self.line.host(store).slow_until = until;
            }
            Kind::FullDisk => {
                let is_full = self.disks[&store].faults().full;
                self.spoil(store, |faults| faults.full = !is_full);
            }
            Kind::FailedSync => self.spoil(store, |faults| faults.next_sync_fails = true),
            Kind::FailedWrite => self.spoil(store, |faults| faults.next_write_fails = true),
            Kind::Forgery => self.forge(),
            Kind::LostDisk | Kind::ForeignDisk | Kind::DamagedDisk if !self.needs_no_ledger() => {
                return false;
            }
            Kind::LostDisk => {
                let id = self.some_replica();
                self.replace_disk(id);
            }
            Kind::ForeignDisk => {
                let id = self.some_replica();
                self.replace_disk(id);
                self.operator.foreign.insert(id);
                replica::make_foreign(&self.disks[&Node::Replica(id)], self.plan.vfs());
            }
            Kind::DamagedDisk => {
                let id = self.some_replica();
                self.damage(id);
            }
            Kind::Miswiring => return self.miswire(node),
            Kind::LostCatalog => return self.lose_catalog(),
            Kind::Rollback => return self.roll_back(),
            Kind::FailOver => {
                let how = [DatabaseLoss::Replaced, DatabaseLoss::Outlived];
                return self.lose_database(&how);
            }
            Kind::DatabaseRestart => return self.lose_database(&[DatabaseLoss::Restarted]),
            Kind::DatabaseLoss if !self.needs_no_ledger() || self.oracle.whole().is_empty() => {
                return false;
            }
            Kind::DatabaseLoss => {
                let how = [DatabaseLoss::ReplacedByOlder, DatabaseLoss::Restored];
                return self.lose_database(&how);
            }
            Kind::CommitFate => {
                let fates = [
                    Fate::LostBefore,
                    Fate::LostAfter,
                    Fate::AnsweredLate,
                    Fate::Cancelled,
                ];
                let fate = *self.line.random.choice(&fates).expect("one of them");
                return self.cluster().doom(fate);
            }
            Kind::SlowStandby => {
                let lasts = self.some_time(3_000);
                let site = self.site.as_mut().expect("several catalogs");
                site.cluster.slow_down(&self.line, lasts);
            }
        }
        true
    }

    fn cluster(&mut self) -> &mut Cluster {
        &mut self.site.as_mut().expect("several catalogs").cluster
    }

    /// The database's primary is lost, in one of these ways.
    fn lose_database(&mut self, how: &[DatabaseLoss]) -> bool {
        let how = *self.line.random.choice(how).expect("one of them");
        let losses = self.cluster().losses;
        let site = self.site.as_mut().expect("several catalogs");
        let is_lost = site.cluster.lose(&mut self.line, how);
        self.operator.was_rolled_back |=
            matches!(how, DatabaseLoss::ReplacedByOlder | DatabaseLoss::Restored);
        let has_lost_rows = self.cluster().losses > losses;
        self.line.note(11, None, || {
            format!("the database is {how:?}: {is_lost}, {has_lost_rows}")
        });
        is_lost
    }

    /// The catalog, or all of them.
    fn catalogs(&self) -> Vec<Node> {
        match &self.site {
            Some(_) => (0..self.plan.catalogs).map(Node::Member).collect(),
            None => vec![Node::Catalog],
        }
    }

    /// A process, and another one or a server. Of several catalogs often the active one, and the primary.
    fn some_link(&mut self, node: Node) -> (Node, Node) {
        if let Some(site) = &self.site
            && self.line.chance(600)
        {
            let any = Node::Database(self.line.random.usize(..SERVERS));
            let store = site.store_link().filter(|_| self.line.random.bool());
            return store.unwrap_or((node, any));
        }
        (node, self.some_process())
    }

    /// A process has another bazaar's at the address of the catalog or a replica.
    fn miswire(&mut self, from: Node) -> bool {
        let to = match self.line.random.bool() {
            true => Node::Catalog,
            false => Node::Replica(self.some_replica()),
        };
        if from == to || from == Node::Catalog {
            return false;
        }
        let lasts = self.some_time(3_000);
        self.line.network.miswire(from, to, self.line.now() + lasts);
        self.hinder(from);
        self.line.after(lasts, Happening::Mend);
        // What is open stays open.
        if to == Node::Catalog {
            for stream in self.line.network.open_streams(Some(from)) {
                self.line.break_stream(stream, MILLISECOND);
            }
        }
        true
    }

    /// A replica is told to follow or to lead an epoch that the catalog has not begun, perhaps never
    /// will.
    fn forge(&mut self) {
        let (to, leader) = (self.some_replica(), self.some_replica());
        let ahead = *self
            .line
            .random
            .choice(&[1, 1 << 20, 1 << 40])
            .expect("one");
        let epoch = Epoch(self.oracle.epoch().0 + ahead);
        let request = if self.line.random.bool() {
            Request::Announce { epoch, leader }
        } else {
            Request::Append {
                epoch,
                leader,
                rows: Vec::new(),
                committed: RowNumber(0),
            }
        };
        // Whoever it is does not wait for an answer.
        let run = self.line.run(Node::Gateway(0));
        let caller = Caller { run, call: FORGED };
        let to = Node::Replica(to);
        let now = self.line.now();
        self.line.schedule(
            now,
            Happening::Request {
                caller,
                to,
                request,
                named: Some(JOURNAL),
            },
        );
    }

    fn spoil(&mut self, node: Node, spoil: impl FnOnce(&mut Faults)) {
        let disk = &self.disks[&node];
        let mut faults = disk.faults();
        spoil(&mut faults);
        disk.set_faults(faults);
    }

    /// Everything that is not a client.
    pub fn processes(&self) -> Vec<Node> {
        let gateways = (0..self.plan.gateways).map(Node::Gateway);
        let replicas = ids().map(Node::Replica);
        let catalogs = self.catalogs().into_iter();
        catalogs.chain(replicas).chain(gateways).collect()
    }

    fn some_process(&mut self) -> Node {
        let all = self.processes();
        *self.line.random.choice(&all).expect("there are some")
    }

    fn some_replica(&mut self) -> ReplicaId {
        let replicas: Vec<ReplicaId> = ids().collect();
        *self.line.random.choice(&replicas).expect("there are some")
    }

    /// Something with a disk; the catalog as often as all others.
    fn some_store(&mut self) -> Node {
        let replicas: Vec<Node> = ids().map(Node::Replica).collect();
        if self.site.is_none() && self.line.random.bool() {
            Node::Catalog
        } else {
            *self.line.random.choice(&replicas).expect("there are some")
        }
    }

    pub fn some_loss(&mut self) -> Loss {
        let losses = [Loss::Everything, Loss::Some, Loss::Nothing];
        *self.line.random.choice(&losses).expect("one of them")
    }

    /// Mostly short, up to so long.
    fn some_time(&mut self, most_ms: u32) -> Duration {
        MILLISECOND.mul_f64(f64::from(most_ms) * self.line.random.f64().powi(2)) + MILLISECOND
    }
}
