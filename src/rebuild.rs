//! `bazaar catalog --rebuild-from`: a catalog whose disk is lost, made anew from the replicas'.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use catalog::{Config, Disagreement, Found, Ledgers, RebuildError};
use daemon::data_dir::{self, Lock};
use domain::{ChainHash, JournalId, OrderNumber};
use order::inspect::Ledger;
use storage::StorageError;

/// Why it was not made anew.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A replica's directory cannot be read.
    #[error("{}: {source}", path.display())]
    Ledger { path: PathBuf, source: StorageError },
    /// A replica runs. It could take rows that the lost catalog sent it after its ledger was read.
    #[error(
        "a replica runs in {}: stop all replicas, and start them again once the catalog is rebuilt",
        path.display()
    )]
    Running { path: PathBuf },
    /// Ledgers are not copies of one journal.
    #[error("{} is no copy of the same journal as {}", one.display(), other.display())]
    Diverged {
        one: PathBuf,
        /// The one with the longest ledger.
        other: PathBuf,
    },
    /// Ledgers belong to different bazaars.
    #[error(
        "{} holds journal {its}, {} holds journal {others}: name the ledgers of one bazaar only",
        one.display(),
        other.display()
    )]
    OtherJournal {
        one: PathBuf,
        its: JournalId,
        other: PathBuf,
        others: JournalId,
    },
    #[error(transparent)]
    Rebuild(#[from] RebuildError),
}

/// Makes the catalog's database from the longest of these replicas' ledgers, and what they hold
/// beyond. Returns how many orders it holds. No replica may run meanwhile.
pub fn from_ledgers(config: &Config, dirs: &[PathBuf]) -> Result<OrderNumber, Error> {
    let _locks = lock(dirs)?;
    let read = |dir: &PathBuf| open(dir).map_err(|source| unreadable(dir, source));
    let read: Vec<_> = dirs.iter().map(read).collect::<Result<_, _>>()?;
    let (opened, found): (Vec<Ledger>, Vec<Found>) = read.into_iter().unzip();
    let compared = Ledgers::compared(&found, |place, number| {
        let chain = chain_before(&opened[place], number);
        chain.map_err(|source| unreadable(&dirs[place], source))
    });
    let compared = compared.map_err(|disagreement| match disagreement {
        Disagreement::OtherJournal { one, other } => other_journal(dirs, &found, one, other),
        Disagreement::Diverged { one, longest } => Error::Diverged {
            one: dirs[one].clone(),
            other: dirs[longest].clone(),
        },
        Disagreement::Unreadable(error) => error,
    })?;
    let Some(ledgers) = compared else {
        return Ok(OrderNumber(0));
    };
    let rows = opened[ledgers.longest].rows();
    Ok(catalog::rebuild(config, ledgers.remains(rows))?)
}

/// Keeps replicas from running in these directories. One that cannot be locked is one that no replica
/// can run in.
fn lock(dirs: &[PathBuf]) -> Result<Vec<Lock>, Error> {
    // One may be named twice. What is not there is said where it is opened.
    let dirs: BTreeSet<PathBuf> = dirs.iter().flat_map(|dir| dir.canonicalize()).collect();
    let mut locks = Vec::new();
    for dir in dirs {
        match Lock::take(&dir) {
            Ok(lock) => locks.push(lock),
            Err(data_dir::Error::InUse { path }) => return Err(Error::Running { path }),
            Err(data_dir::Error::Unusable { .. }) => {}
        }
    }
    Ok(locks)
}

fn open(dir: &Path) -> Result<(Ledger, Found), StorageError> {
    let ledger = Ledger::open(dir)?;
    let end = ledger.end()?;
    let found = Found {
        end,
        term: ledger.term()?,
        highest_epoch: ledger.highest_epoch()?,
        identity: ledger.identity()?,
        beside: ledger.continuing(end)?,
    };
    Ok((ledger, found))
}

/// The chain hash that a ledger has before a number.
fn chain_before(ledger: &Ledger, number: OrderNumber) -> Result<ChainHash, StorageError> {
    let Some(last) = number.0.checked_sub(1) else {
        return Ok(ChainHash::EMPTY);
    };
    let row = ledger.rows_from(OrderNumber(last)).next().transpose()?;
    Ok(row.map_or(ChainHash::EMPTY, |row| row.chain))
}

fn unreadable(dir: &Path, source: StorageError) -> Error {
    Error::Ledger {
        path: dir.to_owned(),
        source,
    }
}

fn other_journal(dirs: &[PathBuf], found: &[Found], one: usize, other: usize) -> Error {
    let journal = |place: usize| {
        let identity = found[place].identity.expect("it has another one");
        identity.journal
    };
    Error::OtherJournal {
        one: dirs[one].clone(),
        its: journal(one),
        other: dirs[other].clone(),
        others: journal(other),
    }
}

#[cfg(test)]
mod tests;
