//! Everything there is, and what happens to it.

use std::collections::BTreeMap;
use std::time::Duration;

use domain::{JournalId, ReplicaId, Row, RowNumber, SessionId};
use simulated_disk::{Death, Disk, Faults};

use crate::catalog::{Catalog, Ended, JOURNAL};
use crate::client::Client;
use crate::effects::Effect;
use crate::gateway::Gateway;
use crate::messages::{
    Caller, Failure, FromCatalog, FromGateway, Node, Purpose, Request, Run, Streamed, Told,
};
use crate::nemesis::Kind;
use crate::operator::Operator;
use crate::oracle::Oracle;
use crate::plan::{Plan, Without};
use crate::postgres::SERVERS;
use crate::prefilled::Prefilled;
use crate::replica::{FAR_BEHIND_ROWS, Replica, ids};
use crate::site::Site;
use crate::stranger;
use crate::timeline::{Happening, Time, Timeline};

/// Once all is well, everybody has what was promised within this time.
const RECOVERY_MAX: Duration = Duration::from_secs(60);

pub struct World {
    pub plan: Plan,
    pub line: Timeline,
    pub oracle: Oracle,
    pub disks: BTreeMap<Node, Disk>,
    pub catalog: Option<Catalog>,
    /// In its place, several over one database.
    pub site: Option<Site>,
    pub replicas: BTreeMap<ReplicaId, Replica>,
    pub gateways: BTreeMap<usize, Gateway>,
    pub clients: Vec<Client>,
    pub operator: Operator,
    /// When all became well.
    pub healed: Option<Time>,
    pub injected: BTreeMap<Kind, u64>,
    pub hits: u64,
    pub checked: RowNumber,
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
    pub effects: BTreeMap<Effect, u64>,
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
        for (effect, count) in &other.effects {
            *self.effects.entry(*effect).or_default() += count;
        }
        self.recovery = self.recovery.max(other.recovery);
    }
}

