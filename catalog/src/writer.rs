//! The one thread that changes what is committed.
//!
//! It takes whatever has queued and commits it as one transaction (group commit), see [`group`]; before that it puts back
//! what its store lost, see [`healing`].

mod failures;
pub mod group;
pub mod healing;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use daemon::tasks;
use domain::time::BootTime;
use domain::{ChainHash, Entry, Epoch, LedgerEnd, Protocol, ReplicaId, Row, RowNumber};
use storage::StorageError;
use storage::error::fail_stop;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use traces::{Kind, Parent};

use crate::error::RequestError;
use crate::measured::Measured;
use crate::shared::Shared;
use crate::store::{Journal, Loaded, Store};
use catalog_core::writer_lease::{StatementOutcome, WriterLease, WriterStep};
use catalog_core::{Batch, Leadership, TradeResult};
use domain::ChangeNumber;

use group::{Command, Committer, Group, ProposedReply, Sender};
use healing::{Healing, Step, Told};

/// Most requests that queue; more wait with their senders.
pub const QUEUE_MAX: usize = 1024;

/// Before what a start has to make durable is tried again.
const COMMIT_RETRY: Duration = Duration::from_millis(200);

/// Sends requests to the writer.
#[derive(Debug, Clone)]
pub struct Writer {
    commands: mpsc::Sender<Queued>,
}

/// A request, and since when it queues.
#[derive(Debug)]
struct Queued {
    command: Command,
    since: Instant,
}

impl From<Command> for Queued {
    fn from(command: Command) -> Self {
        let since = Instant::now();
        Self { command, since }
    }
}

impl Writer {
    /// Trades a batch of orders, in order. `proposed` is told of their new rows beforehand, where
    /// they are few. What is `traced` has a span of each step.
    pub async fn trade(
        &self,
        sender: Sender,
        orders: Vec<Entry>,
        proposed: ProposedReply,
        traced: Vec<Parent>,
    ) -> Result<Vec<TradeResult>, RequestError> {
        self.ask(|reply| Command::Trade {
            sender,
            orders,
            proposed,
            traced,
            reply,
        })
        .await
    }

    /// See [`Staged::elect`].
    pub async fn elect(
        &self,
        expected: Epoch,
        candidate: ReplicaId,
    ) -> Result<Leadership, RequestError> {
        self.ask(|reply| Command::Elect {
            expected,
            candidate,
            reply,
        })
        .await
    }

    /// See [`Staged::set_in_sync`].
    pub async fn set_in_sync(
        &self,
        sender: Sender,
        change: ChangeNumber,
        in_sync: BTreeSet<ReplicaId>,
    ) -> Result<Leadership, RequestError> {
        self.ask(|reply| Command::SetInSync {
            sender,
            change,
            in_sync,
            reply,
        })
        .await
    }

    /// Takes in what a replica has, before anything else is done. Returns from where on the journal lacks rows of it.
    pub async fn heal(&self, told: Told) -> Result<Option<RowNumber>, RequestError> {
        self.ask(|reply| Command::Heal { told, reply }).await
    }

    /// Notes durably that sessions may be alive after a crash, for `lease_max` at most. To be
    /// awaited before one is opened.
    pub async fn lend_sessions(&self, lease_max: Duration) -> Result<(), RequestError> {
        self.ask(|reply| Command::LendSessions { lease_max, reply })
            .await
    }

    /// Has the bazaar be at that version of the protocol, or a later one.
    pub async fn raise_protocol(&self, protocol: Protocol) -> Result<(), RequestError> {
        self.ask(|reply| Command::RaiseProtocol { protocol, reply })
            .await
    }

    /// How many requests queue.
    #[cfg(test)]
    pub(crate) fn queued(&self) -> usize {
        self.commands.max_capacity() - self.commands.capacity()
    }

    /// Has the writer finish what has queued, take no more, and end.
    pub async fn stop(&self) {
        let _ = self.commands.send(Command::Stop.into()).await; // it may have ended
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, RequestError>>) -> Command,
    ) -> Result<T, RequestError> {
        let (reply, answer) = oneshot::channel();
        self.commands
            .send(command(reply).into())
            .await
            .map_err(|_| RequestError::Stopping)?;
        answer.await.map_err(|_| RequestError::Stopping)?
    }
}

/// What a writer begins with.
pub struct Beginning {
    pub store: Box<dyn Store>,
    pub loaded: Loaded,
    /// Where what was committed is read.
    pub journal: Arc<dyn Journal>,
    pub healing: Healing,
}

