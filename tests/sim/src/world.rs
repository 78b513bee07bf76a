//! Everything there is, and what happens to it.

use std::collections::BTreeMap;
use std::time::Duration;

use domain::{OrderNumber, ReplicaId, Row};
use simulated_disk::{Death, Disk, Faults};

use crate::catalog::{Catalog, Ended};
use crate::client::Client;
use crate::gateway::Gateway;
use crate::messages::{Caller, Node, Purpose, Request, Run, Streamed, Told};
use crate::nemesis::Kind;
use crate::oracle::Oracle;
use crate::plan::{Plan, Without};
use crate::replica::Replica;
use crate::timeline::{Happening, Time, Timeline};

/// Once all is well, everybody has what was promised within this time.
const RECOVERY_MAX: Duration = Duration::from_secs(60);

/// A whole simulation.
pub struct World {
    pub plan: Plan,
    pub line: Timeline,
    pub oracle: Oracle,
    pub disks: BTreeMap<Node, Disk>,
    pub catalog: Option<Catalog>,
    pub replicas: BTreeMap<ReplicaId, Replica>,
    pub gateways: BTreeMap<usize, Gateway>,
    pub clients: Vec<Client>,
    /// When all became well.
    pub healed: Option<Time>,
    pub injected: BTreeMap<Kind, u64>,
    pub hits: u64,
    pub checked: OrderNumber,
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
    pub fn happen(&mut self) {
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
            Happening::Proposed { call, rows } => self.proposed(call, rows),
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
            Happening::Reply { call, .. } | Happening::Proposed { call, .. } => {
                self.line.caller(*call).map(|run| run.node)
            }
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
                self.end_failed(id);
            }
            Node::Gateway(gateway) => {
                let gateway = self.gateways.get_mut(&gateway).expect("it runs");
                gateway.answered(line, purpose, told);
            }
            Node::Client(client) => self.clients[client].answered(line, oracle, told),
        }
        self.rewake(node);
    }

    fn proposed(&mut self, call: u64, rows: Vec<Row>) {
        let Some((run, Purpose::Trade(call))) = self.line.purpose(call) else {
            return;
        };
        let Node::Replica(id) = run.node else {
            unreachable!("replicas trade")
        };
        self.line.note(6, Some(run.node), || {
            format!("{:?} is told of {} rows proposed", run.node, rows.len())
        });
        let replica = self.replicas.get_mut(&id).expect("it runs");
        replica.proposed(&mut self.line, &mut self.oracle, call, rows);
        self.rewake(run.node);
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

    pub fn rewake(&mut self, node: Node) {
        let at = match node {
            Node::Catalog => self.catalog.as_ref().and_then(|it| it.wake(&self.line)),
            Node::Replica(id) => self.replicas.get(&id).and_then(|it| it.wake(&self.line)),
            Node::Gateway(gateway) => self.gateways.get(&gateway).and_then(Gateway::wake),
            Node::Client(_) => None,
        };
        let run = self.line.run(node);
        self.line.wake(run, at);
    }

    pub fn summary(&self) -> String {
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
