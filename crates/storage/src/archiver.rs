//! Who makes the files of an archive: on a thread of its own, beside the writer, whom it keeps waiting for nothing.
//!
//! - `plan`: what is archived or merged next;
//! - here: how.

use std::io::{self, ErrorKind};
use std::iter::Peekable;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use daemon::data_dir::Lock;
use daemon::{directory, tasks};
use domain::{LedgerEnd, Row, RowNumber};

use crate::archive::part::{self, Opened, Part};
use crate::archive::{DIR, ROW_BYTES, keys, leftovers, parts_in};
use crate::damage::DamageReporter;
use crate::database::{DataDir, Database, Kind, open_read_only};
use crate::error::StorageError;
use crate::location::Location;
use crate::rows;
use crate::shedding::{Offer, Offers};

mod plan;
#[cfg(test)]
mod tests;

/// Rows that are copied at a time.
const CHUNK_ROWS: usize = 256;

/// Entries of an index that are read, and written, at a time.
const CHUNK_KEYS: usize = 1024;

/// How often it is looked whether there is something to do.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// How long it lets be after a disk refused, and twice as long each time that it does again.
const REFUSED_PAUSE: Duration = Duration::from_secs(10);

/// And at most.
const REFUSED_PAUSE_MAX: Duration = Duration::from_secs(600);

/// What it leaves free on the disk: commits go before files, and a log may be as long while a backup reads it.
const RESERVE_BYTES: u64 = 128 << 20;

/// Its niceness: others go first, but where processors never rest it still has enough of them, some 0.5 of one for four
/// services that take 8,000 orders a second together.
const NICENESS: i32 = 2;

/// What an archiver has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// There was nothing to do.
    Idle,
    /// The file before is not entered yet.
    Waits,
    /// It made a file of these rows.
    Made(Part),
}

/// Rows that are in no file.
struct Backlog {
    /// Where the files end.
    archived: LedgerEnd,
    /// How many are archived next, if any.
    next: Option<u64>,
    /// They come faster than they are archived.
    is_behind: bool,
}

/// Makes the files of one database.
#[derive(Debug)]
pub struct Archiver {
    /// Read, never written.
    database: Database,
    location: Location,
    offers: Offers,
    /// How many rows stay in the database.
    kept: u64,
    /// Bytes that it leaves free on the disk.
    pub(super) reserve: u64,
    /// Whether there may be files that count no more.
    has_leftovers: bool,
    /// What it removes is never what the next process has made.
    _lock: Option<Arc<Lock>>,
}

impl Archiver {
    /// Of a database that is there, whose writer looks for `offers`.
    ///
    /// # Errors
    /// Where it cannot be opened.
    pub fn new(
        data_dir: &DataDir,
        kind: Kind,
        offers: Offers,
        kept: u64,
    ) -> Result<Self, StorageError> {
        let location = data_dir.location().clone();
        Ok(Self {
            database: open_read_only(&location, kind)?,
            location,
            offers,
            kept,
            reserve: RESERVE_BYTES,
            has_leftovers: true,
            _lock: data_dir.lock(),
        })
    }

    /// Makes the next file, if there is one to be made, and removes those that count no more. `pace` is called after each
    /// chunk with whether rows come faster than they are archived; its error ends it.
    ///
    /// # Errors
    /// Where rows are damaged, a disk refuses, or `pace` says so. What was begun counts for nothing.
    pub fn step(
        &mut self,
        pace: &mut dyn FnMut(bool) -> Result<(), StorageError>,
    ) -> Result<Progress, StorageError> {
        if self.offers.look().is_some() {
            return Ok(Progress::Waits);
        }
        // Those that the writer has entered by now.
        self.database.archive().forget();
        let parts = parts_in(&self.database)?;
        let Some(last) = rows::last(&self.database)? else {
            return Ok(Progress::Idle);
        };
        let rows = last.number.0 + 1;
        if self.has_leftovers {
            leftovers::remove(&self.location, &parts, rows)?;
            self.has_leftovers = false;
        }
        let Backlog {
            archived,
            next,
            is_behind,
        } = self.backlog(&parts, rows);
        // What is merged is archived already, so it can wait, but for files that become too many.
        let can_merge = !is_behind || next.is_none() || plan::are_too_many(&parts);
        let merged = plan::merged_next(&parts).filter(|_| can_merge);
        let offer = match (merged, next) {
            (Some(range), _) => self.merge_beside(&parts, range, pace)?,
            (None, Some(count)) => {
                let part = self.next_part(archived, count)?;
                self.make(part, |pace| self.archive(archived, part, pace), &mut || {
                    pace(is_behind)
                })?;
                Offer { part, replaces: 0 }
            }
            (None, None) => return Ok(Progress::Idle),
        };
        self.has_leftovers = offer.replaces > 0;
        self.offers.leave(offer);
        Ok(Progress::Made(offer.part))
    }

