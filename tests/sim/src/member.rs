//! One of several catalogs over a database: its process, in which all is shipped from the writer and what readers and
//! sessions share down to the client's side of PostgreSQL's protocol.
//!
//! Its tasks run on the [clockwork](crate::clockwork), by the clock of its machine. What they want of the world they say
//! in the outbox.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;

use catalog::error::RequestError;
use catalog::shared::{EVENTS_MAX, Event, Shared};
use catalog::store::postgres::url::Dial;
use catalog::store::postgres::{COMMIT_TIME_MAX, NewJournal, OpenOptions, PostgresStore, StoreUrl};
use catalog::store::{Journal, Loaded, Store};
use catalog::writer::healing::{Healing, Told as Heard};
use catalog::writer::{Beginning, Writer, prepare};
use catalog_core::self_healing::Found;
use catalog_core::{
    Batch, CatalogState, HEALING_WAIT_MAX, InSyncRefused, Leases, PriorOutcome, SelfHealing,
    Visibility, WRITER_LEASE, WriterLease,
};
use domain::time::BootTime;
use domain::{
    CatalogRun, ChainHash, IdempotencyKey, Identity, Protocol, ReplicaId, Row, RowNumber, SessionId,
};
use rpc::clients::Client;
use rpc::release::BazaarProtocol;
use storage::StorageError;
use tokio::io::DuplexStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tonic::async_trait;

use crate::catalog::JOURNAL;
use crate::clockwork::{Clock, Clockwork, Outbox};
use crate::messages::{
    Caller, Failure, FromCatalog, FromGateway, Request, Response, Run, Said, Told,
};
use crate::plan::{Plan, Without};
use crate::postgres::HOSTS;

/// Until a stop goes on though gateways hold something: as `catalog::server` has it.
const RECALL_TIME_MAX: Duration = Duration::from_millis(600);

/// What catalogs, and the connections to servers, have the world do.
pub enum Output {
    Dial {
        client: Run,
        host: String,
        made: oneshot::Sender<io::Result<DuplexStream>>,
    },
    Sent {
        connection: u64,
        bytes: Vec<u8>,
    },
    /// A catalog has loaded what is committed, and is told for whom it need not wait.
    Opened {
        run: Run,
        state: Box<CatalogState>,
        rows: Vec<Row>,
        /// It knows that the database came back, so that it may lack rows.
        may_lack_rows: bool,
        silent: oneshot::Sender<BTreeSet<ReplicaId>>,
    },
    Active {
        run: Run,
        serving: Serving,
    },
    Committed {
        run: Run,
        batch: Batch,
    },
    Proposed {
        run: Run,
        caller: Caller,
        rows: Vec<Row>,
    },
    Reply {
        run: Run,
        caller: Caller,
        told: Told,
        /// It was, before this was said.
        is_healed: bool,
        /// Another one may have taken over, so that it is no answer.
        is_uncertain: bool,
    },
    /// A session's stream carries something, or ends.
    Session {
        run: Run,
        stream: u64,
        what: Option<FromCatalog>,
        is_healed: bool,
    },
    /// It was shown a row that the journal lacks.
    LacksRow(Run),
    /// Its process ends.
    Ended {
        run: Run,
        why: String,
        is_released: bool,
    },
}

/// What an active catalog answers from.
#[derive(Clone)]
pub struct Serving {
    pub shared: Arc<Shared>,
    writer: Writer,
    journal: Arc<dyn Journal>,
    identity: Identity,
    run: CatalogRun,
    /// As gateways count it.
    lease: Duration,
}

/// A catalog, while its process runs.
pub struct Member {
    pub run: Run,
    clock: Clock,
    tasks: JoinSet<()>,
    outbox: Outbox<Output>,
    /// Once it is active.
    pub serving: Option<Serving>,
    /// It has loaded what is committed.
    pub has_opened: bool,
    /// How often the database had lost rows by then.
    pub losses: u64,
    /// It knew that rows may be missing, and nobody was given up.
    pub knows_loss: bool,
    pub is_judged: bool,
    pub is_stopping: bool,
    /// Replicas that reported to it, or showed rows.
    pub heard: BTreeSet<ReplicaId>,
    sessions: BTreeMap<u64, SessionId>,
    /// What came before it was healed. In the order of its coming, which those who wait for that together do not keep.
    early: Vec<Early>,
}

enum Early {
    Call(Caller, Request),
    Session(u64, SessionId),
}

