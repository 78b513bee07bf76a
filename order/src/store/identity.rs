//! Whose journal's copy a ledger is, and the checksums that say so.

use std::time::Duration;

use domain::{Identity, JournalId, ListingDigest, ReplicaId};
use rusqlite::{Connection, OptionalExtension as _, params};
use storage::{Checksum, StorageError};

use domain::Term;

/// Both tables have one row once the journal is known. A ledger of before they came has none, nor
/// a checksum of its term.
pub(super) const SCHEMA: &str = "
    CREATE TABLE identity (
        only     INTEGER PRIMARY KEY CHECK (only = 0),
        journal  BLOB NOT NULL CHECK (length(journal) = 16), -- the journal's id
        listing  BLOB NOT NULL CHECK (length(listing) = 32), -- SHA-256 over its first stocks
        lease_ms INTEGER NOT NULL CHECK (lease_ms > 0), -- the longest that the catalog counted a lease
        checksum BLOB NOT NULL CHECK (length(checksum) = 32)
    ) STRICT;
    CREATE TABLE term_checksum (
        only     INTEGER PRIMARY KEY CHECK (only = 0),
        checksum BLOB NOT NULL CHECK (length(checksum) = 32)
    ) STRICT;
";

/// What is known of the ledger's journal.
///
/// # Errors
/// [`StorageError::Damaged`] where it is not as it was written.
pub(crate) fn read(connection: &Connection) -> Result<Option<Identity>, StorageError> {
    if !connection.table_exists(None, "identity")? {
        return Ok(None); // A ledger of before there was one, opened for reading.
    }
    let sql = "SELECT journal, listing, lease_ms, checksum FROM identity";
    let mut statement = connection.prepare_cached(sql)?;
    let mut found = statement.query([])?;
    let Some(row) = found.next()? else {
        return Ok(None);
    };
    let bytes = |column| row.get::<_, Vec<u8>>(column);
    let identity = Identity {
        journal: JournalId::try_from(bytes(0)?.as_slice())?,
        listing: ListingDigest::try_from(bytes(1)?.as_slice())?,
        lease_horizon: Duration::from_millis(row.get(2)?),
    };
    checksum(&identity).check(Some(&bytes(3)?))?;
    Ok(Some(identity))
}

/// Writes it; part of a transaction of the caller's.
pub(super) fn write(connection: &Connection, identity: Identity) -> Result<(), StorageError> {
    let mut statement = connection.prepare_cached(
        "INSERT OR REPLACE INTO identity (only, journal, listing, lease_ms, checksum)
         VALUES (0, ?, ?, ?, ?)",
    )?;
    statement.execute(params![
        identity.journal.as_bytes(),
        identity.listing.as_bytes(),
        lease_ms(&identity),
        checksum(&identity).finish()
    ])?;
    Ok(())
}

/// Writes the term's checksum, where there is a journal to bind it to; part of a transaction of
/// the caller's.
pub(super) fn seal_term(
    connection: &Connection,
    identity: Option<Identity>,
    term: Term,
) -> Result<(), StorageError> {
    if let Some(identity) = identity {
        let sql = "INSERT OR REPLACE INTO term_checksum (only, checksum) VALUES (0, ?)";
        let checksum = term_checksum(&identity, term).finish();
        connection.prepare_cached(sql)?.execute([checksum])?;
    }
    Ok(())
}

/// Whether the term is the one that was written.
///
/// # Errors
/// [`StorageError::Damaged`] where it is not.
pub(super) fn check_term(connection: &Connection, term: Term) -> Result<(), StorageError> {
    let Some(identity) = read(connection)? else {
        return Ok(());
    };
    let stored: Option<Vec<u8>> = connection
        .query_row("SELECT checksum FROM term_checksum", [], |row| row.get(0))
        .optional()?;
    term_checksum(&identity, term).check(stored.as_deref())
}

fn checksum(identity: &Identity) -> Checksum {
    Checksum::of("the journal's identity", identity.journal)
        .bytes(identity.listing.as_bytes())
        .number(lease_ms(identity))
}

fn term_checksum(identity: &Identity, term: Term) -> Checksum {
    Checksum::of("the term", identity.journal)
        .number(term.epoch.0)
        .number(term.leader.map_or(0, ReplicaId::get).into())
}

fn lease_ms(identity: &Identity) -> u64 {
    u64::try_from(identity.lease_horizon.as_millis()).unwrap_or(u64::MAX)
}
