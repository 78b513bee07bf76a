//! Everything there is, and what happens to it.

use std::collections::BTreeMap;
use std::time::Duration;

use order::store::Store as _;
use protocol::{OrderNumber, ReplicaId};
use simulated_disk::{Death, Disk, Faults};
use storage::StorageError;

use crate::catalog::{self, Catalog, Ended};
use crate::client::Client;
use crate::gateway::Gateway;
use crate::messages::{Caller, Node, Purpose, Request, Run, Streamed, Told};
use crate::nemesis::Kind;
use crate::oracle::Oracle;
use crate::plan::{Plan, Without};
use crate::replica::{self, Replica, ids};
use crate::timeline::{Happening, Time, Timeline};

/// Once all is well, everybody has what was promised within this time.
const RECOVERY_MAX: Duration = Duration::from_secs(60);

/// Of so many acknowledged orders one is looked for on the disks.
const DISK_CHECK_EVERY: u64 = 16;

/// A whole simulation.
pub struct World {
    pub plan: Plan,
    pub line: Timeline,
    oracle: Oracle,
    pub disks: BTreeMap<Node, Disk>,
    catalog: Option<Catalog>,
    replicas: BTreeMap<ReplicaId, Replica>,
    gateways: BTreeMap<usize, Gateway>,
    clients: Vec<Client>,
    /// When all became well.
    healed: Option<Time>,
    pub injected: BTreeMap<Kind, u64>,
    hits: u64,
    checked: OrderNumber,
}

/// What a simulation came to.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Report {
    pub hash: u64,
    pub events: u64,
    pub operations: u64,
    pub failed: u64,
    pub trades: u64,
    pub hits: u64,
    pub checks: u64,
    pub syncs: u64,
    pub lost_messages: u64,
    pub injected: BTreeMap<Kind, u64>,
    /// From the healing to the end.
    pub recovery: Duration,
}

impl Report {
    /// Of several simulations together; the longest recovery.
    pub fn add(&mut self, other: &Self) {
        self.hash ^= other.hash;
        self.events += other.events;
        self.operations += other.operations;
        self.failed += other.failed;
        self.trades += other.trades;
        self.hits += other.hits;
        self.checks += other.checks;
        self.syncs += other.syncs;
        self.lost_messages += other.lost_messages;
        for (kind, count) in &other.injected {
            *self.injected.entry(*kind).or_default() += count;
        }
        self.recovery = self.recovery.max(other.recovery);
    }
}

impl World {
    fn new(plan: Plan, print: bool) -> Self {
        let mut line = Timeline::new(plan.seed, print);
        let oracle = Oracle::new(plan.first_stocks());
        let mut world = Self {
            plan,
            disks: BTreeMap::new(),
            catalog: None,
            replicas: BTreeMap::new(),
            gateways: BTreeMap::new(),
            clients: Vec::new(),
            healed: None,
            injected: BTreeMap::new(),
            hits: 0,
            checked: OrderNumber(0),
            oracle,
            line: Timeline::new(0, false),
        };
        for node in world.processes() {
            line.add(node, plan.drift_ppm_max);
            if !matches!(node, Node::Gateway(_)) {
                let disk = Disk::new(line.random.u64(..));
                disk.set_faults(Faults {
                    lies: plan.without == Some(Without::Syncs),
                    ..Faults::default()
                });
                world.disks.insert(node, disk);
            }
            let at = line.between(Duration::ZERO, Duration::from_millis(100));
            line.schedule(at, Happening::Start(node));
        }
        for client in 0..plan.clients {
            line.add(Node::Client(client), 0);
            line.host(Node::Client(client)).up = true;
            let at = line.between(Duration::ZERO, Duration::from_millis(600));
            line.schedule(at, Happening::Operate(client));
            world.clients.push(Client::new(&line, &plan, client));
        }
        line.schedule(plan.calm, Happening::Fault);
        line.schedule(plan.trouble, Happening::Heal);
        world.line = line;
        world
    }

    /// Runs it.
    ///
    /// # Panics
    /// Where something does not hold that must.
    pub fn run(plan: Plan, print: bool) -> Report {
        let mut world = Self::new(plan, print);
        while !world.is_done() {
            world.happen();
        }
        world.settle();
        world.report()
    }

    fn is_done(&self) -> bool {
        self.healed.is_some() && self.clients.iter().all(Client::is_done)
    }

    /// The next thing happens.
    fn happen(&mut self) {
        let happening = self.line.next().expect("there is always something to do");
        let Some(healed) = self.healed else {
            return self.handle(happening);
        };
        assert!(
            self.line.now() < healed + RECOVERY_MAX,
            "{RECOVERY_MAX:?} after all became well {} clients are not done: {}",
            self.clients
                .iter()
                .filter(|client| !client.is_done())
                .count(),
            self.summary()
        );
        self.handle(happening);
    }

