//! `bazaar catalog --rebuild-from`: a catalog whose disk is lost, made anew from the replicas'.

use std::path::{Path, PathBuf};

use catalog::{Config, RebuildError, Remains};
use order::ledger::Ledger;
use protocol::{ChainHash, Epoch, OrderNumber, ReplicaId, Row};
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

/// Makes the catalog's database from the longest of these replicas' ledgers, and what they hold
/// beyond. Returns how many orders it holds.
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
    let beyond = beyond(&found, longest.end)?;
    let end = longest.end.rows;
    // A replica that runs may move rows there meanwhile.
    let in_ledger = move |row: &Result<Row, _>| row.as_ref().map_or(true, |row| row.number < end);
    let ledger = longest.ledger.rows().take_while(in_ledger);
    Ok(catalog::rebuild(
        config,
        Remains {
            rows: ledger.chain(beyond.into_iter().map(Ok)),
            epoch,
            leader,
        },
    )?)
}

/// The rows behind the longest ledger that replicas hold beside theirs. In one epoch a number is
/// proposed for one row only; and after one was committed there is none of that number in a later
/// epoch. So of two the later is the one that may have been acknowledged.
fn beyond(found: &[Found<'_>], mut end: End) -> Result<Vec<Row>, Error> {
    let beside = |found: &Found<'_>| {
        let rows = found.ledger.continuing(found.end);
        rows.map_err(|source| Error::Ledger {
            path: found.dir.to_owned(),
            source,
        })
    };
    let beside: Vec<Vec<Row>> = found.iter().map(beside).collect::<Result<_, _>>()?;
    let mut rows = Vec::new();
    let next = |end: End| {
        let rows = beside.iter().flatten();
        rows.filter(|row| row.number == end.rows && row.follows(&end.chain))
            .max_by_key(|row| row.epoch)
    };
    while let Some(row) = next(end) {
        end = End::of(row);
        rows.push(row.clone());
    }
    Ok(rows)
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use catalog::store::Journal as _;
    use catalog::store::sqlite::SqliteJournal;
    use order::core::Term;
    use order::store::saves::Save;
    use order::store::{SqliteStore, Store as _};
    use protocol::{IdempotencyKey, Order, Price, Quantity, Side, StockName};

    use super::*;

    /// The row of an order to sell one share, behind the others.
    fn row(rows: &[Row], epoch: u64, key: &str) -> Row {
        let end = rows.last().map(End::of).unwrap_or_default();
        let order = Order {
            key: IdempotencyKey::new(key).unwrap(),
            name: StockName::new("meta").unwrap(),
            side: Side::Sell,
            quantity: Quantity::new(1).unwrap(),
        };
        let price = Price::from_minor(19402).unwrap();
        Row::following(&end.chain, end.rows, Epoch(epoch), order, price)
    }

    /// A replica's directory, with a ledger and rows beside it.
    fn replica(epoch: u64, rows: &[Row], proposed: &[Row]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let term = Term {
            epoch: Epoch(epoch),
            leader: ReplicaId::new(3),
        };
        let save = Save {
            term: Some(term),
            rows: rows.to_vec(),
            proposed: proposed.to_vec(),
        };
        SqliteStore::open(dir.path()).unwrap().save(&save).unwrap();
        dir
    }

    #[test]
    fn what_replicas_hold_beside_their_ledgers_is_in_the_journal_again() {
        let mut rows = Vec::new();
        for key in ["one", "two"] {
            rows.push(row(&rows, 1, key));
        }
        // Came to nothing in the first epoch; what has its number since was acknowledged.
        let lost = row(&rows, 1, "lost");
        rows.push(row(&rows, 2, "three"));
        rows.push(row(&rows, 2, "four"));
        let dirs = [
            replica(1, &rows[..2], &[lost]),
            replica(2, &rows[..2], &rows[2..]),
            replica(2, &rows[..2], &rows[2..3]),
        ];
        let catalog = tempfile::tempdir().unwrap();
        let config = Config {
            data_dir: catalog.path().to_owned(),
            stocks: None,
            lease: Duration::from_secs(1),
        };
        let dirs: Vec<_> = dirs.iter().map(|dir| dir.path().to_owned()).collect();
        assert_eq!(from_ledgers(&config, &dirs).unwrap(), OrderNumber(4));
        let journal = SqliteJournal::open(catalog.path()).unwrap();
        assert_eq!(journal.rows(OrderNumber(0), 9).unwrap(), rows);
    }
}
