//! How long a database's write-ahead log may become.
//!
//! SQLite moves what is committed into the pages by itself, whenever the log has 1,000 pages (4 MB) that are not moved yet, and
//! begins the log anew once nobody reads what is in it. Where one reader always begins before another ends, or one
//! reads for long, that moment does not come, and the log grows. So whoever writes waits for it, a little, once the
//! log is too long: who begins to read meanwhile reads the pages, and not the log.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::location::BUSY_TIMEOUT;

/// How long the log may be before the writer waits for readers. It is cut to this length whenever it is begun anew.
pub const BYTES_MAX: u64 = 16 << 20;

/// How long it then waits for them. Who reads a few hundred rows at a time is done by then.
const READERS_WAIT: Duration = Duration::from_millis(25);

/// How long it lets them be after that. Where one holds on to what it reads, as a backup does, twice as long each time: trades
/// go on.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// See [`PAUSE_MIN`].
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Keeps the log of a database short that this process writes to.
#[derive(Debug)]
pub struct LogBound {
    /// `None` on a simulator's disk.
    log: Option<PathBuf>,
    pub(crate) bytes_max: u64,
    /// What of it was moved into the pages when it could not be begun anew.
    moved_pages: u64,
    pause: Duration,
    not_before: Option<Instant>,
}

impl LogBound {
    pub(crate) fn of(log: Option<PathBuf>) -> Self {
        Self {
            log,
            bytes_max: BYTES_MAX,
            moved_pages: 0,
            pause: PAUSE_MIN,
            not_before: None,
        }
    }

    /// To be called after each commit: looks how long the log is.
    pub fn keep(&mut self, connection: &Connection) {
        let Some(log) = &self.log else { return };
        let is_short = fs::metadata(log).is_ok_and(|log| log.len() <= self.bytes_max);
        let now = Instant::now();
        if is_short || self.not_before.is_some_and(|until| now < until) {
            return;
        }
        let begun = begin_anew(connection);
        self.pause = match begun {
            Ok(Begun::Anew) => PAUSE_MIN,
            Ok(Begun::Moved { pages }) if pages != self.moved_pages => {
                self.moved_pages = pages;
                PAUSE_MIN
            }
            // Nothing is lost by a failure: all of it is in the log, and is moved another time.
            _ => (self.pause * 2).min(PAUSE_MAX),
        };
        self.not_before = match begun {
            Ok(Begun::Anew) => None,
            kept => {
                tracing::debug!(?kept, "the write-ahead log stays long: it is read");
                Some(now + self.pause)
            }
        };
    }
}

/// What became of an attempt to begin a log anew.
#[derive(Debug, Clone, Copy)]
enum Begun {
    Anew,
    /// It is read. So much of it is moved.
    Moved {
        pages: u64,
    },
}

/// Moves all of the log into the pages, and waits until nobody reads it: then the next commit is at its beginning. The file
/// stays as long as it may be, since making it longer again costs more than writing over it.
fn begin_anew(connection: &Connection) -> rusqlite::Result<Begun> {
    connection.busy_timeout(READERS_WAIT)?;
    let done = connection.query_row("PRAGMA wal_checkpoint(RESTART)", [], |row| {
        Ok(match row.get::<_, bool>(0)? {
            false => Begun::Anew,
            true => Begun::Moved { pages: row.get(2)? },
        })
    });
    connection.busy_timeout(BUSY_TIMEOUT)?;
    done
}
