//! What goes over the network.

use std::collections::BTreeSet;
use std::time::Duration;

use catalog_core::self_healing::LedgerReport;
use catalog_core::{Leadership, Stock, TradeResult};
use domain::{
    CatalogRun, ChainHash, ChangeNumber, Entry, Epoch, Identity, JournalId, LedgerEnd, OrderNumber,
    ReplicaId, RetryClass, Row, RowNumber, SessionId, StockName,
};
use frontend_core::election::Way;
use order_core::message::{CallId, Placed};

/// A machine, and what runs on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Node {
    /// The only one, or the one of several that a process follows.
    Catalog,
    Replica(ReplicaId),
    Gateway(usize),
    Client(usize),
    /// One of several catalogs.
    Member(usize),
    /// A server of their database.
    Database(usize),
}

/// One run of a process, which ends with a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Run {
    pub node: Node,
    pub number: u64,
}

/// Who waits for a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    pub run: Run,
    pub call: u64,
}

/// The call of somebody who does not wait for an answer, and may be anybody.
pub const FORGED: u64 = u64::MAX;

#[derive(Debug, Clone)]
pub enum Request {
    // To the catalog.
    ReadStock {
        name: StockName,
        session: Option<SessionId>,
    },
    Trade {
        epoch: Epoch,
        orders: Vec<Entry>,
    },
    GetLeadership,
    ReportLedger {
        run: CatalogRun,
        report: LedgerReport,
    },
    PutBack {
        run: CatalogRun,
        replica: ReplicaId,
        rows: Vec<Row>,
    },
    Elect {
        expected: Epoch,
        candidate: ReplicaId,
    },
    SetInSync {
        epoch: Epoch,
        change: ChangeNumber,
        in_sync: BTreeSet<ReplicaId>,
    },
    ReportMissing {
        replica: ReplicaId,
        row: Row,
    },
    // To the catalog and to replicas.
    ReadRows {
        from: RowNumber,
        /// Of the row before it.
        previous: Option<ChainHash>,
        rows_max: usize,
    },
    /// To the catalog: the row of an order.
    ReadOrder(OrderNumber),
    // To replicas.
    Place(Entry),
    Get(OrderNumber),
    Announce {
        epoch: Epoch,
        leader: ReplicaId,
    },
    Status,
    Append {
        epoch: Epoch,
        leader: ReplicaId,
        rows: Vec<Row>,
        committed: RowNumber,
    },
    // To gateways.
    Operate(Operation),
}

/// What a client wants.
#[derive(Debug, Clone)]
pub enum Operation {
    Lookup(StockName),
    /// Or change a stock.
    Trade(Entry),
    Find(OrderNumber),
}

/// What a call comes to when it comes to something.
#[derive(Debug, Clone)]
pub enum Response {
    Stock {
        stock: Stock,
        cacheable: bool,
    },
    NoSuchStock,
    Traded(Vec<TradeResult>),
    Leadership(Said),
    Rows(Vec<Row>),
    Placed(Placed),
    Row(Row),
    Status(order_core::Status, JournalId),
    Reported,
    /// From where on the journal lacks rows of the caller's ledger.
    Missing(Option<RowNumber>),
    Held(LedgerEnd),
    NoSuchOrder,
}

/// What the catalog says of itself.
#[derive(Debug, Clone)]
pub struct Said {
    pub leadership: Leadership,
    pub identity: Identity,
    pub healed: bool,
    pub run: CatalogRun,
}

/// Why a call came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The callee knows of a higher epoch.
    Fenced,
    /// It has no row before those that it was asked for, or another one.
    Beyond,
    Differs,
    /// The row that it was shown is not one that it lost.
    NotMissing,
    /// The caller names another journal than the callee's.
    OtherJournal,
    /// It said no for another reason, which trying again does not change.
    Refused,
    /// It cannot now, or the connection broke.
    Unavailable,
    /// No answer in time.
    TimedOut,
}

impl Failure {
    /// What may come of another attempt, as gateways take it. Of what they do with an announcement it
    /// matters only whether it may come to something later.
    pub fn class(self) -> RetryClass {
        match self {
            Self::Unavailable | Self::TimedOut => RetryClass::Later,
            Self::OtherJournal | Self::Refused => RetryClass::Elsewhere,
            Self::Fenced | Self::Beyond | Self::Differs | Self::NotMissing => RetryClass::Never,
        }
    }
}

/// What is told about a call once it is over.
pub type Told = Result<Response, Failure>;

/// What a call was made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    // A replica's.
    Trade(CallId),
    SetInSync(CallId),
    Fetch(CallId),
    Append(CallId, ReplicaId),
    JournalHead,
    Join,
    Compare,
    ReportMissing(RowNumber),
    /// To tell a catalog that has started what is here.
    Report(CatalogRun),
    /// Whether an order exists that is not here.
    Confirm(u64),
    FetchOne(u64),
    // A gateway's.
    Probe(ReplicaId, Way),
    Leadership,
    Elect(ReplicaId),
    Announce(Epoch, ReplicaId),
    Serve(u64),
    // A replica's and a gateway's: to one of several catalogs.
    AskIfActive(usize),
    // A client's.
    Operate,
}

/// What a session's stream carries to the catalog.
#[derive(Debug, Clone, Copy)]
pub enum FromGateway {
    Open { journal: JournalId },
    Renew(u64),
    Acknowledge(catalog_core::Round),
    Release,
}

/// What a session's stream carries to the gateway.
#[derive(Debug, Clone)]
pub enum FromCatalog {
    Opened {
        session: SessionId,
        lease: Duration,
        journal: JournalId,
    },
    Renewed(u64),
    Invalidation(catalog_core::Invalidation),
    /// It stops: the gateway is to let go of everything.
    Closing,
}

/// A message of a stream; `None` for its end.
#[derive(Debug, Clone)]
pub enum Streamed {
    Up(Option<FromGateway>),
    Down(Option<FromCatalog>),
}
