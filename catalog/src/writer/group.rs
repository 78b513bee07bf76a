//! A group commit in three steps, on whatever thread or clock: [begin](Committer::begin) stages
//! the requests on the catalog's state, tells caches to let go, and proposes the new rows to those who asked
//! for them; [commit](Committer::commit) makes it
//! durable, which takes a disk's time; [finish](Committer::finish) answers. An answer to a trade
//! goes out once it is durable and shown.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::time::BootTime;
use domain::{Entry, Epoch, IdempotencyKey, Protocol, ReplicaId, Row, RowNumber};
use storage::StorageError;
use tokio::sync::oneshot;
use traces::{Kind, Parent};

use super::failures::{Ended, Failures};
use super::healing::{MissingReply, Told};
use crate::error::RequestError;
use crate::shared::{Answer, Shared, TradeReply};
use crate::store::{Loaded, Store};
use catalog_core::reach::SAY_INTERVAL;
use catalog_core::{Batch, CatalogState, Leadership, PriorOutcome, Staged, Term, TradeResult};
use domain::ChangeNumber;

/// Most requests of one group commit.
const GROUP_REQUESTS_MAX: usize = 1024;

/// A group takes no more requests once it has so many orders.
const GROUP_ORDERS_MAX: usize = 4096;

/// Most new rows of a group that proposes them. A group with more proposes none: one sync is little for so many, and every
/// replica would write each of them twice.
pub const GROUP_PROPOSED_MAX: usize = 8;

/// Who has a use for rows that are about to be committed.
pub type ProposedReply = oneshot::Sender<Vec<Row>>;

/// Who asked for a change of the term.
pub type TermReply = oneshot::Sender<Result<Leadership, RequestError>>;

/// Who asked for sessions.
pub type LendReply = oneshot::Sender<Result<(), RequestError>>;

/// Who has the bazaar be at a version of the protocol.
pub type RaiseReply = oneshot::Sender<Result<(), RequestError>>;

/// Who asks for what only the leader may.
#[derive(Debug, Clone, Copy)]
pub struct Sender {
    /// In which it leads.
    pub epoch: Epoch,
    /// Which replica it has proven to be, where that is asked for.
    pub replica: Option<ReplicaId>,
}

impl Sender {
    /// An epoch that is over tells the caller more than that another one leads now.
    fn check(self, staged: &Staged<'_>) -> Result<(), RequestError> {
        staged.check_epoch(self.epoch)?;
        match self.replica {
            Some(replica) => Ok(staged.check_leads(replica)?),
            None => Ok(()),
        }
    }
}

/// What the writer is asked for.
#[derive(Debug)]
pub enum Command {
    /// Trade a batch of orders, in order.
    Trade {
        sender: Sender,
        /// With changes of stocks among them.
        orders: Vec<Entry>,
        /// Told, where there are few, of the new rows on their way to the disk.
        proposed: ProposedReply,
        /// The calls' spans of those that are traced.
        traced: Vec<Parent>,
        /// One result for each order.
        reply: TradeReply,
    },
    /// See [`Staged::elect`].
    Elect {
        /// The current epoch, as far as the sender knows.
        expected: Epoch,
        /// Who is to lead the next one.
        candidate: ReplicaId,
        /// The term that then holds.
        reply: TermReply,
    },
    /// See [`Staged::set_in_sync`].
    SetInSync {
        sender: Sender,
        /// Above that of every change asked for before in this epoch.
        change: ChangeNumber,
        in_sync: BTreeSet<ReplicaId>,
        /// The term that then holds.
        reply: TermReply,
    },
    /// Note durably that sessions may be alive after a crash.
    LendSessions {
        /// For how long at most.
        lease_max: Duration,
        /// Once it is noted.
        reply: LendReply,
    },
    /// Have the bazaar be at a version of the protocol, or at a later one where it is.
    RaiseProtocol {
        protocol: Protocol,
        /// Once it is noted.
        reply: RaiseReply,
    },
    /// Take in what a replica has, before anything else is done. See [`super::healing`].
    Heal { told: Told, reply: MissingReply },
    /// Take no more commands.
    Stop,
}

