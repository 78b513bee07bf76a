//! The same of a catalog whose truth is in PostgreSQL: its rows are read beside it, and make a database as other catalogs have.
//! So a backup is one thing wherever it was taken, and becomes either kind of catalog.

use std::path::Path;
use std::time::Duration;

use catalog_core::Batch;
use domain::RowNumber;
use storage::StorageError;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::{CHUNK_ROWS, Copied};
use crate::config::{LEASE_MAX, lease_max};
use crate::error::RebuildError;
use crate::rebuild::{RebuildSource, fill};
use crate::store::postgres::transfer::{Head, Source, Target};
use crate::store::postgres::{OpenError, StoreUrl};
use crate::store::sqlite::{SqliteJournal, SqliteStore};

/// Pause after each [`CHUNK_ROWS`]: the server has others to serve.
const PAUSE: Duration = Duration::from_millis(10);

/// Why nothing was copied.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Rebuild(#[from] RebuildError),
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Makes a database in a directory that has none, of the rows that a server has now.
///
/// # Errors
/// Where there is no journal, it cannot be read, or a disk refuses.
pub async fn copy(url: &StoreUrl, dir: &Path) -> Result<(), ServerError> {
    let mut source = Source::open(url).await?;
    let end = source.end();
    let leadership = source.loaded.state.leadership();
    let (rows, mut taken) = mpsc::channel(1);
    let from = RebuildSource {
        rows: std::iter::from_fn(move || taken.blocking_recv()),
        journal: Some(source.loaded.journal),
        listing: Some(source.loaded.listing),
        // None outlives the lease of the catalog that lent it, which is shorter than any restore.
        lease_horizon: Some(lease_max(LEASE_MAX).min(Duration::from_secs(1))),
        epoch: leadership.term.epoch,
        leader: leadership.term.leader,
        protocol: source.loaded.protocol,
    };
    let (dir, listings) = (dir.to_owned(), source.listings.clone());
    let journal = source.loaded.journal;
    let filling = spawn_blocking(move || {
        let mut store = SqliteStore::open(&dir)?;
        fill(&mut store, &listings, Duration::ZERO, from)?;
        Ok::<_, RebuildError>(store)
    });
    let mut next = RowNumber(0);
    'rows: while next < end.rows {
        let left = usize::try_from(end.rows.0 - next.0).unwrap_or(usize::MAX);
        let chunk = source.rows(next, left.min(CHUNK_ROWS)).await?;
        next = RowNumber(next.0 + chunk.len() as u64);
        for row in chunk {
            if rows.send(Ok(row)).await.is_err() {
                break 'rows; // it says why below
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
    drop(rows);
    let filled = filling.await.map_err(|_| StorageError::Stopping)?;
    let mut store = filled?;
    let mut after = 0;
    loop {
        let chunk = source.refused(after).await?;
        let Some((last, _)) = chunk.last() else {
            break;
        };
        after = *last;
        let refused = chunk.into_iter().map(|(_, refused)| refused).collect();
        store.commit(&Batch {
            refused,
            ..Batch::default()
        })?;
    }
    let copied = store.load()?;
    let copied = copied.state.leadership().end;
    if (copied, store.load()?.journal) != (end, journal) {
        let differs = StorageError::Damaged("what was read is not what the database has".into());
        return Err(differs.into());
    }
    Ok(())
}

/// Writes a copy into a database that has no journal. The first catalog there compares it with the replicas' ledgers.
///
/// # Errors
/// Where there is one, or the server refuses.
pub async fn restore(
    copy: &Path,
    url: &StoreUrl,
    allow_unreplicated: bool,
) -> Result<Copied, ServerError> {
    let mut source = SqliteStore::open(copy)?;
    let (listings, loaded) = (source.listings()?, source.load()?);
    let refused = source.refused()?;
    drop(source);
    let journal = SqliteJournal::open(copy)?;
    let leadership = loaded.state.leadership();
    let stocks: Vec<_> = loaded.state.stocks().cloned().collect();
    let head = Head {
        journal: loaded.journal,
        protocol: loaded.protocol,
        listings: &listings,
        identity: loaded.listing,
        stocks: &stocks,
        term: leadership.term,
    };
    let end = leadership.end;
    let mut next = RowNumber(0);
    let rows = || {
        let rows = match next < end.rows {
            true => journal.rows(next, CHUNK_ROWS)?,
            false => Vec::new(),
        };
        next = RowNumber(next.0 + rows.len() as u64);
        Ok(rows)
    };
    let target = Target::open(url, allow_unreplicated).await?;
    target.write(&head, rows, &refused).await?;
    Ok(Copied {
        journal: loaded.journal,
        end,
    })
}