    fn handle(&mut self, happening: Happening) {
        if let Some(node) = self.place(&happening)
            && let Some(until) = self.line.host(node).paused_until
            && self.line.now() < until
        {
            return match happening {
                Happening::Wake(run) => self.line.wake(run, Some(until)),
                happening => self.line.schedule(until, happening),
            };
        }
        match happening {
            Happening::Request {
                caller,
                to,
                request,
            } => self.requested(caller, to, request),
            Happening::Reply { call, told } => {
                if let Some((run, purpose)) = self.line.answered(call) {
                    self.answered(run, purpose, told);
                }
            }
            Happening::Streamed { stream, what } => self.streamed(stream, what),
            Happening::Wake(run) if self.line.runs(run) => self.woken(run.node),
            Happening::DiskDone(run) if self.line.runs(run) => self.disk_done(run),
            Happening::Wake(_) | Happening::DiskDone(_) => {}
            Happening::Start(node) => self.start(node),
            Happening::Fault if self.healed.is_none() => self.fault(),
            Happening::Fault => {}
            Happening::Heal => self.heal(),
            Happening::Operate(client) => {
                self.clients[client].operate(&mut self.line, &self.oracle);
            }
        }
        self.check_disks();
    }

    /// Where something happens that waits while the process there is paused.
    fn place(&self, happening: &Happening) -> Option<Node> {
        match happening {
            Happening::Request { to, .. } => Some(*to),
            Happening::Reply { call, .. } => self.line.caller(*call).map(|run| run.node),
            Happening::Streamed {
                what: Streamed::Up(_),
                ..
            } => Some(Node::Catalog),
            Happening::Streamed { stream, .. } => {
                self.line.network.gateway(*stream).map(|run| run.node)
            }
            Happening::Wake(run) | Happening::DiskDone(run) => Some(run.node),
            _ => None,
        }
    }

    fn requested(&mut self, caller: Caller, to: Node, request: Request) {
        self.line.note(1, Some(to), || {
            format!("{:?} asks {to:?}: {request:?}", caller.run.node)
        });
        let line = &mut self.line;
        match to {
            Node::Catalog if let Some(catalog) = &mut self.catalog => {
                catalog.request(line, caller, request);
            }
            Node::Replica(id) if let Some(replica) = self.replicas.get_mut(&id) => {
                replica.request(line, &mut self.oracle, caller, request);
            }
            Node::Gateway(gateway) if let Some(gateway) = self.gateways.get_mut(&gateway) => {
                gateway.request(line, caller, request);
            }
            // Nobody is there: the machine says so, or nothing does.
            _ if line.random.bool() => line.break_call(caller.call, Duration::from_micros(200)),
            _ => {}
        }
        self.rewake(to);
    }

    fn answered(&mut self, run: Run, purpose: Purpose, told: Told) {
        let node = run.node;
        self.line.note(2, Some(node), || {
            format!("{node:?} is told for {purpose:?}: {told:?}")
        });
        let (line, oracle) = (&mut self.line, &mut self.oracle);
        match node {
            Node::Catalog => unreachable!("the catalog calls nobody"),
            Node::Replica(id) => {
                let replica = self.replicas.get_mut(&id).expect("it runs");
                replica.answered(line, oracle, purpose, told);
            }
            Node::Gateway(gateway) => {
                let gateway = self.gateways.get_mut(&gateway).expect("it runs");
                gateway.answered(line, purpose, told);
            }
            Node::Client(client) => self.clients[client].answered(line, oracle, told),
        }
        self.rewake(node);
    }

    fn streamed(&mut self, stream: u64, what: Streamed) {
        let is_end = matches!(what, Streamed::Up(None) | Streamed::Down(None));
        if !is_end && !self.line.network.is_open(stream, self.line.now()) {
            return;
        }
        let gateway = self.line.network.gateway(stream).expect("it was opened");
        let node = match what {
            Streamed::Up(_) => Node::Catalog,
            Streamed::Down(_) => gateway.node,
        };
        self.line.note(3, Some(node), || {
            format!("{node:?} on stream {stream}: {what:?}")
        });
        match (what, node) {
            (Streamed::Up(what), _) => {
                if let Some(catalog) = &mut self.catalog {
                    catalog.streamed(&mut self.line, stream, what);
                }
            }
            (Streamed::Down(what), Node::Gateway(index)) if self.line.runs(gateway) => {
                let gateway = self.gateways.get_mut(&index).expect("it runs");
                gateway.streamed(&mut self.line, stream, what);
            }
            _ => {}
        }
        self.rewake(node);
    }

