//! Readers of the journal: a few connections, made when they are wanted and again where they broke.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use domain::{Row, RowNumber};
use storage::StorageError;
use tokio::sync::Semaphore;
use tonic::async_trait;

use super::connection::{Connection, Wanted};
use super::error::{PostgresError, told};
use super::read;
use super::server::Server;
use super::url::StoreUrl;
use crate::store::Journal;

/// Most connections of readers.
const CONNECTIONS_MAX: usize = 4;

/// How long one read may take.
const READ_TIME_MAX: Duration = Duration::from_secs(10);

/// Tries of one read, each on another connection than the one that broke.
const TRIES_MAX: u32 = 4;

/// The wait before the second try; doubled before each further one.
const BACK_OFF: Duration = Duration::from_millis(50);

/// Reads the journal of the server that one term's writer writes to.
#[derive(Debug, Clone)]
pub struct PostgresJournal(Arc<Readers>);

#[derive(Debug)]
struct Readers {
    url: StoreUrl,
    term: i64,
    wanted: Wanted,
    turns: Semaphore,
    idle: Mutex<Vec<Connection>>,
}

impl PostgresJournal {
    pub(super) fn new(url: StoreUrl, term: i64, written: Server) -> Self {
        Self(Arc::new(Readers {
            url,
            term,
            wanted: Wanted::Written(written),
            turns: Semaphore::new(CONNECTIONS_MAX),
            idle: Mutex::new(Vec::new()),
        }))
    }

    /// A connection of its own, to the writer's server.
    pub(super) async fn connection(&self) -> Result<Connection, StorageError> {
        self.0.connect().await
    }
}

#[async_trait]
impl Journal for PostgresJournal {
    async fn rows(&self, from: RowNumber, rows_max: usize) -> Result<Vec<Row>, StorageError> {
        let turn = self.0.turns.acquire().await;
        let _turn = turn.map_err(|_| StorageError::Stopping)?;
        let mut wait = BACK_OFF;
        let mut tries = 1;
        loop {
            match self.0.read_once(from, rows_max).await {
                Err(StorageError::Server(problem)) if tries < TRIES_MAX => {
                    tracing::warn!(problem, "reading the database failed; trying again");
                    tokio::time::sleep(wait).await;
                    (tries, wait) = (tries + 1, wait * 2);
                }
                read => return read,
            }
        }
    }
}

impl Readers {
    async fn read_once(&self, from: RowNumber, rows_max: usize) -> Result<Vec<Row>, StorageError> {
        let read = async {
            let idle = self.idle().pop();
            let connection = match idle.filter(|connection| !connection.client.is_closed()) {
                Some(connection) => connection,
                None => self.connect().await?,
            };
            let rows = read::rows(&connection.client, self.term, from, rows_max).await?;
            // One that has led to an error may be to another server than the writer's.
            self.idle().push(connection);
            Ok(rows)
        };
        tokio::time::timeout(READ_TIME_MAX, read)
            .await
            .unwrap_or_else(|_| {
                let problem = format!("no answer within {READ_TIME_MAX:?}");
                Err(StorageError::Server(problem)) // and the connection is dropped
            })
    }

    /// # Errors
    /// Where there is no connection, or only one to another server than the writer's.
    async fn connect(&self) -> Result<Connection, StorageError> {
        let failed = |error: PostgresError| StorageError::Server(error.to_string());
        let opened = Connection::open(&self.url, &self.wanted).await;
        let (connection, _) = opened.map_err(failed)?;
        // What is given up here need not go on there.
        let bounded = format!("SET statement_timeout = {}", READ_TIME_MAX.as_millis());
        let bounded = connection.client.batch_execute(&bounded).await;
        bounded.map_err(|error| StorageError::Server(told(&error)))?;
        Ok(connection)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
