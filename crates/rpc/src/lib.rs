//! How Bazaar's services reach each other.
//!
//! - [`connect`]: how every service connects to another; [`failover`]: to one that has several addresses, of
//!   which one is active;
//! - [`listen`]: how every service takes connections; [`access`]: what their callers may call; [`clients`]: whose
//!   they are; [`budget`]: how many bytes are held for them;
//! - [`call_streams`]: calls that follow each other closely, over streams that stay open;
//! - [`release`]: what every call says of the releases at its two ends;
//! - [`retry`]: whether a call that failed is worth another attempt, as its callee says.

#![warn(missing_docs)]
#![cfg_attr(
    not(test),
    warn(clippy::disallowed_methods, clippy::print_stdout, clippy::print_stderr)
)]

pub mod connect;
pub mod failover;
pub mod listen;
pub mod access;
pub mod clients;
pub mod budget;
pub mod call_streams;
pub mod release;
pub mod retry;
