//! Disks on which there is a long journal already, so that a simulation begins with a replica that
//! lacks more rows than one answer to a fetch has.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use catalog_core::{Batch, Term as CatalogTerm};
use domain::{
    ChangeNumber, Epoch, IdempotencyKey, Identity, LedgerEnd, ListingDigest, Order, Quantity,
    ReplicaId, Row, Side, Term,
};
use order::store::Store as _;
use order_core::durable::Save;
use simulated_disk::Disk;

use crate::branch::{Branch, end};
use crate::catalog::{JOURNAL, open as open_catalog};
use crate::messages::Node;
use crate::plan::{Plan, VFS};
use crate::replica::{self, FAR_BEHIND_ROWS, ids};

/// How many rows the journal has, and one ledger.
const ROWS: usize = FAR_BEHIND_ROWS as usize + 500;
const ROWS_BEHIND: usize = 300;

/// Which stocks there are.
pub const STOCKS: usize = 2;

/// What there is at first.
pub struct Prefilled {
    pub rows: Vec<Row>,
    pub term: CatalogTerm,
    catalog: Disk,
    replica: Disk,
    behind: Disk,
}

/// Whose ledger is far behind: the default policy would have it lead before all others.
fn behind() -> ReplicaId {
    ids().last().expect("there are some")
}

impl Prefilled {
    /// The same for all simulations, but for chance on the disks.
    pub fn get(plan: &Plan) -> Rc<Self> {
        thread_local! {
            static MADE: OnceCell<Rc<Prefilled>> = const { OnceCell::new() };
        }
        MADE.with(|made| Rc::clone(made.get_or_init(|| Rc::new(Self::make(plan)))))
    }

    fn make(plan: &Plan) -> Self {
        let rows = rows(plan);
        let mut in_sync: Vec<ReplicaId> = ids().filter(|&id| id != behind()).collect();
        let term = CatalogTerm {
            epoch: Epoch(1),
            leader: in_sync.first().copied(),
            change: ChangeNumber::new(1).expect("a number"),
            in_sync: in_sync.drain(..).collect(),
        };
        let catalog = Disk::new(0);
        let mut store = open_catalog(&catalog, &VFS).expect("the disk is well");
        store
            .begin(JOURNAL, &plan.listings(), domain::Protocol::NEWEST)
            .expect("it is well");
        let branch = Branch::of(plan.first_stocks(), &rows);
        let batch = Batch {
            stocks: branch
                .stocks()
                .filter(|it| it.version.0 > 1)
                .cloned()
                .collect(),
            rows: rows.clone(),
            term: Some(term.clone()),
            ..Batch::default()
        };
        store.commit(&batch).expect("the disk is well");
        let listing = store.load().expect("the disk is well").listing;
        drop(store);
        let known = Term {
            epoch: term.epoch,
            leader: term.leader,
        };
        Self {
            catalog,
            replica: ledger(known, listing, &rows),
            behind: ledger(known, listing, &rows[..ROWS_BEHIND]),
            rows,
            term,
        }
    }

    /// A disk of a process's.
    pub fn disk(&self, node: Node, seed: u64) -> Disk {
        let disk = match node {
            Node::Replica(id) if id == behind() => &self.behind,
            Node::Replica(_) => &self.replica,
            _ => &self.catalog,
        };
        disk.copy(seed)
    }

    /// Where each ledger ends.
    pub fn ledgers(&self) -> BTreeMap<ReplicaId, LedgerEnd> {
        let rows = |id: ReplicaId| match id == behind() {
            true => &self.rows[..ROWS_BEHIND],
            false => &self.rows[..],
        };
        ids().map(|id| (id, end(rows(id)))).collect()
    }
}

fn ledger(term: Term, listing: ListingDigest, rows: &[Row]) -> Disk {
    let disk = Disk::new(0);
    let mut store = replica::open(&disk, &VFS).expect("the disk is well");
    let save = Save {
        identity: Some(Identity {
            journal: JOURNAL,
            listing,
            lease_horizon: Duration::from_millis(1),
        }),
        term: Some(term),
        rows: rows.to_vec(),
        ..Save::default()
    };
    store.save(&save).expect("the disk is well");
    disk
}

/// Shares go to and fro.
fn rows(plan: &Plan) -> Vec<Row> {
    let name = plan.names().next().expect("at least one");
    let price = plan.listings()[0].price;
    let mut rows: Vec<Row> = Vec::new();
    for number in 0..ROWS {
        let order = Order {
            key: IdempotencyKey::new(&format!("before-{number}")).expect("a key"),
            name: name.clone(),
            side: [Side::Buy, Side::Sell][number % 2],
            quantity: Quantity::new(1).expect("a quantity"),
        };
        rows.push(Row::following(&end(&rows), Epoch(1), order, price));
    }
    rows
}