/// Starts the writer on a thread of its own. The receiver is told when it has ended and let go of the store.
pub fn start(
    beginning: Beginning,
    shared: Arc<Shared>,
) -> std::io::Result<(Writer, oneshot::Receiver<()>)> {
    let (writer, work) = prepare(beginning, shared);
    let (end, ended) = oneshot::channel();
    let runtime = Handle::current();
    tasks::thread("catalog-writer", move || {
        // This thread alone runs it: where a store blocks, nobody else waits. What a store does
        // over the network, and timers, the runtime's own thread drives.
        if let Err(error) = runtime.block_on(work) {
            fail_stop(&error);
        }
        let _ = end.send(()); // nobody may be left to care
    })?;
    Ok((writer, ended))
}

/// A writer, and its work: it puts back what the store lost, begins this run's first epoch, and then does what it is
/// asked for, until it is told to stop. Where the work ends with an error, that [ends the
/// process](StorageError::ends_process).
pub fn prepare(
    beginning: Beginning,
    shared: Arc<Shared>,
) -> (
    Writer,
    impl Future<Output = Result<(), StorageError>> + Send,
) {
    let Beginning {
        store,
        loaded,
        journal,
        healing,
    } = beginning;
    let (sender, commands) = mpsc::channel(QUEUE_MAX);
    let lease = store.writer_lease();
    if let Some(lease) = &lease {
        shared.answer_until(lease.serves_until());
    }
    let mut run = Run {
        committer: Committer::new(store, loaded, Arc::clone(&shared)),
        lease,
        commands,
        measured: Arc::clone(&shared.measured),
    };
    let work = async move {
        run.measured.writing.begin();
        if run.heal(healing, &*journal, &shared).await? {
            run.write().await?;
        }
        run.end().await;
        run.measured.writing.end();
        Ok(())
    };
    (Writer { commands: sender }, work)
}

/// Whoever changes what is committed.
struct Run {
    committer: Committer,
    lease: Option<WriterLease>,
    commands: mpsc::Receiver<Queued>,
    measured: Arc<Measured>,
}

impl Run {
    /// Has the store get back what it lost, and begins the first epoch. Returns whether that is so, rather than being
    /// told to stop before.
    async fn heal(
        &mut self,
        mut healing: Healing,
        journal: &dyn Journal,
        shared: &Shared,
    ) -> Result<bool, StorageError> {
        loop {
            let now = BootTime::now();
            let (unheard, until) = healing.unheard(now);
            shared.set_unheard(unheard, until);
            let until = match healing.step(now) {
                Step::Wait(until) => until,
                Step::PutBackProposed(rows) => {
                    match self.put_back_proposed(&mut healing, rows).await? {
                        true => continue,
                        false => Some(BootTime::now() + COMMIT_RETRY),
                    }
                }
                Step::Serve(batch, unheard) => {
                    match self.settle(&healing, batch, &unheard).await? {
                        true => {
                            healing.log_end(&unheard);
                            let has_changed = healing.has_changed();
                            shared.set_healed(unheard, healing.accepted().clone(), has_changed);
                            return Ok(true);
                        }
                        false => Some(BootTime::now() + COMMIT_RETRY),
                    }
                }
            };
            match self.next(until).await? {
                Next::Command(Command::Heal { told, reply }) => {
                    let answer = self.take_in(&mut healing, told, journal).await?;
                    let _ = reply.send(answer); // the caller may have left
                }
                Next::Command(Command::Stop) | Next::Closed => return Ok(false),
                // Nobody else is let through before it is over.
                Next::Command(_) | Next::Late => {}
            }
        }
    }

    /// What a replica has, which is told from where on more of it is wanted.
    async fn take_in(
        &mut self,
        healing: &mut Healing,
        told: Told,
        journal: &dyn Journal,
    ) -> Result<Result<Option<RowNumber>, RequestError>, StorageError> {
        let (replica, rows) = match told {
            Told::Report(report) => {
                let end = self.committer.state().leadership().end;
                let there = chain_before(journal, report.end.rows, end).await;
                return Ok(there
                    .map(|there| healing.report(report, there, BootTime::now()))
                    .map_err(RequestError::unreadable));
            }
            Told::PutBack { replica, rows } => (replica, rows),
        };
        if let Some(rows) = healing.shown(replica, rows, BootTime::now()) {
            let batch = match self.restoring(healing, rows).await {
                Ok(batch) => batch,
                Err(error) => return Ok(Err(error)),
            };
            if !self.put_back(healing, batch).await? {
                let why = "see the catalog's log".into();
                return Ok(Err(RequestError::NotCommitted(why)));
            }
        }
        // What it showed beforehand is not asked for again before it is to be put back.
        Ok(Ok(healing.wanted_of(replica, BootTime::now())))
    }

