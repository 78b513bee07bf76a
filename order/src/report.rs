//! What a catalog that has started is told of this replica before it serves: what is here, and the rows that its
//! database lost.

use std::sync::Arc;

use domain::{Epoch, LedgerEnd, Row, RowNumber};
use storage::StorageError;

use crate::peers::{Catalog, Report};
use crate::store::ReadRows;

/// Most rows of one call, at most about 500 bytes each.
const RESTORED_ROWS: usize = 1024;

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
    let Some(last_epoch) = last_epoch(reader, report.end, &beside).await else {
        return; // the last row is yet to be saved
    };
    let beyond = |row: &Row| row.number >= report.end.rows;
    let beside: Vec<Row> = beside.into_iter().filter(beyond).collect();
    let mut missing = match catalog.report_ledger(report, last_epoch, &beside).await {
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
        tracing::info!(%first, count, "the catalog got back rows that its database had lost");
    }
}

/// The epoch of the ledger's last row, which may be beside it on the disk yet.
async fn last_epoch(reader: &Arc<dyn ReadRows>, end: LedgerEnd, beside: &[Row]) -> Option<Epoch> {
    let Some(last) = end.rows.0.checked_sub(1).map(RowNumber) else {
        return Some(Epoch(0));
    };
    let is_last = |row: &&Row| LedgerEnd::of(row) == end;
    if let Some(row) = beside.iter().find(is_last) {
        return Some(row.epoch);
    }
    let read = blocking(reader, move |reader| reader.rows(last, 1)).await;
    read.ok()?.iter().find(is_last).map(|row| row.epoch)
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
