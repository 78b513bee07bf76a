//! One connection: made, driven, and listened to for what the server says beside its answers.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use daemon::tasks;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::timeout;
use tokio_postgres::error::{DbError, Severity, SqlState};
use tokio_postgres::{AsyncMessage, Client, NoTls};

use super::error::{PostgresError, told};
use super::url::StoreUrl;

/// A connection. Dropping this ends it in good order, once what is under way is answered.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) client: Client,
    warning: Warning,
}

/// The last warning that came beside the answers.
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

/// How long a host has until the next one is tried as well: RFC 8305's.
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

impl Connection {
    /// To a host that can write: the first of them, unless it takes its time. The next one is tried as soon as one fails,
    /// and in any case [`NEXT_HOST_AFTER`] later (as RFC 8305 has it); each has its time for all of it. So one whose machine is
    /// gone, or that takes the connection and then says nothing, does not keep this from the others.
    pub(super) async fn open(url: &StoreUrl) -> Result<Self, PostgresError> {
        let mut waiting = url.one_by_one().enumerate();
        let mut attempts = JoinSet::new();
        let mut failed = BTreeMap::new();
        loop {
            let next = waiting.next();
            let is_last = next.is_none();
            if let Some((place, host)) = next {
                #[expect(clippy::disallowed_methods, reason = "its end is waited for here")]
                attempts.spawn(async move {
                    let opened = Self::attempt(&host).await;
                    opened.map_err(|(problem, remedy)| (place, (host, problem, remedy)))
                });
            }
            let ended = match is_last {
                true => attempts.join_next().await,
                false => match timeout(NEXT_HOST_AFTER, attempts.join_next()).await {
                    Ok(ended) => ended,
                    Err(_) => continue,
                },
            };
            match ended {
                Some(Ok(Ok(opened))) => return Ok(opened),
                Some(Ok(Err((place, problem)))) => drop(failed.insert(place, problem)),
                Some(Err(panicked)) => tracing::error!(%panicked, "a connection was not tried"),
                None if is_last => break,
                None => {}
            }
        }
        let problems: Vec<_> = failed.into_values().collect();
        Err(PostgresError::Connect {
            server: url.to_string(),
            remedy: problems.iter().rev().find_map(|(_, _, remedy)| *remedy),
            problem: match problems.as_slice() {
                [(_, problem, _)] => problem.clone(),
                several => {
                    let each = several
                        .iter()
                        .map(|(host, problem, _)| format!("{host}: {problem}"));
                    each.collect::<Vec<_>>().join("; ")
                }
            },
        })
    }

    /// One host, within its time; else what is wrong with it, and what an operator can do.
    async fn attempt(host: &StoreUrl) -> Result<Self, (String, Option<&'static str>)> {
        let time_max = host.connect_time_max();
        match timeout(time_max, Self::open_one(host)).await {
            Ok(opened) => opened,
            Err(_) => Err((format!("no answer within {time_max:?}"), None)),
        }
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

async fn drive<S, T>(mut connection: tokio_postgres::Connection<S, T>, warning: Warning)
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
        match message {
            Ok(AsyncMessage::Notice(said)) => {
                if is_warning(&said) {
                    tracing::warn!(warning = said.message(), "the database warns");
                    warning.note(said.message().to_owned());
                }
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