    /// What puts rows back that a replica showed.
    async fn restoring(
        &mut self,
        healing: &mut Healing,
        rows: Vec<Row>,
    ) -> Result<Batch, RequestError> {
        let shown = rows.len();
        let rows = self.committer.unused(healing.completed(rows), shown).await;
        let rows = rows.map_err(RequestError::unreadable)?;
        healing.batch(self.committer.state(), rows)
    }

    /// Returns whether they are durable, or given up.
    async fn put_back_proposed(
        &mut self,
        healing: &mut Healing,
        rows: Vec<Row>,
    ) -> Result<bool, StorageError> {
        let rows = match self.committer.unused(rows, 0).await {
            Ok(rows) => rows,
            Err(error) => {
                tracing::error!(%error, "cannot look up what keys were used for");
                return Ok(false);
            }
        };
        match healing.batch(self.committer.state(), rows) {
            Ok(batch) if !batch.rows.is_empty() => self.put_back(healing, batch).await,
            Ok(_) | Err(_) => {
                healing.give_up_proposed();
                Ok(true)
            }
        }
    }

    async fn put_back(
        &mut self,
        healing: &mut Healing,
        batch: Batch,
    ) -> Result<bool, StorageError> {
        if !self.wait_for_leases(healing).await? {
            return Ok(false);
        }
        let group = self.committer.begin_alone(batch.clone());
        let is_durable = self.commit(group).await?;
        if is_durable {
            healing.committed(&batch);
        }
        Ok(is_durable)
    }

    /// Makes durable what a healing ends with, and begins the first epoch.
    async fn settle(
        &mut self,
        healing: &Healing,
        batch: Batch,
        unheard: &BTreeSet<ReplicaId>,
    ) -> Result<bool, StorageError> {
        if !self.wait_for_leases(healing).await? {
            return Ok(false);
        }
        let group = self.committer.begin_alone(batch);
        if !self.commit(group).await? {
            return Ok(false);
        }
        if unheard.is_empty() {
            self.committer.note_healed().await;
        }
        let group = self.committer.begin(Vec::new()).await;
        self.commit(group).await?; // where it fails, the first group begins the epoch
        Ok(true)
    }

    /// Whether nobody is served while gateways may be by leases of before, also after another start.
    async fn wait_for_leases(&mut self, healing: &Healing) -> Result<bool, StorageError> {
        // Under a writer lease, what gateways were lent is over before it.
        let horizon = healing.lease_horizon().filter(|_| self.lease.is_none());
        let Some(horizon) = horizon else {
            return Ok(true);
        };
        let waited = self.committer.wait_for_leases(horizon, BootTime::now());
        let waited = end_where_unknown(waited.await)?;
        Ok(waited
            .inspect_err(|error| tracing::error!(%error, "cannot note that leases are waited for"))
            .is_ok())
    }

    async fn write(&mut self) -> Result<(), StorageError> {
        loop {
            let retries_at = self.committer.retries_at();
            if retries_at.is_some_and(|at| at <= BootTime::now()) {
                let group = self.committer.begin_again(BootTime::now()).await;
                self.commit(group).await?;
                continue;
            }
            let first = match self.next(retries_at).await? {
                Next::Command(first) => first,
                Next::Late => continue,
                Next::Closed => return Ok(()),
            };
            let (commands, measured) = (&mut self.commands, &*self.measured);
            let group = group::gather(first, || {
                Some(taken_up(commands.try_recv().ok()?, measured))
            });
            if group.iter().any(|command| matches!(command, Command::Stop)) {
                self.commands.close();
            }
            let group = self.committer.begin(group).await;
            self.commit(group).await?;
            if self.lease.is_some() {
                self.committer.look_at_standbys().await; // no beat is due where there is always something to commit
            }
        }
    }

    /// Waits for a command, until then where a time is said. Meanwhile signs of life go on, however much there is to do
    /// that changes nothing.
    async fn next(&mut self, until: Option<BootTime>) -> Result<Next, StorageError> {
        let mut wait = until.map(|until| until.since(BootTime::now()));
        if let Some(lease) = &mut self.lease {
            let wanted = until_wanted(lease);
            if wanted.is_zero() {
                keep(lease, &mut self.committer).await?;
                return Ok(Next::Late);
            }
            wait = Some(wait.map_or(wanted, |wait| wait.min(wanted)));
        }
        self.measured.writing.end();
        let received = match wait {
            None => Ok(self.commands.recv().await),
            Some(wait) => tokio::time::timeout(wait, self.commands.recv()).await,
        };
        self.measured.writing.begin();
        let Ok(received) = received else {
            return Ok(Next::Late);
        };
        Ok(received.map_or(Next::Closed, |queued| {
            Next::Command(taken_up(queued, &self.measured))
        }))
    }

