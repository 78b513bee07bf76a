//! One connection: made, driven, and listened to for what the server says beside its answers.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use daemon::tasks;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_postgres::error::{DbError, Severity, SqlState};
use tokio_postgres::{AsyncMessage, Client, NoTls};

use super::error::{PostgresError, told};
use super::url::StoreUrl;

/// How long making a connection may take, with all of its hosts tried.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(15);

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

impl Connection {
    pub(super) async fn open(url: &StoreUrl) -> Result<Self, PostgresError> {
        let opened = tokio::time::timeout(CONNECT_TIME_MAX, Self::open_in_time(url)).await;
        match opened {
            Ok(Ok(opened)) => Ok(opened),
            Ok(Err(error)) => Err(PostgresError::Connect {
                server: url.to_string(),
                problem: told(&error),
                remedy: remedy(&error),
            }),
            Err(_) => Err(PostgresError::Connect {
                server: url.to_string(),
                problem: format!("no answer within {CONNECT_TIME_MAX:?}"),
                remedy: None,
            }),
        }
    }

    async fn open_in_time(url: &StoreUrl) -> Result<Self, tokio_postgres::Error> {
        match &url.connector {
            Some(connector) => {
                let (client, connection) = url.config.connect(connector.clone()).await?;
                Ok(Self::driven(client, connection))
            }
            None => {
                let (client, connection) = url.config.connect(NoTls).await?;
                Ok(Self::driven(client, connection))
            }
        }
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
fn remedy(error: &tokio_postgres::Error) -> Option<&'static str> {
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
