//! A data directory with one owner, opened so that a commit is durable.

use std::cell::{RefCell, RefMut};
use std::fs;
use std::io::ErrorKind;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use daemon::data_dir::Lock;
use daemon::directory;
use rusqlite::{Connection, OpenFlags, Transaction};

use crate::archive::{self, Archive};
use crate::error::StorageError;
use crate::files::OpenFiles;
use crate::location::{Location, Vfs};
use crate::log::{self, LogBound};

/// What kind of database a file is, so that a wrong directory is noticed before it is used.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// For messages: "catalog".
    pub name: &'static str,
    /// File name in the data directory.
    pub file: &'static str,
    /// SQLite's application id.
    pub application_id: i32,
    /// Statements that make the tables of a new database, each of them in each part.
    pub schema: &'static [&'static str],
    /// Tables and columns that came since, in the order in which they came: a database that lacks
    /// the last of them gets them when it is opened for writing. The release before knows them.
    pub added: &'static [&'static str],
    /// What came after that: a release that has not all of it refuses the database, so it is added only
    /// [when told](add_gated), once no such release is wanted any more.
    pub gated: &'static [&'static str],
}

impl Kind {
    /// How many times its tables were made or changed.
    pub const fn version(&self) -> usize {
        1 + self.added.len() + self.gated.len()
    }
}

/// Which [version](Kind::version) its tables have, or lower where it was not opened since release 0.1.0: for later
/// releases' databases, of which nothing else can be said.
const VERSION: &str = "user_version";

/// What is added to the version of a database that has an archive: releases from before there were any say of it that it is of a
/// later one, and not that it is damaged.
const ARCHIVE_VERSION: u64 = 1000;

/// An open database, and the files beside it that some of its journal may be in: see
/// [`crate::archive`].
#[derive(Debug)]
pub struct Database {
    connection: Connection,
    archive: RefCell<Archive>,
}

impl Database {
    /// With the files of a directory.
    fn new(connection: Connection, location: &Location) -> Self {
        Self {
            connection,
            archive: RefCell::new(Archive::new(Some(location.clone()))),
        }
    }

    /// One that has no directory, in memory say.
    pub fn without_archive(connection: Connection) -> Self {
        Self {
            connection,
            archive: RefCell::new(Archive::new(None)),
        }
    }

    /// The files. Nobody keeps what this returns while calling what may ask for it.
    pub(crate) fn archive(&self) -> RefMut<'_, Archive> {
        self.archive.borrow_mut()
    }
}

impl Deref for Database {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl DerefMut for Database {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.connection
    }
}

/// A database that is at most so large is read in full whenever it is opened: about half a
/// second. A larger one is read while it already serves.
const READ_AT_OPEN_BYTES_MAX: u64 = 32 << 20;

/// A data directory that this process, and no other, writes to. Dropping it, and the archiver that works in it, lets go.
#[derive(Debug)]
pub struct DataDir {
    location: Location,
    lock: Option<Arc<Lock>>,
}

impl DataDir {
    /// Takes the directory, making it where it is missing, so that it outlives a loss of power.
    pub fn take(path: &Path) -> Result<Self, StorageError> {
        let failed = |source| StorageError::Directory {
            path: path.to_owned(),
            source,
        };
        directory::make_private(path).map_err(failed)?;
        let lock = Lock::take(path)?;
        directory::sync(path).map_err(failed)?;
        Ok(Self {
            location: Location::on_disk(path),
            lock: Some(Arc::new(lock)),
        })
    }

