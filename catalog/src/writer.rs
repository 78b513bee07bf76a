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

use crate::config::lease_margin;
use crate::error::RequestError;
use crate::shared::Shared;
use crate::store::{Loaded, Store};
use catalog_core::writer_lease::BEATS;
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
    let mut committer = Committer::new(store, loaded, shared);
    if committer.writer_lease().is_some() {
        committer.answer_until(BootTime::default()); // until the first sign of life
    }
    if let Err(error) = committer.begin_next_epoch().await {
        fail_stop(&error);
    }
    let runtime = Handle::current();
    tasks::thread("catalog-writer", move || {
        // This thread alone runs it: where a store blocks, nobody else waits. What a store does
        // over the network, and timers, the runtime's own thread drives.
        runtime.block_on(write(&mut committer, commands));
        drop(committer);
        let _ = end.send(()); // nobody may be left to care
    })?;
    Ok((Writer { commands: sender }, ended))
}

async fn write(committer: &mut Committer, mut commands: mpsc::Receiver<Command>) {
    let mut beats = committer.writer_lease().map(Beats::new);
    loop {
        let first = match &mut beats {
            None => commands.recv().await,
            Some(beats) => {
                let wait = beats.next.since(BootTime::now());
                if wait.is_zero() {
                    beats.beat(committer).await;
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
        let sent = BootTime::now();
        let committed = committer.commit(&group).await;
        end_where_unknown(&committed);
        if let Some(beats) = &mut beats
            && group.is_written()
            && committed.is_ok()
        {
            beats.note(sent, committer); // before anything is answered
        }
        committer.finish(group, committed);
    }
    committer.note_clean_end(BootTime::now()).await;
}

/// The writer's signs of life, where another one can take the store over: each commit is one. However much there is to
/// do that changes nothing, they go on.
struct Beats {
    lease: Duration,
    next: BootTime,
}

impl Beats {
    /// The first one is due now.
    fn new(lease: Duration) -> Self {
        Self {
            lease,
            next: BootTime::now(),
        }
    }

    async fn beat(&mut self, committer: &mut Committer) {
        let sent = BootTime::now();
        let beaten = committer.beat().await;
        end_where_unknown(&beaten);
        match beaten {
            Ok(()) => self.note(sent, committer),
            Err(error) => {
                tracing::error!(%error, "the database refuses this catalog's sign of life: nothing is answered until it takes one");
                self.next = sent + self.lease / BEATS;
            }
        }
    }

    /// One that was sent then was acknowledged. Others wait for a lease after that; this one believes in it for a
    /// little less, whatever their clocks are like.
    fn note(&mut self, sent: BootTime, committer: &Committer) {
        self.next = sent + self.lease / BEATS;
        committer.answer_until(sent + self.lease - lease_margin(self.lease));
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
