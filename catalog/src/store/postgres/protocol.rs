//! Which version of the protocol the bazaar is at.

use domain::Protocol;
use storage::StorageError;
use tokio_postgres::{Client, Transaction};

use super::error::{PostgresError, of_commit, of_read};
use super::rows::{get, number};
use super::schema;
use super::write::Writer;

/// The version; the first where there is no place for it.
pub(super) async fn read(client: &Client) -> Result<Protocol, StorageError> {
    if !schema::has_protocol(client).await.map_err(refused)? {
        return Ok(Protocol::FIRST);
    }
    let row = client.query_one("SELECT protocol FROM writer", &[]).await;
    crate::store::protocol(number(&row.map_err(of_read)?, 0)?)
}

/// Notes it, where it is above what is noted, and makes what it keeps: while the writer's term is its own. It is a beat as
/// well.
pub(super) async fn raise(writer: &mut Writer, protocol: Protocol) -> Result<(), StorageError> {
    writer.connection.take_warning(); // of before
    let client = &mut writer.connection.client;
    let transaction = client.transaction().await.map_err(of_read)?;
    let locked = transaction.execute(schema::LOCK_WRITER, &[]).await;
    locked.map_err(of_read)?;
    let fence = "UPDATE writer SET beat = beat + 1 WHERE term = $1 AND beat = $2
        RETURNING current_setting('fsync') = 'on', current_setting('synchronous_standby_names') <> ''";
    let held = transaction
        .query_opt(fence, &[&writer.term, &writer.beat])
        .await;
    let Some(settings) = held.map_err(of_read)? else {
        let over = format!("the writer's term {} is over", writer.term);
        return Err(StorageError::Fenced(over));
    };
    note(&transaction, protocol).await?;
    transaction.commit().await.map_err(of_commit)?;
    writer.beat += 1;
    if let Some(warning) = writer.connection.take_warning() {
        return Err(StorageError::Ambiguous(warning)); // it may not be on any standby
    }
    writer.check_settings(get(&settings, 0)?, get(&settings, 1)?)
}

/// The same in the caller's transaction, which has locked the writer's table.
pub(super) async fn note(
    transaction: &Transaction<'_>,
    protocol: Protocol,
) -> Result<(), StorageError> {
    if protocol == Protocol::FIRST {
        return Ok(());
    }
    schema::add_gated(transaction).await.map_err(refused)?;
    let sql = "UPDATE writer SET protocol = greatest(protocol, $1), spoken = $2";
    let (wanted, newest) = (protocol.get(), Protocol::NEWEST.get());
    let noted = transaction
        .execute(sql, &[&i64::from(wanted), &i64::from(newest)])
        .await;
    noted.map_err(of_read)?;
    Ok(())
}

fn refused(error: PostgresError) -> StorageError {
    StorageError::Server(error.to_string())
}
