//! One connection: made, driven, and listened to for what the server says beside its answers.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use daemon::tasks;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_postgres::error::{DbError, Severity, SqlState};
use tokio_postgres::{AsyncMessage, Client, NoTls};

use super::error::{PostgresError, told};
use super::server::{self, Server};
use super::url::StoreUrl;
use super::writer_row::check_tables;

/// A connection. Dropping this ends it in good order, once what is under way is answered.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) client: Client,
    warning: Warning,
}

/// The last warning that came beside the answers, and may be of the commit.
#[derive(Debug, Clone, Default)]
struct Warning(Arc<Mutex<Option<String>>>);

impl Warning {
    fn note(&self, warning: String) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(warning);
    }

    fn take(&self) -> Option<String> {
        let mut warning = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        warning.take()
    }
}

/// Pause between two lines in the log about what the server says of every transaction.
const REPORT_PAUSE: Duration = Duration::from_secs(10);

/// How long a host has until the next one is tried as well (RFC 8305's), and how long others have once one will do.
const NEXT_HOST_AFTER: Duration = Duration::from_millis(250);

/// What roles, databases and servers may have other defaults for, and this relies on; what is set in a session, a
/// reload of the server's settings leaves alone.
///
/// - A warning is the only sign of a wait for the standby that was cancelled.
/// - A lock that is not had in less time than a commit may take is reported, and not guessed at.
/// - Other limits are kept here: a server's would cut off what the standby is waited for with.
const SESSION: &str = "
    SET client_min_messages = warning;
    SELECT set_config('synchronous_commit', current_setting('synchronous_commit'), false);
    SET default_transaction_isolation = 'read committed';
    SET default_transaction_deferrable = off;
    SET lock_timeout = '4s';
    SET statement_timeout = 0;
    SET idle_session_timeout = 0;
    SET idle_in_transaction_session_timeout = '10s';
";

/// Which server will do, where a URL names several.
#[derive(Debug, Clone)]
pub(super) enum Wanted {
    /// One to write to: it keeps what it acknowledges, the tables there are its own, and of those that can write it is the one
    /// of the newest history. Others may have been replaced, and not know.
    Writable {
        allow_unreplicated: bool,
        /// The newest that was seen before: none that it has replaced.
        seen: Option<Server>,
    },
    /// The one of the newest history, whatever it keeps, to be read as a whole. All hosts are asked, or fail.
    Newest { seen: Option<Server> },
    /// The one that is written to.
    Written(Server),
}

impl Wanted {
    /// # Errors
    /// Where this server will not do.
    async fn check(&self, client: &Client) -> Result<Server, PostgresError> {
        match self {
            Self::Writable {
                allow_unreplicated,
                seen,
            } => {
                let server = server::check(client, *allow_unreplicated).await?;
                server.check_not_before(seen.as_ref())?;
                check_tables(client, &server).await?;
                Ok(server)
            }
            Self::Newest { seen } => {
                let server = server::which(client).await?;
                server.check_not_before(seen.as_ref())?;
                Ok(server)
            }
            Self::Written(written) => {
                let server = server::which(client).await?;
                server.check_written(written)?;
                Ok(server)
            }
        }
    }

    /// Whether no other host is expected to have a newer one.
    fn is_met_by(&self, server: &Server) -> bool {
        match self {
            Self::Writable { seen, .. } | Self::Newest { seen } => {
                seen.as_ref().is_some_and(|seen| server.replaces(seen))
            }
            Self::Written(_) => true,
        }
    }

    /// Until when the other hosts may show a newer one than was found; `None` for as long as connecting takes.
    fn others_until(&self) -> Option<Instant> {
        match self {
            Self::Writable { .. } | Self::Written(_) => Some(Instant::now() + NEXT_HOST_AFTER),
            Self::Newest { .. } => None,
        }
    }
}

