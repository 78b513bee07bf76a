//! The ledger check: whose ledgers a catalog that starts compares with its journal before it serves.
//!
//! What it finds on its disk may be older than what it once committed, as where a backup was restored or
//! a write-ahead log was removed. It cannot tell; the replicas' ledgers can. So after a start nothing is
//! read or traded, and the in-sync set stays as it is, until every replica that is in sync as far as the
//! disk knows has said where its ledger ends, and the journal has all of that. A replica that does not say
//! so is waited for until [`LEDGER_CHECK_MAX`] is over, and no longer: a replica that is gone for good
//! delays a start by that much, until the leader has taken it out of the set. One that shows a row that the
//! journal lacks stops the catalog.
//!
//! It takes no time where gateways had leases: their end is waited for beside it.

use std::collections::BTreeSet;
use std::time::Duration;

use domain::ReplicaId;
use domain::time::BootTime;

#[cfg(feature = "ablation")]
use super::ablation::{Rule, Rules};

/// Longest wait for the ledgers of replicas that are in sync. Replicas ask a catalog that does not answer
/// every 50 ms, so those that run have said where their ledgers end long before.
pub const LEDGER_CHECK_MAX: Duration = Duration::from_secs(1);

/// The ledger check of one start. The default waits for nobody.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LedgerCheck {
    /// In sync, as far as the disk knew at the start.
    in_sync: BTreeSet<ReplicaId>,
    /// Of those, whose ledgers are not known to be in the journal.
    pending: BTreeSet<ReplicaId>,
    /// Of those, whose ledgers were seen not to be.
    differing: BTreeSet<ReplicaId>,
    gives_up_at: BootTime,
}

impl LedgerCheck {
    /// Of a catalog that finds this in-sync set on its disk, and waits until then.
    pub fn new(in_sync: BTreeSet<ReplicaId>, gives_up_at: BootTime) -> Self {
        Self {
            pending: in_sync.clone(),
            differing: BTreeSet::new(),
            in_sync,
            gives_up_at,
        }
    }

    /// The same under rules: without its own nobody is waited for.
    #[cfg(feature = "ablation")]
    pub fn under(mut self, rules: Rules) -> Self {
        if !rules.keep(Rule::LedgerCheck) {
            self.pending.clear();
        }
        self
    }

    /// Whether a replica was in sync, as far as the disk knew at the start.
    pub fn was_in_sync(&self, replica: ReplicaId) -> bool {
        self.in_sync.contains(&replica)
    }

    /// The replicas in sync whose ledgers are not known to be in the journal.
    pub fn pending(&self) -> &BTreeSet<ReplicaId> {
        &self.pending
    }

    /// The journal has all of a replica's ledger. Returns whether that was the last one.
    pub fn confirm(&mut self, replica: ReplicaId) -> bool {
        self.pending.remove(&replica) && self.pending.is_empty()
    }

    /// The journal does not have all of a replica's ledger. Returns whether that is news, so that it is
    /// logged once, however often anybody says so.
    pub fn note_difference(&mut self, replica: ReplicaId) -> bool {
        self.pending.contains(&replica) && self.differing.insert(replica)
    }

    /// From when on nobody is waited for: at once where no ledger is pending.
    pub fn over_at(&self) -> BootTime {
        if self.pending.is_empty() {
            BootTime::default()
        } else {
            self.gives_up_at
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIVES_UP_AT: BootTime = BootTime::from_millis(5_000);

    fn ids() -> [ReplicaId; 3] {
        [1, 2, 3].map(|id| ReplicaId::new(id).expect("an id"))
    }

    #[test]
    fn every_ledger_of_the_in_sync_set_is_waited_for_once() {
        let ids = ids();
        let mut check = LedgerCheck::new(ids[..2].iter().copied().collect(), GIVES_UP_AT);
        for (confirmed, last, over_at) in [
            (ids[2], false, GIVES_UP_AT), // it was not in sync
            (ids[1], false, GIVES_UP_AT),
            (ids[1], false, GIVES_UP_AT),
            (ids[0], true, BootTime::default()),
            (ids[0], false, BootTime::default()),
        ] {
            assert_eq!(check.confirm(confirmed), last, "{confirmed}");
            assert_eq!(check.over_at(), over_at, "{confirmed}");
        }
        assert!(check.was_in_sync(ids[0]) && !check.was_in_sync(ids[2]));
    }

    #[test]
    fn an_empty_in_sync_set_is_not_waited_for() {
        let check = LedgerCheck::new(BTreeSet::new(), GIVES_UP_AT);
        assert_eq!(check.over_at(), BootTime::default());
    }

    #[test]
    fn a_difference_is_news_once_and_is_waited_for() {
        let ids = ids();
        let mut check = LedgerCheck::new(ids[..2].iter().copied().collect(), GIVES_UP_AT);
        for (differs, is_news) in [(ids[1], true), (ids[1], false), (ids[2], false)] {
            assert_eq!(check.note_difference(differs), is_news, "{differs}");
        }
        assert!(!check.confirm(ids[0]), "a difference is no confirmation");
        assert_eq!(check.over_at(), GIVES_UP_AT);
    }
}
