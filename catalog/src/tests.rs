//! The catalog over real gRPC on loopback.

mod harness;
mod trading;
mod leases;
mod identities;
mod taking;
mod restarts;
mod healing;
mod writer_lease;
mod rebuilding;
