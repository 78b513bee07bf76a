//! One file of an archive: an SQLite database that is written once.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::PathBuf;

use domain::{IdempotencyKey, LedgerEnd, Row, RowNumber};
use rusqlite::{Connection, OpenFlags, OptionalExtension};

use super::DIR;
use crate::error::StorageError;
use crate::location::Location;
use crate::row_table::{self, RowsFrom};

/// SQLite's application id.
const APPLICATION_ID: i32 = 0x425a_4152; // "BZAR"

/// Of the form of these files: SQLite's user version.
const FORMAT: i32 = 1;

/// After how many chunks what was written is synced: some 4 MB.
const CHUNKS_SYNCED: u32 = 128;

/// Rows, and entries of the index, that are read at a time where all are.
const CHUNK: usize = 256;

/// What has been read of a file and is kept in memory.
const CACHE_KIB: i32 = 64;

/// Rows as in the database's own table, and an index that is filled in the order of its keys, so that its pages are full.
const SCHEMA: &str = "
    CREATE TABLE journal (
        number        INTEGER PRIMARY KEY,
        epoch         INTEGER NOT NULL,
        key           TEXT NOT NULL,
        name          TEXT NOT NULL,
        side          TEXT NOT NULL,
        quantity      INTEGER NOT NULL,
        price         INTEGER NOT NULL,
        chain         BLOB NOT NULL,
        stock_changes INTEGER NOT NULL,
        stock_change  TEXT
    ) STRICT;
    CREATE TABLE key (
        key    TEXT PRIMARY KEY,
        number INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
";

/// What a file has: rows from one on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Which one.
    pub first: RowNumber,
    /// Of a ledger that ends with the last of them.
    pub end: LedgerEnd,
}

impl Part {
    /// How many rows.
    pub fn rows(&self) -> u64 {
        self.end.rows.0 - self.first.0
    }

    /// Whether a row is one of them.
    pub fn has(&self, number: RowNumber) -> bool {
        (self.first..self.end.rows).contains(&number)
    }

    fn name(&self, suffix: &str) -> String {
        let last = self.end.rows.0 - 1;
        format!("{:012}-{last:012}{suffix}", self.first.0)
    }

    /// Where it is.
    pub(crate) fn path(&self, location: &Location) -> PathBuf {
        location.beside(DIR).join(self.name(".db"))
    }

    /// Where it says which keys it has not.
    pub(crate) fn keys_path(&self, location: &Location) -> PathBuf {
        location.beside(DIR).join(self.name(".keys"))
    }

    /// Its files, in the archive's directory.
    pub(crate) fn file_names(&self) -> [PathBuf; 2] {
        [".db", ".keys"].map(|suffix| self.name(suffix).into())
    }

    /// The first and the last row that a file has by its name, where it is one of an archive, or what a crash left of one.
    pub(crate) fn named(name: &str) -> Option<(RowNumber, RowNumber)> {
        let suffixes = [".db", ".keys", ".keys.new"];
        let stem = suffixes.iter().find_map(|end| name.strip_suffix(end))?;
        let (first, last) = stem.split_once('-')?;
        Some((
            RowNumber(first.parse().ok()?),
            RowNumber(last.parse().ok()?),
        ))
    }
}

/// A file that is open for reading.
#[derive(Debug)]
pub(crate) struct Opened {
    part: Part,
    connection: Connection,
}

impl Opened {
    /// `None` where there is none.
    ///
    /// # Errors
    /// [`StorageError::Damaged`] where it is another one, or does not end as it should; [`StorageError::Newer`] where a later
    /// release made it.
    pub(crate) fn open(location: &Location, part: Part) -> Result<Option<Self>, StorageError> {
        let path = part.path(location);
        let Some(connection) = location.open_beside(&path)? else {
            return Ok(None);
        };
        let is_not = |what: String| {
            StorageError::Damaged(format!(
                "{} is not what was archived: {what}",
                path.display()
            ))
        };
        let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
        connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
        let (id, format) = (pragma("application_id")?, pragma("user_version")?);
        if id != APPLICATION_ID {
            return Err(is_not(format!("its application id is {id:#x}")));
        }
        if format > FORMAT {
            return Err(StorageError::Newer {
                path,
                found: format.unsigned_abs().into(),
                known: FORMAT.unsigned_abs().into(),
            });
        }
        if format != FORMAT {
            return Err(is_not(format!("it has format {format}, not {FORMAT}")));
        }
        let last = RowNumber(part.end.rows.0 - 1);
        let mut rows = RowsFrom::new(last, 1);
        if part.rows() == 1 {
            rows = RowsFrom::trusting(part.first, 1);
        }
        row_table::take(&connection, &mut rows)?;
        match rows.into_rows().pop() {
            Some(row) if LedgerEnd::of(&row) == part.end => Ok(Some(Self { part, connection })),
            _ => Err(is_not(format!("it does not end with row {last} as it did"))),
        }
    }

    pub(crate) fn part(&self) -> Part {
        self.part
    }

    /// Takes the rows that are next.
    ///
    /// # Errors
    /// Where it has not the first of them, which it should have.
    pub(crate) fn take(&self, rows: &mut RowsFrom) -> Result<(), StorageError> {
        let next = rows.next();
        match row_table::take(&self.connection, rows)? && rows.next() > next {
            true => Ok(()),
            false => Err(row_table::missing(next)),
        }
    }

