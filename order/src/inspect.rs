//! Reading a replica's data directory from outside, whether or not the replica runs.

use std::path::Path;

use crate::store::proposed;
use domain::LedgerEnd;
use domain::{Epoch, Identity, ReplicaId, Row, RowNumber};
use storage::rows;
use storage::{Database, Location, StorageError};

use crate::store::{KIND, identity, proposed_in, read_term};

/// Rows read at a time.
const CHUNK_ROWS: usize = 4096;

/// A replica's ledger as it is on disk.
#[derive(Debug)]
pub struct Ledger {
    connection: Database,
}

impl Ledger {
    /// Opens the ledger in a replica's data directory, for reading.
    ///
    /// # Errors
    /// Where the directory holds none.
    pub fn open(data_dir: &Path) -> Result<Self, StorageError> {
        Self::open_at(&Location::on_disk(data_dir))
    }

    /// The same, wherever that is.
    ///
    /// # Errors
    /// Where there is none.
    pub fn open_at(location: &Location) -> Result<Self, StorageError> {
        Ok(Self {
            connection: storage::open_read_only(location, KIND)?,
        })
    }

    /// How far it reaches at the moment.
    ///
    /// # Errors
    /// Where its first row is missing or it cannot be read.
    pub fn end(&self) -> Result<LedgerEnd, StorageError> {
        rows::end(&self.connection)
    }

    /// Whose journal's copy it is; `None` where the ledger is one of before that was known.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn identity(&self) -> Result<Option<Identity>, StorageError> {
        identity::read(&self.connection)
    }

    /// The highest epoch that the replica has seen, and its leader.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn term(&self) -> Result<(Epoch, Option<ReplicaId>), StorageError> {
        let term = read_term(&self.connection)?;
        Ok((term.epoch, term.leader))
    }

    /// The highest epoch that anything in it names: the term, a row, or what was proposed and came
    /// to nothing.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn highest_epoch(&self) -> Result<Epoch, StorageError> {
        let (term, _) = self.term()?;
        let last = rows::last(&self.connection)?.map_or(Epoch(0), |row| row.epoch);
        let proposed = proposed::highest_epoch(&self.connection)?;
        Ok(term.max(last).max(proposed))
    }

    /// Its rows in number order, read a chunk at a time. Rows that a running replica adds
    /// meanwhile may or may not be among them. An error, such as a row that is missing, is the
    /// last item.
    pub fn rows(&self) -> Rows<'_> {
        self.rows_from(RowNumber(0))
    }

    /// The same, from a number on.
    pub fn rows_from(&self, from: RowNumber) -> Rows<'_> {
        Rows {
            ledger: self,
            chunk: Vec::new().into_iter(),
            next: from,
            ended: false,
        }
    }

    /// All that the replica answers for: the ledger's rows, and those of the epoch that it knows
    /// which are yet to be moved there. Of these the last few may not be committed.
    pub fn held(&self) -> impl Iterator<Item = Result<Row, StorageError>> {
        let mut rows = self.rows();
        let mut end = LedgerEnd::default();
        let mut beside = None;
        std::iter::from_fn(move || {
            if beside.is_none()
                && let Some(row) = rows.next()
            {
                end = row.as_ref().map_or(end, LedgerEnd::of);
                return Some(row);
            }
            let beside = beside.get_or_insert_with(|| {
                let known = self.term();
                let rows = known.and_then(|(epoch, _)| proposed_in(&self.connection, epoch, end));
                let rows = match rows {
                    Ok(rows) => rows.into_iter().map(Ok).collect(),
                    Err(error) => vec![Err(error)],
                };
                rows.into_iter()
            });
            beside.next()
        })
    }

    /// The rows beside the ledger that continue one that ends there, of whatever epoch.
    ///
    /// # Errors
    /// Where one of them is damaged.
    pub fn continuing(&self, end: LedgerEnd) -> Result<Vec<Row>, StorageError> {
        proposed::continuing(&self.connection, end)
    }
}

/// Iterates over a ledger.
#[derive(Debug)]
pub struct Rows<'a> {
    ledger: &'a Ledger,
    chunk: std::vec::IntoIter<Row>,
    next: RowNumber,
    ended: bool,
}

impl Iterator for Rows<'_> {
    type Item = Result<Row, StorageError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.chunk.len() == 0 && !self.ended {
            match rows::read(&self.ledger.connection, self.next, CHUNK_ROWS) {
                Ok(rows) => {
                    self.ended = rows.len() < CHUNK_ROWS;
                    self.chunk = rows.into_iter();
                }
                Err(error) => {
                    self.ended = true;
                    return Some(Err(error));
                }
            }
        }
        let row = self.chunk.next()?;
        self.next = row.number.next();
        Some(Ok(row))
    }
}
