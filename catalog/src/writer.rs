//! The one thread that changes what is committed.
//!
//! It takes whatever has queued and commits it as one transaction (group commit): stage the
//! requests on the books, tell caches to let go while the disk syncs, then answer. An answer
//! to a trade goes out once it is durable and shown.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use protocol::{Epoch, Order, ReplicaId, Row, StockName, Version};
use storage::StorageError;
use tokio::sync::{mpsc, oneshot};

use crate::core::{Batch, Books, ChangeNumber, Leadership, Staged, Term, TradeResult};
use crate::desk::{Answer, Desk, TradeReply};
use crate::error::RequestError;
use crate::store::{Loaded, Store};

/// Most requests that queue; more wait with their senders.
const QUEUE_MAX: usize = 1024;

/// Most requests of one group commit.
const GROUP_REQUESTS_MAX: usize = 1024;

/// A group takes no more requests once it has so many orders.
const GROUP_ORDERS_MAX: usize = 4096;

type TermReply = oneshot::Sender<Result<Leadership, RequestError>>;

/// What the writer is asked for.
#[derive(Debug)]
enum Command {
    Trade {
        epoch: Epoch,
        orders: Vec<Order>,
        reply: TradeReply,
    },
    Elect {
        expected: Epoch,
        candidate: ReplicaId,
        reply: TermReply,
    },
    SetInSync {
        epoch: Epoch,
        change: ChangeNumber,
        in_sync: BTreeSet<ReplicaId>,
        reply: TermReply,
    },
    LendSessions {
        term: Duration,
        reply: oneshot::Sender<Result<(), RequestError>>,
    },
    Stop,
}

impl Command {
    fn orders(&self) -> usize {
        match self {
            Self::Trade { orders, .. } => orders.len(),
            _ => 0,
        }
    }
}

/// Sends requests to the writer.
#[derive(Debug, Clone)]
pub struct Writer {
    commands: mpsc::Sender<Command>,
}

