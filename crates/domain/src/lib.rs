//! Bazaar's values, which cannot be wrong once made.
//!
//! - [`invalid`]: why a value was refused;
//! - [`hex`]: bytes as people read them;
//! - [`ids`]: epochs, sessions, rows, orders, versions, replicas;
//! - [`values`]: what an order is made of: amounts, names and keys;
//! - [`stock_change`]: what operators change of the stocks;
//! - [`journal`]: orders, the rows that record them and changes of stocks, and the hash chain over the rows;
//! - [`identity`]: which journal a process keeps;
//! - [`leadership`]: who leads, in which epoch;
//! - [`start_waits`]: what a catalog that starts still waits for;
//! - [`protocol`]: by which version of their protocol services talk to each other;
//! - [`refusal`]: why the catalog refuses an order;
//! - [`retry`]: whether a call that failed is worth another attempt;
//! - [`time`]: the clock that leases are measured on;
//! - [`rate`]: how often something may be done;
//! - [`ablation`]: the protective rules of a core, which a test can take out.
//!
//! The cores of the catalog, the replicas and the gateway depend on this crate alone: no runtime, no
//! wire, no database.

#![warn(missing_docs)]
#![cfg_attr(
    not(test),
    warn(clippy::disallowed_methods, clippy::print_stdout, clippy::print_stderr)
)]

pub mod invalid;
pub mod hex;
pub mod ids;
pub mod values;
pub mod stock_change;
pub mod journal;
pub mod identity;
pub mod leadership;
pub mod start_waits;
pub mod protocol;
pub mod refusal;
pub mod retry;
pub mod time;
pub mod rate;
pub mod ablation;

pub use ablation::Rules;
pub use hex::Hex;
pub use identity::{Identity, JournalId, ListingDigest};
pub use ids::{CatalogRun, Epoch, OrderNumber, ReplicaId, RowNumber, SessionId, Version};
pub use invalid::Invalid;
pub use journal::{ChainHash, Entry, LedgerEnd, Order, Row};
pub use leadership::{ChangeNumber, JournalHead, Role, Term};
pub use protocol::{Protocol, Protocols};
pub use rate::{Rate, Take};
pub use refusal::Refusal;
pub use retry::RetryClass;
pub use start_waits::{LedgerWait, StartWaits};
pub use stock_change::{Note, StockChange, StockChangeKind};
pub use values::{IdempotencyKey, Price, Quantity, Side, StockName};
