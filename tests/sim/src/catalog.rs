//! The catalog's process: its shipped core, shared, committer and store. `starting`: what it does before it serves.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use catalog::error::RequestError;
use catalog::shared::{EVENTS_MAX, Event, Shared};
use catalog::store::sqlite::{SqliteJournal, SqliteStore};
use catalog::writer::group::{Command, Committer, GROUP_PROPOSED_MAX, Group, Sender, gather};
use catalog::writer::healing::Healing;
use catalog_core::self_healing::Found;
use catalog_core::{
    HEALING_WAIT_MAX, InSyncRefused, Leadership, Leases, SelfHealing, TradeResult, Visibility,
};
use domain::time::BootTime;
use domain::{CatalogRun, ChainHash, Identity, JournalId, ReplicaId, Row, RowNumber, SessionId};
use rpc::clients::Client;
use rpc::release::BazaarProtocol;
use simulated_disk::Disk;
use storage::location::Vfs;
use storage::{DataDir, StorageError};
use tokio::sync::{mpsc, oneshot};

use crate::effects::Effect;
use crate::messages::{
    Caller, Failure, FromCatalog, FromGateway, Node, Request, Response, Run, Said, Told,
};
use crate::oracle::Oracle;
use crate::plan::Plan;
use crate::timeline::{Happening, Time, Timeline};

mod starting;

use starting::Starting;

/// There is one, and nothing of it depends on chance.
pub const JOURNAL: JournalId = JournalId::new(*b"simulated bazaar");

/// How often it looks whether it has waited long enough.
const HEALING_LOOK: Duration = Duration::from_millis(100);

/// The catalog, while it runs.
pub struct Catalog {
    run: Run,
    disk: Disk,
    committer: Committer,
    shared: Arc<Shared>,
    journal: SqliteJournal,
    identity: Identity,
    /// As gateways count it.
    lease: Duration,
    /// How long the catalog counts a lease.
    lease_max: Duration,
    /// Until it serves.
    starting: Option<Box<Starting>>,
    /// Who reported to it, or showed rows.
    heard: BTreeSet<ReplicaId>,
    /// It had lost rows that it has now.
    has_put_back: bool,
    /// Somebody showed that the journal lacks a row.
    lacks_row: bool,
    queue: VecDeque<Command>,
    committing: Option<Group>,
    waiting: Vec<Waiting>,
    /// Who is to be told of rows before they are committed.
    proposing: Vec<(Caller, oneshot::Receiver<Vec<Row>>)>,
    /// What came before sessions of the run before were certainly over, or all was put back.
    unsettled: Vec<(Caller, Request)>,
    /// Streams whose sessions are to be opened then.
    early: Vec<u64>,
    opening: Vec<Opening>,
    sessions: BTreeMap<u64, Session>,
}

/// Who waits for the committer's answer.
enum Waiting {
    Trade(
        Caller,
        oneshot::Receiver<Result<Vec<TradeResult>, RequestError>>,
    ),
    Term(Caller, oneshot::Receiver<Result<Leadership, RequestError>>),
}

/// A session that begins once it is noted that there are some.
struct Opening {
    stream: u64,
    received: BootTime,
    noted: oneshot::Receiver<Result<(), RequestError>>,
}

struct Session {
    id: SessionId,
    events: mpsc::Receiver<Event>,
    heard: BootTime,
}

/// The process ended: its disk failed it, or died.
#[derive(Debug)]
pub struct Ended;

/// Why a catalog did not start.
#[derive(Debug)]
pub enum NotStarted {
    Storage(StorageError),
    /// There is none on its disk, and none is to be begun.
    NoJournal,
}

