//! What replicas' ledgers together say of the catalog that was lost.

use std::time::Duration;

use domain::{
    ChainHash, Epoch, Identity, LedgerEnd, Protocol, Protocols, ReplicaId, Row, RowNumber,
};
use storage::StorageError;

use super::RebuildSource;

/// What one replica's ledger says.
#[derive(Debug, Clone)]
pub struct Found {
    pub end: LedgerEnd,
    /// The highest term that the replica has seen.
    pub term: (Epoch, Option<ReplicaId>),
    /// The highest epoch that anything in it names.
    pub highest_epoch: Epoch,
    /// Whose journal's copy it is, where it knows.
    pub identity: Option<Identity>,
    /// The rows beside it that continue it, of whatever epoch.
    pub beside: Vec<Row>,
    /// The version of the protocol that the bazaar was at in its term's epoch, where the replica has noted that.
    pub protocol: Option<Protocol>,
}

impl Found {
    /// Whether it ever took anything from a catalog.
    fn is_blank(&self) -> bool {
        self.identity.is_none() && self.highest_epoch == Epoch(0)
    }
}

/// Why ledgers do not tell of one catalog. They are named by their places among those given.
#[derive(Debug)]
pub enum Disagreement<E> {
    /// They belong to different bazaars.
    OtherJournal { one: usize, other: usize },
    /// One is not the beginning of the longest.
    Diverged { one: usize, longest: usize },
    /// The longest cannot be read.
    Unreadable(E),
}

/// The longest of some ledgers, and what the others add to it.
#[derive(Debug)]
pub struct Ledgers {
    /// The place of the longest.
    pub longest: usize,
    end: LedgerEnd,
    /// The rows that replicas hold beyond it.
    beyond: Vec<Row>,
    identity: Option<Identity>,
    lease_horizon: Option<Duration>,
    epoch: Epoch,
    leader: Option<ReplicaId>,
    protocol: Protocol,
}

impl Ledgers {
    /// Compares them. `chain_before` gives the chain hash that a ledger has before a number. `None`
    /// where there is no ledger.
    ///
    /// # Errors
    /// Where they are not copies of one journal.
    pub fn compared<E>(
        found: &[Found],
        chain_before: impl Fn(usize, RowNumber) -> Result<ChainHash, E>,
    ) -> Result<Option<Self>, Disagreement<E>> {
        let identity = one_journal(found)?;
        let by_length = found.iter().enumerate().max_by_key(|(_, it)| it.end.rows);
        let Some((longest, Found { end, .. })) = by_length else {
            return Ok(None);
        };
        for (one, shorter) in found.iter().enumerate() {
            let chain =
                chain_before(longest, shorter.end.rows).map_err(Disagreement::Unreadable)?;
            if chain != shorter.end.chain {
                return Err(Disagreement::Diverged { one, longest });
            }
        }
        let terms = found.iter().map(|found| found.term);
        let (_, leader) = terms.max_by_key(|term| term.0).unwrap_or_default();
        let epochs = found.iter().map(|found| found.highest_epoch);
        Ok(Some(Self {
            longest,
            end: *end,
            beyond: beyond(found, *end),
            identity,
            lease_horizon: lease_horizon(found),
            epoch: epochs.max().unwrap_or_default(),
            leader,
            protocol: protocol(found),
        }))
    }

    /// The version of the protocol that a catalog begins at that is rebuilt from them.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// What is left of the catalog. `rows` are the longest ledger's; what was added to that since it
    /// was looked at is left out.
    pub fn rebuild_source(
        self,
        rows: impl Iterator<Item = Result<Row, StorageError>>,
    ) -> RebuildSource<impl Iterator<Item = Result<Row, StorageError>>> {
        let Self {
            end,
            beyond,
            identity,
            lease_horizon,
            epoch,
            leader,
            protocol,
            ..
        } = self;
        let in_ledger =
            move |row: &Result<Row, _>| row.as_ref().map_or(true, |row| row.number < end.rows);
        RebuildSource {
            rows: rows.take_while(in_ledger).chain(beyond.into_iter().map(Ok)),
            journal: identity.map(|identity| identity.journal),
            listing: identity.map(|identity| identity.listing),
            lease_horizon,
            epoch,
            leader,
            protocol,
        }
    }
}

/// What the ledgers know of their journal, which is one and the same; `None` where all are of
/// before journals had ids.
fn one_journal<E>(found: &[Found]) -> Result<Option<Identity>, Disagreement<E>> {
    let known = |(place, found): (usize, &Found)| Some((place, found.identity?));
    let mut known = found.iter().enumerate().filter_map(known);
    let Some((one, first)) = known.next() else {
        return Ok(None);
    };
    match known.find(|(_, identity)| identity.journal != first.journal) {
        Some((other, _)) => Err(Disagreement::OtherJournal { one, other }),
        None => Ok(Some(first)),
    }
}

/// The longest time for which a catalog was heard to count a lease, where every ledger that had to
/// do with one says.
fn lease_horizon(found: &[Found]) -> Option<Duration> {
    let heard = found.iter().filter(|found| !found.is_blank());
    let horizons: Option<Vec<Duration>> = heard
        .map(|found| found.identity.map(|identity| identity.lease_horizon))
        .collect();
    horizons?.into_iter().max()
}

/// The lowest version of the protocol that any ledger's replica has noted: the bazaar was at it in the last epoch that each of
/// them knows, and whoever is of a release that does not speak it was refused since. Where one has noted none, as replicas of
/// before do not, it is the oldest that this release speaks: an operator can raise it, and nobody can take it back.
fn protocol(found: &[Found]) -> Protocol {
    let heard = found.iter().filter(|found| !found.is_blank());
    let noted: Option<Vec<Protocol>> = heard.map(|found| found.protocol).collect();
    let lowest = noted.and_then(|noted| noted.into_iter().min());
    let (oldest, newest) = (Protocols::OWN.oldest(), Protocols::OWN.newest());
    lowest.unwrap_or(oldest).clamp(oldest, newest)
}

/// The rows behind the longest ledger that replicas hold beside theirs. In one epoch a number is
/// proposed for one row only; and after one was committed there is none of that number in a later
/// epoch. So of two the later is the one that may have been acknowledged.
fn beyond(found: &[Found], mut end: LedgerEnd) -> Vec<Row> {
    let mut rows = Vec::new();
    let next = |end: LedgerEnd| {
        let rows = found.iter().flat_map(|found| &found.beside);
        rows.filter(|row| row.number == end.rows && row.follows(&end.chain))
            .max_by_key(|row| row.epoch)
    };
    while let Some(row) = next(end) {
        end = LedgerEnd::of(row);
        rows.push(row.clone());
    }
    rows
}
