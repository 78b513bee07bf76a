//! What to do about the leader, from what the replicas and the catalog said last.
//!
//! - here: what is known of the replicas, and the next step towards a leader that leads;
//! - [`elector`]: which step one gateway takes, from its first look on;
//! - [`cycle`]: its elections as they go on;
//! - [`probing`]: when replicas are probed;
//! - [`detector`]: whether a replica that does not answer is there; [`contact`]: whether anybody is heard;
//! - [`backoff`]: which elections slow the next one down.

use std::fmt;
use std::time::Duration;

pub use domain::Role;
use domain::time::BootTime;
use domain::{ChainHash, Epoch, ReplicaId, RowNumber, Term};

mod elector;
mod cycle;
mod probing;
mod contact;
mod detector;
mod backoff;

pub use contact::Contact;
pub use cycle::{ElectionCycle, ElectionTask, LeadershipAnswer};
pub use detector::{Detector, ProbeFailure, Watch, Way};

/// What a replica's health probes say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probed {
    pub id: ReplicaId,
    /// What it said last, or why it says nothing.
    pub status: Result<Status, Unanswered>,
    /// When the last probe was sent that is over.
    pub asked: BootTime,
    /// When it was last heard of, if only that nobody is there.
    pub heard: BootTime,
    /// Of the last probe that it answered.
    pub round_trip: Duration,
}

impl Probed {
    /// A replica that nothing is known of yet.
    pub fn unknown(id: ReplicaId) -> Self {
        Self {
            id,
            status: Err(Unanswered::Unheard),
            asked: BootTime::default(),
            heard: BootTime::default(),
            round_trip: Duration::ZERO,
        }
    }
}

/// Why a replica says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unanswered {
    /// It was not heard yet, or this gateway hears nobody, which says nothing of it.
    Unheard,
    /// It may be alive: it takes too long, or says what makes no sense, while others are heard.
    Silent,
    /// Nobody is there: the connection was refused, or broke.
    Gone,
    /// It keeps another journal's ledger.
    Foreign,
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unheard => "it was not heard yet",
            Self::Silent => "it is silent",
            Self::Gone => "nobody is there",
            Self::Foreign => "it keeps another journal's ledger",
        })
    }
}

/// What a replica says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    pub role: Role,
    /// The highest epoch that it has seen.
    pub epoch: Epoch,
    /// The leader of that epoch, where it knows.
    pub leader: Option<ReplicaId>,
    /// How many rows it holds.
    pub rows: RowNumber,
    /// How many of them change stocks.
    pub stock_changes: u64,
    /// Chain hash of its last row.
    pub chain: ChainHash,
    /// It says that it reaches the catalog.
    pub reaches_catalog: bool,
}

/// Who leads, as trades go by it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CurrentLeader {
    /// According to the catalog.
    pub term: Term,
    /// The leader says that it takes trades.
    pub active: bool,
}

impl CurrentLeader {
    /// From what the catalog and the replicas say.
    pub fn by(term: Term, probed: &[Probed]) -> Self {
        Self {
            term,
            active: leads(term, probed),
        }
    }

    /// Whether it is news after `before`. One question follows the other, so no answer is overtaken:
    /// where epochs fall, an older copy of the catalog was served for a while, and is not any more.
    pub fn is_news_after(&self, before: &Self) -> bool {
        self != before
    }
}

/// The replicas in the order in which they are asked for an order: the leader, then those that answer
/// their probes, then those that are slow to. Nobody asks where nobody is.
pub fn reading_order(term: Term, probed: &[Probed]) -> Vec<ReplicaId> {
    let is_there = |probed: &&Probed| probed.status != Err(Unanswered::Gone);
    let mut ranked: Vec<_> = probed.iter().filter(is_there).collect();
    ranked.sort_by_key(|probed| match probed.status {
        Ok(_) if Some(probed.id) == term.leader => 0,
        Ok(_) => 1,
        Err(_) => 2,
    });
    ranked.into_iter().map(|probed| probed.id).collect()
}

/// What an election goes by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// In order of their ids.
    pub replicas: Vec<ReplicaView>,
    /// Who leads now, according to the catalog.
    pub leader: Option<ReplicaId>,
    pub epoch: Epoch,
}

/// One replica, as the host last saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaView {
    pub id: ReplicaId,
    /// It answers its health probe.
    pub healthy: bool,
    /// It says that it reaches the catalog.
    pub reaches_catalog: bool,
    /// How many rows it holds, which policies know as orders.
    pub orders: RowNumber,
    /// Of the last probe that it answered.
    pub round_trip: Duration,
    /// It is in the catalog's in-sync set: it holds every order that was acknowledged.
    pub in_sync: bool,
}

impl ReplicaView {
    fn of(probed: &Probed, in_sync: &[ReplicaId]) -> Self {
        Self {
            id: probed.id,
            healthy: probed.status.is_ok(),
            reaches_catalog: probed.status.is_ok_and(|status| status.reaches_catalog),
            orders: probed.status.map_or(RowNumber(0), |status| status.rows),
            round_trip: probed.round_trip,
            in_sync: in_sync.contains(&probed.id),
        }
    }
}

/// The next step towards a leader that leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Elect this replica for the next epoch.
    Elect(ReplicaId),
    /// Tell these replicas who leads.
    Announce(Vec<ReplicaId>),
    /// All is as it should be, or nothing can be done.
    Nothing,
}

/// What to do, given whom the policy wants. A replica that does not answer is not elected,
/// whoever wants it.
fn next_step(term: Term, probed: &[Probed], wanted: Option<ReplicaId>) -> Step {
    let answers = |id: &ReplicaId| {
        probed
            .iter()
            .any(|probed| probed.id == *id && probed.status.is_ok())
    };
    if let Some(wanted) = wanted.filter(answers)
        && term.leader != Some(wanted)
    {
        return Step::Elect(wanted);
    }
    let Some(leader) = term.leader else {
        return Step::Nothing;
    };
    let uninformed = |probed: &&Probed| {
        let Ok(status) = probed.status else {
            return false;
        };
        let behind = status.epoch < term.epoch;
        let unaware = status.epoch == term.epoch && status.leader != Some(leader);
        let idle =
            status.epoch == term.epoch && probed.id == leader && status.role == Role::Follower;
        behind || unaware || idle
    };
    let uninformed: Vec<_> = probed
        .iter()
        .filter(uninformed)
        .map(|probed| probed.id)
        .collect();
    if uninformed.is_empty() {
        Step::Nothing
    } else {
        Step::Announce(uninformed)
    }
}

/// Whether the leader can take trades.
fn leads(term: Term, probed: &[Probed]) -> bool {
    probed.iter().any(|probed| {
        term.leader == Some(probed.id)
            && probed
                .status
                .is_ok_and(|status| status.role == Role::Leader && status.epoch == term.epoch)
    })
}

#[cfg(test)]
mod tests;
