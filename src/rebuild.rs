//! `bazaar catalog --rebuild-from`: a catalog whose disk is lost, made anew from the replicas'.

use std::path::{Path, PathBuf};
use std::time::Duration;

use catalog::{Config, RebuildError, Remains};
use domain::LedgerEnd;
use domain::{ChainHash, Epoch, Identity, JournalId, OrderNumber, ReplicaId, Row};
use order::inspect::Ledger;
use storage::StorageError;

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
    /// Ledgers belong to different bazaars.
    #[error(
        "{} holds journal {its}, {} holds journal {others}: name the ledgers of one bazaar only",
        one.display(),
        other.display()
    )]
    OtherJournal {
        /// A directory.
        one: PathBuf,
        /// Its journal.
        its: JournalId,
        /// Another one.
        other: PathBuf,
        /// Its journal.
        others: JournalId,
    },
    /// See there.
    #[error(transparent)]
    Rebuild(#[from] RebuildError),
}

struct Found<'a> {
    dir: &'a Path,
    ledger: Ledger,
    end: LedgerEnd,
    term: (Epoch, Option<ReplicaId>),
    highest_epoch: Epoch,
    identity: Option<Identity>,
}

impl Found<'_> {
    /// Whether it ever took anything from a catalog.
    fn is_blank(&self) -> bool {
        self.identity.is_none() && self.highest_epoch == Epoch(0)
    }
}

/// Makes the catalog's database from the longest of these replicas' ledgers, and what they hold
/// beyond. Returns how many orders it holds.
pub fn from_ledgers(config: &Config, dirs: &[PathBuf]) -> Result<OrderNumber, Error> {
    let mut found: Vec<_> = dirs.iter().map(|dir| open(dir)).collect::<Result<_, _>>()?;
    let identity = one_journal(&found)?;
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
    let (_, leader) = found
        .iter()
        .map(|found| found.term)
        .max_by_key(|term| term.0)
        .unwrap_or_default();
    let epochs = found.iter().map(|found| found.highest_epoch);
    let epoch = epochs.max().unwrap_or_default();
    let lease_horizon = lease_horizon(&found);
    let beyond = beyond(&found, longest.end)?;
    let end = longest.end.rows;
    // A replica that runs may move rows there meanwhile.
    let in_ledger = move |row: &Result<Row, _>| row.as_ref().map_or(true, |row| row.number < end);
    let ledger = longest.ledger.rows().take_while(in_ledger);
    Ok(catalog::rebuild(
        config,
        Remains {
            rows: ledger.chain(beyond.into_iter().map(Ok)),
            journal: identity.map(|identity| identity.journal),
            listing: identity.map(|identity| identity.listing),
            lease_horizon,
            epoch,
            leader,
        },
    )?)
}

/// What the ledgers know of their journal, which is one and the same; `None` where all are of
/// before journals had ids.
fn one_journal(found: &[Found<'_>]) -> Result<Option<Identity>, Error> {
    let mut known = found
        .iter()
        .filter_map(|found| found.identity.map(|identity| (found.dir, identity)));
    let Some((one, first)) = known.next() else {
        return Ok(None);
    };
    match known.find(|(_, identity)| identity.journal != first.journal) {
        Some((other, identity)) => Err(Error::OtherJournal {
            one: one.to_owned(),
            its: first.journal,
            other: other.to_owned(),
            others: identity.journal,
        }),
        None => Ok(Some(first)),
    }
}

/// The longest time for which a catalog was heard to count a lease, where every ledger that had to
/// do with one says.
fn lease_horizon(found: &[Found<'_>]) -> Option<Duration> {
    let heard = found.iter().filter(|found| !found.is_blank());
    let horizons: Option<Vec<Duration>> = heard
        .map(|found| found.identity.map(|identity| identity.lease_horizon))
        .collect();
    horizons?.into_iter().max()
}

/// The rows behind the longest ledger that replicas hold beside theirs. In one epoch a number is
/// proposed for one row only; and after one was committed there is none of that number in a later
/// epoch. So of two the later is the one that may have been acknowledged.
fn beyond(found: &[Found<'_>], mut end: LedgerEnd) -> Result<Vec<Row>, Error> {
    let beside = |found: &Found<'_>| {
        let rows = found.ledger.continuing(found.end);
        rows.map_err(|source| Error::Ledger {
            path: found.dir.to_owned(),
            source,
        })
    };
    let beside: Vec<Vec<Row>> = found.iter().map(beside).collect::<Result<_, _>>()?;
    let mut rows = Vec::new();
    let next = |end: LedgerEnd| {
        let rows = beside.iter().flatten();
        rows.filter(|row| row.number == end.rows && row.follows(&end.chain))
            .max_by_key(|row| row.epoch)
    };
    while let Some(row) = next(end) {
        end = LedgerEnd::of(row);
        rows.push(row.clone());
    }
    Ok(rows)
}

fn open(dir: &Path) -> Result<Found<'_>, Error> {
    let read = || {
        let ledger = Ledger::open(dir)?;
        Ok(Found {
            dir,
            end: ledger.end()?,
            term: ledger.term()?,
            highest_epoch: ledger.highest_epoch()?,
            identity: ledger.identity()?,
            ledger,
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

#[cfg(test)]
mod tests;
