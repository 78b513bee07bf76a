//! The writer's row, as it is read.

use catalog_core::writer_lease::{WriterId, WriterRow, WriterTerm};
use storage::StorageError;
use tokio_postgres::Client;

use super::error::{PostgresError, of_read};
use super::schema;
use super::server::Server;

/// The row, and what goes with it.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) row: WriterRow,
    pub(super) url: String,
    system_identifier: Option<String>,
    /// Of the server in which a catalog was healed last, as is the next.
    timeline: Option<i64>,
    server_started: Option<i64>,
}

/// What a server is to the one in which a catalog was healed last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    /// The same, which has not been restarted since.
    Same,
    /// It is on the same timeline, or there was none before.
    SameTimeline,
    /// It is on another timeline, or nobody knows: it may lack what was committed.
    Another,
}

impl Found {
    pub(super) fn life(&self, server: &Server) -> Life {
        if self.system_identifier.is_none() {
            return Life::SameTimeline;
        }
        if self.timeline != Some(server.timeline) {
            return Life::Another;
        }
        match self.server_started == Some(server.started_us) {
            true => Life::Same,
            false => Life::SameTimeline,
        }
    }

    /// # Errors
    /// Where the tables are another cluster's, or their history is later than this server's.
    pub(super) fn check_cluster(&self, server: &Server) -> Result<(), PostgresError> {
        let Some(recorded) = &self.system_identifier else {
            return Ok(());
        };
        if *recorded != server.system_identifier {
            return Err(PostgresError::OtherCluster {
                recorded: recorded.clone(),
                found: server.system_identifier.clone(),
            });
        }
        if self.timeline > Some(server.timeline) {
            return Err(PostgresError::Timeline {
                recorded: self.timeline.unwrap_or_default(),
                found: server.timeline,
            });
        }
        Ok(())
    }
}

/// Reads it; where it [has it](schema::has_server_started), with when the server had started.
///
/// # Errors
/// Where it cannot be read, or nobody wrote it so.
pub(super) async fn read(client: &Client, has_server_started: bool) -> Result<Found, StorageError> {
    let sql = match has_server_started {
        true => {
            "SELECT term, beat, holder, url, system_identifier, timeline, server_started FROM writer"
        }
        false => {
            "SELECT term, beat, holder, url, system_identifier, timeline, NULL::bigint FROM writer"
        }
    };
    let row = client.query_one(sql, &[]).await.map_err(of_read)?;
    let (term, beat): (i64, i64) = (
        row.try_get(0).map_err(of_read)?,
        row.try_get(1).map_err(of_read)?,
    );
    let holder: String = row.try_get(2).map_err(of_read)?;
    let holder = match holder.as_str() {
        "" => None,
        name => Some(WriterId(u64::from_str_radix(name, 16).map_err(|_| {
            StorageError::Damaged(format!("no catalog's name is {}", name.escape_debug()))
        })?)),
    };
    Ok(Found {
        row: WriterRow {
            term: WriterTerm(term.cast_unsigned()),
            beat: beat.cast_unsigned(),
            holder,
        },
        url: row.try_get(3).map_err(of_read)?,
        system_identifier: row.try_get(4).map_err(of_read)?,
        timeline: row.try_get(5).map_err(of_read)?,
        server_started: row.try_get(6).map_err(of_read)?,
    })
}

/// Whether the tables that are there, if there are any, are this server's.
///
/// # Errors
/// Where they are not. Of tables that cannot be read nothing is said here.
pub(super) async fn check_tables(client: &Client, server: &Server) -> Result<(), PostgresError> {
    if schema::version(client).await?.is_none() {
        return Ok(());
    }
    match read(client, false).await {
        Ok(found) => found.check_cluster(server),
        Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(timeline: i64, started_us: i64) -> Server {
        Server {
            system_identifier: "7".into(),
            timeline,
            started_us,
        }
    }

    fn found(timeline: Option<i64>, server_started: Option<i64>) -> Found {
        Found {
            row: WriterRow::default(),
            url: String::new(),
            system_identifier: Some("7".into()),
            timeline,
            server_started,
        }
    }

    #[test]
    fn what_a_server_may_lack_is_known_by_where_a_catalog_was_healed_last() {
        let on = server(2, 9);
        for (timeline, server_started, expected) in [
            (Some(2), Some(9), Life::Same),
            (Some(2), Some(8), Life::SameTimeline),
            (Some(2), None, Life::SameTimeline),
            (Some(1), Some(9), Life::Another),
            (None, Some(9), Life::Another),
        ] {
            assert_eq!(found(timeline, server_started).life(&on), expected);
        }
        let new = Found {
            system_identifier: None,
            ..found(None, None)
        };
        assert_eq!(new.life(&on), Life::SameTimeline);
    }

    #[test]
    fn tables_of_another_cluster_or_of_a_later_history_are_refused() {
        let found = found(Some(2), None);
        found.check_cluster(&server(2, 9)).unwrap();
        found.check_cluster(&server(3, 9)).unwrap();
        let error = found.check_cluster(&server(1, 9)).unwrap_err();
        assert!(error.to_string().contains("timeline 2"), "{error}");
        let other = Server {
            system_identifier: "8".into(),
            ..server(2, 9)
        };
        let error = found.check_cluster(&other).unwrap_err();
        assert!(
            matches!(error, PostgresError::OtherCluster { .. }),
            "{error}"
        );
    }
}
