//! The catalog's truth in PostgreSQL.
//!
//! - [`url`]: where it is, and how it is reached;
//! - `tls`: who is believed to be it;
//! - `connection`: one connection;
//! - `server`: whether it keeps what it acknowledges, and of which history it is;
//! - `schema`: its tables;
//! - `writer_row`: the row that says who writes;
//! - `lease`: who may write;
//! - `protocol`: which version of the protocol the bazaar is at;
//! - `limits`: what a catalog leaves the next one of them;
//! - `callers`: how many callers ask the catalogs that stand by;
//! - `rows`: their columns;
//! - `write`: a batch in one statement;
//! - `read`, `journal`: rows that continue the chain;
//! - [`transfer`]: a journal as a whole, for backups;
//! - [`error`]: what can go wrong;
//! - here: opening it, and what it holds then.
//!
//! Opened, in this order: the server is looked at, the tables are made where they are missing, the
//! writer's lease is taken, once nobody else has it, and what is there is read. The lease's commit is a barrier: rows that
//! were committed before and are not replicated yet are by the time it is acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use domain::time::BootTime;
use domain::{
    Entry, IdempotencyKey, JournalId, LedgerEnd, ListingDigest, Protocol, ReplicaId, RowNumber,
    StockChangeKind, StockName,
};
use storage::StorageError;
use storage::rows::missing;
use tokio::sync::watch;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tonic::async_trait;

use super::audit::Audit;
use super::checksums::{of_identity, of_term};
use super::words::side;
use super::{Journal, Loaded, Store, term as checked_term};
use crate::callers::Callers;
use crate::stocks::{self, Listing};
use catalog_core::writer_lease::{StatementOutcome, WriterLease, WriterStep};
use catalog_core::{Batch, CatalogState, PriorOutcome, Rules, SaidCallers, Stock, Term};

pub mod url;
mod tls;
mod connection;
mod server;
mod schema;
mod writer_row;
mod lease;
mod protocol;
mod limits;
mod callers;
mod rows;
mod write;
mod read;
mod journal;
pub mod transfer;
pub mod error;

pub use error::PostgresError;
pub use journal::PostgresJournal;
pub use limits::Leaves;
pub use url::StoreUrl;

use connection::{Connection, Wanted};
use error::{of_commit, of_read};
use lease::{Standby, Taken};
use rows::{JOURNAL, get, number, signed};
use server::Server;
use write::{Statements, Writer};
use writer_row::Life;

/// How many scripts have made the tables.
pub const SCHEMA_VERSION: usize = schema::VERSION;

/// Rows that are read at a time by who reads them all.
const CHUNK_ROWS: usize = 4096;

/// A journal of more rows is read in full beside the catalog's work, not before it: some 20 µs a row, while nobody is
/// served.
const SMALL_ROWS: u64 = 4_096;

/// Up to so many, the stocks are compared with sums of its rows before: some 0.2 µs a row, on the server.
const SUMMED_ROWS: u64 = 250_000;

/// Unless that takes longer.
const SUM_TIME_MAX: Duration = Duration::from_secs(1);

/// How long a start may take to read what it goes on with, and to read a small journal in full as well. It holds
/// others off meanwhile.
const LOAD_TIME_MAX: Duration = Duration::from_secs(60);
const CHECK_TIME_MAX: Duration = Duration::from_secs(120);

/// And then to let go of the lease.
const RELEASE_TIME_MAX: Duration = Duration::from_secs(1);

/// How often is looked whether another catalog has begun a journal.
const BEGUN_INTERVAL: Duration = Duration::from_millis(100);

/// After each [`CHUNK_ROWS`] that are read beside the catalog's work.
const CHECK_PAUSE: Duration = Duration::from_millis(10);

/// And where the database cannot be read.
const CHECK_RETRY: Duration = Duration::from_secs(1);