impl From<StorageError> for NotStarted {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

/// How a catalog is started.
#[derive(Debug, Clone)]
pub struct Start {
    /// It begins a journal where there is none.
    pub new: bool,
    /// Its disk may have less than was committed.
    pub restored: bool,
    pub lease: Duration,
    /// Replicas that have nothing to tell, and are not waited for.
    pub silent: BTreeSet<ReplicaId>,
}

impl Catalog {
    /// Starts on what the disk holds.
    pub fn start(
        line: &mut Timeline,
        oracle: &mut Oracle,
        plan: &Plan,
        disk: &Disk,
        how: Start,
    ) -> Result<Self, NotStarted> {
        let run = line.run(Node::Catalog);
        let mut store = open(disk, plan.vfs())?;
        if store.is_new() {
            if !how.new {
                return Err(NotStarted::NoJournal);
            }
            store.begin(JOURNAL, &plan.listings(), domain::Protocol::NEWEST)?;
        }
        let journal = store.journal()?;
        let mut loaded = store.load()?;
        oracle.catalog_opened(&loaded.state, how.restored, || {
            let rows = journal.rows(RowNumber(0), usize::MAX >> 1);
            rows.expect("it was just opened")
        });
        loaded.state = loaded.state.under(plan.catalog_rules());
        let leases = Leases::new(how.lease, catalog::config::lease_margin(how.lease));
        let leases = leases.under(plan.catalog_rules());
        let lease_max = leases.lease_max();
        let unsettled = loaded.sessions_out.unwrap_or_default();
        let identity = Identity {
            journal: loaded.journal,
            listing: loaded.listing,
            lease_horizon: lease_max.max(unsettled),
        };
        let stocks = loaded.state.stocks().cloned();
        let now = line.clock(Node::Catalog);
        let visibility = Visibility::new(stocks, leases, unsettled, now);
        let leadership = loaded.state.leadership();
        let found = Found {
            journal: leadership.end,
            term: leadership.term.clone(),
            may_lack_rows: loaded.may_lack_rows,
            is_unbroken: loaded.is_unbroken,
        };
        let healing = SelfHealing::new(found, now + HEALING_WAIT_MAX).under(plan.catalog_rules());
        let starting = Starting::new(Healing::of(healing, how.silent));
        let shared = Arc::new(Shared::new(
            visibility,
            leadership,
            how.lease,
            BazaarProtocol::default(),
        ));
        let committer = Committer::new(Box::new(store), loaded, Arc::clone(&shared));
        let mut catalog = Self {
            run,
            disk: disk.clone(),
            committer,
            shared,
            journal,
            identity,
            lease: how.lease,
            lease_max,
            starting: Some(Box::new(starting)),
            heard: BTreeSet::new(),
            has_put_back: false,
            lacks_row: false,
            queue: VecDeque::new(),
            committing: None,
            waiting: Vec::new(),
            proposing: Vec::new(),
            unsettled: Vec::new(),
            early: Vec::new(),
            opening: Vec::new(),
            sessions: BTreeMap::new(),
        };
        catalog.heal(line);
        Ok(catalog)
    }

    fn commit(&mut self, line: &mut Timeline, group: Group) {
        self.committing = Some(group);
        let latency = line.disk_latency(Node::Catalog);
        line.after(latency, Happening::DiskDone(self.run));
    }

    /// Whether it was shown a row that its journal lacks: it stops.
    pub fn lacks_row(&self) -> bool {
        self.lacks_row
    }

    /// Whether it waits for no ledger any more.
    pub fn is_healed(&self) -> bool {
        self.starting.is_none()
    }

    /// Whether a replica has reported.
    pub fn has_heard(&self, replica: ReplicaId) -> bool {
        self.heard.contains(&replica)
    }

    /// Whether it had lost rows that it has now.
    pub fn has_put_back(&self) -> bool {
        self.has_put_back
    }

    /// Whether stocks are read and traded.
    pub fn is_settled(&self, line: &Timeline) -> bool {
        self.is_healed() && self.shared.serving_from() <= line.clock(Node::Catalog)
    }

    fn catalog_run(&self) -> CatalogRun {
        CatalogRun::new(self.run.number + 1).expect("not 0")
    }

    /// How many orders it has.
    pub fn rows(&self) -> RowNumber {
        self.shared.leadership().end.rows
    }

    fn say(&self, leadership: Leadership) -> Said {
        Said {
            leadership,
            identity: self.identity,
            healed: self.is_healed(),
            run: self.catalog_run(),
        }
    }

    /// Whether nothing is on its way to the disk.
    pub fn is_idle(&self) -> bool {
        self.committing.is_none() && self.queue.is_empty()
    }