    /// Makes a group durable, and answers. Returns whether it is.
    async fn commit(&mut self, group: Group) -> Result<bool, StorageError> {
        // Each commit is a sign of life.
        let mut lease = self.lease.as_mut().filter(|_| !group.batch().is_empty());
        if let Some(lease) = &mut lease {
            let begun = lease.begin(BootTime::now());
            begun.expect("what ends a term ends the process");
        }
        let began = Instant::now();
        let committed = self.committer.commit(&group).await;
        match &committed {
            Err(_) => self.measured.refused(),
            Ok(()) if group.batch().is_empty() => {}
            Ok(()) => {
                let rows = group.batch().rows.len();
                self.measured.committed(rows, began.elapsed());
            }
        }
        let committed = end_where_unknown(committed)?;
        if let Some(lease) = lease {
            note(lease, &committed, &self.committer); // before anything is answered
        }
        let is_durable = committed.is_ok();
        self.committer.finish(group, committed, BootTime::now());
        Ok(is_durable)
    }

    async fn end(&mut self) {
        if let Some(lease) = self.lease.take() {
            hand_over(lease, &mut self.committer).await;
        }
        self.committer.note_clean_end(BootTime::now()).await;
    }
}

/// A command whose turn has come.
fn taken_up(Queued { command, since }: Queued, measured: &Measured) -> Command {
    measured.queued(since.elapsed());
    for parent in command.traced() {
        drop(parent.begin_at(since, Kind::Internal, "wait for the writer"));
    }
    command
}

/// What comes next.
enum Next {
    Command(Command),
    /// Nothing by then.
    Late,
    Closed,
}

/// The chain hash that a journal has before a number, given where it ends; none where it is shorter.
async fn chain_before(
    journal: &dyn Journal,
    number: RowNumber,
    end: LedgerEnd,
) -> Result<Option<ChainHash>, StorageError> {
    if number >= end.rows {
        return Ok((number == end.rows).then_some(end.chain));
    }
    let Some(before) = number.0.checked_sub(1) else {
        return Ok(Some(ChainHash::EMPTY));
    };
    let rows = journal.rows(RowNumber(before), 1).await?;
    Ok(rows.first().map(|row| row.chain))
}

fn until_wanted(lease: &WriterLease) -> Duration {
    let wake = lease.wake().expect("it has not ended");
    wake.since(BootTime::now())
}

/// Does what is due for a lease: a beat, and beside it a look at who asks others.
async fn keep(lease: &mut WriterLease, committer: &mut Committer) -> Result<(), StorageError> {
    let Some(WriterStep::Beat(_)) = lease.next(BootTime::now()) else {
        return Ok(());
    };
    let beaten = end_where_unknown(committer.beat().await)?;
    if let Err(error) = &beaten {
        tracing::error!(%error, "the database refuses this catalog's sign of life: nothing is answered until it takes one");
    }
    note(lease, &beaten, committer);
    if beaten.is_ok() {
        committer.look_at_standbys().await;
    }
    Ok(())
}

/// What became of a statement that was not ambiguous.
fn note(lease: &mut WriterLease, done: &Result<(), StorageError>, committer: &Committer) {
    let outcome = match done {
        Ok(()) => StatementOutcome::Durable,
        Err(_) => StatementOutcome::Failed,
    };
    lease.told(outcome, BootTime::now());
    committer.answer_until(lease.serves_until());
}

/// Answers nothing more, and waits until no gateway serves what it was lent: whoever takes over need not.
async fn hand_over(mut lease: WriterLease, committer: &mut Committer) {
    lease.stop();
    committer.answer_until(BootTime::default());
    if committer.is_unheld(BootTime::now()) {
        lease.unheld();
    }
    while !matches!(lease.next(BootTime::now()), Some(WriterStep::Release(_))) {
        tokio::time::sleep(until_wanted(&lease)).await;
    }
}

/// What became of a commit, unless nobody knows what is durable, or another one writes: that ends the writer's work.
fn end_where_unknown(
    done: Result<(), StorageError>,
) -> Result<Result<(), StorageError>, StorageError> {
    match done {
        Err(error) if error.ends_process() => Err(error),
        done => Ok(done),
    }
}