    fn woken(&mut self, node: Node) {
        let (line, oracle) = (&mut self.line, &mut self.oracle);
        match node {
            Node::Catalog => self.catalog.as_mut().expect("it runs").woken(line),
            Node::Replica(id) => {
                let replica = self.replicas.get_mut(&id).expect("it runs");
                replica.woken(line, oracle);
            }
            Node::Gateway(gateway) => self
                .gateways
                .get_mut(&gateway)
                .expect("it runs")
                .woken(line),
            Node::Client(_) => {}
        }
        self.rewake(node);
    }

    fn disk_done(&mut self, run: Run) {
        let (line, oracle) = (&mut self.line, &mut self.oracle);
        let done = match run.node {
            Node::Catalog => self
                .catalog
                .as_mut()
                .expect("it runs")
                .disk_done(line, oracle),
            Node::Replica(id) => {
                let replica = self.replicas.get_mut(&id).expect("it runs");
                replica.disk_done(line, oracle)
            }
            Node::Gateway(_) | Node::Client(_) => unreachable!("it has no disk"),
        };
        self.line.note(4, Some(run.node), || {
            format!("{:?} disk: {done:?}", run.node)
        });
        match done {
            Ok(()) => self.rewake(run.node),
            Err(Ended) => self.crash(run.node, Death::Killed),
        }
    }

    fn rewake(&mut self, node: Node) {
        let at = match node {
            Node::Catalog => self.catalog.as_ref().and_then(|it| it.wake(&self.line)),
            Node::Replica(id) => self.replicas.get(&id).and_then(|it| it.wake(&self.line)),
            Node::Gateway(gateway) => self.gateways.get(&gateway).and_then(Gateway::wake),
            Node::Client(_) => None,
        };
        let run = self.line.run(node);
        self.line.wake(run, at);
    }

    fn start(&mut self, node: Node) {
        let host = self.line.host(node);
        if host.up {
            return;
        }
        host.up = true;
        host.run += 1;
        host.paused_until = None;
        let (line, oracle, plan) = (&mut self.line, &mut self.oracle, &self.plan);
        let started = match node {
            Node::Catalog => Catalog::start(line, oracle, plan, &self.disks[&node])
                .map(|catalog| self.catalog = Some(catalog)),
            Node::Replica(id) => Replica::start(line, oracle, plan, id, &self.disks[&node])
                .map(|replica| drop(self.replicas.insert(id, replica))),
            Node::Gateway(gateway) => {
                let started = Gateway::start(line, plan, gateway);
                self.gateways.insert(gateway, started);
                Ok(())
            }
            Node::Client(_) => unreachable!("clients always run"),
        };
        self.line
            .note(5, Some(node), || format!("{node:?} starts: {started:?}"));
        match started {
            Ok(()) if self.is_dead(node) => self.crash(node, Death::Killed),
            Ok(()) => self.rewake(node),
            Err(StorageError::Damaged(damage)) => panic!("{node:?} finds damage: {damage}"),
            Err(StorageError::Foreign { .. }) if !self.is_dead(node) => {
                panic!("{node:?} does not know its own database")
            }
            Err(_) => self.crash(node, Death::Killed),
        }
    }

    fn is_dead(&self, node: Node) -> bool {
        self.disks.get(&node).is_some_and(Disk::is_dead)
    }

    /// A process is told to stop, and does so properly, unless it has something under way.
    pub fn stop(&mut self, node: Node) {
        let line = &mut self.line;
        match node {
            Node::Catalog => {
                if let Some(catalog) = self.catalog.take_if(|catalog| catalog.is_idle()) {
                    catalog.stop(line);
                }
            }
            Node::Replica(id) => drop(self.replicas.remove(&id)),
            Node::Gateway(gateway) => {
                if let Some(gateway) = self.gateways.get_mut(&gateway) {
                    gateway.release(line);
                }
            }
            Node::Client(_) => unreachable!("clients always run"),
        }
        self.crash(node, Death::Killed);
    }

    /// A process ends, in the way that its disk did where that did.
    pub fn crash(&mut self, node: Node, death: Death) {
        if !self.line.host(node).up {
            return;
        }
        let mut death = death;
        if let Some(disk) = self.disks.get(&node) {
            match disk.take_death() {
                Some(died) => death = died,
                None => {
                    disk.die(death);
                    disk.take_death();
                }
            }
        }
        self.line
            .note(6, Some(node), || format!("{node:?} is gone: {death:?}"));
        let host = self.line.host(node);
        host.up = false;
        host.paused_until = None;
        match node {
            Node::Catalog => self.catalog = None,
            Node::Replica(id) => drop(self.replicas.remove(&id)),
            Node::Gateway(gateway) => {
                let gone = self.gateways.remove(&gateway);
                self.hits += gone.map_or(0, |gateway| gateway.hits);
            }
            Node::Client(_) => unreachable!("clients always run"),
        }
        self.break_streams(node, death);
        if death != Death::Killed {
            self.line.boot(node);
        }
        let down_max = if self.healed.is_some() { 50 } else { 2_000 };
        let down = self
            .line
            .between(Duration::from_millis(1), Duration::from_millis(down_max));
        self.line.after(down, Happening::Start(node));
    }