/// How a database is opened.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    pub url: StoreUrl,
    /// A server without a synchronous standby will do.
    pub allow_unreplicated: bool,
    /// Where this catalog is reached.
    pub reached_at: String,
    /// The journal to begin where there is none; without it that is an error.
    pub new: Option<NewJournal>,
    /// How long a commit may take, a synchronous standby's disk included, before it counts as lost.
    pub commit_time_max: Duration,
    /// For how long a beat has to stand still before another writer takes over: the same for all.
    pub writer_lease: Duration,
    /// Who asks this catalog, which it says while it stands by.
    pub callers: Callers,
    /// All of them, but in tests.
    pub rules: Rules,
}

/// A journal that is to begin.
#[derive(Debug, Clone)]
pub struct NewJournal {
    /// No other has it.
    pub id: JournalId,
    /// Its first stocks.
    pub listings: Vec<Listing>,
}

/// [`OpenOptions::commit_time_max`] of a catalog.
pub const COMMIT_TIME_MAX: Duration = Duration::from_secs(5);

/// Why a database was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Refused(#[from] PostgresError),
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// The writer's side. Never reconnects: what became of a commit that a connection broke under, the
/// next writer's load tells.
#[derive(Debug)]
pub struct PostgresStore {
    writer: Writer,
    journal: PostgresJournal,
    /// As it was when all was loaded.
    lease: WriterLease,
    /// Which server it is, and what that is to the one in which a catalog was healed last.
    server: Server,
    life: Life,
    /// What was then, until it is asked for.
    loaded: Option<Loaded>,
    unchecked: Option<Unchecked>,
    /// There was a journal before it was opened.
    was_there: bool,
    /// What the catalog before left, until it is asked for, and what this one leaves.
    left: Option<Vec<u8>>,
    leaves: Leaves,
    /// Whether there is a place for what standbys say, once that was looked for.
    has_callers: Option<bool>,
}

impl PostgresStore {
    /// Connects, makes the tables and a journal where they are missing, stands by until no other catalog writes, takes
    /// the writer's lease, and
    /// checks what there is: a small journal in full; of a large one its ends, and
    /// [`unchecked`](Self::unchecked) is for the rest. Either way no row is ever returned that does
    /// not continue the hash chain. `active` is told where the one that writes is reached.
    ///
    /// # Errors
    /// Where there is no such database, it would lose trades, or it is damaged.
    pub async fn open(
        options: OpenOptions,
        active: &watch::Sender<Option<String>>,
    ) -> Result<Self, OpenError> {
        let OpenOptions {
            url,
            allow_unreplicated,
            reached_at,
            new,
            commit_time_max,
            writer_lease,
            callers,
            rules,
        } = options;
        let none = || PostgresError::NoJournal(url.to_string());
        tracing::info!(store = %url, "standing by for the writer's lease");
        let standby = Standby {
            url: &url,
            allow_unreplicated,
            reached_at: &reached_at,
            new: new.is_some(),
            time_max: commit_time_max,
            lease: writer_lease,
            callers: &callers,
            rules,
            active,
        };
        let Taken {
            mut connection,
            server,
            lease,
            term,
            beat,
            life,
        } = standby.take_over().await?;
        // No sign of life goes out meanwhile, so it is not to take long; and a server that stands still breaks no connection.
        let time_max = 2 * commit_time_max;
        let begun = Begun::with(&mut connection, term, new, commit_time_max);
        let begun = tokio::time::timeout(time_max, begun).await;
        let begun = begun.unwrap_or_else(|_| {
            let problem = format!("no answer within {time_max:?} after this catalog took over");
            Err(StorageError::Server(problem))
        })?;
        let Begun {
            journal,
            was_there,
            statements,
            refused_last,
            left,
        } = begun.ok_or_else(none)?;
        let readers = PostgresJournal::new(url, term, server.clone());
        let mut store = Self {
            journal: readers.clone(),
            writer: Writer {
                refused_last,
                connection,
                statements,
                term,
                beat: beat + i64::from(!was_there), // which is the beginning
                allow_unreplicated,
                is_silent: false,
                journal,
            },
            lease,
            server,
            life,
            loaded: None,
            unchecked: None,
            was_there,
            left: left.filter(|_| life == Life::Same),
            leaves: Leaves::default(),
            has_callers: None,
        };
        let reading = async {
            let loading = async {
                // On a connection of its own: a beat would wait for what is under way on the writer's.
                let connection = readers.connection().await?;
                let client = &connection.client;
                let loaded = Loaded {
                    may_lack_rows: life == Life::Another,
                    is_unbroken: life == Life::Same,
                    ..load(client, term, journal).await?
                };
                let audit = {
                    let (listings, stocks) = (listings(client).await?, stocks(client).await?);
                    Audit::new(listings, stocks, loaded.state.leadership().end)?
                };
                let rows = loaded.state.leadership().end.rows.0;
                if (SMALL_ROWS + 1..=SUMMED_ROWS).contains(&rows) {
                    let compared = compare_sums(client, audit.clone()).await;
                    // Where the term is over by now, what was read is not of one moment.
                    read::rows(client, term, RowNumber(0), 1).await?;
                    compared?;
                }
                Ok((loaded, audit))
            };
            let loading = tokio::time::timeout(LOAD_TIME_MAX, loading).await;
            let (loaded, audit) = loading.unwrap_or_else(|_| Err(late(LOAD_TIME_MAX)))?;
            let mut unchecked = Unchecked {
                audit,
                next: RowNumber(0),
                end: loaded.state.leadership().end.rows,
                journal: readers.clone(),
            };
            if unchecked.end.0 > SMALL_ROWS {
                return Ok((loaded, Some(unchecked)));
            }
            while unchecked.check_more().await? {}
            unchecked.audit.finish()?;
            Ok((loaded, None))
        };
        let (loaded, unchecked) = match store.beat_while(reading).await {
            Ok(read) => read,
            Err(error) => {
                // Another one may do better; without this it waits for a lease.
                let _ = tokio::time::timeout(RELEASE_TIME_MAX, store.close()).await;
                return Err(error.into());
            }
        };
        store.loaded = Some(loaded);
        store.unchecked = unchecked;
        store.lease.loaded();
        Ok(store)
    }

