//! A data directory with one owner, opened so that a commit is durable.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use daemon::data_dir::Lock;
use daemon::directory;
use rusqlite::{Connection, OpenFlags, Transaction};

use crate::error::StorageError;
use crate::files::OpenFiles;

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

/// A database that is at most so large is read in full whenever it is opened: about half a
/// second. A larger one is read while it already serves.
const READ_AT_OPEN_BYTES_MAX: u64 = 32 << 20;

/// Longest wait for a lock that another connection holds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Where a database's file is.
#[derive(Debug, Clone)]
pub struct Location {
    dir: PathBuf,
    /// The file system, where it is not the machine's.
    vfs: Option<&'static Vfs>,
}

/// A simulator's file system.
#[derive(Debug)]
pub struct Vfs {
    /// The name that SQLite knows it by.
    pub name: &'static str,
    /// Does there what is done on the machine's disks to a log before it is read: writes the file
    /// anew, as it is seen, and syncs it and its directory. No file is fine.
    pub rewrite: fn(&Path) -> io::Result<()>,
}

impl Location {
    /// A directory on the machine's disks.
    pub fn on_disk(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            vfs: None,
        }
    }

    /// Where another file is, in the same directory.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn path(&self, kind: Kind) -> PathBuf {
        self.dir.join(kind.file)
    }

    fn log_path(&self, kind: Kind) -> PathBuf {
        self.dir.join(format!("{}-wal", kind.file))
    }

    /// Writes the write-ahead log anew, as it is seen, and syncs it. SQLite takes what it finds in
    /// it for committed, and does not ask whether it is on the disk.
    fn make_log_durable(&self, kind: Kind) -> Result<(), StorageError> {
        let path = self.log_path(kind);
        let rewritten = match self.vfs {
            None => rewrite(&path),
            Some(vfs) => (vfs.rewrite)(&path),
        };
        rewritten.map_err(|source| StorageError::Directory { path, source })
    }

    fn connect(&self, kind: Kind, flags: OpenFlags) -> Result<Connection, StorageError> {
        let path = self.path(kind);
        let connection = match self.vfs {
            None => Connection::open_with_flags(path, flags)?,
            Some(vfs) => Connection::open_with_flags_and_vfs(path, flags, vfs.name)?,
        };
        connection.busy_timeout(BUSY_TIMEOUT)?;
        Ok(connection)
    }
}

/// Bytes of a log that are rewritten at a time.
const REWRITE_BYTES: usize = 1 << 16;

