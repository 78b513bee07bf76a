//! `bazaar catalog --rebuild-from`: a catalog whose disk is lost, rebuilt from the replicas'.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use catalog::{Config, Disagreement, Found, Ledgers, RebuildError};
use daemon::data_dir::{self, Lock};
use domain::{ChainHash, JournalId, OrderNumber, Protocols, RowNumber};
use jiff::Timestamp;
use order::inspect::Ledger;
use order::protocol_note::ProtocolNote;
use serde_json::json;
use storage::StorageError;

use crate::cli;

/// How long is waited where a replica runs, so that it has what the lost catalog sent it last: many times
/// what that takes to arrive and to be written. What comes later still, the catalog gets back when it starts.
const LAST_ROWS_WAIT: Duration = Duration::from_secs(2);

/// Beside a database that was rebuilt: of which ledgers, when and by whom.
const REBUILT_FROM: &str = "rebuilt-from.json";

/// Why it was not rebuilt.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A replica's directory cannot be read.
    #[error("{}: {source}", path.display())]
    Ledger { path: PathBuf, source: StorageError },
    /// Ledgers are not copies of one journal.
    #[error("{} and {} are not copies of the same journal", one.display(), other.display())]
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
/// beyond. Returns how many orders it holds.
///
/// Replicas are better stopped meanwhile. Where one runs, its ledger is read after a wait of 2 s.
pub fn from_ledgers(config: &Config, dirs: &[PathBuf]) -> Result<OrderNumber, Error> {
    let orders = from_ledgers_after(|| thread::sleep(LAST_ROWS_WAIT), config, dirs)?;
    if orders > OrderNumber(0) {
        note_origin(config, dirs, orders);
    }
    Ok(orders)
}

/// Writes down beside the database of what it was made. Nothing goes by it: where it cannot be written, the log says so.
fn note_origin(config: &Config, dirs: &[PathBuf], orders: OrderNumber) {
    let ledgers = dirs.iter().map(|dir| dir.display().to_string());
    let note = json!({
        "ledgers": ledgers.collect::<Vec<_>>(),
        "orders": orders.0,
        "rebuilt_at": Timestamp::now().to_string(),
        "rebuilt_by": cli::user(),
        "release": env!("CARGO_PKG_VERSION"),
    });
    let path = config.data_dir.join(REBUILT_FROM);
    let written = daemon::atomic_file::write(&path, format!("{note:#}\n").as_bytes());
    if let Err(error) = written {
        tracing::warn!(%error, path = %path.display(), "of what the catalog was rebuilt is not written down");
    }
}

fn from_ledgers_after(
    wait: impl FnOnce(),
    config: &Config,
    dirs: &[PathBuf],
) -> Result<OrderNumber, Error> {
    let (_locks, running) = lock(dirs);
    if !running.is_empty() {
        tracing::warn!(
            ?running,
            "replicas run: their ledgers are read in 2 s, once they have what the lost catalog sent last"
        );
        wait();
    }
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
    let (protocol, newest) = (ledgers.protocol(), Protocols::OWN.newest());
    let orders = catalog::rebuild(config, ledgers.rebuild_source(rows))?;
    if protocol < newest {
        tracing::warn!(
            at = %protocol,
            %newest,
            "the rebuilt catalog begins at an older version of the protocol, since not all of these ledgers say that it was at \
             the newest: type `bazaar protocol raise` once every service is of this release. Until then lists and events \
             of orders get 503, and policies of a newer world 409"
        );
    }
    Ok(orders)
}

/// Keeps replicas from starting in these directories meanwhile; returns those in which one runs. One that
/// cannot be locked is one that no replica can run in.
fn lock(dirs: &[PathBuf]) -> (Vec<Lock>, Vec<PathBuf>) {
    // One may be named twice. What is not there is said where it is opened.
    let dirs: BTreeSet<PathBuf> = dirs.iter().flat_map(|dir| dir.canonicalize()).collect();
    let (mut locks, mut running) = (Vec::new(), Vec::new());
    for dir in dirs {
        match Lock::take(&dir) {
            Ok(lock) => locks.push(lock),
            Err(data_dir::Error::InUse { path, .. }) => running.push(path),
            Err(data_dir::Error::Unusable { .. }) => {}
        }
    }
    (locks, running)
}

fn open(dir: &Path) -> Result<(Ledger, Found), StorageError> {
    let ledger = Ledger::open(dir)?;
    let (end, term) = (ledger.end()?, ledger.term()?);
    let identity = ledger.identity()?;
    // One of another journal or epoch was left by a replica of long ago.
    let noted = ProtocolNote::read(dir).filter(|note| {
        let journal = identity.map(|identity| identity.journal);
        journal == Some(note.journal) && note.epoch == term.0
    });
    let found = Found {
        end,
        term,
        highest_epoch: ledger.highest_epoch()?,
        identity,
        beside: ledger.continuing(end)?,
        protocol: noted.map(|note| note.protocol),
    };
    Ok((ledger, found))
}

/// The chain hash that a ledger has before a number.
fn chain_before(ledger: &Ledger, number: RowNumber) -> Result<ChainHash, StorageError> {
    let Some(last) = number.0.checked_sub(1) else {
        return Ok(ChainHash::EMPTY);
    };
    let row = ledger.rows_from(RowNumber(last)).next().transpose()?;
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
