//! Old rows of a journal in files of their own, so that the database that is written to stays small.
//!
//! Rows never change. So those that came long ago are copied into files beside the database, `archive/FIRST-LAST.db`, which
//! are written once, checked, synced, and then entered into the database's table `archived`: a file counts from that
//! commit on, and not before. From then on the rows leave the database's own table, a few with each
//! commit. So a row is at every moment in the table, in a file that counts, or in both. What is in no
//! table is what a crash left, or what was merged, and is removed.
//!
//! - here: which files count, and how rows and keys are found in them;
//! - [`part`]: one file;
//! - `keys`: which keys are certainly not in it;
//! - `leftovers`: what does not count.
//!
//! Who makes the files is the [`archiver`](crate::archiver); what the writer does with them, [`shedding`](crate::shedding).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use domain::{ChainHash, IdempotencyKey, LedgerEnd, RowNumber};
use rusqlite::Connection;

use crate::error::StorageError;
use crate::location::Location;
use crate::row_table::RowsFrom;

pub mod part;
pub(crate) mod keys;
pub(crate) mod leftovers;

pub use part::Part;

pub(crate) use leftovers::tidy;

use keys::{Keys, Wanted};
use part::Opened;

/// The directory of the files, beside the database.
pub const DIR: &str = "archive";

/// The table of the files that count.
pub const TABLE: &str = "archived";

/// Makes it, with the first file.
pub const SCHEMA: &str =
    "CREATE TABLE archived ( -- the files in archive/: together they have all rows before those of `journal`
        first         INTEGER PRIMARY KEY CHECK (first >= 0),
        rows          INTEGER NOT NULL CHECK (rows > first), -- how many rows are before its end
        stock_changes INTEGER NOT NULL CHECK (stock_changes >= 0), -- as many of these change stocks
        chain         BLOB NOT NULL CHECK (length(chain) = 32) -- of its last row
    ) STRICT";

/// What an archived row takes on the disk, more or less.
pub const ROW_BYTES: u64 = 150;

/// Files that are kept open by each who reads rows: to open one takes longer than to read any row of it. Each has a cache of
/// 64 KiB at most.
pub(crate) const READER_OPEN_MAX: usize = 16;

/// The same of who writes, and looks for each order's key in any of them: all that there are but for very long journals. Each has a
/// cache of 64 KiB at most.
const WRITER_OPEN_MAX: usize = 64;

/// How often it is looked again which files count, where one of them is gone: they were merged.
const ATTEMPTS_MAX: usize = 5;

/// The files of one database, for one who reads.
#[derive(Debug)]
pub struct Archive {
    /// `None` where there cannot be any.
    location: Option<Location>,
    /// Those that count, in the order of their rows; `None` until that was read.
    parts: Option<Vec<Part>>,
    /// What SQLite said its `data_version` was before they were read: another one once another connection has committed.
    version: i64,
    /// Those that were read last, the very last one at the end.
    open: Vec<Opened>,
    open_max: usize,
    /// By the first row of the file.
    keys: BTreeMap<RowNumber, Keys>,
}

impl Archive {
    pub(crate) fn new(location: Option<Location>) -> Self {
        Self {
            location,
            parts: None,
            version: 0,
            open: Vec::new(),
            open_max: READER_OPEN_MAX,
            keys: BTreeMap::new(),
        }
    }

    /// It is the writer's.
    pub(crate) fn keep_open(&mut self) {
        self.open_max = WRITER_OPEN_MAX;
    }

    /// Those that are open.
    #[cfg(test)]
    pub(crate) fn open_parts(&self) -> Vec<Part> {
        self.open.iter().map(Opened::part).collect()
    }

    /// Other files count now.
    pub(crate) fn forget(&mut self) {
        self.parts = None;
    }

    /// Looks at each file that counts, and at both ends of it.
    ///
    /// # Errors
    /// [`StorageError::Damaged`] where one is missing, or is not the one that was entered.
    pub(crate) fn check_ends(&mut self, connection: &Connection) -> Result<(), StorageError> {
        for part in parts_in(connection)? {
            let mut rows = RowsFrom::trusting(part.first, 1);
            self.take(connection, &mut rows)?;
        }
        Ok(())
    }