    /// The same, where each statement [makes way for others](crate::gentle): for one that nobody waits for.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    pub fn take_gently(path: &Path) -> Result<Self, StorageError> {
        let Self { location, lock } = Self::take(path)?;
        Ok(Self {
            location: location.gently(),
            lock,
        })
    }

    /// A directory on a disk of a simulator's, which has no other process.
    pub fn simulated(path: &Path, vfs: &'static Vfs) -> Self {
        Self {
            location: Location::simulated(path, vfs),
            lock: None,
        }
    }

    /// Where it is, for who only reads.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// Keeps other processes out for as long as it is held, by who works beside the writer.
    pub(crate) fn lock(&self) -> Option<Arc<Lock>> {
        self.lock.clone()
    }

    /// Opens the directory's database for writing, with a write-ahead log that is synced at
    /// every commit. Makes it where it is missing.
    ///
    /// What it then holds is durable, whatever became of the process before: rows that were
    /// written and not synced when it was killed, or that a failed sync left in the page cache as
    /// if they were on the disk, are written and synced now.
    ///
    /// # Errors
    /// [`StorageError::Foreign`] where it belongs to something else, [`StorageError::Damaged`]
    /// where its head is not as it was written, and where the disk does not take what it is to
    /// hold. What it holds is for the caller to check.
    pub fn open(&self, kind: Kind) -> Result<Database, StorageError> {
        let path = self.location.beside(kind.file);
        if self.location.is_on_disk() {
            refuse_empty(&path)?;
            refuse_lone_log(&path, &self.location.log_of(kind.file))?;
            refuse_lone_archive(&path, &self.location)?;
        }
        self.location.make_log_durable(kind.file)?;
        let mut connection = self.location.connect(&path, OpenFlags::default())?;
        let missing = missing(&connection, &path, kind)?;
        let (now, later) = missing.at_open();
        // Like FULL with a write-ahead log. Before there is one, a rollback journal whose deletion
        // is not synced could come back after a loss of power, and take all that was committed
        // since with it.
        connection.pragma_update(None, "synchronous", "EXTRA")?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "journal_size_limit", log::BYTES_MAX)?;
        if !now.is_empty() {
            // All of it or nothing, so that a crash leaves no half of a database.
            let transaction = connection.transaction()?;
            transaction.pragma_update(None, "application_id", kind.application_id)?;
            add(&transaction, now, kind.version() - later.len())?;
            crate::error::commit(transaction)?;
            if self.location.is_on_disk() {
                let dir = self.location.dir();
                directory::sync(dir).map_err(|source| StorageError::Directory {
                    path: dir.to_owned(),
                    source,
                })?;
            }
        }
        let database = Database::new(connection, &self.location);
        database.archive().keep_open();
        database.archive().check_ends(&database)?;
        database.archive().mend_keys(&database)?;
        archive::tidy(&database, &self.location)?;
        Ok(database)
    }

    /// Keeps the log of its database short, for who writes to it.
    pub fn log_bound(&self, kind: Kind) -> LogBound {
        let is_on_disk = self.location.is_on_disk();
        LogBound::of(is_on_disk.then(|| self.location.log_of(kind.file)))
    }

    /// The files of its database, which was opened a moment ago: to be watched for as long as it is
    /// open.
    pub fn files(&self, kind: Kind) -> OpenFiles {
        let files = [
            self.location.beside(kind.file),
            self.location.log_of(kind.file),
        ];
        OpenFiles::of(files.into_iter().filter(|_| self.location.is_on_disk()))
    }

    /// Gives the database's files other names, and those of its archive, so that it can be made again; they are kept.
    /// Returns the new name: `orders.db.damaged-1`.
    ///
    /// # Errors
    /// Where they cannot be renamed.
    pub fn set_aside(&self, kind: Kind) -> Result<PathBuf, StorageError> {
        let dir = self.location.dir();
        let failed = |source| StorageError::Directory {
            path: dir.to_owned(),
            source,
        };
        let name = |number: u32, suffix: &str| {
            let file = format!("{}.damaged-{number}{suffix}", kind.file);
            dir.join(file)
        };
        let archive = |number: u32| dir.join(format!("{}.damaged-{number}", archive::DIR));
        let is_free = |&number: &u32| {
            let is_file = |suffix: &&str| name(number, suffix).exists();
            !SUFFIXES.iter().any(is_file) && !archive(number).exists()
        };
        let number = (1..)
            .find(is_free)
            .expect("a directory has fewer files than there are numbers");
        for suffix in SUFFIXES {
            let from = dir.join(format!("{}{suffix}", kind.file));
            match fs::rename(from, name(number, suffix)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
                _ => {}
            }
        }
        match fs::rename(dir.join(archive::DIR), archive(number)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        directory::sync(dir).map_err(failed)?;
        Ok(name(number, ""))
    }
}

/// A database's files: its pages, its write-ahead log, and that one's index. The log goes first:
/// without its pages it means nothing, and pages without it are an older state.
const SUFFIXES: [&str; 3] = ["-wal", "-shm", ""];

