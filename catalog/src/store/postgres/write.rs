//! What the writer changes: one statement for a batch, whatever is in it.
//!
//! A statement is a transaction. It begins with the fence, on which all that it changes depends:
//! where another writer has begun, nothing of it takes effect.

use std::time::Duration;

use domain::{IdempotencyKey, JournalId, ReplicaId, Row};
use storage::StorageError;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Statement};

use super::connection::Connection;
use super::error::{of_commit, of_read};
use super::read;
use super::rows::{get, signed};
use crate::store::REFUSED_ORDERS_KEPT;
use crate::store::checksums::{of_refused, of_term};
use crate::store::listed;
use crate::store::words::{EntryColumns, refusal_columns};
use catalog_core::{Batch, PriorOutcome, RefusedOrder, Stock, Term};

/// The fence knows the beat as well as the term: a server that has not all that this writer committed, which
/// a fail-over behind a proxy may have put in the place of the one before, lets nothing through.
///
/// Divides by zero, which undoes the statement, where not all was changed that was to be. What the
/// fence kept out is not counted.
const COMMIT: &str = "
    WITH fence AS (
        UPDATE writer SET beat = beat + 1 WHERE term = $1 AND beat = $27 RETURNING beat
    ), added AS (
        INSERT INTO journal (number, epoch, key, name, side, quantity, price, chain, stock_changes, stock_change)
        SELECT new.* FROM fence, unnest($2, $3, $4, $5, $6, $7, $8, $9, $28, $29)
            AS new (number, epoch, key, name, side, quantity, price, chain, stock_changes, stock_change)
        RETURNING 1
    ), turned_away AS (
        INSERT INTO refused (id, key, name, side, quantity, refusal, checksum, stock_change, stock_refusal)
        SELECT new.* FROM fence, unnest($10, $11, $12, $13, $14, $15, $16, $30, $31)
            AS new (id, key, name, side, quantity, refusal, checksum, stock_change, stock_refusal)
        RETURNING 1
    ), forgotten AS (
        DELETE FROM refused WHERE id <= $17 AND EXISTS (SELECT 1 FROM fence)
    ), changed AS (
        UPDATE stock SET price = new.price, quantity = new.quantity, volume = new.volume, version = new.version
        FROM fence, unnest($18, $32, $19, $20, $21) AS new (name, price, quantity, volume, version)
        WHERE stock.name = new.name AND stock.version < new.version
        RETURNING 1
    ), listed AS (
        INSERT INTO stock (name, price, quantity, volume, version)
        SELECT new.* FROM fence, unnest($33, $34, $35, $36, $37) AS new (name, price, quantity, volume, version)
        ON CONFLICT (name) DO UPDATE SET price = excluded.price, quantity = excluded.quantity,
            volume = excluded.volume, version = excluded.version
        WHERE stock.version < excluded.version
        RETURNING 1
    ), delisted AS (
        DELETE FROM stock USING fence WHERE stock.name = ANY ($38) RETURNING 1
    ), gone AS (
        DELETE FROM stock USING fence WHERE stock.name = ANY ($39)
    ), elected AS (
        UPDATE leadership SET epoch = new.epoch, leader = new.leader, change = new.change,
            in_sync = $25, checksum = new.checksum
        FROM fence, unnest($22, $23, $24, $26) AS new (epoch, leader, change, checksum)
        RETURNING 1
    )
    SELECT EXISTS (SELECT 1 FROM fence), current_setting('fsync') = 'on',
        current_setting('synchronous_standby_names') <> '',
        CASE WHEN EXISTS (SELECT 1 FROM fence) THEN 1 / CASE
        WHEN (SELECT count(*) FROM added) = cardinality($2)
            AND (SELECT count(*) FROM turned_away) = cardinality($10)
            AND (SELECT count(*) FROM changed) = cardinality($18)
            AND (SELECT count(*) FROM listed) = cardinality($33)
            AND (SELECT count(*) FROM delisted) = cardinality($38)
            AND (SELECT count(*) FROM elected) = cardinality($22)
        THEN 1 ELSE 0 END END";

