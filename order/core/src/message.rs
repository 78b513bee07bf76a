//! What the core is told and what it wants done.

use std::collections::BTreeSet;
use std::fmt;
use std::hash::{Hash, Hasher};

use crate::durable::{Durable, Save};
use domain::LedgerEnd;
use domain::{
    CatalogRun, ChainHash, ChangeNumber, Entry, Epoch, Identity, JournalHead, JournalId,
    OrderNumber, Refusal, ReplicaId, Role, Row, RowNumber, Term,
};

/// A caller that waits for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// A call that the core had made and whose result it waits for. Never used twice, so that a
/// result that comes after the core has lost interest is known as such.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallId(pub u64);

/// Says nothing: replicas that differ only in how their calls are numbered do the same, and
/// a model checker is to see them as one. See [`super::Replica::awaited`].
impl Hash for CallId {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Calls(u64);

impl Calls {
    pub(super) fn next(&mut self) -> CallId {
        self.0 += 1;
        CallId(self.0)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A gateway places an order.
    Place {
        ticket: Ticket,
        /// What is asked for; it may be a change of a stock.
        order: Entry,
    },
    /// A gateway says who leads.
    Announce {
        ticket: Ticket,
        epoch: Epoch,
        leader: ReplicaId,
    },
    /// A leader sends rows.
    Append {
        ticket: Ticket,
        epoch: Epoch,
        leader: ReplicaId,
        /// In number order; none, to ask what this replica holds.
        rows: Vec<Row>,
        /// Rows below are committed, those from there on are proposed.
        committed: RowNumber,
    },
    /// Everything up to here is durable.
    Stored(Durable),
    /// At least one save failed; the store holds this much.
    StoreFailed(Durable),
    /// The catalog's answer to "who leads, and how long is the journal?", in the order in which it
    /// was asked.
    JournalHead {
        /// `None` where it gave none in time.
        head: Option<JournalHead>,
        /// Where the ledger ended when it was asked.
        held: LedgerEnd,
    },
    /// The catalog's answer to the same: it has started, and is to be reported to before it serves.
    CatalogHeals(CatalogRun),
    /// The journal holds at least so many rows.
    Heard(RowNumber),
    /// [`Command::Trade`] goes well so far: these rows are on their way to the journal's disk.
    Proposed { call: CallId, rows: Vec<Row> },
    /// The result of [`Command::Trade`]: one outcome for each order, in their order.
    Traded {
        call: CallId,
        /// What came of it.
        result: Result<Vec<Outcome>, CallFailure>,
    },
    /// The result of [`Command::SetInSync`].
    InSyncSet {
        call: CallId,
        /// What came of it.
        result: Result<JournalHead, CallFailure>,
    },
    /// The result of [`Command::Fetch`]: rows in number order; fewer than asked for where the
    /// source has no more.
    Fetched {
        call: CallId,
        /// What came of it.
        result: Result<Vec<Row>, CallFailure>,
    },
    /// The result of [`Command::Append`]: what the follower holds durably, as a ledger or as rows
    /// proposed in this epoch.
    Appended {
        call: CallId,
        peer: ReplicaId,
        /// What came of it.
        result: Result<LedgerEnd, CallFailure>,
    },
}

/// What the catalog says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    /// Which journal it keeps.
    pub identity: Identity,
    /// Who leads, and where the journal ends.
    pub head: JournalHead,
    /// Since its start it has put back what its database lacked: a row that its journal lacks does not
    /// exist.
    pub healed: bool,
    /// Which run of it says so; `None` of a catalog of before there were reports.
    pub run: Option<CatalogRun>,
}

impl Heard {
    /// The run to which a ledger is to be reported before it serves.
    pub fn heals(&self) -> Option<CatalogRun> {
        self.run.filter(|_| !self.healed)
    }
}

/// Why a call did not succeed. The core makes one anew from what is so by then, and counts all that it
/// does not know by name as [`CallFailure::Failed`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CallFailure {
    /// The callee knows of a higher epoch: nothing was done.
    Fenced,
    /// A fetch: the source ends before the rows that were asked for.
    Beyond,
    /// A fetch: the source has another row before those.
    Differs,
    /// A row that was shown as missing: the journal does not lack it, or went on without it.
    NotMissing,
    /// The callee said no for another reason, which asking it again does not change: it keeps another
    /// journal, or speaks another protocol.
    Refused,
    /// Anything else, or no answer in time: whether it was done is unknown.
    Failed,
}

/// What the catalog did with an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is this row, now or since an earlier attempt under the same key.
    Row(Row),
    /// It is not committed.
    Refused(Refusal),
}

/// Where rows can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// The catalog's journal, which has them all.
    Journal,
    Peer(ReplicaId),
}

