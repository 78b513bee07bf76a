//! The task that owns the core: passes it what happens, and runs its commands.

mod asker;
pub(crate) mod reply;
mod callers;
mod writer;

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use daemon::tasks;
use domain::LedgerEnd;
use domain::time::BootTime;
use domain::{Entry, Epoch, Identity, OrderNumber, ReplicaId, Row, RowNumber};
use storage::StorageError;
use storage::damage::DamageReporter;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tonic::Status as GrpcStatus;
use traces::Kind;

use crate::error::{RequestError, ToStatus, stopping};
use crate::failed_call::CallError;
use crate::measured::{Happening, Measured};
use crate::peers::{self, Catalog, Peers};
use crate::report;
use crate::store::{ReadRows, Store};
use crate::traced::Spans;
use order_core::Save;
use order_core::message::{CallFailure, Failure, Refused, Report, Shipment, Source, StepDown};
use order_core::{Command, Event, Replica, Status};
use reply::Reply;

use asker::{Asker, Watch};
use callers::Callers;
use writer::Writer;

/// What waits to be told to the core; senders of more wait.
const INPUTS_MAX: usize = 4096;

/// Inputs that the core takes in at once.
const STEP_INPUTS_MAX: usize = 256;

/// After so many turns rows that followers are to be sent are in their sockets: the call's, its
/// stream's and the connection's, and one to spare. With fewer they would go out after a wait for
/// the disk.
const SENDING_TURNS: u32 = 4;

/// What the core is told, with the way back to the caller.
#[derive(Debug)]
pub(crate) enum Input {
    Place {
        order: Entry,
        reply: Reply,
    },
    Announce {
        epoch: Epoch,
        leader: ReplicaId,
        reply: oneshot::Sender<Result<Status, Refused>>,
    },
    Append {
        epoch: Epoch,
        leader: ReplicaId,
        rows: Vec<Row>,
        committed: RowNumber,
        reply: oneshot::Sender<Result<LedgerEnd, Refused>>,
    },
    /// Asks for an order that is committed and not in the ledger's file yet.
    Find {
        number: OrderNumber,
        reply: oneshot::Sender<Option<Row>>,
    },
    /// The writer's thread wrote so many saves.
    Saved {
        saves: usize,
        event: Event,
    },
    Happened(Event),
    /// The catalog counts leases for longer than was known.
    Keep(Identity),
}

/// A way to the core from the services.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    inputs: mpsc::Sender<Input>,
    status: watch::Receiver<Status>,
    asker: Arc<Asker>,
    measured: Arc<Measured>,
}

impl Handle {
    /// Places an order, whose answer goes out by itself.
    pub(crate) async fn place(&self, order: Entry, reply: Reply) -> Result<(), GrpcStatus> {
        let sent = self.inputs.send(Input::Place { order, reply }).await;
        sent.map_err(|_| stopping())
    }

    pub(crate) async fn announce(
        &self,
        epoch: Epoch,
        leader: ReplicaId,
    ) -> Result<Status, GrpcStatus> {
        self.asker.confirm(epoch).await?;
        self.ask(|reply| Input::Announce {
            epoch,
            leader,
            reply,
        })
        .await
    }

    pub(crate) async fn append(
        &self,
        (epoch, leader): (Epoch, ReplicaId),
        rows: Vec<Row>,
        committed: RowNumber,
    ) -> Result<LedgerEnd, GrpcStatus> {
        self.asker.confirm(epoch).await?;
        self.ask(|reply| Input::Append {
            epoch,
            leader,
            rows,
            committed,
            reply,
        })
        .await
    }

