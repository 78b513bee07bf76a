//! What is durable, behind a small trait.
//!
//! - [`sqlite`]: the real one;
//! - `audit`: whether its stocks are what its journal made of them;
//! - `memory`: one for tests, whose disk fills up on demand.

use std::time::Duration;

use domain::{IdempotencyKey, JournalId, ListingDigest, OrderNumber, Row};
use storage::StorageError;

use catalog_core::{Batch, CatalogState, PriorOutcome};

pub mod sqlite;
mod audit;
#[cfg(test)]
pub mod memory;

/// How many refused orders a store remembers, some 100 MB of them. An attempt at one of them that
/// is on its way for so long that as many others were refused meanwhile is taken for a new order.
pub const REFUSED_ORDERS_KEPT: u64 = 1_000_000;

/// What a store holds when it is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// Which journal it is.
    pub journal: JournalId,
    /// Of the stocks that it began with.
    pub listing: ListingDigest,
    pub state: CatalogState,
    /// Where sessions of the run before may still be alive: how long at most.
    pub sessions_out: Option<Duration>,
}

/// The writer's side of a store. One thread owns it.
pub trait Store: Send {
    fn load(&mut self) -> Result<Loaded, StorageError>;

    /// What an idempotency key was used for. Of refused orders the last
    /// [`REFUSED_ORDERS_KEPT`] are known.
    fn find_key(&mut self, key: &IdempotencyKey) -> Result<Option<PriorOutcome>, StorageError>;

    /// Makes a batch durable in one transaction. After an error nothing of it is.
    fn commit(&mut self, batch: &Batch) -> Result<(), StorageError>;

    /// Notes durably that sessions may be alive after a crash, and how long at most; or that
    /// none is.
    fn set_sessions_out(&mut self, lease_max: Option<Duration>) -> Result<(), StorageError>;
}

/// The readers' side of a store: the rows of the journal. Blocks, so it is for threads that
/// may.
pub trait Journal: Send + Sync {
    /// At most `rows_max` committed rows from a number on, in number order and without gaps.
    fn rows(&self, from: OrderNumber, rows_max: usize) -> Result<Vec<Row>, StorageError>;
}
