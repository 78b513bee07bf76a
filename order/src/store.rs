//! The replica's disk: its ledger, the rows proposed for it, and the highest term that it has seen.
//!
//! - `identity`: whose journal's copy the ledger is;
//! - [`saves`]: what is on its way there, in groups;
//! - `proposed`: the table of rows that are not known to be committed.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use domain::LedgerEnd;
use domain::{Epoch, Identity, OrderNumber, ReplicaId, Row, RowNumber};
use rusqlite::{Connection, OptionalExtension, params};
use storage::archiver::{Archiver, Archiving};
use storage::damage::{DamageReporter, Watch};
use storage::database::{self, Kind};
use storage::log::LogBound;
use storage::rows;
use storage::shedding::Shedding;
use storage::{DataDir, Database, Location, StorageError};

use domain::Term;
use order_core::durable::{Durable, Proposed, Save};

use order_core::durable::{Discontinuous, continuation, continued_identity};

pub(crate) mod identity;
pub(crate) mod proposed;
pub mod saves;

pub const KIND: Kind = Kind {
    name: "order replica",
    file: "orders.db",
    application_id: 0x425a_4f52,
    schema: &[rows::SCHEMA, TERM_SCHEMA],
    added: &[
        proposed::SCHEMA,
        identity::SCHEMA,
        rows::STOCK_CHANGES,
        proposed::STOCK_CHANGES,
    ],
    gated: &[],
};

/// One row once the first term has been seen, none before.
const TERM_SCHEMA: &str = "
    CREATE TABLE term (
        only   INTEGER PRIMARY KEY CHECK (only = 0),
        epoch  INTEGER NOT NULL CHECK (epoch > 0),
        leader INTEGER NOT NULL CHECK (leader > 0)
    ) STRICT;
";

/// Connections kept for reading; more are opened while more are in use.
const READERS_IDLE_MAX: usize = 8;

/// After every few thousand rows that are checked while the replica serves.
const CHECK_PAUSE: Duration = Duration::from_millis(10);

/// What keeps a replica's term and ledger.
pub trait Store: Send + 'static {
    fn durable(&self) -> Durable;

    /// Whose journal's copy the ledger is, where that is known.
    fn identity(&self) -> Option<Identity>;

    /// Makes a term and rows durable, all or nothing. Rows that it has are passed over.
    ///
    /// # Errors
    /// Where rows before these are missing, the hash chain does not continue, there is no room
    /// for more proposed rows, or the disk is full. Nothing is changed then.
    fn save(&mut self, save: &Save) -> Result<Durable, StorageError>;

    /// Reads what is durable, beside the writer.
    fn reader(&self) -> Arc<dyn ReadRows>;
}

/// Reads a ledger from any thread. Blocks on the disk.
pub trait ReadRows: Send + Sync + 'static {
    /// At most `rows_max` rows from a number on, in number order and without gaps.
    ///
    /// # Errors
    /// Where the store is damaged or cannot be read.
    fn rows(&self, from: RowNumber, rows_max: usize) -> Result<Vec<Row>, StorageError>;

    /// The row of an order, if the ledger has it.
    ///
    /// # Errors
    /// As above.
    fn order(&self, number: OrderNumber) -> Result<Option<Row>, StorageError>;

    /// The rows beside the ledger that continue it on the disk, of whatever epoch.
    ///
    /// # Errors
    /// As above.
    fn beside(&self) -> Result<Vec<Row>, StorageError>;
}

/// A store in an SQLite database.
#[derive(Debug)]
pub struct SqliteStore {
    connection: Database,
    log: LogBound,
    shedding: Shedding,
    reader: Arc<SqliteReader>,
    identity: Option<Identity>,
    durable: Durable,
    proposed: Vec<Row>,
    checked: bool,
    data_dir: DataDir,
}

impl SqliteStore {
    /// Takes a data directory, which no other process may have. A small database is read in full;
    /// of a large one the ends, and [`check`](Self::check) is for the rest. Either way no row is
    /// ever returned that does not continue the hash chain.
    ///
    /// # Errors
    /// Where the directory is in use, not a replica's, or damaged.
    pub fn open(path: &Path) -> Result<Self, StorageError> {
        Self::open_in(DataDir::take(path)?)
    }

    /// Opens the store of a data directory, making it where it is missing.
    ///
    /// # Errors
    /// Where the directory is not a replica's, or damaged.
    pub fn open_in(data_dir: DataDir) -> Result<Self, StorageError> {
        Self::open_reading(data_dir, Reading::WhereSmall).map_err(|(_, error)| error)
    }

