//! The catalog's SQLite database, `catalog.db`.

mod identity;
mod protocol;
mod refused;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use domain::LedgerEnd;
use domain::{
    IdempotencyKey, JournalId, ListingDigest, OrderNumber, Price, Protocol, ReplicaId, Row,
    RowNumber, StockName, Version,
};
use rusqlite::{Connection, Transaction, TransactionBehavior, params};
use storage::archiver::{Archiver, Archiving};
use storage::damage::{DamageReporter, Watch};
use storage::database::{self, Kind};
use storage::log::LogBound;
use storage::rows;
use storage::shedding::Shedding;
use storage::{DataDir, Database, Location, StorageError};
use tonic::async_trait;

use super::audit::Audit;
use super::checksums::{of_sessions, of_term};
use super::{Journal, Loaded, Store, random_journal, shares, term, whole_ms};
use crate::stocks::{self, Listing};
use catalog_core::{Batch, CatalogState, PriorOutcome, RefusedOrder, Stock, Term};

use identity::Covered;

/// Beside a database that was made of a backup: the id of the journal that it is about.
pub(crate) const RESTORED: &str = "restored";

/// The database's file in the data directory.
pub const FILE: &str = "catalog.db";

pub(crate) const KIND: Kind = Kind {
    name: "catalog",
    file: FILE,
    application_id: 0x425a_4341, // "BZCA"
    schema: &[SCHEMA, rows::SCHEMA, refused::SCHEMA],
    added: &[
        identity::SCHEMA,
        rows::STOCK_CHANGES,
        refused::STOCK_CHANGES,
    ],
    gated: &[protocol::SCHEMA],
};