    /// The row of an order that is committed and durable here, and not in the ledger's file yet.
    pub(crate) async fn find(&self, number: OrderNumber) -> Result<Option<Row>, GrpcStatus> {
        let (reply, answer) = oneshot::channel();
        let sent = self.inputs.send(Input::Find { number, reply }).await;
        sent.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())
    }

    /// The journal holds at least so many rows.
    pub(crate) async fn note_journal_len(&self, rows: RowNumber) {
        // Where the driver has stopped nobody needs to know.
        let _ = self.inputs.send(Input::Happened(Event::Heard(rows))).await;
    }

    /// Waits until at least so many rows are durable here.
    pub(crate) async fn wait_until_durable(&self, rows: RowNumber) {
        let mut status = self.status.clone();
        let held = status.wait_for(|status| status.end.rows >= rows);
        let stopped = held.await.is_err();
        if stopped {
            // The driver has stopped: nobody waits for long.
            std::future::pending::<()>().await;
        }
    }

    /// Waits until the catalog answers.
    pub(crate) async fn wait_for_catalog(&self) {
        let mut status = self.status.clone();
        let reached = status.wait_for(|status| status.reaches_catalog);
        let stopped = reached.await.is_err();
        if stopped {
            // The driver has stopped: nobody waits for long.
            std::future::pending::<()>().await;
        }
    }

    /// What the replica is at the moment.
    /// The same, whenever it is asked.
    pub(crate) fn watch(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// What it counts and times.
    pub(crate) fn measured(&self) -> Arc<Measured> {
        Arc::clone(&self.measured)
    }

    pub(crate) fn status(&self) -> Status {
        *self.status.borrow()
    }

    async fn ask<A, R>(
        &self,
        input: impl FnOnce(oneshot::Sender<Result<A, R>>) -> Input,
    ) -> Result<A, GrpcStatus>
    where
        R: ToStatus,
    {
        let (reply, answer) = oneshot::channel();
        self.inputs
            .send(input(reply))
            .await
            .map_err(|_| stopping())?;
        answer
            .await
            .map_err(|_| stopping())?
            .map_err(ToStatus::to_status)
    }
}

/// Owns the core and all that it has under way.
pub(crate) struct Driver {
    replica: Replica,
    callers: Callers,
    writer: Writer,
    upstreams: Upstreams,
    calls: JoinSet<()>,
    /// Until it runs.
    watch: Option<Watch>,
    inputs: mpsc::Receiver<Input>,
    status: watch::Sender<Status>,
    reporter: DamageReporter,
    /// Whose turn it is to report to a catalog that has started: one call at a time.
    reporting: Arc<Semaphore>,
    /// The longest time for which a catalog was heard to count a lease.
    lease_horizon: Duration,
    /// How many rows the whole journal had when that was logged last.
    caught_up: Option<RowNumber>,
    /// Of the step under way.
    saves: Vec<Save>,
}

impl Driver {
    /// `reporter` is told where the replica must not be believed as it is.
    pub(crate) fn new(
        replica: Replica,
        identity: Identity,
        store: impl Store,
        reader: Arc<dyn ReadRows>,
        (catalog, peers): (Catalog, Peers),
        reporter: DamageReporter,
    ) -> (Self, Handle) {
        let (sender, inputs) = mpsc::channel(INPUTS_MAX);
        let (status, current) = watch::channel(replica.status());
        let (asker, watch) = Asker::new(identity, catalog.clone(), sender.clone(), current.clone());
        let measured = Arc::new(Measured::new(peers.ids()));
        let driver = Self {
            replica,
            callers: Callers::new(Arc::clone(&measured)),
            writer: Writer::start(store, sender.clone(), Arc::clone(&measured)),
            upstreams: Upstreams {
                catalog,
                peers,
                reader,
                inputs: sender.clone(),
                asker: Arc::clone(&asker),
                measured: Arc::clone(&measured),
            },
            calls: JoinSet::new(),
            watch: Some(watch),
            inputs,
            status,
            reporter,
            reporting: Arc::new(Semaphore::new(1)),
            lease_horizon: identity.lease_horizon,
            caught_up: None,
            saves: Vec::new(),
        };
        (
            driver,
            Handle {
                inputs: sender,
                status: current,
                asker,
                measured,
            },
        )
    }

    /// Runs until `stop` is ready. What the store was given by then is durable after.
    pub(crate) async fn run(mut self, mut stop: oneshot::Receiver<()>) {
        let watch = self.watch.take().expect("it runs once");
        let _watching = tasks::spawn("watch the catalog's head", watch.run());
        let mut inputs = Vec::with_capacity(STEP_INPUTS_MAX);
        loop {
            self.step(&mut inputs).await;
            let wake = self.replica.wake().map(|wake| wake.since(BootTime::now()));
            tokio::select! {
                biased;
                _ = &mut stop => break,
                _ = self.inputs.recv_many(&mut inputs, STEP_INPUTS_MAX) => {}
                () = tokio::time::sleep(wake.unwrap_or(Duration::MAX)), if wake.is_some() => {}
            }
            self.reap();
        }
        self.calls.shutdown().await;
        drop(self.inputs);
        self.writer.finish().await;
    }

