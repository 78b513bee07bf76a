//! What is read: rows of the journal, none of which is returned that does not continue the chain.

use std::collections::HashMap;

use domain::{ChainHash, IdempotencyKey, JournalId, LedgerEnd, Row, RowNumber};
use storage::StorageError;
use storage::rows::{RowsFrom, missing};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Statement};

use super::error::of_read;
use super::rows::{JOURNAL, JOURNAL_COLUMNS, REFUSED, get, journal_row, refused};
use catalog_core::PriorOutcome;

/// At most `rows_max` rows from a number on, in number order and without gaps; none where the
/// journal ends before it.
///
/// # Errors
/// [`StorageError::Damaged`] where one of them, or the one before them, is missing or not as it
/// was written; [`StorageError::Fenced`] where the term is over.
pub(super) async fn rows(
    client: &Client,
    term: i64,
    from: RowNumber,
    rows_max: usize,
) -> Result<Vec<Row>, StorageError> {
    let mut rows = RowsFrom::new(from, rows_max);
    let limit = i64::try_from(rows.limit()).unwrap_or(i64::MAX);
    let Ok(first) = i64::try_from(rows.next().0) else {
        return Ok(Vec::new()); // no number is so high
    };
    let sql = format!(
        "SELECT writer.term, {JOURNAL} FROM writer LEFT JOIN
            (SELECT * FROM journal WHERE number >= $1 ORDER BY number LIMIT $2) AS j ON true
         ORDER BY j.number"
    );
    let found = client
        .query_typed(&sql, &[(&first, Type::INT8), (&limit, Type::INT8)])
        .await
        .map_err(of_read)?;
    for row in &found {
        let now: i64 = get(row, 0)?;
        if now != term {
            return Err(StorageError::Fenced(format!(
                "the writer's term is {now}, no longer {term}"
            )));
        }
        if get::<Option<i64>>(row, 1)?.is_none() {
            break; // there are none
        }
        rows.take(journal_row(row, 1)?)?;
    }
    Ok(rows.into_rows())
}

/// Where the journal ends, and its last row. Looks at its first row and its last.
///
/// # Errors
/// As [`rows`].
pub(super) async fn end(
    client: &Client,
    term: i64,
) -> Result<(LedgerEnd, Option<Row>), StorageError> {
    // Also where there are none it says whether the term is over.
    rows(client, term, RowNumber(0), 1).await?;
    let last = client.query_one("SELECT max(number) FROM journal", &[]);
    let last: Option<i64> = get(&last.await.map_err(of_read)?, 0)?;
    let Some(last) = last else {
        return Ok((LedgerEnd::default(), None));
    };
    let last = RowNumber(u64::try_from(last).unwrap_or_default());
    let row = rows(client, term, last, 1).await?.pop();
    let row = row.ok_or_else(|| missing(last))?;
    Ok((LedgerEnd::of(&row), Some(row)))
}

/// What [`keys`] asks, on one connection.
#[derive(Debug)]
pub(super) struct KeyStatements {
    of_rows: Statement,
    of_refused: Statement,
}

impl KeyStatements {
    pub(super) async fn prepare(client: &Client) -> Result<Self, StorageError> {
        let prepare = |sql: String| async move {
            let prepared = client.prepare_typed(&sql, &[Type::TEXT_ARRAY]).await;
            prepared.map_err(of_read)
        };
        Ok(Self {
            of_rows: prepare(format!(
                "SELECT {JOURNAL}, before.chain FROM journal AS j
                 LEFT JOIN journal AS before ON before.number = j.number - 1
                 WHERE j.key = ANY($1)"
            ))
            .await?,
            of_refused: prepare(format!("SELECT {REFUSED} FROM refused WHERE key = ANY($1)"))
                .await?,
        })
    }
}

/// What keys were used for, in the order of the keys.
///
/// # Errors
/// [`StorageError::Damaged`] where one is not as it was written.
pub(super) async fn keys(
    client: &Client,
    statements: &KeyStatements,
    journal: JournalId,
    keys: &[&IdempotencyKey],
) -> Result<Vec<Option<PriorOutcome>>, StorageError> {
    let texts: Vec<&str> = keys.iter().map(|key| key.as_str()).collect();
    let texts: [&(dyn ToSql + Sync); 1] = [&texts];
    // One after the other on the way, and both under way at once.
    let (of_rows, of_refused) = tokio::try_join!(
        client.query(&statements.of_rows, &texts),
        client.query(&statements.of_refused, &texts),
    )
    .map_err(of_read)?;
    let mut known = HashMap::new();
    for row in &of_rows {
        let chain: Option<&[u8]> = get(row, JOURNAL_COLUMNS)?;
        let chain = chain.map(ChainHash::try_from).transpose()?;
        let row = journal_row(row, 0)?;
        let before = match (row.number, chain) {
            (RowNumber(0), None) => ChainHash::EMPTY,
            (RowNumber(1..), Some(chain)) => chain,
            (number, _) => return Err(missing(RowNumber(number.0.saturating_sub(1)))),
        };
        if !row.follows(&before) {
            return Err(StorageError::Damaged(format!(
                "row {} does not continue the hash chain",
                row.number
            )));
        }
        known.insert(row.entry.key().clone(), PriorOutcome::Row(row));
    }
    for row in &of_refused {
        let refused = refused(row, journal)?;
        known.insert(refused.entry.key().clone(), PriorOutcome::Refused(refused));
    }
    Ok(keys.iter().map(|key| known.get(*key).cloned()).collect())
}
