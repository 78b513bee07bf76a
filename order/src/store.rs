//! The replica's disk: its ledger and the highest term that it has seen.
//!
//! - [`saves`]: what is on its way there, in groups.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use protocol::{Epoch, OrderNumber, ReplicaId, Row};
use rusqlite::{Connection, OptionalExtension, params};
use storage::database::Kind;
use storage::rows::{self, End};
use storage::{DataDir, Location, StorageError};

use crate::core::message::{Durable, Term};

pub mod saves;

/// A replica's database.
pub const KIND: Kind = Kind {
    name: "order replica",
    file: "orders.db",
    application_id: 0x425a_4f52,
    schema: rows::SCHEMA,
};

/// One row once the first term has been seen, none before.
const TERM_SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS term (
        only   INTEGER PRIMARY KEY CHECK (only = 0),
        epoch  INTEGER NOT NULL CHECK (epoch > 0),
        leader INTEGER NOT NULL CHECK (leader > 0)
    ) STRICT;
";

/// Connections kept for reading; more are opened while more are in use.
const READERS_IDLE_MAX: usize = 8;

/// What keeps a replica's term and ledger.
pub trait Store: Send + 'static {
    /// What it holds.
    fn durable(&self) -> Durable;

    /// Makes a term and rows durable, all or nothing. Rows that it has are passed over.
    ///
    /// # Errors
    /// Where rows before these are missing, the hash chain does not continue, or the disk is
    /// full. Nothing is changed then.
    fn save(&mut self, term: Option<Term>, rows: &[Row]) -> Result<Durable, StorageError>;

    /// Reads what is durable, beside the writer.
    fn reader(&self) -> Arc<dyn ReadRows>;
}

/// Reads a ledger from any thread. Blocks on the disk.
pub trait ReadRows: Send + Sync + 'static {
    /// At most `rows_max` rows from a number on, in number order and without gaps.
    ///
    /// # Errors
    /// Where the store is damaged or cannot be read.
    fn rows(&self, from: OrderNumber, rows_max: usize) -> Result<Vec<Row>, StorageError>;
}

/// A store in an SQLite database.
#[derive(Debug)]
pub struct SqliteStore {
    connection: Connection,
    reader: Arc<SqliteReader>,
    durable: Durable,
    _data_dir: DataDir,
}

impl SqliteStore {
    /// Takes a data directory, which no other process may have.
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
        let connection = data_dir.open(KIND)?;
        connection.execute_batch(TERM_SCHEMA)?;
        let durable = Durable {
            term: read_term(&connection)?,
            end: rows::end(&connection)?,
        };
        let reader = Arc::new(SqliteReader {
            location: data_dir.location().clone(),
            idle: Mutex::default(),
        });
        Ok(Self {
            connection,
            reader,
            durable,
            _data_dir: data_dir,
        })
    }
}

impl Store for SqliteStore {
    fn durable(&self) -> Durable {
        self.durable
    }

    fn save(&mut self, term: Option<Term>, rows: &[Row]) -> Result<Durable, StorageError> {
        let (new, end) = continuation(self.durable.end, rows)?;
        let saved = Durable {
            term: term.unwrap_or(self.durable.term),
            end,
        };
        let transaction = self.connection.transaction()?;
        rows::insert(&transaction, new)?;
        if let Some(term) = term {
            write_term(&transaction, term)?;
        }
        storage::error::commit(transaction)?;
        self.durable = saved;
        Ok(saved)
    }

    fn reader(&self) -> Arc<dyn ReadRows> {
        Arc::clone(&self.reader) as Arc<dyn ReadRows>
    }
}

/// The rows that continue a ledger, and where it then ends.
pub(crate) fn continuation(mut end: End, rows: &[Row]) -> Result<(Vec<&Row>, End), StorageError> {
    let mut new = Vec::with_capacity(rows.len());
    for row in rows.iter() {
        if row.number < end.rows {
            continue;
        }
        if row.number > end.rows {
            return Err(StorageError::Damaged(format!(
                "row {} cannot follow a ledger of {} rows",
                row.number, end.rows
            )));
        }
        if !row.follows(&end.chain) {
            return Err(StorageError::Damaged(format!(
                "row {} does not continue the hash chain",
                row.number
            )));
        }
        end = End {
            rows: row.number.next(),
            chain: row.chain,
        };
        new.push(row);
    }
    Ok((new, end))
}