impl Member {
    /// Starts one that stands by.
    pub fn start(works: &Clockwork<Output>, clock: Clock, plan: &Plan, run: Run) -> Self {
        let outbox = works.outbox.clone();
        let mut member = Self {
            run,
            clock,
            tasks: JoinSet::new(),
            outbox: outbox.clone(),
            serving: None,
            has_opened: false,
            losses: 0,
            knows_loss: false,
            is_judged: false,
            is_stopping: false,
            heard: BTreeSet::new(),
            sessions: BTreeMap::new(),
            early: Vec::new(),
        };
        let plan = *plan;
        member.spawn(works, async move {
            let ended = live(&outbox, &plan, run).await;
            outbox.push(Output::Ended {
                run,
                is_released: ended.is_ok(),
                why: ended.map_or_else(|why| why, |()| "it was told to stop".into()),
            });
        });
        member
    }

    fn spawn(
        &mut self,
        works: &Clockwork<Output>,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        self.check();
        self.tasks.spawn_on(self.clock.run(work), works.handle());
    }

    /// A panic of what it does is one of the simulation.
    pub fn check(&mut self) {
        while let Some(ended) = self.tasks.try_join_next() {
            if let Err(error) = ended
                && error.is_panic()
            {
                resume_unwind(error.into_panic());
            }
        }
    }

    pub fn pause(&self, until: Duration) {
        self.clock.pause(until);
    }

    pub fn is_healed(&self) -> bool {
        self.serving
            .as_ref()
            .is_some_and(|it| it.shared.is_healed())
    }

    /// Whether the database had lost something that it put back.
    pub fn has_put_back(&self) -> bool {
        self.serving.as_ref().is_some_and(|it| it.shared.had_lost())
    }

    /// How many orders it has.
    pub fn rows(&self) -> RowNumber {
        let serving = self.serving.as_ref();
        serving.map_or(RowNumber(0), |it| it.shared.leadership().end.rows)
    }

    /// Whether it believes that nobody else can have taken over.
    pub fn may_answer(&self, now: BootTime) -> bool {
        let serving = self.serving.as_ref();
        serving.is_some_and(|it| it.shared.check_answer(now).is_ok())
    }

    /// It has its parts: sessions expire.
    pub fn activate(&mut self, works: &Clockwork<Output>, serving: Serving) {
        let shared = Arc::clone(&serving.shared);
        self.serving = Some(serving);
        self.spawn(works, async move { shared.expire_sessions().await });
    }

    /// It is told to stop, and serves until nobody holds anything. Returns whether it has anything to let go of.
    pub fn stop(&mut self, works: &Clockwork<Output>) -> bool {
        let Some(serving) = self.serving.clone() else {
            return false;
        };
        self.is_stopping = true;
        self.spawn(works, async move {
            let Serving { shared, writer, .. } = serving;
            let _ = tokio::time::timeout(RECALL_TIME_MAX, shared.recall()).await; // or for its leases
            shared.close();
            writer.stop().await;
        });
        true
    }

    /// A call reaches it.
    pub fn request(&mut self, works: &Clockwork<Output>, caller: Caller, request: Request) {
        let (outbox, run) = (self.outbox.clone(), self.run);
        let Some(serving) = self.serving.clone() else {
            return outbox.push(Output::Reply {
                run,
                caller,
                told: Err(Failure::Unavailable), // another one is active, or none
                is_healed: false,
                is_uncertain: false,
            });
        };
        match &request {
            Request::ReportLedger { report, .. } => drop(self.heard.insert(report.replica)),
            Request::PutBack { replica, .. } => drop(self.heard.insert(*replica)),
            _ => {}
        }
        let heals = matches!(
            request,
            Request::GetLeadership | Request::ReportLedger { .. } | Request::PutBack { .. }
        );
        if !heals && !self.is_healed() {
            return self.early.push(Early::Call(caller, request));
        }
        self.spawn(works, async move {
            let answered = serving.answer(&outbox, (run, caller), request).await;
            outbox.push(Output::Reply {
                run,
                caller,
                is_uncertain: matches!(answered, Err(RequestError::Uncertain)),
                told: answered.map_err(failure),
                is_healed: serving.shared.is_healed(),
            });
        });
    }

    /// Answers what came before it was healed, once it is.
    pub fn let_in(&mut self, works: &Clockwork<Output>) {
        if !self.is_healed() {
            return;
        }
        for early in std::mem::take(&mut self.early) {
            match early {
                Early::Call(caller, request) => self.request(works, caller, request),
                Early::Session(stream, id) => {
                    let (outbox, run) = (self.outbox.clone(), self.run);
                    let serving = self.serving.clone().expect("it is healed");
                    self.spawn(works, async move {
                        serving.serve_session(&outbox, run, (stream, id)).await;
                    });
                }
            }
        }
    }

