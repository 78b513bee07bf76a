//! Copies of a catalog's database that are made while it serves, and catalogs that are made of them.
//!
//! - [`pace`]: how they make way for trades;
//! - [`server`]: the same of a catalog in PostgreSQL;
//! - here: of one in SQLite, and what is made of a copy.
//!
//! A copy is the database as it was at one moment, by SQLite's backup API, and the files of its archive, which never change:
//! readers of a write-ahead log hold nobody up. What
//! was committed after that moment the replicas have, and give back when the catalog starts: see
//! [`healing`](crate::writer::healing).

pub mod pace;
pub mod server;

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use daemon::directory;
use domain::{JournalId, LedgerEnd, OrderNumber, Row, RowNumber};
use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};
use storage::{Database, Location, StorageError, archive, rows};

use crate::config::lease_max;
use crate::error::RebuildError;
use crate::rebuild::{RebuildSource, fill, in_place};
use crate::store::sqlite::{FILE, KIND, RESTORED, SqliteJournal, SqliteStore};
use pace::{Pace, STEP_BYTES};

/// Pages that are copied at a time: [`STEP_BYTES`] of them.
const PAGES: i32 = 64;

/// A copy is removed once a backup's file is made of it, or moved and synced: up to so long it need not be on a disk before.
const UNWRITTEN_BYTES_MAX: u64 = 128 << 20;

/// How often is begun anew where files of the archive were merged while they were to be kept.
const ARCHIVE_ATTEMPTS_MAX: usize = 5;

/// How long the catalog's log may be for the copy to go on slowly: while that is read, the log grows by every commit.
const LOG_BYTES_PATIENCE: u64 = 64 << 20;

/// Longest wait for a lock that another process holds.
const LOCKED_MAX: Duration = Duration::from_secs(5);

/// How often it is looked whether that is gone.
const LOCKED_PAUSE: Duration = Duration::from_millis(10);

/// Rows that are read of a copy, or written into one, at a time.
const CHUNK_ROWS: usize = 4096;

/// What a copy holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copied {
    pub journal: JournalId,
    /// Of the journal.
    pub end: LedgerEnd,
}

/// Copies the database of a catalog, which may run, into a directory that has none; also the files of its archive, whose
/// names in there it returns: without filters of keys that are missing, which are made anew. Those are other names of the same
/// files where the file system has that. Nothing of it is synced: [`restore`] does that.
///
/// # Errors
/// Where there is no journal, or a disk refuses.
pub fn copy(data_dir: &Path, to: &Path) -> Result<Vec<PathBuf>, StorageError> {
    let location = Location::on_disk(data_dir);
    let source = storage::open_read_only(&location, KIND)?;
    let (archived, slow) = begin_with_archive(&source, &location, to)?;
    let to = &to.join(FILE);
    if !has_journal_id(&source)? {
        let of_before = "it is of before journals had ids, or none was begun: start its catalog once with this release";
        return Err(StorageError::Damaged(of_before.to_owned()));
    }
    let mut target = Connection::open(to)?;
    // What a crash leaves of it is no backup.
    target.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF")?;
    let failed = |source| StorageError::Directory {
        path: to.to_owned(),
        source,
    };
    let file = File::open(to).map_err(failed)?;
    let log = location.beside(&format!("{FILE}-wal"));
    let mut waited = Duration::ZERO;
    let mut pace = Pace::new(UNWRITTEN_BYTES_MAX);
    {
        let backup = Backup::new(&source, &mut target)?;
        loop {
            match backup.step(PAGES)? {
                StepResult::Done => break,
                StepResult::Busy | StepResult::Locked if waited >= LOCKED_MAX => {
                    let locked = std::io::Error::other("another process keeps it locked");
                    return Err(failed(locked));
                }
                StepResult::Busy | StepResult::Locked => {
                    waited += LOCKED_PAUSE;
                    sleep(LOCKED_PAUSE);
                    continue;
                }
                _ => waited = Duration::ZERO,
            }
            let written = file.metadata().map_err(failed)?.len();
            pace.write_out(&file, written).map_err(failed)?;
            // While it is read the log is not begun anew: past some length there is no time for others.
            if log.metadata().map_or(0, |log| log.len()) < LOG_BYTES_PATIENCE {
                pace.rest();
            }
        }
    }
    drop(source); // nothing holds the log any more
    drop(target);
    for (mut from, to) in slow {
        copy_slowly(&mut from, &to)
            .map_err(|source| StorageError::Directory { path: to, source })?;
    }
    Ok(archived)
}

