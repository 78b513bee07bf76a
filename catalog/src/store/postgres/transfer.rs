//! A journal as a whole: read beside the catalog that writes to it, and written into a database that has none.
//!
//! A reader sees what its writer was told is durable, and neither rows nor the stocks that the journal began with ever change:
//! so it reads them in small pieces, between which others are served, and takes no snapshot, which would keep the server from
//! clearing away what each commit leaves of the writer's row. The stocks as they are it does not read: rows make them.

use catalog_core::{RefusedOrder, Stock, Term};
use domain::{JournalId, LedgerEnd, ListingDigest, Protocol, Row, RowNumber};
use storage::StorageError;
use storage::rows::missing;
use tokio_postgres::types::{ToSql, Type};

use super::connection::{Connection, Wanted};
use super::error::{of_commit, of_read};
use super::read;
use super::rows::{REFUSED, REFUSED_ID, get, listing, refused, signed};
use super::server::Server;
use super::url::StoreUrl;
use super::write::{Elected, Refused, Rows, Stocks};
use super::{OpenError, PostgresError, check_identity, head, journal_id, protocol, schema};
use crate::stocks::{self, Listing};
use crate::store::checksums::of_identity;

/// How often another catalog may take over while a journal is read.
const TERMS_MAX: u32 = 16;

/// Orders that were refused, written at a time.
const REFUSED_CHUNK: usize = 4096;

/// A piece is found by an index, and not in all that there is, whatever the server takes a table for that it has not counted yet;
/// and what that makes dear is not to be compiled for it.
const PIECES: &str = "
    SET enable_seqscan = off;
    SET jit = off;
";

/// A database whose journal is read.
pub struct Source {
    connection: Connection,
    server: Server,
    term: i64,
    terms: u32,
    url: StoreUrl,
    pub journal: JournalId,
    /// Where it ended when it was opened.
    end: LedgerEnd,
    /// Who led then.
    pub leadership: Term,
    pub protocol: Protocol,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

impl Source {
    /// Reads where it ends and who leads, at the server of the newest history: one that was replaced and does not know
    /// that has rows, too.
    ///
    /// # Errors
    /// Where there is no journal, or it cannot be read.
    pub async fn open(url: &StoreUrl) -> Result<Self, OpenError> {
        let (connection, server) = connect(url, None).await?;
        let client = &connection.client;
        let none = || PostgresError::NoJournal(url.to_string());
        if schema::version(client).await?.is_none() {
            return Err(none().into());
        }
        let journal = journal_id(client).await?.ok_or_else(none)?;
        let term = term(client).await?;
        let (end, leadership) = head(client, term, journal).await?;
        let protocol = protocol::read(client).await?;
        // All of it is of this term: another server's, or another catalog's, is not.
        read::rows(client, term, end.rows, 1).await?;
        Ok(Self {
            connection,
            server,
            term,
            terms: 1,
            url: url.clone(),
            journal,
            end,
            leadership,
            protocol,
        })
    }

    /// Where the journal ended when it was opened.
    pub fn end(&self) -> LedgerEnd {
        self.end
    }

