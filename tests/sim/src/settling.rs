//! What must hold of the disks, and of everything in the end.

use std::time::Duration;

use domain::RowNumber;
use order::store::Store as _;
use order_core::followers::STANDING_MAX;

use crate::catalog;
use crate::messages::Node;
use crate::plan::VFS;
use crate::replica::{self, ids};
use crate::world::World;

/// Of so many acknowledged orders one is looked for on the disks.
const DISK_CHECK_EVERY: u64 = 16;

impl World {
    /// Once clients are done: all agree, on disk as well.
    pub fn settle(&mut self) {
        let settled = self.line.now() + Duration::from_secs(4);
        // Followers that fell are in good standing by then.
        let latest = settled + STANDING_MAX;
        while self.line.now() < settled || self.line.now() < latest && !self.all_are_in_sync() {
            self.happen();
        }
        // Every gateway shows every stock as it is.
        for gateway in 0..self.plan.gateways {
            for name in self.plan.names() {
                self.clients[0].look(&mut self.line, &self.oracle, name, gateway);
                while !self.clients[0].is_done() {
                    self.happen();
                }
            }
        }
        assert!(
            self.all_are_in_sync(),
            "in sync in the end are {:?}: {}",
            self.oracle.in_sync(),
            self.summary()
        );
        for id in ids() {
            let disk = self.disks[&Node::Replica(id)].worst();
            let store = replica::open(&disk, &VFS).expect("the disk is well");
            let rows = store.reader().rows(RowNumber(0), usize::MAX >> 1);
            assert_eq!(
                rows.expect("readable"),
                self.oracle.journal(),
                "replica {id}"
            );
        }
        if self.site.is_some() {
            return self.settle_database();
        }
        let disk = self.disks[&Node::Catalog].worst();
        let mut store = catalog::open(&disk, &VFS).expect("the disk is well");
        let loaded = catalog::load(&mut store);
        assert_eq!(
            loaded.leadership().end,
            self.oracle.end(),
            "the catalog's disk"
        );
        self.oracle.check_state(&loaded);
    }

    fn all_are_in_sync(&self) -> bool {
        self.oracle.in_sync().iter().copied().eq(ids())
    }

    /// What is acknowledged would survive if all power failed now.
    pub fn check_disks(&mut self) {
        let acknowledged = self.oracle.acknowledged();
        if acknowledged.0 < self.checked.0 + DISK_CHECK_EVERY {
            return;
        }
        self.checked = acknowledged;
        for id in self.oracle.whole() {
            let disk = self.disks[&Node::Replica(id)].worst();
            let store = replica::open(&disk, &VFS).expect("the disk is well");
            let beside = store.continuing().expect("the disk is well");
            let held = self.oracle.held_with(store.durable().end, &beside);
            assert!(
                held >= acknowledged,
                "{id} would hold {held} of {acknowledged} orders"
            );
        }
        if self.site.is_some() || !self.needs_no_ledger() {
            return;
        }
        let disk = self.disks[&Node::Catalog].worst();
        let mut store = catalog::open(&disk, &VFS).expect("the disk is well");
        let held = catalog::load(&mut store).leadership().end.rows;
        assert!(
            held >= acknowledged,
            "the catalog would hold {held} of {acknowledged} orders"
        );
    }
}