/// A file of no bytes would be taken for a new database.
fn refuse_empty(path: &Path) -> Result<(), StorageError> {
    match fs::metadata(path) {
        Ok(file) if file.len() == 0 => Err(StorageError::Damaged(format!(
            "{} has no bytes; where it never held anything, remove it",
            path.display()
        ))),
        _ => Ok(()),
    }
}

/// SQLite would take the database for new and throw its log away, and all that was committed last
/// with it.
fn refuse_lone_log(database: &Path, log: &Path) -> Result<(), StorageError> {
    let is_lone = !database.exists() && fs::metadata(log).is_ok_and(|log| log.len() > 0);
    if is_lone {
        return Err(StorageError::Damaged(format!(
            "{} is missing beside its log, {}",
            database.display(),
            log.display()
        )));
    }
    Ok(())
}

/// Without its database nobody knows which of its files count.
fn refuse_lone_archive(database: &Path, location: &Location) -> Result<(), StorageError> {
    let archive = location.beside(archive::DIR);
    if !database.exists() && !location.list(&archive)?.is_empty() {
        return Err(StorageError::Damaged(format!(
            "{} is missing beside its archive, {}",
            database.display(),
            archive.display()
        )));
    }
    Ok(())
}

/// Gives a database the [gated](Kind::gated) parts that it lacks, in the caller's transaction. From then on releases that
/// do not have them refuse it.
///
/// # Errors
/// Where it is of another kind, or the disk is full.
pub fn add_gated(
    transaction: &Transaction<'_>,
    path: &Path,
    kind: Kind,
) -> Result<(), StorageError> {
    let missing = missing(transaction, path, kind)?.parts;
    match missing.is_empty() {
        true => Ok(()),
        false => add(transaction, &missing, kind.version()),
    }
}

fn add(
    transaction: &Transaction<'_>,
    parts: &[&'static str],
    version: usize,
) -> Result<(), StorageError> {
    for part in parts {
        transaction.execute_batch(part)?;
    }
    let has_archive = version_of(transaction)? >= ARCHIVE_VERSION;
    let archive = if has_archive { ARCHIVE_VERSION } else { 0 };
    Ok(transaction.pragma_update(None, VERSION, version as u64 + archive)?)
}

/// Notes, in the caller's transaction, that the database has an archive from now on.
pub(crate) fn note_archive(transaction: &Connection) -> Result<(), StorageError> {
    let version = version_of(transaction)? % ARCHIVE_VERSION + ARCHIVE_VERSION;
    Ok(transaction.pragma_update(None, VERSION, version)?)
}

fn version_of(connection: &Connection) -> Result<u64, StorageError> {
    Ok(connection.pragma_query_value(None, VERSION, |row| row.get(0))?)
}

/// Opens a database for reading, whether or not a process is writing to it.
///
/// # Errors
/// Where there is none, or it is damaged.
pub fn open_read_only(location: &Location, kind: Kind) -> Result<Database, StorageError> {
    let path = location.beside(kind.file);
    if location.is_on_disk() && !path.is_file() {
        return Err(StorageError::Foreign {
            path,
            expected: kind.name,
        });
    }
    let opened = open_made(location, kind)?;
    opened.ok_or_else(|| StorageError::Damaged("it holds nothing".into()))
}

/// Opens a database for reading where it was made: `None` where there is none, or whoever was
/// making it ended before it had tables.
///
/// # Errors
/// Where it is damaged.
pub fn open_where_made(location: &Location, kind: Kind) -> Result<Option<Database>, StorageError> {
    let path = location.beside(kind.file);
    match fs::metadata(&path) {
        Ok(_) => open_made(location, kind),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StorageError::Directory { path, source }),
    }
}

fn open_made(location: &Location, kind: Kind) -> Result<Option<Database>, StorageError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let path = location.beside(kind.file);
    let connection = location.connect(&path, flags)?;
    let missing = missing(&connection, &path, kind)?;
    if missing.is_new() {
        return Ok(None);
    }
    if !missing.at_open().0.is_empty() {
        read_as_now(&connection)?;
    }
    Ok(Some(Database::new(connection, location)))
}

