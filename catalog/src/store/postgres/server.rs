//! Whether a server keeps what it acknowledges, and which one it is.

use std::fmt;

use tokio_postgres::Client;

use super::error::{PostgresError, told};

/// The oldest version that will do, as `server_version_num` has it.
const VERSION_MIN: u32 = 150_000;

/// Which database cluster it is, and which of its histories: a fail-over begins another timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Server {
    pub(super) system_identifier: String,
    pub(super) timeline: i64,
    /// When it started, in microseconds since 1970 by its own clock.
    pub(super) started_us: i64,
}

/// What a server says of itself.
#[derive(Debug)]
struct Said {
    version: u32,
    encoding: String,
    fsync: String,
    synchronous_commit: String,
    standby_names: String,
    read_only: bool,
    /// Standbys that a commit waits for.
    synchronous: i64,
    /// Standbys of which this role may see nothing.
    unseen: i64,
}

impl Server {
    /// Whether its history goes on from one of the same cluster that the other one still has.
    pub(super) fn replaces(&self, other: &Self) -> bool {
        self.system_identifier == other.system_identifier && self.timeline > other.timeline
    }

    /// # Errors
    /// Where it was replaced, as what was seen before says.
    pub(super) fn check_not_before(&self, seen: Option<&Self>) -> Result<(), PostgresError> {
        match seen.filter(|seen| seen.replaces(self)) {
            None => Ok(()),
            Some(seen) => Err(PostgresError::Replaced {
                seen: seen.timeline,
                found: self.timeline,
            }),
        }
    }

    /// # Errors
    /// Where it is not the one that is written to, nor goes on as that one, restarted.
    pub(super) fn check_written(&self, written: &Self) -> Result<(), PostgresError> {
        let is_same_cluster = self.system_identifier == written.system_identifier;
        match is_same_cluster && self.timeline == written.timeline {
            true => Ok(()),
            false => Err(PostgresError::NotWritten {
                found: self.to_string(),
                written: written.to_string(),
            }),
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            system_identifier,
            timeline,
            ..
        } = self;
        write!(f, "cluster {system_identifier} on timeline {timeline}")
    }
}

/// Looks at the server at the other end.
///
/// # Errors
/// Where it is too old, or would lose what it acknowledges: that of a missing standby only unless
/// `allow_unreplicated`.
pub(super) async fn check(
    client: &Client,
    allow_unreplicated: bool,
) -> Result<Server, PostgresError> {
    let (server, said) = ask(client).await?;
    said.check(allow_unreplicated)?;
    Ok(server)
}

/// Which one is at the other end, whatever it keeps.
///
/// # Errors
/// Where it does not say.
pub(super) async fn which(client: &Client) -> Result<Server, PostgresError> {
    let (server, _) = ask(client).await?;
    Ok(server)
}

