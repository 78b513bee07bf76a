//! Time, chance, and what is to happen when.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use domain::time::BootTime;
use domain::{JournalId, Row};
use fastrand::Rng;

use crate::effects::Effect;
use crate::messages::{
    Caller, FromCatalog, FromGateway, Node, Purpose, Request, Run, Streamed, Told,
};
use crate::network::Network;
use crate::postgres;

/// Since the simulation began.
pub type Time = Duration;

/// Something that is to happen.
#[derive(Debug)]
pub enum Happening {
    Request {
        caller: Caller,
        to: Node,
        request: Request,
        /// The journal that the caller names.
        named: Option<JournalId>,
    },
    Reply {
        call: u64,
        told: Told,
    },
    /// A trade's rows are on their way to the catalog's disk.
    Proposed {
        call: u64,
        rows: Vec<Row>,
    },
    Streamed {
        stream: u64,
        what: Streamed,
    },
    /// A process has something to do.
    Wake(Run),
    /// A disk gets round to what it was given.
    DiskDone(Run),
    Start(Node),
    /// Servers of a database that several catalogs share.
    Database(postgres::Event),
    /// A process asks one of several catalogs whether it is active.
    Follow(Run, usize),
    /// Whoever operates the catalog sees to it.
    Mend,
    Fault,
    Heal,
    /// A client's next operation.
    Operate(usize),
}

struct Entry {
    at: Time,
    /// Of two at one time the one that was made first comes first.
    order: u64,
    what: Happening,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The earliest is the greatest, as a heap wants it.
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

/// A machine's clock, and what is known of the process on it.
#[derive(Debug, Clone)]
pub struct Host {
    pub run: u64,
    pub up: bool,
    /// What reaches a paused process waits until then.
    pub paused_until: Option<Time>,
    /// Its disk takes its time until then.
    pub slow_until: Time,
    /// When the machine booted: its clock began.
    booted: Time,
    /// By how many millionths its clock is too fast.
    drift_ppm: i64,
    wake: Option<Time>,
    /// Which journal the process there belongs to, where it knows.
    pub journal: Option<JournalId>,
}

impl Host {
    /// What its clock shows then.
    pub fn clock(&self, now: Time) -> BootTime {
        let elapsed = (now - self.booted).as_nanos() as i128;
        let shown = elapsed + elapsed * i128::from(self.drift_ppm) / 1_000_000;
        BootTime::default() + Duration::from_nanos(shown as u64)
    }
}

/// A call that has no answer yet.
#[derive(Clone, Copy)]
struct Call {
    run: Run,
    to: Node,
    purpose: Purpose,
}

/// What all processes live in.
pub struct Timeline {
    now: Time,
    queue: BinaryHeap<Entry>,
    made: u64,
    calls: BTreeMap<u64, Call>,
    pub random: Rng,
    pub hosts: BTreeMap<Node, Host>,
    pub network: Network,
    pub trace: Trace,
    /// What came of faults, and how often.
    pub effects: BTreeMap<Effect, u64>,
    /// Of several catalogs, which one a process follows.
    pub follows: BTreeMap<Node, usize>,
}

/// A hash over all that happened (FNV-1a, 64 bits), and the text of it where that is wanted.
#[derive(Debug)]
pub struct Trace {
    pub hash: u64,
    pub events: u64,
    pub print: bool,
}

impl Trace {
    fn note(&mut self, now: Time, what: impl FnOnce() -> String, numbers: &[u64]) {
        self.events += 1;
        for number in [now.as_nanos() as u64].iter().chain(numbers) {
            for byte in number.to_le_bytes() {
                self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
            }
        }
        if self.print {
            println!("{:>12.6} {}", now.as_secs_f64(), what());
        }
    }
}

impl Timeline {
    pub fn new(seed: u64, print: bool) -> Self {
        Self {
            now: Time::ZERO,
            queue: BinaryHeap::new(),
            made: 0,
            calls: BTreeMap::new(),
            random: Rng::with_seed(seed),
            hosts: BTreeMap::new(),
            network: Network::default(),
            effects: BTreeMap::new(),
            follows: BTreeMap::new(),
            trace: Trace {
                hash: 0xcbf2_9ce4_8422_2325,
                events: 0,
                print,
            },
        }
    }

    pub fn now(&self) -> Time {
        self.now
    }

    /// When something is to happen next.
    pub fn next_at(&self) -> Option<Time> {
        self.queue.peek().map(|entry| entry.at)
    }

    /// Time passes, until before what is to happen next.
    pub fn advance(&mut self, now: Time) {
        self.now = self.now.max(now);
    }

    /// How long something takes on a connection that waits for the network.
    pub fn stream_delay(&mut self, from: Node, to: Node) -> Duration {
        self.network
            .delay_between(&mut self.random, self.now, (from, to))
    }