    /// What a gateway sends on its session's stream; `None` for its end.
    pub fn streamed(
        &mut self,
        works: &Clockwork<Output>,
        stream: u64,
        what: Option<FromGateway>,
        now: BootTime,
        random: u64,
    ) {
        let (outbox, run) = (self.outbox.clone(), self.run);
        let Some(serving) = self.serving.clone() else {
            return outbox.push(Output::Session {
                run,
                stream,
                what: None,
                is_healed: false,
            });
        };
        let shared = Arc::clone(&serving.shared);
        let session = self.sessions.get(&stream).copied();
        let handled = match (what, session) {
            (Some(FromGateway::Open { .. }), None) => {
                let id = SessionId::new(random | 1).expect("not 0");
                self.sessions.insert(stream, id);
                self.early.push(Early::Session(stream, id));
                self.let_in(works);
                Ok(())
            }
            (Some(FromGateway::Renew(nonce)), Some(id)) => {
                shared.renew(id, nonce, now).map_err(RequestError::from)
            }
            (Some(FromGateway::Acknowledge(round)), Some(id)) => shared
                .acknowledge(id, round, now)
                .map_err(RequestError::from),
            (Some(FromGateway::Release), Some(id)) => {
                self.sessions.remove(&stream);
                shared.release(id, now);
                Ok(())
            }
            (None, Some(id)) => {
                self.sessions.remove(&stream);
                shared.disconnect(id);
                Ok(())
            }
            _ => Ok(()),
        };
        if let (Err(error), Some(id)) = (handled, session) {
            shared.fail(id, error);
        }
    }
}

/// A catalog's life: it stands by, takes over, serves, until it is told to stop.
async fn live(outbox: &Outbox<Output>, plan: &Plan, run: Run) -> Result<(), String> {
    let says = |error: StorageError| error.to_string();
    let active = watch::Sender::default();
    let opened = PostgresStore::open(options(outbox, plan, run), &active).await;
    let mut store = opened.map_err(|error| error.to_string())?;
    let mut loaded = store.load().await.map_err(says)?;
    let journal: Arc<dyn Journal> = Arc::new(store.journal());
    let rows = journal.rows(RowNumber(0), usize::MAX >> 1).await;
    let (silent, told) = oneshot::channel();
    outbox.push(Output::Opened {
        run,
        state: Box::new(loaded.state.clone()),
        rows: rows.map_err(says)?,
        may_lack_rows: loaded.may_lack_rows,
        silent,
    });
    let silent = told.await.map_err(|_| "it is gone")?;
    let rules = plan.catalog_rules();
    loaded.state = loaded.state.under(rules);
    let leases = Leases::new(plan.lease, catalog::config::lease_margin(plan.lease)).under(rules);
    let identity = Identity {
        journal: loaded.journal,
        listing: loaded.listing,
        lease_horizon: leases.lease_max(),
    };
    let now = BootTime::now();
    let stocks = loaded.state.stocks().cloned();
    let visibility = Visibility::new(stocks, leases, Duration::ZERO, now);
    let leadership = loaded.state.leadership();
    let found = Found {
        journal: leadership.end,
        term: leadership.term.clone(),
        may_lack_rows: loaded.may_lack_rows,
        is_unbroken: loaded.is_unbroken,
    };
    let healing = SelfHealing::new(found, now + HEALING_WAIT_MAX).under(rules);
    let protocol = BazaarProtocol::default();
    let shared = Shared::new(visibility, leadership, plan.lease, protocol).under(rules);
    let shared = Arc::new(shared);
    let store = Witnessed {
        store,
        outbox: outbox.clone(),
        run,
        is_believing: plan.without == Some(Without::AmbiguousEnds),
    };
    let beginning = Beginning {
        store: Box::new(store),
        loaded,
        journal: Arc::clone(&journal),
        healing: Healing::of(healing, silent),
    };
    let (writer, work) = prepare(beginning, Arc::clone(&shared));
    outbox.push(Output::Active {
        run,
        serving: Serving {
            shared,
            writer,
            journal,
            identity,
            run: catalog_run(run),
            lease: plan.lease,
        },
    });
    work.await.map_err(says)
}