    /// So many of the stocks that it began with, after one of them by name, in the order of their names.
    ///
    /// # Errors
    /// Where they cannot be read.
    pub async fn listings(&mut self, after: &str, count: usize) -> Result<Vec<Listing>, OpenError> {
        loop {
            match listings(&self.connection.client, after, count).await {
                Ok(listings) => return Ok(listings),
                Err(StorageError::Server(_)) if self.terms < TERMS_MAX => self.follow().await?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Whether these are all the stocks that it began with, and their digest.
    ///
    /// # Errors
    /// [`StorageError::Damaged`] where they are not.
    pub async fn check_listings(
        &self,
        listings: &[Listing],
    ) -> Result<ListingDigest, StorageError> {
        let digest = stocks::digest(listings);
        check_identity(&self.connection.client, self.journal, &digest).await?;
        Ok(digest)
    }

    /// So many rows from a number on, whichever catalog writes meanwhile.
    ///
    /// # Errors
    /// Where there are not so many, or they cannot be read.
    pub async fn rows(&mut self, from: RowNumber, count: usize) -> Result<Vec<Row>, OpenError> {
        loop {
            match read::rows(&self.connection.client, self.term, from, count).await {
                Ok(rows) if rows.len() == count => return Ok(rows),
                Ok(_) => return Err(missing(from).into()),
                Err(StorageError::Fenced(_) | StorageError::Server(_))
                    if self.terms < TERMS_MAX =>
                {
                    self.follow().await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Another catalog writes, or another server serves.
    async fn follow(&mut self) -> Result<(), OpenError> {
        let terms = self.terms + 1;
        let (connection, server) = connect(&self.url, Some(self.server.clone())).await?;
        let journal = journal_id(&connection.client).await?;
        if journal != Some(self.journal) {
            let other = StorageError::Server("the database has another journal by now".into());
            return Err(other.into());
        }
        self.term = term(&connection.client).await?;
        (self.connection, self.server, self.terms) = (connection, server, terms);
        Ok(())
    }

    /// So many orders that were refused, after one of them by its id; in the order in which they were.
    ///
    /// # Errors
    /// Where they cannot be read.
    pub async fn refused(
        &self,
        after: i64,
        count: usize,
    ) -> Result<Vec<(i64, RefusedOrder)>, StorageError> {
        let sql = format!("SELECT {REFUSED} FROM refused WHERE id > $1 ORDER BY id LIMIT $2");
        let client = &self.connection.client;
        let count = limit(count);
        let found = client
            .query_typed(&sql, &[(&after, Type::INT8), (&count, Type::INT8)])
            .await
            .map_err(of_read)?;
        let one = |row: &tokio_postgres::Row| {
            let id = get(row, REFUSED_ID)?;
            Ok((id, refused(row, self.journal)?))
        };
        found.iter().map(one).collect()
    }
}

/// To the server of the newest history, none that the one seen before has replaced.
async fn connect(url: &StoreUrl, seen: Option<Server>) -> Result<(Connection, Server), OpenError> {
    let (connection, server) = Connection::open(url, &Wanted::Newest { seen }).await?;
    let client = &connection.client;
    client.batch_execute(PIECES).await.map_err(of_read)?;
    Ok((connection, server))
}

/// See [`Source::listings`].
async fn listings(
    client: &tokio_postgres::Client,
    after: &str,
    count: usize,
) -> Result<Vec<Listing>, StorageError> {
    let sql = "SELECT name, price, quantity FROM listing WHERE name > $1 ORDER BY name LIMIT $2";
    let count = limit(count);
    let found = client
        .query_typed(sql, &[(&after, Type::TEXT), (&count, Type::INT8)])
        .await
        .map_err(of_read)?;
    found.iter().map(listing).collect()
}

fn limit(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

async fn term(client: &tokio_postgres::Client) -> Result<i64, StorageError> {
    let term = client.query_one("SELECT term FROM writer", &[]).await;
    get(&term.map_err(of_read)?, 0)
}

/// A journal that is to be written: all but its rows and what was refused.
#[derive(Debug)]
pub struct Head<'a> {
    pub journal: JournalId,
    pub protocol: Protocol,
    /// The stocks that it began with, and their digest.
    pub listings: &'a [Listing],
    pub identity: domain::ListingDigest,
    /// As they are now.
    pub stocks: &'a [Stock],
    pub term: Term,
}

/// A database that gets a journal: in one transaction, so that there is all of it or nothing.
pub struct Target {
    connection: Connection,
    system_identifier: String,
    allow_unreplicated: bool,
}

impl Target {
    /// Connects to a database without a journal, and makes the tables.
    ///
    /// # Errors
    /// Where it has one, or cannot be used.
    pub async fn open(url: &StoreUrl, allow_unreplicated: bool) -> Result<Self, OpenError> {
        let wanted = Wanted::Writable {
            allow_unreplicated,
            seen: None,
        };
        let (mut connection, server) = Connection::open(url, &wanted).await?;
        schema::version(&connection.client).await?;
        schema::migrate(&mut connection.client).await?;
        Ok(Self {
            connection,
            system_identifier: server.system_identifier,
            allow_unreplicated,
        })
    }

    /// Writes it. `rows` and `refused` are asked for chunks until there are no more.
    ///
    /// # Errors
    /// Where there is a journal, or the server refuses: then nothing is there. Where the answer to the commit is lost,
    /// nobody knows.
    pub async fn write(
        mut self,
        head: &Head<'_>,
        mut rows: impl FnMut() -> Result<Vec<Row>, StorageError>,
        refused: &[RefusedOrder],
    ) -> Result<(), OpenError> {
        self.connection.take_warning(); // of before
        let transaction = self
            .connection
            .client
            .transaction()
            .await
            .map_err(of_read)?;
        // Catalogs that stand by wait here.
        let locked = transaction.execute(schema::LOCK_WRITER, &[]).await;
        locked.map_err(of_read)?;
        let there = transaction.query_opt("SELECT FROM identity", &[]).await;
        if there.map_err(of_read)?.is_some() {
            return Err(PostgresError::Occupied.into());
        }
        let stocks: Vec<&Stock> = head.stocks.iter().collect();
        let stocks = Stocks::of(&stocks);
        let names: Vec<&str> = head.listings.iter().map(|it| it.name.as_str()).collect();
        let prices: Vec<i64> = head
            .listings
            .iter()
            .map(|it| signed(it.price.minor()))
            .collect();
        let quantities: Vec<i64> = head.listings.iter().map(|it| signed(it.quantity)).collect();
        let elected = Elected::of(Some(&head.term), head.journal);
        let identity = of_identity(head.journal, &head.identity).finish();
        // Whether the rows of this timeline are complete nobody knows: the first catalog asks the replicas.
        let statements: [(&str, &[&(dyn ToSql + Sync)]); 5] = [
            (
                "INSERT INTO stock SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[])",
                &[
                    &stocks.names,
                    &stocks.prices,
                    &stocks.quantities,
                    &stocks.volumes,
                    &stocks.versions,
                ],
            ),
            (
                "INSERT INTO listing SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[])",
                &[&names, &prices, &quantities],
            ),
            (
                "INSERT INTO leadership SELECT 0, $1, $2, $3, $4, $5",
                &[
                    &elected.epochs[0],
                    &elected.leaders[0],
                    &elected.changes[0],
                    &elected.in_sync,
                    &elected.checksums[0],
                ],
            ),
            (
                "UPDATE writer SET beat = beat + 1, system_identifier = $1, timeline = NULL",
                &[&self.system_identifier],
            ),
            (
                "INSERT INTO identity VALUES (0, $1, $2)",
                &[&head.journal.as_bytes().as_slice(), &identity.as_slice()],
            ),
        ];
        for (sql, values) in statements {
            transaction.execute(sql, values).await.map_err(of_read)?;
        }
        protocol::note(&transaction, head.protocol).await?;
        let insert = transaction
            .prepare(
                "INSERT INTO journal (number, epoch, key, name, side, quantity, price, chain, stock_changes, stock_change)
                 SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::bigint[],
                     $7::bigint[], $8::bytea[], $9::bigint[], $10::text[])",
            )
            .await
            .map_err(of_read)?;
        loop {
            let chunk = rows()?;
            if chunk.is_empty() {
                break;
            }
            let rows = Rows::of(&chunk);
            let values: [&(dyn ToSql + Sync); 10] = [
                &rows.numbers,
                &rows.epochs,
                &rows.keys,
                &rows.names,
                &rows.sides,
                &rows.quantities,
                &rows.prices,
                &rows.chains,
                &rows.stock_changes,
                &rows.changes,
            ];
            transaction
                .execute(&insert, &values)
                .await
                .map_err(of_read)?;
        }
        let mut last = 0;
        for chunk in refused.chunks(REFUSED_CHUNK) {
            let refused = Refused::of(chunk, head.journal, last);
            let values: [&(dyn ToSql + Sync); 9] = [
                &refused.ids,
                &refused.keys,
                &refused.names,
                &refused.sides,
                &refused.quantities,
                &refused.refusals,
                &refused.checksums,
                &refused.changes,
                &refused.of_stocks,
            ];
            let sql = "INSERT INTO refused (id, key, name, side, quantity, refusal, checksum, stock_change, stock_refusal)
                SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::text[],
                    $7::bytea[], $8::text[], $9::text[])";
            transaction.execute(sql, &values).await.map_err(of_read)?;
            last += signed(chunk.len() as u64);
        }
        transaction.commit().await.map_err(of_commit)?;
        match self.connection.take_warning() {
            Some(why) if !self.allow_unreplicated => Err(StorageError::Ambiguous(why).into()),
            _ => Ok(()),
        }
    }
}

/// Writes down beside a journal of what it was made: as the comment of its table `identity`, which standbys and dumps have as
/// well.
///
/// # Errors
/// Where the server refuses, as it does where another role owns the table.
pub async fn note_origin(
    url: &StoreUrl,
    allow_unreplicated: bool,
    origin: &str,
) -> Result<(), OpenError> {
    let wanted = Wanted::Writable {
        allow_unreplicated,
        seen: None,
    };
    let (connection, _) = Connection::open(url, &wanted).await?;
    let client = &connection.client;
    // The server quotes it: such a statement takes no values.
    let sql = "SELECT format('COMMENT ON TABLE identity IS %L', $1::text)";
    let statement = client.query_one(sql, &[&origin]).await.map_err(of_read)?;
    let statement: String = get(&statement, 0)?;
    client.batch_execute(&statement).await.map_err(of_read)?;
    Ok(())
}
