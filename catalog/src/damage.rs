//! A catalog whose database turns out to be damaged stops: what it says must be so.

use std::path::PathBuf;

use domain::{IdempotencyKey, OrderNumber, Row};
use std::sync::Arc;
use std::time::Duration;
use storage::StorageError;
use storage::damage::DamageReporter;

use crate::store::sqlite::FILE;
use crate::store::{Journal, Loaded, Store};
use catalog_core::{Batch, PriorOutcome};

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

impl Store for Watched<Box<dyn Store>> {
    fn load(&mut self) -> Result<Loaded, StorageError> {
        self.reporter.pass(self.inner.load())
    }

    fn find_key(&mut self, key: &IdempotencyKey) -> Result<Option<PriorOutcome>, StorageError> {
        self.reporter.pass(self.inner.find_key(key))
    }

    fn commit(&mut self, batch: &Batch) -> Result<(), StorageError> {
        self.reporter.pass(self.inner.commit(batch))
    }

    fn set_sessions_out(&mut self, term: Option<Duration>) -> Result<(), StorageError> {
        self.reporter.pass(self.inner.set_sessions_out(term))
    }
}

impl Journal for Watched<Arc<dyn Journal>> {
    fn rows(&self, from: OrderNumber, rows_max: usize) -> Result<Vec<Row>, StorageError> {
        self.reporter.pass(self.inner.rows(from, rows_max))
    }
}

/// What to do about it, for the operator.
#[derive(Debug, thiserror::Error)]
#[error(
    "the catalog in {dir} is damaged: {what}\n\
     Where this is a copy of a running catalog's directory, copy it again while that is stopped. \
     Where files were moved away, move them back. Otherwise rebuild it from the replicas' ledgers: \
     move {dir}/{FILE} and {dir}/{FILE}-wal elsewhere and start once with --rebuild-from for the data \
     directory of every replica that is left",
    dir = data_dir.display(),
)]
pub struct Damaged {
    /// The catalog's data directory.
    pub data_dir: PathBuf,
    /// What is wrong with it.
    pub what: String,
}
