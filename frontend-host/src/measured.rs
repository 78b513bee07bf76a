//! What a gateway counts and times, in atomics that no worker shares with another while it serves from the cache.

use std::array::from_fn;
use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use frontend_policy::answered::{ANSWERS, Answer};
use frontend_policy::decision::Outcome;
use metrics::metric::TRADE_STAGE;
use metrics::{Buckets, Count, Export, Families, Metric, PerThread, SECONDS};

/// Statuses that are told apart: 100 to 599.
const STATUSES: usize = 500;

const REQUEST_SECONDS: Metric = Metric::histogram(
    "bazaar_request_duration_seconds",
    "seconds",
    &[
        ("route", "as of `bazaar_requests_total`, but for `refused`"),
        ("cache", "as of `bazaar_requests_total`"),
        ("status", "class of the status: `2xx` to `5xx`"),
    ],
    "How long requests took from when their bodies were there to their answers, which clients may take longer to take",
);
const RESPONSES: Metric = Metric::counter(
    "bazaar_responses",
    "responses",
    &[("status", "the status, such as `503`")],
    "Answers to clients' requests, by their exact statuses",
);
const TRADES: Metric = Metric::counter(
    "bazaar_trades",
    "trades",
    &[(
        "result",
        "`traded`; `refused`: by the catalog, such as for lack of stock; `unavailable`: nobody answered in time, and it may have been \
         traded",
    )],
    "Trades that the policy decided to make",
);
const SESSION_EVENTS: Metric = Metric::counter(
    "bazaar_session_events",
    "events",
    &[(
        "event",
        "`opened`; `renewed`: the lease, by which what is cached is served; `invalidated`: the catalog had it let go of stocks; \
         `lost`: nothing is served from the cache before another one is opened; `closed`: by a catalog that stops",
    )],
    "What happened to the session with the catalog",
);
/// Those of [`crate::events`].
pub(crate) const EVENT_STREAMS: Metric = Metric::gauge(
    "bazaar_event_streams",
    "streams",
    &[],
    "Clients that follow events at the moment",
);
pub(crate) const EVENT_STREAMS_REFUSED: Metric = Metric::counter(
    "bazaar_event_streams_refused",
    "streams",
    &[],
    "Streams of events that were refused, since their client had too many",
);
/// That of [`crate::access_log`].
pub(crate) const ACCESS_LOG_DROPPED: Metric = Metric::counter(
    "bazaar_access_log_dropped",
    "requests",
    &[],
    "Requests that are not in the access log for lack of room, or as it could not be written",
);
const ELECTIONS: Metric = Metric::counter(
    "bazaar_elections",
    "elections",
    &[("result", "`elected`, `failed`")],
    "Elections that this gateway asked the catalog for, as its policy wanted. Of those of several gateways at once one begins an \
     epoch",
);

/// What [`Measured`] exports.
pub(crate) const METRICS: &[&Metric] = &[
    &EVENT_STREAMS,
    &EVENT_STREAMS_REFUSED,
    &ACCESS_LOG_DROPPED,
    &REQUEST_SECONDS,
    &RESPONSES,
    &TRADES,
    &SESSION_EVENTS,
    &ELECTIONS,
];

/// What happens to the session with the catalog.
#[derive(Debug, Clone, Copy)]
pub(crate) enum SessionTurn {
    Opened,
    Renewed,
    Invalidated,
    Lost,
    Closed,
}

impl SessionTurn {
    const NAMES: [&'static str; 5] = ["opened", "renewed", "invalidated", "lost", "closed"];
}

/// What a gateway has done so far.
#[derive(Debug, Default)]
pub struct Measured {
    /// Of each worker its own.
    requests: PerThread<Requests>,
    /// Trades wait for disks: they share theirs.
    place: Buckets,
    traded: AtomicU64,
    refused: AtomicU64,
    unavailable: AtomicU64,
    sessions: [AtomicU64; SessionTurn::NAMES.len()],
    elected: AtomicU64,
    elections_failed: AtomicU64,
}

#[derive(Debug)]
struct Requests {
    /// By the place of the answer; of most kinds there never is one.
    durations: Box<[OnceLock<Box<Buckets>>]>,
    statuses: Box<[AtomicU64]>,
}

impl Default for Requests {
    fn default() -> Self {
        Self {
            durations: (0..ANSWERS).map(|_| OnceLock::new()).collect(),
            statuses: (0..STATUSES).map(|_| AtomicU64::default()).collect(),
        }
    }
}

impl Requests {
    fn count(&self, answer: Answer) {
        let status = usize::from(answer.status.as_u16()).saturating_sub(100);
        self.statuses[status.min(STATUSES - 1)].fetch_add(1, Ordering::Relaxed);
    }
}

impl Measured {
    /// A request was answered.
    pub(crate) fn answered(&self, answer: Answer, took: Duration) {
        let requests = self.requests.mine();
        let duration = requests.durations[answer.place()].get_or_init(Box::default);
        duration.note(took);
        requests.count(answer);
    }

    /// A request was refused before anybody looked at a clock.
    pub(crate) fn refused(&self, answer: Answer) {
        self.requests.mine().count(answer);
    }

    /// A trade was made, or was not.
    pub(crate) fn traded(&self, outcome: &Outcome, took: Duration) {
        let counter = match outcome {
            Outcome::Traded(_) => &self.traded,
            Outcome::Refused(_) => &self.refused,
            _ => &self.unavailable,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        self.place.note(took);
    }

    pub(crate) fn session(&self, event: SessionTurn) {
        self.sessions[event as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// The catalog was asked to elect a leader.
    pub(crate) fn elected(&self, has: bool) {
        let counter = if has {
            &self.elected
        } else {
            &self.elections_failed
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn durations(&self) -> impl Iterator<Item = ([&'static str; 3], Count)> {
        (0..ANSWERS).filter_map(|place| {
            let mut count = Count::default();
            let all = self.requests.all();
            for noted in all.filter_map(|requests| requests.durations[place].get()) {
                noted.add_to(&mut count);
            }
            (count.total() > 0).then(|| (Answer::labels(place), count))
        })
    }
}

impl Export for Measured {
    fn export(&self, families: &mut Families<'_>) -> fmt::Result {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        families.add_histogram(&REQUEST_SECONDS, &SECONDS, self.durations())?;
        let statuses: [u64; STATUSES] = from_fn(|place| {
            let all = self.requests.all();
            all.map(|requests| load(&requests.statuses[place])).sum()
        });
        let statuses = statuses.iter().enumerate().filter(|(_, count)| **count > 0);
        let statuses: Vec<_> = statuses
            .map(|(place, count)| ((place + 100).to_string(), *count))
            .collect();
        families.add(
            &RESPONSES,
            statuses.iter().map(|(name, count)| ([&**name], *count)),
        )?;
        let trades = [
            (["traded"], load(&self.traded)),
            (["refused"], load(&self.refused)),
            (["unavailable"], load(&self.unavailable)),
        ];
        families.add(&TRADES, trades)?;
        families.add_histogram(&TRADE_STAGE, &SECONDS, [(["place"], self.place.count())])?;
        let sessions = SessionTurn::NAMES.iter().zip(&self.sessions);
        families.add(
            &SESSION_EVENTS,
            sessions.map(|(name, count)| ([*name], load(count))),
        )?;
        let elections = [
            (["elected"], load(&self.elected)),
            (["failed"], load(&self.elections_failed)),
        ];
        families.add(&ELECTIONS, elections)
    }
}
