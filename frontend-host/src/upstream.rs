//! What the gateway calls: the catalog and the order replicas.
//!
//! - [`backend`]: reads and trades, carried out for requests;
//! - [`order_stream`]: orders on their way to a replica;
//! - [`replicas`]: which of them answer, and who leads; `election`: the policy's elections;
//!   `frontend_core` has the rules of both;
//! - [`session`]: the stream on which the catalog takes back what is cached.

pub mod backend;
mod election;
pub mod order_stream;
pub mod replicas;
pub mod session;
