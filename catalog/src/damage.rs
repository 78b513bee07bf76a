//! A catalog whose database turns out to be damaged stops: what it says must be so.

use std::fmt;
use std::path::PathBuf;

use domain::{IdempotencyKey, LedgerEnd, OrderNumber, Protocol, Row, RowNumber};
use std::sync::Arc;
use std::time::Duration;
use storage::StorageError;
use storage::damage::DamageReporter;
use tonic::async_trait;

use crate::store::sqlite::FILE;
use crate::store::{Journal, Loaded, Store};
use catalog_core::{Batch, PriorOutcome, SaidCallers, WriterLease};

/// A store or a journal whose damage is reported.
pub(crate) struct Watched<S> {
    inner: S,
    reporter: DamageReporter,
}

impl<S> Watched<S> {
    pub(crate) fn new(inner: S, reporter: DamageReporter) -> Self {
        Self { inner, reporter }
    }
}

#[async_trait]
impl Store for Watched<Box<dyn Store>> {
    fn system(&self) -> &'static str {
        self.inner.system()
    }

    async fn load(&mut self) -> Result<Loaded, StorageError> {
        self.reporter.pass(self.inner.load().await)
    }

    async fn find_keys(
        &mut self,
        keys: &[&IdempotencyKey],
    ) -> Result<Vec<Option<PriorOutcome>>, StorageError> {
        self.reporter.pass(self.inner.find_keys(keys).await)
    }

    async fn commit(&mut self, batch: &Batch) -> Result<(), StorageError> {
        self.reporter.pass(self.inner.commit(batch).await)
    }

    async fn set_sessions_out(&mut self, lease_max: Option<Duration>) -> Result<(), StorageError> {
        self.reporter
            .pass(self.inner.set_sessions_out(lease_max).await)
    }

    fn writer_lease(&self) -> Option<WriterLease> {
        self.inner.writer_lease()
    }

    async fn beat(&mut self) -> Result<(), StorageError> {
        self.inner.beat().await
    }

    async fn standby_callers(&mut self) -> Result<Option<SaidCallers>, StorageError> {
        self.inner.standby_callers().await
    }

    async fn raise_protocol(&mut self, protocol: Protocol) -> Result<(), StorageError> {
        self.reporter
            .pass(self.inner.raise_protocol(protocol).await)
    }

    async fn note_healed(&mut self) -> Result<(), StorageError> {
        self.inner.note_healed().await
    }

    async fn close(&mut self) -> Result<(), StorageError> {
        self.inner.close().await
    }
}

#[async_trait]
impl Journal for Watched<Arc<dyn Journal>> {
    async fn rows(&self, from: RowNumber, rows_max: usize) -> Result<Vec<Row>, StorageError> {
        self.reporter.pass(self.inner.rows(from, rows_max).await)
    }

    async fn order(&self, order: OrderNumber, end: LedgerEnd) -> Result<Option<Row>, StorageError> {
        self.reporter.pass(self.inner.order(order, end).await)
    }
}

/// Where a catalog's database is.
#[derive(Debug)]
pub enum Home {
    /// The catalog's data directory.
    Directory(PathBuf),
    /// A server's address, without a password.
    Server(String),
}

/// What is wrong with a catalog's database.
#[derive(Debug)]
pub struct Damaged {
    pub home: Home,
    pub what: String,
}

impl std::error::Error for Damaged {}

/// With what to do about it, for the operator.
impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { home, what } = self;
        match home {
            Home::Directory(dir) => write!(
                f,
                "the catalog in {dir} is damaged: {what}\n\
     Where this is a copy of a running catalog's directory, copy it again while that is stopped. \
     Where files were moved away, move them back. Otherwise rebuild it from the replicas' ledgers: \
     move {dir}/{FILE} and {dir}/{FILE}-wal elsewhere and start once with --rebuild-from for the data \
     directory of every replica that is left",
                dir = dir.display(),
            ),
            Home::Server(server) => write!(
                f,
                "the catalog in {server} is damaged: {what}\n\
                 Where the server was restored from a copy, restore a later one. Keep the replicas' data \
                 directories: their ledgers hold the orders that it lacks"
            ),
        }
    }
}
