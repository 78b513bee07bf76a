//! The one thread that changes what is committed.
//!
//! It takes whatever has queued and commits it as one transaction (group commit), see [`group`].

pub mod group;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use daemon::tasks;
use domain::time::BootTime;
use domain::{Epoch, Order, ReplicaId};
use storage::StorageError;
use storage::error::fail_stop;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use crate::error::RequestError;
use crate::shared::Shared;
use crate::store::{Loaded, Store};
use catalog_core::writer_lease::{StatementOutcome, WriterLease, WriterStep};
use catalog_core::{Leadership, TradeResult};
use domain::ChangeNumber;

use group::{Command, Committer, ProposedReply};

/// Most requests that queue; more wait with their senders.
pub const QUEUE_MAX: usize = 1024;

/// Sends requests to the writer.
#[derive(Debug, Clone)]
pub struct Writer {
    commands: mpsc::Sender<Command>,
}

impl Writer {
    /// Trades a batch of orders, in order. `proposed` is told of their new rows beforehand, where
    /// they are few.
    pub async fn trade(
        &self,
        epoch: Epoch,
        orders: Vec<Order>,
        proposed: ProposedReply,
    ) -> Result<Vec<TradeResult>, RequestError> {
        self.ask(|reply| Command::Trade {
            epoch,
            orders,
            proposed,
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
        epoch: Epoch,
        change: ChangeNumber,
        in_sync: BTreeSet<ReplicaId>,
    ) -> Result<Leadership, RequestError> {
        self.ask(|reply| Command::SetInSync {
            epoch,
            change,
            in_sync,
            reply,
        })
        .await
    }

    /// Notes durably that sessions may be alive after a crash, for `lease_max` at most. To be
    /// awaited before one is opened.
    pub async fn lend_sessions(&self, lease_max: Duration) -> Result<(), RequestError> {
        self.ask(|reply| Command::LendSessions { lease_max, reply })
            .await
    }

    /// How many requests queue.
    #[cfg(test)]
    pub(crate) fn queued(&self) -> usize {
        self.commands.max_capacity() - self.commands.capacity()
    }

    /// Has the writer finish what has queued, take no more, and end.
    pub async fn stop(&self) {
        let _ = self.commands.send(Command::Stop).await; // it may have ended
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, RequestError>>) -> Command,
    ) -> Result<T, RequestError> {
        let (reply, answer) = oneshot::channel();
        self.commands
            .send(command(reply))
            .await
            .map_err(|_| RequestError::Stopping)?;
        answer.await.map_err(|_| RequestError::Stopping)?
    }
}

/// Begins this run's first epoch, and starts the writer on a thread of its own. The receiver is told when it has ended and let
/// go of the store.
pub async fn start(
    store: Box<dyn Store>,
    loaded: Loaded,
    shared: Arc<Shared>,
) -> std::io::Result<(Writer, oneshot::Receiver<()>)> {
    let (sender, commands) = mpsc::channel(QUEUE_MAX);
    let (end, ended) = oneshot::channel();
    let lease = store.writer_lease();
    if let Some(lease) = &lease {
        shared.answer_until(lease.serves_until());
    }
    let mut committer = Committer::new(store, loaded, shared);
    if let Err(error) = committer.begin_next_epoch().await {
        fail_stop(&error);
    }
    let runtime = Handle::current();
    tasks::thread("catalog-writer", move || {
        // This thread alone runs it: where a store blocks, nobody else waits. What a store does
        // over the network, and timers, the runtime's own thread drives.
        runtime.block_on(write(&mut committer, lease, commands));
        drop(committer);
        let _ = end.send(()); // nobody may be left to care
    })?;
    Ok((Writer { commands: sender }, ended))
}

async fn write(
    committer: &mut Committer,
    mut lease: Option<WriterLease>,
    mut commands: mpsc::Receiver<Command>,
) {
    loop {
        let first = match &mut lease {
            None => commands.recv().await,
            Some(lease) => {
                // However much there is to do that changes nothing, its signs of life go on.
                let wait = until_wanted(lease);
                if wait.is_zero() {
                    keep(lease, committer).await;
                    continue;
                }
                match tokio::time::timeout(wait, commands.recv()).await {
                    Ok(first) => first,
                    Err(_) => continue,
                }
            }
        };
        let Some(first) = first else {
            break;
        };
        let group = group::gather(first, || commands.try_recv().ok());
        if group.iter().any(|command| matches!(command, Command::Stop)) {
            commands.close();
        }
        let group = committer.begin(group).await;
        // Each commit is a sign of life.
        let mut lease = lease.as_mut().filter(|_| !group.batch().is_empty());
        if let Some(lease) = &mut lease {
            let begun = lease.begin(BootTime::now());
            begun.expect("what ends a term ends the process");
        }
        let committed = committer.commit(&group).await;
        end_where_unknown(&committed);
        if let Some(lease) = lease {
            note(lease, &committed, committer); // before anything is answered
        }
        committer.finish(group, committed);
    }
    if let Some(lease) = lease {
        hand_over(lease, committer).await;
    }
    committer.note_clean_end(BootTime::now()).await;
}

fn until_wanted(lease: &WriterLease) -> Duration {
    let wake = lease.wake().expect("it has not ended");
    wake.since(BootTime::now())
}

/// Does what is due for a lease: a beat.
async fn keep(lease: &mut WriterLease, committer: &mut Committer) {
    let Some(WriterStep::Beat(_)) = lease.next(BootTime::now()) else {
        return;
    };
    let beaten = committer.beat().await;
    end_where_unknown(&beaten);
    if let Err(error) = &beaten {
        tracing::error!(%error, "the database refuses this catalog's sign of life: nothing is answered until it takes one");
    }
    note(lease, &beaten, committer);
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

/// Ends the process where nobody knows what is durable, or another one writes.
fn end_where_unknown(done: &Result<(), StorageError>) {
    if let Err(error) = done
        && error.ends_process()
    {
        fail_stop(error);
    }
}