impl Writer {
    /// Trades a batch of orders, in order.
    pub async fn trade(
        &self,
        epoch: Epoch,
        orders: Vec<Order>,
    ) -> Result<Vec<TradeResult>, RequestError> {
        self.ask(|reply| Command::Trade {
            epoch,
            orders,
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

    /// Notes durably that sessions may be alive after a crash, for `term` at most. To be
    /// awaited before one is opened.
    pub async fn lend_sessions(&self, term: Duration) -> Result<(), RequestError> {
        self.ask(|reply| Command::LendSessions { term, reply })
            .await
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

/// Starts the writer on a thread of its own. The receiver is told when it has ended and let
/// go of the store; where it ended by a panic (an invariant did not hold) the sender is gone.
pub fn start(
    store: Box<dyn Store>,
    loaded: Loaded,
    desk: Arc<Desk>,
) -> std::io::Result<(Writer, oneshot::Receiver<()>)> {
    let (sender, commands) = mpsc::channel(QUEUE_MAX);
    let (end, ended) = oneshot::channel();
    let Loaded {
        books,
        sessions_out,
    } = loaded;
    let mut thread = WriterThread {
        store,
        books,
        sessions_out,
        desk,
    };
    thread::Builder::new()
        .name("catalog-writer".into())
        .spawn(move || {
            thread.run(commands);
            drop(thread);
            let _ = end.send(()); // nobody may be left to care
        })?;
    Ok((Writer { commands: sender }, ended))
}

struct WriterThread {
    store: Box<dyn Store>,
    books: Books,
    /// What the store notes of sessions.
    sessions_out: Option<Duration>,
    desk: Arc<Desk>,
}

/// What the requests of a group are told once it is durable.
#[derive(Default)]
struct Replies {
    trades: Vec<Answer>,
    terms: Vec<(Result<Term, RequestError>, TermReply)>,
}

impl WriterThread {
    fn run(&mut self, mut commands: mpsc::Receiver<Command>) {
        while let Some(first) = commands.blocking_recv() {
            let group = gather(first, &mut commands);
            if group.iter().any(|command| matches!(command, Command::Stop)) {
                commands.close();
            }
            self.commit_group(group);
        }
        self.note_clean_end();
    }

    fn commit_group(&mut self, group: Vec<Command>) {
        let (batch, replies) = self.stage(group);
        let stocks = batch.stocks.clone();
        match self.commit(batch) {
            Ok(()) => {
                let leadership = self.books.leadership();
                self.desk
                    .committed(&stocks, leadership.clone(), replies.trades);
                answer_terms(replies.terms, &leadership);
            }
            Err(error) => refuse(replies, &error),
        }
    }

    fn stage(&mut self, group: Vec<Command>) -> (Batch, Replies) {
        let mut staged = self.books.stage();
        let mut replies = Replies::default();
        for command in group {
            match command {
                Command::Trade {
                    epoch,
                    orders,
                    reply,
                } => {
                    let results = stage_trade(&mut *self.store, &mut staged, epoch, &orders);
                    let awaits = orders
                        .iter()
                        .filter_map(|order| newest(&staged, &order.name));
                    replies.trades.push(Answer {
                        results,
                        awaits: awaits.collect(),
                        reply,
                    });
                }
                Command::Elect {
                    expected,
                    candidate,
                    reply,
                } => {
                    replies
                        .terms
                        .push((Ok(staged.elect(expected, candidate)), reply));
                }
                Command::SetInSync {
                    epoch,
                    change,
                    in_sync,
                    reply,
                } => {
                    let term = staged
                        .set_in_sync(epoch, change, in_sync)
                        .map_err(RequestError::from);
                    replies.terms.push((term, reply));
                }
                Command::LendSessions { term, reply } => {
                    let noted = note_sessions(&mut *self.store, &mut self.sessions_out, term);
                    let _ = reply.send(noted); // whoever asked may have left
                }
                Command::Stop => {}
            }
        }
        (staged.into_batch(), replies)
    }

    /// Makes the batch durable, while caches let go of what it changes.
    fn commit(&mut self, batch: Batch) -> Result<(), StorageError> {
        if batch.is_empty() {
            return Ok(());
        }
        self.desk.prepare(&batch);
        if let Err(error) = self.store.commit(&batch) {
            tracing::error!(%error, rows = batch.rows.len(), "a commit failed; nothing changed");
            self.desk.abandoned();
            return Err(error);
        }
        self.books.apply(batch);
        Ok(())
    }

    /// Spares the next start its wait, where no gateway can be serving what it holds.
    fn note_clean_end(&mut self) {
        if self.sessions_out.is_none() || !self.desk.is_unheld() {
            return;
        }
        if let Err(error) = self.store.set_sessions_out(None) {
            tracing::warn!(%error, "the next start will wait for leases that are over");
        }
    }
}

/// Whatever has queued, within the bounds of one group.
fn gather(first: Command, commands: &mut mpsc::Receiver<Command>) -> Vec<Command> {
    let mut orders = first.orders();
    let mut group = vec![first];
    while group.len() < GROUP_REQUESTS_MAX && orders < GROUP_ORDERS_MAX {
        let Ok(command) = commands.try_recv() else {
            break;
        };
        orders += command.orders();
        group.push(command);
    }
    group
}

/// Stages all orders of a request, or none.
fn stage_trade(
    store: &mut dyn Store,
    staged: &mut Staged<'_>,
    epoch: Epoch,
    orders: &[Order],
) -> Result<Vec<TradeResult>, RequestError> {
    staged.check_epoch(epoch)?;
    let known: Vec<Option<Row>> = orders
        .iter()
        .map(|order| store.find_key(&order.key))
        .collect::<Result<_, _>>()
        .map_err(RequestError::Unreadable)?;
    let trade = |(order, known): (&Order, _)| staged.trade(epoch, order.clone(), known);
    Ok(orders
        .iter()
        .zip(known)
        .map(trade)
        .collect::<Result<_, _>>()?)
}

/// The version of a stock that an answer about it may give away.
fn newest(staged: &Staged<'_>, name: &StockName) -> Option<(StockName, Version)> {
    staged
        .stock(name)
        .map(|stock| (name.clone(), stock.version))
}

/// The term noted never falls: sessions of the run before may last longer than today's.
fn note_sessions(
    store: &mut dyn Store,
    noted: &mut Option<Duration>,
    term: Duration,
) -> Result<(), RequestError> {
    if noted.is_some_and(|noted| noted >= term) {
        return Ok(());
    }
    store
        .set_sessions_out(Some(term))
        .map_err(|error| RequestError::NotCommitted(error.to_string()))?;
    *noted = Some(term);
    Ok(())
}

fn answer_terms(terms: Vec<(Result<Term, RequestError>, TermReply)>, leadership: &Leadership) {
    for (term, reply) in terms {
        let answer = term.map(|term| Leadership {
            term,
            end: leadership.end,
        });
        let _ = reply.send(answer); // whoever asked may have left
    }
}

/// Every answer of a group rests on the whole of it, also those that changed nothing.
fn refuse(replies: Replies, error: &StorageError) {
    let refusal = || RequestError::NotCommitted(error.to_string());
    for answer in replies.trades {
        let _ = answer.reply.send(Err(refusal())); // whoever asked may have left
    }
    for (_, reply) in replies.terms {
        let _ = reply.send(Err(refusal())); // whoever asked may have left
    }
}
