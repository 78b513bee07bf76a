//! What a replica counts and times, in atomics that nobody waits for.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use daemon::work::Work;
use domain::{ReplicaId, RowNumber};
use metrics::metric::TRADE_STAGE;
use metrics::{Buckets, Count, Export, Families, Metric, ROWS, SECONDS};

pub(crate) const LEDGER_ROWS: Metric = Metric::gauge(
    "bazaar_order_ledger_rows",
    "rows",
    &[],
    "Rows of the ledger that are on its disk: orders, and changes of stocks",
);
pub(crate) const EPOCH: Metric = Metric::gauge(
    "bazaar_order_epoch",
    "epochs",
    &[],
    "The latest epoch that it has seen",
);
pub(crate) const REACHES_CATALOG: Metric = Metric::gauge(
    "bazaar_order_reaches_catalog",
    "0 or 1",
    &[],
    "0 after four questions in a row that the catalog did not answer",
);
const LAG_ROWS: Metric = Metric::gauge(
    "bazaar_order_lag_rows",
    "rows",
    &[],
    "Rows that it knows to be committed and has not on its disk",
);
const LAG_SECONDS: Metric = Metric::gauge(
    "bazaar_order_lag_seconds",
    "seconds",
    &[],
    "How long it has lacked a row that it knows to be committed; 0 where it lacks none. Up to twice what is true of each row",
);
const PLACED: Metric = Metric::counter(
    "bazaar_order_placements",
    "orders",
    &[(
        "result",
        "`answered`: with a row, or why there is none; `unavailable`: it does not lead, or could not",
    )],
    "Orders, and changes of stocks, that gateways placed here",
);
const COMMIT_FAILURES: Metric = Metric::counter(
    "bazaar_order_commit_failures",
    "calls",
    &[],
    "Calls to the catalog to commit orders that failed, or were not answered in time",
);
const APPEND: Metric = Metric::histogram(
    "bazaar_order_append_seconds",
    "seconds",
    &[("follower", "number of a replica")],
    "How long a follower takes to have rows on its disk, from this leader and back",
);
const APPEND_FAILURES: Metric = Metric::counter(
    "bazaar_order_append_failures",
    "calls",
    &[("follower", "number of a replica")],
    "Calls to a follower that it did not take, or not in time: with rows, or as a sign of life",
);
const APPEND_ROWS: Metric = Metric::counter(
    "bazaar_order_append_rows",
    "rows",
    &[("follower", "number of a replica")],
    "Rows that a follower has taken from this leader",
);
const SAVE: Metric = Metric::histogram(
    "bazaar_order_save_seconds",
    "seconds",
    &[],
    "How long the replica's disk takes for a group of rows",
);
const SAVE_ROWS: Metric = Metric::histogram(
    "bazaar_order_save_rows",
    "rows",
    &[],
    "Rows of such a group. 0 where only the term changed",
);
const EVENTS: Metric = Metric::counter(
    "bazaar_order_events",
    "events",
    &[(
        "event",
        "`leading`: it was elected, and leads; `stepped_down`; as leader also `follower_in_sync`, `follower_lagging`: a follower \
         failed or was too slow, and is no longer in sync",
    )],
    "What happened to the replica's role and to its followers",
);

/// All that a replica exports of its own.
pub const METRICS: &[&Metric] = &[
    &LEDGER_ROWS,
    &EPOCH,
    &REACHES_CATALOG,
    &LAG_ROWS,
    &LAG_SECONDS,
    &PLACED,
    &COMMIT_FAILURES,
    &APPEND,
    &APPEND_FAILURES,
    &APPEND_ROWS,
    &SAVE,
    &SAVE_ROWS,
    &EVENTS,
];

/// What happens to a replica.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Happening {
    Leading,
    SteppedDown,
    FollowerInSync,
    FollowerLagging,
}