    /// However long it takes to load, nobody takes over meanwhile.
    async fn beat_while<T>(
        &mut self,
        reading: impl Future<Output = Result<T, StorageError>>,
    ) -> Result<T, StorageError> {
        let mut reading = pin!(tokio::time::timeout(CHECK_TIME_MAX, reading));
        loop {
            let wake = self.lease.wake().unwrap_or_default();
            tokio::select! {
                biased;
                read = &mut reading => {
                    return read.unwrap_or_else(|_| Err(late(CHECK_TIME_MAX)));
                }
                () = tokio::time::sleep(wake.since(BootTime::now())) => {}
            }
            if let Some(WriterStep::Beat(_)) = self.lease.next(BootTime::now()) {
                self.writer.beat().await?;
                self.lease.told(StatementOutcome::Durable, BootTime::now());
            }
        }
    }

    /// Begins a journal in a database that has none, and lets go of it. Where there is one, or another catalog begins
    /// one, nothing is done.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn begin(options: OpenOptions) -> Result<(), OpenError> {
        let wanted = Wanted::Writable {
            allow_unreplicated: options.allow_unreplicated,
            seen: None,
        };
        let (connection, _) = Connection::open(&options.url, &wanted).await?;
        let has_tables = schema::version(&connection.client).await?.is_some();
        if has_tables && journal_id(&connection.client).await?.is_some() {
            return Ok(());
        }
        let active = watch::Sender::default();
        let mut opened = pin!(Self::open(options, &active));
        loop {
            tokio::select! {
                opened = &mut opened => return Ok(opened?.close().await?),
                () = tokio::time::sleep(BEGUN_INTERVAL) => {}
            }
            let has_tables = schema::version(&connection.client).await?.is_some();
            if has_tables && journal_id(&connection.client).await?.is_some() {
                return Ok(());
            }
        }
    }

    /// What is left to read of a large journal as it was opened.
    pub fn unchecked(&mut self) -> Option<Unchecked> {
        self.unchecked.take()
    }

    /// Reads its journal, beside the writer.
    pub fn journal(&self) -> PostgresJournal {
        self.journal.clone()
    }

    /// What the catalog before this one left as it let go, where nothing can have been lost of the database since.
    pub fn take_left(&mut self) -> Option<Vec<u8>> {
        self.left.take()
    }

    /// Where to put what is left to the next one when this is [closed](Store::close).
    pub fn leaves(&self) -> Leaves {
        Arc::clone(&self.leaves)
    }

    /// Whether it was opened with a journal in it, rather than with one that was begun.
    pub fn was_there(&self) -> bool {
        self.was_there
    }

    fn client(&self) -> &Client {
        &self.writer.connection.client
    }
}

