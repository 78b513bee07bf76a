//! A replica whose ledger turns out to be damaged must not lead, nor count as a copy: it stops.

use std::path::PathBuf;
use std::sync::Arc;

use domain::{Identity, OrderNumber, Row, RowNumber};
use storage::StorageError;
use storage::damage::DamageReporter;

use crate::store::{ReadRows, Store};
use order_core::Durable;
use order_core::Save;

/// A store or a reader whose damage is reported.
pub(crate) struct Watched<S> {
    inner: S,
    reporter: DamageReporter,
}

impl<S> Watched<S> {
    pub(crate) fn new(inner: S, reporter: DamageReporter) -> Self {
        Self { inner, reporter }
    }
}

impl<S: Store> Store for Watched<S> {
    fn durable(&self) -> Durable {
        self.inner.durable()
    }

    fn identity(&self) -> Option<Identity> {
        self.inner.identity()
    }

    fn save(&mut self, save: &Save) -> Result<Durable, StorageError> {
        self.reporter.pass(self.inner.save(save))
    }

    fn reader(&self) -> Arc<dyn ReadRows> {
        Arc::new(Watched::new(self.inner.reader(), self.reporter.clone()))
    }
}

impl ReadRows for Watched<Arc<dyn ReadRows>> {
    fn rows(&self, from: RowNumber, rows_max: usize) -> Result<Vec<Row>, StorageError> {
        self.reporter.pass(self.inner.rows(from, rows_max))
    }

    fn order(&self, number: OrderNumber) -> Result<Option<Row>, StorageError> {
        self.reporter.pass(self.inner.order(number))
    }

    fn beside(&self) -> Result<Vec<Row>, StorageError> {
        self.reporter.pass(self.inner.beside())
    }
}

/// What to do about it, for the operator.
#[derive(Debug, thiserror::Error)]
#[error(
    "the ledger in {} is damaged: {what}\n\
     Where this is a copy of a running replica's directory, copy it again while that is stopped. Where \
     files were moved away, move them back. Otherwise copy the ledger anew from the other replicas and \
     the catalog: start with --rebuild, and the damaged files are kept under another name",
    data_dir.display()
)]
pub struct Damaged {
    /// The replica's data directory.
    pub data_dir: PathBuf,
    /// What is wrong with it.
    pub what: String,
}
