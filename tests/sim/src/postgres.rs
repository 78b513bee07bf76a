//! PostgreSQL, simulated: three servers, of which one is the primary, and what catalogs' statements make of it.
//!
//! What is above it is shipped, down to the client's side of the protocol. A commit is acknowledged once one of the
//! standbys has it; until then nobody else sees it, and whoever wants the writer's row waits (as `SyncRepWaitForLSN` has it).
//!
//! - `wire`, `values`: the protocol;
//! - `tables`: statements;
//! - `failing`: how servers are lost, promoted, restarted and restored;
//! - here: connections, locks, commits and their replication.

mod failing;
mod tables;
mod values;
mod wire;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex, split};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use crate::clockwork::Outbox;
use crate::effects::Effect;
use crate::member::Output;
use crate::messages::{Node, Run};
use crate::timeline::{Happening, Time, Timeline};

pub use failing::Loss;

use tables::{Log, Seen, Sql};
use wire::{Answer, Incoming, Message, Refusal, Unit, Value};

/// How many servers there are.
pub const SERVERS: usize = 3;

/// The hosts' names, in the order of the servers.
pub const HOSTS: [&str; SERVERS] = ["one", "two", "three"];

/// How long a statement waits for the writer's row: a catalog's sessions set it.
const LOCK_TIMEOUT: Duration = Duration::from_secs(4);

/// How long a slow standby takes, at most: less than a catalog waits.
const LATE_MAX: Duration = Duration::from_secs(4);

/// What fits into a connection's buffers.
const BUFFER_BYTES: usize = 1 << 22;

const MICROSECOND: Duration = Duration::from_micros(1);

/// What happens to servers.
#[derive(Debug)]
pub enum Event {
    /// A connection reaches a server.
    Dialed(u64),
    /// What a client sent.
    Arrived {
        connection: u64,
        unit: Unit,
    },
    /// What it is answered.
    Answered {
        connection: u64,
        bytes: Vec<u8>,
    },
    /// The client's end of a connection breaks.
    Broken(u64),
    /// A commit reaches a standby.
    Replicated {
        era: u64,
        from: usize,
        to: usize,
        place: usize,
    },
    /// A standby says that it has it.
    Confirmed {
        era: u64,
        from: usize,
        place: usize,
    },
    LockLate {
        connection: u64,
        wait: u64,
    },
    /// Somebody becomes the primary; it may lack what was acknowledged.
    Promoted {
        era: u64,
        loses: bool,
    },
    /// A server that was one until then notices that it is not any more.
    Demoted(usize),
    /// A server comes up: as what it was, or as a standby.
    Up(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Primary,
    Standby,
}

#[derive(Debug)]
struct Server {
    up: bool,
    role: Role,
    timeline: i64,
    started: Time,
    log: Log,
    /// The last commit that is visible.
    visible: usize,
    /// Who has the writer's row.
    locked_by: Option<u64>,
    in_doubt: Option<InDoubt>,
    waiting: VecDeque<Waiting>,
    /// Replication takes its time until then.
    slow_until: Time,
    /// What becomes of the next commit.
    next: Option<Fate>,
}

/// What becomes of a commit that nobody would expect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Its connection breaks before it is made.
    LostBefore,
    /// Or after, before it is acknowledged.
    LostAfter,
    /// It is acknowledged long after.
    AnsweredLate,
    /// Somebody cancels the wait for the standby: it succeeds with a warning.
    Cancelled,
}

/// A commit that no standby is known to have.
#[derive(Debug)]
struct InDoubt {
    connection: u64,
    place: usize,
    answer: Answer,
    is_late: bool,
}

/// Who waits for the writer's row.
#[derive(Debug)]
struct Waiting {
    connection: u64,
    wait: u64,
    answer: Answer,
    sql: Sql,
    values: Vec<Value>,
}

struct Connection {
    client: Run,
    server: usize,
    incoming: Incoming,
    /// Where answers go, while the client's end is there.
    to_client: Option<mpsc::UnboundedSender<Vec<u8>>>,
    /// The server's end is there.
    is_served: bool,
    prepared: BTreeMap<String, Sql>,
    transaction: Option<Transaction>,
    /// What arrived while something is under way.
    queue: VecDeque<Unit>,
    is_busy: bool,
    last_up: Time,
    last_down: Time,
}