/// What a term goes on with that was just taken.
struct Begun {
    journal: JournalId,
    /// There was one.
    was_there: bool,
    statements: Statements,
    /// The last order that was refused, by its id.
    refused_last: i64,
    /// What the catalog before left.
    left: Option<Vec<u8>>,
}

impl Begun {
    /// Begins a journal where there is none, and the term's statements. Without a `new` one the term is given back, and there is
    /// nothing.
    async fn with(
        connection: &mut Connection,
        term: i64,
        new: Option<NewJournal>,
        commit_time_max: Duration,
    ) -> Result<Option<Self>, StorageError> {
        let found = journal_id(&connection.client).await?;
        let journal = match (found, new) {
            (Some(journal), _) => journal,
            (None, Some(new)) => {
                begin(connection, term, &new).await?;
                new.id
            }
            (None, None) => {
                lease::release(&connection.client, term).await?;
                return Ok(None);
            }
        };
        let client = &connection.client;
        let statements = Statements::prepare(client, commit_time_max).await?;
        let last = "SELECT coalesce(max(id), 0) FROM refused";
        let last = client.query_one(last, &[]).await.map_err(of_read)?;
        Ok(Some(Self {
            journal,
            was_there: found.is_some(),
            statements,
            refused_last: get(&last, 0)?,
            left: limits::read(client, term).await?,
        }))
    }
}

#[async_trait]
impl Store for PostgresStore {
    fn system(&self) -> &'static str {
        "postgresql"
    }

    async fn load(&mut self) -> Result<Loaded, StorageError> {
        match self.loaded.take() {
            Some(loaded) => Ok(loaded),
            None => load(self.client(), self.writer.term, self.writer.journal).await,
        }
    }

    async fn find_keys(
        &mut self,
        keys: &[&IdempotencyKey],
    ) -> Result<Vec<Option<PriorOutcome>>, StorageError> {
        self.writer.find_keys(keys).await
    }

    async fn commit(&mut self, batch: &Batch) -> Result<(), StorageError> {
        self.writer.commit(batch).await
    }

    fn writer_lease(&self) -> Option<WriterLease> {
        Some(self.lease.clone())
    }

    async fn beat(&mut self) -> Result<(), StorageError> {
        self.writer.beat().await
    }

    async fn raise_protocol(&mut self, protocol: Protocol) -> Result<(), StorageError> {
        let raised = protocol::raise(&mut self.writer, protocol);
        let raised = tokio::time::timeout(COMMIT_TIME_MAX, raised).await;
        self.has_callers = None; // it may have come with it
        raised.unwrap_or_else(|_| {
            let problem = format!("it was not raised within {COMMIT_TIME_MAX:?}");
            Err(StorageError::Ambiguous(problem))
        })
    }

    async fn standby_callers(&mut self) -> Result<Option<SaidCallers>, StorageError> {
        let (client, known) = (&self.writer.connection.client, self.has_callers);
        let reading = async {
            let has_callers = match known {
                Some(has_callers) => has_callers,
                None => schema::has_callers(client)
                    .await
                    .map_err(|error| StorageError::Server(error.to_string()))?,
            };
            let said = match has_callers {
                true => Some(callers::read(client).await?),
                false => None,
            };
            Ok::<_, StorageError>((has_callers, said))
        };
        let read = tokio::time::timeout(COMMIT_TIME_MAX, reading).await;
        let Ok(read) = read else {
            // Good for no commit either: the next beat ends the process.
            self.writer.is_silent = true;
            return Err(late(COMMIT_TIME_MAX));
        };
        let (has_callers, said) = read?;
        self.has_callers = Some(has_callers);
        Ok(said)
    }

    async fn note_healed(&mut self) -> Result<(), StorageError> {
        if self.life == Life::Same {
            return Ok(()); // the row says so
        }
        let noted = lease::note_healed(self.client(), self.writer.term, &self.server);
        let noted = tokio::time::timeout(COMMIT_TIME_MAX, noted).await;
        noted.unwrap_or_else(|_| Err(late(COMMIT_TIME_MAX)))?;
        self.life = Life::Same;
        Ok(())
    }

    async fn close(&mut self) -> Result<(), StorageError> {
        let (client, term) = (self.client(), self.writer.term);
        let leaves = self
            .leaves
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(leaves) = leaves {
            match limits::release_leaving(client, term, &leaves).await {
                Ok(true) => return Ok(()),
                Ok(false) => {} // the protocol was not raised yet
                Err(error) => {
                    tracing::warn!(%error, "cannot leave limits to the next catalog: they will begin empty");
                }
            }
        }
        lease::release(client, term).await
    }
}

