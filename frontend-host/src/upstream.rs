//! What the gateway calls: the catalog and the order replicas.
//!
//! - [`backend`]: reads and trades, carried out for requests; [`call`]: one call of theirs, and its span; `attempt`: one
//!   attempt, on another connection as well where its own is silent;
//! - [`batches`]: what goes to one service in messages of many; [`order_stream`]: orders on their
//!   way to a replica; [`takes`]: tokens that are taken at the catalog;
//! - [`replicas`]: which of them answer, and who leads; `election`: the policy's elections;
//!   `frontend_core` has the rules of both;
//! - [`session`]: the stream on which the catalog takes back what is cached.

pub mod backend;
pub mod call;
mod attempt;
pub mod batches;
mod election;
pub mod order_stream;
pub mod replicas;
pub mod session;
pub mod takes;
#[cfg(test)]
mod relay;