    /// What is not archived of so many rows.
    fn backlog(&self, parts: &[Part], rows: u64) -> Backlog {
        let archived = parts.last().map(|part| part.end).unwrap_or_default();
        let unarchived = rows.saturating_sub(archived.rows.0);
        let allowed = self.kept.saturating_add(4 * plan::first_rows(self.kept));
        Backlog {
            archived,
            next: plan::archived_next(unarchived, self.kept),
            is_behind: unarchived > allowed,
        }
    }

    /// Merges files, and meanwhile archives what comes: or else more rows would wait the longer that takes.
    fn merge_beside(
        &self,
        parts: &[Part],
        range: Range<usize>,
        pace: &mut dyn FnMut(bool) -> Result<(), StorageError>,
    ) -> Result<Offer, StorageError> {
        let merged = &parts[range];
        let [first, .., last] = merged else {
            unreachable!("several are merged")
        };
        let part = Part {
            first: first.first,
            end: last.end,
        };
        let before = parts.iter().find(|other| other.end.rows == part.first);
        let before = before.map(|before| before.end).unwrap_or_default();
        let mut archive_meanwhile = || {
            let is_behind = match self.archive_backlog(pace) {
                // What a disk refuses now is tried again when there is nothing else to do.
                Err(StorageError::Directory { .. }) => true,
                other => other?,
            };
            pace(is_behind)
        };
        self.make(
            part,
            |pace| self.merge(before, part, merged, pace),
            &mut archive_meanwhile,
        )?;
        Ok(Offer {
            part,
            replaces: merged.len(),
        })
    }

    /// Makes the next file of rows of the table and offers it, where too many wait for that and none is offered already. Returns
    /// whether too many wait.
    fn archive_backlog(
        &self,
        pace: &mut dyn FnMut(bool) -> Result<(), StorageError>,
    ) -> Result<bool, StorageError> {
        // Looked at first: of an offer that is taken meanwhile nothing is known here yet.
        let is_taken = self.offers.look().is_none();
        let parts = parts_in(&self.database)?;
        let Some(last) = rows::last(&self.database)? else {
            return Ok(false);
        };
        let Backlog {
            archived,
            next,
            is_behind,
        } = self.backlog(&parts, last.number.0 + 1);
        let Some(count) = next.filter(|_| is_behind && is_taken) else {
            return Ok(is_behind);
        };
        let part = self.next_part(archived, count)?;
        self.make(part, |pace| self.archive(archived, part, pace), &mut || {
            pace(true)
        })?;
        self.offers.leave(Offer { part, replaces: 0 });
        Ok(true)
    }

    /// Makes a file, where there is room for it, and leaves nothing of it where that fails.
    fn make(
        &self,
        part: Part,
        make: impl FnOnce(&mut dyn FnMut() -> Result<(), StorageError>) -> Result<(), StorageError>,
        pace: &mut dyn FnMut() -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        let mut pace = || {
            self.check_room(0)?;
            pace()
        };
        // What counts is never made again, nor removed where that fails.
        let counting = parts_in(&self.database)?;
        if counting.contains(&part) {
            return Err(StorageError::Directory {
                path: part.path(&self.location),
                source: ErrorKind::AlreadyExists.into(),
            });
        }
        let made = self
            .check_room(part.rows() * ROW_BYTES)
            .and_then(|()| make(&mut pace));
        if made.is_err() {
            // It counts for nothing, and others need its room.
            for path in [part.path(&self.location), part.keys_path(&self.location)] {
                let _ = self.location.remove(&path);
            }
        }
        made
    }