/// Names of files of an archive, and those of them that have to be copied, to where.
type Kept = (Vec<PathBuf>, Vec<(File, PathBuf)>);

/// Begins to read the database as it is now, with the files that its archive has now. They get other names, or are open: they
/// are removed once they are merged.
fn begin_with_archive(
    source: &Database,
    location: &Location,
    to: &Path,
) -> Result<Kept, StorageError> {
    let (from, to) = (location.beside(archive::DIR), to.join(archive::DIR));
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| StorageError::Directory { path, source }
    };
    for attempt in 1.. {
        // From the first read on, it sees the database as it is now; and the copying begins anew for nobody's commit.
        source.execute_batch("BEGIN")?;
        let names = archive::files(source)?;
        if !names.is_empty() {
            directory::make_private(&to).map_err(failed(&to))?;
        }
        match keep(names, &from, &to) {
            Ok(kept) => return Ok(kept),
            // They were merged meanwhile.
            Err((_, error))
                if error.kind() == io::ErrorKind::NotFound && attempt < ARCHIVE_ATTEMPTS_MAX =>
            {
                fs::remove_dir_all(&to).map_err(failed(&to))?;
                source.execute_batch("COMMIT")?;
            }
            Err((path, error)) => return Err(failed(&path)(error)),
        }
    }
    unreachable!("the last attempt returns")
}

/// Gives these files of an archive other names, or opens them. An error is of the file that it comes with.
fn keep(names: Vec<PathBuf>, from: &Path, to: &Path) -> Result<Kept, (PathBuf, io::Error)> {
    let (mut kept, mut slow) = (Vec::with_capacity(names.len()), Vec::new());
    for name in names {
        let (from, to) = (from.join(&name), to.join(&name));
        if fs::hard_link(&from, &to).is_err() {
            match File::open(&from) {
                Ok(file) => slow.push((file, to)),
                Err(error)
                    if error.kind() == io::ErrorKind::NotFound && archive::can_be_spared(&name) =>
                {
                    continue;
                }
                Err(error) => return Err((from, error)),
            }
        }
        kept.push(name);
    }
    Ok((kept, slow))
}

/// Copies a file no faster than the database.
fn copy_slowly(from: &mut File, to: &Path) -> io::Result<()> {
    let mut output = File::create_new(to)?;
    let (mut pace, mut end) = (Pace::new(0), 0);
    loop {
        let copied = io::copy(&mut from.take(STEP_BYTES as u64), &mut output)?;
        if copied == 0 {
            return Ok(());
        }
        end += copied;
        pace.write_out(&output, end)?;
        pace.rest();
    }
}

fn has_journal_id(source: &Connection) -> Result<bool, StorageError> {
    if !source.table_exists(None, "identity")? {
        return Ok(false);
    }
    let sql = "SELECT EXISTS (SELECT 1 FROM identity)";
    Ok(source.query_row(sql, [], |row| row.get(0))?)
}

/// Reads all of a copy, which is a directory's database: that each row continues the hash chain, the stocks are what
/// the journal made of their listings, and the rest is what was written.
///
/// # Errors
/// Where any of it is not so.
pub fn check(dir: &Path) -> Result<Copied, StorageError> {
    check_opened(dir, SqliteStore::open(dir)?)
}

/// The same beside those who trade, for whom it [makes way](storage::gentle).
///
/// # Errors
/// As [`check`].
pub fn check_gently(dir: &Path) -> Result<Copied, StorageError> {
    check_opened(dir, SqliteStore::open_gently(dir)?)
}

fn check_opened(dir: &Path, mut store: SqliteStore) -> Result<Copied, StorageError> {
    let loaded = store.load()?;
    if let Some(unchecked) = store.unchecked() {
        unchecked.check(|| true)?;
    }
    let copied = Copied {
        journal: loaded.journal,
        end: loaded.state.leadership().end,
    };
    drop(store);
    // Closing it moved all of it into the one file, or failed to unseen.
    let log = dir.join(format!("{FILE}-wal"));
    match log.exists() {
        true => Err(StorageError::Directory {
            path: log,
            source: std::io::Error::other(
                "it cannot be moved into the database: is the disk full?",
            ),
        }),
        false => Ok(copied),
    }
}

