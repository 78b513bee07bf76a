//! What whoever operates the bazaar has in hand, and what befalls disks: the catalog's is lost, or an older
//! copy takes its place; replicas are given others.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use domain::{ReplicaId, RowNumber};
use order_core::Failure;
use simulated_disk::{Death, Disk, Faults};

use crate::catalog::JOURNAL;
use crate::effects::Effect;
use crate::messages::Node;
use crate::replica::{Replica, ids};
use crate::world::World;

/// So often a catalog that is restored from a copy, on another machine perhaps, reaches no replica at
/// first, for longer than it waits for them.
const CUT_OFF_IN_A_THOUSAND: u32 = 400;
const CUT_OFF: Duration = Duration::from_secs(4);

/// How the catalog's disk stands to what it committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CatalogDisk {
    /// It has all of it.
    Whole,
    /// It is an empty one.
    Lost,
    /// It is an older copy, and whoever put it there does not know that.
    Restored,
    /// It was rebuilt from ledgers.
    Rebuilt,
}

/// Who operates the bazaar.
#[derive(Debug)]
pub struct Operator {
    pub catalog_disk: CatalogDisk,
    /// The first journal is begun.
    pub has_begun: bool,
    /// The lease that the catalog is run with.
    pub lease: Duration,
    /// Replicas that are to be started with `--rebuild`.
    pub rebuilds: BTreeSet<ReplicaId>,
    /// Replicas that were given another bazaar's disk.
    pub foreign: BTreeSet<ReplicaId>,
    /// An older copy was ever run: it began epochs that the whole catalog did not.
    pub was_rolled_back: bool,
    pub backup: Option<Backup>,
    /// The whole disk, while an older copy is in its place.
    pub aside: Option<Disk>,
    /// The catalog said that it lacks rows.
    pub is_wrong: bool,
    /// Since the catalog's start: where ledgers ended then, and who may not have reached it.
    pub ledgers: BTreeMap<ReplicaId, RowNumber>,
    pub hindered: BTreeSet<Node>,
    pub is_judged: bool,
}

/// A copy of the catalog's disk, made while that was stopped.
#[derive(Debug)]
pub struct Backup {
    disk: Disk,
    rows: RowNumber,
    /// How many branches were given up by then.
    former: usize,
}

impl Operator {
    pub fn new(lease: Duration) -> Self {
        Self {
            catalog_disk: CatalogDisk::Whole,
            has_begun: false,
            lease,
            rebuilds: BTreeSet::new(),
            foreign: BTreeSet::new(),
            was_rolled_back: false,
            backup: None,
            aside: None,
            is_wrong: false,
            ledgers: BTreeMap::new(),
            hindered: BTreeSet::new(),
            is_judged: false,
        }
    }
}

impl World {
    /// Whether the catalog has all that it committed, so that it needs no ledger.
    pub fn needs_no_ledger(&self) -> bool {
        if let Some(site) = &self.site {
            return site.is_whole() && !self.oracle.is_apart();
        }
        self.operator.catalog_disk == CatalogDisk::Whole && self.operator.has_begun
    }

    /// Its disk is lost, where a replica in sync has what was acknowledged; perhaps all lose power then.
    pub fn lose_catalog(&mut self) -> bool {
        let is_promised = self.oracle.acknowledged() > RowNumber(0);
        if !self.needs_no_ledger() || !is_promised || self.oracle.whole().is_empty() {
            return false;
        }
        let death = Death::PowerLost(self.some_loss());
        self.crash(Node::Catalog, death);
        if self.line.random.bool() {
            for id in ids() {
                self.crash(Node::Replica(id), death);
            }
        }
        self.replace_catalog_disk(None);
        self.operator.catalog_disk = CatalogDisk::Lost;
        self.call_operator();
        true
    }

    /// An older copy takes its disk's place, where a replica has rows that it lacks. Without such a copy one is
    /// made.
    pub fn roll_back(&mut self) -> bool {
        if !self.needs_no_ledger() || self.oracle.whole().is_empty() {
            return false;
        }
        let former = self.oracle.former();
        let backup = self.operator.backup.as_ref();
        let Some(backup) = backup.filter(|it| it.former == former) else {
            self.crash(Node::Catalog, Death::Killed);
            self.back_up();
            return false;
        };
        let has_more = |id: &ReplicaId| self.oracle.ledger(*id) > backup.rows;
        if backup.rows >= self.oracle.acknowledged() || !ids().any(|id| has_more(&id)) {
            return false;
        }
        let copy = backup.disk.copy(self.line.random.u64(..));
        self.crash(Node::Catalog, Death::Killed);
        let whole = self.replace_catalog_disk(Some(copy));
        self.operator.aside = Some(whole);
        self.operator.catalog_disk = CatalogDisk::Restored;
        self.operator.was_rolled_back = true;
        if self.line.chance(CUT_OFF_IN_A_THOUSAND) {
            let until = self.line.now() + CUT_OFF;
            for id in ids() {
                self.line
                    .network
                    .cut(Node::Catalog, Node::Replica(id), until);
            }
        }
        true
    }