    /// Stops properly: what it held may be read and traded at once after the next start, where
    /// no gateway can be serving it.
    pub fn stop(mut self, line: &Timeline) {
        self.shared.close();
        ready(self.committer.note_clean_end(line.clock(Node::Catalog)));
    }

    /// When it has something to do by itself.
    pub fn wake(&self, line: &Timeline) -> Option<Time> {
        let settled = self.is_healed().then(|| self.serves_first_at()).flatten();
        let early = (self.is_healed() && !self.early.is_empty()).then(BootTime::default);
        let now = line.clock(Node::Catalog);
        let heals = self.starting.as_ref().filter(|_| self.committing.is_none());
        let heals = heals.map(|_| now + HEALING_LOOK);
        let settled = settled.into_iter().chain(early).chain(heals);
        let silent = self
            .sessions
            .values()
            .map(|session| session.heard + self.lease_max);
        let times = silent.chain(settled).chain(self.shared.next_expiry());
        times.min().map(|at| line.when(Node::Catalog, at))
    }

    /// When the next of those who wait is served.
    fn serves_first_at(&self) -> Option<BootTime> {
        let at = |(_, request): &(Caller, Request)| self.waits_until(request).unwrap_or_default();
        self.unsettled.iter().map(at).min()
    }

    /// Until when a request is not answered, where that is so of its kind. Nothing but what heals it is before it is
    /// healed.
    fn waits_until(&self, request: &Request) -> Option<BootTime> {
        match request {
            Request::ReadStock { .. } | Request::Trade { .. } => Some(self.shared.serving_from()),
            _ => None,
        }
    }

    fn waits(&self, request: &Request, now: BootTime) -> bool {
        let waits = match request {
            Request::GetLeadership => false,
            // As with the shipped writer, which takes nothing in while it commits: a report that comes while the first
            // epoch is being made durable comes too late.
            Request::ReportLedger { .. } | Request::PutBack { .. } => self.committing.is_some(),
            _ => true,
        };
        !self.is_healed() && waits || self.waits_until(request).is_some_and(|until| now < until)
    }

    pub fn woken(&mut self, line: &mut Timeline) {
        let now = line.clock(Node::Catalog);
        self.shared.expire(now);
        let silent: Vec<u64> = self
            .sessions
            .iter()
            .filter(|(_, session)| session.heard + self.lease_max <= now)
            .map(|(&stream, _)| stream)
            .collect();
        for stream in silent {
            self.stream_ended(line, stream);
        }
        self.heal(line);
        if self.is_healed() {
            for stream in std::mem::take(&mut self.early) {
                let open = FromGateway::Open { journal: JOURNAL };
                self.streamed(line, stream, Some(open));
            }
        }
        for (caller, request) in std::mem::take(&mut self.unsettled) {
            self.request(line, caller, request);
        }
        self.answer(line);
    }