/// Why a host is not used.
enum Problem {
    /// What is wrong with the connection, and what an operator can do.
    Connect(String, Option<&'static str>),
    /// Its server will not do.
    Refused(PostgresError),
}

impl Connection {
    /// To the host whose server is [wanted](Wanted), and which one that is. The next host is tried as soon as one fails, and in any
    /// case [`NEXT_HOST_AFTER`] later (as RFC 8305 has it); each has its time for all of it, the look at its server included. So one
    /// whose machine is gone, or that takes the connection and then says nothing, does not keep this from the others; nor does
    /// one that was replaced and takes writes all the same. Once one will do, the others are asked at once, and not for long.
    pub(super) async fn open(
        url: &StoreUrl,
        wanted: &Wanted,
    ) -> Result<(Self, Server), PostgresError> {
        let mut waiting = url.one_by_one().enumerate();
        let mut attempts = JoinSet::new();
        let mut failed = BTreeMap::new();
        let mut newest: Option<(Self, Server)> = None;
        let mut until = None;
        loop {
            let next = waiting.next();
            let is_last = next.is_none();
            if let Some((place, host)) = next {
                let wanted = wanted.clone();
                #[expect(clippy::disallowed_methods, reason = "its end is waited for here")]
                attempts.spawn(async move {
                    let opened = Self::attempt(&host, &wanted).await;
                    opened.map_err(|problem| (place, (host, problem)))
                });
            }
            let patience = match (is_last, &newest) {
                (false, Some(_)) => continue,
                (false, None) => Some(Instant::now() + NEXT_HOST_AFTER),
                (true, _) => until,
            };
            let ended = attempts.join_next();
            let ended = match patience {
                Some(patience) => timeout_at(patience, ended).await,
                None => Ok(ended.await),
            };
            match ended {
                Ok(Some(Ok(Ok((opened, server))))) if wanted.is_met_by(&server) => {
                    return Ok((opened, server));
                }
                Ok(Some(Ok(Ok((opened, server))))) => {
                    until = until.or_else(|| wanted.others_until());
                    let found = newest.as_ref().map(|(_, found)| found);
                    if let Some(found) = found {
                        warn_of(found, &server);
                    }
                    if found.is_none_or(|found| server.replaces(found)) {
                        newest = Some((opened, server));
                    }
                }
                Ok(Some(Ok(Err((place, problem))))) => drop(failed.insert(place, problem)),
                Ok(Some(Err(panicked))) => {
                    tracing::error!(%panicked, "a connection was not tried");
                }
                Ok(None) | Err(_) if is_last => break,
                Ok(None) | Err(_) => {}
            }
        }
        newest.ok_or_else(|| none_will_do(url, failed.into_values()))
    }

    /// One host, within its time.
    async fn attempt(host: &StoreUrl, wanted: &Wanted) -> Result<(Self, Server), Problem> {
        let time_max = host.connect_time_max();
        let opening = async {
            let opened = Self::open_one(host).await;
            let opened = opened.map_err(|(problem, remedy)| Problem::Connect(problem, remedy))?;
            let server = wanted.check(&opened.client).await;
            Ok::<_, Problem>((opened, server.map_err(Problem::Refused)?))
        };
        timeout(time_max, opening).await.unwrap_or_else(|_| {
            let problem = format!("no answer within {time_max:?}");
            Err(Problem::Connect(problem, None))
        })
    }

    async fn open_one(host: &StoreUrl) -> Result<Self, (String, Option<&'static str>)> {
        let problem = |error: tokio_postgres::Error| (told(&error), remedy_of(&error));
        let opened = if let Some(dial) = &host.dial {
            let stream = dial(host.name()).await;
            let stream = stream.map_err(|error| (error.to_string(), None))?;
            let connected = host.config.connect_raw(stream, NoTls).await;
            connected.map(|(client, connection)| Self::driven(client, connection))
        } else if let Some(connector) = &host.connector {
            let connector = connector.clone();
            let connector = spawn_blocking(move || connector.now()).await;
            let connector = connector.map_err(|error| (error.to_string(), None))?;
            let connected = host.config.connect(connector).await;
            connected.map(|(client, connection)| Self::driven(client, connection))
        } else {
            let connected = host.config.connect(NoTls).await;
            connected.map(|(client, connection)| Self::driven(client, connection))
        };
        let opened = opened.map_err(problem)?;
        let bounded = opened.client.batch_execute(SESSION).await;
        bounded.map_err(problem)?;
        Ok(opened)
    }

    fn driven<S, T>(client: Client, connection: tokio_postgres::Connection<S, T>) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let warning = Warning::default();
        tasks::spawn_for_caller(drive(connection, warning.clone()));
        Self { client, warning }
    }

    /// What the server warned of since this was called last. A warning comes before the end of the
    /// answer that it belongs to.
    pub(super) fn take_warning(&self) -> Option<String> {
        self.warning.take()
    }
}

