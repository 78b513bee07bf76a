//! What a catalog that has started is told of this replica before it serves: what is here, and the rows that its
//! database lost.

use std::sync::Arc;
use std::time::Duration;

use domain::{CatalogRun, LedgerEnd, ReplicaId, Row, Term};
use storage::StorageError;

use crate::peers::Catalog;
use crate::store::ReadRows;

/// Most rows of one call, at most about 300 bytes each.
const RESTORED_ROWS: usize = 1024;

/// What is here, but for what is beside the ledger on the disk.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    pub(crate) replica: ReplicaId,
    pub(crate) run: CatalogRun,
    /// Where the ledger ends, with the committed rows that are yet to be saved.
    pub(crate) end: LedgerEnd,
    pub(crate) term: Term,
    pub(crate) peers: Vec<ReplicaId>,
    /// The longest time for which a catalog was heard to count a lease.
    pub(crate) lease_horizon: Duration,
    /// The disk has nothing of this journal, not even its name.
    pub(crate) is_empty: bool,
}

/// Reports, and shows the catalog the rows that it asks for, as far as they are on the disk: it asks again. Whether it
/// could be told anything its own log says, and the next question to it.
pub(crate) async fn report(catalog: &Catalog, reader: &Arc<dyn ReadRows>, report: &Report) {
    let beside = match blocking(reader, |reader| reader.beside()).await {
        Ok(rows) => rows,
        Err(error) => {
            tracing::error!(%error, "cannot read what is beside the ledger: the catalog is not told what is here");
            return;
        }
    };
    let beyond = |row: &Row| row.number >= report.end.rows;
    let beside: Vec<Row> = beside.into_iter().filter(beyond).collect();
    let mut missing = match catalog.report_ledger(report, &beside).await {
        Ok(missing) => missing,
        Err(error) => return tracing::debug!(%error, "the catalog does not take a report"),
    };
    while let Some(from) = missing {
        let rows = match blocking(reader, move |reader| reader.rows(from, RESTORED_ROWS)).await {
            Ok(rows) => rows,
            Err(error) => return tracing::error!(%error, "cannot read what the catalog lost"),
        };
        if rows.is_empty() {
            return; // they are yet to be saved
        }
        let (first, count) = (from, rows.len());
        missing = match catalog.put_back(report, rows).await {
            Ok(missing) => missing,
            Err(error) => return tracing::debug!(%error, "the catalog does not take what it lost"),
        };
        tracing::info!(%first, count, "the catalog got back orders that its database had lost");
    }
}

/// Reads off the async threads.
async fn blocking<T: Send + 'static>(
    reader: &Arc<dyn ReadRows>,
    read: impl FnOnce(&dyn ReadRows) -> Result<T, StorageError> + Send + 'static,
) -> Result<T, StorageError> {
    let reader = Arc::clone(reader);
    let read = tokio::task::spawn_blocking(move || read(&*reader)).await;
    read.map_err(|_| StorageError::Stopping)?
}