/// What is to be sent to a follower.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shipment {
    /// These rows; none, to ask what it holds.
    Rows(Vec<Row>),
    /// Rows from the leader's own store.
    Stored {
        from: RowNumber,
        /// At most so many.
        rows_max: usize,
    },
}

/// What is to be done. Every call's result comes back as an event, within a bounded time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Make this durable, after all saves before it.
    Save(Save),
    /// Ask the catalog for its head, without waiting until it is time to.
    AskCatalog,
    /// Show the catalog that it has lost rows: this one, of the ledger, follows its last.
    ReportMissing(RowNumber),
    /// Tell a catalog that has started what is here, also beside the ledger, and show it the rows that
    /// it asks for.
    ReportLedger {
        run: CatalogRun,
        /// Where the ledger ends, with the committed rows that are yet to be saved there.
        end: LedgerEnd,
        term: Term,
        peers: Vec<ReplicaId>,
    },
    /// End this replica: it must not be believed as it is.
    Fail(Failure),
    /// Have the catalog commit these orders.
    Trade {
        call: CallId,
        epoch: Epoch,
        /// At most [`super::in_flight::BATCH_ORDERS_MAX`].
        orders: Vec<Entry>,
    },
    /// Have the catalog replace the in-sync set.
    SetInSync {
        call: CallId,
        epoch: Epoch,
        /// Above that of every change asked for before in this epoch.
        change: ChangeNumber,
        /// The new set, with the leader in it.
        in_sync: BTreeSet<ReplicaId>,
    },
    Fetch {
        call: CallId,
        source: Source,
        from: RowNumber,
        /// Chain hash of the row before it.
        previous: ChainHash,
        /// At most so many.
        rows_max: usize,
    },
    /// Send rows to a follower.
    Append {
        call: CallId,
        peer: ReplicaId,
        epoch: Epoch,
        shipment: Shipment,
        /// Rows below are committed, those from there on are proposed.
        committed: RowNumber,
    },
    /// Answer [`Event::Place`].
    AnswerPlace {
        ticket: Ticket,
        answer: Result<Placed, Unavailable>,
    },
    /// Answer [`Event::Announce`].
    AnswerAnnounce {
        ticket: Ticket,
        answer: Result<Status, Refused>,
    },
    /// Answer [`Event::Append`].
    AnswerAppend {
        ticket: Ticket,
        /// What is durable here.
        answer: Result<LedgerEnd, Refused>,
    },
    Report(Report),
}

/// The result of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Placed {
    /// It is in the journal and at the leader and every in-sync follower, under this number.
    Number(OrderNumber),
    /// The same of a change of a stock, whose row has this number.
    StockChanged(RowNumber),
    /// It is not committed.
    Refused(Refusal),
}

impl Placed {
    /// What whoever placed this row is told once it is acknowledged.
    pub(super) fn of(row: &Row) -> Self {
        match row.order_number() {
            Some(number) => Self::Number(number),
            None => Self::StockChanged(row.number),
        }
    }
}

/// Why an order got no result. It may or may not have been committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// Another replica, or nobody, leads.
    #[error("this replica does not lead")]
    NotLeading,
    /// Elected, and still fetching what it lacks.
    #[error("this replica is becoming the leader")]
    Activating,
    /// It led when the order came.
    #[error("this replica no longer leads")]
    SteppedDown,
    /// The catalog did not answer in time.
    #[error("the catalog cannot be reached")]
    CatalogUnreachable,
    /// Too many orders wait.
    #[error("too many orders are waiting")]
    Overloaded,
}

/// Why an announcement or rows were refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The sender's epoch is over.
    #[error("epoch {known} has begun")]
    Stale {
        /// The highest epoch known here.
        known: Epoch,
    },
    /// The replica has let go of everything, and takes rows of a later epoch only.
    #[error(
        "the catalog has started anew, or was not heard yet: rows of epoch {epoch} are not taken"
    )]
    LetGo { epoch: Epoch },
    /// Only the catalog begins epochs, and it has not said that this one began.
    #[error("the catalog has not begun epoch {epoch}; the current one is {known}")]
    Unconfirmed {
        epoch: Epoch,
        /// The highest epoch known here.
        known: Epoch,
    },
    /// This replica is told to lead an epoch in which it has stopped leading.
    #[error("this replica has stopped leading epoch {epoch}; elect a leader for another one")]
    LeadsNoMore { epoch: Epoch },
    /// Two leaders are claimed for one epoch, which the catalog never elects.
    #[error("another replica leads epoch {epoch}")]
    OtherLeader { epoch: Epoch },
    /// The disk is full, or the store failed otherwise.
    #[error("the replica's store cannot take it")]
    StoreFailed,
    /// The rows do not continue this replica's hash chain: one of the ledgers is damaged.
    #[error("row {number} does not continue the replica's hash chain")]
    Broken {
        /// The first row that does not.
        number: RowNumber,
    },
}