    /// The row of a key, by the index.
    pub(crate) fn find(&self, key: &IdempotencyKey) -> Result<Option<RowNumber>, StorageError> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT number FROM key WHERE key = ?")?;
        let number = statement.query_row([key.as_str()], |row| row.get(0));
        Ok(number.optional()?.map(RowNumber))
    }

    /// Takes every key of the index, in its order.
    ///
    /// # Errors
    /// [`StorageError::Damaged`] where there are not as many as rows.
    pub(crate) fn each_key(&self, mut take: impl FnMut(&str)) -> Result<(), StorageError> {
        let mut statement = self.connection.prepare("SELECT key FROM key")?;
        let mut found = statement.query([])?;
        let mut count = 0;
        while let Some(row) = found.next()? {
            take(&row.get::<_, String>(0)?);
            count += 1;
        }
        let rows = self.part.rows();
        match count == rows {
            true => Ok(()),
            false => Err(StorageError::Damaged(format!(
                "a file of the archive has {count} keys of {rows} rows"
            ))),
        }
    }

    /// The entries of the index behind a key, in its order.
    pub(crate) fn keys_after(
        &self,
        key: &str,
        count: usize,
    ) -> Result<Vec<(String, u64)>, StorageError> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT key, number FROM key WHERE key > ? ORDER BY key LIMIT ?")?;
        let found =
            statement.query_map((key, count as u64), |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(found.collect::<Result<_, _>>()?)
    }
}

/// A file that is being made. What a crash leaves of it counts for nothing.
pub(crate) struct New {
    connection: Connection,
    chunks: u32,
}

impl New {
    /// Begins it, in the place of what a crash left.
    pub(crate) fn begin(location: &Location, part: Part) -> Result<Self, StorageError> {
        let path = part.path(location);
        location.remove(&path)?;
        location.remove(&part.keys_path(location))?;
        let connection = location.connect(&path, OpenFlags::default())?;
        // Nothing is ever rolled back: what fails is thrown away.
        connection.pragma_update(None, "journal_mode", "OFF")?;
        connection.pragma_update(None, "synchronous", "OFF")?;
        connection.pragma_update(None, "application_id", APPLICATION_ID)?;
        connection.execute_batch(SCHEMA)?;
        Ok(Self {
            connection,
            chunks: 0,
        })
    }

    /// Every so often what is added is synced: a disk that gets all of it at once keeps those who trade waiting.
    fn pace_syncs(&mut self) -> Result<(), StorageError> {
        self.chunks += 1;
        let synchronous = match self.chunks.is_multiple_of(CHUNKS_SYNCED) {
            true => "FULL",
            false => "OFF",
        };
        Ok(self
            .connection
            .pragma_update(None, "synchronous", synchronous)?)
    }

    /// Adds rows.
    pub(crate) fn add_rows(&mut self, rows: &[Row]) -> Result<(), StorageError> {
        self.pace_syncs()?;
        let transaction = self.connection.transaction()?;
        row_table::insert(&transaction, rows)?;
        Ok(transaction.commit()?)
    }

    /// Adds entries to the index, behind those that it has.
    pub(crate) fn add_keys(&mut self, keys: &[(String, u64)]) -> Result<(), StorageError> {
        self.pace_syncs()?;
        let transaction = self.connection.transaction()?;
        let mut statement = transaction.prepare_cached("INSERT INTO key VALUES (?, ?)")?;
        for entry in keys {
            statement.execute(rusqlite::params![entry.0, entry.1])?;
        }
        drop(statement);
        Ok(transaction.commit()?)
    }

    /// Ends it, and syncs all of it.
    pub(crate) fn close(self) -> Result<(), StorageError> {
        self.connection.pragma_update(None, "synchronous", "FULL")?;
        self.connection
            .pragma_update(None, "user_version", FORMAT)?;
        self.connection.close().map_err(|(_, error)| error.into())
    }
}

/// Whether a file has all its rows, each as it was, and its index has all their keys and no other.
///
/// # Errors
/// [`StorageError::Damaged`] where it has not.
pub(crate) fn check(
    opened: &Opened,
    before: LedgerEnd,
    pace: &mut dyn FnMut() -> Result<(), StorageError>,
) -> Result<(), StorageError> {
    let (mut reached, mut of_rows) = (before, Sum::default());
    while reached.rows < opened.part.end.rows {
        let left = opened.part.end.rows.0 - reached.rows.0;
        let mut rows = RowsFrom::trusting(reached.rows, left.min(CHUNK as u64) as usize);
        opened.take(&mut rows)?;
        for row in rows.into_rows() {
            if !reached.is_continued_by(&row) {
                return Err(StorageError::Damaged(format!(
                    "row {} is not in the archive as it was written",
                    row.number
                )));
            }
            of_rows.add(row.entry.key().as_str(), row.number.0);
            reached = LedgerEnd::of(&row);
        }
        pace()?;
    }
    let (mut last, mut of_index) = (String::new(), Sum::default());
    loop {
        let entries = opened.keys_after(&last, CHUNK)?;
        for (key, number) in &entries {
            of_index.add(key, *number);
        }
        match entries.into_iter().next_back() {
            Some((key, _)) => last = key,
            None => break,
        }
        pace()?;
    }
    match reached == opened.part.end && of_rows == of_index {
        true => Ok(()),
        false => Err(StorageError::Damaged(
            "a file of the archive is not what was written".to_owned(),
        )),
    }
}

/// Of keys and numbers in any order: who sums up others comes to something else.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sum {
    count: u64,
    hashes: u64,
}

impl Sum {
    fn add(&mut self, key: &str, number: u64) {
        let mut hasher = DefaultHasher::new();
        (key, number).hash(&mut hasher);
        self.hashes = self.hashes.wrapping_add(hasher.finish());
        self.count += 1;
    }
}