    /// Makes filters of keys anew that are missing, as where a file was removed or left out of a copy. Nothing rests on them:
    /// where a disk does not take one it goes on without.
    ///
    /// # Errors
    /// Where the file that it is made from is missing or damaged.
    pub(crate) fn mend_keys(&mut self, connection: &Connection) -> Result<(), StorageError> {
        let Some(location) = self.location.clone().filter(Location::is_on_disk) else {
            return Ok(());
        };
        for part in parts_in(connection)? {
            if !keys::is_missing(&location, part) {
                continue;
            }
            let mut filter = keys::New::of(part);
            self.with_part(
                connection,
                |other| *other == part,
                |opened| opened.each_key(|key| filter.add(key)),
            )?;
            let path = part.keys_path(&location);
            match filter.replace(&path) {
                Ok(()) => tracing::info!(path = %path.display(), "made a filter of keys anew"),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "cannot make a filter of keys anew");
                }
            }
        }
        Ok(())
    }

    /// Takes the rows that are next from the file that has them, as many as are wanted and it has. Whether there is such a
    /// file.
    ///
    /// # Errors
    /// [`StorageError::Damaged`] where it is gone, or has not what it should have.
    pub(crate) fn take(
        &mut self,
        connection: &Connection,
        rows: &mut RowsFrom,
    ) -> Result<bool, StorageError> {
        let next = rows.next();
        self.look_again(connection)?;
        self.with_part(
            connection,
            |part| part.has(next),
            |opened| opened.take(rows),
        )
        .map(|taken| taken.is_some())
    }

    /// The row that a key made, by what the files' indices say. Asked once the table is seen not to have the key: it may have
    /// left into a file that was entered since anything was read here.
    ///
    /// # Errors
    /// As above.
    pub(crate) fn find(
        &mut self,
        connection: &Connection,
        key: &IdempotencyKey,
    ) -> Result<Option<RowNumber>, StorageError> {
        self.look_again(connection)?;
        if self.parts(connection)?.is_empty() {
            return Ok(None);
        }
        let wanted = Wanted::new(key);
        let mut before = RowNumber(u64::MAX);
        loop {
            // Who tries again does it soon.
            let parts = self.parts(connection)?;
            let Some(part) = parts.iter().rev().find(|part| part.first < before).copied() else {
                return Ok(None);
            };
            before = part.first;
            if !self.may_have(part, &wanted) {
                continue;
            }
            let found = self.with_part(
                connection,
                |other| other.has(part.first),
                |opened| opened.find(key),
            )?;
            if let Some(Some(number)) = found {
                return Ok(Some(number));
            }
        }
    }

    /// Whether a key may be one of a file's. Where that cannot be told it may.
    fn may_have(&mut self, part: Part, wanted: &Wanted) -> bool {
        let Some(location) = self.location.as_ref().filter(|it| it.is_on_disk()) else {
            return true;
        };
        let keys = self
            .keys
            .entry(part.first)
            .or_insert_with(|| Keys::none(part));
        keys.may_have(location, wanted)
    }

    /// Does something with the file that is looked for; `None` where there is none. One that is gone
    /// was merged, if by now others count.
    fn with_part<T>(
        &mut self,
        connection: &Connection,
        is_it: impl Fn(&Part) -> bool,
        with: impl FnOnce(&Opened) -> Result<T, StorageError>,
    ) -> Result<Option<T>, StorageError> {
        let Some(location) = self.location.clone() else {
            return Ok(None);
        };
        let mut gone = None;
        for attempt in 0..ATTEMPTS_MAX {
            let parts = self.parts(connection)?;
            let part = parts.iter().copied().find(&is_it);
            let is_fresh = attempt > 0;
            match part {
                None if is_fresh => return Ok(None),
                None => {}
                Some(part) => {
                    if let Some(opened) = self.opened(&location, part)? {
                        return with(opened).map(Some);
                    }
                    if is_fresh && gone == Some(part) {
                        break;
                    }
                    gone = Some(part);
                }
            }
            self.forget();
        }
        let gone = gone.map(|part| part.path(&location)).unwrap_or_default();
        Err(StorageError::Damaged(format!(
            "{} is missing: it has rows that are nowhere else in this directory",
            gone.display()
        )))
    }

    /// A file of those that are open, or opens it; `None` where it is not there.
    fn opened(&mut self, location: &Location, part: Part) -> Result<Option<&Opened>, StorageError> {
        let place = self.open.iter().position(|opened| opened.part() == part);
        let opened = match place {
            Some(place) => self.open.remove(place),
            None => match Opened::open(location, part)? {
                Some(opened) => opened,
                None => return Ok(None),
            },
        };
        if self.open.len() >= self.open_max {
            self.open.remove(0);
        }
        self.open.push(opened);
        Ok(self.open.last())
    }

    /// Forgets which files count where another connection has committed since that was read. The only one that writes has
    /// none beside it, and knows when it enters a file.
    fn look_again(&mut self, connection: &Connection) -> Result<(), StorageError> {
        if self.location.is_none() {
            return Ok(());
        }
        let mut statement = connection.prepare_cached("PRAGMA main.data_version")?;
        let version = statement.query_row([], |row| row.get(0))?;
        if self.version != version {
            self.version = version;
            self.forget();
        }
        Ok(())
    }

    /// Those that count, as they were when that was read.
    fn parts(&mut self, connection: &Connection) -> Result<&[Part], StorageError> {
        let parts = match self.parts.take() {
            Some(parts) => parts,
            None => {
                let parts = parts_in(connection)?;
                // A file that was merged takes room until nobody has it open.
                self.keys.retain(|_, keys| parts.contains(&keys.part()));
                self.open.retain(|opened| parts.contains(&opened.part()));
                parts
            }
        };
        Ok(self.parts.insert(parts))
    }
}