pub(crate) fn read_term(connection: &Connection) -> Result<Term, StorageError> {
    let row = connection.query_row("SELECT epoch, leader FROM term", [], |row| {
        Ok((row.get(0)?, row.get(1)?))
    });
    let Some((epoch, leader)) = row.optional()? else {
        return Ok(Term::default());
    };
    Ok(Term {
        epoch: Epoch(epoch),
        leader: ReplicaId::new(leader),
    })
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
        Err(StorageError::Damaged(format!(
            "it has seen an epoch above {}",
            term.epoch
        )))
    }
}

/// Read-only connections beside the writer's.
#[derive(Debug)]
struct SqliteReader {
    location: Location,
    idle: Mutex<Vec<Connection>>,
}

impl ReadRows for SqliteReader {
    fn rows(&self, from: OrderNumber, rows_max: usize) -> Result<Vec<Row>, StorageError> {
        if i64::try_from(from.0).is_err() {
            return Ok(Vec::new()); // SQLite has no such number.
        }
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = idle().pop();
        let connection = match taken {
            Some(connection) => connection,
            None => storage::open_read_only(&self.location, KIND)?,
        };
        let rows = rows::read(&connection, from, rows_max)?;
        let mut idle = idle();
        if idle.len() < READERS_IDLE_MAX {
            idle.push(connection);
        }
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::tests::bench::{end, journal, term};
    use crate::ledger::Ledger;

    #[test]
    fn what_was_saved_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let rows = journal(5);
        let mut store = SqliteStore::open(dir.path()).unwrap();
        assert_eq!(store.durable(), Durable::default());
        store.save(Some(term(3, 2)), &rows[..2]).unwrap();
        store.save(None, &rows[1..]).unwrap();
        let saved = store.save(Some(term(4, 1)), &[]).unwrap();
        assert_eq!(
            saved,
            Durable {
                term: term(4, 1),
                end: end(&rows)
            }
        );
        assert_eq!(store.reader().rows(OrderNumber(1), 2).unwrap(), rows[1..3]);
        assert_eq!(store.reader().rows(OrderNumber(u64::MAX), 1).unwrap(), []);
        drop(store);
        assert_eq!(SqliteStore::open(dir.path()).unwrap().durable(), saved);
    }

    #[test]
    fn what_does_not_continue_the_ledger_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let rows = journal(4);
        let mut store = SqliteStore::open(dir.path()).unwrap();
        let before = store.save(Some(term(3, 2)), &rows[..1]).unwrap();
        let mut forged = rows[1].clone();
        forged.epoch = Epoch(9);
        let gap = [rows[1].clone(), rows[3].clone()];
        let second_key = [Row::following(
            &rows[0].chain,
            OrderNumber(1),
            Epoch(1),
            rows[0].order.clone(),
            rows[0].price,
        )];
        for refused in [&[forged][..], &gap, &second_key] {
            store.save(Some(term(4, 1)), refused).unwrap_err();
            assert_eq!(store.durable(), before);
        }
        store.save(Some(term(2, 1)), &rows[1..]).unwrap_err();
        drop(store);
        assert_eq!(SqliteStore::open(dir.path()).unwrap().durable(), before);
    }

    #[test]
    fn a_ledger_is_read_in_chunks_while_its_replica_runs() {
        let dir = tempfile::tempdir().unwrap();
        let rows = journal(10_000);
        let mut store = SqliteStore::open(dir.path()).unwrap();
        store.save(None, &rows).unwrap();
        let ledger = Ledger::open(dir.path()).unwrap();
        assert_eq!(ledger.end().unwrap(), end(&rows));
        assert!(ledger.rows().map(Result::unwrap).eq(rows));
        assert!(Ledger::open(&dir.path().join("elsewhere")).is_err());
    }
}
