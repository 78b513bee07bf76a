//! Which journal the database holds, and checksums of what no hash chain covers.
//!
//! Each checksum has the journal's id in it: what belongs to one journal does not pass for
//! another's.

use domain::{JournalId, ListingDigest};
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use storage::{Checksum, StorageError};

use crate::store::checksums::of_identity;

/// Came after the first databases were made: columns that those lack cannot ask for a value.
pub(super) const SCHEMA: &str = "
    CREATE TABLE identity ( -- one row, made with the journal
        only     INTEGER PRIMARY KEY CHECK (only = 0),
        journal  BLOB NOT NULL CHECK (length(journal) = 16), -- its id
        checksum BLOB NOT NULL CHECK (length(checksum) = 32) -- of the id and the listing
    ) STRICT;
    CREATE TABLE checksum (
        what TEXT PRIMARY KEY CHECK (what IN ('leadership', 'sessions')),
        sum  BLOB NOT NULL CHECK (length(sum) = 32)
    ) STRICT, WITHOUT ROWID;
    ALTER TABLE refused ADD COLUMN checksum BLOB CHECK (length(checksum) = 32);
";

/// Reads which journal it is, of a database with this listing; `None` where it is of before there
/// were ids, or holds no journal.
pub(super) fn read(
    connection: &Connection,
    listing: &ListingDigest,
) -> Result<Option<JournalId>, StorageError> {
    let sql = "SELECT journal, checksum FROM identity";
    let found = connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)));
    let found: Option<(Vec<u8>, Vec<u8>)> = found.optional()?;
    let Some((journal, checksum)) = found else {
        let sql = "SELECT EXISTS (SELECT 1 FROM checksum)
                   OR EXISTS (SELECT 1 FROM refused WHERE checksum IS NOT NULL)";
        return match connection.query_row(sql, [], |row| row.get(0))? {
            false => Ok(None),
            true => Err(StorageError::Damaged("its journal's id is missing".into())),
        };
    };
    let journal = JournalId::try_from(journal.as_slice())?;
    of_identity(journal, listing).check(Some(&checksum))?;
    Ok(Some(journal))
}

/// Gives the database its journal's id.
pub(super) fn write(
    transaction: &Transaction<'_>,
    journal: JournalId,
    listing: &ListingDigest,
) -> Result<(), StorageError> {
    let checksum = of_identity(journal, listing).finish();
    let sql = "INSERT INTO identity VALUES (0, ?, ?)";
    transaction.execute(sql, params![journal.as_bytes(), checksum])?;
    Ok(())
}

/// What has one checksum for all of it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Covered {
    /// The term and its in-sync set.
    Leadership,
    /// How long sessions may last, if there are any.
    Sessions,
}

impl Covered {
    fn name(self) -> &'static str {
        match self {
            Self::Leadership => "leadership",
            Self::Sessions => "sessions",
        }
    }

    /// Keeps its checksum, in the transaction that writes it.
    pub(super) fn keep(
        self,
        transaction: &Transaction<'_>,
        checksum: Checksum,
    ) -> Result<(), StorageError> {
        transaction
            .prepare_cached("INSERT OR REPLACE INTO checksum VALUES (?, ?)")?
            .execute(params![self.name(), checksum.finish()])?;
        Ok(())
    }

    /// Compares it with what is kept.
    pub(super) fn check(
        self,
        connection: &Connection,
        checksum: Checksum,
    ) -> Result<(), StorageError> {
        let mut statement = connection.prepare_cached("SELECT sum FROM checksum WHERE what = ?")?;
        let kept: Option<Vec<u8>> = statement
            .query_row([self.name()], |row| row.get(0))
            .optional()?;
        checksum.check(kept.as_deref())
    }
}