/// A data directory that this process, and no other, writes to. Dropping it lets go.
#[derive(Debug)]
pub struct DataDir {
    location: Location,
    _lock: Option<Lock>,
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
            _lock: Some(lock),
        })
    }

    /// A directory on a disk of a simulator's, which has no other process.
    pub fn simulated(path: &Path, vfs: &'static Vfs) -> Self {
        Self {
            location: Location {
                dir: path.to_owned(),
                vfs: Some(vfs),
            },
            _lock: None,
        }
    }

    /// Where it is, for who only reads.
    pub fn location(&self) -> &Location {
        &self.location
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
    pub fn open(&self, kind: Kind) -> Result<Connection, StorageError> {
        let path = self.location.path(kind);
        if self.location.vfs.is_none() {
            refuse_empty(&path)?;
            refuse_lone_log(&path, &self.location.log_path(kind))?;
        }
        self.location.make_log_durable(kind)?;
        let mut connection = self.location.connect(kind, OpenFlags::default())?;
        let missing = missing(&connection, &path, kind)?;
        let (now, later) = missing.at_open();
        // Like FULL with a write-ahead log. Before there is one, a rollback journal whose deletion
        // is not synced could come back after a loss of power, and take all that was committed
        // since with it.
        connection.pragma_update(None, "synchronous", "EXTRA")?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        if !now.is_empty() {
            // All of it or nothing, so that a crash leaves no half of a database.
            let transaction = connection.transaction()?;
            transaction.pragma_update(None, "application_id", kind.application_id)?;
            add(&transaction, now, kind.version() - later.len())?;
            crate::error::commit(transaction)?;
            if self.location.vfs.is_none() {
                let dir = &self.location.dir;
                directory::sync(dir).map_err(|source| StorageError::Directory {
                    path: dir.clone(),
                    source,
                })?;
            }
        }
        Ok(connection)
    }

    /// The files of its database, which was opened a moment ago: to be watched for as long as it is
    /// open.
    pub fn files(&self, kind: Kind) -> OpenFiles {
        match self.location.vfs {
            None => OpenFiles::of([self.location.path(kind), self.location.log_path(kind)]),
            Some(_) => OpenFiles::of([]),
        }
    }

    /// Gives the database's files other names, so that it can be made again; they are kept.
    /// Returns the new name: `orders.db.damaged-1`.
    ///
    /// # Errors
    /// Where they cannot be renamed.
    pub fn set_aside(&self, kind: Kind) -> Result<PathBuf, StorageError> {
        let dir = &self.location.dir;
        let failed = |source| StorageError::Directory {
            path: dir.clone(),
            source,
        };
        let name = |number: u32, suffix: &str| {
            let file = format!("{}.damaged-{number}{suffix}", kind.file);
            dir.join(file)
        };
        let number = (1..)
            .find(|&number| SUFFIXES.iter().all(|suffix| !name(number, suffix).exists()))
            .expect("a directory has fewer files than there are numbers");
        for suffix in SUFFIXES {
            let from = dir.join(format!("{}{suffix}", kind.file));
            match fs::rename(from, name(number, suffix)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
                _ => {}
            }
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

/// Writes a file anew, as it is seen, and syncs it and its directory. Syncing it alone would not
/// do: after a sync that failed, what it should have written counts as clean (Rebello et al., "Can
/// Applications Recover from fsync Failures?", ATC 2020). No file is fine.
fn rewrite(path: &Path) -> io::Result<()> {
    let file = match File::options().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut chunk = vec![0; REWRITE_BYTES];
    let mut offset = 0;
    loop {
        let read = file.read_at(&mut chunk, offset)?;
        if read == 0 {
            break;
        }
        file.write_all_at(&chunk[..read], offset)?;
        offset += read as u64;
    }
    file.sync_all()?;
    directory::sync(directory::of(path))
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
    Ok(transaction.pragma_update(None, VERSION, version as u64)?)
}

/// Opens a database for reading, whether or not a process is writing to it.
///
/// # Errors
/// Where there is none, or it is damaged.
pub fn open_read_only(location: &Location, kind: Kind) -> Result<Connection, StorageError> {
    let path = location.path(kind);
    if location.vfs.is_none() && !path.is_file() {
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
pub fn open_where_made(
    location: &Location,
    kind: Kind,
) -> Result<Option<Connection>, StorageError> {
    let path = location.path(kind);
    match fs::metadata(&path) {
        Ok(_) => open_made(location, kind),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StorageError::Directory { path, source }),
    }
}

fn open_made(location: &Location, kind: Kind) -> Result<Option<Connection>, StorageError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = location.connect(kind, flags)?;
    let missing = missing(&connection, &location.path(kind), kind)?;
    if missing.is_new() {
        return Ok(None);
    }
    if !missing.at_open().0.is_empty() {
        read_as_now(&connection)?;
    }
    Ok(Some(connection))
}

/// Whether a database is small enough to be read in full before it is used.
pub fn is_small(connection: &Connection) -> Result<bool, StorageError> {
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, u64>(0));
    let bytes = pragma("page_count")?.saturating_mul(pragma("page_size")?);
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
    let found = schema(connection)?;
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
            let version: u64 = connection.pragma_query_value(None, VERSION, |row| row.get(0))?;
            Err(match version > kind.version() as u64 {
                true => StorageError::Newer {
                    path: path.to_owned(),
                    found: version,
                    known: kind.version() as u64,
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
mod tests {
    use super::*;

    const KIND: Kind = Kind {
        name: "test",
        file: "test.db",
        application_id: 7,
        schema: &["CREATE TABLE t (x INTEGER) STRICT"],
        added: &[],
        gated: &[],
    };

    #[test]
    fn a_data_directory_has_one_owner() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDir::take(dir.path()).unwrap();
        assert!(matches!(
            DataDir::take(dir.path()),
            Err(StorageError::NotTaken(_))
        ));
        drop(first);
        DataDir::take(dir.path()).unwrap();
    }

    #[test]
    fn another_kind_of_database_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = DataDir::take(dir.path()).unwrap();
        drop(data_dir.open(KIND).unwrap());
        drop(data_dir.open(KIND).unwrap());
        let other = Kind {
            name: "other",
            application_id: 8,
            schema: &["CREATE TABLE u (x INTEGER) STRICT"],
            ..KIND
        };
        let refused = data_dir.open(other).unwrap_err();
        assert!(matches!(refused, StorageError::Foreign { .. }));
        let message = refused.to_string();
        assert!(
            message.contains("is not a database of kind `other`;"),
            "{message}"
        );
    }

    #[test]
    fn a_database_of_before_gets_the_tables_that_came_since() {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = DataDir::take(dir.path()).unwrap();
        let connection = data_dir.open(KIND).unwrap();
        connection.execute("INSERT INTO t VALUES (3)", []).unwrap();
        drop(connection);
        let since = Kind {
            added: &["CREATE TABLE u (y INTEGER) STRICT"],
            ..KIND
        };
        drop(open_read_only(data_dir.location(), since).unwrap());
        for _ in 0..2 {
            let connection = data_dir.open(since).unwrap();
            let sql = "SELECT sum(x), (SELECT count(*) FROM u) FROM t";
            let found = connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)));
            assert_eq!(found, Ok((3, 0)));
        }
        let refused = data_dir.open(KIND).unwrap_err();
        assert!(matches!(refused, StorageError::Newer { .. }), "{refused}");
    }

    #[test]
    fn what_is_no_database_is_damaged_and_set_aside_it_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = DataDir::take(dir.path()).unwrap();
        let file = dir.path().join(KIND.file);
        for (number, content) in [(1, &[b'x'; 4096][..]), (2, &[])] {
            fs::write(&file, content).unwrap();
            let error = data_dir.open(KIND).unwrap_err();
            assert!(error.is_damage(), "{error}");
            let aside = data_dir.set_aside(KIND).unwrap();
            assert_eq!(aside, dir.path().join(format!("test.db.damaged-{number}")));
            assert_eq!(fs::read(aside).unwrap(), content);
            drop(data_dir.open(KIND).unwrap());
        }
    }

    #[test]
    fn a_column_that_came_since_is_added_and_is_as_in_a_new_database() {
        let since = Kind {
            added: &[
                "CREATE TABLE u (y INTEGER) STRICT",
                "ALTER TABLE t ADD COLUMN z BLOB CHECK (length(z) = 2)",
            ],
            ..KIND
        };
        let dir = tempfile::tempdir().unwrap();
        let data_dir = DataDir::take(dir.path()).unwrap();
        let connection = data_dir.open(KIND).unwrap();
        connection.execute("INSERT INTO t VALUES (3)", []).unwrap();
        drop(connection);
        for _ in 0..2 {
            let connection = data_dir.open(since).unwrap();
            let found = connection.query_row("SELECT x, z FROM t", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            });
            assert_eq!(found, Ok((3, None::<Vec<u8>>)));
        }
        let dir = tempfile::tempdir().unwrap();
        let data_dir = DataDir::take(dir.path()).unwrap();
        for _ in 0..2 {
            drop(data_dir.open(since).unwrap());
        }
    }

    #[test]
    fn what_the_release_before_does_not_know_comes_when_told_and_then_it_refuses_with_words() {
        let gated = Kind {
            gated: &["CREATE TABLE u (y INTEGER) STRICT"],
            ..KIND
        };
        let dir = tempfile::tempdir().unwrap();
        let data_dir = DataDir::take(dir.path()).unwrap();
        let path = dir.path().join(KIND.file);
        drop(data_dir.open(KIND).unwrap());
        for _ in 0..2 {
            // Each of the two releases opens what the other one had.
            let connection = data_dir.open(gated).unwrap();
            assert!(!connection.table_exists(None, "u").unwrap());
            drop(connection);
            drop(data_dir.open(KIND).unwrap());
        }
        let mut connection = data_dir.open(gated).unwrap();
        for _ in 0..2 {
            let transaction = connection.transaction().unwrap();
            add_gated(&transaction, &path, gated).unwrap();
            transaction.commit().unwrap();
            assert!(connection.table_exists(None, "u").unwrap());
        }
        drop(connection);
        let refusals = [
            data_dir.open(KIND).unwrap_err(),
            open_read_only(data_dir.location(), KIND).unwrap_err(),
        ];
        for refused in refusals {
            assert!(!refused.is_damage(), "{refused}");
            let message = refused.to_string();
            let expected = "has tables of version 2, of a later release; this one knows 1: ";
            assert!(message.contains(expected), "{message}");
        }
        drop(data_dir.open(gated).unwrap());
    }

    #[test]
    fn a_log_without_its_database_is_damage() {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = DataDir::take(dir.path()).unwrap();
        let connection = data_dir.open(KIND).unwrap();
        connection.execute("INSERT INTO t VALUES (3)", []).unwrap();
        let log = dir.path().join("test.db-wal");
        let copy = fs::read(&log).unwrap();
        drop(connection);
        fs::remove_file(dir.path().join(KIND.file)).unwrap();
        fs::write(&log, &copy).unwrap();
        let damaged = data_dir.open(KIND).unwrap_err();
        assert!(damaged.is_damage(), "{damaged}");
        assert_eq!(fs::read(&log).unwrap(), copy);
        data_dir.set_aside(KIND).unwrap();
        drop(data_dir.open(KIND).unwrap());
    }

    #[test]
    fn tables_that_were_changed_are_damage() {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = DataDir::take(dir.path()).unwrap();
        let connection = data_dir.open(KIND).unwrap();
        connection.execute_batch("DROP TABLE t").unwrap();
        connection.execute_batch("CREATE TABLE t (x TEXT)").unwrap();
        drop(connection);
        assert!(data_dir.open(KIND).unwrap_err().is_damage());
    }

    #[test]
    fn a_file_that_is_written_anew_is_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        rewrite(&path).unwrap();
        assert!(!path.exists());
        for bytes in [0, 1, REWRITE_BYTES, 3 * REWRITE_BYTES + 7] {
            let written: Vec<u8> = (0..bytes).map(|place| (place % 251) as u8).collect();
            fs::write(&path, &written).unwrap();
            rewrite(&path).unwrap();
            assert!(fs::read(&path).unwrap() == written, "{bytes} bytes");
        }
    }
}
