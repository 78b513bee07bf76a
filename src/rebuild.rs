//! `bazaar catalog --rebuild-from`: a catalog whose disk is lost, made anew from the replicas'.

use std::path::{Path, PathBuf};

use catalog::{Config, RebuildError, Remains};
use order::ledger::Ledger;
use protocol::{ChainHash, Epoch, OrderNumber, ReplicaId};
use storage::StorageError;
use storage::rows::End;

/// Why it was not made anew.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A replica's directory cannot be read.
    #[error("{}: {source}", path.display())]
    Ledger {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: StorageError,
    },
    /// Ledgers are not copies of one journal.
    #[error("{} is no copy of the same journal as {}", one.display(), other.display())]
    Diverged {
        /// A directory.
        one: PathBuf,
        /// The one with the longest ledger.
        other: PathBuf,
    },
    /// See there.
    #[error(transparent)]
    Rebuild(#[from] RebuildError),
}

struct Found<'a> {
    dir: &'a Path,
    ledger: Ledger,
    end: End,
    term: (Epoch, Option<ReplicaId>),
}

/// Makes the catalog's database from the longest of these replicas' ledgers. Returns how many
/// orders it holds.
pub fn from_ledgers(config: &Config, dirs: &[PathBuf]) -> Result<OrderNumber, Error> {
    let mut found: Vec<_> = dirs.iter().map(|dir| open(dir)).collect::<Result<_, _>>()?;
    found.sort_by_key(|found| found.end.rows);
    let Some(longest) = found.last() else {
        return Ok(OrderNumber(0));
    };
    for shorter in &found {
        if chain_before(&longest.ledger, shorter.end.rows, longest.dir)? != shorter.end.chain {
            return Err(Error::Diverged {
                one: shorter.dir.to_owned(),
                other: longest.dir.to_owned(),
            });
        }
    }
    let (epoch, leader) = found
        .iter()
        .map(|found| found.term)
        .max_by_key(|term| term.0)
        .unwrap_or_default();
    Ok(catalog::rebuild(
        config,
        Remains {
            rows: longest.ledger.rows(),
            epoch,
            leader,
        },
    )?)
}

fn open(dir: &Path) -> Result<Found<'_>, Error> {
    let read = || {
        let ledger = Ledger::open(dir)?;
        let (end, term) = (ledger.end()?, ledger.term()?);
        Ok(Found {
            dir,
            ledger,
            end,
            term,
        })
    };
    read().map_err(|source| Error::Ledger {
        path: dir.to_owned(),
        source,
    })
}

/// The chain hash that a ledger has before a number.
fn chain_before(ledger: &Ledger, number: OrderNumber, dir: &Path) -> Result<ChainHash, Error> {
    let Some(last) = number.0.checked_sub(1) else {
        return Ok(ChainHash::EMPTY);
    };
    let mut rows = ledger.rows_from(OrderNumber(last));
    match rows.next() {
        Some(Ok(row)) => Ok(row.chain),
        Some(Err(source)) => Err(Error::Ledger {
            path: dir.to_owned(),
            source,
        }),
        None => Ok(ChainHash::EMPTY),
    }
}
