//! Saves on their way to the disk.

use storage::StorageError;

use super::Store;
use order_core::{Event, Save};

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
