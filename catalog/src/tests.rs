//! The catalog over real gRPC on loopback.

mod harness;
mod trading;
mod leases;
mod taking;
mod restarts;
mod ledger_check;
mod writer_lease;
mod rebuilding;
