//! The catalog's SQLite database, `catalog.db`.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use protocol::{
    Epoch, IdempotencyKey, OrderNumber, Price, Quantity, ReplicaId, Row, StockName, Version,
};
use rusqlite::{Connection, Transaction, TransactionBehavior, params};
use storage::database::Kind;
use storage::{DataDir, Location, StorageError, rows};

use super::{Journal, Loaded, Store};
use crate::core::{Batch, Books, ChangeNumber, Stock, Term};
use crate::stocks::Listing;

/// The database's file in the data directory.
pub const FILE: &str = "catalog.db";

const KIND: Kind = Kind {
    name: "catalog",
    file: FILE,
    application_id: 0x425a_4341, // "BZCA"
    schema: SCHEMA,
};

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS stock (
        name     TEXT PRIMARY KEY,
        price    INTEGER NOT NULL CHECK (price >= 0), -- of one share, in minor units (cents)
        quantity INTEGER NOT NULL CHECK (quantity >= 0),
        volume   INTEGER NOT NULL CHECK (volume >= 0), -- shares traded, bought and sold
        version  INTEGER NOT NULL CHECK (version > 0)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS leadership (
        id     INTEGER PRIMARY KEY CHECK (id = 0), -- one row
        epoch  INTEGER NOT NULL CHECK (epoch >= 0),
        leader INTEGER NOT NULL CHECK ((leader = 0) = (epoch = 0)),
        change INTEGER NOT NULL CHECK (change >= 0) -- the last one of in_sync in this epoch
    ) STRICT;
    INSERT OR IGNORE INTO leadership VALUES (0, 0, 0, 0);
    CREATE TABLE IF NOT EXISTS in_sync (
        replica INTEGER PRIMARY KEY CHECK (replica > 0)
    ) STRICT;
    CREATE TABLE IF NOT EXISTS sessions_out ( -- a row while gateways may hold leases
        id      INTEGER PRIMARY KEY CHECK (id = 0),
        term_ms INTEGER NOT NULL CHECK (term_ms > 0) -- how long they last at most
    ) STRICT;
";

/// The writer's connection.
#[derive(Debug)]
pub struct SqliteStore {
    connection: Connection,
    data_dir: DataDir,
}

impl SqliteStore {
    /// Takes the data directory and opens its database, making both where they are missing.
    pub fn open(data_dir: &Path) -> Result<Self, StorageError> {
        Self::open_in(DataDir::take(data_dir)?)
    }

    /// Opens the database of a data directory, making it where it is missing.
    pub fn open_in(data_dir: DataDir) -> Result<Self, StorageError> {
        let connection = data_dir.open(KIND)?;
        connection.execute_batch(rows::SCHEMA)?;
        Ok(Self {
            connection,
            data_dir,
        })
    }

    /// Reads its journal, beside the writer.
    pub fn journal(&self) -> Result<SqliteJournal, StorageError> {
        SqliteJournal::open_at(self.data_dir.location())
    }

    /// Whether it has no stocks yet.
    pub fn is_new(&self) -> Result<bool, StorageError> {
        let sql = "SELECT NOT EXISTS (SELECT 1 FROM stock)";
        Ok(self.connection.query_row(sql, [], |row| row.get(0))?)
    }

    /// Lists the first stocks.
    pub fn list(&mut self, listings: &[Listing]) -> Result<(), StorageError> {
        let transaction = immediate(&mut self.connection)?;
        for listing in listings {
            transaction.execute(
                "INSERT INTO stock (name, price, quantity, volume, version) VALUES (?, ?, ?, 0, 1)",
                params![
                    listing.name.as_str(),
                    listing.price.minor(),
                    listing.quantity
                ],
            )?;
        }
        storage::error::commit(transaction)
    }

    fn stocks(&self) -> Result<Vec<Stock>, StorageError> {
        let sql = "SELECT name, price, quantity, volume, version FROM stock";
        let mut statement = self.connection.prepare(sql)?;
        let mut found = statement.query([])?;
        let mut stocks = Vec::new();
        while let Some(row) = found.next()? {
            let quantity = row.get(2)?;
            if quantity > Quantity::MAX {
                return Err(StorageError::Damaged(format!(
                    "there cannot be {quantity} shares"
                )));
            }
            stocks.push(Stock {
                name: StockName::new(&row.get::<_, String>(0)?)?,
                price: Price::from_minor(row.get(1)?)?,
                quantity,
                volume: row.get(3)?,
                version: Version(row.get(4)?),
            });
        }
        Ok(stocks)
    }

    fn term(&self) -> Result<Term, StorageError> {
        let sql = "SELECT epoch, leader, change FROM leadership";
        let (epoch, leader, change) = self
            .connection
            .query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        let mut statement = self.connection.prepare("SELECT replica FROM in_sync")?;
        let in_sync: BTreeSet<u32> = statement
            .query_map([], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        Ok(Term {
            epoch: Epoch(epoch),
            leader: ReplicaId::new(leader),
            in_sync: in_sync.into_iter().filter_map(ReplicaId::new).collect(),
            change: match change {
                0 => ChangeNumber::NONE,
                number => ChangeNumber::new(number)?,
            },
        })
    }

    fn sessions_out(&self) -> Result<Option<Duration>, StorageError> {
        let mut statement = self
            .connection
            .prepare("SELECT term_ms FROM sessions_out")?;
        let mut found = statement.query([])?;
        let term_ms: Option<u64> = found.next()?.map(|row| row.get(0)).transpose()?;
        Ok(term_ms.map(Duration::from_millis))
    }
}

impl Store for SqliteStore {
    fn load(&mut self) -> Result<Loaded, StorageError> {
        let end = rows::end(&self.connection)?;
        let books = Books::new(self.stocks()?, end, self.term()?);
        Ok(Loaded {
            books,
            sessions_out: self.sessions_out()?,
        })
    }

    fn find_key(&mut self, key: &IdempotencyKey) -> Result<Option<Row>, StorageError> {
        rows::find_key(&self.connection, key)
    }

    fn commit(&mut self, batch: &Batch) -> Result<(), StorageError> {
        let transaction = immediate(&mut self.connection)?;
        rows::insert(&transaction, &batch.rows)?;
        update_stocks(&transaction, &batch.stocks)?;
        if let Some(term) = &batch.term {
            update_term(&transaction, term)?;
        }
        storage::error::commit(transaction)
    }

    fn set_sessions_out(&mut self, term: Option<Duration>) -> Result<(), StorageError> {
        let transaction = immediate(&mut self.connection)?;
        transaction.execute("DELETE FROM sessions_out", [])?;
        if let Some(term) = term {
            let term_ms = term
                .as_nanos()
                .div_ceil(Duration::from_millis(1).as_nanos());
            let term_ms = i64::try_from(term_ms).unwrap_or(i64::MAX);
            transaction.execute("INSERT INTO sessions_out VALUES (0, ?)", [term_ms])?;
        }
        storage::error::commit(transaction)
    }
}

fn immediate(connection: &mut Connection) -> Result<Transaction<'_>, StorageError> {
    Ok(connection.transaction_with_behavior(TransactionBehavior::Immediate)?)
}

fn update_stocks(transaction: &Transaction<'_>, stocks: &[Stock]) -> Result<(), StorageError> {
    let mut statement = transaction.prepare_cached(
        "UPDATE stock SET quantity = ?, volume = ?, version = ? WHERE name = ? AND version < ?3",
    )?;
    for stock in stocks {
        let version = stock.version.0;
        let changed = statement.execute(params![
            stock.quantity,
            stock.volume,
            version,
            stock.name.as_str()
        ])?;
        assert_eq!(
            changed, 1,
            "the store has another {} than the books",
            stock.name
        );
    }
    Ok(())
}

fn update_term(transaction: &Transaction<'_>, term: &Term) -> Result<(), StorageError> {
    let leader = term.leader.map_or(0, ReplicaId::get);
    transaction
        .prepare_cached("UPDATE leadership SET epoch = ?, leader = ?, change = ?")?
        .execute(params![term.epoch.0, leader, term.change.get()])?;
    transaction
        .prepare_cached("DELETE FROM in_sync")?
        .execute([])?;
    let mut statement = transaction.prepare_cached("INSERT INTO in_sync VALUES (?)")?;
    for replica in &term.in_sync {
        statement.execute([replica.get()])?;
    }
    Ok(())
}

/// A connection of its own for readers of the journal, whom the writer does not hold up.
#[derive(Debug)]
pub struct SqliteJournal {
    connection: Mutex<Connection>,
}

impl SqliteJournal {
    /// Opens the database that a [`SqliteStore`] has made.
    pub fn open(data_dir: &Path) -> Result<Self, StorageError> {
        Self::open_at(&Location::on_disk(data_dir))
    }

    fn open_at(location: &Location) -> Result<Self, StorageError> {
        let connection = storage::open_read_only(location, KIND)?;
        Ok(Self {
            connection: Mutex::new(connection),
        })
    }
}

impl Journal for SqliteJournal {
    fn rows(&self, from: OrderNumber, rows_max: usize) -> Result<Vec<Row>, StorageError> {
        let connection = self.connection.lock().expect("no reader panics");
        rows::read(&connection, from, rows_max)
    }
}

#[cfg(test)]
mod tests;
