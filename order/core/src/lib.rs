//! The replica as a pure state machine: it is told what happened and when, and says what is to
//! be done. No I/O, no clock, no randomness.
//!
//! - [`message`]: what goes in and what comes out;
//! - [`durable`]: what a replica's disk holds, and what a save makes of it;
//! - [`memory`]: such a disk in memory, for models and tests;
//! - `replica_log`: what this replica holds, on its disk and on the way there;
//! - [`catch_up`]: fetching what it lacks;
//! - [`in_flight`]: a leader's orders;
//! - `recent_rows`: a leader's last rows, to be sent;
//! - [`followers`]: a leader's followers and the in-sync set;
//! - [`replica`]: the whole;
//! - [`asker`]: when the catalog is asked who leads, and who waits for its answer;
//! - [`claim`]: whether a ledger is the beginning of the catalog's journal;
//! - [`join`]: a replica's start, until that is known;
//! - [`lookup`]: an order that is looked for, and what may be said of one that is not here;
//! - [`listing`]: a page of the orders, which lacks none that was acknowledged before it was asked for;
//! - [`timing`]: how long a replica waits for what;
//! - [`ablation`]: the protective rules that a test can take out.

pub mod message;
pub mod durable;
pub mod memory;
mod replica_log;
pub mod catch_up;
pub mod in_flight;
mod recent_rows;
pub mod followers;
pub mod replica;
pub mod asker;
pub mod claim;
pub mod join;
pub mod lookup;
pub mod listing;
pub mod timing;
pub mod ablation;
#[cfg(test)]
mod tests;

pub use ablation::{Rule, Rules};
pub use asker::Asker;
pub use claim::{Claim, claim};
pub use durable::{Durable, Save};
pub use join::Join;
pub use lookup::{JournalEnd, Lookup, Missing};
pub use message::{Command, Event, Failure, Heard, Status};
pub use replica::Replica;