#[derive(Default)]
struct Transaction {
    work: Option<tables::Work>,
    is_aborted: bool,
}

/// A connection that is being made.
struct Dial {
    client: Run,
    server: usize,
    made: oneshot::Sender<io::Result<DuplexStream>>,
}

/// All servers.
pub struct Cluster {
    servers: Vec<Server>,
    /// The one that goes on; none while nobody is promoted.
    primary: Option<usize>,
    /// Counts the primaries.
    era: u64,
    /// The last commit that was acknowledged in this one.
    acknowledged: usize,
    connections: BTreeMap<u64, Connection>,
    dials: BTreeMap<u64, Dial>,
    made: u64,
    /// Statements are let through whosever term it is.
    pub has_no_fence: bool,
    /// How often it lost rows that it had acknowledged.
    pub losses: u64,
}

impl Cluster {
    pub fn new() -> Self {
        let server = |place| Server {
            up: true,
            role: if place == 0 {
                Role::Primary
            } else {
                Role::Standby
            },
            timeline: 1,
            started: Time::ZERO,
            log: Log::new(),
            visible: 0,
            locked_by: None,
            in_doubt: None,
            waiting: VecDeque::new(),
            slow_until: Time::ZERO,
            next: None,
        };
        Self {
            servers: (0..SERVERS).map(server).collect(),
            primary: Some(0),
            era: 1,
            acknowledged: 0,
            connections: BTreeMap::new(),
            dials: BTreeMap::new(),
            made: 0,
            has_no_fence: false,
            losses: 0,
        }
    }

    /// The one that goes on, where one does.
    pub fn primary(&self) -> Option<usize> {
        self.primary
    }

    /// The chain hashes of the journal's rows at the primary, where there is one.
    pub fn chains(&self) -> Option<Vec<Vec<u8>>> {
        let server = &self.servers[self.primary?];
        let rows = server.log.journal(server.visible).iter();
        Some(rows.map(|row| row.chain.clone()).collect())
    }

    /// Price, quantity, volume and version of each stock that is listed there.
    pub fn stocks(&self) -> Option<&BTreeMap<String, [i64; 4]>> {
        let server = &self.servers[self.primary?];
        Some(&server.log.at(server.visible).stocks)
    }

    /// A catalog connects to a host.
    pub fn dial(
        &mut self,
        line: &mut Timeline,
        client: Run,
        host: &str,
        made: oneshot::Sender<io::Result<DuplexStream>>,
    ) {
        let server = HOSTS.iter().position(|name| *name == host);
        let server = server.expect("it is one of them");
        self.made += 1;
        let dial = Dial {
            client,
            server,
            made,
        };
        self.dials.insert(self.made, dial);
        let delay = 2 * line.stream_delay(client.node, Node::Database(server));
        line.after(delay, Happening::Database(Event::Dialed(self.made)));
    }

