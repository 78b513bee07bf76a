//! What is drawn from a seed before a simulation begins.

use std::time::Duration;

use catalog::config::NESTED_LEASE_MAX;
use catalog::stocks::Listing;
use catalog_core::Stock;
use domain::{Price, StockName};
use fastrand::Rng;

use crate::nemesis::Kind;
use crate::prefilled;

/// How many order replicas there are.
pub const REPLICAS: u32 = 3;

/// The file system that the stores are on.
pub static VFS: storage::location::Vfs = storage::location::Vfs {
    name: simulated_disk::NAME,
    rewrite: simulated_disk::rewrite,
    remove: simulated_disk::remove,
    list: simulated_disk::list,
};

static VFS_WITHOUT_REWRITE: storage::location::Vfs = storage::location::Vfs {
    name: simulated_disk::NAME,
    rewrite: |_| Ok(()),
    remove: simulated_disk::remove,
    list: simulated_disk::list,
};

const SHARES: u64 = 40;

/// The leases that catalogs are run with.
pub const LEASES_MS: [u64; 3] = [150, 400, 1000];

/// At times there are so many more clients.
const CROWD: usize = 20;

/// Of so many seeds one begins with a long journal: this one.
const PREFILLED_EVERY: u64 = 16;
const PREFILLED: u64 = 7;

/// Of so many seeds one has several catalogs: this one.
const SEVERAL_EVERY: u64 = 3;
const SEVERAL: u64 = 2;

/// What is taken out of a simulation, to show that it would notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Without {
    Catalog(catalog_core::Rule),
    Order(order_core::Rule),
    Gateway(frontend_core::Rule),
    /// Disks say that they synced, and did not.
    Syncs,
    /// A store believes what it finds in its log, and does not write it anew.
    DurableLog,
    /// Nobody looks at which journal a request names.
    NamedJournal,
    /// Whoever works leads, however many rows it lacks.
    NearestLeads,
    /// A catalog that is rebuilt leaves out what is beside ledgers.
    RowsBeside,
    /// A commit of which nobody knows counts as one that failed.
    AmbiguousEnds,
}

#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub seed: u64,
    pub without: Option<Without>,
    pub lease: Duration,
    pub gateways: usize,
    pub clients: usize,
    pub stocks: usize,
    /// There is a long journal at first, and a replica that lacks most of it.
    pub prefilled: bool,
    /// What a client does once there are no more faults.
    pub operations: u32,
    /// How long there are faults.
    pub trouble: Duration,
    /// Between two faults, on average.
    pub calm: Duration,
    /// Which faults there are. Not all at once: what is left out lets others go further (Groce
    /// et al., "Swarm Testing", ISSTA 2012).
    pub faults: Swarm,
    /// By how many millionths a clock may be wrong. Leases are counted with margins of 1 % and
    /// more for two such clocks.
    pub drift_ppm_max: i64,
    /// Between two operations of a client, at most.
    pub think: Duration,
    /// Of a hundred operations so many change stocks.
    pub changes: u32,
    /// How many catalogs there are. Several have a database that all reach; the only one has a disk.
    pub catalogs: usize,
}

/// A set of kinds of faults.
#[derive(Debug, Clone, Copy)]
pub struct Swarm(u32);

impl Swarm {
    pub fn of(kinds: &[Kind]) -> Self {
        Self(kinds.iter().fold(0, |set, &kind| set | 1 << kind as u32))
    }

    pub fn has(self, kind: Kind) -> bool {
        self.0 & (1 << kind as u32) != 0
    }
}

impl Plan {
    pub fn new(seed: u64) -> Self {
        let plan = Self::alone(seed);
        match seed % SEVERAL_EVERY {
            SEVERAL if !plan.prefilled => plan.several(),
            _ => plan,
        }
    }