const COMMIT_TYPES: [Type; 39] = [
    Type::INT8, // the term
    Type::INT8_ARRAY,
    Type::INT8_ARRAY,
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
    Type::INT8_ARRAY,
    Type::INT8_ARRAY,
    Type::BYTEA_ARRAY,
    Type::INT8_ARRAY, // orders that were refused
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
    Type::INT8_ARRAY,
    Type::TEXT_ARRAY,
    Type::BYTEA_ARRAY,
    Type::INT8,       // the last of them to be forgotten
    Type::TEXT_ARRAY, // stocks
    Type::INT8_ARRAY,
    Type::INT8_ARRAY,
    Type::INT8_ARRAY,
    Type::INT8_ARRAY, // who leads: one, or none
    Type::INT8_ARRAY,
    Type::INT8_ARRAY,
    Type::INT8_ARRAY, // the in-sync set
    Type::BYTEA_ARRAY,
    Type::INT8,       // the beat before
    Type::INT8_ARRAY, // of new rows: how many before it change stocks
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY, // of what was refused
    Type::TEXT_ARRAY,
    Type::INT8_ARRAY, // prices of the stocks
    Type::TEXT_ARRAY, // stocks that are listed
    Type::INT8_ARRAY,
    Type::INT8_ARRAY,
    Type::INT8_ARRAY,
    Type::INT8_ARRAY,
    Type::TEXT_ARRAY, // stocks that are not any more
    Type::TEXT_ARRAY, // those that were listed in the same batch, and need not be there
];

const BEAT: &str = "
    UPDATE writer SET beat = beat + 1 WHERE term = $1 AND beat = $2
    RETURNING true, current_setting('fsync') = 'on', current_setting('synchronous_standby_names') <> ''";

/// Every table is asked by an index, or has one row. So the statements are planned once: planned anew each time, with the look-up
/// of its key, a lone trade took 4.2 ms rather than 2.6 (`tests/bench`). A plan that is made while a table is empty would read
/// it from end to end for ever after, where nobody says that this is dear; and what that makes dear is not to be
/// compiled for it.
const PLANS: &str = "
    SET plan_cache_mode = force_generic_plan;
    SET enable_seqscan = off;
    SET jit = off;
";

/// The writer's statements, on its connection.
#[derive(Debug)]
pub(super) struct Statements {
    commit: Statement,
    beat: Statement,
    keys: read::KeyStatements,
    /// After that a commit counts as lost. The server is not asked to cancel it: it would acknowledge
    /// what no standby has.
    time_max: Duration,
}

impl Statements {
    pub(super) async fn prepare(client: &Client, time_max: Duration) -> Result<Self, StorageError> {
        client.batch_execute(PLANS).await.map_err(of_read)?;
        let prepare = |sql, types| async move { client.prepare_typed(sql, types).await };
        Ok(Self {
            commit: prepare(COMMIT, &COMMIT_TYPES).await.map_err(of_read)?,
            beat: prepare(BEAT, &[Type::INT8, Type::INT8])
                .await
                .map_err(of_read)?,
            keys: read::KeyStatements::prepare(client).await?,
            time_max,
        })
    }
}

/// Who writes to which journal.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) statements: Statements,
    pub(super) term: i64,
    /// The last one that was acknowledged.
    pub(super) beat: i64,
    /// A server without a synchronous standby will do.
    pub(super) allow_unreplicated: bool,
    /// It did not answer in time, and is asked no more.
    pub(super) is_silent: bool,
    pub(super) journal: JournalId,
    /// The last id of an order that was refused.
    pub(super) refused_last: i64,
}

impl Writer {
    pub(super) async fn commit(&mut self, batch: &Batch) -> Result<(), StorageError> {
        let Batch {
            rows,
            refused,
            stocks: _,
            term,
        } = batch;
        let rows = Rows::of(rows);
        let refused_last = self.refused_last + refused.len() as i64;
        let refused = Refused::of(refused, self.journal, self.refused_last);
        let forgotten = match refused.ids.is_empty() {
            true => i64::MIN,
            false => refused_last.saturating_sub(signed(REFUSED_ORDERS_KEPT)),
        };
        let newly = listed(batch);
        let is_listed = |stock: &&Stock| stock.is_listed;
        let stocks = batch.stocks.iter().filter(is_listed);
        let (listed, changed): (Vec<_>, Vec<_>) =
            stocks.partition(|stock| newly.contains(&stock.name));
        let (listed, stocks) = (Stocks::of(&listed), Stocks::of(&changed));
        let delisted = batch.stocks.iter().filter(|stock| !stock.is_listed);
        let (gone, delisted): (Vec<&Stock>, Vec<&Stock>) =
            delisted.partition(|stock| newly.contains(&stock.name));
        let (gone, delisted) = (names(&gone), names(&delisted));
        let elected = Elected::of(term.as_ref(), self.journal);
        let values: [&(dyn ToSql + Sync); 39] = [
            &self.term,
            &rows.numbers,
            &rows.epochs,
            &rows.keys,
            &rows.names,
            &rows.sides,
            &rows.quantities,
            &rows.prices,
            &rows.chains,
            &refused.ids,
            &refused.keys,
            &refused.names,
            &refused.sides,
            &refused.quantities,
            &refused.refusals,
            &refused.checksums,
            &forgotten,
            &stocks.names,
            &stocks.quantities,
            &stocks.volumes,
            &stocks.versions,
            &elected.epochs,
            &elected.leaders,
            &elected.changes,
            &elected.in_sync,
            &elected.checksums,
            &self.beat,
            &rows.stock_changes,
            &rows.changes,
            &refused.changes,
            &refused.of_stocks,
            &stocks.prices,
            &listed.names,
            &listed.prices,
            &listed.quantities,
            &listed.volumes,
            &listed.versions,
            &delisted,
            &gone,
        ];
        let client = &self.connection.client;
        let committed = client.query(&self.statements.commit, &values);
        self.outcome(committed).await?;
        self.beat += 1;
        self.refused_last = refused_last;
        Ok(())
    }