    fn dialed(&mut self, serial: u64, handle: &Handle, outbox: &Outbox<Output>) {
        let dial = self.dials.remove(&serial).expect("it was dialed");
        let server = &self.servers[dial.server];
        if !server.up || server.role == Role::Standby {
            let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
            let _ = dial.made.send(Err(refused)); // it may have given up
            return;
        }
        let (near, far) = duplex(BUFFER_BYTES);
        let (to_client, mut answers) = mpsc::unbounded_channel::<Vec<u8>>();
        let outbox = outbox.clone();
        #[expect(
            clippy::disallowed_methods,
            reason = "there is nobody else to see its end"
        )]
        handle.spawn(async move {
            let (mut reader, mut writer) = split(far);
            let mut buffer = vec![0; 1 << 16];
            loop {
                tokio::select! {
                    biased;
                    answer = answers.recv() => {
                        let Some(answer) = answer else { return };
                        if writer.write_all(&answer).await.is_err() {
                            return;
                        }
                    }
                    read = reader.read(&mut buffer) => {
                        let count = read.unwrap_or_default();
                        let bytes = buffer[..count].to_vec();
                        outbox.push(Output::Sent { connection: serial, bytes });
                        if count == 0 {
                            return;
                        }
                    }
                }
            }
        });
        let connection = Connection {
            client: dial.client,
            server: dial.server,
            incoming: Incoming::default(),
            to_client: Some(to_client),
            is_served: true,
            prepared: BTreeMap::new(),
            transaction: None,
            queue: VecDeque::new(),
            is_busy: false,
            last_up: Time::ZERO,
            last_down: Time::ZERO,
        };
        self.connections.insert(serial, connection);
        let _ = dial.made.send(Ok(near)); // it may have given up
    }

    /// A client has sent something; nothing where it has closed the connection.
    pub fn sent(&mut self, line: &mut Timeline, id: u64, bytes: &[u8]) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let units = match bytes {
            [] => vec![Unit::Terminate],
            bytes => connection.incoming.take(bytes),
        };
        let server = Node::Database(connection.server);
        for unit in units {
            let delay = line.stream_delay(connection.client.node, server);
            let at = (line.now() + delay).max(connection.last_up + MICROSECOND);
            connection.last_up = at;
            let arrived = Event::Arrived {
                connection: id,
                unit,
            };
            line.schedule(at, Happening::Database(arrived));
        }
    }

    /// Something happens.
    pub fn happen(
        &mut self,
        line: &mut Timeline,
        event: Event,
        handle: &Handle,
        outbox: &Outbox<Output>,
    ) {
        match event {
            Event::Dialed(serial) => self.dialed(serial, handle, outbox),
            Event::Arrived { connection, unit } => self.arrived(line, connection, unit),
            Event::Answered { connection, bytes } => {
                let connection = self.connections.get(&connection);
                if let Some(to_client) = connection.and_then(|it| it.to_client.as_ref()) {
                    let _ = to_client.send(bytes); // it may have closed it
                }
            }
            Event::Broken(id) => {
                if let Some(connection) = self.connections.get_mut(&id) {
                    connection.to_client = None;
                }
                self.forget_closed(id);
            }
            Event::Replicated {
                era,
                from,
                to,
                place,
            } => self.replicated(line, era, (from, to), place),
            Event::Confirmed { era, from, place } => {
                let is_confirmed = era == self.era
                    && self.servers[from]
                        .in_doubt
                        .as_ref()
                        .is_some_and(|it| it.place <= place);
                if is_confirmed {
                    self.resolve(line, from, None);
                }
            }
            Event::LockLate { connection, wait } => self.lock_is_late(line, connection, wait),
            Event::Promoted { era, loses } => self.promote(line, era, loses),
            Event::Demoted(server) => self.demote(line, server),
            Event::Up(server) => self.come_up(line, server),
        }
    }

    fn forget_closed(&mut self, id: u64) {
        let is_closed = |it: &Connection| it.to_client.is_none() && !it.is_served;
        if self.connections.get(&id).is_some_and(is_closed) {
            self.connections.remove(&id);
        }
    }

    fn arrived(&mut self, line: &mut Timeline, id: u64, unit: Unit) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        if !connection.is_served {
            return;
        }
        if connection.is_busy {
            connection.queue.push_back(unit);
            return;
        }
        self.serve(line, id, unit);
    }

    /// Goes on with what a connection has queued, unless something is under way.
    fn serve_queued(&mut self, line: &mut Timeline, id: u64) {
        while let Some(connection) = self.connections.get_mut(&id)
            && connection.is_served
            && !connection.is_busy
            && let Some(unit) = connection.queue.pop_front()
        {
            self.serve(line, id, unit);
        }
    }

    fn serve(&mut self, line: &mut Timeline, id: u64, unit: Unit) {
        let connection = self.connections.get_mut(&id).expect("it is served");
        match unit {
            Unit::Startup => self.answer(line, id, Answer::default().welcome()),
            Unit::Terminate => self.leave(line, id),
            Unit::Simple(sql) if sql.starts_with("COMMIT") => self.commit_transaction(line, id),
            Unit::Simple(sql) => {
                if sql.starts_with("BEGIN") || sql.starts_with("START TRANSACTION") {
                    connection.transaction = Some(Transaction::default());
                } else if sql.starts_with("ROLLBACK") {
                    self.roll_back(line, id);
                } else {
                    assert!(
                        sql.trim_start().starts_with("SET"),
                        "no simulated server knows {sql}"
                    );
                }
                let in_transaction = self.connections[&id].transaction.is_some();
                let mut answer = Answer::default();
                answer.complete(0);
                self.answer(line, id, answer.ready(in_transaction));
            }
            Unit::Extended(messages) => self.serve_extended(line, id, messages),
        }
    }

    fn serve_extended(&mut self, line: &mut Timeline, id: u64, messages: Vec<Message>) {
        let connection = self.connections.get_mut(&id).expect("it is served");
        let mut answer = Answer::default();
        let mut current = None;
        let mut given = Vec::new();
        let mut executes = None;
        for message in messages {
            match message {
                Message::Parse { name, sql } => {
                    let sql = Sql::of(&sql);
                    connection.prepared.insert(name, sql);
                    current = Some(sql);
                    answer.parsed();
                }
                Message::Bind { name, values } => {
                    current = connection.prepared.get(&name).copied();
                    given = values;
                    answer.bound();
                }
                Message::Describe => {
                    let sql = current.expect("it was parsed");
                    answer.described(&sql.parameters(), &sql.columns());
                }
                Message::Execute => executes = current,
                Message::Close(name) => {
                    connection.prepared.remove(&name);
                    answer.closed();
                }
            }
        }
        match executes {
            Some(sql) => self.execute(line, id, answer, sql, given),
            None => {
                let in_transaction = connection.transaction.is_some();
                self.answer(line, id, answer.ready(in_transaction));
            }
        }
    }

    fn seen(&self, place: usize) -> Seen {
        let server = &self.servers[place];
        let is_followed = self.primary == Some(place);
        let standbys = self
            .servers
            .iter()
            .filter(|it| it.up && it.role == Role::Standby);
        Seen {
            timeline: server.timeline,
            started_us: server.started.as_micros() as i64,
            standbys: if is_followed {
                standbys.count() as i64
            } else {
                0
            },
            has_no_fence: self.has_no_fence,
        }
    }

    fn execute(
        &mut self,
        line: &mut Timeline,
        id: u64,
        mut answer: Answer,
        sql: Sql,
        values: Vec<Value>,
    ) {
        let connection = self.connections.get_mut(&id).expect("it is served");
        let place = connection.server;
        if !sql.writes() && connection.transaction.is_none() {
            let server = &self.servers[place];
            let rows = server
                .log
                .read(server.visible, sql, &values, self.seen(place));
            rows.iter().for_each(|row| answer.row(row));
            answer.complete(rows.len());
            return self.answer(line, id, answer.ready(false));
        }
        let server = &mut self.servers[place];
        if server.locked_by.is_some_and(|other| other != id) {
            connection.is_busy = true;
            self.made += 1;
            let wait = self.made;
            server.waiting.push_back(Waiting {
                connection: id,
                wait,
                answer,
                sql,
                values,
            });
            let late = Event::LockLate {
                connection: id,
                wait,
            };
            return line.after(LOCK_TIMEOUT, Happening::Database(late));
        }
        self.perform(line, id, answer, sql, &values);
    }

    /// Does what changes something: its connection has the writer's row.
    fn perform(
        &mut self,
        line: &mut Timeline,
        id: u64,
        mut answer: Answer,
        sql: Sql,
        values: &[Value],
    ) {
        let connection = self.connections.get_mut(&id).expect("it is served");
        let place = connection.server;
        let seen = self.seen(place);
        let connection = self.connections.get_mut(&id).expect("it is served");
        let server = &mut self.servers[place];
        let in_transaction = connection.transaction.is_some();
        if !in_transaction && server.next == Some(Fate::LostBefore) {
            server.next = None;
            line.came(Effect::CommitLost);
            return self.break_off(line, id);
        }
        let mut work = match &mut connection.transaction {
            Some(transaction) => transaction.work.take().unwrap_or_else(|| server.log.work()),
            None => server.log.work(),
        };
        let done = work.execute(&server.log, sql, values, seen);
        if let Some(transaction) = &mut connection.transaction {
            server.locked_by = Some(id);
            transaction.is_aborted |= done.is_err();
            transaction.work = Some(work);
            answer_with(&mut answer, done);
            return self.answer(line, id, answer.ready(true));
        }
        let changed = matches!(done, Ok((_, 1..)));
        if matches!(done, Ok((_, 0))) && matches!(sql, Sql::Commit | Sql::Beat) {
            line.came(Effect::WriterFenced);
        }
        answer_with(&mut answer, done);
        if !changed {
            return self.answer(line, id, answer.ready(false));
        }
        self.commit(line, id, work, answer);
    }

    /// A transaction is on the primary's disk. Its client is told once a standby has it.
    fn commit(&mut self, line: &mut Timeline, id: u64, work: tables::Work, answer: Answer) {
        let connection = self.connections.get_mut(&id).expect("it is served");
        connection.is_busy = true;
        let place = connection.server;
        let server = &mut self.servers[place];
        server.log.commit(work);
        let last = server.log.last();
        let fate = server.next.take();
        server.locked_by = Some(id);
        server.in_doubt = Some(InDoubt {
            connection: id,
            place: last,
            answer,
            is_late: fate == Some(Fate::AnsweredLate),
        });
        if self.primary != Some(place) {
            line.came(Effect::CommittedApart);
        }
        match fate {
            Some(Fate::LostAfter) => {
                line.came(Effect::CommitUnanswered);
                self.break_off(line, id);
            }
            Some(Fate::Cancelled) => {
                line.came(Effect::WaitCancelled);
                let warning = "canceling wait for synchronous replication due to user request";
                self.ship(line, place, last);
                return self.resolve(line, place, Some(warning));
            }
            _ => {}
        }
        self.ship(line, place, last);
    }

    fn commit_transaction(&mut self, line: &mut Timeline, id: u64) {
        let connection = self.connections.get_mut(&id).expect("it is served");
        let transaction = connection.transaction.take().unwrap_or_default();
        let mut answer = Answer::default();
        answer.complete(0);
        match transaction.work.filter(|_| !transaction.is_aborted) {
            Some(work) => self.commit(line, id, work, answer),
            None => {
                self.release_lock(line, id);
                self.answer(line, id, answer.ready(false));
            }
        }
    }

    fn roll_back(&mut self, line: &mut Timeline, id: u64) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.transaction = None;
        }
        self.release_lock(line, id);
    }

    /// Sends a commit to the standbys.
    fn ship(&mut self, line: &mut Timeline, from: usize, place: usize) {
        if self.primary != Some(from) {
            return; // nobody follows it
        }
        for to in 0..SERVERS {
            let standby = &self.servers[to];
            if to == from || !standby.up || standby.role != Role::Standby {
                continue;
            }
            let mut delay = line.stream_delay(Node::Database(from), Node::Database(to));
            if line.now() < self.servers[from].slow_until {
                delay += line.between(Duration::from_millis(20), LATE_MAX);
            }
            let replicated = Event::Replicated {
                era: self.era,
                from,
                to,
                place,
            };
            line.after(delay, Happening::Database(replicated));
        }
    }

    fn replicated(
        &mut self,
        line: &mut Timeline,
        era: u64,
        (from, to): (usize, usize),
        place: usize,
    ) {
        let standby = &self.servers[to];
        if era != self.era || !standby.up || standby.role != Role::Standby {
            return;
        }
        let [primary, standby] = self.servers.get_disjoint_mut([from, to]).expect("two");
        standby.log.follow(&primary.log, place);
        standby.visible = standby.log.last();
        let delay = line.stream_delay(Node::Database(to), Node::Database(from));
        let confirmed = Event::Confirmed { era, from, place };
        line.after(delay, Happening::Database(confirmed));
    }

    /// A commit's wait is over: a standby has it, or somebody cancels the wait.
    fn resolve(&mut self, line: &mut Timeline, place: usize, warning: Option<&str>) {
        let server = &mut self.servers[place];
        let Some(done) = server.in_doubt.take() else {
            return;
        };
        server.visible = done.place;
        if warning.is_none() {
            self.acknowledged = self.acknowledged.max(done.place);
        }
        let mut answer = done.answer;
        if let Some(warning) = warning {
            answer.warn(warning); // behind the rows, before the end
        }
        let id = done.connection;
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.is_busy = false;
            if done.is_late {
                line.came(Effect::CommitAnsweredLate);
                let late = line.between(Duration::from_millis(300), Duration::from_secs(6));
                connection.last_down = line.now() + late;
            }
            self.answer(line, id, answer.ready(false));
        }
        self.release_lock(line, id);
        self.serve_queued(line, id);
    }

    /// Whoever waits for the writer's row next has it.
    fn release_lock(&mut self, line: &mut Timeline, id: u64) {
        for place in 0..SERVERS {
            let server = &mut self.servers[place];
            if server.locked_by != Some(id) || server.in_doubt.is_some() {
                continue;
            }
            server.locked_by = None;
            while let Some(server) = self.servers.get_mut(place)
                && server.locked_by.is_none()
                && let Some(next) = server.waiting.pop_front()
            {
                let Some(connection) = self.connections.get_mut(&next.connection) else {
                    continue;
                };
                if !connection.is_served {
                    continue;
                }
                connection.is_busy = false;
                self.perform(line, next.connection, next.answer, next.sql, &next.values);
                self.serve_queued(line, next.connection);
            }
        }
    }

    fn lock_is_late(&mut self, line: &mut Timeline, id: u64, wait: u64) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let waiting = &mut self.servers[connection.server].waiting;
        let Some(place) = waiting.iter().position(|it| it.wait == wait) else {
            return;
        };
        let mut late = waiting.remove(place).expect("it was found");
        connection.is_busy = false;
        let in_transaction = connection.transaction.is_some();
        if let Some(transaction) = &mut connection.transaction {
            transaction.is_aborted = true;
        }
        late.answer.refuse(Refusal {
            severity: "ERROR",
            code: "55P03",
            message: "canceling statement due to lock timeout",
        });
        self.answer(line, id, late.answer.ready(in_transaction));
        self.serve_queued(line, id);
    }

    /// Tells a client something: in order, and as long as its connection lives.
    fn answer(&mut self, line: &mut Timeline, id: u64, answer: Answer) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let server = Node::Database(connection.server);
        let delay = line.stream_delay(server, connection.client.node);
        let at = (line.now() + delay).max(connection.last_down + MICROSECOND);
        connection.last_down = at;
        let answered = Event::Answered {
            connection: id,
            bytes: answer.0,
        };
        line.schedule(at, Happening::Database(answered));
    }

    /// A connection breaks at both ends.
    fn break_off(&mut self, line: &mut Timeline, id: u64) {
        let delay = line.between(MICROSECOND, Duration::from_millis(2));
        line.after(delay, Happening::Database(Event::Broken(id)));
        self.leave(line, id);
    }

    /// The server's end of a connection is closed. A commit of it that is under way is made.
    fn leave(&mut self, line: &mut Timeline, id: u64) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        if !std::mem::replace(&mut connection.is_served, false) {
            return;
        }
        connection.queue.clear();
        let place = connection.server;
        self.servers[place].waiting.retain(|it| it.connection != id);
        self.roll_back(line, id);
        // What was answered on it is read to its end, unless it broke.
        let at = self.connections.get(&id).map(|it| it.last_down);
        if let Some(at) = at {
            line.schedule(at + MICROSECOND, Happening::Database(Event::Broken(id)));
        }
        self.forget_closed(id);
    }
}

fn answer_with(answer: &mut Answer, done: Result<(tables::Rows, usize), Refusal>) {
    match done {
        Ok((rows, changed)) => {
            rows.iter().for_each(|row| answer.row(row));
            answer.complete(changed.max(rows.len()));
        }
        Err(refusal) => answer.refuse(refusal),
    }
}