impl Happening {
    const NAMES: [&'static str; 4] = [
        "leading",
        "stepped_down",
        "follower_in_sync",
        "follower_lagging",
    ];
}

/// What a replica has done so far.
#[derive(Debug)]
pub(crate) struct Measured {
    lead: Buckets,
    commit: Buckets,
    save: Buckets,
    save_rows: Buckets,
    commit_failures: AtomicU64,
    unavailable: AtomicU64,
    followers: BTreeMap<ReplicaId, Follower>,
    events: [AtomicU64; Happening::NAMES.len()],
    lag: Lag,
    /// What the store's thread is at now.
    pub(crate) writing: Work,
}

#[derive(Debug, Default)]
struct Follower {
    append: Buckets,
    rows: AtomicU64,
    failures: AtomicU64,
}

/// How far a ledger is behind what is known.
#[derive(Debug)]
struct Lag {
    began: Instant,
    rows: AtomicU64,
    /// Rows that it lacks first of all, and since when: nanoseconds since `began`.
    lacks: AtomicU64,
    since: AtomicU64,
}

impl Measured {
    /// Of a replica with these peers.
    pub(crate) fn new(peers: impl IntoIterator<Item = ReplicaId>) -> Self {
        let peers = peers.into_iter();
        Self {
            lead: Buckets::default(),
            commit: Buckets::default(),
            save: Buckets::default(),
            save_rows: Buckets::default(),
            commit_failures: AtomicU64::default(),
            unavailable: AtomicU64::default(),
            followers: peers.map(|peer| (peer, Follower::default())).collect(),
            events: Default::default(),
            lag: Lag::new(),
            writing: Work::default(),
        }
    }

    /// An order was answered.
    pub(crate) fn answered(&self, took: Duration) {
        self.lead.note(took);
    }

    /// An order was not placed.
    pub(crate) fn unavailable(&self) {
        self.unavailable.fetch_add(1, Ordering::Relaxed);
    }

