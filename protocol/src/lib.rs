//! What Bazaar's services say to each other.
//!
//! - [`types`]: numbers, names and keys that cannot be wrong once made;
//! - [`journal`]: orders, the rows that record them, and the hash chain over the rows;
//! - [`wire`]: the generated gRPC messages, and their conversion from and to those types;
//! - [`identity`]: which journal a process keeps, and whom it therefore answers;
//! - [`time`]: the clock that leases are measured on;
//! - [`channel`]: how every service connects to another;
//! - [`serving`]: how every service takes connections; [`clients`]: whose they are; [`budget`]: how many
//!   bytes are held for them;
//! - [`calls`]: calls that follow each other closely, over streams that stay open;
//! - [`retry`]: whether a call that failed is worth another attempt;
//! - [`rules`]: the protective rules of a core, which a test can take out.
//!
//! The protos themselves live with the services that answer them, in `catalog/proto` and
//! `order/proto`.

#![cfg_attr(
    not(test),
    warn(clippy::disallowed_methods, clippy::print_stdout, clippy::print_stderr)
)]

pub mod types;
pub mod journal;
pub mod wire;
pub mod identity;
pub mod time;
pub mod channel;
pub mod serving;
pub mod clients;
pub mod budget;
pub mod calls;
pub mod retry;
pub mod rules;

pub use identity::Identity;
pub use journal::{ChainHash, Order, Row};
pub use rules::Rules;
pub use types::{
    Epoch, IdempotencyKey, Invalid, JournalId, ListingDigest, OrderNumber, Price, Quantity,
    ReplicaId, SessionId, Side, StockName, Version,
};
