//! Which version of the protocol the bazaar is at.

use std::path::Path;

use domain::{JournalId, Protocol};
use rusqlite::{Connection, Transaction, params};
use storage::StorageError;

use super::KIND;
use crate::store::checksums::of_protocol;

/// Release 0.1.0 does not know it, and refuses a database that has it.
pub(super) const SCHEMA: &str = "
    CREATE TABLE protocol ( -- one row
        only     INTEGER PRIMARY KEY CHECK (only = 0),
        version  INTEGER NOT NULL CHECK (version > 0), -- that the bazaar is at
        checksum BLOB NOT NULL CHECK (length(checksum) = 32)
    ) STRICT;
";

/// The version; the first where there is no place for it.
pub(super) fn read(connection: &Connection, journal: JournalId) -> Result<Protocol, StorageError> {
    if !connection.table_exists(None, "protocol")? {
        return Ok(Protocol::FIRST);
    }
    let sql = "SELECT version, checksum FROM protocol";
    let found = connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)));
    let (version, checksum): (u64, Vec<u8>) = found?;
    let protocol = crate::store::protocol(version)?;
    of_protocol(journal, protocol).check(Some(&checksum))?;
    Ok(protocol)
}

/// Notes it, where it is above what is noted, and makes what it keeps; `path` is the database's.
pub(super) fn raise(
    transaction: &Transaction<'_>,
    path: &Path,
    journal: JournalId,
    protocol: Protocol,
) -> Result<(), StorageError> {
    if protocol > read(transaction, journal)? {
        storage::database::add_gated(transaction, path, KIND)?;
        let sql = "INSERT OR REPLACE INTO protocol VALUES (0, ?, ?)";
        let checksum = of_protocol(journal, protocol).finish();
        transaction.execute(sql, params![protocol.get(), checksum])?;
    }
    Ok(())
}