    /// A call reaches it.
    pub fn request(&mut self, line: &mut Timeline, caller: Caller, request: Request) {
        let now = line.clock(Node::Catalog);
        if self.waits(&request, now) {
            self.unsettled.push((caller, request));
            return;
        }
        match request {
            Request::ReadStock { name, session } => {
                let told = match self.shared.read(&name, session, now) {
                    Some(seen) => Ok(Response::Stock {
                        stock: seen.stock,
                        cacheable: seen.cacheable,
                    }),
                    None => Ok(Response::NoSuchStock),
                };
                line.reply(Node::Catalog, caller, told);
            }
            Request::ReadOrder(order) => {
                let found = self.journal.find_order(order);
                let told = found.map(|row| Response::Rows(row.into_iter().collect()));
                let told = told.map_err(|_| Failure::Unavailable);
                line.reply(Node::Catalog, caller, told);
            }
            Request::GetLeadership => {
                let said = self.say(self.shared.leadership());
                line.reply(Node::Catalog, caller, Ok(Response::Leadership(said)));
            }
            Request::ReportLedger { run, report } => {
                let told = match run == self.catalog_run() {
                    true => self.reported(report, now),
                    false => Err(Failure::Fenced),
                };
                line.reply(Node::Catalog, caller, told);
                self.heal(line);
            }
            Request::PutBack { run, replica, rows } => {
                let put_back = match run == self.catalog_run() {
                    true => self.put_back((caller, replica), rows, now),
                    false => Err(Failure::Fenced),
                };
                match put_back {
                    Ok(batch) => {
                        let group = self.committer.begin_alone(batch);
                        self.commit(line, group);
                    }
                    Err(failure) => line.reply(Node::Catalog, caller, Err(failure)),
                }
            }
            Request::ReportMissing { replica, row } => {
                let end = self.shared.leadership().end;
                let told = if !self.shared.may_have_more(replica) {
                    Err(Failure::Fenced)
                } else if row.number != end.rows || !row.follows(&end.chain) {
                    Err(Failure::NotMissing)
                } else {
                    self.lacks_row = true;
                    Ok(Response::Reported)
                };
                line.reply(Node::Catalog, caller, told);
            }
            Request::ReadRows {
                from,
                previous,
                rows_max,
            } => {
                let told = self
                    .compare(from, previous)
                    .and_then(|()| self.read(from, rows_max));
                line.reply(Node::Catalog, caller, told);
            }
            Request::Trade { epoch, orders } => {
                let (reply, answer) = oneshot::channel();
                let (proposed, rows) = oneshot::channel();
                self.waiting.push(Waiting::Trade(caller, answer));
                self.proposing.push((caller, rows));
                self.queue.push_back(Command::Trade {
                    traced: Vec::new(),
                    sender: in_epoch(epoch),
                    orders,
                    proposed,
                    reply,
                });
            }
            Request::Elect {
                expected,
                candidate,
            } => {
                let (reply, answer) = oneshot::channel();
                self.waiting.push(Waiting::Term(caller, answer));
                self.queue.push_back(Command::Elect {
                    expected,
                    candidate,
                    reply,
                });
            }
            Request::SetInSync {
                epoch,
                change,
                in_sync,
            } => {
                let (reply, answer) = oneshot::channel();
                self.waiting.push(Waiting::Term(caller, answer));
                self.queue.push_back(Command::SetInSync {
                    sender: in_epoch(epoch),
                    change,
                    in_sync,
                    reply,
                });
            }
            other => unreachable!("the catalog is not asked for {other:?}"),
        }
        self.begin(line);
    }

    /// The chain hash that the journal has before a number; none where it is shorter.
    fn chain_before(&self, number: RowNumber) -> Result<Option<ChainHash>, Failure> {
        if number > self.shared.leadership().end.rows {
            return Ok(None);
        }
        let before = number.0.checked_sub(1).map(RowNumber);
        let rows = before.map_or(Ok(Vec::new()), |before| self.journal.rows(before, 1));
        let rows = rows.map_err(|_| Failure::Unavailable)?;
        Ok(Some(rows.first().map_or(ChainHash::EMPTY, |row| row.chain)))
    }

    /// Whether the journal has the caller's row before a number.
    fn compare(&self, from: RowNumber, previous: Option<ChainHash>) -> Result<(), Failure> {
        let Some(previous) = previous else {
            return Ok(());
        };
        let found = self.chain_before(from)?.ok_or(Failure::Beyond)?;
        (found == previous).then_some(()).ok_or(Failure::Differs)
    }

    fn read(&self, from: RowNumber, rows_max: usize) -> Told {
        let end = self.shared.leadership().end.rows;
        let count = end.0.saturating_sub(from.0).min(rows_max as u64);
        let rows = self.journal.rows(from, count as usize);
        let rows = rows.map_err(|_| Failure::Unavailable)?;
        assert_eq!(
            rows.len() as u64,
            count,
            "the journal is as long as it says"
        );
        Ok(Response::Rows(rows))
    }

