//! What a catalog that lets go of its term leaves the next one of its limits: bytes, in a table of their own. The writer's row
//! is written with each commit, which would take them along.
//!
//! They are good for the term after it alone, so nobody has to remove them, and on the server as it was alone: one that may
//! lack a take-over would have them taken twice.

use std::sync::{Arc, Mutex};

use storage::StorageError;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::error::{of_commit, of_read};
use super::rows::get;

/// Where a catalog puts what its [`close`](crate::store::Store::close) leaves.
pub type Leaves = Arc<Mutex<Option<Vec<u8>>>>;

/// What was left for this term, if anything was.
pub(super) async fn read(client: &Client, term: i64) -> Result<Option<Vec<u8>>, StorageError> {
    let sql = "SELECT content FROM limits WHERE term = $1";
    let before = term - 1;
    let row = match client.query_opt(sql, &[&before]).await {
        // It comes with the protocol.
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => None,
        row => row.map_err(of_read)?,
    };
    row.map(|row| get(&row, 0)).transpose()
}

/// Lets go of a term, as [`release`](super::lease::release) does, and leaves that. Returns whether there is a place for it:
/// otherwise nothing is done.
pub(super) async fn release_leaving(
    client: &Client,
    term: i64,
    content: &[u8],
) -> Result<bool, StorageError> {
    let sql = "
        WITH released AS (
            UPDATE writer SET beat = beat + 1, holder = '', url = '' WHERE term = $1 RETURNING term
        )
        INSERT INTO limits (only_row, term, content) SELECT 0, term, $2::bytea FROM released
        ON CONFLICT (only_row) DO UPDATE SET term = excluded.term, content = excluded.content";
    match client.execute(sql, &[&term, &content]).await {
        Ok(_) => Ok(true),
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => Ok(false),
        Err(error) => Err(of_commit(error)),
    }
}
