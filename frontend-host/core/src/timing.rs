//! How long the gateway waits for what, and how often it looks: the simulation waits as long.

use std::time::Duration;

/// Pause between two health probes of a replica.
pub const PROBE_INTERVAL: Duration = Duration::from_millis(50);

/// Longest pause between two probes that suspicions hasten: while they find nothing new, pauses
/// double up to it.
pub const HASTENED_PAUSE_MAX: Duration = Duration::from_millis(20);

/// Pause between two probes on a replica's spare connection, while it answers on the main one: so that there is one.
pub const SPARE_PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// How long a probe is waited for before the same is asked again on its connection.
pub const PROBE_TIME_MAX: Duration = Duration::from_millis(500);

/// How long a replica may be silent on one connection before that is suspicious, where all answers
/// come soon. A leader that stands still is deposed after twice that: longer would hold trades up,
/// shorter would depose leaders that are busy for a moment.
pub const PATIENCE_MIN: Duration = Duration::from_millis(80);

/// And at most, however late answers come: a request outlives three suspicions.
pub const PATIENCE_MAX: Duration = Duration::from_secs(1);

/// Without a suspicion for so long, the next one comes up sooner.
pub const CALM: Duration = Duration::from_secs(5);

/// By then a connection whose packets were lost has been given up and made anew.
pub const RECONNECTED_AFTER: Duration = Duration::from_secs(1);

/// Shortest pause between two steps, so that a step that does not help is not repeated at once.
pub const STEP_PAUSE: Duration = Duration::from_millis(5);

/// Longest pause between two looks at who leads.
pub const ELECTION_INTERVAL: Duration = Duration::from_millis(200);

/// How long the catalog may take to answer.
pub const CATALOG_TIME_MAX: Duration = Duration::from_secs(1);

/// How long a replica may take to acknowledge an announcement.
pub const ANNOUNCE_TIME_MAX: Duration = Duration::from_millis(500);

/// How long one replica may keep a read before the next is asked, and how long nothing may come back on a connection to the
/// catalog before a read or a take is asked for on another one as well: see [`Repeats`](crate::attempts::Repeats).
pub const ATTEMPT_TIME_MAX: Duration = Duration::from_millis(500);

/// The same of a trade, which waits for disks: those of the catalog, the leader and its followers.
pub const TRADE_ATTEMPT_TIME_MAX: Duration = Duration::from_secs(1);

/// The same of a page of orders, which takes longer to read.
pub const LIST_TIME_MAX: Duration = Duration::from_millis(1500);

/// Pause before a lost session is opened anew, less up to half of it: doubles up to
/// [`REOPEN_PAUSE_MAX`].
pub const REOPEN_PAUSE_MIN: Duration = Duration::from_millis(20);

/// The longest such pause.
pub const REOPEN_PAUSE_MAX: Duration = Duration::from_millis(500);

/// Longest wait for an Opened. A restarted catalog may wait a lease first.
pub const OPEN_TIME_MAX: Duration = Duration::from_secs(5);

/// How long a read may look for a backend that answers, by default: a restarted
/// catalog waits a lease before it answers.
pub const READ_TIME_MAX: Duration = Duration::from_secs(3);

/// How long a trade may look for a leader that takes it, by default: a trade may
/// outlast an election, a lease and a restart of the catalog.
pub const TRADE_TIME_MAX: Duration = Duration::from_secs(8);
