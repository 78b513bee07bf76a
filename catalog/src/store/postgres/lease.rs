//! The writer's lease: who may write.
//!
//! Each writer has a term of its own, and begins every statement that changes anything by adding 1 to
//! the beat of that term: where another one has begun, the statement changes nothing. That alone
//! keeps two writers from mixing. The lease keeps a second one from beginning while the first is
//! there: it watches the beat, which goes on also where nothing is traded, and which the first has to have had
//! acknowledged to answer anything (`writer`).

use std::time::Duration;

use catalog_core::writer_lease::WRITER_LEASE;
use domain::time::BootTime;
use tokio_postgres::Client;

use super::connection::Connection;
use super::error::{PostgresError, of_commit, of_read};
use super::server::Server;
use storage::StorageError;

/// For how long a beat has to stand still before another writer takes over.
pub const LEASE: Duration = WRITER_LEASE;

/// How long a start watches a beat that goes on. The last commits of a writer that was killed may
/// still come.
const WATCH_TIME_MAX: Duration = Duration::from_secs(4);

/// How often it looks.
const WATCH_INTERVAL: Duration = Duration::from_millis(50);

/// Who wants to write.
#[derive(Debug, Clone)]
pub(super) struct Holder {
    /// Nobody else's, not even the same machine's later.
    pub(super) name: String,
    /// Where it is reached.
    pub(super) url: String,
}

/// The one row, as far as a start needs it.
#[derive(Debug)]
struct Found {
    term: i64,
    beat: i64,
    holder: String,
    url: String,
    system_identifier: Option<String>,
    timeline: Option<i64>,
}

/// A term that was taken.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taken {
    pub(super) term: i64,
    /// As it was taken.
    pub(super) beat: i64,
}

/// Takes the lease; returns its term. `time_max` is for the change of the row. Only after that is anything read that is to be relied on: the
/// change of the row is a commit, and what it waits for has everything that was committed before.
///
/// # Errors
/// [`PostgresError::Held`] where another writer goes on, and [`PostgresError::OtherCluster`].
pub(super) async fn take(
    connection: &Connection,
    holder: &Holder,
    server: &Server,
    time_max: Duration,
) -> Result<Taken, TakeError> {
    let client = &connection.client;
    let give_up_at = BootTime::now() + WATCH_TIME_MAX;
    let mut found = read(client).await?;
    let mut since = BootTime::now();
    loop {
        check_cluster(&found, server)?;
        let stood_still = BootTime::now().since(since) >= LEASE;
        if found.holder.is_empty() || stood_still {
            let exchanged = exchange(connection, &found, holder, server);
            let Ok(exchanged) = tokio::time::timeout(time_max, exchanged).await else {
                return Err(StorageError::Ambiguous(format!(
                    "the writer's row could not be taken within {time_max:?}: does another session hold it, or does no \
                     standby answer?"
                ))
                .into());
            };
            if let Some(taken) = exchanged? {
                return Ok(taken);
            }
        }
        if BootTime::now() >= give_up_at {
            let Found { holder, url, .. } = found;
            return Err(PostgresError::Held { holder, url }.into());
        }
        tokio::time::sleep(WATCH_INTERVAL).await;
        let now = read(client).await?;
        if (now.term, now.beat) != (found.term, found.beat) {
            since = BootTime::now();
        }
        found = now;
    }
}

/// Why the lease was not taken.
#[derive(Debug)]
pub(super) enum TakeError {
    Refused(PostgresError),
    Storage(StorageError),
}

impl From<PostgresError> for TakeError {
    fn from(refused: PostgresError) -> Self {
        Self::Refused(refused)
    }
}

impl From<StorageError> for TakeError {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

async fn read(client: &Client) -> Result<Found, StorageError> {
    let row = client
        .query_one(
            "SELECT term, beat, holder, url, system_identifier, timeline FROM writer",
            &[],
        )
        .await
        .map_err(of_read)?;
    Ok(Found {
        term: row.try_get(0).map_err(of_read)?,
        beat: row.try_get(1).map_err(of_read)?,
        holder: row.try_get(2).map_err(of_read)?,
        url: row.try_get(3).map_err(of_read)?,
        system_identifier: row.try_get(4).map_err(of_read)?,
        timeline: row.try_get(5).map_err(of_read)?,
    })
}

/// The tables are another cluster's, or their history is later than this server's.
fn check_cluster(found: &Found, server: &Server) -> Result<(), PostgresError> {
    let Some(recorded) = &found.system_identifier else {
        return Ok(());
    };
    if *recorded != server.system_identifier {
        return Err(PostgresError::OtherCluster {
            recorded: recorded.clone(),
            found: server.system_identifier.clone(),
        });
    }
    if found.timeline > Some(server.timeline) {
        return Err(PostgresError::Timeline {
            recorded: found.timeline.unwrap_or_default(),
            found: server.timeline,
        });
    }
    Ok(())
}

/// Compares and sets: term *and* beat, since a writer that goes on changes the beat alone.
async fn exchange(
    connection: &Connection,
    found: &Found,
    holder: &Holder,
    server: &Server,
) -> Result<Option<Taken>, StorageError> {
    connection.take_warning(); // of before
    let taken = connection
        .client
        .query_opt(
            "UPDATE writer SET term = term + 1, beat = beat + 1, holder = $3, url = $4,
                 system_identifier = $5, timeline = $6
             WHERE term = $1 AND beat = $2 RETURNING term, beat",
            &[
                &found.term,
                &found.beat,
                &holder.name,
                &holder.url,
                &server.system_identifier,
                &server.timeline,
            ],
        )
        .await
        .map_err(of_commit)?;
    if let Some(warning) = connection.take_warning() {
        return Err(StorageError::Ambiguous(warning)); // it may not be on any standby
    }
    let read = |row: tokio_postgres::Row| {
        Ok(Taken {
            term: row.try_get(0)?,
            beat: row.try_get(1)?,
        })
    };
    taken.map(read).transpose().map_err(of_read)
}

/// Lets go of it, so that the next writer need not watch the beat.
pub(super) async fn release(client: &Client, term: i64) -> Result<(), StorageError> {
    let sql = "UPDATE writer SET beat = beat + 1, holder = '', url = '' WHERE term = $1";
    let released = client.execute(sql, &[&term]).await;
    released.map(drop).map_err(of_commit)
}
