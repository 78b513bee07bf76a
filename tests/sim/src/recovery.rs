//! How a catalog comes back that is lost, or may lack what it committed.

use std::collections::BTreeSet;
use std::time::Duration;

use catalog::config::lease_max;
use catalog::rebuild::fill;
use catalog::{Disagreement, Found, Ledgers};
use domain::{ChainHash, JournalId, RowNumber};
use order::inspect::Ledger;
use simulated_disk::{Death, Disk};
use storage::{DataDir, StorageError};

use crate::catalog::{JOURNAL, open as open_catalog};
use crate::effects::Effect;
use crate::messages::Node;
use crate::operator::CatalogDisk;
use crate::plan::{LEASES_MS, Without};
use crate::replica::{Replica, ids};
use crate::timeline::Happening;
use crate::world::World;

/// Until somebody sees to a catalog that does not run, at most.
const NOTICED_MAX: Duration = Duration::from_secs(2);

/// Until the replicas are started again that were stopped for a rebuild, at most.
const STARTED_MAX: Duration = Duration::from_millis(100);

/// Whoever operates the catalog.
impl World {
    pub fn call_operator(&mut self) {
        let noticed = NOTICED_MAX.mul_f64(self.line.random.f64().powi(2));
        self.line.after(noticed, Happening::Mend);
    }

    /// Somebody looks at what does not run.
    pub fn mend(&mut self) {
        self.restart_strays();
        match self.operator.catalog_disk {
            CatalogDisk::Lost => self.rebuild_catalog(),
            _ if !self.operator.is_wrong => {}
            CatalogDisk::Restored if self.line.random.bool() => {
                self.crash(Node::Catalog, Death::Killed);
                let whole = self.operator.aside.take();
                self.replace_catalog_disk(whole);
                self.operator.catalog_disk = CatalogDisk::Whole;
            }
            CatalogDisk::Whole | CatalogDisk::Restored | CatalogDisk::Rebuilt => {
                self.crash(Node::Catalog, Death::Killed);
                self.rebuild_catalog();
            }
        }
        self.operator.is_wrong = false;
    }

    /// Makes the catalog anew from the ledgers. Replicas are stopped first: a leader that went on could
    /// take from the lost catalog what it committed last, after its ledger was read.
    fn rebuild_catalog(&mut self) {
        for id in ids() {
            self.crash(Node::Replica(id), Death::Killed);
        }
        self.operator.catalog_disk = CatalogDisk::Lost;
        self.replace_catalog_disk(None);
        let lease = self.line.random.choice(LEASES_MS).expect("one of them");
        let lease = Duration::from_millis(lease);
        let rows = self.fill_catalog(lease);
        self.line.note(21, Some(Node::Catalog), || {
            format!("the catalog is rebuilt with {rows} orders")
        });
        self.operator.catalog_disk = CatalogDisk::Rebuilt;
        self.operator.lease = lease;
        self.operator.backup = None;
        let now = self.line.now();
        self.line.schedule(now, Happening::Start(Node::Catalog));
        for id in ids() {
            let started = STARTED_MAX.mul_f64(self.line.random.f64());
            self.line
                .after(started, Happening::Start(Node::Replica(id)));
        }
    }

    fn fill_catalog(&mut self, lease: Duration) -> RowNumber {
        let (opened, found) = self.ledgers();
        let compared =
            Ledgers::compared(&found, |place, number| chain_before(&opened[place], number));
        let ledgers = match compared {
            Ok(ledgers) => ledgers.expect("a replica that was in sync has a ledger"),
            Err(disagreement) => panic!("ledgers disagree: {disagreement:?}"),
        };
        let longest = found[ledgers.longest].end.rows;
        let read = opened[ledgers.longest].rows();
        let source = ledgers.rebuild_source(read);
        if source.lease_horizon > Some(lease_max(lease)) {
            self.line.came(Effect::RebuiltWaitedLonger);
        }
        let disk = &self.disks[&Node::Catalog];
        let mut store = open_catalog(disk, self.plan.vfs()).expect("the disk is well");
        let filled = fill(&mut store, &self.plan.listings(), lease, source);
        filled.expect("the ledgers are well");
        let loaded = store.load().expect("it was just made");
        let rows = loaded.state.leadership().end.rows;
        let journal = store.journal().expect("it was just made");
        let journal = journal.rows(RowNumber(0), rows.0 as usize);
        self.oracle.rebuilt(&journal.expect("it was just made"));
        if rows > longest {
            self.line.came(Effect::RebuiltFromBeside);
        }
        rows
    }

    /// What the ledgers say that are left: an empty disk has none, a damaged one cannot be read, and
    /// another bazaar's is refused by name.
    fn ledgers(&self) -> (Vec<Ledger>, Vec<Found>) {
        let read = |id| {
            // A copy, so that no process is disturbed.
            let disk = self.disks[&Node::Replica(id)].copy(0);
            let ledger = self.read_ledger(&disk).ok()?;
            Some((disk, ledger))
        };
        let read: Vec<_> = ids().filter_map(read).collect();
        let found: Vec<Found> = read.iter().map(|(_, (_, found))| found.clone()).collect();
        let first: Result<_, Disagreement<()>> =
            Ledgers::compared(&found, |_, _| Ok(ChainHash::EMPTY));
        let is_ours = |found: &Found| {
            let journal = found.identity.map(|identity| identity.journal);
            journal.is_none_or(|journal| journal == JOURNAL)
        };
        let has_others = matches!(first, Err(Disagreement::OtherJournal { .. }));
        assert_eq!(has_others, is_mixed(&found), "another journal is noticed");
        let read = read.into_iter().map(|(_, read)| read);
        read.filter(|(_, found)| is_ours(found)).unzip()
    }

