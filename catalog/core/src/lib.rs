//! The catalog's rules, without a clock, a disk or a network.
//!
//! - [`ledger`]: what is committed, and what a trade or an election makes of it;
//! - [`leases`]: who may hold which stock in a cache, and until when;
//! - [`visibility`]: what readers see of the stocks while trades become durable and caches let go;
//! - [`ablation`]: the protective rules that a test can take out.

pub mod ledger;
pub mod leases;
pub mod visibility;
pub mod ablation;

pub use ablation::{Rule, Rules};
pub use leases::{Floor, Gone, Leases, NotOpened, Recall, Renewal, Round};
pub use ledger::{
    Batch, Books, InSyncRefused, Known, Leadership, RefusedOrder, Staged, StaleEpoch, Stock, Term,
    TradeResult,
};
pub use visibility::{Board, Seen};
