//! What catalogs that stand by say of how many callers ask them, for the active one to read: one row, and no part of what is
//! kept. Whoever writes needs no term for it.

use catalog_core::SaidCallers;
use storage::StorageError;
use tokio_postgres::Client;

use super::OpenError;
use super::error::of_read;
use super::rows::{number, signed};
use super::schema;

/// Says so, where there is a place for it: it comes with the protocol.
pub(super) async fn say(client: &Client, callers: u64) -> Result<(), OpenError> {
    if schema::has_callers(client).await? {
        let sql = "UPDATE standby_callers SET said = said + 1, callers = $1";
        let said = client.execute(sql, &[&signed(callers)]).await;
        said.map_err(of_read)?; // whether it was done matters to nobody
    }
    Ok(())
}

/// What was said last.
pub(super) async fn read(client: &Client) -> Result<SaidCallers, StorageError> {
    let sql = "SELECT said, callers FROM standby_callers";
    let row = client.query_one(sql, &[]).await.map_err(of_read)?;
    Ok(SaidCallers {
        said: number(&row, 0)?,
        callers: number(&row, 1)?,
    })
}
