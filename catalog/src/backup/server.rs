//! The same of a catalog whose truth is in PostgreSQL: its rows are read beside it, and make a database as other catalogs have.
//! So a backup is one thing wherever it was taken, and becomes either kind of catalog.

use std::path::Path;
use std::time::{Duration, Instant};

use catalog_core::Batch;
use domain::{Row, RowNumber};
use storage::StorageError;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::pace::{STEP_ROWS, rest_after};
use super::{CHUNK_ROWS, Copied};
use crate::config::{LEASE_MAX, lease_max};
use crate::error::RebuildError;
use crate::rebuild::{RebuildSource, fill};
use crate::stocks::Listing;
use crate::store::postgres::transfer::{Head, Source, Target};
use crate::store::postgres::{OpenError, StoreUrl};
use crate::store::sqlite::{SqliteJournal, SqliteStore};

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

/// Makes a database in a directory that has none, of the rows that a server has now. It is not synced. `make_way` is called on
/// each thread that has more to do for it than to wait: the server keeps nothing for a copy, which may take as long as it takes.
///
/// # Errors
/// Where there is no journal, it cannot be read, or a disk refuses.
pub async fn copy(url: &StoreUrl, dir: &Path, make_way: fn()) -> Result<(), ServerError> {
    make_way();
    let mut source = Source::open(url).await?;
    let end = source.end();
    let listings = listings(&mut source).await?;
    let listing = source.check_listings(&listings).await?;
    let (rows, mut taken) = mpsc::channel::<Vec<Row>>(1);
    let taken = std::iter::from_fn(move || taken.blocking_recv());
    let from = RebuildSource {
        rows: taken.flatten().map(Ok::<_, StorageError>),
        journal: Some(source.journal),
        listing: Some(listing),
        // None outlives the lease of the catalog that lent it, which is shorter than any restore.
        lease_horizon: Some(lease_max(LEASE_MAX).min(Duration::from_secs(1))),
        epoch: source.leadership.epoch,
        leader: source.leadership.leader,
        protocol: source.protocol,
    };
    let dir = dir.to_owned();
    let filling = spawn_blocking(move || {
        make_way();
        let mut store = SqliteStore::open_gently(&dir)?;
        store.forgo_syncs()?;
        fill(&mut store, &listings, Duration::ZERO, from)?;
        Ok::<_, RebuildError>(store)
    });
    let mut next = RowNumber(0);
    while next < end.rows {
        let left = usize::try_from(end.rows.0 - next.0).unwrap_or(usize::MAX);
        let began = Instant::now();
        let piece = source.rows(next, left.min(STEP_ROWS)).await?;
        let took = began.elapsed();
        next = RowNumber(next.0 + piece.len() as u64);
        if rows.send(piece).await.is_err() {
            break; // it says why below
        }
        sleep(rest_after(took)).await;
    }
    drop(rows);
    let filled = filling.await.map_err(|_| StorageError::Stopping)?;
    let mut store = filled?;
    copy_refused(&source, &mut store).await?;
    let copied = store.load()?;
    if (copied.state.leadership().end, copied.journal) != (end, source.journal) {
        let differs = StorageError::Damaged("what was read is not what the database has".into());
        return Err(differs.into());
    }
    Ok(())
}

/// All the stocks that the journal began with.
async fn listings(source: &mut Source) -> Result<Vec<Listing>, ServerError> {
    let mut listings: Vec<Listing> = Vec::new();
    loop {
        let after = listings.last().map_or("", |last| last.name.as_str());
        let began = Instant::now();
        let piece = source.listings(after, STEP_ROWS).await?;
        let took = began.elapsed();
        let is_last = piece.len() < STEP_ROWS;
        listings.extend(piece);
        if is_last {
            return Ok(listings);
        }
        sleep(rest_after(took)).await;
    }
}

/// All the orders that were refused and are remembered.
async fn copy_refused(source: &Source, store: &mut SqliteStore) -> Result<(), ServerError> {
    let (mut after, mut refused) = (0, Vec::new());
    loop {
        let began = Instant::now();
        let piece = source.refused(after, STEP_ROWS).await?;
        let took = began.elapsed();
        let is_last = piece.len() < STEP_ROWS;
        for (id, one) in piece {
            after = id;
            refused.push(one);
        }
        if refused.len() >= CHUNK_ROWS || is_last {
            store.commit(&Batch {
                refused: std::mem::take(&mut refused),
                ..Batch::default()
            })?;
        }
        if is_last {
            return Ok(());
        }
        sleep(rest_after(took)).await;
    }
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