    /// Of one catalog, whatever the seed.
    pub fn alone(seed: u64) -> Self {
        let mut random = Rng::with_seed(seed ^ 0x9e37_79b9_7f4a_7c15);
        let lease_ms = random.choice(LEASES_MS).expect("one of them");
        let plan = Self {
            seed,
            without: None,
            lease: Duration::from_millis(lease_ms),
            gateways: random.usize(2..=3),
            // At times so many that groups are committed which are too large to be proposed.
            clients: random.usize(3..=6) + random.choice([0, 0, 0, CROWD]).expect("one of them"),
            stocks: random.usize(1..=3),
            prefilled: false,
            operations: random.u32(4..=12),
            trouble: Duration::from_millis(random.u64(2_000..=9_000)),
            calm: Duration::from_millis(random.u64(60..=1_200)),
            faults: Swarm(random.u32(..)),
            drift_ppm_max: 4_000,
            think: Duration::from_millis(random.u64(4..=200)),
            changes: random.choice([2, 5, 30]).expect("one of them"),
            catalogs: 1,
        };
        match seed % PREFILLED_EVERY {
            PREFILLED => plan.prefilled(),
            _ => plan,
        }
    }

    /// The same with other faults, which follow closely. Of these, those that there are with so many catalogs.
    pub fn with(self, kinds: &[Kind]) -> Self {
        let calm_max = match self.catalogs {
            1 => Duration::from_millis(300),
            _ => Duration::from_millis(1_500),
        };
        Self {
            faults: Swarm::of(kinds),
            calm: self.calm.min(calm_max),
            ..self
        }
    }

    /// The same with two or three catalogs over one database.
    pub fn several(self) -> Self {
        Self {
            catalogs: 2 + usize::from(self.seed.is_multiple_of(2)),
            // No lease outlives the writer's own.
            lease: self.lease.min(NESTED_LEASE_MAX),
            // A take-over takes a second, and a fail-over of the database some more.
            trouble: 2 * self.trouble + Duration::from_secs(6),
            calm: 3 * self.calm + Duration::from_millis(500),
            prefilled: false,
            // So few orders that a catalog reads all of them before it serves.
            clients: self.clients.min(6),
            think: self.think.max(Duration::from_millis(20)),
            ..self
        }
    }

    pub fn short(self) -> Self {
        Self {
            trouble: self.trouble.min(Duration::from_secs(4)),
            clients: self.clients.min(4),
            operations: 4,
            ..self
        }
    }

    /// The same with clients that leave little time between their orders.
    pub fn crowded(self) -> Self {
        Self {
            clients: CROWD,
            think: Duration::from_millis(4),
            ..self
        }
    }

    /// The same with many changes of one stock.
    pub fn changing(self) -> Self {
        Self {
            changes: 30,
            ..self.crowded()
        }
    }

    /// The same with a long journal at first.
    pub fn prefilled(self) -> Self {
        Self {
            prefilled: true,
            stocks: prefilled::STOCKS,
            ..self
        }
    }

    /// The file system that the stores are on.
    pub fn vfs(&self) -> &'static storage::location::Vfs {
        match self.without {
            Some(Without::DurableLog) => &VFS_WITHOUT_REWRITE,
            _ => &VFS,
        }
    }

    pub fn names(&self) -> impl Iterator<Item = StockName> + use<> {
        let names = ["amc", "meta", "nike"];
        let name = |name| StockName::new(name).expect("a name");
        names.into_iter().take(self.stocks).map(name)
    }

    pub fn listings(&self) -> Vec<Listing> {
        let listing = |name| Listing {
            name,
            price: Price::from_minor(2000).expect("a price"),
            quantity: SHARES,
        };
        self.names().map(listing).collect()
    }

    pub fn first_stocks(&self) -> impl Iterator<Item = Stock> {
        let listings = self.listings().into_iter();
        listings.map(|listing| Stock::first(listing.name, listing.price, listing.quantity))
    }

    pub fn catalog_rules(&self) -> catalog_core::Rules {
        match self.without {
            Some(Without::Catalog(rule)) => catalog_core::Rules::without(rule),
            _ => catalog_core::Rules::default(),
        }
    }

    pub fn order_rules(&self) -> order_core::Rules {
        match self.without {
            Some(Without::Order(rule)) => order_core::Rules::without(rule),
            _ => order_core::Rules::default(),
        }
    }

    pub fn gateway_rules(&self) -> frontend_core::Rules {
        match self.without {
            Some(Without::Gateway(rule)) => frontend_core::Rules::without(rule),
            _ => frontend_core::Rules::default(),
        }
    }
}
