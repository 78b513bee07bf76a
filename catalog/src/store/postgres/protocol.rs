//! Which version of the protocol the bazaar is at.

use domain::{JournalId, Protocol};
use storage::StorageError;
use tokio_postgres::{Client, GenericClient, Transaction};

use super::error::{of_commit, of_read};
use super::rows::{get, number};
use super::schema;
use crate::store::checksums::of_protocol;

/// The version; the first where none is noted.
pub(super) async fn read(
    client: &impl GenericClient,
    journal: JournalId,
) -> Result<Protocol, StorageError> {
    let sql = "SELECT count(*) FROM information_schema.tables
        WHERE table_schema = current_schema() AND table_name = 'protocol'";
    let tables = client.query_one(sql, &[]).await.map_err(of_read)?;
    if get::<i64>(&tables, 0)? == 0 {
        return Ok(Protocol::FIRST);
    }
    let sql = "SELECT version, checksum FROM protocol";
    let Some(row) = client.query_opt(sql, &[]).await.map_err(of_read)? else {
        return Ok(Protocol::FIRST);
    };
    let protocol = crate::store::protocol(number(&row, 0)?)?;
    of_protocol(journal, protocol).check(Some(get(&row, 1)?))?;
    Ok(protocol)
}

/// Notes it, where it is above what is noted, and makes what it keeps: while the writer's term is that one.
pub(super) async fn raise(
    client: &mut Client,
    term: i64,
    journal: JournalId,
    protocol: Protocol,
) -> Result<(), StorageError> {
    let transaction = client.transaction().await.map_err(of_read)?;
    // Nobody takes over before this is committed.
    let fence = "SELECT FROM writer WHERE term = $1 FOR UPDATE";
    let held = transaction.query_opt(fence, &[&term]).await;
    if held.map_err(of_read)?.is_none() {
        let over = format!("the writer's term {term} is over");
        return Err(StorageError::Fenced(over));
    }
    note(&transaction, journal, protocol).await?;
    transaction.commit().await.map_err(of_commit)
}

/// The same in the caller's transaction.
pub(super) async fn note(
    transaction: &Transaction<'_>,
    journal: JournalId,
    protocol: Protocol,
) -> Result<(), StorageError> {
    let refused = |error: super::PostgresError| StorageError::Server(error.to_string());
    schema::add_gated(transaction).await.map_err(refused)?;
    if protocol > read(transaction, journal).await? {
        let checksum = of_protocol(journal, protocol).finish();
        let sql = "INSERT INTO protocol VALUES (0, $1, $2)
            ON CONFLICT (only_row) DO UPDATE SET version = $1, checksum = $2";
        let version = i64::from(protocol.get());
        let noted = transaction
            .execute(sql, &[&version, &checksum.as_slice()])
            .await;
        noted.map_err(of_read)?;
    }
    Ok(())
}