fn options(outbox: &Outbox<Output>, plan: &Plan, run: Run) -> OpenOptions {
    let hosts = HOSTS.join(",");
    let url = format!("postgres://bazaar@{hosts}/bazaar?sslmode=disable");
    let outbox = outbox.clone();
    let dial: Dial = Arc::new(move |host: &str| {
        let (made, connected) = oneshot::channel();
        outbox.push(Output::Dial {
            client: run,
            host: host.to_owned(),
            made,
        });
        Box::pin(async move {
            let broken = |_| Err(io::Error::from(io::ErrorKind::ConnectionReset));
            connected.await.unwrap_or_else(broken)
        })
    });
    OpenOptions {
        url: StoreUrl::parse(&url).expect("it is one").simulated(dial),
        allow_unreplicated: false,
        reached_at: format!("{:?}", run.node),
        new: Some(NewJournal {
            id: JOURNAL,
            listings: plan.listings(),
        }),
        commit_time_max: COMMIT_TIME_MAX,
        writer_lease: WRITER_LEASE,
        callers: Default::default(),
        rules: plan.catalog_rules(),
    }
}

/// No two runs of any catalogs have the same.
fn catalog_run(run: Run) -> CatalogRun {
    let crate::messages::Node::Member(index) = run.node else {
        unreachable!("a catalog of several")
    };
    CatalogRun::new(run.number * 16 + index as u64 + 1).expect("not 0")
}

impl Serving {
    async fn answer(
        &self,
        outbox: &Outbox<Output>,
        (run, caller): (Run, Caller),
        request: Request,
    ) -> Result<Response, RequestError> {
        let Self { shared, writer, .. } = self;
        match request {
            Request::ReadStock { name, session } => {
                let seen = shared.read(&name, session, BootTime::now());
                self.check()?;
                Ok(seen.map_or(Response::NoSuchStock, |seen| Response::Stock {
                    stock: seen.stock,
                    cacheable: seen.cacheable,
                }))
            }
            Request::GetLeadership => {
                let leadership = shared.leadership();
                self.check()?;
                Ok(Response::Leadership(self.say(leadership)))
            }
            Request::ReportLedger { run, report } => {
                self.check_heals(run)?;
                let missing = writer.heal(Heard::Report(report)).await?;
                Ok(Response::Missing(missing))
            }
            Request::PutBack { run, replica, rows } => {
                self.check_heals(run)?;
                let missing = writer.heal(Heard::PutBack { replica, rows }).await?;
                Ok(Response::Missing(missing))
            }
            Request::ReportMissing { replica, row } => {
                let end = shared.leadership().end;
                if !shared.may_have_more(replica) {
                    return Err(RequestError::NotInSync(replica));
                }
                if !end.is_continued_by(&row) {
                    return Err(RequestError::NotMissing(row.number));
                }
                outbox.push(Output::LacksRow(run));
                Ok(Response::Reported)
            }
            Request::ReadRows {
                from,
                previous,
                rows_max,
            } => {
                let rows = self.rows(from, previous, rows_max).await;
                self.check()?;
                rows
            }
            Request::ReadOrder(order) => {
                let found = self.journal.order(order, shared.leadership().end).await;
                let row = found.map_err(RequestError::unreadable)?;
                self.check()?;
                Ok(Response::Rows(row.into_iter().collect()))
            }
            Request::Trade { epoch, orders } => {
                let (proposed, rows) = oneshot::channel();
                let sender = catalog::writer::group::Sender {
                    epoch,
                    replica: None,
                };
                let mut traded = Box::pin(writer.trade(sender, orders, proposed, Vec::new()));
                let results = tokio::select! {
                    biased;
                    Ok(rows) = rows => {
                        outbox.push(Output::Proposed { run, caller, rows });
                        traded.await?
                    }
                    traded = &mut traded => traded?,
                };
                self.check()?;
                Ok(Response::Traded(results))
            }
            Request::Elect {
                expected,
                candidate,
            } => {
                let leadership = writer.elect(expected, candidate).await?;
                self.check()?;
                Ok(Response::Leadership(self.say(leadership)))
            }
            Request::SetInSync {
                epoch,
                change,
                in_sync,
            } => {
                let sender = catalog::writer::group::Sender {
                    epoch,
                    replica: None,
                };
                let leadership = writer.set_in_sync(sender, change, in_sync).await?;
                Ok(Response::Leadership(self.say(leadership)))
            }
            other => unreachable!("a catalog is not asked for {other:?}"),
        }
    }

    fn check(&self) -> Result<(), RequestError> {
        self.shared.check_answer(BootTime::now())
    }

    fn check_heals(&self, run: CatalogRun) -> Result<(), RequestError> {
        match run == self.run && !self.shared.is_healed() {
            true => Ok(()),
            false => Err(RequestError::Healed),
        }
    }

    fn say(&self, leadership: catalog_core::Leadership) -> Said {
        Said {
            leadership,
            identity: self.identity,
            healed: self.shared.is_healed(),
            run: self.run,
        }
    }

