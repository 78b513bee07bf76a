//! The catalog over real gRPC on loopback.

mod harness;
mod trading;
mod leases;
mod restarts;
mod ledger_check;
mod rebuilding;
