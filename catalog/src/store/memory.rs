//! A store in memory, whose disk can be full, and slow to sync.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use domain::time::BootTime;
use domain::{IdempotencyKey, JournalId, ListingDigest, Protocol, Row, RowNumber};
use rusqlite::{ErrorCode, ffi};
use storage::StorageError;
use tonic::async_trait;

use super::{Journal, Loaded, Store};
use catalog_core::writer_lease::{Fence, WriterId, WriterTerm};
use catalog_core::{Batch, CatalogState, PriorOutcome, RefusedOrder, SaidCallers, WriterLease};

/// The journal of every disk in memory.
pub const JOURNAL: JournalId = JournalId::new(*b"a disk in memory");

/// What that began with.
pub const LISTING: ListingDigest = ListingDigest::new([7; ListingDigest::BYTES]);

/// The "disk": clones share it, and it outlives the stores on it.
#[derive(Debug, Clone, Default)]
pub struct Disk {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    content: Mutex<Content>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Content {
    state: CatalogState,
    rows: Vec<Row>,
    refused: Vec<RefusedOrder>,
    sessions_out: Option<Duration>,
    protocol: Option<Protocol>,
    full: bool,
    held: bool,
    waiting: bool,
    commits: usize,
    lookups: usize,
    reads: usize,
    /// Where another one may take it over.
    writer_lease: Option<Duration>,
    beats: usize,
    standby_callers: Option<SaidCallers>,
    closed: bool,
}

impl Disk {
    /// A disk with that state, and an empty journal.
    pub fn new(state: CatalogState) -> Self {
        let disk = Self::default();
        disk.content().state = state;
        disk
    }

    /// Another disk with what is on this one.
    pub fn copy(&self) -> Self {
        let content = self.content();
        let copy = Self::new(content.state.clone());
        {
            let mut content_there = copy.content();
            content_there.rows = content.rows.clone();
            content_there.refused = content.refused.clone();
            content_there.sessions_out = content.sessions_out;
            content_there.protocol = content.protocol;
        }
        copy
    }

    /// From now on every commit fails; or no longer does.
    pub fn set_full(&self, full: bool) {
        self.content().full = full;
    }

    /// From now on every commit waits; or no longer does.
    pub fn set_held(&self, held: bool) {
        self.content().held = held;
        self.shared.changed.notify_all();
    }

    /// Whether a commit waits.
    pub fn is_waiting(&self) -> bool {
        self.content().waiting
    }

    /// From now on others can take it over that saw no sign of life for so long.
    pub fn set_writer_lease(&self, lease: Duration) {
        self.content().writer_lease = Some(lease);
    }

    /// A catalog that stands by says that so many callers ask it.
    pub fn say_standby_callers(&self, callers: u64) {
        let mut content = self.content();
        let said = content.standby_callers.map_or(0, |said| said.said) + 1;
        content.standby_callers = Some(SaidCallers { said, callers });
    }

    /// How many signs of life there were that nothing else was committed with.
    pub fn beats(&self) -> usize {
        self.content().beats
    }

    /// Whether its writer has let go of it.
    pub fn is_closed(&self) -> bool {
        self.content().closed
    }

    /// How many commits succeeded.
    pub fn commits(&self) -> usize {
        self.content().commits
    }

    /// How often keys were looked up, however many at once.
    pub fn lookups(&self) -> usize {
        self.content().lookups
    }

    /// How often rows were read.
    pub fn reads(&self) -> usize {
        self.content().reads
    }

    /// The rows of the journal.
    pub fn journal(&self) -> Vec<Row> {
        self.content().rows.clone()
    }

    /// What is noted of sessions.
    pub fn sessions_out(&self) -> Option<Duration> {
        self.content().sessions_out
    }

    /// A store on this disk.
    pub fn store(&self) -> MemoryStore {
        MemoryStore(self.clone())
    }

    /// What a store on it loads.
    pub fn load(&self) -> Loaded {
        let content = self.content();
        Loaded {
            journal: JOURNAL,
            listing: LISTING,
            state: content.state.clone(),
            protocol: content.protocol.unwrap_or(Protocol::FIRST),
            sessions_out: content.sessions_out,
            may_lack_rows: false,
            is_unbroken: false,
        }
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.shared.content.lock().unwrap()
    }
}

#[derive(Debug)]
pub struct MemoryStore(Disk);

fn disk_full() -> StorageError {
    StorageError::Sqlite(rusqlite::Error::SqliteFailure(
        ffi::Error {
            code: ErrorCode::DiskFull,
            extended_code: ffi::SQLITE_FULL,
        },
        None,
    ))
}

#[async_trait]
impl Store for MemoryStore {
    async fn load(&mut self) -> Result<Loaded, StorageError> {
        Ok(self.0.load())
    }

    async fn find_keys(
        &mut self,
        keys: &[&IdempotencyKey],
    ) -> Result<Vec<Option<PriorOutcome>>, StorageError> {
        let mut content = self.0.content();
        content.lookups += 1;
        let find = |key: &&IdempotencyKey| {
            let mut rows = content.rows.iter();
            let row = rows.find(|row| row.entry.key() == *key);
            let mut refused = content.refused.iter();
            let refused = refused.find(|refused| refused.entry.key() == *key);
            let refused = refused.cloned().map(PriorOutcome::Refused);
            row.cloned().map(PriorOutcome::Row).or(refused)
        };
        Ok(keys.iter().map(find).collect())
    }

    async fn commit(&mut self, batch: &Batch) -> Result<(), StorageError> {
        let mut content = self.0.content();
        content.waiting = true;
        let released = self
            .0
            .shared
            .changed
            .wait_while(content, |content| content.held);
        let mut content = released.unwrap();
        content.waiting = false;
        if content.full {
            return Err(disk_full());
        }
        content.state.apply(batch.clone());
        content.rows.extend(batch.rows.iter().cloned());
        content.refused.extend(batch.refused.iter().cloned());
        content.commits += 1;
        Ok(())
    }

    async fn raise_protocol(&mut self, protocol: Protocol) -> Result<(), StorageError> {
        let mut content = self.0.content();
        content.protocol = content.protocol.max(Some(protocol));
        Ok(())
    }

    async fn set_sessions_out(&mut self, lease_max: Option<Duration>) -> Result<(), StorageError> {
        let mut content = self.0.content();
        if content.full {
            return Err(disk_full());
        }
        content.sessions_out = lease_max;
        Ok(())
    }

    fn writer_lease(&self) -> Option<WriterLease> {
        let lease = self.0.content().writer_lease?;
        let fence = Fence {
            term: WriterTerm(1),
            holder: WriterId(1),
        };
        Some(WriterLease::active(fence, lease, BootTime::now()))
    }

    async fn beat(&mut self) -> Result<(), StorageError> {
        let mut content = self.0.content();
        if content.full {
            return Err(disk_full());
        }
        content.beats += 1;
        Ok(())
    }

    async fn standby_callers(&mut self) -> Result<Option<SaidCallers>, StorageError> {
        Ok(self.0.content().standby_callers)
    }

    async fn close(&mut self) -> Result<(), StorageError> {
        self.0.content().closed = true;
        Ok(())
    }
}

#[async_trait]
impl Journal for Disk {
    async fn rows(&self, from: RowNumber, rows_max: usize) -> Result<Vec<Row>, StorageError> {
        let mut content = self.content();
        content.reads += 1;
        let rows = content.rows.iter().skip(from.0 as usize).take(rows_max);
        Ok(rows.cloned().collect())
    }
}