impl Command {
    /// What it asks to trade.
    fn traded(&self) -> &[Entry] {
        match self {
            Self::Trade { orders, .. } => orders,
            _ => &[],
        }
    }

    /// The spans that it is under.
    pub(super) fn traced(&self) -> &[Parent] {
        match self {
            Self::Trade { traced, .. } => traced,
            _ => &[],
        }
    }

    fn orders(&self) -> usize {
        self.traded().len()
    }
}

/// Whatever has queued, within the bounds of one group.
pub fn gather(first: Command, mut next: impl FnMut() -> Option<Command>) -> Vec<Command> {
    let mut orders = first.orders();
    let mut group = vec![first];
    while group.len() < GROUP_REQUESTS_MAX && orders < GROUP_ORDERS_MAX {
        let Some(command) = next() else {
            break;
        };
        orders += command.orders();
        group.push(command);
    }
    group
}

/// A group that has begun.
#[derive(Debug)]
pub struct Group {
    batch: Batch,
    lend: Option<Duration>,
    raise: Option<Protocol>,
    /// Somebody was told of its rows.
    proposed: bool,
    /// It begins an epoch before all else.
    begins_epoch: bool,
    replies: Replies,
}

impl Group {
    /// What of it is to be made durable, but for the note of sessions.
    pub fn batch(&self) -> &Batch {
        &self.batch
    }

    /// Its commit, for the traces of its orders: one for all of them, which all have a span of.
    fn trace_commit(&self, began: Instant, system: &'static str) {
        for parent in self.replies.trades.iter().flat_map(|answer| &answer.traced) {
            let span = parent.begin_at(began, Kind::Client, "COMMIT");
            let calls = self.replies.trades.len();
            drop(
                span.with("db.system.name", system)
                    .with("db.operation.name", "COMMIT")
                    .with("db.operation.batch.size", self.batch.rows.len())
                    .with("bazaar.commit.calls", calls),
            );
        }
    }

    /// Tells those who have a use for it of the rows that their orders make.
    fn propose(&mut self) {
        let rows = &self.batch.rows;
        if rows.len() > GROUP_PROPOSED_MAX {
            return;
        }
        for (reply, numbers) in self.replies.proposals.drain(..) {
            let theirs = rows.iter().filter(|row| numbers.contains(&row.number));
            let theirs: Vec<Row> = theirs.cloned().collect();
            if !theirs.is_empty() {
                self.proposed |= reply.send(theirs).is_ok();
            }
        }
    }
}

/// What the requests of a group are told once it is durable.
#[derive(Debug, Default)]
struct Replies {
    proposals: Vec<(ProposedReply, Vec<RowNumber>)>,
    trades: Vec<Answer>,
    terms: Vec<(Result<Term, RequestError>, TermReply)>,
    lends: Vec<LendReply>,
    raises: Vec<RaiseReply>,
}

/// Owns the catalog's state and its store, and commits groups to them, one at a time.
pub struct Committer {
    store: Box<dyn Store>,
    state: CatalogState,
    /// What the store notes of sessions.
    sessions_out: Option<Duration>,
    /// Rows may have been proposed in this epoch that were not committed.
    epoch_tainted: bool,
    failures: Failures,
    shared: Arc<Shared>,
    /// When it was read last who asks catalogs that stand by.
    looked_at: BootTime,
}

impl Committer {
    /// Of a store, and what was loaded of it.
    pub fn new(store: Box<dyn Store>, loaded: Loaded, shared: Arc<Shared>) -> Self {
        let Loaded {
            state,
            sessions_out,
            ..
        } = loaded;
        Self {
            store,
            state,
            sessions_out,
            // By the run before, which may have crashed.
            epoch_tainted: true,
            failures: Failures::default(),
            shared,
            looked_at: BootTime::default(),
        }
    }