    /// Opens one like [`open`](Self::open), but reads a database of any size in full, and sets
    /// aside one that is damaged: the store is then empty, and the result says where the files
    /// are.
    ///
    /// # Errors
    /// Where the directory is in use or not a replica's, or the files cannot be renamed.
    pub fn open_or_set_aside(path: &Path) -> Result<(Self, Option<PathBuf>), StorageError> {
        match Self::open_reading(DataDir::take(path)?, Reading::InFull) {
            Ok(store) => Ok((store, None)),
            Err((data_dir, error)) if error.is_damage() => {
                tracing::error!(%error, "setting the ledger aside");
                let aside = data_dir.set_aside(KIND)?;
                Ok((Self::open_in(data_dir)?, Some(aside)))
            }
            Err((_, error)) => Err(error),
        }
    }

    /// Gives the database's files other names and begins an empty one in their place. Returns
    /// where they are.
    ///
    /// # Errors
    /// Where the files cannot be renamed, or the new ones made.
    pub fn set_aside(self) -> Result<(Self, PathBuf), StorageError> {
        let Self {
            connection,
            data_dir,
            reader,
            ..
        } = self;
        drop((connection, reader));
        let aside = data_dir.set_aside(KIND)?;
        Ok((Self::open_in(data_dir)?, aside))
    }

    fn open_reading(data_dir: DataDir, reading: Reading) -> Result<Self, (DataDir, StorageError)> {
        let opened = data_dir.open(KIND).and_then(|connection| {
            let identity = identity::read(&connection)?;
            let (term, end) = (read_term(&connection)?, rows::end(&connection)?);
            let proposed = proposed_in(&connection, term.epoch, end)?;
            let durable = Durable {
                term,
                end,
                proposed: proposed
                    .last()
                    .map(Proposed::ending_with)
                    .unwrap_or_default(),
            };
            let read_now = reading == Reading::InFull || database::is_small(&connection)?;
            if read_now {
                database::check_pages(&connection)?;
                rows::check(&connection, durable.end, |_| true)?;
            }
            let shedding = Shedding::of(&connection)?;
            Ok((connection, shedding, identity, durable, proposed, read_now))
        });
        let (connection, shedding, identity, durable, proposed, checked) = match opened {
            Ok(opened) => opened,
            Err(error) => return Err((data_dir, error)),
        };
        let reader = Arc::new(SqliteReader {
            location: data_dir.location().clone(),
            idle: Mutex::default(),
        });
        Ok(Self {
            connection,
            log: data_dir.log_bound(KIND),
            shedding,
            reader,
            identity,
            durable,
            proposed,
            checked,
            data_dir,
        })
    }

    /// Looks every so often whether the files are still those that were opened.
    pub fn watch(&self, reporter: DamageReporter) -> Watch {
        reporter.watch(self.data_dir.files(KIND))
    }

    /// Moves old rows into files of their own from now on, beside the writer, so that about `kept` rows stay in the
    /// database: see [`storage::archive`].
    ///
    /// # Errors
    /// Where the database cannot be opened for that.
    pub fn archive(&self, kept: u64, reporter: DamageReporter) -> Result<Archiving, StorageError> {
        let archiver = Archiver::new(&self.data_dir, KIND, self.shedding.offers(), kept)?;
        Ok(archiver.start(reporter))
    }

    /// The rows proposed in the last epoch that it has seen, as they were when it was opened.
    pub fn proposed(&self) -> Vec<Row> {
        self.proposed.clone()
    }

    /// The rows beside the ledger that continue it now, of whatever epoch.
    ///
    /// # Errors
    /// Where they are damaged or cannot be read.
    pub fn continuing(&self) -> Result<Vec<Row>, StorageError> {
        proposed::continuing(&self.connection, self.durable.end)
    }

    /// What is left to read of the ledger as it was opened, for a thread of its own; `None`
    /// where all of it has been.
    pub fn unchecked(&self) -> Option<Unchecked> {
        (!self.checked).then(|| Unchecked {
            location: self.reader.location.clone(),
            end: self.durable.end,
        })
    }
}

/// How much of a database is read before it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    InFull,
    WhereSmall,
}

/// A ledger too large to be read in full before it is used.
#[derive(Debug)]
pub struct Unchecked {
    location: Location,
    end: LedgerEnd,
}

impl Unchecked {
    /// Reads all rows, with pauses that leave the disk and the processor to others, until
    /// `keep_going` says no.
    ///
    /// # Errors
    /// [`StorageError::Damaged`] at the first row that is not as it was written.
    pub fn check(&self, keep_going: impl Fn() -> bool) -> Result<(), StorageError> {
        let connection = storage::open_read_only(&self.location, KIND)?;
        rows::check(&connection, self.end, |_| {
            std::thread::sleep(CHECK_PAUSE);
            keep_going()
        })
    }
}

impl Store for SqliteStore {
    fn durable(&self) -> Durable {
        self.durable
    }