    /// The one that a process means by the catalog.
    pub fn catalog_of(&self, node: Node) -> Node {
        let follows = self.follows.get(&node);
        follows.map_or(Node::Catalog, |&index| Node::Member(index))
    }

    /// A process follows another catalog: what it has under way at the one before is over.
    pub fn follow(&mut self, run: Run, index: usize) {
        let before = self.catalog_of(run.node);
        self.follows.insert(run.node, index);
        let under_way = self.calls.iter().filter(|(_, call)| {
            let asks = matches!(call.purpose, Purpose::AskIfActive(_));
            call.run == run && call.to == before && !asks
        });
        for call in under_way.map(|(&call, _)| call).collect::<Vec<_>>() {
            self.break_call(call, Duration::from_micros(200));
        }
        for stream in self.network.open_streams(Some(run.node)) {
            self.break_stream(stream, Duration::from_micros(200));
        }
    }

    /// A machine with a clock of its own.
    pub fn add(&mut self, node: Node, drift_ppm_max: i64) {
        let host = Host {
            run: 0,
            up: false,
            paused_until: None,
            slow_until: Time::ZERO,
            booted: Time::ZERO,
            drift_ppm: self.random.i64(-drift_ppm_max..=drift_ppm_max),
            wake: None,
            journal: None,
        };
        self.hosts.insert(node, host);
    }

    pub fn host(&mut self, node: Node) -> &mut Host {
        self.hosts.get_mut(&node).expect("all machines were added")
    }

    /// The process that runs there, or ran last.
    pub fn run(&self, node: Node) -> Run {
        Run {
            node,
            number: self.hosts[&node].run,
        }
    }

    /// Whether that run goes on.
    pub fn runs(&self, run: Run) -> bool {
        let host = &self.hosts[&run.node];
        host.up && host.run == run.number
    }

    /// The machine boots now: its clock begins.
    pub fn boot(&mut self, node: Node) {
        let now = self.now;
        self.host(node).booted = now;
    }

    /// What a machine's clock shows.
    pub fn clock(&self, node: Node) -> BootTime {
        self.hosts[&node].clock(self.now)
    }

    /// When a machine's clock will show it.
    pub fn when(&self, node: Node, shown: BootTime) -> Time {
        let host = &self.hosts[&node];
        let left = shown.since(self.clock(node)).as_nanos() as i128;
        let elapses = left * 1_000_000 / (1_000_000 + i128::from(host.drift_ppm)) + 1;
        self.now + Duration::from_nanos(elapses as u64)
    }

    /// How long a machine's disk takes to commit.
    pub fn disk_latency(&mut self, node: Node) -> Duration {
        let (least_us, most_us) = if self.now < self.hosts[&node].slow_until {
            (20_000, 900_000)
        } else {
            (100, 3_000)
        };
        self.between(
            Duration::from_micros(least_us),
            Duration::from_micros(most_us),
        )
    }

    /// A duration between two.
    pub fn between(&mut self, least: Duration, most: Duration) -> Duration {
        let nanos = self
            .random
            .u64(least.as_nanos() as u64..=most.as_nanos() as u64);
        Duration::from_nanos(nanos)
    }

    /// Whether something happens that happens so often in a thousand.
    pub fn chance(&mut self, in_a_thousand: u32) -> bool {
        self.random.u32(..1000) < in_a_thousand
    }

    pub fn schedule(&mut self, at: Time, what: Happening) {
        self.made += 1;
        let order = self.made;
        let at = at.max(self.now);
        self.queue.push(Entry { at, order, what });
    }

    pub fn after(&mut self, pause: Duration, what: Happening) {
        self.schedule(self.now + pause, what);
    }

    /// Has a process woken then, unless it is woken before.
    pub fn wake(&mut self, run: Run, at: Option<Time>) {
        let Some(at) = at.map(|at| at.max(self.now)) else {
            return;
        };
        let host = self.host(run.node);
        if host.wake.is_none_or(|before| at < before) {
            host.wake = Some(at);
            self.schedule(at, Happening::Wake(run));
        }
    }

    /// What happens next. Time passes until then.
    pub fn next(&mut self) -> Option<Happening> {
        let entry = self.queue.pop()?;
        self.now = entry.at;
        if let Happening::Wake(run) = entry.what {
            let host = self.host(run.node);
            host.wake.take_if(|at| *at <= entry.at);
        }
        Some(entry.what)
    }

    /// Something came of a fault that was to come of it.
    pub fn came(&mut self, effect: Effect) {
        *self.effects.entry(effect).or_default() += 1;
    }