    /// Whether there is room for so many bytes, and for what the writer may need.
    fn check_room(&self, bytes: u64) -> Result<(), StorageError> {
        let (free, needed) = (
            self.location.free_bytes()?,
            bytes.saturating_add(self.reserve),
        );
        match free >= needed {
            true => Ok(()),
            false => Err(StorageError::Directory {
                path: self.location.beside(DIR),
                source: io::Error::new(
                    ErrorKind::StorageFull,
                    format!("{free} bytes are free, and {needed} are to be: make room"),
                ),
            }),
        }
    }

    /// So many of the rows behind those that are archived.
    fn next_part(&self, archived: LedgerEnd, count: u64) -> Result<Part, StorageError> {
        let last = RowNumber(archived.rows.0 + count - 1);
        let row = rows::read(&self.database, last, 1)?.pop();
        Ok(Part {
            first: archived.rows,
            end: LedgerEnd::of(&row.ok_or_else(|| rows::missing(last))?),
        })
    }

    /// Makes a file of rows of the table.
    fn archive(
        &self,
        before: LedgerEnd,
        part: Part,
        pace: &mut dyn FnMut() -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        let mut keys = Vec::with_capacity(part.rows() as usize);
        let new = self.copy_rows(part, pace, |rows| {
            let key = |row: &Row| (row.entry.key().as_str().to_owned(), row.number.0);
            keys.extend(rows.iter().map(key));
        })?;
        keys.sort_unstable();
        let keys = keys.into_iter().map(Ok);
        self.finish(new, before, part, keys, pace)
    }

    /// Makes one file of several.
    fn merge(
        &self,
        before: LedgerEnd,
        part: Part,
        merged: &[Part],
        pace: &mut dyn FnMut() -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        let new = self.copy_rows(part, pace, |_| {})?;
        let open = |part: &Part| {
            let opened = Opened::open(&self.location, *part)?;
            let missing = || rows::missing(part.first);
            Ok(KeysOf::of(opened.ok_or_else(missing)?).peekable())
        };
        let merged: Result<Vec<_>, StorageError> = merged.iter().map(open).collect();
        self.finish(new, before, part, Merged(merged?), pace)
    }

    fn copy_rows(
        &self,
        part: Part,
        pace: &mut dyn FnMut() -> Result<(), StorageError>,
        mut each: impl FnMut(&[Row]),
    ) -> Result<part::New, StorageError> {
        let dir = self.location.beside(DIR);
        if self.location.is_on_disk() {
            directory::make_private(&dir)
                .map_err(|source| StorageError::Directory { path: dir, source })?;
        }
        let mut new = part::New::begin(&self.location, part)?;
        let mut next = part.first;
        while next < part.end.rows {
            let left = (part.end.rows.0 - next.0).min(CHUNK_ROWS as u64);
            let rows = rows::read(&self.database, next, left as usize)?;
            let Some(last) = rows.last() else {
                return Err(rows::missing(next));
            };
            next = last.number.next();
            new.add_rows(&rows)?;
            each(&rows);
            pace()?;
        }
        Ok(new)
    }

    /// Adds the index, syncs all of it, and reads it again.
    fn finish(
        &self,
        mut new: part::New,
        before: LedgerEnd,
        part: Part,
        mut keys: impl Iterator<Item = Result<(String, u64), StorageError>>,
        pace: &mut dyn FnMut() -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        let is_on_disk = self.location.is_on_disk();
        let mut filter = is_on_disk.then(|| keys::New::of(part));
        loop {
            let chunk: Vec<_> = keys.by_ref().take(CHUNK_KEYS).collect::<Result<_, _>>()?;
            if chunk.is_empty() {
                break;
            }
            if let Some(filter) = &mut filter {
                chunk.iter().for_each(|(key, _)| filter.add(key));
            }
            new.add_keys(&chunk)?;
            pace()?;
        }
        new.close()?;
        if let Some(filter) = filter {
            let path = part.keys_path(&self.location);
            let failed = |source| StorageError::Directory {
                path: path.clone(),
                source,
            };
            filter.write(&path).map_err(failed)?;
            directory::sync(&self.location.beside(DIR)).map_err(failed)?;
        }
        // What a disk made of it a moment ago is no damage of what there is, which stays.
        let path = part.path(&self.location);
        self.check(before, part, pace).map_err(|error| match error {
            StorageError::Damaged(what) => StorageError::Directory {
                path,
                source: io::Error::new(
                    ErrorKind::InvalidData,
                    format!("it was written and cannot be read again: {what}"),
                ),
            },
            other => other,
        })
    }