    fn read_ledger(&self, disk: &Disk) -> Result<(Ledger, Found), StorageError> {
        let dir = DataDir::simulated(&disk.path(), self.plan.vfs());
        let ledger = Ledger::open_at(dir.location())?;
        let end = ledger.end()?;
        ledger.rows().try_for_each(|row| row.map(drop))?;
        let mut found = Found {
            end,
            term: ledger.term()?,
            highest_epoch: ledger.highest_epoch()?,
            identity: ledger.identity()?,
            beside: ledger.continuing(end)?,
            protocol: None,
        };
        if self.plan.without == Some(Without::RowsBeside) {
            found.beside.clear();
        }
        Ok((ledger, found))
    }
}

fn is_mixed(found: &[Found]) -> bool {
    let journals = found.iter().filter_map(|found| found.identity);
    let journals: BTreeSet<JournalId> = journals.map(|identity| identity.journal).collect();
    journals.len() > 1
}

/// The chain hash that a ledger has before a number.
fn chain_before(ledger: &Ledger, number: RowNumber) -> Result<ChainHash, StorageError> {
    let Some(last) = number.0.checked_sub(1) else {
        return Ok(ChainHash::EMPTY);
    };
    let row = ledger.rows_from(RowNumber(last)).next().transpose()?;
    Ok(row.map_or(ChainHash::EMPTY, |row| row.chain))
}

/// A catalog that may lack rows.
impl World {
    /// It starts: who may not reach it within a second.
    pub fn catalog_starts(&mut self, catalog: Node) {
        self.operator.has_begun = true;
        self.operator.is_judged = false;
        self.operator.ledgers = ids().map(|id| (id, self.oracle.ledger(id))).collect();
        let now = self.line.now();
        let is_hindered = |node: &Node| {
            let Node::Replica(id) = node else { return true };
            let host = &self.line.hosts[node];
            let runs = host.up && host.paused_until.is_none_or(|until| until <= now);
            let joined = self.replicas.get(id).is_some_and(Replica::serves);
            !runs || !joined || !self.line.network.is_fine(now, *node, catalog)
        };
        let nodes = ids().map(Node::Replica);
        self.operator.hindered = nodes.filter(is_hindered).collect();
    }

    /// Something keeps a process from reaching others, or may.
    pub fn hinder(&mut self, node: Node) {
        self.operator.hindered.insert(node);
    }

    /// Before anything reaches a catalog that may lack rows, and after: whether it goes on.
    pub fn mind_catalog(&mut self) {
        let Some(catalog) = &self.catalog else {
            return;
        };
        if catalog.lacks_row() {
            assert!(
                self.oracle.was_apart(),
                "a catalog believes that it lacks a row"
            );
            return self.stop_wrong_catalog();
        }
        if !self.oracle.is_apart() {
            return;
        }
        if catalog.is_healed() && !self.operator.is_judged {
            self.operator.is_judged = true;
            if self.oracle.lacks_acknowledged() {
                return self.stop_unnoticed();
            }
            if catalog.has_put_back() {
                self.line.came(Effect::RollbackHealed);
            }
        }
        let Some(catalog) = &self.catalog else {
            return;
        };
        if catalog.is_settled(&self.line) {
            self.oracle.opened();
            if self.operator.catalog_disk == CatalogDisk::Rebuilt {
                self.line.came(Effect::CatalogRebuilt);
            }
            self.operator.catalog_disk = CatalogDisk::Whole;
            self.operator.aside = None;
        }
    }

    /// A catalog that lacks what was acknowledged has waited for replicas in vain: it says so, and is
    /// stopped before it serves. That is all that is excused, and only where nobody could tell it.
    fn stop_unnoticed(&mut self) {
        let catalog = self.catalog.as_ref().expect("it runs");
        let rows = catalog.rows();
        for (&id, &ledger) in &self.operator.ledgers {
            let was_hindered = [Node::Catalog, Node::Replica(id)]
                .iter()
                .any(|node| self.operator.hindered.contains(node));
            let may_be = was_hindered && !catalog.has_heard(id);
            assert!(
                ledger <= rows || may_be,
                "a catalog would serve {rows} orders, and replica {id} has {ledger}"
            );
        }
        self.line.came(Effect::RollbackUnnoticed);
        self.stop_wrong_catalog();
    }

    fn stop_wrong_catalog(&mut self) {
        self.crash(Node::Catalog, Death::Killed);
        if self.operator.catalog_disk == CatalogDisk::Whole {
            // It served what it had, and was shown later what was acknowledged to nobody.
            self.operator.catalog_disk = CatalogDisk::Rebuilt;
        }
        self.operator.is_wrong = true;
        self.call_operator();
    }
}