/// Of two servers that take writes one has replaced the other, or they are of two clusters.
fn warn_of(one: &Server, other: &Server) {
    let (older, newer) = match one.replaces(other) {
        true => (other, one),
        false => (one, other),
    };
    if newer.replaces(older) {
        tracing::warn!(
            %older,
            %newer,
            "a server that was replaced takes writes still: stop it"
        );
    }
}

/// What is said where no host is used: of one alone, what it refuses itself.
fn none_will_do(
    url: &StoreUrl,
    problems: impl ExactSizeIterator<Item = (StoreUrl, Problem)>,
) -> PostgresError {
    let is_one = problems.len() == 1;
    let (mut said, mut remedies, mut is_refused) = (Vec::new(), Vec::new(), false);
    for (host, problem) in problems {
        let problem = match problem {
            Problem::Refused(refused) if is_one => return refused,
            Problem::Refused(refused) => {
                is_refused = true;
                refused.to_string()
            }
            Problem::Connect(problem, remedy) => {
                remedies.extend(remedy);
                problem
            }
        };
        said.push(match is_one {
            true => problem,
            false => format!("{host}: {problem}"),
        });
    }
    PostgresError::Connect {
        server: url.to_string(),
        // Where a server was found, it is that one's refusal that an operator has to do something about.
        remedy: remedies.pop().filter(|_| !is_refused),
        problem: said.join("; "),
    }
}

async fn drive<S, T>(mut connection: tokio_postgres::Connection<S, T>, warning: Warning)
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    let mut told_at: Option<Instant> = None;
    while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
        match message {
            Ok(AsyncMessage::Notice(said)) if !is_warning(&said) => {}
            Ok(AsyncMessage::Notice(said)) if says_nothing_of_a_commit(said.routine()) => {
                if told_at.is_none_or(|at| at.elapsed() >= REPORT_PAUSE) {
                    told_at = Some(Instant::now());
                    let warning = said.message();
                    tracing::error!(warning, "the database is soon to take no more writes");
                }
            }
            Ok(AsyncMessage::Notice(said)) => {
                tracing::warn!(warning = said.message(), "the database warns");
                warning.note(said.message().to_owned());
            }
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(error = told(&error), "a database connection broke");
                return;
            }
        }
    }
}

fn is_warning(said: &DbError) -> bool {
    said.parsed_severity() == Some(Severity::Warning)
}

/// Whether a warning is none of those that may mean that a wait for the standby was cancelled. Which do, no SQLSTATE tells:
/// in PostgreSQL's syncrep.c one for a backend that is told to end has 57P01, and one for a query that is cancelled has that
/// of any warning; and words are in the server's language. So all do but those of the routine which hands out transaction
/// ids (varsup.c): it warns of each for days, before they run out, and has nothing to do with commits.
fn says_nothing_of_a_commit(routine: Option<&str>) -> bool {
    routine == Some("GetNewTransactionId")
}

/// What an operator can do about a connection that was refused.
fn remedy_of(error: &tokio_postgres::Error) -> Option<&'static str> {
    let code = error.code();
    if code == Some(&SqlState::INVALID_PASSWORD) {
        return Some(
            "The password is wrong, or there is none in the URL: postgres://user:password@host/… \
             (percent-encoded; in BAZAAR_STORE, so that no list of processes shows it)",
        );
    }
    if code == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION) {
        return Some(
            "The server lets this role in from here by no way: see its pg_hba.conf, and whether it wants sslmode=require",
        );
    }
    if code == Some(&SqlState::INVALID_CATALOG_NAME) {
        return Some("Make the database first: CREATE DATABASE … OWNER of the URL's role");
    }
    if code == Some(&SqlState::CANNOT_CONNECT_NOW) {
        return Some("The server starts or stops: try again in a moment");
    }
    let told = told(error);
    if told.contains("does not allow writes") {
        return Some(
            "It is read-only, as standbys are: name the primary, or all hosts (host1,host2), of which the one that can write is taken",
        );
    }
    if told.contains("TLS") || told.contains("certificate") {
        return Some(
            "sslmode=verify-full wants a certificate for this host name from who is in sslrootcert; \
             sslmode=disable is for a server without TLS",
        );
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_warning_may_be_of_a_commit_but_that_transaction_ids_run_out() {
        assert!(says_nothing_of_a_commit(Some("GetNewTransactionId")));
        for routine in [Some("SyncRepWaitForLSN"), Some("exec_stmt_raise"), None] {
            assert!(!says_nothing_of_a_commit(routine), "{routine:?}");
        }
    }
}