    /// See [`read::keys`]. A connection that does not answer is good for no commit either: the next
    /// one, or the next beat, ends the process.
    pub(super) async fn find_keys(
        &mut self,
        keys: &[&IdempotencyKey],
    ) -> Result<Vec<Option<PriorOutcome>>, StorageError> {
        let statements = &self.statements.keys;
        let found = read::keys(&self.connection.client, statements, self.journal, keys);
        let found = tokio::time::timeout(self.statements.time_max, found).await;
        found.unwrap_or_else(|_| {
            self.is_silent = true;
            let problem = format!("no answer within {:?}", self.statements.time_max);
            Err(StorageError::Server(problem))
        })
    }

    pub(super) async fn beat(&mut self) -> Result<(), StorageError> {
        let client = &self.connection.client;
        let values: [&(dyn ToSql + Sync); 2] = [&self.term, &self.beat];
        let beaten = client.query(&self.statements.beat, &values);
        self.outcome(beaten).await?;
        self.beat += 1;
        Ok(())
    }

    /// What was so when the database was opened may be changed while it serves.
    pub(super) fn check_settings(
        &self,
        is_synced: bool,
        is_replicated: bool,
    ) -> Result<(), StorageError> {
        let lost = |what: &str| Err(StorageError::Ambiguous(what.into()));
        if !is_synced {
            lost(
                "fsync was switched off: what is committed now may be lost with the database's machine",
            )
        } else if !is_replicated && !self.allow_unreplicated {
            lost(
                "synchronous_standby_names was emptied: what is committed now is on one machine alone (Patroni does \
                 that when the last standby is gone, unless synchronous_mode_strict is on)",
            )
        } else {
            Ok(())
        }
    }

    /// What became of a statement, once the server says that its transaction is over, and not before.
    async fn outcome(
        &self,
        statement: impl Future<Output = Result<Vec<tokio_postgres::Row>, tokio_postgres::Error>>,
    ) -> Result<(), StorageError> {
        if self.is_silent {
            let problem = "the database does not answer";
            return Err(StorageError::Ambiguous(problem.into()));
        }
        self.connection.take_warning(); // of before: it says nothing of this one
        let done = tokio::time::timeout(self.statements.time_max, statement).await;
        let Ok(done) = done else {
            return Err(StorageError::Ambiguous(format!(
                "no answer within {:?}",
                self.statements.time_max
            )));
        };
        let rows = done.map_err(of_commit)?;
        if let Some(warning) = self.connection.take_warning() {
            return Err(StorageError::Ambiguous(warning));
        }
        // A statement says whether the fence let it through; a beat says nothing where it did not.
        let row = rows
            .first()
            .filter(|row| row.try_get(0).is_ok_and(|held: bool| held));
        let Some(row) = row else {
            return Err(StorageError::Fenced(format!(
                "the writer's term {} is over, or the database has not all that it acknowledged in it",
                self.term
            )));
        };
        let (is_synced, is_replicated) = (get(row, 1)?, get(row, 2)?);
        self.check_settings(is_synced, is_replicated)
    }
}

/// Columns of new rows.
pub(super) struct Rows<'a> {
    pub(super) numbers: Vec<i64>,
    pub(super) epochs: Vec<i64>,
    pub(super) keys: Vec<&'a str>,
    pub(super) names: Vec<&'a str>,
    pub(super) sides: Vec<&'a str>,
    pub(super) quantities: Vec<i64>,
    pub(super) prices: Vec<i64>,
    pub(super) chains: Vec<&'a [u8]>,
    pub(super) stock_changes: Vec<i64>,
    pub(super) changes: Vec<Option<String>>,
}