    /// Copies the disk of the catalog, which is stopped.
    pub fn back_up(&mut self) {
        if !self.needs_no_ledger() || self.oracle.is_apart() {
            return;
        }
        self.operator.backup = Some(Backup {
            disk: self.disks[&Node::Catalog].copy(0),
            rows: self.oracle.end().rows,
            former: self.oracle.former(),
        });
    }

    /// Puts another disk in its place, or an empty one. Returns the one that was there.
    pub fn replace_catalog_disk(&mut self, by: Option<Disk>) -> Disk {
        let by = by.unwrap_or_else(|| Disk::new(self.line.random.u64(..)));
        let lies = self.disks[&Node::Catalog].faults().lies;
        by.set_faults(Faults {
            lies,
            ..Faults::default()
        });
        let before = self.disks.insert(Node::Catalog, by);
        before.expect("it has a disk")
    }
}

impl World {
    /// A replica's process ends, and its disk is replaced by an empty one.
    pub fn replace_disk(&mut self, id: ReplicaId) {
        let node = Node::Replica(id);
        self.crash(node, Death::Killed);
        let disk = Disk::new(self.line.random.u64(..));
        disk.set_faults(Faults {
            lies: self.disks[&node].faults().lies,
            ..Faults::default()
        });
        self.disks.insert(node, disk);
        self.oracle.disk_lost(id);
        if self
            .catalog
            .as_ref()
            .is_some_and(|catalog| !catalog.is_healed())
        {
            // It is started again, and told for whom it waits in vain.
            self.crash(Node::Catalog, Death::Killed);
        }
        self.restart_healing_members();
        // It can tell a catalog that starts nothing of it any more.
        self.operator.ledgers.remove(&id);
    }

    /// Its ledger is set aside and copied anew.
    pub fn rebuild_replica(&mut self, id: ReplicaId) {
        self.replace_disk(id);
        self.operator.rebuilds.insert(id);
        self.line.came(Effect::LedgerRebuilt);
    }

    /// Its disk damages a byte by itself.
    pub fn damage(&mut self, id: ReplicaId) {
        let node = Node::Replica(id);
        self.crash(node, Death::Killed);
        if self.disks[&node].flip() {
            self.oracle.disk_damaged(id);
        }
    }

    /// Disks that damaged something are replaced, also where nobody noticed.
    pub fn replace_damaged(&mut self) {
        for id in ids()
            .filter(|&id| self.oracle.is_damaged(id))
            .collect::<Vec<_>>()
        {
            self.rebuild_replica(id);
        }
    }

    /// Replicas that took another bazaar's journal are started anew, once they are wired well.
    pub fn restart_strays(&mut self) {
        for id in ids() {
            let stray = self.replicas.get(&id).and_then(Replica::journal);
            if stray.is_some_and(|journal| journal != JOURNAL) {
                self.crash(Node::Replica(id), Death::Killed);
            }
        }
    }

    /// A replica that cannot begin ends. So does one that must not be believed, and whoever operates
    /// it sees to it.
    pub fn end_failed(&mut self, id: ReplicaId) {
        let Some(replica) = self.replicas.get(&id) else {
            return;
        };
        if replica.is_damaged() && self.oracle.is_damaged(id) {
            return self.rebuild_replica(id);
        }
        assert!(!replica.is_damaged(), "replica {id} finds damage");
        if replica.has_failed() {
            return self.crash(Node::Replica(id), Death::Killed);
        }
        let Some(failure) = replica.refuted() else {
            return;
        };
        self.line.note(22, Some(Node::Replica(id)), || {
            format!("replica {id} is not believed: {failure}")
        });
        match failure {
            Failure::OtherJournal { own, .. } if own == JOURNAL => {
                // It is its catalog that is another one.
                self.line.came(Effect::StrangerRefused);
                self.crash(Node::Replica(id), Death::Killed);
            }
            Failure::OtherJournal { .. } => {
                let effect = match self.operator.foreign.remove(&id) {
                    true => Effect::ForeignDiskRefused,
                    false => Effect::StrayRefused,
                };
                self.line.came(effect);
                self.replace_disk(id);
            }
            Failure::AboveCatalog { .. } | Failure::OtherLeader { .. }
                if !self.operator.was_rolled_back =>
            {
                panic!("replica {id} is not believed: {failure}");
            }
            // Which of the two is wrong shows once the catalog is seen to.
            _ if !self.needs_no_ledger() => self.crash(Node::Replica(id), Death::Killed),
            failure => {
                let may_be = self.oracle.was_apart();
                assert!(may_be, "replica {id} is not believed: {failure}");
                self.rebuild_replica(id);
            }
        }
    }
}