    /// What a gateway sends on its session's stream; `None` for its end.
    pub fn streamed(&mut self, line: &mut Timeline, stream: u64, what: Option<FromGateway>) {
        let now = line.clock(Node::Catalog);
        if let Some(session) = self.sessions.get_mut(&stream) {
            session.heard = now;
        }
        let session = self.sessions.get(&stream).map(|session| session.id);
        if matches!(what, Some(FromGateway::Open { .. })) && !self.is_healed() {
            self.early.push(stream);
            return;
        }
        let handled = match (what, session) {
            (Some(FromGateway::Open { .. }), None) => {
                let (reply, noted) = oneshot::channel();
                self.opening.push(Opening {
                    stream,
                    received: now,
                    noted,
                });
                let lease_max = self.lease_max;
                self.queue
                    .push_back(Command::LendSessions { lease_max, reply });
                self.begin(line);
                return;
            }
            (Some(FromGateway::Renew(nonce)), Some(id)) => self
                .shared
                .renew(id, nonce, now)
                .map_err(RequestError::from),
            (Some(FromGateway::Acknowledge(round)), Some(id)) => self
                .shared
                .acknowledge(id, round, now)
                .map_err(RequestError::from),
            (Some(FromGateway::Release), Some(id)) => {
                self.shared.release(id, now);
                self.sessions.remove(&stream);
                line.break_stream(stream, Duration::ZERO);
                Ok(())
            }
            (None, _) => {
                self.stream_ended(line, stream);
                Ok(())
            }
            (Some(_), _) => Ok(()),
        };
        if let (Err(error), Some(id)) = (handled, session) {
            self.shared.fail(id, error);
        }
        self.answer(line);
    }

    fn stream_ended(&mut self, line: &mut Timeline, stream: u64) {
        self.opening.retain(|opening| opening.stream != stream);
        self.early.retain(|early| *early != stream);
        if let Some(session) = self.sessions.remove(&stream) {
            self.shared.disconnect(session.id);
        }
        line.break_stream(stream, Duration::ZERO);
    }

    /// The next group goes to the disk, where there is one and no other is on its way.
    fn begin(&mut self, line: &mut Timeline) {
        if self.committing.is_none()
            && self.is_healed()
            && let Some(first) = self.queue.pop_front()
        {
            let group = gather(first, || self.queue.pop_front());
            let group = ready(self.committer.begin(group));
            if group.batch().rows.len() > GROUP_PROPOSED_MAX {
                line.came(Effect::LargeGroup);
            }
            self.commit(line, group);
            self.proposing
                .retain_mut(|(caller, rows)| match rows.try_recv() {
                    Ok(rows) => {
                        line.propose(Node::Catalog, *caller, rows);
                        false
                    }
                    Err(oneshot::error::TryRecvError::Empty) => true,
                    Err(oneshot::error::TryRecvError::Closed) => false,
                });
        }
        self.answer(line);
    }

    /// The disk gets round to the group.
    pub fn disk_done(&mut self, line: &mut Timeline, oracle: &mut Oracle) -> Result<(), Ended> {
        let Some(group) = self.committing.take() else {
            return Ok(());
        };
        let committed = ready(self.committer.commit(&group));
        let ends = |error: &StorageError| error.ends_process();
        if self.disk.is_dead() || committed.as_ref().is_err_and(ends) {
            return Err(Ended);
        }
        let batch = group.batch().clone();
        let durable = committed.is_ok();
        self.committer
            .finish(group, committed, line.clock(Node::Catalog));
        if durable {
            let state = self.committer.state();
            oracle.catalog_committed(&batch.rows, &state.leadership());
            oracle.check_state(state);
        }
        self.healed(line, &batch, durable);
        self.take_in(line);
        self.open_sessions(line);
        self.begin(line);
        Ok(())
    }

    /// Takes in what replicas said during the commit, before anything else.
    fn take_in(&mut self, line: &mut Timeline) {
        let heals = |(_, request): &mut (Caller, Request)| {
            matches!(
                request,
                Request::ReportLedger { .. } | Request::PutBack { .. }
            )
        };
        let said: Vec<_> = self.unsettled.extract_if(.., heals).collect();
        for (caller, request) in said {
            self.request(line, caller, request);
        }
    }