/// Makes a copy the database of a data directory that has none. `lease` is the longest that a catalog of that journal
/// was ever run with: so long gateways may hold what the lost one lent, and nobody is served meanwhile. The copy is gone
/// then: it has been moved, and has to be on the same file system.
///
/// # Errors
/// Where there is a database already, or a disk refuses; then nothing is there.
pub fn restore(copy: &Path, data_dir: &Path, lease: Duration) -> Result<Copied, RebuildError> {
    in_place(data_dir, |work_dir| {
        let failed = |source| RebuildError::Write {
            path: work_dir.to_owned(),
            source,
        };
        directory::make_private(work_dir).map_err(failed)?;
        let archived = copy.join(archive::DIR);
        if archived.exists() {
            fs::rename(archived, work_dir.join(archive::DIR)).map_err(failed)?;
        }
        fs::rename(copy.join(FILE), work_dir.join(FILE)).map_err(failed)?;
        let mut store = SqliteStore::open(work_dir)?;
        let loaded = store.load()?;
        let lent = loaded.sessions_out.unwrap_or_default();
        store.set_sessions_out(Some(lent.max(lease_max(lease))))?;
        // Its next start knows that it may lack rows; it counts for this journal alone.
        let mark = data_dir.join(RESTORED);
        let id = format!("{}\n", loaded.journal);
        daemon::atomic_file::write(&mark, id.as_bytes()).map_err(failed)?;
        Ok(Copied {
            journal: loaded.journal,
            end: loaded.state.leadership().end,
        })
    })
}

/// Makes a journal of another id that ends with an order of the copy's: as if nothing had happened after it. It cannot be the
/// same journal, since replicas and clients have seen how that went on.
///
/// # Errors
/// As [`restore`]; and where the copy has no such order.
pub fn restore_until(
    copy: &Path,
    last: OrderNumber,
    data_dir: &Path,
    lease: Duration,
) -> Result<Copied, RebuildError> {
    let mut source = SqliteStore::open(copy)?;
    let (listings, loaded) = (source.listings()?, source.load()?);
    let leadership = loaded.state.leadership();
    drop(source);
    let journal = SqliteJournal::open(copy)?;
    let orders = leadership.end.orders();
    let Some(last) = journal.find_order(last)? else {
        return Err(RebuildError::NoSuchOrder { last, orders });
    };
    let kept = RebuildSource {
        rows: Rows::to(last.number, |from, count| journal.rows(from, count)),
        journal: None,
        listing: Some(loaded.listing),
        lease_horizon: Some(lease_max(lease).max(loaded.sessions_out.unwrap_or_default())),
        epoch: leadership.term.epoch,
        leader: leadership.term.leader,
        protocol: loaded.protocol,
    };
    in_place(data_dir, |work_dir| {
        let mut store = SqliteStore::open(work_dir)?;
        fill(&mut store, &listings, lease, kept)?;
        let loaded = store.load()?;
        Ok(Copied {
            journal: loaded.journal,
            end: loaded.state.leadership().end,
        })
    })
}

/// The rows of a journal up to one, read as they are wanted.
struct Rows<R> {
    read: R,
    next: RowNumber,
    last: RowNumber,
    chunk: std::vec::IntoIter<Row>,
}

impl<R> Rows<R>
where
    R: FnMut(RowNumber, usize) -> Result<Vec<Row>, StorageError>,
{
    fn to(last: RowNumber, read: R) -> Self {
        Self {
            read,
            next: RowNumber(0),
            last,
            chunk: Vec::new().into_iter(),
        }
    }
}