    async fn step(&mut self, inputs: &mut Vec<Input>) {
        self.find_rows(inputs);
        self.keep_identity(inputs);
        let (callers, writer) = (&mut self.callers, &mut self.writer);
        let events = inputs.drain(..).filter_map(|input| {
            if let Input::Saved { saves, .. } = input {
                writer.note_reported(saves);
            }
            callers.admit(input)
        });
        let mut commands = self.replica.step(BootTime::now(), events);
        loop {
            for command in commands {
                self.execute(command);
            }
            let Some(stored) = self.save().await else {
                break;
            };
            commands = self.replica.step(BootTime::now(), std::iter::once(stored));
        }
        let status = self.replica.status();
        let measured = &self.upstreams.measured;
        measured.holds(status.end.rows, self.replica.known());
        self.status
            .send_if_modified(|current| std::mem::replace(current, status) != status);
    }

    fn find_rows(&self, inputs: &mut Vec<Input>) {
        let finds = inputs.extract_if(.., |input| matches!(input, Input::Find { .. }));
        for find in finds {
            if let Input::Find { number, reply } = find {
                // Who asked may have left.
                let _ = reply.send(self.replica.find(number).cloned());
            }
        }
    }

    fn keep_identity(&mut self, inputs: &mut Vec<Input>) {
        for keep in inputs.extract_if(.., |input| matches!(input, Input::Keep(_))) {
            if let Input::Keep(identity) = keep {
                self.lease_horizon = identity.lease_horizon;
                self.saves.push(Save {
                    identity: Some(identity),
                    ..Save::default()
                });
            }
        }
    }

    /// Has what the core wants saved written. A replica that has nothing else to do waits for the
    /// disk here and now, and returns what is then durable: to hand rows to a thread and to be
    /// told takes a good part of the time that a disk does. While a disk stands still such a
    /// replica answers nobody, and is passed over.
    async fn save(&mut self) -> Option<Event> {
        let mut saves = self.saves.drain(..);
        let first = saves.next()?;
        let group = order_core::durable::gather(first, || saves.next());
        let more: Vec<Save> = saves.collect();
        if more.is_empty() && self.has_time() {
            if !self.calls.is_empty() {
                give_turns(SENDING_TURNS).await;
            }
            let _spans = self.callers.traced_mut().begin_saving(&group);
            return Some(self.writer.save_now(&group));
        }
        for save in [group].into_iter().chain(more) {
            let spans = self.callers.traced_mut().begin_saving(&save);
            self.writer.save(save, spans);
        }
        None
    }

    /// Whether waiting for the disk keeps nobody waiting who would not wait for it anyway: nothing
    /// is under way, or one order alone.
    fn has_time(&self) -> bool {
        self.writer.is_idle() && (self.calls.is_empty() || self.replica.has_one_order())
    }