/// The files that count.
///
/// # Errors
/// [`StorageError::Damaged`] where there are rows between two of them.
pub fn parts_in(connection: &Connection) -> Result<Vec<Part>, StorageError> {
    if !is_begun(connection)? {
        return Ok(Vec::new());
    }
    let mut statement = connection.prepare_cached(
        "SELECT first, rows, stock_changes, chain FROM main.archived ORDER BY first",
    )?;
    let mut found = statement.query([])?;
    let (mut parts, mut next) = (Vec::new(), RowNumber(0));
    while let Some(row) = found.next()? {
        let part = Part {
            first: RowNumber(row.get(0)?),
            end: LedgerEnd {
                rows: RowNumber(row.get(1)?),
                stock_changes: row.get(2)?,
                chain: ChainHash::try_from(row.get::<_, Vec<u8>>(3)?.as_slice())?,
            },
        };
        if part.first != next {
            return Err(StorageError::Damaged(format!(
                "no file of the archive has row {next}"
            )));
        }
        next = part.end.rows;
        parts.push(part);
    }
    Ok(parts)
}

/// Whether any was ever entered. Read from the database: a connection's own idea of the tables is of when it last looked.
pub(crate) fn is_begun(connection: &Connection) -> Result<bool, StorageError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM main.sqlite_schema WHERE name = ?)";
    let mut statement = connection.prepare_cached(sql)?;
    Ok(statement.query_row([TABLE], |row| row.get(0))?)
}

/// How many rows are in files that count.
///
/// # Errors
/// Where that cannot be read.
pub fn rows_in(connection: &Connection) -> Result<RowNumber, StorageError> {
    let parts = parts_in(connection)?;
    Ok(parts.last().map(|part| part.end.rows).unwrap_or_default())
}

/// The files of an archive that count, for who copies them: names in [`DIR`].
///
/// # Errors
/// Where that cannot be read.
pub fn files(connection: &Connection) -> Result<Vec<PathBuf>, StorageError> {
    let parts = parts_in(connection)?;
    Ok(parts.iter().flat_map(|part| part.file_names()).collect())
}

/// Whether a file of an archive, by its name, is one that is made anew where it is missing.
pub fn can_be_spared(name: &Path) -> bool {
    name.extension().is_some_and(|end| end == "keys")
}