impl<R> Iterator for Rows<R>
where
    R: FnMut(RowNumber, usize) -> Result<Vec<Row>, StorageError>,
{
    type Item = Result<Row, StorageError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(row) = self.chunk.next() {
            return Some(Ok(row));
        }
        if self.next > self.last {
            return None;
        }
        let left = (self.last.0 - self.next.0).saturating_add(1);
        let count = usize::try_from(left).map_or(CHUNK_ROWS, |left| left.min(CHUNK_ROWS));
        match (self.read)(self.next, count) {
            Err(error) => Some(Err(error)),
            Ok(rows) if rows.is_empty() => Some(Err(rows::missing(self.next))),
            Ok(rows) => {
                self.next = RowNumber(self.next.0 + rows.len() as u64);
                self.chunk = rows.into_iter();
                self.chunk.next().map(Ok)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use catalog_core::CatalogState;
    use domain::Protocol;
    use domain::{IdempotencyKey, Order, Price, Quantity, ReplicaId, Side, StockName};

    use super::*;
    use crate::config::LEASE_DEFAULT;
    use crate::stocks::Listing;
    use crate::store::Store as _;

    const JOURNAL: JournalId = JournalId::new([9; JournalId::BYTES]);

    /// A few MiB of them: a copy takes several steps.
    const STOCKS: u32 = 60_000;

    fn begun(dir: &Path) -> (SqliteStore, CatalogState) {
        let listing = |number| Listing {
            name: StockName::new(&format!("a-stock-of-a-long-name-{number}")).unwrap(),
            price: Price::from_minor(100).unwrap(),
            quantity: 1_000_000,
        };
        let listings: Vec<_> = (0..STOCKS).map(listing).collect();
        let mut store = SqliteStore::open(dir).unwrap();
        store.begin(JOURNAL, &listings, Protocol::NEWEST).unwrap();
        let state = store.load().unwrap().state;
        (store, state)
    }

    /// Commits an order, of another stock each time.
    fn trade(store: &mut SqliteStore, state: &mut CatalogState, number: u64) {
        let mut staged = state.stage();
        let mut epoch = state.leadership().term.epoch;
        if state.leadership().term.leader.is_none() {
            epoch = staged.elect(epoch, ReplicaId::new(1).unwrap()).epoch;
        }
        let order = Order {
            key: IdempotencyKey::new(&format!("key-{number}")).unwrap(),
            name: StockName::new(&format!(
                "a-stock-of-a-long-name-{}",
                number % u64::from(STOCKS)
            ))
            .unwrap(),
            side: Side::Buy,
            quantity: Quantity::new(1).unwrap(),
        };
        staged.trade(epoch, order, None).unwrap();
        let batch = staged.into_batch();
        store.commit(&batch).unwrap();
        state.apply(batch);
    }

    #[test]
    fn a_copy_is_of_one_moment_however_much_is_committed_meanwhile() {
        let (dir, copies) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (mut store, mut state) = begun(dir.path());
        trade(&mut store, &mut state, 0);
        let is_over = AtomicBool::new(false);
        let copied = std::thread::scope(|scope| {
            let committing = scope.spawn(|| {
                let mut number = 1;
                while !is_over.load(Ordering::Relaxed) {
                    trade(&mut store, &mut state, number);
                    number += 1;
                }
                number
            });
            let copied: Vec<_> = (0..3)
                .map(|number| {
                    let copy_dir = copies.path().join(number.to_string());
                    let made = fs::create_dir(&copy_dir);
                    (made, copy(dir.path(), &copy_dir), copy_dir)
                })
                .collect();
            // Whatever came of them: the other thread ends.
            is_over.store(true, Ordering::Relaxed);
            let committed = committing.join().unwrap();
            assert!(committed > 10, "{committed} were committed meanwhile");
            copied
        });
        let ends = copied.iter().map(|(made, copied, dir)| {
            assert!(made.is_ok() && copied.is_ok(), "{made:?}, {copied:?}");
            let bytes = dir.join(FILE).metadata().unwrap().len();
            assert!(bytes > 3 << 20, "{bytes}: it takes several steps");
            check(dir).unwrap().end.rows
        });
        let ends: Vec<_> = ends.collect();
        assert!(ends.is_sorted() && ends[0] < ends[2], "{ends:?}");
    }

    #[test]
    fn a_restored_database_knows_that_it_may_lack_rows_until_it_is_healed() {
        let (dir, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (mut store, mut state) = begun(dir.path());
        trade(&mut store, &mut state, 0);
        let copied = to.path().join("copy");
        fs::create_dir(&copied).unwrap();
        copy(dir.path(), &copied).unwrap();
        let data_dir = to.path().join("restored");
        let restored = restore(&copied, &data_dir, LEASE_DEFAULT).unwrap();
        assert_eq!(restored.end, state.leadership().end);
        for _ in 0..2 {
            let loaded = SqliteStore::open(&data_dir).unwrap().load().unwrap();
            assert!(loaded.may_lack_rows);
            assert_eq!(loaded.sessions_out, Some(lease_max(LEASE_DEFAULT)));
        }
        let mut store = SqliteStore::open(&data_dir).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(store.note_healed()).unwrap();
        assert!(!store.load().unwrap().may_lack_rows);
        // What is said of another journal is not said of this one.
        fs::write(
            data_dir.join(RESTORED),
            JournalId::new([8; JournalId::BYTES]).to_string(),
        )
        .unwrap();
        assert!(!store.load().unwrap().may_lack_rows);
    }
}
