//! Saves on their way to the disk. All that have queued are written as one transaction (group
//! commit).

use storage::StorageError;

use super::Store;
use crate::core::Event;

pub use crate::core::Save;

/// Rows that one transaction takes before it is committed, more or less.
pub const GROUP_ROWS_MAX: usize = 8192;

/// Puts what has queued behind a save together with it.
pub fn gather(mut group: Save, mut next: impl FnMut() -> Option<Save>) -> Save {
    while group.rows.len() + group.proposed.len() < GROUP_ROWS_MAX
        && let Some(next) = next()
    {
        group.identity = next.identity.or(group.identity);
        group.term = next.term.or(group.term);
        group.rows.extend(next.rows);
        group.proposed.extend(next.proposed);
    }
    group
}

/// Writes a group, and reports what is then durable.
///
/// # Errors
/// Where the disk failed in such a way that nobody knows: the process is to end
/// ([`storage::error::fail_stop`]).
pub fn write(store: &mut (impl Store + ?Sized), group: &Save) -> Result<Event, StorageError> {
    match store.save(group) {
        Ok(durable) => Ok(Event::Stored(durable)),
        Err(error @ StorageError::DiskFailed(_)) => Err(error),
        Err(error) => {
            tracing::error!(%error, "cannot save");
            Ok(Event::StoreFailed(store.durable()))
        }
    }
}