impl<'a> Rows<'a> {
    pub(super) fn of(rows: &'a [Row]) -> Self {
        let entries: Vec<_> = rows
            .iter()
            .map(|row| EntryColumns::of(&row.entry))
            .collect();
        Self {
            numbers: rows.iter().map(|row| signed(row.number.0)).collect(),
            epochs: rows.iter().map(|row| signed(row.epoch.0)).collect(),
            keys: rows.iter().map(|row| row.entry.key().as_str()).collect(),
            names: rows.iter().map(|row| row.entry.name().as_str()).collect(),
            sides: entries.iter().map(|entry| entry.side).collect(),
            quantities: entries.iter().map(|entry| signed(entry.quantity)).collect(),
            stock_changes: rows.iter().map(|row| signed(row.stock_changes)).collect(),
            changes: entries
                .into_iter()
                .map(|entry| entry.stock_change)
                .collect(),
            prices: rows.iter().map(|row| signed(row.price.minor())).collect(),
            chains: rows
                .iter()
                .map(|row| row.chain.as_bytes().as_slice())
                .collect(),
        }
    }
}

/// Columns of orders that are refused.
pub(super) struct Refused<'a> {
    pub(super) ids: Vec<i64>,
    pub(super) keys: Vec<&'a str>,
    pub(super) names: Vec<&'a str>,
    pub(super) sides: Vec<&'a str>,
    pub(super) quantities: Vec<i64>,
    pub(super) refusals: Vec<&'a str>,
    pub(super) checksums: Vec<Vec<u8>>,
    pub(super) changes: Vec<Option<String>>,
    pub(super) of_stocks: Vec<Option<&'a str>>,
}

impl<'a> Refused<'a> {
    pub(super) fn of(refused: &'a [RefusedOrder], journal: JournalId, last: i64) -> Self {
        let entries = || refused.iter().map(|refused| &refused.entry);
        let columns: Vec<_> = entries().map(EntryColumns::of).collect();
        let refusals = || refused.iter().map(refusal_columns);
        let checksum = |refused| of_refused(journal, refused).finish().to_vec();
        Self {
            ids: (last + 1..).take(refused.len()).collect(),
            keys: entries().map(|entry| entry.key().as_str()).collect(),
            names: entries().map(|entry| entry.name().as_str()).collect(),
            sides: columns.iter().map(|entry| entry.side).collect(),
            quantities: columns.iter().map(|entry| signed(entry.quantity)).collect(),
            refusals: refusals().map(|(refusal, _)| refusal).collect(),
            of_stocks: refusals().map(|(_, of_stock)| of_stock).collect(),
            checksums: refused.iter().map(checksum).collect(),
            changes: columns
                .into_iter()
                .map(|entry| entry.stock_change)
                .collect(),
        }
    }
}

fn names<'a>(stocks: &[&'a Stock]) -> Vec<&'a str> {
    stocks.iter().map(|stock| stock.name.as_str()).collect()
}

/// Columns of stocks as they are then.
pub(super) struct Stocks<'a> {
    pub(super) names: Vec<&'a str>,
    pub(super) prices: Vec<i64>,
    pub(super) quantities: Vec<i64>,
    pub(super) volumes: Vec<i64>,
    pub(super) versions: Vec<i64>,
}

impl<'a> Stocks<'a> {
    pub(super) fn of(stocks: &[&'a Stock]) -> Self {
        Self {
            names: names(stocks),
            prices: stocks
                .iter()
                .map(|stock| signed(stock.price.minor()))
                .collect(),
            quantities: stocks.iter().map(|stock| signed(stock.quantity)).collect(),
            volumes: stocks.iter().map(|stock| signed(stock.volume)).collect(),
            versions: stocks.iter().map(|stock| signed(stock.version.0)).collect(),
        }
    }
}

/// Columns of the new term, if there is one.
pub(super) struct Elected {
    pub(super) epochs: Vec<i64>,
    pub(super) leaders: Vec<i64>,
    pub(super) changes: Vec<i64>,
    pub(super) in_sync: Vec<i64>,
    pub(super) checksums: Vec<Vec<u8>>,
}

impl Elected {
    pub(super) fn of(term: Option<&Term>, journal: JournalId) -> Self {
        let leader = |term: &Term| i64::from(term.leader.map_or(0, ReplicaId::get));
        let in_sync = term.iter().flat_map(|term| &term.in_sync);
        Self {
            epochs: term.iter().map(|term| signed(term.epoch.0)).collect(),
            leaders: term.iter().map(|term| leader(term)).collect(),
            changes: term.iter().map(|term| signed(term.change.get())).collect(),
            in_sync: in_sync.map(|replica| i64::from(replica.get())).collect(),
            checksums: term
                .iter()
                .map(|term| of_term(journal, term).finish().to_vec())
                .collect(),
        }
    }
}