    /// Reads a file in full that was made.
    fn check(
        &self,
        before: LedgerEnd,
        part: Part,
        pace: &mut dyn FnMut() -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        let opened = Opened::open(&self.location, part)?;
        part::check(
            &opened.ok_or_else(|| rows::missing(part.first))?,
            before,
            pace,
        )
    }
}

/// The index of a file, in the order of keys.
struct KeysOf {
    opened: Opened,
    chunk: std::vec::IntoIter<(String, u64)>,
    last: String,
}

impl KeysOf {
    fn of(opened: Opened) -> Self {
        Self {
            opened,
            chunk: Vec::new().into_iter(),
            last: String::new(),
        }
    }
}

impl Iterator for KeysOf {
    type Item = Result<(String, u64), StorageError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.chunk.len() == 0 {
            match self.opened.keys_after(&self.last, CHUNK_KEYS) {
                Ok(chunk) => self.chunk = chunk.into_iter(),
                Err(error) => return Some(Err(error)),
            }
        }
        let entry = self.chunk.next()?;
        self.last.clone_from(&entry.0);
        Some(Ok(entry))
    }
}

/// The indices of several files, in the order of keys. An error is passed on at once.
struct Merged(Vec<Peekable<KeysOf>>);

impl Iterator for Merged {
    type Item = Result<(String, u64), StorageError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut least: Option<(usize, &str)> = None;
        for (place, keys) in self.0.iter_mut().enumerate() {
            match keys.peek() {
                Some(Err(_)) => {
                    least = Some((place, ""));
                    break;
                }
                Some(Ok((key, _))) if least.is_none_or(|(_, other)| key.as_str() < other) => {
                    least = Some((place, key));
                }
                _ => {}
            }
        }
        let (place, _) = least?;
        self.0[place].next()
    }
}

/// An archiver at work. Dropping this ends it, and waits until it has ended: for what it does with one chunk.
#[derive(Debug)]
#[must_use = "it ends when this is dropped"]
pub struct Archiving {
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Archiving {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // A panic of it has ended the process.
            let _ = thread.join();
        }
    }
}

impl Archiver {
    /// Has it work on a thread of its own, behind others on this machine, and report damage.
    pub fn start(mut self, reporter: DamageReporter) -> Archiving {
        let (end, ended) = channel();
        let spawned = tasks::thread("archive", move || {
            // The thread's alone, on Linux. Where that is not to be had it goes on as it is.
            let _ = rustix::process::setpriority_process(None, NICENESS);
            let wait = |time| match ended.recv_timeout(time) {
                Err(RecvTimeoutError::Timeout) => Ok(()),
                _ => Err(StorageError::Stopping),
            };
            let (mut pause, mut refused_pause) = (LOOK_INTERVAL, REFUSED_PAUSE);
            while wait(pause).is_ok() {
                let began = Instant::now();
                let mut since = began;
                let made = self.step(&mut |is_behind| {
                    // Half of the time is for others, unless they bring more than that is enough for.
                    let rest = if is_behind {
                        since.elapsed() / 8
                    } else {
                        since.elapsed()
                    };
                    let waited = wait(rest);
                    since = Instant::now();
                    waited
                });
                pause = LOOK_INTERVAL;
                match reporter.pass(made) {
                    Ok(Progress::Made(part)) => {
                        let took_ms = began.elapsed().as_millis();
                        tracing::debug!(first = %part.first, rows = part.rows(), took_ms, "archived rows");
                    }
                    Ok(Progress::Idle | Progress::Waits) => {}
                    Err(StorageError::Stopping) => return,
                    Err(error) => {
                        tracing::warn!(%error, "cannot archive rows: they stay where they are");
                        pause = refused_pause;
                        refused_pause = (2 * refused_pause).min(REFUSED_PAUSE_MAX);
                        continue;
                    }
                }
                refused_pause = REFUSED_PAUSE;
            }
        });
        let thread = spawned.inspect_err(|error| {
            tracing::warn!(%error, "cannot archive rows: they stay where they are");
        });
        Archiving {
            end: Some(end),
            thread: thread.ok(),
        }
    }
}