fn late(time_max: Duration) -> StorageError {
    StorageError::Server(format!("it was not read within {time_max:?}"))
}

/// Which journal there is, if there is one.
async fn journal_id(client: &Client) -> Result<Option<JournalId>, StorageError> {
    let sql = "SELECT journal FROM identity";
    let row = match client.query_opt(sql, &[]).await {
        // Tables are made one after the other: whoever begins it has not come to this one yet.
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => None,
        row => row.map_err(of_read)?,
    };
    let id = row.map(|row| Ok::<_, StorageError>(JournalId::try_from(get::<&[u8]>(&row, 0)?)?));
    id.transpose()
}

/// All that a catalog goes on with.
async fn load(client: &Client, term: i64, journal: JournalId) -> Result<Loaded, StorageError> {
    let listing = stocks::digest(&listings(client).await?);
    check_identity(client, journal, &listing).await?;
    let (end, leadership) = head(client, term, journal).await?;
    let stocks = stocks(client).await?;
    // All of it is of this term: another server's, or another catalog's, is not.
    read::rows(client, term, end.rows, 1).await?;
    Ok(Loaded {
        journal,
        listing,
        state: CatalogState::new(stocks, end, leadership),
        protocol: protocol::read(client).await?,
        sessions_out: None, // theirs are over before the writer's own
        may_lack_rows: false,
        is_unbroken: false,
    })
}

/// Whether these are the stocks that the journal began with.
async fn check_identity(
    client: &Client,
    journal: JournalId,
    listing: &ListingDigest,
) -> Result<(), StorageError> {
    let sql = "SELECT journal, checksum FROM identity";
    let row = client.query_one(sql, &[]).await.map_err(of_read)?;
    of_identity(journal, listing).check(Some(get(&row, 1)?))
}

/// Where the journal ends, and who leads.
async fn head(
    client: &Client,
    term: i64,
    journal: JournalId,
) -> Result<(LedgerEnd, Term), StorageError> {
    let (end, last) = read::end(client, term).await?;
    let leadership = leadership(client, journal).await?;
    match last.is_some_and(|row| row.epoch > leadership.epoch) {
        true => Err(StorageError::Damaged(format!(
            "its journal has rows of a later epoch than {}",
            leadership.epoch
        ))),
        false => Ok((end, leadership)),
    }
}

