//! The replica as a pure state machine: it is told what happened and when, and says what is to
//! be done. No I/O, no clock, no randomness.
//!
//! - [`message`]: what goes in and what comes out;
//! - `own`: what this replica holds, on its disk and on the way there;
//! - [`catch_up`]: fetching what it lacks;
//! - [`trades`]: a leader's orders;
//! - `recent`: a leader's last rows, to be sent;
//! - [`followers`]: a leader's followers and the in-sync set;
//! - [`replica`]: the whole;
//! - [`claim`]: whether a ledger is the beginning of the catalog's journal;
//! - [`reads`]: what may be said of an order that is not here;
//! - [`rules`]: the protective rules that a test can take out.

pub mod message;
mod own;
pub mod catch_up;
pub mod trades;
mod recent;
pub mod followers;
pub mod replica;
pub mod claim;
pub mod reads;
pub mod rules;
#[cfg(test)]
pub(crate) mod tests;

pub use claim::{Claim, claim};
pub use message::{Command, Durable, Event, Failure, Head, Save, Status, Term};
pub use reads::Missing;
pub use replica::Replica;
pub use rules::{Rule, Rules};