    /// A group of a batch that nobody waits for.
    pub fn begin_alone(&self, batch: Batch) -> Group {
        if !batch.is_empty() {
            self.shared.prepare(&batch);
        }
        Group {
            batch,
            lend: None,
            raise: None,
            proposed: false,
            begins_epoch: false,
            replies: Replies::default(),
        }
    }

    /// Rows, all of which are new, up to the first from a place on whose key was used before.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn unused(
        &mut self,
        mut rows: Vec<Row>,
        from: usize,
    ) -> Result<Vec<Row>, StorageError> {
        let keys: Vec<&IdempotencyKey> = rows[from..].iter().map(|row| row.entry.key()).collect();
        if keys.is_empty() {
            return Ok(rows);
        }
        let known = self.store.find_keys(&keys).await?;
        let unused = known.iter().take_while(|known| known.is_none()).count();
        rows.truncate(from + unused);
        Ok(rows)
    }

    /// Whoever takes the store over next need not suspect that it lacks rows. Where that cannot be noted it does.
    pub async fn note_healed(&mut self) {
        if let Err(error) = self.store.note_healed().await {
            tracing::warn!(%error, "the next start will suspect that the database lacks rows");
        }
    }

    /// Nothing is served for so long: gateways may be served by leases of before.
    ///
    /// # Errors
    /// Where a start after this one could not know.
    pub async fn wait_for_leases(
        &mut self,
        lease_horizon: Duration,
        now: BootTime,
    ) -> Result<(), StorageError> {
        if self.sessions_out < Some(lease_horizon) {
            self.store.set_sessions_out(Some(lease_horizon)).await?;
            self.sessions_out = Some(lease_horizon);
        }
        self.shared.serve_from(now + lease_horizon);
        Ok(())
    }

    pub fn state(&self) -> &CatalogState {
        &self.state
    }

    /// Stages requests, tells caches to let go of what they change, and those who asked of the
    /// rows. What their orders' keys were used for is looked up before, in one call.
    pub async fn begin(&mut self, commands: Vec<Command>) -> Group {
        let known = self.find_keys(&commands).await;
        let mut group = self.stage(commands, known);
        if !group.batch.is_empty() {
            self.shared.prepare(&group.batch);
        }
        group.propose();
        group
    }

    /// Makes the group durable, while caches let go.
    ///
    /// # Errors
    /// Where nothing of its batch is, or nobody knows: then the error
    /// [ends the process](StorageError::ends_process).
    pub async fn commit(&mut self, group: &Group) -> Result<(), StorageError> {
        if let Some(lease_max) = group.lend {
            self.store.set_sessions_out(Some(lease_max)).await?;
            self.sessions_out = Some(lease_max);
        }
        if let Some(protocol) = group.raise {
            self.store.raise_protocol(protocol).await?;
            self.shared.set_protocol(protocol);
        }
        if group.batch.is_empty() {
            return Ok(());
        }
        let began = Instant::now();
        let committed = self.store.commit(&group.batch).await;
        group.trace_commit(began, self.store.system());
        committed
    }

    /// Answers, now that the group is durable or is not.
    pub fn finish(&mut self, group: Group, committed: Result<(), StorageError>, now: BootTime) {
        let Group {
            batch,
            replies,
            proposed,
            begins_epoch,
            lend,
            raise,
            ..
        } = group;
        if let Err(error) = committed {
            self.epoch_tainted |= proposed;
            self.note_failure(&error, batch.rows.len(), now);
            self.shared.abandon();
            return refuse(replies, &error);
        }
        if !batch.is_empty() || lend.is_some() || raise.is_some() {
            self.note_success(now);
        }
        let stocks = batch.stocks.clone();
        // A term that was only put back is still the one in which rows may have been proposed.
        self.epoch_tainted &= !(begins_epoch && batch.term.is_some());
        let before = self.state.leadership().term.epoch;
        if !batch.is_empty() {
            self.state.apply(batch);
        }
        let leadership = self.state.leadership();
        if leadership.term.epoch > before {
            self.shared.measured.elected();
        }
        self.shared
            .mark_durable(&stocks, leadership.clone(), replies.trades, now);
        answer_terms(replies.terms, &leadership);
        for reply in replies.lends.into_iter().chain(replies.raises) {
            let _ = reply.send(Ok(())); // the caller may have left
        }
    }

    /// When a commit is to be [tried](Self::begin_again) without anybody's asking, where the last one failed.
    pub fn retries_at(&self) -> Option<BootTime> {
        self.failures.retries_at()
    }

    /// A group that shows whether commits still fail: it begins an epoch, which is as durable as a trade. Who is told that
    /// they fail, and asks for nothing, hears of their end.
    pub async fn begin_again(&mut self, now: BootTime) -> Group {
        self.epoch_tainted = true;
        self.failures.tried(now);
        self.begin(Vec::new()).await
    }

    fn note_failure(&mut self, error: &StorageError, rows: usize, now: BootTime) {
        if let Some(commits) = self.failures.failed(now) {
            tracing::error!(%error, rows, commits, "a commit failed; nothing changed");
        }
        self.shared.set_commits_fail(true);
    }

    fn note_success(&mut self, now: BootTime) {
        let Some(Ended { commits, is_logged }) = self.failures.succeeded(now) else {
            return;
        };
        if is_logged {
            tracing::info!(commits, "commits succeed again, after so many failed");
        }
        self.shared.set_commits_fail(false);
    }

    /// See [`Shared::is_unheld`].
    pub fn is_unheld(&self, now: BootTime) -> bool {
        self.shared.is_unheld(now)
    }

    /// Until then no other writer can have taken the store over: what is shown is what is committed.
    pub fn answer_until(&self, until: BootTime) {
        self.shared.answer_until(until);
    }

    /// Says that the store's writer is there, where nothing was committed for a while.
    pub async fn beat(&mut self) -> Result<(), StorageError> {
        self.store.beat().await
    }

    /// Has it known how many callers ask catalogs that stand by, where that was not just read.
    pub async fn look_at_standbys(&mut self) {
        let now = BootTime::now();
        if now.since(self.looked_at) < SAY_INTERVAL / 2 {
            return;
        }
        self.looked_at = now;
        match self.store.standby_callers().await {
            Ok(Some(said)) => self.shared.set_standby_callers(said),
            Ok(None) => {}
            Err(error) => tracing::debug!(%error, "cannot read who asks catalogs that stand by"),
        }
    }

    /// Spares the next start its waits: for leases, where no gateway can be serving what it holds,
    /// and for this writer.
    pub async fn note_clean_end(&mut self, now: BootTime) {
        if self.sessions_out.is_some()
            && self.shared.is_unheld(now)
            && let Err(error) = self.store.set_sessions_out(None).await
        {
            tracing::warn!(%error, "the next start will wait for leases that are over");
        }
        if let Err(error) = self.store.close().await {
            tracing::warn!(%error, "the next start will wait for this one's end");
        }
    }

    /// What the keys of all orders were used for before this group, in the order of the orders.
    async fn find_keys(&mut self, commands: &[Command]) -> Known {
        let keys: Vec<&IdempotencyKey> = commands
            .iter()
            .flat_map(Command::traded)
            .map(Entry::key)
            .collect();
        if keys.is_empty() {
            return Ok(Vec::new().into_iter());
        }
        let known = self.store.find_keys(&keys).await?;
        assert_eq!(known.len(), keys.len(), "every key is looked up");
        Ok(known.into_iter())
    }

    fn stage(&self, commands: Vec<Command>, mut known: Known) -> Group {
        let mut staged = self.state.stage();
        if self.epoch_tainted {
            staged.begin_next_epoch();
        }
        let (mut lend, mut raise) = (None, None);
        let mut replies = Replies::default();
        for command in commands {
            match command {
                Command::Trade {
                    sender,
                    orders,
                    proposed,
                    traced,
                    reply,
                } => {
                    let results = stage_trade(&mut known, &mut staged, sender, &orders);
                    if let Ok(results) = &results {
                        replies.proposals.push((proposed, numbers(results)));
                    }
                    let awaits = orders
                        .iter()
                        .map(|order| (order.name().clone(), staged.newest(order.name())));
                    replies.trades.push(Answer {
                        results,
                        awaits: awaits.collect(),
                        traced,
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
                    sender,
                    change,
                    in_sync,
                    reply,
                } => {
                    let term = sender
                        .check(&staged)
                        .and_then(|()| Ok(staged.set_in_sync(sender.epoch, change, in_sync)?));
                    replies.terms.push((term, reply));
                }
                Command::LendSessions { lease_max, reply } => {
                    // What is noted never falls: sessions of the run before may last longer.
                    if lend.max(self.sessions_out) < Some(lease_max) {
                        lend = Some(lease_max);
                    }
                    replies.lends.push(reply);
                }
                Command::RaiseProtocol { protocol, reply } => {
                    if protocol > self.shared.protocol() {
                        raise = raise.max(Some(protocol));
                    }
                    replies.raises.push(reply);
                }
                Command::Heal { reply, .. } => {
                    let _ = reply.send(Err(RequestError::Healed)); // the caller may have left
                }
                Command::Stop => {}
            }
        }
        Group {
            batch: staged.into_batch(),
            lend,
            raise,
            proposed: false,
            begins_epoch: self.epoch_tainted,
            replies,
        }
    }
}

/// Of the rows that orders made, now or before.
fn numbers(results: &[TradeResult]) -> Vec<RowNumber> {
    let number = |result: &TradeResult| match result {
        TradeResult::Row(row) => Some(row.number),
        TradeResult::Refused(_) => None,
    };
    results.iter().filter_map(number).collect()
}

/// What is left of what was looked up, for the orders that are yet to be staged.
type Known = Result<std::vec::IntoIter<Option<PriorOutcome>>, Arc<StorageError>>;

/// Stages all orders of a request, or none. Takes what is known of their keys off `known`.
fn stage_trade(
    known: &mut Known,
    staged: &mut Staged<'_>,
    sender: Sender,
    orders: &[Entry],
) -> Result<Vec<TradeResult>, RequestError> {
    let mut known = match known {
        Ok(known) => known.by_ref().take(orders.len()),
        Err(error) => return Err(RequestError::unreadable(Arc::clone(error))),
    };
    let checked = sender.check(staged);
    let trade =
        |(order, known): (&Entry, _)| Ok(staged.trade(sender.epoch, order.clone(), known)?);
    let results = checked.and_then(|()| orders.iter().zip(&mut known).map(trade).collect());
    known.for_each(drop); // what is left then is for the requests behind
    results
}

fn answer_terms(terms: Vec<(Result<Term, RequestError>, TermReply)>, leadership: &Leadership) {
    for (term, reply) in terms {
        let answer = term.map(|term| Leadership {
            term,
            end: leadership.end,
        });
        let _ = reply.send(answer); // the caller may have left
    }
}

/// Every answer of a group rests on the whole of it, also those that changed nothing.
fn refuse(replies: Replies, error: &StorageError) {
    let refusal = || RequestError::NotCommitted(error.to_string());
    for answer in replies.trades {
        let _ = answer.reply.send(Err(refusal())); // the caller may have left
    }
    for (_, reply) in replies.terms {
        let _ = reply.send(Err(refusal())); // the caller may have left
    }
    for reply in replies.lends.into_iter().chain(replies.raises) {
        let _ = reply.send(Err(refusal())); // the caller may have left
    }
}
