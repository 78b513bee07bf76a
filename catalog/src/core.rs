//! The catalog's rules, without a clock, a disk or a network.
//!
//! - [`books`]: what is committed, and what a trade or an election makes of it;
//! - [`leases`]: who may hold which stock in a cache, and until when;
//! - [`board`]: what readers see of the stocks while trades become durable and caches let go;
//! - [`rules`]: the protective rules that a test can take out.

pub mod books;
pub mod leases;
pub mod board;
pub mod rules;

pub use board::{Board, Seen};
pub use books::{
    Batch, Books, ChangeNumber, InSyncRefused, Known, Leadership, Refusal, RefusedOrder, Staged,
    StaleEpoch, Stock, Term, TradeResult,
};
pub use leases::{Floor, Gone, Leases, NotOpened, Recall, Renewal, Round};
pub use rules::{Rule, Rules};