    pub fn note(&mut self, kind: u64, node: Option<Node>, what: impl FnOnce() -> String) {
        let node = match node {
            None => 0,
            Some(Node::Catalog) => 1,
            Some(Node::Replica(id)) => 100 + u64::from(id.get()),
            Some(Node::Gateway(gateway)) => 200 + gateway as u64,
            Some(Node::Client(client)) => 300 + client as u64,
            Some(Node::Member(index)) => 400 + index as u64,
            Some(Node::Database(server)) => 500 + server as u64,
        };
        self.trace.note(self.now, what, &[kind, node]);
    }

    /// Makes a call. Its caller is told what came of it, in that time at the latest.
    pub fn call(
        &mut self,
        run: Run,
        to: Node,
        request: Request,
        timeout: Duration,
        purpose: Purpose,
    ) -> u64 {
        self.made += 1;
        let call = self.made;
        let to = match to {
            Node::Catalog => self.catalog_of(run.node),
            to => to,
        };
        self.calls.insert(call, Call { run, to, purpose });
        let late = Happening::Reply {
            call,
            told: Err(crate::messages::Failure::TimedOut),
        };
        self.after(timeout, late);
        let caller = Caller { run, call };
        let named = self.hosts[&run.node].journal;
        let transit = self
            .network
            .transit(&mut self.random, self.now, run.node, to);
        if let Some(delay) = transit.arrives {
            self.after(
                delay,
                Happening::Request {
                    caller,
                    to,
                    request,
                    named,
                },
            );
        }
        if let Some(delay) = transit.fails {
            self.break_call(call, delay);
        }
        call
    }

    /// The connection breaks under a call: its caller hears so.
    pub fn break_call(&mut self, call: u64, delay: Duration) {
        let told = Err(crate::messages::Failure::Unavailable);
        self.after(delay, Happening::Reply { call, told });
    }

    pub fn reply(&mut self, from: Node, caller: Caller, told: Told) {
        let to = caller.run.node;
        let transit = self.network.transit(&mut self.random, self.now, from, to);
        let call = caller.call;
        if let Some(delay) = transit.arrives {
            self.after(delay, Happening::Reply { call, told });
        }
        if let Some(delay) = transit.fails {
            self.break_call(call, delay);
        }
    }

    /// Tells a caller of rows before its call is answered. Whether that arrives changes nothing.
    pub fn propose(&mut self, from: Node, caller: Caller, rows: Vec<Row>) {
        let to = caller.run.node;
        let transit = self.network.transit(&mut self.random, self.now, from, to);
        if let Some(delay) = transit.arrives {
            let call = caller.call;
            self.after(delay, Happening::Proposed { call, rows });
        }
    }

    /// What a call that is under way was made for, and by whom.
    pub fn purpose(&self, call: u64) -> Option<(Run, Purpose)> {
        let Call { run, purpose, .. } = *self.calls.get(&call)?;
        self.runs(run).then_some((run, purpose))
    }

    /// What the call that is answered was made for, and by whom; `None` where nobody waits.
    pub fn answered(&mut self, call: u64) -> Option<(Run, Purpose)> {
        let Call { run, purpose, .. } = self.calls.remove(&call)?;
        self.runs(run).then_some((run, purpose))
    }

    /// The caller has lost interest.
    pub fn give_up(&mut self, call: u64) {
        self.calls.remove(&call);
    }

    /// Whose a call is that is under way.
    pub fn caller(&self, call: u64) -> Option<Run> {
        self.calls.get(&call).map(|call| call.run)
    }

    /// Opens a stream between a gateway and the catalog.
    pub fn open_stream(&mut self, gateway: Run) -> u64 {
        self.made += 1;
        let stream = self.made;
        let catalog = self.catalog_of(gateway.node);
        self.network.open(self.now, stream, (gateway, catalog));
        stream
    }

    /// Sends to the catalog. Messages of a stream arrive in order.
    pub fn send_up(&mut self, stream: u64, what: FromGateway) {
        let what = Streamed::Up(Some(what));
        self.send(stream, what);
    }

    /// Sends to the gateway.
    pub fn send_down(&mut self, stream: u64, what: FromCatalog) {
        let what = Streamed::Down(Some(what));
        self.send(stream, what);
    }

    fn send(&mut self, stream: u64, what: Streamed) {
        let up = matches!(what, Streamed::Up(_));
        let arrival = self
            .network
            .stream_arrival(&mut self.random, self.now, stream, up);
        if let Some(at) = arrival {
            self.schedule(at, Happening::Streamed { stream, what });
        }
    }

    /// Breaks a stream: what arrives later than that is lost. Each end hears of it then, or, where
    /// they are cut off from each other, once they no longer are.
    pub fn break_stream(&mut self, stream: u64, delay: Duration) {
        let at = self.now + delay;
        if self.network.close(stream, at) {
            let at = self.network.heard(stream, at);
            for what in [Streamed::Up(None), Streamed::Down(None)] {
                self.schedule(at, Happening::Streamed { stream, what });
            }
        }
    }
}