    async fn rows(
        &self,
        from: RowNumber,
        previous: Option<ChainHash>,
        rows_max: usize,
    ) -> Result<Response, RequestError> {
        let end = self.shared.leadership().end;
        if let Some(previous) = previous {
            if from > end.rows {
                return Err(RequestError::Beyond {
                    from,
                    rows: end.rows,
                });
            }
            let found = match from.0.checked_sub(1) {
                None => ChainHash::EMPTY,
                Some(_) if from == end.rows => end.chain,
                Some(before) => {
                    let rows = self.journal.rows(RowNumber(before), 1).await;
                    let rows = rows.map_err(RequestError::unreadable)?;
                    rows.first().map_or(ChainHash::EMPTY, |row| row.chain)
                }
            };
            if found != previous {
                return Err(RequestError::Differs(from));
            }
        }
        let count = end.rows.0.saturating_sub(from.0).min(rows_max as u64);
        let rows = self.journal.rows(from, count as usize).await;
        let rows = rows.map_err(RequestError::unreadable)?;
        if rows.len() as u64 != count {
            let missing = StorageError::Damaged(format!("rows are missing from {from} on"));
            return Err(RequestError::unreadable(missing));
        }
        Ok(Response::Rows(rows))
    }

    /// Opens a session once it may, and tells the gateway what there is to tell until its end.
    async fn serve_session(
        &self,
        outbox: &Outbox<Output>,
        run: Run,
        (stream, id): (u64, SessionId),
    ) {
        let shared = &self.shared;
        let (sender, mut events) = mpsc::channel(EVENTS_MAX);
        let now = BootTime::now();
        let opened = shared.open(id, Client::Local(id.get()), sender, now, now);
        let say = |what| {
            outbox.push(Output::Session {
                run,
                stream,
                what,
                is_healed: true,
            });
        };
        if opened.is_ok() {
            while let Some(event) = events.recv().await {
                say(Some(match event {
                    Event::Opened(session) => FromCatalog::Opened {
                        session,
                        lease: self.lease,
                        journal: JOURNAL,
                    },
                    Event::Renewed(nonce) => FromCatalog::Renewed(nonce),
                    Event::Invalidation(invalidation) => FromCatalog::Invalidation(invalidation),
                    Event::Closing => FromCatalog::Closing,
                    Event::Over(_) => break,
                }));
            }
        }
        say(None);
    }
}

fn failure(error: RequestError) -> Failure {
    match error {
        RequestError::Stale(_)
        | RequestError::InSync(InSyncRefused::Stale(_))
        | RequestError::Healed
        | RequestError::CannotPutBack(_)
        | RequestError::NotInSync(_) => Failure::Fenced,
        RequestError::Beyond { .. } => Failure::Beyond,
        RequestError::Differs(_) => Failure::Differs,
        RequestError::NotMissing(_) => Failure::NotMissing,
        _ => Failure::Unavailable,
    }
}

/// A store, of whose commits the world is told.
struct Witnessed {
    store: PostgresStore,
    outbox: Outbox<Output>,
    run: Run,
    /// Takes a commit of which nobody knows for one that failed.
    is_believing: bool,
}

impl Witnessed {
    fn judge(&self, done: Result<(), StorageError>) -> Result<(), StorageError> {
        match done {
            Err(StorageError::Ambiguous(why)) if self.is_believing => {
                Err(StorageError::Server(why))
            }
            done => done,
        }
    }
}

#[async_trait]
impl Store for Witnessed {
    async fn load(&mut self) -> Result<Loaded, StorageError> {
        self.store.load().await
    }

    async fn find_keys(
        &mut self,
        keys: &[&IdempotencyKey],
    ) -> Result<Vec<Option<PriorOutcome>>, StorageError> {
        self.store.find_keys(keys).await
    }

    async fn commit(&mut self, batch: &Batch) -> Result<(), StorageError> {
        let done = self.store.commit(batch).await;
        if done.is_ok() {
            let (run, batch) = (self.run, batch.clone());
            self.outbox.push(Output::Committed { run, batch });
        }
        self.judge(done)
    }

    fn writer_lease(&self) -> Option<WriterLease> {
        self.store.writer_lease()
    }

    async fn beat(&mut self) -> Result<(), StorageError> {
        let beaten = self.store.beat().await;
        self.judge(beaten)
    }

    async fn raise_protocol(&mut self, protocol: Protocol) -> Result<(), StorageError> {
        self.store.raise_protocol(protocol).await
    }

    async fn note_healed(&mut self) -> Result<(), StorageError> {
        self.store.note_healed().await
    }

    async fn close(&mut self) -> Result<(), StorageError> {
        self.store.close().await
    }
}