    fn execute(&mut self, command: Command) {
        let upstreams = self.upstreams.clone();
        match command {
            Command::Save(save) => self.saves.push(save),
            Command::AskCatalog => upstreams.asker.hurry(),
            Command::ReportMissing(number) => {
                let reporter = self.reporter.clone();
                self.spawn_quietly(async move {
                    if let Some(failure) = upstreams.report_missing(number).await {
                        reporter.report(failure.to_string());
                    }
                });
            }
            Command::ReportLedger {
                run,
                end,
                term,
                peers,
            } => {
                // While rows are being shown there is nothing else to be told.
                let Ok(turn) = Arc::clone(&self.reporting).try_acquire_owned() else {
                    return;
                };
                let report = peers::Report {
                    replica: upstreams.asker.replica(),
                    run,
                    end,
                    term,
                    peers,
                    lease_horizon: self.lease_horizon,
                    is_empty: false, // it has joined
                };
                self.spawn_quietly(async move {
                    report::report(&upstreams.catalog, &upstreams.reader, &report).await;
                    drop(turn);
                });
            }
            Command::Fail(failure) => self.reporter.report(failure.to_string()),
            Command::AnswerPlace { ticket, answer } => self.callers.answer_place(ticket, answer),
            Command::AnswerAnnounce { ticket, answer } => {
                self.callers.answer_announce(ticket, answer)
            }
            Command::AnswerAppend { ticket, answer } => self.callers.answer_append(ticket, answer),
            Command::Report(report) => {
                count(report, &upstreams.measured);
                // While the catalog's commits fail it finds that out again and again.
                let known = match report {
                    Report::CaughtUp { orders } => self.caught_up.replace(orders) == Some(orders),
                    _ => false,
                };
                if !known {
                    log(report);
                }
            }
            Command::Trade {
                call,
                epoch,
                orders,
            } => {
                let spans = self.callers.traced().begin(&orders, |parent| {
                    let span = parent.begin_call(Kind::Client, "catalog.v1.Catalog/TradeMany");
                    span.with("bazaar.epoch", epoch.0)
                        .with("bazaar.call.orders", orders.len())
                });
                self.spawn(async move {
                    let proposed = |rows| upstreams.tell(Event::Proposed { call, rows });
                    let began = Instant::now();
                    let traded = upstreams.catalog.trade(epoch, (orders, spans), proposed);
                    let result = traded.await;
                    let measured = &upstreams.measured;
                    measured.committed(result.is_ok(), began.elapsed());
                    Event::Traded {
                        call,
                        result: logged("trade", result),
                    }
                });
            }
            Command::SetInSync {
                call,
                epoch,
                change,
                in_sync,
            } => self.spawn(async move {
                let result = upstreams.catalog.set_in_sync(epoch, change, &in_sync).await;
                Event::InSyncSet {
                    call,
                    result: logged("set in-sync", result),
                }
            }),
            Command::Fetch {
                call,
                source,
                from,
                previous,
                rows_max,
            } => self.spawn(async move {
                let previous = Some(previous);
                let result = match source {
                    Source::Journal => {
                        upstreams
                            .catalog
                            .read_journal(from, previous, rows_max)
                            .await
                    }
                    Source::Peer(peer) => upstreams.peers.fetch(peer, from, rows_max).await,
                };
                Event::Fetched {
                    call,
                    result: logged("fetch", result),
                }
            }),
            Command::Append {
                call,
                peer,
                epoch,
                shipment,
                committed,
            } => {
                let rows = match &shipment {
                    Shipment::Rows(rows) => rows.as_slice(),
                    // What it lacks of old ones.
                    Shipment::Stored { .. } => &[],
                };
                let entries = rows.iter().map(|row| &row.entry);
                let spans = self.callers.traced().begin(entries, |parent| {
                    let span = parent.begin_call(Kind::Client, "order.v1.Replication/AppendMany");
                    span.with("bazaar.replica", peer.get())
                        .with("bazaar.call.rows", rows.len())
                });
                let shipment = (shipment, spans);
                self.spawn(async move {
                    let result = upstreams.append(peer, epoch, shipment, committed).await;
                    Event::Appended { call, peer, result }
                });
            }
        }
    }

    /// Makes a call whose result is an event.
    fn spawn(&mut self, call: impl Future<Output = Event> + Send + 'static) {
        let inputs = self.upstreams.inputs.clone();
        self.spawn_quietly(async move {
            // Where the driver has stopped nobody needs to know.
            let _ = inputs.send(Input::Happened(call.await)).await;
        });
    }

    /// Makes a call whose result nobody waits for.
    fn spawn_quietly(&mut self, call: impl Future<Output = ()> + Send + 'static) {
        #[expect(clippy::disallowed_methods, reason = "`reap` sees a panic")]
        self.calls.spawn(call);
    }

    /// Forgets calls that are over. A panic in one is a bug, after which the core would wait for
    /// ever: it ends the replica.
    fn reap(&mut self) {
        while let Some(over) = self.calls.try_join_next() {
            if let Err(error) = over {
                std::panic::resume_unwind(error.into_panic());
            }
        }
    }
}

