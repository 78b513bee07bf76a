//! How long a replica waits for what, and how often it looks: the simulation waits as long.

use std::time::Duration;

/// Longest wait for the catalog to commit orders. Longer than a cache lease, which a trade may
/// have to wait for.
pub const TRADE_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest wait for a change of the in-sync set.
pub const SET_IN_SYNC_TIMEOUT: Duration = Duration::from_secs(2);

/// Longest wait for rows from the journal.
pub const JOURNAL_TIMEOUT: Duration = Duration::from_secs(2);

/// Longest wait for rows from a peer: the journal has them, too.
pub const FETCH_TIMEOUT: Duration = Duration::from_millis(500);

/// Longest wait for a follower. An in-sync follower that takes longer is removed from the set.
pub const APPEND_TIMEOUT: Duration = Duration::from_millis(300);

/// Longest wait for the catalog to be there, and then to say whether an order that is not here
/// exists.
pub const CONFIRM_TIMEOUT: Duration = Duration::from_secs(1);

/// Between two questions to the catalog who leads and where its journal ends: all who wait for the
/// catalog go by this one question.
pub const HEAD_INTERVAL: Duration = Duration::from_millis(250);

/// Before that is asked again where there was no answer.
pub const HEAD_RETRY: Duration = Duration::from_millis(50);

/// Before a catalog is asked again that has just started and hears ledgers: it soon begins an epoch.
pub const HEALING_RETRY: Duration = Duration::from_millis(10);

/// For how long that is soon; from then on it waits for somebody.
pub const HEALING_SOON: Duration = Duration::from_secs(2);

/// Longest wait for its answer.
pub const HEAD_TIMEOUT: Duration = Duration::from_millis(500);

/// So many questions in a row without an answer, and the catalog is not reached. TCP sends what was lost again after 200, 600
/// and 1,400 ms, so one or two in a row say nothing.
pub const HEAD_FAILURES_MAX: u32 = 4;

/// Longest wait for the catalog's head while a replica that starts is compared with the journal.
pub const JOIN_TIMEOUT: Duration = Duration::from_secs(1);

/// Before that is asked again where there was no answer.
pub const JOIN_RETRY: Duration = Duration::from_millis(100);

/// Before a catalog is asked again that said no in a way that asking does not change: by then it may
/// be another one that answers there.
pub const REFUSED_RETRY: Duration = Duration::from_secs(1);