const SCHEMA: &str = "
    CREATE TABLE stock (
        name     TEXT PRIMARY KEY,
        price    INTEGER NOT NULL CHECK (price >= 0), -- of one share, in minor units (cents)
        quantity INTEGER NOT NULL CHECK (quantity >= 0),
        volume   INTEGER NOT NULL CHECK (volume >= 0), -- shares traded, bought and sold
        version  INTEGER NOT NULL CHECK (version > 0)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE listing ( -- as the stocks were first; the journal leads from here to there
        name     TEXT PRIMARY KEY,
        price    INTEGER NOT NULL CHECK (price >= 0),
        quantity INTEGER NOT NULL CHECK (quantity >= 0)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE leadership (
        id     INTEGER PRIMARY KEY CHECK (id = 0), -- one row
        epoch  INTEGER NOT NULL CHECK (epoch >= 0),
        leader INTEGER NOT NULL CHECK ((leader = 0) = (epoch = 0)),
        change INTEGER NOT NULL CHECK (change >= 0) -- the last one of in_sync in this epoch
    ) STRICT;
    INSERT INTO leadership VALUES (0, 0, 0, 0);
    CREATE TABLE in_sync (
        replica INTEGER PRIMARY KEY CHECK (replica > 0)
    ) STRICT;
    CREATE TABLE sessions_out ( -- a row while gateways may hold leases
        id      INTEGER PRIMARY KEY CHECK (id = 0),
        term_ms INTEGER NOT NULL CHECK (term_ms > 0) -- how long they last at most
    ) STRICT;
";

/// After every few thousand rows that are checked while the catalog serves.
const CHECK_PAUSE: Duration = Duration::from_millis(10);

#[derive(Debug)]
pub struct SqliteStore {
    connection: Database,
    log: LogBound,
    shedding: Shedding,
    /// `None` until one is begun.
    journal: Option<JournalId>,
    listing: ListingDigest,
    unchecked: Option<Unchecked>,
    data_dir: DataDir,
}

impl SqliteStore {
    /// Takes the data directory and opens its database, making both where they are missing. A
    /// small database is read in full; of a large one the ends of the journal and the stocks,
    /// and [`unchecked`](Self::unchecked) is for the rest. Either way no row is ever returned
    /// that does not continue the hash chain. A journal of before there were ids gets one.
    ///
    /// # Errors
    /// Where the directory is in use, not a catalog's, or damaged.
    pub fn open(data_dir: &Path) -> Result<Self, StorageError> {
        Self::open_in(DataDir::take(data_dir)?)
    }

    /// The same, where reading and writing [make way for others](storage::gentle).
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_gently(data_dir: &Path) -> Result<Self, StorageError> {
        Self::open_in(DataDir::take_gently(data_dir)?)
    }

    /// Opens the database of a data directory, making it where it is missing.
    pub fn open_in(data_dir: DataDir) -> Result<Self, StorageError> {
        let connection = data_dir.open(KIND)?;
        let listings = listings(&connection)?;
        let listing = stocks::digest(&listings);
        let journal = identity::read(&connection, &listing)?;
        let mut store = Self {
            journal,
            listing,
            unchecked: None,
            log: data_dir.log_bound(KIND),
            shedding: Shedding::of(&connection)?,
            data_dir,
            connection,
        };
        let end = rows::end(&store.connection)?;
        let unchecked = Unchecked {
            audit: Audit::new(listings, store.stocks()?, end)?,
            end,
            journal,
            location: store.data_dir.location().clone(),
        };
        if database::is_small(&store.connection)? {
            database::check_pages(&store.connection)?;
            unchecked.check_with(&store.connection, || true)?;
        } else {
            store.unchecked = Some(unchecked);
        }
        if journal.is_none() && !is_empty(&store.connection)? {
            store.adopt(random_journal()?)?;
        }
        Ok(store)
    }

    /// Gives an id, and the checksums that rest on it, to a journal of before there were any.
    fn adopt(&mut self, journal: JournalId) -> Result<(), StorageError> {
        let (term, sessions_out) = (self.term()?, self.sessions_out()?);
        let transaction = immediate(&mut self.connection)?;
        identity::write(&transaction, journal, &self.listing)?;
        Covered::Leadership.keep(&transaction, of_term(journal, &term))?;
        Covered::Sessions.keep(&transaction, of_sessions(journal, sessions_out))?;
        refused::cover(&transaction, journal)?;
        storage::error::commit(transaction)?;
        self.journal = Some(journal);
        tracing::info!(%journal, "the journal is of before there were ids: it has one now");
        Ok(())
    }

    /// Syncs nothing from now on, for a database that is begun again where the machine fails, and removed or synced by others
    /// where it does not.
    ///
    /// # Errors
    /// Where the database refuses.
    pub fn forgo_syncs(&self) -> Result<(), StorageError> {
        Ok(self.connection.pragma_update(None, "synchronous", "OFF")?)
    }

    /// What is left to read of a large database as it was opened, for a thread of its own.
    pub fn unchecked(&mut self) -> Option<Unchecked> {
        self.unchecked.take()
    }

    /// Reads its journal, beside the writer.
    pub fn journal(&self) -> Result<SqliteJournal, StorageError> {
        SqliteJournal::open_at(self.data_dir.location())
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

    /// Whether no journal was begun in it yet.
    pub fn is_new(&self) -> bool {
        self.journal.is_none()
    }

    /// Begins a journal with its first stocks, at a version of the protocol: all of it or nothing.
    ///
    /// # Panics
    /// Where one was begun before.
    pub fn begin(
        &mut self,
        journal: JournalId,
        listings: &[Listing],
        protocol: Protocol,
    ) -> Result<(), StorageError> {
        assert!(self.is_new(), "a database holds one journal");
        let listing = stocks::digest(listings);
        let path = self.data_dir.location().beside(FILE);
        let transaction = immediate(&mut self.connection)?;
        insert_listings(&transaction, listings)?;
        identity::write(&transaction, journal, &listing)?;
        self::protocol::raise(&transaction, &path, journal, protocol)?;
        Covered::Leadership.keep(&transaction, of_term(journal, &Term::default()))?;
        Covered::Sessions.keep(&transaction, of_sessions(journal, None))?;
        storage::error::commit(transaction)?;
        (self.journal, self.listing) = (Some(journal), listing);
        Ok(())
    }

    /// Whether it was made of a backup, and was not compared with replicas' ledgers since.
    fn is_restored(&self) -> bool {
        let mark = self.data_dir.location().beside(RESTORED);
        let journal = std::fs::read_to_string(mark).unwrap_or_default();
        self.journal
            .is_some_and(|own| own.to_string() == journal.trim())
    }

    /// The stocks as they were first.
    pub fn listings(&self) -> Result<Vec<Listing>, StorageError> {
        listings(&self.connection)
    }

    /// The orders that were refused and are remembered, in the order in which they were.
    pub fn refused(&self) -> Result<Vec<RefusedOrder>, StorageError> {
        refused::all(&self.connection)
    }

    /// Which journal it holds.
    fn journal_id(&self) -> Result<JournalId, StorageError> {
        let none = || StorageError::Damaged("no journal was begun in it".into());
        self.journal.ok_or_else(none)
    }

    fn stocks(&self) -> Result<Vec<Stock>, StorageError> {
        let sql = "SELECT name, price, quantity, volume, version FROM stock";
        let mut statement = self.connection.prepare(sql)?;
        let mut found = statement.query([])?;
        let mut stocks = Vec::new();
        while let Some(row) = found.next()? {
            stocks.push(Stock {
                name: StockName::new(&row.get::<_, String>(0)?)?,
                price: Price::from_minor(row.get(1)?)?,
                quantity: shares(row.get(2)?)?,
                volume: row.get(3)?,
                version: Version(row.get(4)?),
                is_listed: true,
            });
        }
        Ok(stocks)
    }

    /// As it is written; whether it is what was written its checksum tells.
    fn term(&self) -> Result<Term, StorageError> {
        let sql = "SELECT epoch, leader, change FROM leadership";
        let (epoch, leader, change) = self
            .connection
            .query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        let mut statement = self.connection.prepare("SELECT replica FROM in_sync")?;
        let mut found = statement.query([])?;
        let mut in_sync = BTreeSet::new();
        while let Some(row) = found.next()? {
            let replica = ReplicaId::new(row.get(0)?);
            let none = || StorageError::Damaged("replica 0 is in the in-sync set".into());
            in_sync.insert(replica.ok_or_else(none)?);
        }
        term(epoch, leader, change, in_sync)
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

/// Whether a catalog's directory holds a journal. A database that was being made when its catalog
/// ended holds none.
///
/// # Errors
/// Where it cannot be read, or is damaged.
pub fn holds_journal(data_dir: &Path) -> Result<bool, StorageError> {
    match storage::open_where_made(&Location::on_disk(data_dir), KIND)? {
        Some(connection) => Ok(!is_empty(&connection)?),
        None => Ok(false),
    }
}

/// Whether there is nothing but tables.
fn is_empty(connection: &Connection) -> Result<bool, StorageError> {
    for table in ["stock", "listing", "journal", "refused", "identity"] {
        // A database of before there were ids, opened for reading, has no table of that name.
        if connection.table_exists(None, table)? {
            let sql = format!("SELECT EXISTS (SELECT 1 FROM {table})");
            if connection.query_row(&sql, [], |row| row.get(0))? {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

fn listings(connection: &Connection) -> Result<Vec<Listing>, StorageError> {
    let sql = "SELECT name, price, quantity FROM listing";
    let mut statement = connection.prepare(sql)?;
    let mut found = statement.query([])?;
    let mut listings = Vec::new();
    while let Some(row) = found.next()? {
        listings.push(Listing {
            name: StockName::new(&row.get::<_, String>(0)?)?,
            price: Price::from_minor(row.get(1)?)?,
            quantity: shares(row.get(2)?)?,
        });
    }
    Ok(listings)
}

/// What [`Store`] says, for callers that may block.
impl SqliteStore {
    /// See [`Store::load`].
    pub fn load(&mut self) -> Result<Loaded, StorageError> {
        let journal = self.journal_id()?;
        let end = rows::end(&self.connection)?;
        let (term, sessions_out) = (self.term()?, self.sessions_out()?);
        Covered::Leadership.check(&self.connection, of_term(journal, &term))?;
        let covered = of_sessions(journal, sessions_out);
        Covered::Sessions.check(&self.connection, covered)?;
        let last = rows::last(&self.connection)?;
        if last.is_some_and(|row| row.epoch > term.epoch) {
            return Err(StorageError::Damaged(format!(
                "its journal has rows of a later epoch than {}",
                term.epoch
            )));
        }
        let state = CatalogState::new(self.stocks()?, end, term);
        Ok(Loaded {
            journal,
            listing: self.listing,
            state,
            protocol: protocol::read(&self.connection, journal)?,
            sessions_out,
            // Else nobody can tell.
            may_lack_rows: self.is_restored(),
            is_unbroken: false,
        })
    }

    /// See [`Store::find_keys`].
    pub fn find_key(&mut self, key: &IdempotencyKey) -> Result<Option<PriorOutcome>, StorageError> {
        if let Some(row) = rows::find_key(&self.connection, key)? {
            return Ok(Some(PriorOutcome::Row(row)));
        }
        let refused = refused::find(&self.connection, self.journal_id()?, key)?;
        Ok(refused.map(PriorOutcome::Refused))
    }

    /// See [`Store::commit`].
    pub fn commit(&mut self, batch: &Batch) -> Result<(), StorageError> {
        let journal = self.journal_id()?;
        let transaction = immediate(&mut self.connection)?;
        rows::insert(&transaction, &batch.rows)?;
        refused::insert(&transaction, journal, &batch.refused)?;
        update_stocks(&transaction, batch)?;
        if let Some(term) = &batch.term {
            update_term(&transaction, term)?;
            Covered::Leadership.keep(&transaction, of_term(journal, term))?;
        }
        let shed = self.shedding.shed(&transaction, batch.rows.len())?;
        storage::error::commit(transaction)?;
        self.shedding.committed(shed, &self.connection);
        self.log.keep(&self.connection);
        Ok(())
    }

    /// See [`Store::set_sessions_out`].
    pub fn set_sessions_out(&mut self, lease_max: Option<Duration>) -> Result<(), StorageError> {
        let journal = self.journal_id()?;
        let lease_max = lease_max.map(whole_ms);
        let transaction = immediate(&mut self.connection)?;
        transaction.execute("DELETE FROM sessions_out", [])?;
        if let Some(lease_max) = lease_max {
            let term_ms = u64::try_from(lease_max.as_millis()).unwrap_or(u64::MAX); // refused below
            transaction.execute("INSERT INTO sessions_out VALUES (0, ?)", [term_ms])?;
        }
        Covered::Sessions.keep(&transaction, of_sessions(journal, lease_max))?;
        storage::error::commit(transaction)
    }
}

impl SqliteStore {
    /// See [`Store::raise_protocol`].
    pub fn raise_protocol(&mut self, protocol: Protocol) -> Result<(), StorageError> {
        let journal = self.journal_id()?;
        let path = self.data_dir.location().beside(FILE);
        let transaction = immediate(&mut self.connection)?;
        self::protocol::raise(&transaction, &path, journal, protocol)?;
        storage::error::commit(transaction)
    }
}

/// It blocks, and is ready at once.
#[async_trait]
impl Store for SqliteStore {
    async fn load(&mut self) -> Result<Loaded, StorageError> {
        Self::load(self)
    }

    async fn find_keys(
        &mut self,
        keys: &[&IdempotencyKey],
    ) -> Result<Vec<Option<PriorOutcome>>, StorageError> {
        keys.iter().map(|key| self.find_key(key)).collect()
    }

    async fn commit(&mut self, batch: &Batch) -> Result<(), StorageError> {
        Self::commit(self, batch)
    }

    async fn set_sessions_out(&mut self, lease_max: Option<Duration>) -> Result<(), StorageError> {
        Self::set_sessions_out(self, lease_max)
    }

    async fn raise_protocol(&mut self, protocol: Protocol) -> Result<(), StorageError> {
        Self::raise_protocol(self, protocol)
    }

    async fn note_healed(&mut self) -> Result<(), StorageError> {
        let mark = self.data_dir.location().beside(RESTORED);
        match std::fs::remove_file(&mark) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(StorageError::Directory { path: mark, source })
            }
            _ => Ok(()),
        }
    }
}

/// A database too large to be read in full before it is used.
#[derive(Debug)]
pub struct Unchecked {
    audit: Audit,
    end: LedgerEnd,
    /// `None` where there is none yet, or it was of before there were ids.
    journal: Option<JournalId>,
    location: Location,
}

impl Unchecked {
    /// Reads the whole journal as it was when the database was opened, with pauses that leave
    /// the disk and the processor to others, until `keep_going` says no.
    ///
    /// # Errors
    /// [`StorageError::Damaged`] at the first row or refused order that is not as it was written,
    /// or where the stocks are not what the journal made of their listings.
    pub fn check(self, keep_going: impl Fn() -> bool) -> Result<(), StorageError> {
        let connection = storage::open_read_only(&self.location, KIND)?;
        self.check_with(&connection, || {
            std::thread::sleep(CHECK_PAUSE);
            keep_going()
        })
    }

    fn check_with(
        self,
        connection: &Database,
        keep_going: impl Fn() -> bool,
    ) -> Result<(), StorageError> {
        let Self {
            mut audit,
            end,
            journal,
            ..
        } = self;
        let mut stopped = false;
        let mut unlisted = Ok(());
        rows::check(connection, end, |rows| {
            unlisted = audit.take(rows);
            stopped = !keep_going();
            unlisted.is_ok() && !stopped
        })?;
        unlisted?;
        if stopped {
            return Ok(());
        }
        audit.finish()?;
        match journal {
            Some(journal) => refused::check(connection, journal, keep_going),
            None => Ok(()),
        }
    }
}

fn insert_listings(transaction: &Transaction<'_>, listings: &[Listing]) -> rusqlite::Result<()> {
    let mut stock = transaction.prepare(
        "INSERT INTO stock (name, price, quantity, volume, version) VALUES (?, ?, ?, 0, 1)",
    )?;
    let mut listed = transaction
        .prepare("INSERT INTO listing SELECT name, price, quantity FROM stock WHERE name = ?")?;
    for listing in listings {
        let name = listing.name.as_str();
        stock.execute(params![name, listing.price.minor(), listing.quantity])?;
        listed.execute([name])?;
    }
    Ok(())
}

fn immediate(connection: &mut Connection) -> Result<Transaction<'_>, StorageError> {
    Ok(connection.transaction_with_behavior(TransactionBehavior::Immediate)?)
}

fn update_stocks(transaction: &Transaction<'_>, batch: &Batch) -> Result<(), StorageError> {
    let mut update = transaction.prepare_cached(
        "UPDATE stock SET price = ?, quantity = ?, volume = ?, version = ?
         WHERE name = ? AND version < ?4",
    )?;
    let mut insert = transaction.prepare_cached(
        "INSERT INTO stock (price, quantity, volume, version, name) VALUES (?, ?, ?, ?, ?)
         ON CONFLICT (name) DO UPDATE SET price = excluded.price, quantity = excluded.quantity,
             volume = excluded.volume, version = excluded.version
         WHERE version < excluded.version",
    )?;
    let mut delete = transaction.prepare_cached("DELETE FROM stock WHERE name = ?")?;
    let listed = super::listed(batch);
    for stock in &batch.stocks {
        let name = stock.name.as_str();
        let was_listed = listed.contains(&stock.name);
        let changed = if stock.is_listed {
            let change = match was_listed {
                true => &mut insert,
                false => &mut update,
            };
            change.execute(params![
                stock.price.minor(),
                stock.quantity,
                stock.volume,
                stock.version.0,
                name
            ])?
        } else {
            delete.execute([name])?
        };
        // One that was listed in the same batch need not have been there.
        assert!(
            changed == 1 || was_listed && !stock.is_listed,
            "the store has another {} than the state",
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
#[derive(Debug, Clone)]
pub struct SqliteJournal {
    connection: Arc<Mutex<Database>>,
}

impl SqliteJournal {
    /// Opens the database that a [`SqliteStore`] has made.
    pub fn open(data_dir: &Path) -> Result<Self, StorageError> {
        Self::open_at(&Location::on_disk(data_dir))
    }

    fn open_at(location: &Location) -> Result<Self, StorageError> {
        let connection = storage::open_read_only(location, KIND)?;
        Ok(Self {
            connection: Arc::new(Mutex::new(connection)),
        })
    }

    /// See [`Journal::rows`]; blocks.
    pub fn rows(&self, from: RowNumber, rows_max: usize) -> Result<Vec<Row>, StorageError> {
        let connection = self.connection.lock().expect("no reader panics");
        rows::read(&connection, from, rows_max)
    }

    /// The row of an order, if there is one; blocks.
    pub fn find_order(&self, order: OrderNumber) -> Result<Option<Row>, StorageError> {
        let connection = self.connection.lock().expect("no reader panics");
        rows::find_order(&connection, order)
    }
}

#[async_trait]
impl Journal for SqliteJournal {
    async fn rows(&self, from: RowNumber, rows_max: usize) -> Result<Vec<Row>, StorageError> {
        let journal = self.clone();
        let rows = tokio::task::spawn_blocking(move || Self::rows(&journal, from, rows_max));
        rows.await.map_err(|_| StorageError::Stopping)?
    }
}

#[cfg(test)]
mod tests;