/// Lets whatever is ready to run on this thread go first, so many times. Unlike
/// `tokio::task::yield_now` it asks the kernel for nothing, which takes ten microseconds.
async fn give_turns(turns: u32) {
    for _ in 0..turns {
        let mut given = false;
        poll_fn(|cx| {
            if std::mem::replace(&mut given, true) {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }
}

/// What is reached by calls.
#[derive(Clone)]
struct Upstreams {
    catalog: Catalog,
    peers: Peers,
    reader: Arc<dyn ReadRows>,
    inputs: mpsc::Sender<Input>,
    asker: Arc<Asker>,
    measured: Arc<Measured>,
}

impl Upstreams {
    async fn append(
        &self,
        peer: ReplicaId,
        epoch: Epoch,
        (shipment, mut spans): (Shipment, Spans),
        committed: RowNumber,
    ) -> Result<LedgerEnd, CallFailure> {
        let rows = match shipment {
            Shipment::Rows(rows) => rows,
            Shipment::Stored { from, rows_max } => {
                let rows = read(&self.reader, from, rows_max).await;
                let mut rows = rows.map_err(|_| CallFailure::Failed)?;
                // What came since is not among what the follower is told is committed.
                rows.retain(|row| row.number < committed);
                rows
            }
        };
        let began = Instant::now();
        let shipped = (rows.as_slice(), &spans);
        let appended = self.peers.append(peer, epoch, shipped, committed).await;
        if let Err(error) = &appended {
            spans.fail(&error.to_string());
        }
        self.measured
            .appended(peer, rows.len(), appended.is_ok(), began.elapsed());
        logged("append", appended)
    }

    async fn tell(&self, event: Event) {
        // Where the driver has stopped nobody needs to know.
        let _ = self.inputs.send(Input::Happened(event)).await;
    }

    /// Shows the catalog a row of the ledger that it lacks. It may not take it for one.
    async fn report_missing(&self, number: RowNumber) -> Option<Failure> {
        let row = read(&self.reader, number, 1).await.ok()?.pop()?;
        let reported = self.catalog.report_missing(self.asker.replica(), &row);
        // The row does not follow the journal's last: it went on without those that it lost.
        let gone_on = reported.await.err()?.failure == CallFailure::NotMissing;
        gone_on.then_some(Failure::Differs { rows: number })
    }
}

/// Reads rows off the async threads.
pub(crate) async fn read(
    reader: &Arc<dyn ReadRows>,
    from: RowNumber,
    rows_max: usize,
) -> Result<Vec<Row>, RequestError> {
    let reader = Arc::clone(reader);
    read_with(move || reader.rows(from, rows_max)).await
}

/// The row of an order, if the ledger has it.
pub(crate) async fn read_order(
    reader: &Arc<dyn ReadRows>,
    number: OrderNumber,
) -> Result<Option<Row>, RequestError> {
    let reader = Arc::clone(reader);
    read_with(move || reader.order(number)).await
}

/// At most `rows_max` rows from an order's on; none where the ledger does not have that.
pub(crate) async fn read_orders(
    reader: &Arc<dyn ReadRows>,
    from: OrderNumber,
    rows_max: usize,
) -> Result<Vec<Row>, RequestError> {
    let reader = Arc::clone(reader);
    read_with(move || match reader.order(from)? {
        Some(row) => reader.rows(row.number, rows_max),
        None => Ok(Vec::new()),
    })
    .await
}

async fn read_with<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
) -> Result<T, RequestError> {
    let read = tokio::task::spawn_blocking(read).await;
    let read = read.map_err(|_| RequestError::Stopping)?;
    read.map_err(|error| {
        tracing::error!(%error, "cannot read the ledger");
        RequestError::Unreadable(error)
    })
}

/// A call's result as the core needs to know it; logs a failure.
fn logged<T>(what: &'static str, result: Result<T, CallError>) -> Result<T, CallFailure> {
    result.map_err(|error| {
        tracing::debug!(what, %error, "a call failed");
        error.failure
    })
}

fn count(report: Report, measured: &Measured) {
    measured.happened(match report {
        Report::Leading { .. } => Happening::Leading,
        Report::SteppedDown { .. } => Happening::SteppedDown,
        Report::FollowerInSync { .. } => Happening::FollowerInSync,
        Report::FollowerLagging { .. } => Happening::FollowerLagging,
        _ => return,
    });
}

fn log(report: Report) {
    match report {
        Report::Activating { epoch } => tracing::info!(%epoch, "elected: becoming the leader"),
        Report::Leading { epoch, orders } => tracing::info!(%epoch, %orders, "leading"),
        Report::SteppedDown {
            epoch,
            why: why @ (StepDown::Superseded | StepDown::CatalogStarted),
        } => tracing::info!(%epoch, %why, "stepped down"),
        Report::SteppedDown { epoch, why } => tracing::error!(%epoch, %why, "stepped down"),
        Report::FollowerInSync { peer } => tracing::info!(%peer, "follower in sync"),
        Report::FollowerLagging { peer } => {
            tracing::warn!(%peer, "follower failed or is too slow: no longer in sync")
        }
        Report::FollowerLostRows {
            peer,
            acknowledged,
            holds,
        } => {
            tracing::error!(%peer, %acknowledged, %holds, "follower lost rows that it had acknowledged");
        }
        Report::FollowerDiverged { peer, orders } => {
            tracing::error!(%peer, %orders, "follower's chain hash differs: one of the ledgers is damaged");
        }
        Report::Broken {
            from,
            number,
            chain,
        } => {
            tracing::error!(%from, %number, %chain, "a row does not continue this ledger: one of the two is damaged");
        }
        Report::CatalogLostRows { journal, held } => {
            tracing::error!(%journal, %held, "the catalog's journal ends before this ledger does: its disk lost rows that were acknowledged");
        }
        Report::CaughtUp { orders } => tracing::info!(%orders, "holds the whole journal"),
    }
}