    /// The catalog was asked to commit orders.
    pub(crate) fn committed(&self, is_answered: bool, took: Duration) {
        match is_answered {
            true => self.commit.note(took),
            false => {
                self.commit_failures.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// A follower was sent so many rows; none as a sign of life, or to tell it what is committed, which its disk has no part in.
    pub(crate) fn appended(&self, peer: ReplicaId, rows: usize, is_taken: bool, took: Duration) {
        let Some(follower) = self.followers.get(&peer) else {
            return;
        };
        if !is_taken {
            follower.failures.fetch_add(1, Ordering::Relaxed);
        } else if rows > 0 {
            follower.rows.fetch_add(rows as u64, Ordering::Relaxed);
            follower.append.note(took);
        }
    }

    /// So many rows were written to the disk.
    pub(crate) fn saved(&self, rows: usize, took: Duration) {
        self.save.note(took);
        self.save_rows.add(&ROWS, rows as u64);
    }

    pub(crate) fn happened(&self, what: Happening) {
        self.events[what as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// The ledger has so many rows of those that are known. To be told by one thread.
    pub(crate) fn holds(&self, rows: RowNumber, known: RowNumber) {
        self.lag.note(rows.0, known.0, self.lag.began.elapsed());
    }
}

impl Lag {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            rows: AtomicU64::default(),
            lacks: AtomicU64::default(),
            since: AtomicU64::default(),
        }
    }

    fn note(&self, rows: u64, known: u64, now: Duration) {
        let behind = known.saturating_sub(rows);
        let is_new = match self.lacks.load(Ordering::Relaxed) {
            0 => behind > 0,
            lacks => rows >= lacks,
        };
        if is_new {
            self.since.store(now.as_nanos() as u64, Ordering::Relaxed);
            let lacks = if behind > 0 { known } else { 0 };
            self.lacks.store(lacks, Ordering::Relaxed);
        }
        self.rows.store(behind, Ordering::Relaxed);
    }

    fn seconds(&self, now: Duration) -> f64 {
        match self.lacks.load(Ordering::Relaxed) {
            0 => 0.0,
            _ => {
                let since = Duration::from_nanos(self.since.load(Ordering::Relaxed));
                now.saturating_sub(since).as_secs_f64()
            }
        }
    }
}

impl Export for Measured {
    fn export(&self, families: &mut Families<'_>) -> fmt::Result {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut append = Count::default();
        for follower in self.followers.values() {
            follower.append.add_to(&mut append);
        }
        let lead = self.lead.count();
        let answered = lead.total();
        let stages = [
            (["lead"], lead),
            (["commit"], self.commit.count()),
            (["append"], append),
        ];
        families.add_histogram(&TRADE_STAGE, &SECONDS, stages)?;
        let placed = [
            (["answered"], answered),
            (["unavailable"], load(&self.unavailable)),
        ];
        families.add(&PLACED, placed)?;
        families.add_one(&COMMIT_FAILURES, load(&self.commit_failures))?;
        let names: Vec<String> = self.followers.keys().map(ReplicaId::to_string).collect();
        let followers = || {
            names
                .iter()
                .map(String::as_str)
                .zip(self.followers.values())
        };
        let appends = followers().map(|(name, one)| ([name], one.append.count()));
        families.add_histogram(&APPEND, &SECONDS, appends)?;
        let failures = followers().map(|(name, one)| ([name], load(&one.failures)));
        families.add(&APPEND_FAILURES, failures)?;
        let rows = followers().map(|(name, one)| ([name], load(&one.rows)));
        families.add(&APPEND_ROWS, rows)?;
        families.add_histogram(&SAVE, &SECONDS, [([], self.save.count())])?;
        families.add_histogram(&SAVE_ROWS, &ROWS, [([], self.save_rows.count())])?;
        families.add_one(&LAG_ROWS, load(&self.lag.rows))?;
        families.add_one(&LAG_SECONDS, self.lag.seconds(self.lag.began.elapsed()))?;
        let events = Happening::NAMES.iter().zip(&self.events);
        families.add(&EVENTS, events.map(|(name, count)| ([*name], load(count))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn of_calls_to_a_follower_those_with_rows_alone_say_how_long_its_disk_takes() {
        let [follower, unknown] = [2, 9].map(|id| ReplicaId::new(id).unwrap());
        let measured = Measured::new([follower]);
        measured.appended(follower, 0, true, MS);
        measured.appended(follower, 3, true, 5 * MS);
        measured.appended(follower, 0, false, MS);
        measured.appended(follower, 1, false, MS);
        measured.appended(unknown, 1, true, MS);
        let counted = &measured.followers[&follower];
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        assert_eq!(counted.append.count().total(), 1);
        assert_eq!((load(&counted.rows), load(&counted.failures)), (3, 2));
    }

    #[test]
    fn a_ledger_lags_for_as_long_as_it_lacks_a_row_and_not_while_rows_keep_coming() {
        let lag = Lag::new();
        lag.note(7, 7, MS);
        assert_eq!(lag.seconds(9 * MS), 0.0);
        // Under load it always lacks what has just come.
        for at in 10..1000 {
            lag.note(at - 1, at, at as u32 * MS);
        }
        assert!(
            lag.seconds(1000 * MS) <= 0.002,
            "{}",
            lag.seconds(1000 * MS)
        );
        // Then its disk stands still.
        lag.note(999, 5000, 1500 * MS);
        assert_eq!(lag.seconds(3000 * MS), 1.5);
        assert_eq!(lag.rows.load(Ordering::Relaxed), 4001);
        lag.note(4000, 9000, 3500 * MS);
        assert_eq!(lag.seconds(3500 * MS), 2.0, "the first of them is missing");
        lag.note(9000, 9000, 4000 * MS);
        assert_eq!(lag.seconds(5000 * MS), 0.0);
    }
}