impl World {
    fn new(plan: Plan, print: bool) -> Self {
        let mut line = Timeline::new(plan.seed, print);
        let prefilled = plan.prefilled.then(|| Prefilled::get(&plan));
        let oracle = match &prefilled {
            None => Oracle::new(plan.first_stocks()),
            Some(it) => {
                let ledgers = it.ledgers();
                Oracle::prefilled(plan.first_stocks(), &it.rows, it.term.clone(), ledgers)
            }
        };
        let mut world = Self {
            plan,
            disks: BTreeMap::new(),
            catalog: None,
            site: (plan.catalogs > 1).then(|| Site::new(&plan)),
            replicas: BTreeMap::new(),
            gateways: BTreeMap::new(),
            clients: Vec::new(),
            operator: Operator::new(plan.lease),
            healed: None,
            injected: BTreeMap::new(),
            hits: 0,
            checked: RowNumber(0),
            oracle,
            line: Timeline::new(0, false),
        };
        for node in world.processes() {
            line.add(node, plan.drift_ppm_max);
            if !matches!(node, Node::Gateway(_) | Node::Member(_)) {
                let seed = line.random.u64(..);
                let disk = match &prefilled {
                    None => Disk::new(seed),
                    Some(prefilled) => prefilled.disk(node, seed),
                };
                disk.set_faults(Faults {
                    lies: plan.without == Some(Without::Syncs),
                    ..Faults::default()
                });
                world.disks.insert(node, disk);
            }
            let at = line.between(Duration::ZERO, Duration::from_millis(100));
            line.schedule(at, Happening::Start(node));
        }
        if world.site.is_some() {
            for server in 0..SERVERS {
                line.add(Node::Database(server), plan.drift_ppm_max);
            }
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
        self.run_catalogs();
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
                named,
            } => self.requested(caller, to, request, named),
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
            Happening::Database(event) => self.happen_to_database(event),
            Happening::Follow(run, asked) => self.follow(run, asked),
            Happening::Mend => self.mend(),
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
                stream,
            } => self.line.network.catalog(*stream),
            Happening::Streamed { stream, .. } => {
                self.line.network.gateway(*stream).map(|run| run.node)
            }
            Happening::Wake(run) | Happening::DiskDone(run) | Happening::Follow(run, _) => {
                Some(run.node)
            }
            _ => None,
        }
    }

    /// Which journal a process keeps, where it knows.
    fn journal(&self, node: Node) -> Option<JournalId> {
        match node {
            Node::Replica(id) => self.replicas.get(&id).and_then(Replica::journal),
            _ => Some(JOURNAL),
        }
    }

    /// Whether a process answers a request, going by the journal that it names.
    fn check(
        &mut self,
        request: &Request,
        named: Option<JournalId>,
        own: Option<JournalId>,
    ) -> Result<(), Failure> {
        let Some(own) = own.filter(|_| self.plan.without != Some(Without::NamedJournal)) else {
            return Ok(());
        };
        stranger::check(request, named, own).inspect_err(|_| {
            self.line.came(Effect::StrangerRefused);
        })
    }

    fn requested(&mut self, caller: Caller, to: Node, request: Request, named: Option<JournalId>) {
        self.line.note(1, Some(to), || {
            format!("{:?} asks {to:?}: {request:?}", caller.run.node)
        });
        let from = caller.run.node;
        if self.line.network.is_miswired(self.line.now(), from, to) {
            let checked = self.check(&request, named, Some(stranger::JOURNAL));
            let told = checked.and_then(|()| stranger::answer(to, &request));
            return self.line.reply(to, caller, told);
        }
        let own = self.journal(to);
        if let Err(failure) = self.check(&request, named, own) {
            return self.line.reply(to, caller, Err(failure));
        }
        if to == Node::Catalog {
            self.mind_catalog();
        }
        let line = &mut self.line;
        match to {
            Node::Catalog if let Some(catalog) = &mut self.catalog => {
                catalog.request(line, caller, request);
                self.mind_catalog();
            }
            Node::Replica(id) if let Some(replica) = self.replicas.get_mut(&id) => {
                replica.request(line, &mut self.oracle, caller, request);
                self.end_failed(id);
            }
            Node::Gateway(gateway) if let Some(gateway) = self.gateways.get_mut(&gateway) => {
                gateway.request(line, caller, request);
            }
            Node::Member(index) => self.ask_member(index, caller, request),
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
        if let Purpose::AskIfActive(asked) = purpose {
            return self.followed(run, asked, &told);
        }
        let (line, oracle) = (&mut self.line, &mut self.oracle);
        match node {
            Node::Catalog | Node::Member(_) | Node::Database(_) => {
                unreachable!("{node:?} calls nobody")
            }
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
            Streamed::Up(_) => self.line.network.catalog(stream).expect("it was opened"),
            Streamed::Down(_) => gateway.node,
        };
        self.line.note(3, Some(node), || {
            format!("{node:?} on stream {stream}: {what:?}")
        });
        match (what, node) {
            (Streamed::Up(what), _) if self.line.network.ends_elsewhere(stream) => {
                self.answer_stray_stream(stream, what);
            }
            (Streamed::Up(what), Node::Member(index)) => {
                self.stream_to_member(index, stream, what);
            }
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

    /// A session's stream reaches another bazaar's catalog.
    fn answer_stray_stream(&mut self, stream: u64, what: Option<FromGateway>) {
        let Some(FromGateway::Open { journal }) = what else {
            return;
        };
        let request = Request::GetLeadership;
        let own = Some(stranger::JOURNAL);
        match self.check(&request, Some(journal), own) {
            Ok(()) => {
                let opened = FromCatalog::Opened {
                    session: SessionId::new(1).expect("not 0"),
                    lease: self.plan.lease,
                    journal: stranger::JOURNAL,
                };
                self.line.send_down(stream, opened);
            }
            Err(_) => self.line.break_stream(stream, Duration::ZERO),
        }
    }

    fn woken(&mut self, node: Node) {
        if node == Node::Catalog {
            self.mind_catalog();
            if self.catalog.is_none() {
                return;
            }
        }
        let (line, oracle) = (&mut self.line, &mut self.oracle);
        match node {
            Node::Catalog => self.catalog.as_mut().expect("it runs").woken(line),
            Node::Replica(id) => {
                let replica = self.replicas.get_mut(&id).expect("it runs");
                replica.woken(line, oracle);
                self.end_failed(id);
            }
            Node::Gateway(gateway) => self
                .gateways
                .get_mut(&gateway)
                .expect("it runs")
                .woken(line),
            Node::Client(_) | Node::Member(_) | Node::Database(_) => {}
        }
        self.rewake(node);
    }

    fn disk_done(&mut self, run: Run) {
        let epoch = self.oracle.epoch();
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
            _ => unreachable!("it has no disk"),
        };
        self.line.note(4, Some(run.node), || {
            format!("{:?} disk: {done:?}", run.node)
        });
        if self.oracle.epoch() > epoch && self.is_anybody_far_behind() {
            self.line.came(Effect::ElectedWhileFarBehind);
        }
        match done {
            Ok(()) => {
                self.rewake(run.node);
                if let Node::Replica(id) = run.node {
                    self.end_failed(id);
                }
            }
            Err(Ended) => self.crash(run.node, Death::Killed),
        }
    }

    fn is_anybody_far_behind(&self) -> bool {
        let lacks = |id| {
            self.oracle
                .end()
                .rows
                .0
                .saturating_sub(self.oracle.ledger(id).0)
        };
        ids().any(|id| lacks(id) > FAR_BEHIND_ROWS)
    }

    pub fn rewake(&mut self, node: Node) {
        let at = match node {
            Node::Catalog => self.catalog.as_ref().and_then(|it| it.wake(&self.line)),
            Node::Replica(id) => self.replicas.get(&id).and_then(|it| it.wake(&self.line)),
            Node::Gateway(gateway) => {
                let gateway = self.gateways.get(&gateway);
                gateway.and_then(|gateway| gateway.wake(&self.line))
            }
            Node::Client(_) | Node::Member(_) | Node::Database(_) => None,
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

    fn effects(&self) -> BTreeMap<Effect, u64> {
        let mut effects = self.line.effects.clone();
        effects.insert(Effect::DiskRefilled, self.oracle.refilled);
        effects
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
            effects: self.effects(),
            recovery: self.line.now() - self.healed.unwrap_or_default(),
        }
    }
}
