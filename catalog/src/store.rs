//! What is durable, behind a small trait.
//!
//! - [`sqlite`]: in a directory of this machine's;
//! - [`postgres`]: in PostgreSQL;
//! - `audit`: whether its stocks are what its journal made of them;
//! - `checksums`, `words`: what tables have in common;
//! - `memory`: one for tests, whose disk fills up on demand.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use domain::{
    ChangeNumber, Entry, Epoch, IdempotencyKey, JournalId, LedgerEnd, ListingDigest, OrderNumber,
    Protocol, Quantity, ReplicaId, Row, RowNumber, StockChange, StockChangeKind, StockName,
};
use storage::StorageError;
use storage::rows::{OrderSearch, missing};
use tonic::async_trait;

use catalog_core::{Batch, CatalogState, PriorOutcome, SaidCallers, Term, WriterLease};

pub mod sqlite;
pub mod postgres;
mod audit;
mod checksums;
mod words;
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
    /// The version of the protocol that the bazaar is at.
    pub protocol: Protocol,
    /// Where sessions of the run before may still be alive: how long at most.
    pub sessions_out: Option<Duration>,
    /// The database is known to have come back in another incarnation than the one of its last writer: what was
    /// committed last may not be in it.
    pub may_lack_rows: bool,
    /// It is known to be in the same incarnation still in which [all was healed](Store::note_healed): nothing can be missing.
    pub is_unbroken: bool,
}

/// The writer's side of a store. One thread owns it, and waits for it: what is on this machine may
/// block, and be ready at once.
#[async_trait]
pub trait Store: Send {
    async fn load(&mut self) -> Result<Loaded, StorageError>;

    /// What idempotency keys were used for, in the order of the keys. Of refused orders the last
    /// [`REFUSED_ORDERS_KEPT`] are known. Called once for all that is committed together.
    async fn find_keys(
        &mut self,
        keys: &[&IdempotencyKey],
    ) -> Result<Vec<Option<PriorOutcome>>, StorageError>;

    /// Makes a batch durable in one transaction. After an error nothing of it is, unless the error
    /// [ends the process](StorageError::ends_process).
    async fn commit(&mut self, batch: &Batch) -> Result<(), StorageError>;

    /// Notes durably that sessions may be alive after a crash, and how long at most; or that
    /// none is. Not asked for where there is a [writer lease](Self::writer_lease): no session outlives it.
    async fn set_sessions_out(&mut self, _lease_max: Option<Duration>) -> Result<(), StorageError> {
        Ok(())
    }

    /// What it is, as OpenTelemetry calls it (`db.system.name`).
    fn system(&self) -> &'static str {
        "sqlite"
    }

    /// The lease under which it is this catalog's; `None` where no other can take it over. Each
    /// commit, and each [beat](Self::beat), is a sign of life.
    fn writer_lease(&self) -> Option<WriterLease> {
        None
    }

    /// Says that its writer is there.
    async fn beat(&mut self) -> Result<(), StorageError> {
        Ok(())
    }

    /// What catalogs that stand by say of how many callers ask them; nothing where there is no place for it. Read beside what is
    /// committed: it says nothing of that.
    async fn standby_callers(&mut self) -> Result<Option<SaidCallers>, StorageError> {
        Ok(None)
    }

    /// Notes durably which version of the protocol the bazaar is at, and makes what that version keeps: releases that do
    /// not speak it refuse the store from then on. A lower one than is noted changes nothing.
    async fn raise_protocol(&mut self, protocol: Protocol) -> Result<(), StorageError>;

    /// Notes durably that it has all that its incarnation before had: what [`Loaded::may_lack_rows`] said is over, and where
    /// incarnations are told apart, [`Loaded::is_unbroken`] begins.
    async fn note_healed(&mut self) -> Result<(), StorageError> {
        Ok(())
    }

    /// Lets go of it, so that the next writer need not wait.
    async fn close(&mut self) -> Result<(), StorageError> {
        Ok(())
    }
}

/// The readers' side of a store: the rows of the journal.
#[async_trait]
pub trait Journal: Send + Sync {
    /// At most `rows_max` committed rows from a number on, in number order and without gaps.
    async fn rows(&self, from: RowNumber, rows_max: usize) -> Result<Vec<Row>, StorageError>;

    /// The row of an order, in a journal that ends there; `None` where it has no such order.
    async fn order(&self, order: OrderNumber, end: LedgerEnd) -> Result<Option<Row>, StorageError> {
        let Some(mut search) = OrderSearch::new(order, end) else {
            return Ok(None);
        };
        loop {
            let row = self.rows(search.probe(), 1).await?.pop();
            let row = row.ok_or_else(|| missing(search.probe()))?;
            if let Some(found) = search.take(row)? {
                return Ok(Some(found));
            }
        }
    }
}

/// Which of a batch's stocks it lists, rather than that they were there before.
fn listed(batch: &Batch) -> BTreeSet<&StockName> {
    let changes = batch.rows.iter().filter_map(|row| match &row.entry {
        Entry::StockChange(change) => Some(change),
        Entry::Order(_) => None,
    });
    let is_listed = |change: &&StockChange| matches!(change.kind, StockChangeKind::Add { .. });
    changes
        .filter(is_listed)
        .map(|change| &change.name)
        .collect()
}

/// An id that no other journal has.
pub fn random_journal() -> Result<JournalId, StorageError> {
    let mut bytes = [0; JournalId::BYTES];
    let filled = getrandom::fill(&mut bytes);
    filled.map_err(|error| StorageError::Random(io::Error::other(error.to_string())))?;
    Ok(JournalId::new(bytes))
}

/// The version of the protocol as it was read; whether it is what was written its checksum tells.
fn protocol(number: u64) -> Result<Protocol, StorageError> {
    let number_of = |number| u32::try_from(number).ok().and_then(Protocol::new);
    let none = || StorageError::Damaged(format!("the protocol has no version {number}"));
    number_of(number).ok_or_else(none)
}

/// Rounded up, so that nobody waits for less.
fn whole_ms(term: Duration) -> Duration {
    match term.subsec_nanos() % 1_000_000 {
        0 => term,
        past => term + Duration::from_nanos(u64::from(1_000_000 - past)),
    }
}

/// A term as it was read; whether it is what was written its checksum tells.
fn term(
    epoch: u64,
    leader: u32,
    change: u64,
    in_sync: BTreeSet<ReplicaId>,
) -> Result<Term, StorageError> {
    let term = Term {
        epoch: Epoch(epoch),
        leader: ReplicaId::new(leader),
        in_sync,
        change: match change {
            0 => ChangeNumber::NONE,
            number => ChangeNumber::new(number)?,
        },
    };
    let is_first = term.epoch == Epoch(0);
    if is_first != term.leader.is_none() || (is_first && term != Term::default()) {
        return Err(StorageError::Damaged(format!(
            "epoch {epoch} cannot have leader {leader} and this in-sync set"
        )));
    }
    Ok(term)
}

fn shares(quantity: u64) -> Result<u64, StorageError> {
    if quantity > Quantity::MAX {
        return Err(StorageError::Damaged(format!(
            "there cannot be {quantity} shares"
        )));
    }
    Ok(quantity)
}
