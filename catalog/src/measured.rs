//! What a catalog counts and times, in atomics that nobody waits for.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use daemon::work::Work;
use metrics::metric::TRADE_STAGE;
use metrics::{Buckets, Export, Families, Metric, ROWS, SECONDS};

pub(crate) const ACTIVE: Metric = Metric::gauge(
    "bazaar_catalog_active",
    "0 or 1",
    &[],
    "1 where this catalog is the active one, and serves: in sum over the catalogs 1, and 0 during a take-over",
);
pub(crate) const JOURNAL_ROWS: Metric = Metric::gauge(
    "bazaar_catalog_journal_rows",
    "rows",
    &[],
    "Rows of the journal: orders, and changes of stocks",
);
pub(crate) const EPOCH: Metric = Metric::gauge(
    "bazaar_catalog_epoch",
    "epochs",
    &[],
    "The epoch, which rises with each election and each start of a catalog. Rising without a pause: gateways depose a leader that \
     is alive but slow",
);
pub(crate) const LEADER: Metric = Metric::gauge(
    "bazaar_catalog_leader",
    "number of a replica",
    &[],
    "The replica that leads, by its number; 0 before the first election",
);
pub(crate) const IN_SYNC_REPLICAS: Metric = Metric::gauge(
    "bazaar_catalog_in_sync_replicas",
    "replicas",
    &[],
    "Replicas that have every order that is acknowledged: with 1, its disk and the catalog's are all that keeps the next one",
);
pub(crate) const OPEN_SESSIONS: Metric = Metric::gauge(
    "bazaar_catalog_sessions",
    "sessions",
    &[],
    "Gateways whose session's stream is open, of 256",
);
pub(crate) const WITHHELD_STOCKS: Metric = Metric::gauge(
    "bazaar_catalog_withheld_stocks",
    "stocks",
    &[],
    "Stocks, of 256, that are lent to no gateway for a while: they are traded so often that leases on them were always recalled",
);
const COMMITS: Metric = Metric::counter(
    "bazaar_catalog_commits",
    "commits",
    &[("result", "`committed`, `failed`")],
    "Groups of calls that were made durable together, and those that the database refused: nothing of them is",
);
const COMMIT_ROWS: Metric = Metric::histogram(
    "bazaar_catalog_commit_rows",
    "rows",
    &[],
    "New rows of a commit: orders, and changes of stocks. 0 where only the term changed",
);
const ELECTIONS: Metric = Metric::counter(
    "bazaar_catalog_elections",
    "epochs",
    &[],
    "Epochs that this process began: one with its start, and one with each election",
);
const SESSIONS: Metric = Metric::counter(
    "bazaar_catalog_session_events",
    "events",
    &[(
        "event",
        "`opened`; `renewed`: a lease, by which a gateway serves what it holds; `invalidated`: a gateway was told to let go of \
         stocks; `released`; `expired`: its lease ran out, and trades may have waited for that; `cut`: it did not take what it \
         was told",
    )],
    "What happened to gateways' sessions",
);
const LOOKUPS: Metric = Metric::counter(
    "bazaar_catalog_lookups",
    "look-ups",
    &[(
        "answer",
        "`lent`: the gateway may keep it; `withheld`: it is lent to nobody for a while; `not_lent`: it is just being traded, or was \
         asked for without a lease",
    )],
    "Look-ups of single stocks that gateways had not, by what they may do with the answer",
);
const WAITING: Metric = Metric::gauge(
    "bazaar_debug_catalog_answers_waiting",
    "calls",
    &[],
    "Answers to trades that are durable and wait for caches to let go, of 4096",
);

/// All that a catalog exports of its own.
pub const METRICS: &[&Metric] = &[
    &ACTIVE,
    &JOURNAL_ROWS,
    &EPOCH,
    &LEADER,
    &IN_SYNC_REPLICAS,
    &OPEN_SESSIONS,
    &WITHHELD_STOCKS,
    &COMMITS,
    &COMMIT_ROWS,
    &ELECTIONS,
    &SESSIONS,
    &LOOKUPS,
    &WAITING,
];

