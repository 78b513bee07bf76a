//! What the writer of a database does with files of its archive: it enters them, and lets go of the rows that they have.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domain::RowNumber;
use rusqlite::{Connection, Transaction, params};

use crate::archive::{Part, SCHEMA, is_begun, parts_in, rows_in};
use crate::database::{self, Database};
use crate::error::StorageError;

/// Rows that leave the table with a commit: so many for each that comes, and a few more, so that these are soon no more
/// than those that are to stay. They leave in the commit's own transaction, which costs no sync.
const LEAVE_FOR_EACH: u64 = 2;
/// See [`LEAVE_FOR_EACH`].
const LEAVE_BESIDES: u64 = 8;

/// A file that is made, and is to be entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    pub(crate) part: Part,
    /// How many files were merged in it.
    pub(crate) replaces: usize,
}

/// Where the archiver leaves the files that it has made, and the writer finds them: two at most, where one was made while others
/// were merged.
#[derive(Debug, Clone, Default)]
pub struct Offers(Arc<Mutex<VecDeque<Offer>>>);

impl Offers {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Offer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one that is next.
    pub(crate) fn look(&self) -> Option<Offer> {
        self.lock().front().copied()
    }

    /// That one is entered.
    pub(crate) fn take(&self) {
        self.lock().pop_front();
    }

    pub(crate) fn leave(&self, offer: Offer) {
        self.lock().push_back(offer);
    }
}

/// What a writer knows of its archive.
#[derive(Debug)]
pub struct Shedding {
    offers: Offers,
    /// The first row of the table.
    first: u64,
    /// How many rows are in files that count.
    archived: u64,
}

/// What a transaction does, once it is committed.
#[derive(Debug)]
#[must_use = "it is so once the transaction is committed"]
pub struct Shed {
    offer: Option<Offer>,
    first: u64,
    archived: u64,
}

impl Shedding {
    /// Of a database as it is.
    ///
    /// # Errors
    /// Where that cannot be read.
    pub fn of(database: &Database) -> Result<Self, StorageError> {
        let sql = "SELECT ifnull(min(number), 0) FROM journal";
        Ok(Self {
            offers: Offers::default(),
            first: database.query_row(sql, [], |row| row.get(0))?,
            archived: rows_in(database)?.0,
        })
    }

    /// Where files are offered.
    pub fn offers(&self) -> Offers {
        self.offers.clone()
    }

    /// Does it in a transaction that adds so many rows: enters a file that is offered, and removes a few rows of those that files
    /// have.
    ///
    /// # Errors
    /// Where the file is not the next one; the transaction is not to be committed then.
    pub fn shed(&self, transaction: &Transaction<'_>, added: usize) -> Result<Shed, StorageError> {
        let offer = self.offers.look();
        let mut archived = self.archived;
        if let Some(offer) = offer {
            enter(transaction, &offer)?;
            archived = archived.max(offer.part.end.rows.0);
        }
        let leave = LEAVE_FOR_EACH * added as u64 + LEAVE_BESIDES;
        let first = (self.first + leave).min(archived).max(self.first);
        if first > self.first {
            let mut leave = transaction.prepare_cached("DELETE FROM journal WHERE number < ?")?;
            leave.execute([first])?;
        }
        Ok(Shed {
            offer,
            first,
            archived,
        })
    }

    /// The transaction is committed.
    pub fn committed(&mut self, shed: Shed, database: &Database) {
        (self.first, self.archived) = (shed.first, shed.archived);
        if shed.offer.is_some() {
            self.offers.take();
            database.archive().forget();
        }
    }
}

/// Enters a file, in the place of those that were merged in it.
fn enter(transaction: &Connection, offer: &Offer) -> Result<(), StorageError> {
    if !is_begun(transaction)? {
        transaction.execute_batch(SCHEMA)?;
        database::note_archive(transaction)?;
    }
    let part = offer.part;
    let (first, end) = (part.first.0, part.end.rows.0);
    let mut replace =
        transaction.prepare_cached("DELETE FROM archived WHERE first >= ? AND rows <= ?")?;
    let replaced = replace.execute(params![first, end])?;
    let mut insert = transaction.prepare_cached("INSERT INTO archived VALUES (?, ?, ?, ?)")?;
    insert.execute(params![
        first,
        end,
        part.end.stock_changes,
        part.end.chain.as_bytes()
    ])?;
    // All of them are one behind the other, as before.
    let parts = parts_in(transaction)?;
    let is_there = replaced == offer.replaces && parts.contains(&part);
    let is_in_table = |number: RowNumber| -> Result<bool, StorageError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM journal WHERE number >= ?)";
        Ok(transaction.query_row(sql, [number.0], |row| row.get(0))?)
    };
    match is_there && is_in_table(part.end.rows)? {
        true => Ok(()),
        false => Err(StorageError::Damaged(format!(
            "the archive's rows {first} to {end} are not those that come next"
        ))),
    }
}
