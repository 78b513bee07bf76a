//! What a catalog counts and times, in atomics that nobody waits for.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metrics::metric::TRADE_STAGE;
use metrics::{Buckets, Export, Families, Metric, ROWS, SECONDS};

use crate::observed;

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
const WAITING: Metric = Metric::gauge(
    "bazaar_debug_catalog_answers_waiting",
    "calls",
    &[],
    "Answers to trades that are durable and wait for caches to let go, of 4096",
);

/// All that a catalog exports of its own.
pub const METRICS: &[&Metric] = &[
    &observed::ACTIVE_ONE,
    &observed::JOURNAL_ROWS,
    &observed::EPOCH,
    &observed::LEADER,
    &observed::IN_SYNC_REPLICAS,
    &observed::SESSIONS,
    &COMMITS,
    &COMMIT_ROWS,
    &ELECTIONS,
    &SESSIONS,
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
    /// Now, and not so far.
    waiting: AtomicU64,
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
        families.add_one(&WAITING, load(&self.waiting))
    }
}