/// What happens to a session.
#[derive(Debug, Clone, Copy)]
pub enum SessionEvent {
    Opened,
    Renewed,
    Invalidated,
    Released,
    Expired,
    Cut,
}

impl SessionEvent {
    const ALL: [Self; 6] = [
        Self::Opened,
        Self::Renewed,
        Self::Invalidated,
        Self::Released,
        Self::Expired,
        Self::Cut,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Renewed => "renewed",
            Self::Invalidated => "invalidated",
            Self::Released => "released",
            Self::Expired => "expired",
            Self::Cut => "cut",
        }
    }
}

/// What a gateway may do with the answer to a look-up.
#[derive(Debug, Clone, Copy)]
pub enum Answered {
    Lent,
    Withheld,
    NotLent,
}

impl Answered {
    const ALL: [Self; 3] = [Self::Lent, Self::Withheld, Self::NotLent];

    fn name(self) -> &'static str {
        match self {
            Self::Lent => "lent",
            Self::Withheld => "withheld",
            Self::NotLent => "not_lent",
        }
    }
}

/// What a catalog has done so far.
#[derive(Debug, Default)]
pub struct Measured {
    queue: Buckets,
    store: Buckets,
    show: Buckets,
    rows: Buckets,
    failed: AtomicU64,
    elections: AtomicU64,
    sessions: [AtomicU64; SessionEvent::ALL.len()],
    lookups: [AtomicU64; Answered::ALL.len()],
    /// Now, and not so far.
    waiting: AtomicU64,
    /// What the writer's thread is at now.
    pub writing: Work,
}

impl Measured {
    /// A call was taken up that had queued for so long.
    pub fn queued(&self, waited: Duration) {
        self.queue.note(waited);
    }

    /// So many rows were made durable.
    pub fn committed(&self, rows: usize, took: Duration) {
        self.store.note(took);
        self.rows.add(&ROWS, rows as u64);
    }

    /// A commit was refused.
    pub fn refused(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// An answer that was durable for so long is shown.
    pub fn shown(&self, waited: Duration) {
        self.show.note(waited);
    }

    /// So many of them wait now.
    pub fn waiting(&self, answers: usize) {
        self.waiting.store(answers as u64, Ordering::Relaxed);
    }

    /// An epoch began.
    pub fn elected(&self) {
        self.elections.fetch_add(1, Ordering::Relaxed);
    }

    /// Something happened to a session.
    pub fn session(&self, event: SessionEvent) {
        self.sessions[event as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// A look-up of a stock was answered.
    pub fn answered(&self, answered: Answered) {
        self.lookups[answered as usize].fetch_add(1, Ordering::Relaxed);
    }
}

impl Export for Measured {
    fn export(&self, families: &mut Families<'_>) -> fmt::Result {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let stages = [
            ("queue", &self.queue),
            ("store", &self.store),
            ("show", &self.show),
        ];
        let stages = stages.map(|(stage, buckets)| ([stage], buckets.count()));
        families.add_histogram(&TRADE_STAGE, &SECONDS, stages)?;
        let rows = self.rows.count();
        let commits = [
            (["committed"], rows.total()),
            (["failed"], load(&self.failed)),
        ];
        families.add(&COMMITS, commits)?;
        families.add_histogram(&COMMIT_ROWS, &ROWS, [([], rows)])?;
        families.add_one(&ELECTIONS, load(&self.elections))?;
        let of = |event: SessionEvent| ([event.name()], load(&self.sessions[event as usize]));
        families.add(&SESSIONS, SessionEvent::ALL.map(of))?;
        let of = |it: Answered| ([it.name()], load(&self.lookups[it as usize]));
        families.add(&LOOKUPS, Answered::ALL.map(of))?;
        families.add_one(&WAITING, load(&self.waiting))
    }
}