    /// Sessions whose beginning is noted by now.
    fn open_sessions(&mut self, line: &mut Timeline) {
        let now = line.clock(Node::Catalog);
        for mut opening in std::mem::take(&mut self.opening) {
            let (stream, received) = (opening.stream, opening.received);
            match opening.noted.try_recv() {
                Err(oneshot::error::TryRecvError::Empty) => self.opening.push(opening),
                Ok(Ok(())) => {
                    let id = SessionId::new(line.random.u64(..) | 1).expect("not 0");
                    let (sender, events) = mpsc::channel(EVENTS_MAX);
                    if self
                        .shared
                        .open(id, Client::Local(id.get()), sender, received, now)
                        .is_ok()
                    {
                        let heard = now;
                        let session = Session { id, events, heard };
                        self.sessions.insert(stream, session);
                    } else {
                        line.break_stream(stream, Duration::ZERO);
                    }
                }
                _ => line.break_stream(stream, Duration::ZERO),
            }
        }
    }

    /// Sends what is ready to be sent.
    fn answer(&mut self, line: &mut Timeline) {
        for waiting in std::mem::take(&mut self.waiting) {
            let (caller, told) = match waiting {
                Waiting::Trade(caller, mut answer) => match answer.try_recv() {
                    Err(oneshot::error::TryRecvError::Empty) => {
                        self.waiting.push(Waiting::Trade(caller, answer));
                        continue;
                    }
                    answer => (caller, told(answer, Response::Traded)),
                },
                Waiting::Term(caller, mut answer) => match answer.try_recv() {
                    Err(oneshot::error::TryRecvError::Empty) => {
                        self.waiting.push(Waiting::Term(caller, answer));
                        continue;
                    }
                    answer => (
                        caller,
                        told(answer, |leadership| {
                            Response::Leadership(self.say(leadership))
                        }),
                    ),
                },
            };
            line.reply(Node::Catalog, caller, told);
        }
        let mut over = Vec::new();
        for (&stream, session) in &mut self.sessions {
            loop {
                match session.events.try_recv() {
                    Ok(Event::Opened(session)) => {
                        let (lease, journal) = (self.lease, self.identity.journal);
                        let opened = FromCatalog::Opened {
                            session,
                            lease,
                            journal,
                        };
                        line.send_down(stream, opened);
                    }
                    Ok(Event::Renewed(nonce)) => {
                        line.send_down(stream, FromCatalog::Renewed(nonce));
                    }
                    Ok(Event::Invalidation(invalidation)) => {
                        line.send_down(stream, FromCatalog::Invalidation(invalidation));
                    }
                    // Nobody is told to stop here: the catalog crashes.
                    Ok(Event::Closing | Event::Over(_))
                    | Err(mpsc::error::TryRecvError::Disconnected) => {
                        over.push(stream);
                        break;
                    }
                    Err(mpsc::error::TryRecvError::Empty) => break,
                }
            }
        }
        for stream in over {
            self.sessions.remove(&stream);
            line.break_stream(stream, Duration::from_micros(100));
        }
    }
}

/// Opens the catalog's database on a disk.
pub fn open(disk: &Disk, vfs: &'static Vfs) -> Result<SqliteStore, StorageError> {
    SqliteStore::open_in(DataDir::simulated(&disk.path(), vfs))
}

/// What a future comes to that waits for nothing: disks are simulated, and block.
fn ready<T>(future: impl Future<Output = T>) -> T {
    let mut context = Context::from_waker(Waker::noop());
    match pin!(future).poll(&mut context) {
        Poll::Ready(output) => output,
        Poll::Pending => unreachable!("a store on a simulated disk is ready at once"),
    }
}

type Answer<T> = Result<Result<T, RequestError>, oneshot::error::TryRecvError>;

fn told<T>(answer: Answer<T>, response: impl FnOnce(T) -> Response) -> Told {
    match answer {
        Ok(Ok(answer)) => Ok(response(answer)),
        Ok(Err(RequestError::Stale(_) | RequestError::InSync(InSyncRefused::Stale(_)))) => {
            Err(Failure::Fenced)
        }
        _ => Err(Failure::Unavailable),
    }
}

/// What a store holds.
pub fn load(store: &mut SqliteStore) -> catalog_core::CatalogState {
    store.load().expect("the disk is well").state
}

/// Of a replica that need not prove which one it is.
fn in_epoch(epoch: domain::Epoch) -> Sender {
    Sender {
        epoch,
        replica: None,
    }
}