    /// A process's end closes its connections; a machine's says nothing for a while.
    fn break_streams(&mut self, node: Node, death: Death) {
        let of = match node {
            Node::Catalog => None,
            node => Some(node),
        };
        let silence = match death {
            Death::Killed => Duration::from_millis(1),
            Death::PowerLost(_) => Duration::from_secs(5),
        };
        for stream in self.line.network.open_streams(of) {
            let delay = self.line.between(Duration::from_micros(50), silence);
            self.line.break_stream(stream, delay);
        }
    }

    /// All is well from now on.
    fn heal(&mut self) {
        self.line.note(7, None, || "all is well".into());
        self.healed = Some(self.line.now());
        self.line.network.heal();
        for disk in self.disks.values() {
            disk.set_faults(Faults {
                lies: disk.faults().lies,
                ..Faults::default()
            });
        }
        let now = self.line.now();
        for host in self.line.hosts.values_mut() {
            host.slow_until = now;
            host.paused_until = None;
        }
        for client in &mut self.clients {
            client.finish(self.plan.operations);
        }
    }

    /// Once clients are done: all agree, on disk as well.
    fn settle(&mut self) {
        let settled = self.line.now() + Duration::from_secs(4);
        while self.line.now() < settled {
            self.happen();
        }
        // Every gateway shows every stock as it is.
        for gateway in 0..self.plan.gateways {
            for name in self.plan.names() {
                self.clients[0].look(&mut self.line, &self.oracle, name, gateway);
                while !self.clients[0].is_done() {
                    self.happen();
                }
            }
        }
        let all: Vec<ReplicaId> = ids().collect();
        let in_sync: Vec<ReplicaId> = self.oracle.in_sync().iter().copied().collect();
        assert_eq!(in_sync, all, "in sync in the end: {}", self.summary());
        for id in all {
            let disk = self.disks[&Node::Replica(id)].worst();
            let store = replica::open(&disk).expect("the disk is well");
            let rows = store.reader().rows(OrderNumber(0), usize::MAX >> 1);
            assert_eq!(
                rows.expect("readable"),
                self.oracle.journal(),
                "replica {id}"
            );
        }
        let disk = self.disks[&Node::Catalog].worst();
        let mut store = catalog::open(&disk).expect("the disk is well");
        let loaded = catalog::load(&mut store);
        assert_eq!(
            loaded.leadership().end,
            self.oracle.end(),
            "the catalog's disk"
        );
        self.oracle.check_books(&loaded);
    }

    /// What is acknowledged would survive if all power failed now.
    fn check_disks(&mut self) {
        let acknowledged = self.oracle.acknowledged();
        if acknowledged.0 < self.checked.0 + DISK_CHECK_EVERY {
            return;
        }
        self.checked = acknowledged;
        for id in self.oracle.in_sync() {
            let disk = self.disks[&Node::Replica(*id)].worst();
            let store = replica::open(&disk).expect("the disk is well");
            let held = store.durable().end.rows;
            assert!(
                held >= acknowledged,
                "{id} would hold {held} of {acknowledged} orders"
            );
        }
        let disk = self.disks[&Node::Catalog].worst();
        let mut store = catalog::open(&disk).expect("the disk is well");
        let held = catalog::load(&mut store).leadership().end.rows;
        assert!(
            held >= acknowledged,
            "the catalog would hold {held} of {acknowledged} orders"
        );
    }

    fn summary(&self) -> String {
        let statuses: Vec<_> = self.replicas.values().map(Replica::status).collect();
        format!(
            "{} orders, in sync {:?}, {statuses:?}",
            self.oracle.end().rows,
            self.oracle.in_sync()
        )
    }

    fn report(&self) -> Report {
        let hits = self.gateways.values().map(|gateway| gateway.hits);
        let syncs = self.disks.values().map(|disk| disk.counts().syncs);
        Report {
            hash: self.line.trace.hash,
            events: self.line.trace.events,
            operations: self.clients.iter().map(|client| client.answered).sum(),
            failed: self.clients.iter().map(|client| client.failed).sum(),
            trades: self.oracle.numbers() as u64,
            hits: self.hits + hits.sum::<u64>(),
            checks: self.oracle.checks,
            syncs: syncs.sum(),
            lost_messages: self.line.network.lost,
            injected: self.injected.clone(),
            recovery: self.line.now() - self.healed.unwrap_or_default(),
        }
    }
}