/// Whether a database, with its archive, is small enough to be read in full before it is used.
pub fn is_small(database: &Database) -> Result<bool, StorageError> {
    let pragma = |name| database.pragma_query_value(None, name, |row| row.get::<_, u64>(0));
    let bytes = pragma("page_count")?.saturating_mul(pragma("page_size")?);
    let archived = archive::rows_in(database)?.0;
    let bytes = bytes.saturating_add(archived.saturating_mul(archive::ROW_BYTES));
    Ok(bytes <= READ_AT_OPEN_BYTES_MAX)
}

/// Looks at every page of a database: whether the pages hold together, and whether tables and
/// indices say the same. Not whether any of it is what was written.
///
/// # Errors
/// [`StorageError::Damaged`] with the first fault found.
pub fn check_pages(connection: &Connection) -> Result<(), StorageError> {
    let found: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if found == "ok" {
        Ok(())
    } else {
        Err(StorageError::Damaged(found))
    }
}

/// The parts of its schema that a database lacks, in order: all where it is new, otherwise the last of those that came
/// since.
struct Missing {
    parts: Vec<&'static str>,
    kind: Kind,
}

impl Missing {
    fn is_new(&self) -> bool {
        self.parts.len()
            == [self.kind.schema, self.kind.added, self.kind.gated]
                .concat()
                .len()
    }

    /// What it gets when it is opened, and what it gets only when told.
    fn at_open(&self) -> (&[&'static str], &[&'static str]) {
        let gated = self.kind.gated.len().min(self.parts.len());
        self.parts.split_at(self.parts.len() - gated)
    }
}

/// What the database lacks. Refuses one of something else, and of a later release.
fn missing(connection: &Connection, path: &Path, kind: Kind) -> Result<Missing, StorageError> {
    let id: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let mut found = schema(connection)?;
    // It comes with the first rows that are archived. Who never archived any has the tables of before, and can go back
    // to the release before.
    let count = found.len();
    found.retain(|(name, sql)| name != archive::TABLE || sql != archive::SCHEMA.trim());
    let has_archive = found.len() < count;
    let since = [kind.added, kind.gated].concat();
    if found.is_empty() && (id == 0 || id == kind.application_id) {
        let parts = [kind.schema, &since].concat();
        return Ok(Missing { parts, kind });
    }
    let fresh = Connection::open_in_memory()?;
    for part in kind.schema {
        fresh.execute_batch(part)?;
    }
    let mut same = found == schema(&fresh)?;
    let mut left = &since[..];
    while !same && let [part, rest @ ..] = left {
        fresh.execute_batch(part)?;
        same = found == schema(&fresh)?;
        left = rest;
    }
    match (same, id == kind.application_id) {
        (true, true) => Ok(Missing {
            parts: left.to_vec(),
            kind,
        }),
        (false, false) => Err(StorageError::Foreign {
            path: path.to_owned(),
            expected: kind.name,
        }),
        (false, true) => {
            let version = version_of(connection)?;
            let archive = if has_archive { ARCHIVE_VERSION } else { 0 };
            let known = kind.version() as u64 + archive;
            Err(match version > known {
                true => StorageError::Newer {
                    path: path.to_owned(),
                    found: version,
                    known,
                },
                false => {
                    StorageError::Damaged("its tables are not those that it was made with".into())
                }
            })
        }
        (true, false) => Err(StorageError::Damaged(format!(
            "its application id is {id:#x}, not {:#x}",
            kind.application_id
        ))),
    }
}

/// Has tables of before there were changes of stocks read as if they had the columns for them: on this connection, a
/// name means its own view before it means a table.
fn read_as_now(connection: &Connection) -> Result<(), StorageError> {
    for table in ["journal", "proposed"] {
        if connection.table_exists(Some("main"), table)?
            && !connection.column_exists(Some("main"), table, "stock_change")?
        {
            connection.execute_batch(&format!(
                "CREATE TEMP VIEW {table} AS
                 SELECT *, 0 AS stock_changes, NULL AS stock_change FROM main.{table}"
            ))?;
        }
    }
    Ok(())
}

/// What the database says its tables and indices are.
fn schema(connection: &Connection) -> Result<Vec<(String, String)>, StorageError> {
    let mut statement = connection
        .prepare("SELECT name, ifnull(sql, tbl_name) FROM sqlite_schema ORDER BY name")?;
    let found = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(found.collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests;