async fn ask(client: &Client) -> Result<(Server, Said), PostgresError> {
    let failed = |error: tokio_postgres::Error| PostgresError::Schema(told(&error));
    let row = client
        .query_one(
            "SELECT current_setting('server_version_num')::bigint,
                    current_setting('fsync'),
                    current_setting('synchronous_commit'),
                    current_setting('synchronous_standby_names'),
                    pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on',
                    (SELECT count(*) FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum')),
                    (SELECT count(*) FROM pg_stat_replication WHERE sync_state IS NULL),
                    (SELECT system_identifier::text FROM pg_control_system()),
                    -- The checkpoint's is that of before for a while after a fail-over.
                    CASE WHEN pg_is_in_recovery()
                        THEN (SELECT timeline_id::bigint FROM pg_control_checkpoint())
                        ELSE ('x' || lpad(left(pg_walfile_name(pg_current_wal_lsn()), 8), 16, '0'))
                            ::bit(64)::bigint
                    END,
                    current_setting('server_encoding'),
                    (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint",
            &[],
        )
        .await
        .map_err(failed)?;
    let version: i64 = row.try_get(0).map_err(failed)?;
    let said = Said {
        version: u32::try_from(version).unwrap_or_default(),
        encoding: row.try_get(9).map_err(failed)?,
        fsync: row.try_get(1).map_err(failed)?,
        synchronous_commit: row.try_get(2).map_err(failed)?,
        standby_names: row.try_get(3).map_err(failed)?,
        read_only: row.try_get(4).map_err(failed)?,
        synchronous: row.try_get(5).map_err(failed)?,
        unseen: row.try_get(6).map_err(failed)?,
    };
    let server = Server {
        system_identifier: row.try_get(7).map_err(failed)?,
        timeline: row.try_get(8).map_err(failed)?,
        started_us: row.try_get(10).map_err(failed)?,
    };
    Ok((server, said))
}

impl Said {
    fn check(self, allow_unreplicated: bool) -> Result<(), PostgresError> {
        let not_durable = |setting, value, remedy| PostgresError::NotDurable {
            setting,
            value,
            remedy,
        };
        if self.version < VERSION_MIN {
            return Err(PostgresError::Old {
                found: self.version / 10_000,
                needed: VERSION_MIN / 10_000,
            });
        }
        if self.encoding != "UTF8" {
            return Err(PostgresError::Encoding(self.encoding));
        }
        if self.read_only {
            return Err(not_durable(
                "transaction_read_only",
                "on".into(),
                "name a server that can write",
            ));
        }
        if self.fsync != "on" {
            return Err(not_durable("fsync", self.fsync, "set it to on"));
        }
        if !["on", "remote_apply"].contains(&self.synchronous_commit.as_str()) {
            let remedy = "set it to on for this role and database";
            return Err(not_durable(
                "synchronous_commit",
                self.synchronous_commit,
                remedy,
            ));
        }
        if allow_unreplicated {
            return Ok(());
        }
        if self.standby_names.is_empty() {
            let names = "synchronous_standby_names is empty";
            return Err(PostgresError::Unreplicated(names.into()));
        }
        if self.synchronous == 0 {
            return Err(match self.unseen {
                0 => PostgresError::Unreplicated(format!(
                    "none of those in synchronous_standby_names, {}, is connected",
                    self.standby_names
                )),
                _ => PostgresError::Unseen,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said() -> Said {
        Said {
            version: 150_004,
            encoding: "UTF8".into(),
            fsync: "on".into(),
            synchronous_commit: "on".into(),
            standby_names: "ANY 1 (a, b)".into(),
            read_only: false,
            synchronous: 1,
            unseen: 0,
        }
    }

    #[test]
    fn a_server_that_was_replaced_is_none_to_go_back_to() {
        let on = |timeline| Server {
            system_identifier: "7".into(),
            timeline,
            started_us: timeline,
        };
        let (before, after) = (on(1), on(2));
        after.check_not_before(Some(&before)).unwrap();
        before.check_not_before(Some(&before)).unwrap();
        before.check_not_before(None).unwrap();
        let error = before.check_not_before(Some(&after)).unwrap_err();
        assert!(error.to_string().contains("timeline 1"), "{error}");
        // Whose tables they are says whether another cluster will do.
        let other = Server {
            system_identifier: "8".into(),
            ..on(1)
        };
        other.check_not_before(Some(&after)).unwrap();
        let restarted = Server {
            started_us: 9,
            ..on(2)
        };
        restarted.check_written(&after).unwrap();
        for wrong in [before, on(3), other] {
            let error = wrong.check_written(&after).unwrap_err();
            assert!(error.to_string().contains(&after.to_string()), "{error}");
        }
    }

    #[test]
    fn a_server_that_would_lose_what_it_acknowledges_is_refused_by_its_setting() {
        said().check(false).unwrap();
        let applied = Said {
            synchronous_commit: "remote_apply".into(),
            ..said()
        };
        applied.check(false).unwrap();
        type Change = fn(&mut Said);
        let wrong = |change: Change| {
            let mut said = said();
            change(&mut said);
            said
        };
        let always: [(Change, &str); 7] = [
            (|said| said.version = 140_020, "PostgreSQL 14 is too old"),
            (|said| said.encoding = "LATIN1".into(), "encoding is LATIN1"),
            (|said| said.fsync = "off".into(), "fsync is `off`"),
            (
                |said| said.synchronous_commit = "off".into(),
                "synchronous_commit is `off`",
            ),
            (
                |said| said.synchronous_commit = "local".into(),
                "synchronous_commit is `local`",
            ),
            (
                |said| said.synchronous_commit = "remote_write".into(),
                "synchronous_commit is `remote_write`",
            ),
            (|said| said.read_only = true, "transaction_read_only"),
        ];
        for (change, problem) in always {
            for allow_unreplicated in [false, true] {
                let error = wrong(change).check(allow_unreplicated).unwrap_err();
                assert!(error.to_string().contains(problem), "{error}");
            }
        }
        let unless_allowed: [(Change, &str); 3] = [
            (|said| said.standby_names.clear(), "is empty"),
            (|said| said.synchronous = 0, "ANY 1 (a, b), is connected"),
            (
                |said| (said.synchronous, said.unseen) = (0, 1),
                "GRANT pg_monitor",
            ),
        ];
        for (change, problem) in unless_allowed {
            let error = wrong(change).check(false).unwrap_err();
            assert!(error.to_string().contains(problem), "{error}");
            wrong(change).check(true).unwrap();
        }
    }
}