async fn leadership(client: &Client, journal: JournalId) -> Result<Term, StorageError> {
    let sql = "SELECT epoch, leader, change, in_sync, checksum FROM leadership";
    let row = client.query_one(sql, &[]).await.map_err(of_read)?;
    let none = |replica| StorageError::Damaged(format!("there is no replica {replica}"));
    let replica = |id: i64| u32::try_from(id).map_err(|_| none(id));
    let in_sync: Vec<i64> = get(&row, 3)?;
    let in_sync: BTreeSet<ReplicaId> = in_sync
        .into_iter()
        .map(|id| ReplicaId::new(replica(id)?).ok_or_else(|| none(id)))
        .collect::<Result<_, _>>()?;
    let leader = replica(get(&row, 1)?)?;
    let term = checked_term(number(&row, 0)?, leader, number(&row, 2)?, in_sync)?;
    of_term(journal, &term).check(Some(get(&row, 4)?))?;
    Ok(term)
}

/// Whether the stocks are what the rows make of them, where these are what they were. The check of all rows says so
/// as well: where the server takes its time, nobody waits for this.
async fn compare_sums(client: &Client, mut audit: Audit) -> Result<(), StorageError> {
    let summing = async {
        let sql = format!(
            "SELECT {JOURNAL} FROM journal AS j WHERE j.stock_change IS NOT NULL ORDER BY j.number"
        );
        let mut listed: BTreeMap<StockName, i64> = BTreeMap::new();
        for row in client.query(&sql, &[]).await.map_err(of_read)? {
            let row = rows::journal_row(&row, 0)?;
            let Entry::StockChange(change) = &row.entry else {
                continue;
            };
            if let StockChangeKind::Add { .. } = change.kind {
                listed.insert(change.name.clone(), signed(row.number.0));
            }
            audit.take_change(change, row.number)?;
        }
        let names: Vec<&str> = listed.keys().map(StockName::as_str).collect();
        let numbers: Vec<i64> = listed.values().copied().collect();
        // What was traded before a stock was listed for the last time was of another one.
        let sql = "SELECT j.name, j.side, sum(j.quantity)::text, count(*) FROM journal AS j
            LEFT JOIN unnest($1::text[], $2::bigint[]) AS listed (name, number) ON listed.name = j.name
            WHERE j.stock_change IS NULL AND j.number > coalesce(listed.number, -1)
            GROUP BY j.name, j.side";
        client
            .query(sql, &[&names, &numbers])
            .await
            .map_err(of_read)
    };
    let Ok(sums) = tokio::time::timeout(SUM_TIME_MAX, summing).await else {
        tracing::warn!(
            "the stocks are compared with the journal beside the traffic: the database is slow"
        );
        return Ok(());
    };
    for sum in sums? {
        let (name, shares): (_, &str) = (StockName::new(get(&sum, 0)?)?, get(&sum, 2)?);
        let wrong = |_| StorageError::Damaged(format!("{name} was traded {shares} times"));
        let shares = shares.parse().map_err(wrong)?;
        if !audit.is_delisted(&name) {
            audit.take_sum(&name, side(get(&sum, 1)?)?, shares, number(&sum, 3)?)?;
        }
    }
    audit.finish()
}

async fn listings(client: &Client) -> Result<Vec<Listing>, StorageError> {
    let sql = "SELECT name, price, quantity FROM listing";
    let rows = client.query(sql, &[]).await.map_err(of_read)?;
    rows.iter().map(rows::listing).collect()
}

async fn stocks(client: &Client) -> Result<Vec<Stock>, StorageError> {
    let sql = "SELECT name, price, quantity, volume, version FROM stock";
    let rows = client.query(sql, &[]).await.map_err(of_read)?;
    rows.iter().map(rows::stock).collect()
}