/// A replica from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    pub id: ReplicaId,
    pub role: Role,
    /// The highest term that it has seen.
    pub term: Term,
    /// Where its durable ledger ends.
    pub end: LedgerEnd,
    /// Whether the catalog answered last time.
    pub reaches_catalog: bool,
    /// Whether it takes rows of the epoch that it knows. Not before the catalog has been heard since the
    /// start, nor from a report to one that started until another epoch has begun.
    pub takes_rows: bool,
}

/// What the operator should know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    /// This replica was elected.
    Activating { epoch: Epoch },
    /// This replica takes orders.
    Leading {
        epoch: Epoch,
        /// From this number on.
        orders: RowNumber,
    },
    /// This replica takes no more orders.
    SteppedDown {
        /// The epoch it led or was to lead.
        epoch: Epoch,
        why: StepDown,
    },
    /// Acknowledgements wait for this follower from now on.
    FollowerInSync { peer: ReplicaId },
    /// The follower failed or was too slow; it is being removed from the in-sync set.
    FollowerLagging { peer: ReplicaId },
    /// The follower holds less than it acknowledged: its disk lost rows.
    FollowerLostRows {
        peer: ReplicaId,
        /// How many it acknowledged.
        acknowledged: RowNumber,
        /// How many it holds.
        holds: RowNumber,
    },
    /// The follower's chain hash differs: its ledger or this one is damaged.
    FollowerDiverged { peer: ReplicaId, orders: RowNumber },
    /// A row from there does not continue this ledger: one of the two is damaged.
    Broken {
        from: Sender,
        number: RowNumber,
        /// Chain hash of this ledger's last row.
        chain: ChainHash,
    },
    /// The journal ends before this ledger does: the catalog's disk lost rows that were
    /// acknowledged.
    CatalogLostRows {
        /// How many orders the journal has.
        journal: RowNumber,
        /// How many this ledger has.
        held: RowNumber,
    },
    /// This ledger holds the whole journal as the catalog knew it a moment ago.
    CaughtUp {
        /// How many orders that is.
        orders: RowNumber,
    },
}

/// Who sent a row that was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// The catalog's journal, or its answer to a trade.
    Catalog,
    Replica(ReplicaId),
}

impl fmt::Display for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Catalog => f.write_str("the catalog"),
            Self::Replica(id) => write!(f, "replica {id}"),
        }
    }
}

/// Why a leader steps down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StepDown {
    /// A higher epoch has begun.
    #[error("a higher epoch has begun")]
    Superseded,
    /// The own store cannot take rows.
    #[error("its store failed")]
    StoreFailed,
    /// The own ledger and the journal differ.
    #[error("its ledger and the journal differ")]
    Broken,
    /// The journal ends before the own ledger.
    #[error("the catalog lost rows that its ledger has")]
    CatalogLostRows,
    /// Which begins another epoch once it has heard of the ledgers.
    #[error("the catalog has started anew")]
    CatalogStarted,
}

/// Why a replica must not be believed as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Another bazaar's disk, or another bazaar's catalog.
    #[error("the ledger is of journal {own}, and the catalog keeps journal {catalog}")]
    OtherJournal { own: JournalId, catalog: JournalId },
    /// A ledger of before journals had ids, which the journal does not show to be its own.
    #[error(
        "the ledger has {held} rows and no id, and journal {catalog} of {rows} rows does not begin with them"
    )]
    Unproven {
        catalog: JournalId,
        /// How many rows the ledger has.
        held: RowNumber,
        /// How many the journal has.
        rows: RowNumber,
    },
    /// Epochs are the catalog's to begin.
    #[error(
        "its disk says that epoch {own} has begun, and the catalog is at epoch {catalog} (where every replica \
         says so, the catalog was restored from an older copy: keep the replicas' directories)"
    )]
    AboveCatalog { own: Epoch, catalog: Epoch },
    /// An epoch has one leader.
    #[error("its disk says that another replica leads epoch {epoch} than the catalog does")]
    OtherLeader { epoch: Epoch },
    /// One of the two is damaged, or the journal was restored from an older copy and went on.
    #[error(
        "its {rows} rows are not the journal's first {rows} (where the catalog was restored from an older copy, \
         this ledger may be the true one: look at it with `bazaar ledger` before it is given up)"
    )]
    Differs {
        /// How many rows are compared.
        rows: RowNumber,
    },
}

impl Failure {
    /// Whether the ledger may be another bazaar's: it is not to be given up for a copy.
    pub fn is_foreign(self) -> bool {
        matches!(self, Self::OtherJournal { .. } | Self::Unproven { .. })
    }
}
