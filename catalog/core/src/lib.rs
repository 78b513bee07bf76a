//! The catalog's rules, without a clock, a disk or a network.
//!
//! - [`ledger`]: what is committed, and what a trade or an election makes of it;
//! - [`leases`]: who may hold which stock in a cache, and until when;
//! - [`standing`]: how long those who hold stocks may keep trades waiting;
//! - [`visibility`]: what readers see of the stocks while trades become durable and caches let go;
//! - [`hot_stocks`]: which stocks are lent to nobody for a while, since leases on them do not pay;
//! - [`limits`]: how often something may be done, over all gateways;
//! - [`writer_lease`]: which of several catalogs over one database serves;
//! - [`reach`]: when the active one hands over to one that more callers reach;
//! - [`self_healing`]: how a catalog that starts gets back what its database lost;
//! - [`ablation`]: the protective rules that a test can take out.

pub mod ledger;
pub mod leases;
pub mod standing;
pub mod visibility;
pub mod hot_stocks;
pub mod limits;
pub mod writer_lease;
pub mod reach;
pub mod self_healing;
pub mod ablation;

pub use ablation::{Rule, Rules};
pub use hot_stocks::HotStocks;
pub use leases::{Floor, Invalidation, Leases, NotOpened, Renewal, Round, SessionExpired};
pub use ledger::{
    Batch, CatalogState, InSyncRefused, Leadership, NotLeader, PriorOutcome, RefusedOrder, Staged,
    StaleEpoch, Stock, Term, TradeResult,
};
pub use limits::Limits;
pub use reach::{Reach, SaidCallers};
pub use self_healing::{HEALING_WAIT_MAX, HealingStep, SelfHealing};
pub use visibility::{Seen, Visibility};
pub use writer_lease::{WRITER_LEASE, WriterLease};