/// Begins a journal with its first stocks: all of it or nothing.
async fn begin(
    connection: &mut Connection,
    term: i64,
    new: &NewJournal,
) -> Result<(), StorageError> {
    let NewJournal {
        id: journal,
        listings,
    } = new;
    let listing: ListingDigest = stocks::digest(listings);
    let names: Vec<&str> = listings
        .iter()
        .map(|listing| listing.name.as_str())
        .collect();
    let prices: Vec<i64> = listings
        .iter()
        .map(|listing| signed(listing.price.minor()))
        .collect();
    let quantities: Vec<i64> = listings
        .iter()
        .map(|listing| signed(listing.quantity))
        .collect();
    connection.take_warning(); // of before
    let transaction = connection.client.transaction().await.map_err(of_read)?;
    let locked = transaction.execute(schema::LOCK_WRITER, &[]).await;
    locked.map_err(of_read)?;
    let fence = "UPDATE writer SET beat = beat + 1 WHERE term = $1";
    if transaction
        .execute(fence, &[&term])
        .await
        .map_err(of_read)?
        == 0
    {
        let over = format!("the writer's term {term} is over");
        return Err(StorageError::Fenced(over));
    }
    let identity = of_identity(*journal, &listing).finish();
    let first_term = of_term(*journal, &Term::default()).finish();
    let statements: [(&str, &[&(dyn tokio_postgres::types::ToSql + Sync)]); 4] = [
        (
            "INSERT INTO stock SELECT name, price, quantity, 0, 1
             FROM unnest($1::text[], $2::bigint[], $3::bigint[]) AS new (name, price, quantity)",
            &[&names, &prices, &quantities],
        ),
        (
            "INSERT INTO listing SELECT name, price, quantity FROM stock",
            &[],
        ),
        (
            "INSERT INTO identity VALUES (0, $1, $2)",
            &[&journal.as_bytes().as_slice(), &identity.as_slice()],
        ),
        (
            "INSERT INTO leadership VALUES (0, 0, 0, 0, '{}', $1)",
            &[&first_term.as_slice()],
        ),
    ];
    for (sql, values) in statements {
        transaction.execute(sql, values).await.map_err(of_read)?;
    }
    protocol::note(&transaction, Protocol::NEWEST).await?;
    transaction.commit().await.map_err(of_commit)?;
    if let Some(warning) = connection.take_warning() {
        return Err(StorageError::Ambiguous(warning)); // it may not be on any standby
    }
    tracing::info!(%journal, stocks = listings.len(), "began a journal");
    Ok(())
}

/// A journal that is being read in full, as it was when it was opened.
#[derive(Debug)]
pub struct Unchecked {
    audit: Audit,
    /// Where to go on.
    next: RowNumber,
    /// How many it had when it was opened.
    end: RowNumber,
    journal: PostgresJournal,
}

impl Unchecked {
    /// Reads the whole journal beside the catalog's work, with pauses that leave the server to others.
    ///
    /// # Errors
    /// [`StorageError::Damaged`] at the first row that is not as it was written, or where the stocks
    /// are not what the journal made of their listings.
    pub async fn check(mut self) -> Result<(), StorageError> {
        let mut is_waiting = false;
        loop {
            match self.check_more().await {
                Ok(true) => {
                    is_waiting = false;
                    tokio::time::sleep(CHECK_PAUSE).await;
                }
                Ok(false) => return self.audit.finish(),
                Err(StorageError::Server(problem)) => {
                    if !std::mem::replace(&mut is_waiting, true) {
                        tracing::warn!(problem, next = %self.next, "the check of the journal waits for the database");
                    }
                    tokio::time::sleep(CHECK_RETRY).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads some more of it; returns whether there was any.
    async fn check_more(&mut self) -> Result<bool, StorageError> {
        if self.next >= self.end {
            return Ok(false);
        }
        let left = usize::try_from(self.end.0 - self.next.0).unwrap_or(usize::MAX);
        let rows = self.journal.rows(self.next, left.min(CHUNK_ROWS)).await?;
        let last = rows.last().ok_or_else(|| missing(self.next))?;
        self.next = last.number.next();
        self.audit.take(&rows)?;
        Ok(true)
    }
}