    fn identity(&self) -> Option<Identity> {
        self.identity
    }

    fn save(&mut self, save: &Save) -> Result<Durable, StorageError> {
        let (new, saved) = continuation(self.durable, save).map_err(discontinuous)?;
        let identity = continued_identity(self.identity, save.identity).map_err(discontinuous)?;
        let transaction = self.connection.transaction()?;
        let added = new.rows.len();
        rows::insert(&transaction, new.rows)?;
        proposed::keep(&transaction, new.proposed)?;
        if let Some(identity) = identity.filter(|_| identity != self.identity) {
            identity::write(&transaction, identity)?;
        }
        if let Some(term) = save.term {
            write_term(&transaction, term)?;
        }
        if save.term.is_some() || identity != self.identity {
            identity::seal_term(&transaction, identity, saved.term)?;
        }
        let shed = self.shedding.shed(&transaction, added)?;
        storage::error::commit(transaction)?;
        self.shedding.committed(shed, &self.connection);
        self.log.keep(&self.connection);
        (self.identity, self.durable) = (identity, saved);
        Ok(saved)
    }

    fn reader(&self) -> Arc<dyn ReadRows> {
        Arc::clone(&self.reader) as Arc<dyn ReadRows>
    }
}

fn discontinuous(error: Discontinuous) -> StorageError {
    StorageError::Discontinuous(error.0)
}

/// The rows that continue a ledger, and were proposed in an epoch.
pub(crate) fn proposed_in(
    connection: &Connection,
    epoch: Epoch,
    end: LedgerEnd,
) -> Result<Vec<Row>, StorageError> {
    let mut rows = proposed::continuing(connection, end)?;
    let count = rows.iter().take_while(|row| row.epoch == epoch).count();
    rows.truncate(count);
    Ok(rows)
}

/// The highest term that was seen, as it was written.
pub(crate) fn read_term(connection: &Connection) -> Result<Term, StorageError> {
    // As of one moment, also where a running replica writes another one.
    let _moment = connection.unchecked_transaction()?;
    let term = parse_term(connection)?;
    identity::check_term(connection, term)?;
    Ok(term)
}

fn parse_term(connection: &Connection) -> Result<Term, StorageError> {
    let row = connection.query_row("SELECT epoch, leader FROM term", [], |row| {
        Ok((row.get(0)?, row.get(1)?))
    });
    let Some((epoch, leader)) = row.optional()? else {
        return Ok(Term::default());
    };
    let (epoch, leader) = (Epoch(epoch), ReplicaId::new(leader));
    if epoch == Epoch(0) || leader.is_none() {
        return Err(StorageError::Damaged(format!(
            "epoch {epoch} has no leader"
        )));
    }
    Ok(Term { epoch, leader })
}

fn write_term(connection: &Connection, term: Term) -> Result<(), StorageError> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO term (only, epoch, leader) VALUES (0, ?, ?)
         ON CONFLICT (only) DO UPDATE SET epoch = excluded.epoch, leader = excluded.leader
         WHERE excluded.epoch >= epoch",
    )?;
    let changed =
        statement.execute(params![term.epoch.0, term.leader.map_or(0, ReplicaId::get)])?;
    if changed == 1 {
        Ok(())
    } else {
        Err(StorageError::Discontinuous(format!(
            "the replica has seen an epoch above {}",
            term.epoch
        )))
    }
}

/// Read-only connections beside the writer's.
#[derive(Debug)]
struct SqliteReader {
    location: Location,
    idle: Mutex<Vec<Database>>,
}

impl ReadRows for SqliteReader {
    fn rows(&self, from: RowNumber, rows_max: usize) -> Result<Vec<Row>, StorageError> {
        if i64::try_from(from.0).is_err() {
            return Ok(Vec::new()); // SQLite has no such number.
        }
        self.read(|connection| rows::read(connection, from, rows_max))
    }

    fn order(&self, number: OrderNumber) -> Result<Option<Row>, StorageError> {
        self.read(|connection| rows::find_order(connection, number))
    }

    fn beside(&self) -> Result<Vec<Row>, StorageError> {
        self.read(|connection| {
            let at_once = connection.unchecked_transaction()?;
            let last = rows::last(connection)?;
            let end = last.as_ref().map(LedgerEnd::of).unwrap_or_default();
            proposed::continuing(&at_once, end)
        })
    }
}

impl SqliteReader {
    fn read<T>(
        &self,
        read: impl FnOnce(&Database) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = idle().pop();
        let connection = match taken {
            Some(connection) => connection,
            None => storage::open_read_only(&self.location, KIND)?,
        };
        let found = read(&connection)?;
        let mut idle = idle();
        if idle.len() < READERS_IDLE_MAX {
            idle.push(connection);
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests;
